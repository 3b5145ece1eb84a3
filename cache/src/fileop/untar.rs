//! The entries of an archive over a target: go-archive's `Untar`, with the destination as the root of all links.

use std::io::Read;
use std::sync::atomic::Ordering;

use super::archive::archive_error;
use super::env::FileOpEnv;
use super::error::ActionError;
use super::resolve::{parent_path, root_path};
use super::state::{Owner, Target, new_meta};
use crate::layer::{Meta, Special, TarEntry, TarKind, TarReader};
use crate::tree::{Kind, Node, TreePath};

/// Mode of directories that no entry makes; their owner is root whatever `--chown` says.
const IMPLIED_MODE: u32 = 0o755;

/// One archive that is being unpacked.
pub(super) struct Untar<'a> {
    target: &'a Target,
    /// Where it goes: no name or link leaves it.
    root: TreePath,
    owner: Option<Owner>,
    env: &'a FileOpEnv<'a>,
    archive: &'a TreePath,
}

impl<'a> Untar<'a> {
    pub(super) fn new(
        target: &'a Target,
        root: TreePath,
        owner: Option<Owner>,
        env: &'a FileOpEnv<'a>,
        archive: &'a TreePath,
    ) -> Self {
        Self { target, root, owner, env, archive }
    }

    /// Unpacks all entries.
    pub(super) fn run<R: Read>(&self, reader: &mut TarReader<R>) -> Result<(), ActionError> {
        let (limit, mut entries) = (self.env.limits.entries, 0);
        while let Some(entry) = reader.next_entry().map_err(|e| self.failure(e))? {
            if self.env.cancel.load(Ordering::Relaxed) {
                return Err(ActionError::Cancelled);
            }
            entries += 1;
            if entries > limit {
                let path = self.archive.clone();
                return Err(ActionError::ArchiveTooLarge { path, what: "entries", limit });
            }
            self.entry(&entry, reader)?;
        }
        reader.drain().map_err(|e| self.failure(e))
    }

    fn entry<R: Read>(&self, entry: &TarEntry, reader: &mut TarReader<R>) -> Result<(), ActionError> {
        let name = TreePath::clean(&entry.name)?;
        let dot = name.is_root() && !entry.name.starts_with(b"/");
        if dot && entry.kind == TarKind::Dir {
            // The destination itself keeps its attributes.
            return Ok(());
        }
        self.imply_parents(&name)?;
        let path = self.exact(&name)?;
        let existing = self.target.get(&path)?;
        let merges = existing.as_ref().is_some_and(Node::is_dir) && entry.kind == TarKind::Dir;
        if existing.is_some() && !merges && path != self.root {
            self.target.layer.remove(&path)?;
        }
        self.create(entry, &name, &path, reader)
    }

    fn create<R: Read>(
        &self,
        entry: &TarEntry,
        name: &TreePath,
        path: &TreePath,
        reader: &mut TarReader<R>,
    ) -> Result<(), ActionError> {
        let (layer, meta) = (&self.target.layer, self.meta(entry));
        match &entry.kind {
            TarKind::Dir if path.is_root() => {}
            TarKind::Dir => layer.mkdir(path, &meta)?,
            TarKind::File => {
                layer.write_from(path, &meta, &mut EntryReader(reader)).map_err(|e| self.write_error(e))?;
                self.env.progress.add(entry.size);
            }
            TarKind::Symlink { target } => layer.symlink(path, target, &meta)?,
            TarKind::HardLink { target } => self.hardlink(target, name, path, &meta)?,
            TarKind::CharDevice { major, minor } => {
                layer.special(path, Special::CharDevice { major: *major, minor: *minor }, &meta)?;
            }
            TarKind::BlockDevice { major, minor } => {
                layer.special(path, Special::BlockDevice { major: *major, minor: *minor }, &meta)?;
            }
            TarKind::Fifo => layer.special(path, Special::Fifo, &meta)?,
        }
        Ok(())
    }

    /// The link's own header gives the file new attributes, but a symbolic link keeps its mode.
    fn hardlink(
        &self,
        target: &[u8],
        name: &TreePath,
        path: &TreePath,
        meta: &Meta,
    ) -> Result<(), ActionError> {
        let inside = TreePath::clean(target)?;
        let existing = self.exact(&inside)?;
        match self.target.get(&existing)? {
            Some(node) if !node.is_dir() => {
                self.target.layer.hardlink(&existing, path)?;
                if !matches!(node.kind, Kind::Symlink { .. }) {
                    self.target.layer.set_meta(path, meta)?;
                }
                Ok(())
            }
            _ => Err(ActionError::LinkTarget { target: inside, path: name.clone() }),
        }
    }

    /// Where a name of the archive is: links on the way are followed within the destination, the last not.
    fn exact(&self, name: &TreePath) -> Result<TreePath, ActionError> {
        parent_path(&|path| self.target.get(path), &self.root, name.as_bytes())
    }

    fn imply_parents(&self, name: &TreePath) -> Result<(), ActionError> {
        let Some(parent) = name.parent().filter(|parent| !parent.is_root()) else { return Ok(()) };
        if self.target.get(&self.exact(&parent)?)?.is_some() {
            return Ok(());
        }
        let path = root_path(&|path| self.target.get(path), &self.root, parent.as_bytes())?;
        self.target.mkdir_all(&path, &new_meta(IMPLIED_MODE, None, None, self.env))
    }

    fn meta(&self, entry: &TarEntry) -> Meta {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        // Times before 1970 become 1970, as go-archive bounds them.
        Meta { mode: entry.mode, uid, gid, mtime: entry.mtime.max(0), xattrs: entry.xattrs.clone() }
    }

    fn failure(&self, error: crate::layer::TarError) -> ActionError {
        use std::io::ErrorKind::FileTooLarge;
        match error {
            crate::layer::TarError::Read(e) if e.kind() == FileTooLarge => self.too_large(),
            error => archive_error(self.archive, error),
        }
    }

    /// A failure while a file was written: the archive's if its stream failed, else the layer's.
    fn write_error(&self, error: crate::layer::LayerError) -> ActionError {
        use std::io::ErrorKind::{FileTooLarge, UnexpectedEof};
        match error {
            crate::layer::LayerError::Tar(error) => self.failure(error),
            crate::layer::LayerError::Io { source, .. } | crate::layer::LayerError::Stream { source, .. }
                if source.kind() == UnexpectedEof =>
            {
                ActionError::ArchiveCut
            }
            crate::layer::LayerError::Io { source, .. } | crate::layer::LayerError::Stream { source, .. }
                if source.kind() == FileTooLarge =>
            {
                self.too_large()
            }
            error => error.into(),
        }
    }

    fn too_large(&self) -> ActionError {
        let path = self.archive.clone();
        ActionError::ArchiveTooLarge { path, what: "bytes", limit: self.env.limits.bytes }
    }
}

/// The bytes of the current entry.
struct EntryReader<'a, R>(&'a mut TarReader<R>);

impl<R: Read> Read for EntryReader<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}
