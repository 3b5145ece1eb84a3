//! Bringing a mount in.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cache::keyed::Scope;
use cache::mounts::{MountList, PACK_LIMIT, Pack, restore, unite, unpack};
use futures_util::{StreamExt as _, TryStreamExt as _};
use solver::{Digest, VertexContext};

use super::current::Current;
use super::{TravelError, shown};
use crate::daemon::blocking::blocking;
use crate::daemon::keyed_cache::home::{Home, blob_name, snapshot_name};
use crate::daemon::keyed_cache::place::KeyedPlace;
use crate::daemon::keyed_cache::{KeyedCaches, Source};
use crate::daemon::progress::Step;
use crate::progress::bytes as readable;

/// How many packs come in at a time.
const AT_ONCE: usize = 4;

impl KeyedCaches {
    /// Fills the empty directory of a mount's new instance with what others left of it; whether there was any. What cannot be had
    /// fails nothing: the mount then begins as it would without.
    pub(super) async fn bring_mount(&self, mount: Digest, id: &str, dir: &Path, cx: &VertexContext) -> bool {
        let sources = self.lock().sources.clone();
        let wanted = |source: &&Arc<Source>| source.wanted.mounts.has(id) && source.failed.get().is_none();
        for source in sources.iter().filter(wanted) {
            let step = self.teller.step(&format!(
                "importing cache mount {} from {}",
                shown(id),
                source.wanted.name()
            ));
            let brought = tokio::select! {
                brought = self.bring_from(source, mount, id, dir, &step, cx) => brought,
                () = cx.cancel.cancelled() => Err(TravelError::Canceled),
            };
            match step.end(brought.map_err(|error| Told(crate::causes::causes(&error)))) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(build = cx.build, "cannot bring in cache mount {}: {error}", shown(id));
                    // Of a part of it nobody knows what it would do.
                    let dir = dir.to_owned();
                    if let Err(error) = blocking(move || empty(&dir)).await {
                        tracing::warn!(build = cx.build, "cannot remove what came in: {error}");
                    }
                }
            }
        }
        false
    }

    async fn bring_from(
        &self,
        source: &Source,
        mount: Digest,
        id: &str,
        dir: &Path,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<bool, TravelError> {
        let place = &source.wanted.place;
        let home = self.home(place, cx).await?;
        source.told.store(true, Ordering::Relaxed);
        for scope in &source.wanted.scopes {
            let trusted = (scope, &source.wanted.trust);
            let current = self.current((place, &home), trusted, &mount, cx).await?;
            let names = current.counted();
            self.keep_mount_young(&home, scope, &current);
            let lists = current.lists.into_iter().map(|(_, list)| list).collect();
            let Some(list) = blocking(move || unite(lists)).await else { continue };
            let told = format!("{} files, {}", list.entries.len(), shown_bytes(list.bytes()));
            step.part(&told, self.fill((place, &home), list, dir)).await?;
            self.mount_brought(mount, id, (place.id(), scope.clone()), names);
            return Ok(true);
        }
        step.part("nobody has left it there", async { Ok::<_, TravelError>(()) }).await?;
        Ok(false)
    }

    /// Keeps what was used from expiring.
    pub(super) fn keep_mount_young(&self, home: &Arc<Home>, scope: &Scope, current: &Current) {
        for (snapshot, _) in &current.lists {
            let own = snapshot_name(scope, &snapshot.mount, &snapshot.name);
            let blobs = snapshot.blobs().map(|blob| blob_name(&blob.digest));
            self.uploads.keep_young(home.clone(), std::iter::once(own).chain(blobs).collect());
        }
    }

    async fn fill(&self, from: (&KeyedPlace, &Home), list: MountList, dir: &Path) -> Result<(), TravelError> {
        let staging = self.parts.chains.store.layers().staging()?;
        let one = |pack: &Pack| {
            let (pack, within) = (pack.clone(), staging.path().to_owned());
            async move { self.bring_pack(from, pack, &within).await }
        };
        let packs = futures_util::stream::iter(list.packs.iter().map(one)).buffered(AT_ONCE);
        let packs: Vec<File> = packs.try_collect().await?;
        let (dir, cache) = (dir.to_owned(), self.parts.chains.store.stat_cache());
        blocking(move || restore(&list, &packs, &dir, &cache)).await?;
        Ok(())
    }

    /// A pack, decompressed into a file without a name.
    async fn bring_pack(
        &self,
        (place, home): (&KeyedPlace, &Home),
        pack: Pack,
        within: &Path,
    ) -> Result<File, TravelError> {
        let blob = pack.blob();
        let bytes = self.whole(place, home, &blob, PACK_LIMIT).await?;
        let within = within.to_owned();
        let unpacked = blocking(move || {
            let plain = unpack(&bytes, &pack)?;
            let mut file = tempfile::tempfile_in(within).map_err(TravelError::Disk)?;
            file.write_all(&plain).map_err(TravelError::Disk)?;
            Ok(file)
        });
        unpacked.await.map_err(|error| match error {
            TravelError::Mount(source) => self.damaged_blob(place, &blob, source),
            other => other,
        })
    }
}

/// Why a mount could not be had, with its causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Told(String);

/// Removes all that is in a directory.
fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            fs_err::remove_dir_all(path)?
        } else {
            fs_err::remove_file(path)?
        }
    }
    Ok(())
}

/// A number of bytes for people.
pub(super) fn shown_bytes(bytes: u64) -> String {
    readable(i64::try_from(bytes).unwrap_or(i64::MAX))
}
