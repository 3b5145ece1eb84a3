//! Bringing a mount in.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cache::keyed::{Scope, SharedBlob};
use cache::mounts::{MountError, MountList, PACK_LIMIT, Pack, Spool, restore, unite, unpack};
use futures_util::{StreamExt as _, TryStreamExt as _};
use solver::{Digest, VertexContext};
use tokio::runtime::Handle;

use super::current::Current;
use super::{Came, TravelError, place_name, shown};
use crate::daemon::blocking::blocking;
use crate::daemon::keyed_cache::home::{Home, blob_name, snapshot_name};
use crate::daemon::keyed_cache::place::KeyedPlace;
use crate::daemon::keyed_cache::{KeyedCaches, Source};
use crate::daemon::progress::Step;
use crate::progress::{bytes as readable, plural};

/// How many packs come in at a time.
const AT_ONCE: usize = 4;

/// A mount that came in, but for its files.
struct Brought {
    list: MountList,
    packs: Spool,
    came: Came,
    /// The lists that it was put together of.
    lists: Vec<SharedBlob>,
}

impl KeyedCaches {
    /// Fills the empty directory of a mount's new instance with what others left of it. What cannot be had fails nothing: the
    /// mount then begins as it would without.
    ///
    /// Blocking; `runtime` does what waits for the network.
    ///
    /// # Errors
    /// [`TravelError::Canceled`], and what cannot be removed again.
    pub(super) fn bring_mount(
        &self,
        runtime: &Handle,
        mount: Digest,
        id: &str,
        dir: &Path,
        cx: &VertexContext,
    ) -> Result<Came, TravelError> {
        let sources = self.lock().sources.clone();
        let mut came = Came::Nothing;
        for source in sources.iter().filter(|source| source.wanted.mounts.has(id)) {
            let step = self.teller.step(&format!(
                "importing cache mount {} from {}",
                shown(id),
                source.wanted.name()
            ));
            let brought = self.bring_from(runtime, source, mount, dir, &step, cx);
            let told = brought.as_ref().map(drop);
            let _ =
                step.end(told.map_err(|error| solver::redacted(&crate::causes::causes(error)).into_owned()));
            match brought {
                Ok(Some(all)) => return Ok(all),
                Ok(None) => {}
                Err(_) if cx.cancel.is_cancelled() => return Err(TravelError::Canceled),
                Err(error) => {
                    let damaged = matches!(error, TravelError::Damaged { .. });
                    let error = crate::causes::causes(&error);
                    let error = solver::redacted(&error);
                    tracing::warn!(build = cx.build, "cannot bring in cache mount {}: {error}", shown(id));
                    // Of a part of it nobody knows what it would do.
                    empty(dir).map_err(TravelError::Disk)?;
                    if !damaged {
                        came = Came::Missed;
                    }
                }
            }
        }
        Ok(came)
    }

    fn bring_from(
        &self,
        runtime: &Handle,
        source: &Source,
        mount: Digest,
        dir: &Path,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<Option<Came>, TravelError> {
        let place = &source.wanted.place;
        let fetched = runtime.block_on(async {
            tokio::select! {
                fetched = self.fetch_mount(source, mount, dir, step, cx) => fetched,
                () = cx.cancel.cancelled() => Err(TravelError::Canceled),
            }
        });
        let Some(Brought { list, packs, came, lists }) = fetched? else { return Ok(None) };
        let cache = self.parts.chains.store.stat_cache();
        match restore(&list, &packs, dir, &cache, &|| cx.cancel.is_cancelled()) {
            Ok(()) => Ok(Some(came)),
            // Each pack is what its name says: it is the lists that are wrong.
            Err(MountError::Damaged(why)) => {
                let damaged = |blob| self.damaged_blob(place, blob, MountError::Damaged(why));
                Err(lists.iter().map(damaged).last().unwrap_or(TravelError::Mount(MountError::Damaged(why))))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn fetch_mount(
        &self,
        source: &Source,
        mount: Digest,
        dir: &Path,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<Option<Brought>, TravelError> {
        let place = &source.wanted.place;
        let home = self.home(place, cx).await?;
        source.told.store(true, Ordering::Relaxed);
        for scope in &source.wanted.scopes {
            let trusted = (scope, &source.wanted.trust);
            let current = self.current((place, &home), trusted, &mount, cx).await?;
            self.keep_mount_young(&home, scope, &current);
            let came = Came::All(place_name(place, scope), current.counted());
            let lists: Vec<SharedBlob> = current.snapshots.iter().map(|s| s.list.clone()).collect();
            let Some(list) = blocking(move || unite(current.lists)).await else { continue };
            let told =
                format!("{}, {}", plural(list.entries.len() as u64, "file"), shown_bytes(list.bytes()));
            let packs = step.part(&told, self.spool((place, &home), &list, dir)).await?;
            return Ok(Some(Brought { list, packs, came, lists }));
        }
        step.part("nobody has left it there", async { Ok::<_, TravelError>(()) }).await?;
        Ok(None)
    }

    /// Keeps what was used from expiring.
    pub(super) fn keep_mount_young(&self, home: &Arc<Home>, scope: &Scope, current: &Current) {
        for snapshot in &current.snapshots {
            let own = snapshot_name(scope, &snapshot.mount, &snapshot.name);
            let blobs = snapshot.blobs().map(|blob| blob_name(&blob.digest));
            self.uploads.keep_young(home.clone(), std::iter::once(own).chain(blobs).collect());
        }
    }

    /// The packs of a list that have anything of its files, if there is room for all.
    async fn spool(
        &self,
        from: (&KeyedPlace, &Home),
        list: &MountList,
        dir: &Path,
    ) -> Result<Spool, TravelError> {
        let used = list.packs_in_use();
        let wanted: Vec<bool> = (0..list.packs.len()).map(|at| used.contains(&(at as u32))).collect();
        let packs = || list.packs.iter().zip(&wanted).filter(|(_, wanted)| **wanted).map(|(pack, _)| pack);
        let needed = packs().map(|pack| pack.plain).fold(list.bytes(), u64::saturating_add);
        let disk = rustix::fs::statvfs(dir).map_err(|e| TravelError::Disk(e.into()))?;
        if needed > disk.f_bavail.saturating_mul(disk.f_frsize) {
            return Err(TravelError::Disk(std::io::ErrorKind::StorageFull.into()));
        }
        let staging = self.parts.chains.store.layers().staging()?;
        let mut file = tempfile::tempfile_in(staging.path()).map_err(TravelError::Disk)?;
        let (mut starts, mut at) = (Vec::with_capacity(wanted.len()), 0);
        for (pack, wanted) in list.packs.iter().zip(&wanted) {
            starts.push(wanted.then_some(at));
            at += if *wanted { pack.plain } else { 0 };
        }
        // The blocking threads write one after the other.
        let mut come = futures_util::stream::iter(packs().cloned())
            .map(|pack| self.bring_pack(from, pack))
            .buffered(AT_ONCE);
        while let Some(plain) = come.try_next().await? {
            file =
                blocking(move || file.write_all(&plain).map(|()| file)).await.map_err(TravelError::Disk)?;
        }
        Ok(Spool { file, starts })
    }

    async fn bring_pack(
        &self,
        (place, home): (&KeyedPlace, &Home),
        pack: Pack,
    ) -> Result<Vec<u8>, TravelError> {
        let blob = pack.blob();
        let bytes = self.whole(place, home, &blob, PACK_LIMIT).await?;
        let unpacked = blocking(move || unpack(&bytes, &pack)).await;
        unpacked.map_err(|source| self.damaged_blob(place, &blob, source))
    }
}

/// Removes all that is in a directory.
fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            fs_err::remove_dir_all(path)?;
        } else {
            fs_err::remove_file(path)?;
        }
    }
    Ok(())
}

/// A number of bytes for people.
pub(super) fn shown_bytes(bytes: u64) -> String {
    readable(i64::try_from(bytes).unwrap_or(i64::MAX))
}
