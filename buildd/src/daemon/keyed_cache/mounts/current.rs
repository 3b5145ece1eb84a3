//! What a store has of a mount.

use std::collections::HashSet;

use cache::keyed::{MountSnapshot, Scope, SharedBlob, SnapshotName, Trust};
use cache::mounts::{LIST_LIMIT, MountError, MountList};
use solver::{Digest, VertexContext};
use tokio::io::AsyncReadExt as _;

use super::TravelError;
use crate::daemon::blocking::blocking;
use crate::daemon::keyed_cache::KeyedCaches;
use crate::daemon::keyed_cache::home::{Home, snapshot_name};
use crate::daemon::keyed_cache::place::KeyedPlace;

/// How often the names are asked for anew when one of them has gone meanwhile.
const TRIES: usize = 5;
/// How many snapshots are united at most; more, all written at the same time, have no place in a fleet.
const MOST: usize = 256;

/// What a scope of a store has of a mount.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// All snapshots that there are.
    pub(super) names: Vec<SnapshotName>,
    /// Those that count, the newest first.
    pub(super) lists: Vec<(MountSnapshot, MountList)>,
}

impl Current {
    /// The names of those that count.
    pub(super) fn counted(&self) -> HashSet<SnapshotName> {
        self.lists.iter().map(|(snapshot, _)| snapshot.name.clone()).collect()
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
        for _ in 0..TRIES {
            let mut names = home.snapshots(scope, mount).await?;
            names.sort_unstable_by(|a, b| b.cmp(a));
            let mut current = Current { names: names.clone(), lists: Vec::new() };
            let mut gone = false;
            for name in names {
                let told = current.lists.iter().any(|(newer, _)| newer.told.has(&name));
                if told || current.lists.len() >= MOST {
                    continue;
                }
                let Some(bytes) = home.snapshot(scope, mount, &name).await? else {
                    // Whoever removed it has written another one.
                    gone = true;
                    break;
                };
                let snapshot = match MountSnapshot::open(&bytes, mount, &name, scope, trust) {
                    Ok(snapshot) => snapshot,
                    Err(why) => {
                        let name = snapshot_name(scope, mount, &name);
                        tracing::warn!(build = cx.build, "snapshot `{name}`: {why}; doing without it");
                        continue;
                    }
                };
                if !snapshot.mergeable && !current.lists.is_empty() {
                    // It is as it was before the newer ones, which are not.
                    continue;
                }
                match self.list(place, home, &snapshot.list).await {
                    Ok(list) => {
                        let last = !snapshot.mergeable;
                        current.lists.push((snapshot, list));
                        if last {
                            break;
                        }
                    }
                    Err(error @ TravelError::Damaged { .. }) => {
                        tracing::warn!(
                            build = cx.build,
                            "{}; doing without it",
                            crate::causes::causes(&error)
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
            if !gone {
                return Ok(current);
            }
        }
        // They are replaced faster than they are read.
        Err(TravelError::Busy)
    }

    async fn list(
        &self,
        place: &KeyedPlace,
        home: &Home,
        blob: &SharedBlob,
    ) -> Result<MountList, TravelError> {
        let bytes = self.whole(place, home, blob, LIST_LIMIT).await?;
        let decoded = blocking(move || MountList::decode(&bytes)).await;
        decoded.map_err(|source| self.damaged_blob(place, blob, source))
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
        let (same, bytes) = blocking(move || (Digest::of(&bytes) == wanted, bytes)).await;
        match same {
            true => Ok(bytes),
            // A store may also break off without a word.
            false if (bytes.len() as u64) < blob.size => {
                Err(TravelError::Broken(std::io::ErrorKind::UnexpectedEof.into()))
            }
            false => Err(self.damaged_blob(place, blob, MountError::Damaged("its digest is another one"))),
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
