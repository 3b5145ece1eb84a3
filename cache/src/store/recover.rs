//! Putting a store in order when it is opened.
//!
//! The database is always a consistent prefix of what was written to it; what can be wrong is its relation to the
//! files. After a killed process: files without an entry (the entry comes after the file), which are removed.
//! After a power cut also: entries whose files did not all reach the disk. Those are younger than the last
//! checkpoint, and are verified.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use fs_err as fs;
use solver::{Digest, LayerId};

use super::db::{Batch, Cf, Sync};
use super::epoch::{Epoch, LastBoot};
use super::error::StoreError;
use super::images::ImageRecord;
use super::layers::LayerInfo;
use super::layout::Layout;
use super::shared::Shared;
use super::table::Table;
use super::{downloads, trash, verify};

/// What opening a store had to put in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The older format that was found; everything of it was removed.
    pub emptied_format: Option<u32>,
    /// Whether the machine was started anew since the store was last used.
    pub new_boot: bool,
    /// How many entries younger than the last checkpoint were verified.
    pub verified: usize,
    /// Layers that were damaged or gone.
    pub dropped_layers: usize,
    /// Blobs that were damaged or gone.
    pub dropped_blobs: usize,
    /// Cache mounts that were in use since the last checkpoint, or gone.
    pub dropped_cache_mounts: usize,
    /// Images that lost a layer or a blob, by name.
    pub dropped_images: Vec<String>,
    /// Files and directories without an entry.
    pub orphans: usize,
}

/// The key of the only [`LastBoot`].
const BOOT: &str = "boot";

/// Removes what earlier processes left in `tmp/`, in the background.
pub(super) fn clear_tmp(layout: &Layout) -> Result<(), StoreError> {
    let tmp = layout.tmp();
    let old = list(&tmp)?;
    if !old.is_empty() {
        // The names are taken now, so that the thread never touches what this process makes there.
        std::thread::spawn(move || old.iter().for_each(|(_, path)| trash::remove(path)));
    }
    Ok(())
}

/// Brings entries and files together.
pub(super) fn recover(shared: &Shared, boot_id: &str) -> Result<Recovery, StoreError> {
    let boots = Table::<String, LastBoot>::new(&shared.db, Cf::Meta);
    let last = boots.get(&BOOT.to_owned())?;
    let same_boot = last.as_ref().is_some_and(|last| last.id == boot_id);
    let report = Recovery { new_boot: last.is_some() && !same_boot, ..Recovery::default() };
    let mut sweep = Sweep { shared, report, same_boot, gone: Vec::new() };
    sweep.blobs()?;
    sweep.layers()?;
    sweep.cache_mounts()?;
    sweep.images()?;
    downloads::sweep(shared)?;
    if !same_boot {
        let mut batch = Batch::default();
        batch.clear(Cf::StatCache);
        boots.put_in(&mut batch, &BOOT.to_owned(), &LastBoot { id: boot_id.to_owned() });
        shared.db.write(&batch, Sync::No)?;
    }
    if sweep.report.new_boot || sweep.report.verified > 0 {
        // What was verified counts as durable from now on.
        shared.epochs.checkpoint()?;
    }
    let Sweep { report, gone, .. } = sweep;
    if !gone.is_empty() {
        std::thread::spawn(move || gone.iter().for_each(|path| trash::remove(path)));
    }
    if report != Recovery::default() {
        tracing::info!(?report, "store recovered");
    }
    Ok(report)
}

/// A recovery under way.
struct Sweep<'a> {
    shared: &'a Shared,
    report: Recovery,
    /// Whether it is known that no power cut can have been: its note may be lost with the rest.
    same_boot: bool,
    /// Moved away, to be removed when all is in order.
    gone: Vec<PathBuf>,
}

impl Sweep<'_> {
    fn blobs(&mut self) -> Result<(), StoreError> {
        let shared = self.shared;
        let mut files = HashSet::new();
        for (_, shard) in list(&shared.layout.blobs())? {
            let listed = match list(&shard) {
                Ok(listed) => listed,
                Err(e) => {
                    tracing::warn!(
                        error = &e as &dyn std::error::Error,
                        "not a directory of blobs, or unreadable"
                    );
                    self.orphan(&shard)?;
                    continue;
                }
            };
            for (name, path) in listed {
                match digest_of(&name) {
                    Some(digest) => drop(files.insert(digest)),
                    None => self.orphan(&path)?,
                }
            }
        }
        let mut batch = Batch::default();
        for (digest, entry) in shared.tables.blobs.all()? {
            let there = files.contains(&digest);
            let sound = there
                && self.still_sound(entry.epoch, || {
                    verify::blob_is_sound(&shared.layout.blob(&digest), &digest)
                })?;
            if sound {
                files.remove(&digest);
            } else {
                self.report.dropped_blobs += 1;
                shared.tables.blobs.delete_in(&mut batch, &digest);
            }
        }
        shared.write_deletions(&batch)?;
        files.iter().try_for_each(|digest| self.orphan(&shared.layout.blob(digest)))
    }

    fn layers(&mut self) -> Result<(), StoreError> {
        let shared = self.shared;
        let mut dirs = HashSet::new();
        for (name, path) in list(&shared.layout.snapshots())? {
            match digest_of(&name) {
                Some(digest) => drop(dirs.insert(LayerId(digest))),
                None => self.orphan(&path)?,
            }
        }
        for (id, info) in shared.tables.layers.all()?.into_iter().filter(|(_, info)| info.present) {
            let there = dirs.remove(&id);
            let sound = there
                && self.still_sound(info.epoch, || verify::layer_is_sound(&shared.layout, &id, &info))?;
            if !sound {
                self.report.dropped_layers += 1;
                self.moved(shared.discard_layer(&id))?;
            }
        }
        for (id, info) in shared.tables.layers.all()? {
            let Some(backing) = info.backing else { continue };
            if shared.tables.layers.get(&backing)?.is_none_or(|backing| !backing.present) {
                self.report.dropped_layers += 1;
                self.moved(shared.discard_layer(&id))?;
            }
        }
        dirs.iter().try_for_each(|id| self.orphan(&shared.layout.snapshot(id)))
    }

    /// What is in a cache mount cannot be verified, so one in use since the last checkpoint is dropped,
    /// and so is one that was cleared while in use.
    fn cache_mounts(&mut self) -> Result<(), StoreError> {
        let shared = self.shared;
        let mut dirs = HashSet::new();
        for (name, path) in list(&shared.layout.cache_mounts())? {
            match name.into_string() {
                Ok(name) => drop(dirs.insert(name)),
                Err(_) => self.orphan(&path)?,
            }
        }
        let mut batch = Batch::default();
        for (name, mut entry) in shared.tables.cache_mounts.all()? {
            let there = dirs.contains(&name) && !entry.retired;
            if there && self.still_sound(entry.epoch, || Ok(false))? {
                dirs.remove(&name);
                if entry.epoch == Epoch::OPEN {
                    // Its user died with the last process.
                    entry.epoch = shared.epochs.stamp();
                    shared.tables.cache_mounts.put_in(&mut batch, &name, &entry);
                }
            } else {
                self.report.dropped_cache_mounts += 1;
                shared.tables.cache_mounts.delete_in(&mut batch, &name);
            }
        }
        shared.write_deletions(&batch)?;
        dirs.iter().try_for_each(|name| self.orphan(&shared.layout.cache_mounts().join(name)))
    }

    /// An image that lost something for good is no image any more.
    fn images(&mut self) -> Result<(), StoreError> {
        if self.report.dropped_layers == 0 && self.report.dropped_blobs == 0 {
            return Ok(());
        }
        let shared = self.shared;
        let mut batch = Batch::default();
        for (name, image) in shared.tables.images.all()? {
            if !shared.is_whole(&image)? {
                tracing::warn!(image = name, "the image lost a part of its data and is dropped");
                shared.tables.images.delete_in(&mut batch, &name);
                self.report.dropped_images.push(name);
            }
        }
        shared.db.write(&batch, Sync::No)
    }

    /// Whether the files of an entry made in `epoch` can be trusted, verifying them if a power cut may have hit
    /// them. What cannot be read cannot be.
    fn still_sound(
        &mut self,
        epoch: Epoch,
        verify: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        if self.same_boot || self.shared.epochs.is_durable(epoch) {
            return Ok(true);
        }
        self.report.verified += 1;
        match verify() {
            Err(e @ StoreError::Io { .. }) => {
                tracing::warn!(error = &e as &dyn std::error::Error, "it is dropped");
                Ok(false)
            }
            other => other,
        }
    }

    fn orphan(&mut self, path: &Path) -> Result<(), StoreError> {
        self.report.orphans += 1;
        self.moved(self.shared.trash.take(path).map(Vec::from_iter))
    }

    /// Notes what was moved away. What the disk does not let go of stays where it is, and in nobody's way.
    fn moved(&mut self, taken: Result<Vec<PathBuf>, StoreError>) -> Result<(), StoreError> {
        match taken {
            Ok(gone) => self.gone.extend(gone),
            Err(e @ StoreError::Io { .. }) => {
                tracing::warn!(error = &e as &dyn std::error::Error, "the next start tries again");
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

impl Shared {
    /// Deletions come before the files go, so they have to be on disk first.
    fn write_deletions(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() { Ok(()) } else { self.db.write(batch, Sync::Yes) }
    }

    /// Whether everything an image names is there or can be fetched again.
    pub(super) fn is_whole(&self, image: &ImageRecord) -> Result<bool, StoreError> {
        for info in self.tables.layers.get_many(&image.layers)? {
            match info {
                Some(info) if self.is_usable(&info)? => {}
                _ => return Ok(false),
            }
        }
        let blobs = self.tables.blobs.get_many(&Vec::from_iter(image.own_blobs()))?;
        Ok(blobs.iter().all(Option::is_some))
    }

    /// Whether a layer is there or can be unpacked again.
    pub(super) fn is_usable(&self, info: &LayerInfo) -> Result<bool, StoreError> {
        if info.present || info.origin.is_some() {
            return Ok(true);
        }
        let blobs: Vec<_> = info.blobs.iter().map(|blob| blob.digest).collect();
        Ok(self.tables.blobs.get_many(&blobs)?.iter().any(Option::is_some))
    }
}

/// Names and paths of a directory's entries.
fn list(dir: &Path) -> Result<Vec<(OsString, PathBuf)>, StoreError> {
    let entries = fs::read_dir(dir).map_err(StoreError::io("list", dir))?;
    entries
        .map(|entry| entry.map(|e| (e.file_name(), e.path())).map_err(StoreError::io("list", dir)))
        .collect()
}

fn digest_of(name: &OsStr) -> Option<Digest> {
    format!("sha256:{}", name.to_str()?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BlobPurpose, Store, StoreOptions};

    #[test]
    fn a_lost_note_of_the_boot_trusts_nothing() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("root");
        let open = |boot: &str| {
            Store::open(&root, StoreOptions { boot_id: Some(boot.to_owned()), ..StoreOptions::default() })
        };
        let store = open("1")?;
        assert_eq!(store.recovery(), &Recovery::default(), "a fresh root");
        let digest = store.blobs().put(&store.lease(), b"blob", BlobPurpose::default())?;
        fs::write(store.shared.layout.blob(&digest), "torn")?;
        Table::<String, LastBoot>::new(&store.shared.db, Cf::Meta).delete(&BOOT.to_owned())?;
        drop(store);
        let recovery = open("2")?.recovery().clone();
        assert_eq!((recovery.verified, recovery.dropped_blobs), (1, 1));
        Ok(())
    }
}
