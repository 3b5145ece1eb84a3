//! What a store has of a mount.

use std::collections::HashSet;
use std::time::Duration;

use cache::keyed::{MountSnapshot, Scope, SharedBlob, SnapshotName, Trust, Unacceptable};
use cache::mounts::{LIST_LIMIT, MountError, MountList};
use futures_util::{StreamExt as _, TryStreamExt as _};
use solver::{Digest, VertexContext};
use tokio::io::AsyncReadExt as _;

use super::TravelError;
use crate::daemon::blocking::blocking;
use crate::daemon::keyed_cache::KeyedCaches;
use crate::daemon::keyed_cache::home::{Home, snapshot_name};
use crate::daemon::keyed_cache::place::KeyedPlace;
use crate::daemon::timestamp::now_ms;

/// How often the names are asked for anew when one of them has gone meanwhile, and the first pause before that.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(20);
/// How many snapshots are united at most, and how many bytes of memory their lists take. More are left for whoever comes next.
const MOST: usize = 256;
const MOST_MEMORY: usize = 1 << 30;
/// How many snapshots are looked at, the newest first, and how many at a time.
const LOOKED_AT: usize = 4096;
const AT_ONCE: usize = 16;
/// What is further ahead of this machine's clock is nobody's, in milliseconds.
const AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// What a scope of a store has of a mount.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// The snapshots that count, the newest first.
    pub(super) snapshots: Vec<MountSnapshot>,
    /// What each of them says.
    pub(super) lists: Vec<MountList>,
    /// Those that another one takes the place of: they count, are in one that does, or are damaged.
    pub(super) replaceable: Vec<SnapshotName>,
    /// The oldest that was left for others: no snapshot may tell what is younger by its age only.
    pub(super) unread: Option<SnapshotName>,
}

/// The snapshots of a listing that count, before their lists are read.
#[derive(Debug, Default)]
struct Found {
    counted: Vec<MountSnapshot>,
    damaged: Vec<SnapshotName>,
    missing: HashSet<SnapshotName>,
    /// Not all were looked at: those from here on, which are older.
    from: Option<usize>,
}

impl Current {
    /// The names of those that count.
    pub(super) fn counted(&self) -> Vec<String> {
        self.snapshots.iter().map(|snapshot| snapshot.name.to_string()).collect()
    }
}

impl KeyedCaches {
    /// Reads what a store has of a mount. What is damaged or not trusted is left out.
    pub(super) async fn current(
        &self,
        (place, home): (&KeyedPlace, &Home),
        (scope, trust): (&Scope, &Trust),
        mount: &Digest,
        cx: &VertexContext,
    ) -> Result<Current, TravelError> {
        let mut missing = HashSet::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * 2u32.pow(attempt)).await;
            }
            let mut names = home.snapshots(scope, mount).await?;
            let horizon = now_ms().saturating_add(AHEAD_MS);
            // What is listed twice and never there is a name without a thing.
            names.retain(|name| !name.is_after(horizon) && !missing.contains(name));
            names.sort_unstable_by(|a, b| b.cmp(a));
            let found = find(home, (scope, trust), mount, &names, cx).await?;
            if found.missing.is_empty() {
                return self.read_lists((place, home), found, names, cx).await;
            }
            // Whoever removed them has written another one.
            missing.extend(found.missing);
        }
        Err(TravelError::Restless)
    }

    async fn read_lists(
        &self,
        (place, home): (&KeyedPlace, &Home),
        found: Found,
        names: Vec<SnapshotName>,
        cx: &VertexContext,
    ) -> Result<Current, TravelError> {
        let mut current = Current { replaceable: found.damaged, ..Current::default() };
        let (mut memory, mut left) = (0, Vec::new());
        for snapshot in found.counted {
            if memory > MOST_MEMORY {
                left.push(snapshot.name);
                continue;
            }
            current.replaceable.push(snapshot.name.clone());
            current.replaceable.extend(names.iter().filter(|name| snapshot.told.has(name)).cloned());
            match self.list(place, home, &snapshot.list).await {
                Ok(list) => {
                    memory += list.entries.memory();
                    current.snapshots.push(snapshot);
                    current.lists.push(list);
                }
                Err(error @ TravelError::Damaged { .. }) => {
                    tracing::warn!(build = cx.build, "{}; doing without it", crate::causes::causes(&error));
                }
                Err(error) => return Err(error),
            }
        }
        left.extend(names.into_iter().skip(found.from.unwrap_or(usize::MAX)));
        current.replaceable.sort_unstable();
        current.replaceable.dedup();
        current.unread =
            left.into_iter().filter(|name| current.replaceable.binary_search(name).is_err()).min();
        Ok(current)
    }

    async fn list(
        &self,
        place: &KeyedPlace,
        home: &Home,
        blob: &SharedBlob,
    ) -> Result<MountList, TravelError> {
        if self.lock().damaged.contains(&(place.id(), blob.clone())) {
            let source = MountError::Damaged("it is not what its packs are");
            return Err(self.damaged_blob(place, blob, source));
        }
        let bytes = self.whole(place, home, blob, LIST_LIMIT).await?;
        let damaged = self.damaged_packs(place);
        let decoded = blocking(move || {
            let mut list = MountList::decode(&bytes)?;
            list.forget(&damaged);
            Ok(list)
        });
        decoded.await.map_err(|source| self.damaged_blob(place, blob, source))
    }

    /// The blobs of a store that are known to be something else.
    fn damaged_packs(&self, place: &KeyedPlace) -> HashSet<Digest> {
        let store = place.id();
        let known = self.lock();
        known.damaged.iter().filter(|(of, _)| *of == store).map(|(_, blob)| blob.digest).collect()
    }

    /// A blob, which is what its digest says.
    pub(super) async fn whole(
        &self,
        place: &KeyedPlace,
        home: &Home,
        blob: &SharedBlob,
        limit: u64,
    ) -> Result<Vec<u8>, TravelError> {
        if blob.size > limit {
            return Err(self.damaged_blob(place, blob, MountError::Damaged("it is too large")));
        }
        let read = async {
            let mut bytes = Vec::with_capacity(blob.size as usize);
            home.blob(blob).await?.read_to_end(&mut bytes).await.map_err(TravelError::Broken)?;
            if (bytes.len() as u64) < blob.size {
                // A store may break off without a word.
                return Err(TravelError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(bytes)
        };
        let bytes = match read.await {
            Err(TravelError::Home(_) | TravelError::Broken(_))
                if matches!(home.stat(blob).await, Ok(None)) =>
            {
                return Err(self.damaged_blob(place, blob, MountError::Damaged("it is not there any more")));
            }
            read => read?,
        };
        let wanted = blob.digest;
        match blocking(move || (Digest::of(&bytes) == wanted).then_some(bytes)).await {
            Some(bytes) => Ok(bytes),
            None => Err(self.damaged_blob(place, blob, MountError::Damaged("its digest is another one"))),
        }
    }

    /// Notes that a blob is something else.
    pub(super) fn damaged_blob(
        &self,
        place: &KeyedPlace,
        blob: &SharedBlob,
        source: MountError,
    ) -> TravelError {
        self.lock().damaged.insert((place.id(), blob.clone()));
        TravelError::Damaged { blob: blob.digest, store: place.url.clone(), source }
    }
}

/// The snapshots of a listing, the newest first, that no newer one tells.
async fn find(
    home: &Home,
    (scope, trust): (&Scope, &Trust),
    mount: &Digest,
    names: &[SnapshotName],
    cx: &VertexContext,
) -> Result<Found, TravelError> {
    let mut found = Found::default();
    let mut rest = names.iter().enumerate().take(LOOKED_AT);
    loop {
        let told = |name: &SnapshotName| found.counted.iter().any(|newer| newer.told.has(name));
        let next = rest.by_ref().filter(|(_, name)| !told(name)).take(AT_ONCE);
        let next: Vec<(usize, SnapshotName)> = next.map(|(at, name)| (at, name.clone())).collect();
        if next.is_empty() {
            found.from = (names.len() > LOOKED_AT).then_some(LOOKED_AT);
            return Ok(found);
        }
        let read = next.into_iter().map(|(at, name)| async move {
            let bytes = home.snapshot(scope, mount, &name).await?;
            Ok::<_, TravelError>((at, name, bytes))
        });
        let read = futures_util::stream::iter(read).buffered(AT_ONCE);
        for (at, name, bytes) in read.try_collect::<Vec<_>>().await? {
            if found.counted.iter().any(|newer| newer.told.has(&name)) {
                continue;
            }
            let Some(bytes) = bytes else {
                found.missing.insert(name);
                continue;
            };
            match MountSnapshot::open(&bytes, mount, &name, scope, trust) {
                Ok(snapshot) if snapshot.mergeable => found.counted.push(snapshot),
                Ok(snapshot) => {
                    // It is all that was then. Newer ones that are mergeable are all that is now.
                    if found.counted.is_empty() {
                        found.counted.push(snapshot);
                    }
                    return Ok(found);
                }
                Err(why) => {
                    let shown = snapshot_name(scope, mount, &name);
                    tracing::warn!(build = cx.build, "snapshot `{shown}`: {why}; doing without it");
                    if why == Unacceptable::Damaged {
                        found.damaged.push(name);
                    }
                }
            }
            if found.counted.len() >= MOST {
                found.from = Some(at + 1);
                return Ok(found);
            }
        }
    }
}
