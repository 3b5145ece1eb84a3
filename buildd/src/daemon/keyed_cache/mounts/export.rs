//! Writing mounts at the end of a build.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use cache::keyed::{MountSnapshot, RECORD_LIMIT, SharedBlob, SnapshotName, Told};
use cache::mounts::{
    Contents, LIST_TYPE, MountError, MountList, NewPack, Pack, Packed, Scanned, pack, scan, unite,
};
use cache::store::MountReading;
use futures_util::{StreamExt as _, TryStreamExt as _};
use solver::{Digest, ExecError, VertexContext};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::current::Current;
use super::import::shown_bytes;
use super::{TravelError, lock, place_name, shown};
use crate::daemon::blocking::blocking;
use crate::daemon::keyed_cache::home::{Home, blob_name, snapshot_name};
use crate::daemon::keyed_cache::{KeyedCaches, KeyedTarget};
use crate::daemon::progress::Step;
use crate::daemon::timestamp::now_ms;
use crate::daemon::traces::random;
use crate::daemon::worker::SetOnDrop;
use crate::progress::plural;

/// How long the end of a build waits for others that use a mount.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many packs are written at a time.
const AT_ONCE: usize = 4;

/// An instance on its way to a store.
struct Export<'a> {
    target: &'a KeyedTarget,
    home: Arc<Home>,
    mount: Digest,
    instance: &'a str,
    mergeable: bool,
    step: &'a Step,
}

impl KeyedCaches {
    /// Writes the mounts that the steps of this build used, once, to those of `targets` that want them; the first failure of each target.
    pub(in crate::daemon::keyed_cache) async fn write_mounts(
        &self,
        targets: &[&KeyedTarget],
        cx: &VertexContext,
    ) -> Vec<Result<(), ExecError>> {
        let mut results: Vec<Result<(), ExecError>> = targets.iter().map(|_| Ok(())).collect();
        let used = std::mem::take(&mut *lock(&self.mounts.0));
        for (mount, used) in used {
            for (target, result) in targets.iter().zip(&mut results) {
                if !target.mounts.has(&used.id) {
                    continue;
                }
                let mergeable = target.mergeable.has(&used.id);
                // Of what is not to be united the last one counts, here as there.
                let from = if mergeable { 0 } else { used.instances.len().saturating_sub(1) };
                for instance in &used.instances[from..] {
                    if instance.spoilt {
                        let id = shown(&used.id);
                        tracing::info!(
                            build = cx.build,
                            "cache mount {id} is not written: a step that used it failed"
                        );
                        continue;
                    }
                    let name = target.name();
                    let step =
                        self.teller.step(&format!("exporting cache mount {} to {name}", shown(&used.id)));
                    let written = async {
                        let home = self.home(&target.place, cx).await?;
                        let instance = &instance.name;
                        let export = Export { target, home, mount, instance, mergeable, step: &step };
                        self.write_mount(&export, cx).await
                    };
                    let written = tokio::select! {
                        written = written => written,
                        () = cx.cancel.cancelled() => Err(TravelError::Canceled),
                    };
                    let ended = match written {
                        Err(error) if error.is_of_the_mount() => {
                            let why = crate::causes::causes(&error);
                            step.warn(&[format!("cache mount {} is not written: {why}", shown(&used.id))]);
                            Ok(())
                        }
                        written => written.map_err(ExecError::from),
                    };
                    let ended = step.end(ended);
                    if result.is_ok() {
                        *result = ended;
                    }
                }
            }
        }
        results
    }

    async fn write_mount(&self, export: &Export<'_>, cx: &VertexContext) -> Result<(), TravelError> {
        let Export { target, home, mount, instance, mergeable, step } = export;
        let KeyedTarget { place, scope, trust, .. } = target;
        let mut current = self.current((place, home), (scope, trust), mount, cx).await?;
        let store = &self.parts.chains.store;
        let mounts = store.cache_mounts();
        let reading = tokio::time::timeout(PATIENCE, mounts.read(instance)).await;
        let Some(reading) = reading.map_err(|_| TravelError::Busy)?? else {
            // Somebody has removed it, or it was not what it should be.
            return step.part("it is no more", async { Ok(()) }).await;
        };
        let cancel = SetOnDrop(Arc::new(AtomicBool::new(false)));
        let (cache, stop, dir) = (store.stat_cache(), cancel.0.clone(), reading.dir().to_owned());
        let scanned = blocking(move || scan(&dir, &cache, &stop));
        let scanned = Arc::new(step.part("reading", scanned).await?);
        let based_on = reading.based_on(&place_name(place, scope))?;
        // The only one there is may say the same.
        let only = match (current.snapshots.as_slice(), current.lists.as_slice()) {
            ([snapshot], [list]) if snapshot.mergeable == *mergeable => Some((snapshot, list.clone())),
            _ => None,
        };
        let names = current.snapshots.iter().map(|snapshot| snapshot.name.clone());
        let lists = names.zip(std::mem::take(&mut current.lists)).collect();
        let (own, united) = (*mergeable, scanned.clone());
        let wanted = blocking(move || wanted(&united, lists, own, &based_on)).await;
        let mine = wanted.entries == scanned.entries;
        if let Some((snapshot, list)) = only
            && list.is_like(&wanted)
            && list.is_complete()
        {
            self.keep_mount_young(home, scope, &current);
            self.note_base(export, mine.then(|| snapshot.name.clone()));
            return step.part("nothing new to write", async { Ok(()) }).await;
        }
        // Whether it can be written at all is known before its packs are.
        let wanted = blocking(move || wanted.encode().map(|_| wanted)).await?;
        let (list, bytes) = self.write_packs(export, wanted, &scanned, reading).await?;
        let name = self.write_snapshot(export, &current, list, bytes).await?;
        self.note_base(export, mine.then_some(name));
        Ok(())
    }

    /// Notes that an instance is what a snapshot says.
    fn note_base(&self, export: &Export<'_>, name: Option<SnapshotName>) {
        let Some(name) = name else { return };
        let place = place_name(&export.target.place, &export.target.scope);
        let mounts = self.parts.chains.store.cache_mounts();
        if let Err(error) = mounts.set_based_on(export.instance, &place, vec![name.to_string()]) {
            tracing::warn!("cannot note what a cache mount was written as: {error}");
        }
    }

    /// Writes the packs that are not there; gives the list that names them all, and how many bytes were written.
    async fn write_packs(
        &self,
        export: &Export<'_>,
        wanted: MountList,
        scanned: &Arc<Scanned>,
        reading: MountReading,
    ) -> Result<(MountList, u64), TravelError> {
        let Export { home, step, .. } = export;
        let staging = self.parts.chains.store.layers().staging()?;
        let (tx, rx) = tokio::sync::mpsc::unbounded_channel::<(Pack, PathBuf)>();
        let (scanned, dir) = (scanned.clone(), staging.path().to_owned());
        let packing = async {
            let packed = blocking(move || {
                let mut emit = |NewPack { pack, bytes }| {
                    let path = dir.join(pack.digest.hex());
                    let written = std::fs::write(&path, bytes);
                    written.map_err(MountError::Spool)?;
                    // Whoever receives them has failed.
                    tx.send((pack, path)).map_err(|_| MountError::Canceled)
                };
                let packed = pack(wanted, &scanned, &mut emit);
                // Steps may go on with it while the rest is on its way.
                drop(reading);
                packed
            });
            Ok::<Packed, TravelError>(packed.await?)
        };
        let upload = |(pack, path): (Pack, PathBuf)| async move {
            home.put(&pack.blob(), Arc::new(path)).await?;
            Ok::<u64, TravelError>(pack.size)
        };
        let uploads = UnboundedReceiverStream::new(rx).map(upload).buffer_unordered(AT_ONCE);
        let uploads = uploads.try_fold(0u64, |sum, size| async move { Ok(sum + size) });
        let both = async { tokio::try_join!(uploads, packing) };
        let (bytes, packed) = step.part("writing what is new", both).await?;
        if packed.lost > 0 {
            step.warn(&[format!(
                "left out what cannot be had any more: {} of others",
                plural(packed.lost as u64, "file")
            )]);
        }
        // Those that were there before are in use again.
        let names = packed.list.blobs().map(|blob| blob_name(&blob.digest)).collect();
        self.uploads.keep_young(home.clone(), names);
        Ok((packed.list, bytes))
    }

    async fn write_snapshot(
        &self,
        export: &Export<'_>,
        current: &Current,
        list: MountList,
        bytes: u64,
    ) -> Result<SnapshotName, TravelError> {
        let Export { target, home, mount, mergeable, step, .. } = export;
        let (files, packs): (usize, Vec<SharedBlob>) = (list.entries.len(), list.blobs().collect());
        let encoded = blocking(move || list.encode()).await?;
        let list = SharedBlob {
            digest: Digest::of(&encoded),
            size: encoded.len() as u64,
            media_type: LIST_TYPE.to_owned(),
        };
        let bytes = bytes + list.size;
        home.put(&list, Arc::new(Bytes::from(encoded))).await?;
        let newest = current.snapshots.iter().map(|snapshot| &snapshot.name).max();
        let now = now_ms();
        let name = SnapshotName::new(now, newest, u32::from_ne_bytes(random()));
        let told = Told::by(&name, now, current.replaceable.iter().cloned(), current.unread.as_ref());
        let (mount, mergeable, packs) = (*mount, *mergeable, packs);
        let snapshot = MountSnapshot { mount, name, mergeable, told, list, packs };
        let sealed = snapshot.seal(&target.scope, target.signer.as_ref());
        if sealed.len() as u64 > RECORD_LIMIT {
            return Err(TravelError::TooLarge);
        }
        home.put_snapshot(&target.scope, &snapshot, sealed).await?;
        for name in &current.replaceable {
            if let Err(error) = home.remove(&snapshot_name(&target.scope, &mount, name)).await {
                // Who reads knows that it is told.
                tracing::debug!("cannot remove a snapshot that was replaced: {error}");
            }
        }
        let told = format!("wrote {} for {}", shown_bytes(bytes), plural(files as u64, "file"));
        step.part(&told, async { Ok(snapshot.name) }).await
    }
}

/// What the store is to have of a mount: what is here and, of one that is mergeable, what others have written that this did not come
/// from. What the store knows of the bytes of files goes along.
fn wanted(
    scanned: &Scanned,
    lists: Vec<(SnapshotName, MountList)>,
    mergeable: bool,
    based_on: &[String],
) -> MountList {
    let own = MountList {
        top: scanned.top.clone(),
        entries: scanned.entries.clone(),
        contents: Contents::default(),
        packs: Vec::new(),
    };
    let others = |(name, _): &(SnapshotName, MountList)| {
        mergeable && !based_on.iter().any(|base| base == name.as_str())
    };
    let (others, known): (Vec<_>, Vec<_>) = lists.into_iter().partition(others);
    let others = others.into_iter().map(|(_, list)| list);
    let united = unite(std::iter::once(own.clone()).chain(others).collect());
    let mut united = united.unwrap_or(own);
    known.into_iter().for_each(|(_, list)| united.learn(list));
    united
}
