//! The merged view: one layer directory over the other, without a mount.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::disk::{self, FileType, Stat};
use super::error::ViewError;
use crate::tree::resolve::{Missing, ResolveError, Step, resolve};
use crate::tree::{Follow, TreePath, Xattrs};

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its real path: no component but the last is a symbolic link.
    pub path: TreePath,
    /// Index of the topmost layer that has it, 0 at the bottom.
    pub layer: usize,
    /// Its attributes there.
    pub stat: Stat,
}

/// A name in a merged directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirItem {
    /// One component.
    pub name: Box<[u8]>,
    /// Its type.
    pub file_type: FileType,
    /// Index of the topmost layer that has it.
    pub layer: usize,
}

/// A chain of layer directories in normal form, merged. The directories must not change while it lives.
#[derive(Debug)]
pub struct MergedView {
    /// Bottom first.
    layers: Vec<OwnedFd>,
    /// The directory that was looked into last: walks ask for one name after the other.
    last: Mutex<Option<(TreePath, Parts)>>,
}

/// The layers in which a directory takes part, topmost first.
type Parts = Vec<usize>;

impl MergedView {
    /// Opens a chain of layer directories (`…/fs`), bottom first.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub fn open(layers: &[PathBuf]) -> Result<Self, ViewError> {
        let open = |dir: &PathBuf| {
            disk::open_root(dir).map_err(|source| ViewError::Layer { dir: dir.clone(), source })
        };
        Ok(Self { layers: layers.iter().map(open).collect::<Result<_, _>>()?, last: Mutex::default() })
    }

    /// A view of nothing: an empty root.
    pub fn empty() -> Self {
        Self { layers: Vec::new(), last: Mutex::default() }
    }

    /// The object at exactly `path`, no symbolic link followed; `None` when there is none. The root of an empty
    /// chain is none either.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn get(&self, path: &TreePath) -> Result<Option<Located>, ViewError> {
        let Some(parent) = path.parent() else { return self.root() };
        match self.parts(&parent)? {
            Some(parts) => Ok(self.find(&parts, path)?.map(|(found, _)| found)),
            None => Ok(None),
        }
    }

    /// Resolves `path` as `openat2(RESOLVE_IN_ROOT)` does; `None` when the last component does not exist. Empty
    /// components (a trailing slash too) and `.` mean nothing.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] when a directory on the way is missing, [`ViewError::NotADirectory`],
    /// [`ViewError::TooManyLinks`], or when a directory cannot be read.
    pub fn resolve(&self, path: &[u8], follow: Follow) -> Result<Option<Located>, ViewError> {
        let real = resolve(path, follow, Missing::Error, |p| self.step(p)).map_err(|e| match e {
            ResolveError::NotFound(at) => ViewError::NotFound(at),
            ResolveError::NotADirectory(at) => ViewError::NotADirectory(at),
            ResolveError::TooManyLinks => ViewError::TooManyLinks(path.into()),
            ResolveError::Path(e) => e.into(),
            ResolveError::Get(e) => e,
        })?;
        self.get(&real)
    }

    /// The names in the directory at exactly `path`, sorted by bytes.
    ///
    /// # Errors
    /// [`ViewError::NotFound`], [`ViewError::NotADirectory`], or when it cannot be read.
    pub fn list(&self, path: &TreePath) -> Result<Vec<DirItem>, ViewError> {
        let Some(parts) = self.parts(path)? else {
            return Err(match self.get(path)? {
                Some(_) => ViewError::NotADirectory(path.clone()),
                None if path.is_root() => return Ok(Vec::new()),
                None => ViewError::NotFound(path.clone()),
            });
        };
        let mut merged: BTreeMap<Box<[u8]>, Option<(FileType, usize)>> = BTreeMap::new();
        for &layer in &parts {
            let io = |source| ViewError::Io { action: "list", path: path.clone(), source };
            let dir = disk::open_dir(self.layers[layer].as_fd(), path.as_bytes()).map_err(io)?;
            for raw in disk::names(&dir).map_err(io)? {
                if merged.contains_key(&raw.name) {
                    continue;
                }
                // Only a look at a device tells whether it is a whiteout.
                let item = match raw.file_type {
                    Some(known) if !matches!(known, FileType::CharDevice | FileType::BlockDevice) => {
                        Some((known, layer))
                    }
                    _ => disk::stat(dir.as_fd(), &raw.name)
                        .map_err(io)?
                        .filter(|stat| !stat.is_whiteout())
                        .map(|stat| (stat.file_type, layer)),
                };
                merged.insert(raw.name, item);
            }
        }
        let item = |(name, found): (Box<[u8]>, Option<_>)| {
            found.map(|(file_type, layer)| DirItem { name, file_type, layer })
        };
        Ok(merged.into_iter().filter_map(item).collect())
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`ViewError::NotAFile`] for anything else, or when it cannot be opened.
    pub fn open_file(&self, file: &Located) -> Result<File, ViewError> {
        if file.stat.file_type != FileType::File {
            return Err(ViewError::NotAFile(file.path.clone()));
        }
        disk::open_file(self.layers[file.layer].as_fd(), file.path.as_bytes())
            .map_err(|source| ViewError::Io { action: "open", path: file.path.clone(), source })
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_link(&self, link: &Located) -> Result<Vec<u8>, ViewError> {
        disk::read_link(self.layers[link.layer].as_fd(), link.path.as_bytes())
            .map(Into::into)
            .map_err(|source| ViewError::Io { action: "read the link", path: link.path.clone(), source })
    }

    /// Extended attributes of an object, sorted by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn xattrs(&self, object: &Located) -> Result<Xattrs, ViewError> {
        let root = self.layers[object.layer].as_fd();
        let path = object.path.as_bytes();
        let read = || match object.stat.file_type {
            FileType::File => disk::xattrs_of(disk::open_file(root, path)?),
            FileType::Dir => disk::xattrs_of(disk::open_dir(root, path)?),
            _ => {
                let parent = object.path.parent().unwrap_or_default();
                disk::xattrs_at(disk::open_dir(root, parent.as_bytes())?.as_fd(), object.path.name())
            }
        };
        read().map_err(|source| ViewError::Io {
            action: "read attributes of",
            path: object.path.clone(),
            source,
        })
    }

    /// Reads a small regular file such as `/etc/passwd`, links followed; `None` when it does not exist.
    ///
    /// # Errors
    /// [`ViewError::TooLarge`] above `limit` bytes, [`ViewError::NotAFile`], or as [`Self::resolve`].
    pub fn read_small(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>, ViewError> {
        let found = match self.resolve(path, Follow::Last) {
            Ok(Some(found)) => found,
            Ok(None) | Err(ViewError::NotFound(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        if found.stat.file_type == FileType::File && found.stat.size > limit {
            return Err(ViewError::TooLarge { path: found.path, limit });
        }
        let mut data = Vec::new();
        // One more byte than allowed, so that a size that lies is noticed.
        self.open_file(&found)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut data)
            .map_err(|source| ViewError::Io { action: "read", path: found.path.clone(), source })?;
        if data.len() as u64 > limit {
            return Err(ViewError::TooLarge { path: found.path, limit });
        }
        Ok(Some(data))
    }

    /// The beginning of a regular file, links followed, at most `len` bytes; nothing when it does not exist.
    ///
    /// # Errors
    /// [`ViewError::NotAFile`], or as [`Self::resolve`].
    pub fn read_head(&self, path: &[u8], len: u64) -> Result<Vec<u8>, ViewError> {
        let found = match self.resolve(path, Follow::Last) {
            Ok(Some(found)) => found,
            Ok(None) | Err(ViewError::NotFound(_)) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut data = Vec::new();
        self.open_file(&found)?.take(len).read_to_end(&mut data).map_err(|source| ViewError::Io {
            action: "read",
            path: found.path.clone(),
            source,
        })?;
        Ok(data)
    }

    /// Calls `visit` for everything below the directory at `path`, in walk order, until it fails. What is below a
    /// directory for which it returns false is left out.
    ///
    /// # Errors
    /// As [`Self::list`], and what `visit` returns.
    pub fn walk<E: From<ViewError>>(
        &self,
        path: &TreePath,
        visit: &mut dyn FnMut(&Located) -> Result<bool, E>,
    ) -> Result<(), E> {
        for item in self.list(path)? {
            let path = path.child(&item.name);
            let stat = disk::stat(self.layers[item.layer].as_fd(), path.as_bytes())
                .and_then(|stat| stat.ok_or_else(|| rustix::io::Errno::NOENT.into()))
                .map_err(|source| ViewError::Io { action: "look at", path: path.clone(), source })?;
            let located = Located { path, layer: item.layer, stat };
            if visit(&located)? && located.stat.file_type == FileType::Dir {
                self.walk(&located.path, visit)?;
            }
        }
        Ok(())
    }

    /// The root directory of the topmost layer.
    fn root(&self) -> Result<Option<Located>, ViewError> {
        let Some(top) = self.layers.last() else { return Ok(None) };
        let path = TreePath::root();
        let stat = disk::fstat(top).map_err(|source| ViewError::Io {
            action: "look at",
            path: path.clone(),
            source,
        })?;
        Ok(Some(Located { path, layer: self.layers.len() - 1, stat }))
    }

    /// The layers that take part in the directory at exactly `path`; `None` when it is no directory.
    fn parts(&self, path: &TreePath) -> Result<Option<Parts>, ViewError> {
        if let Some((last, parts)) = &*self.last()
            && last == path
        {
            return Ok(Some(parts.clone()));
        }
        let mut parts: Parts = (0..self.layers.len()).rev().collect();
        let mut at = TreePath::root();
        for name in path.components() {
            at = at.child(name);
            match self.find(&parts, &at)? {
                Some((_, below)) if !below.is_empty() => parts = below,
                _ => return Ok(None),
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        *self.last() = Some((path.clone(), parts.clone()));
        Ok(Some(parts))
    }

    fn last(&self) -> MutexGuard<'_, Option<(TreePath, Parts)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for `path` in the layers that have its parent as a directory: what is on top and, if that is a
    /// directory, all layers that take part in it.
    fn find(&self, parent: &[usize], path: &TreePath) -> Result<Option<(Located, Parts)>, ViewError> {
        let mut found: Option<(Located, Parts)> = None;
        for &layer in parent {
            // The parent is a real directory in each of these layers, so no link can be on the way.
            let stat = disk::stat(self.layers[layer].as_fd(), path.as_bytes())
                .map_err(|source| ViewError::Io { action: "look at", path: path.clone(), source })?;
            let Some(stat) = stat else { continue };
            let is_dir = stat.file_type == FileType::Dir;
            match &mut found {
                None if stat.is_whiteout() => return Ok(None),
                None => {
                    let parts = if is_dir { vec![layer] } else { Vec::new() };
                    found = Some((Located { path: path.clone(), layer, stat }, parts));
                }
                Some((_, parts)) if is_dir => parts.push(layer),
                Some(_) => {}
            }
            if !is_dir {
                break;
            }
        }
        Ok(found)
    }

    /// What the resolver has to know of an exact path.
    fn step(&self, path: &TreePath) -> Result<Option<Step>, ViewError> {
        let Some(found) = self.get(path)? else { return Ok(None) };
        Ok(Some(match found.stat.file_type {
            FileType::Dir => Step::Dir,
            FileType::Symlink => Step::Link(self.read_link(&found)?.into()),
            _ => Step::Other,
        }))
    }
}
