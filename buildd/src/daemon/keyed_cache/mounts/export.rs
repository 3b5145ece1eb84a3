//! Writing mounts at the end of a build.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cache::keyed::{MountSnapshot, RECORD_LIMIT, Scope, SharedBlob, SnapshotName, Told};
use cache::mounts::{
    Contents, LIST_LIMIT, LIST_TYPE, MountError, MountList, NewPack, Packed, Scanned, pack, scan, unite,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use solver::{Digest, VertexContext};
use tokio_stream::wrappers::ReceiverStream;

use super::current::Current;
use super::import::shown_bytes;
use super::{TravelError, UsedMount, lock, shown};
use crate::daemon::blocking::blocking;
use crate::daemon::keyed_cache::home::{Home, snapshot_name};
use crate::daemon::keyed_cache::{KeyedCaches, KeyedTarget};
use crate::daemon::progress::Step;
use crate::daemon::traces::random;
use crate::daemon::worker::SetOnDrop;

/// How long the end of a build waits for others that use a mount.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many packs are written at a time.
const AT_ONCE: usize = 4;

impl KeyedCaches {
    /// Writes the mounts that the steps of this build used to those of `targets` that want them; the first failure of each target.
    pub(in crate::daemon::keyed_cache) async fn write_mounts(
        &self,
        targets: &[&KeyedTarget],
        cx: &VertexContext,
    ) -> Vec<Result<(), solver::ExecError>> {
        let mut results: Vec<Result<(), solver::ExecError>> = targets.iter().map(|_| Ok(())).collect();
        let used = lock(&self.mounts.0).clone();
        for (mount, used) in used.into_iter().filter(|(_, used)| !used.spoilt && !used.instance.is_empty()) {
            let wanted = |(_, target): &(usize, &&KeyedTarget)| target.mounts.has(&used.id);
            for (at, target) in targets.iter().enumerate().filter(wanted) {
                let step = self.teller.step(&format!(
                    "exporting cache mount {} to {}",
                    shown(&used.id),
                    target.name()
                ));
                let written = tokio::select! {
                    written = self.write_mount(target, mount, &used, &step, cx) => written,
                    () = cx.cancel.cancelled() => Err(TravelError::Canceled),
                };
                let ended = match written {
                    // They go on with it, and write it in the end.
                    Err(error @ TravelError::Busy) => {
                        step.warn(&[format!("cache mount {} is not written: {error}", shown(&used.id))]);
                        Ok(())
                    }
                    Err(error) => Err(solver::ExecError::from(error)),
                    Ok(()) => Ok(()),
                };
                let ended = step.end(ended);
                if results[at].is_ok() {
                    results[at] = ended;
                }
            }
        }
        results
    }

    async fn write_mount(
        &self,
        target: &KeyedTarget,
        mount: Digest,
        used: &UsedMount,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<(), TravelError> {
        let store = &self.parts.chains.store;
        let mounts = store.cache_mounts();
        let reading = tokio::time::timeout(PATIENCE, mounts.read(&used.instance));
        let Some(reading) = reading.await.map_err(|_| TravelError::Busy)?? else {
            // Somebody has removed it.
            return Ok(());
        };
        let cancel = SetOnDrop(Arc::new(AtomicBool::new(false)));
        let (cache, stop, dir) = (store.stat_cache(), cancel.0.clone(), reading.dir().to_owned());
        let scanned = blocking(move || scan(&dir, &cache, &stop));
        let scanned = Arc::new(step.part("reading", scanned).await?);
        let home = self.home(&target.place, cx).await?;
        let KeyedTarget { place, scope, trust, .. } = target;
        let current = self.current((place, &home), (scope, trust), &mount, cx).await?;
        let mergeable = target.mergeable.has(&used.id);
        let brought = used.brought.get(&(place.id(), scope.clone()));
        let wanted = {
            let lists: Vec<(SnapshotName, MountList)> =
                current.lists.iter().map(|(s, list)| (s.name.clone(), list.clone())).collect();
            let (brought, scanned) = (brought.cloned().unwrap_or_default(), scanned.clone());
            blocking(move || wanted(&scanned, lists, mergeable, &brought)).await
        };
        if let [(snapshot, list)] = current.lists.as_slice()
            && snapshot.mergeable == mergeable
            && list.is_like(&wanted)
            && !snapshot.blobs().any(|blob| self.is_known_damaged(&place.id(), blob))
        {
            self.keep_mount_young(&home, scope, &current);
            return step.part("nothing new to write", async { Ok(()) }).await;
        }
        let (list, bytes) = self.write_packs(target, &home, wanted, &scanned, step).await?;
        drop(reading);
        self.write_snapshot(target, &home, mount, mergeable, &current, list, bytes, step).await
    }

    /// Writes the packs that are not there; gives the list that names them all, and how many bytes were written.
    async fn write_packs(
        &self,
        target: &KeyedTarget,
        home: &Home,
        wanted: MountList,
        scanned: &Arc<Scanned>,
        step: &Step,
    ) -> Result<(MountList, u64), TravelError> {
        let store = target.place.id();
        let damaged: HashSet<Digest> = {
            let known = self.lock();
            known.damaged.iter().filter(|(of, _)| *of == store).map(|(_, blob)| blob.digest).collect()
        };
        let (tx, rx) = tokio::sync::mpsc::channel::<NewPack>(1);
        let scanned = scanned.clone();
        let packing = async {
            let packed = blocking(move || {
                // Whoever receives them has failed.
                let mut emit = |new| tx.blocking_send(new).map_err(|_| MountError::Canceled);
                pack(wanted, &scanned, &damaged, &mut emit)
            });
            Ok::<Packed, TravelError>(packed.await?)
        };
        let upload = |new: NewPack| async move {
            let (blob, size) = (new.pack.blob(), new.pack.size);
            home.put(&blob, Arc::new(Bytes::from(new.bytes))).await?;
            Ok::<u64, TravelError>(size)
        };
        let uploads = ReceiverStream::new(rx).map(upload).buffer_unordered(AT_ONCE);
        let uploads = uploads.try_fold(0u64, |sum, size| async move { Ok(sum + size) });
        let both = async { tokio::try_join!(uploads, packing) };
        let (bytes, packed) = step.part("writing what is new", both).await?;
        if packed.lost > 0 {
            step.warn(&[format!("{} files of others cannot be had any more and were left out", packed.lost)]);
        }
        Ok((packed.list, bytes))
    }

    #[expect(clippy::too_many_arguments, reason = "each once")]
    async fn write_snapshot(
        &self,
        target: &KeyedTarget,
        home: &Home,
        mount: Digest,
        mergeable: bool,
        current: &Current,
        list: MountList,
        bytes: u64,
        step: &Step,
    ) -> Result<(), TravelError> {
        let scope: &Scope = &target.scope;
        let files = list.entries.len();
        let packs: Vec<SharedBlob> = list.blobs().collect();
        let encoded = blocking(move || list.encode()).await?;
        let list = SharedBlob {
            digest: Digest::of(&encoded),
            size: encoded.len() as u64,
            media_type: LIST_TYPE.to_owned(),
        };
        if list.size > LIST_LIMIT {
            return Err(TravelError::TooLarge);
        }
        let bytes = bytes + list.size;
        home.put(&list, Arc::new(Bytes::from(encoded))).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let name = SnapshotName::new(now, current.names.first(), u32::from_ne_bytes(random()));
        let told = Told::by(&name, current.names.iter().cloned());
        let snapshot = MountSnapshot { mount, name, mergeable, told, list, packs };
        let sealed = snapshot.seal(scope, target.signer.as_ref());
        if sealed.len() as u64 > RECORD_LIMIT {
            return Err(TravelError::TooLarge);
        }
        home.put_snapshot(scope, &snapshot, sealed).await?;
        for name in &current.names {
            if let Err(error) = home.remove(&snapshot_name(scope, &mount, name)).await {
                // Who reads knows that it is told.
                tracing::debug!("cannot remove a snapshot that was replaced: {error}");
            }
        }
        let told = format!("wrote {} for {files} files", shown_bytes(bytes));
        step.part(&told, async { Ok(()) }).await
    }
}

/// What the store is to have of a mount: what is here and, of one that is mergeable, what others have written that did not come from
/// here. What the store knows of the bytes of files goes along.
fn wanted(
    scanned: &Scanned,
    lists: Vec<(SnapshotName, MountList)>,
    mergeable: bool,
    brought: &HashSet<SnapshotName>,
) -> MountList {
    let own = MountList {
        top: scanned.top.clone(),
        entries: scanned.entries.clone(),
        contents: Contents::default(),
        packs: Vec::new(),
    };
    let (others, known): (Vec<_>, Vec<_>) =
        lists.into_iter().partition(|(name, _)| mergeable && !brought.contains(name));
    let others = others.into_iter().map(|(_, list)| list);
    let united = unite(std::iter::once(own.clone()).chain(others).collect());
    let mut united = united.unwrap_or(own);
    known.into_iter().for_each(|(_, list)| united.learn(list));
    united
}
