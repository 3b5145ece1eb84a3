//! Looking records up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cache::keyed::{Scope, SharedRecord, Unacceptable};
use futures_util::{StreamExt as _, TryStreamExt as _};
use solver::{Kept, Key, VertexContext};

use super::home::{Home, HomeError, blob_name, record_name};
use super::{KeyedCaches, Located, Source};
use crate::daemon::progress::Step;

/// How many records are asked for at a time.
const AT_ONCE: usize = 64;
/// What is used again is made young after so long, so that it does not expire.
pub(super) const REFRESH: Duration = Duration::from_hours(12);

/// How long a record may be on its way: a step takes hardly longer, and there are many records.
const PATIENCE: Duration = Duration::from_secs(20);

/// The bytes of a record, if there is one.
type Read = Result<Option<Vec<u8>>, HomeError>;

impl Source {
    /// Notes that a record is none to go by, for who asks why the step ran.
    fn note_unacceptable(&self, key: Key, why: Unacceptable) {
        let why = match why {
            Unacceptable::Damaged => "its record is damaged",
            Unacceptable::Untrusted => "its record is not signed by anybody who is trusted",
        };
        self.unacceptable().insert(key, why);
    }
}

impl KeyedCaches {
    /// The records under `keys`, in that order; fewer where the rest has none.
    pub(in crate::daemon) async fn lend(&self, keys: &[Key], cx: &VertexContext) -> Vec<Option<Kept>> {
        let sources = self.lock().sources.clone();
        let mut found: Vec<Option<Kept>> = Vec::new();
        for source in sources.iter().filter(|source| source.failed.get().is_none()) {
            found.resize(keys.len(), None);
            let missing: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
            let wanted: Vec<Key> = missing.iter().map(|at| keys[*at]).collect();
            if wanted.is_empty() {
                break;
            }
            let looked = tokio::select! {
                looked = self.told(source, self.look(source, &wanted, cx)) => looked,
                () = cx.cancel.cancelled() => return Vec::new(),
            };
            match looked {
                Ok(records) => {
                    for (at, record) in missing.into_iter().zip(records) {
                        found[at] = record;
                    }
                }
                Err(error) => {
                    let error = solver::redacted(&crate::causes::causes(&error)).into_owned();
                    tracing::warn!(build = cx.build, "cannot look into {}: {error}", source.wanted.name());
                    let _ = source.failed.set(error);
                }
            }
        }
        found
    }

    /// Shows that a source is looked into, the first time.
    async fn told(
        &self,
        source: &Source,
        look: impl Future<Output = Result<Vec<Option<Kept>>, HomeError>>,
    ) -> Result<Vec<Option<Kept>>, HomeError> {
        let step = (!source.told.swap(true, Ordering::Relaxed)).then(|| self.importing(source));
        let looked = look.await;
        if let Some(step) = step {
            step.warn(&source.faults().take());
            let _ = step.end(looked.as_ref().map(drop).map_err(|e| crate::causes::causes(e)));
        }
        looked
    }

    fn importing(&self, source: &Source) -> Step {
        self.teller.step(&format!("importing cache from {}", source.wanted.name()))
    }

    /// Tells what turned out to be wrong with the caches since they were first looked into.
    pub(in crate::daemon) fn tell_faults(&self) {
        let sources = self.lock().sources.clone();
        for source in sources {
            let faults = source.faults().take();
            if !faults.is_empty() {
                let step = self.importing(&source);
                step.warn(&faults);
                // It cannot fail.
                let _ = step.end(Ok::<_, HomeError>(()));
            }
        }
    }

    async fn look(
        &self,
        source: &Source,
        keys: &[Key],
        cx: &VertexContext,
    ) -> Result<Vec<Option<Kept>>, HomeError> {
        let home = self.home(&source.wanted.place, cx).await?;
        let mut found: Vec<Option<Kept>> = vec![None; keys.len()];
        for scope in &source.wanted.scopes {
            let missing: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
            let one = |at: usize| {
                let home = &home;
                async move {
                    let record = tokio::time::timeout(PATIENCE, home.record(scope, &keys[at])).await;
                    match record.unwrap_or(Err(HomeError::Silent(PATIENCE))) {
                        Err(error) if error.is_of_one() => Ok((at, Err(error))),
                        read => read.map(|read| (at, Ok(read))),
                    }
                }
            };
            let read = futures_util::stream::iter(missing.into_iter().map(one)).buffer_unordered(AT_ONCE);
            let read: Vec<(usize, Read)> = read.try_collect().await?;
            if read.iter().any(|(_, read)| read.is_ok()) {
                source.works.store(true, Ordering::Relaxed);
            }
            for (at, read) in read {
                let bytes = match read {
                    Ok(bytes) => bytes,
                    // As long as nothing could be read, it is the store.
                    Err(error) if !source.works.load(Ordering::Relaxed) => return Err(error),
                    Err(error) => {
                        let level = record_name(scope, &keys[at]);
                        let why = crate::causes::causes(&error);
                        tracing::warn!(
                            build = cx.build,
                            "record `{level}` cannot be read; doing without it: {why}"
                        );
                        source.unacceptable().insert(keys[at], "its record cannot be read");
                        source.faults().unread(&why);
                        continue;
                    }
                };
                let Some(bytes) = bytes else { continue };
                match SharedRecord::open(&bytes, &keys[at], scope, &source.wanted.trust) {
                    Ok(record) => found[at] = Some(self.take(source, scope, &home, record)),
                    Err(why) => {
                        let level = record_name(scope, &keys[at]);
                        source.note_unacceptable(keys[at], why);
                        match why {
                            Unacceptable::Damaged => {
                                source.faults().damaged += 1;
                                tracing::warn!(
                                    build = cx.build,
                                    "record `{level}` is damaged; doing without it"
                                )
                            }
                            Unacceptable::Untrusted => {
                                source.faults().untrusted += 1;
                                tracing::debug!(build = cx.build, "record `{level}`: {why}; doing without it")
                            }
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Notes what a record says, and keeps it from expiring.
    fn take(&self, source: &Source, scope: &Scope, home: &Arc<Home>, record: SharedRecord) -> Kept {
        let id = source.wanted.place.id();
        // Another scope had one that was none to go by.
        source.unacceptable().remove(&record.key);
        {
            let mut known = self.lock();
            known.there.insert((id.clone(), scope.clone(), record.key));
            let rank = known.rank(&source.wanted, scope);
            for layer in record.own_layers() {
                let (home, store, id) = (home.clone(), source.wanted.place.url.clone(), id.clone());
                let spent = false;
                known.locate(Located { rank, home, store, id, layer: layer.clone(), spent });
            }
        }
        let names = record.blobs().into_iter().map(|blob| blob_name(&blob.digest));
        let names: Vec<String> = std::iter::once(record_name(scope, &record.key)).chain(names).collect();
        self.uploads.keep_young(home.clone(), names);
        Kept { record: record.record, stands_on: record.stands_on }
    }
}
