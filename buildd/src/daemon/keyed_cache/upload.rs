//! Writing caches, behind the build.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cache::keyed::{RECORD_LIMIT, Scope, SharedBlob, SharedLayer, SharedRecord};
use cache::oci::Reference;
use solver::{ExecError, Key, LayerId, Made, StandsOn, VertexContext};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

use super::home::{Home, HomeError, How, blob_name, record_name};
use super::lend::REFRESH;
use super::traffic::Traffic;
use super::{KeyedCaches, KeyedTarget};
use crate::daemon::export::StoredBlob;
use crate::progress::{bytes as readable, plural};

/// How many results are written at a time.
const AT_ONCE: usize = 8;
/// How long the end of a build waits for what was read to be made young.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a build writes.
pub(super) struct Uploads {
    pub(super) targets: Mutex<Vec<Arc<Target>>>,
    /// What is under way for whoever is waited for, by target.
    pub(super) writes: Mutex<JoinSet<(usize, Result<(), UploadError>)>>,
    /// What is made young.
    young: Mutex<JoinSet<()>>,
    /// So many of those are at it.
    turns: Arc<Semaphore>,
    /// The end of the build has been waited for.
    pub(super) finished: AtomicBool,
}

impl Default for Uploads {
    fn default() -> Self {
        let (targets, writes, young, finished) = Default::default();
        Self { targets, writes, young, turns: Arc::new(Semaphore::new(AT_ONCE)), finished }
    }
}

/// A key that a record is to lie under, and what it was made on.
type Wanted = (Key, Option<StandsOn>);

/// A cache to write.
pub(super) struct Target {
    pub(super) wanted: KeyedTarget,
    turns: Semaphore,
    /// By layer: it was written, once.
    layers: Mutex<HashMap<LayerId, Arc<OnceCell<SharedLayer>>>>,
    /// The keys of what was begun.
    begun: Mutex<HashSet<Key>>,
    pub(super) tally: Tally,
    pub(super) traffic: Arc<Traffic>,
}

/// How much was written.
#[derive(Debug, Default)]
pub(super) struct Tally {
    records: AtomicU64,
    layers: AtomicU64,
    bytes: AtomicU64,
}

/// A result could not be written.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum UploadError {
    /// The store does not take it.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// It cannot be read here.
    #[error(transparent)]
    Here(ExecError),
}

impl Uploads {
    /// What is written.
    pub(super) fn wanted(&self) -> Vec<KeyedTarget> {
        lock(&self.targets).iter().map(|target| target.wanted.clone()).collect()
    }

    /// The repositories among what is written.
    pub(super) fn repositories(&self) -> Vec<Reference> {
        let targets = lock(&self.targets);
        targets.iter().filter_map(|target| target.wanted.place.repository().cloned()).collect()
    }

    /// Makes these young behind the build, where they have grown old.
    pub(super) fn keep_young(&self, home: Arc<Home>, names: Vec<String>) {
        let turns = self.turns.clone();
        lock(&self.young).spawn(async move {
            let _turn = turns.acquire().await;
            for name in names {
                if let Err(error) = home.refresh(&name, REFRESH).await {
                    tracing::debug!("cannot keep `{name}` from expiring: {error}");
                }
            }
        });
    }
}

impl KeyedCaches {
    /// Writes this one, too, from now on.
    pub(in crate::daemon) fn write_to(&self, wanted: KeyedTarget) {
        let target = Target {
            wanted,
            turns: Semaphore::new(AT_ONCE),
            layers: Mutex::default(),
            begun: Mutex::default(),
            tally: Tally::default(),
            traffic: Arc::default(),
        };
        lock(&self.uploads.targets).push(Arc::new(target));
    }

    /// Begins to write what an execution gave.
    pub(in crate::daemon) fn made(self: &Arc<Self>, made: &Made, cx: &VertexContext) {
        self.begin(made, |_, _| true, cx);
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        made: &Made,
        wanted: impl Fn(&Target, &Key) -> bool,
        cx: &VertexContext,
    ) {
        let targets = lock(&self.uploads.targets).clone();
        for (at, target) in targets.into_iter().enumerate() {
            let (me, made, cx) = (self.clone(), made.clone(), cx.clone());
            let new = |key: &Key| wanted(&target, key) && lock(&target.begun).insert(*key);
            let names = made.content.iter().map(|key| (*key, None));
            let by_definition = made.definition.iter().map(|name| (name.key, Some(name.stands_on.clone())));
            let keys: Vec<Wanted> = names.chain(by_definition).filter(|(key, _)| new(key)).collect();
            if keys.is_empty() {
                continue;
            }
            lock(&self.uploads.writes).spawn(async move {
                let write = async {
                    let _turn = target.turns.acquire().await;
                    me.write(&target, &made, &keys, &cx).await
                };
                tokio::select! {
                    written = write => (at, written),
                    () = cx.cancel.cancelled() => (at, Err(UploadError::Here(ExecError::Canceled))),
                }
            });
        }
    }

    /// Waits, for a while, until what was used has been made young.
    pub(in crate::daemon) async fn rest(&self) {
        let mut young = std::mem::take(&mut *lock(&self.uploads.young));
        let all = async { while young.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }

    /// Whether any cache is written.
    pub(in crate::daemon) fn writes(&self) -> bool {
        !lock(&self.uploads.targets).is_empty()
    }

    async fn write(
        &self,
        target: &Target,
        made: &Made,
        keys: &[Wanted],
        cx: &VertexContext,
    ) -> Result<(), UploadError> {
        let KeyedTarget { place, scope, .. } = &target.wanted;
        let home = self.home(place, cx).await?;
        home.prepare().await?;
        let mut missing = Vec::new();
        for wanted in keys {
            if let Some(how) = self.wanting(target, &home, made, wanted).await? {
                missing.push((wanted.clone(), how));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut layers = Vec::new();
        if target.wanted.all || made.in_result {
            for id in made.record.outputs.values().filter_map(|output| output.layer) {
                if made.lent && !self.borrowed(id, made, cx).await {
                    return Ok(());
                }
                layers.push(self.layer_at(target, &home, id, made.in_result, cx).await?);
            }
        }
        for ((key, stands_on), how) in missing {
            let (record, layers) = (made.record.as_ref().clone(), layers.clone());
            let record = SharedRecord { key, record, stands_on, layers };
            let sealed = record.seal(scope, target.wanted.signer.as_ref());
            let size = sealed.len() as u64;
            if size > RECORD_LIMIT {
                tracing::debug!(build = cx.build, "a record of {size} bytes is too large to be shared");
                continue;
            }
            if home.put_record(scope, &record, sealed, how).await? {
                target.tally.records.fetch_add(1, Ordering::Relaxed);
                target.tally.bytes.fetch_add(size, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Brings in a layer of a lent record that is to go to another store; whether that worked.
    async fn borrowed(&self, id: LayerId, made: &Made, cx: &VertexContext) -> bool {
        let brought = self.layer(id, &made.record.name, cx).await;
        if let Err(error) = &brought {
            let error = crate::causes::causes(error);
            tracing::warn!(build = cx.build, "a shared result cannot be handed on: {error}");
        }
        brought.is_ok()
    }

    /// How a record is to be written, if it is.
    async fn wanting(
        &self,
        target: &Target,
        home: &Arc<Home>,
        made: &Made,
        (key, stands_on): &Wanted,
    ) -> Result<Option<How>, HomeError> {
        let scope: &Scope = &target.wanted.scope;
        let replace = home.can_replace().then_some(How::Replace);
        let bytes = match home.record(scope, key).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Some(How::IfAbsent)),
            // One that can be read takes its place.
            Err(error) if error.is_of_one() => return Ok(replace),
            Err(error) => return Err(error),
        };
        let Ok(there) = SharedRecord::open(&bytes, key, scope, &target.wanted.trust) else {
            return Ok(replace);
        };
        let whole = there.is_whole() || !(target.wanted.all || made.in_result);
        // What was made just now on something else than what is there is what fits the records of what is below it. What this machine
        // has from before may fit nothing there.
        let fits = there.stands_on == *stands_on || made.content.is_none();
        if made.forced || !fits || !whole || self.is_no_good(target, &there) {
            return Ok(replace);
        }
        let blobs = there.blobs().into_iter().map(|blob| blob_name(&blob.digest));
        let names = std::iter::once(record_name(scope, key)).chain(blobs).collect();
        self.uploads.keep_young(home.clone(), names);
        Ok(None)
    }

    /// Whether a blob of a record was found to be damaged, or its layers not to be what it says.
    fn is_no_good(&self, target: &Target, record: &SharedRecord) -> bool {
        let known = self.lock();
        let store = target.wanted.place.id();
        if record.own_layers().any(|layer| known.refused.contains_key(&layer.id)) {
            return true;
        }
        record.blobs().into_iter().any(|blob| known.damaged.contains(&(store.clone(), blob.clone())))
    }

    /// A layer, once it lies in the store.
    async fn layer_at(
        &self,
        target: &Target,
        home: &Home,
        id: LayerId,
        in_image: bool,
        cx: &VertexContext,
    ) -> Result<SharedLayer, UploadError> {
        let cell = lock(&target.layers).entry(id).or_default().clone();
        let write = || async {
            let layer = self.shared(id, in_image, cx).await.map_err(UploadError::Here)?;
            for blob in [&layer.entries, &layer.tar] {
                self.blob_at(target, home, blob).await?;
            }
            target.tally.layers.fetch_add(1, Ordering::Relaxed);
            Ok::<_, UploadError>(layer)
        };
        Ok(cell.get_or_try_init(write).await?.clone())
    }

    async fn blob_at(&self, target: &Target, home: &Home, blob: &SharedBlob) -> Result<(), HomeError> {
        let damaged = self.lock().damaged.contains(&(target.wanted.place.id(), blob.clone()));
        if let Some(stat) = home.stat(blob).await?.filter(|_| !damaged) {
            // A sweep may be about to remove what is old: then it is written again.
            let old = super::home::is_old(&stat, REFRESH);
            if !old || matches!(home.refresh(&blob_name(&blob.digest), REFRESH).await, Ok(true)) {
                return Ok(());
            }
        }
        let store = self.parts.chains.store.clone();
        let source = target.traffic.of(Arc::new(StoredBlob { store, digest: blob.digest }), blob.size);
        home.put(blob, source).await?;
        target.tally.bytes.fetch_add(blob.size, Ordering::Relaxed);
        Ok(())
    }
}

impl Tally {
    /// For people.
    pub(super) fn told(&self) -> String {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (records, layers, bytes) = (get(&self.records), get(&self.layers), get(&self.bytes));
        match records {
            0 => "nothing new to write".to_owned(),
            _ => format!(
                "wrote {}, {}, {}",
                plural(records, "record"),
                plural(layers, "layer"),
                readable(i64::try_from(bytes).unwrap_or(i64::MAX))
            ),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
