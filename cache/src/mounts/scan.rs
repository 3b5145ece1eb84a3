//! What a mount's directory holds.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Statx};

use super::error::MountError;
use crate::context::{DirKey, FileDigests, StatCache, read_names, stat_fd, stat_in};
use crate::layer::{Change, Entries, LayerEntry};
use crate::tree::{Kind, Node, TreePath, Xattrs};
use crate::view::disk;

/// What a mount holds here.
#[derive(Debug)]
pub struct Scanned {
    /// The mount's own directory, and its modification time in nanoseconds since 1970.
    pub top: (Node, i64),
    /// What is in it. Sockets and devices are left out.
    pub entries: Entries,
    dir: OwnedFd,
}

impl Scanned {
    /// Opens one of its files.
    ///
    /// # Errors
    /// When it is gone or may not be read.
    pub(super) fn open(&self, path: &TreePath) -> io::Result<File> {
        disk::open_file(self.dir.as_fd(), path.as_bytes())
    }
}

/// Reads a mount's directory; files are hashed that the stat cache does not know. Nobody else is to write there meanwhile.
///
/// Blocking. Never follows symbolic links.
///
/// # Errors
/// What cannot be read; paths that are too long.
pub fn scan(dir: &Path, stat_cache: &dyn StatCache, cancel: &AtomicBool) -> Result<Scanned, MountError> {
    let root = TreePath::root();
    let dir = disk::open_root(dir).map_err(MountError::io("open", &root))?;
    let stat = stat_fd(dir.as_fd()).map_err(MountError::io("stat", &root))?;
    let xattrs = disk::xattrs_of(&dir).map_err(MountError::io("read the attributes of", &root))?;
    let top = (node(Kind::Dir, &stat, xattrs), mtime(&stat));
    let mut scan = Scan { digests: FileDigests::new(stat_cache), entries: Vec::new(), names: HashMap::new() };
    let mut dirs = vec![root];
    while let Some(path) = dirs.pop() {
        if cancel.load(Ordering::Relaxed) {
            return Err(MountError::Canceled);
        }
        scan.directory(&dir, &path, &mut dirs)?;
    }
    let Scan { digests, mut entries, names } = scan;
    digests.finish()?;
    // The smallest path names the group.
    let groups = names.into_values().filter(|paths| paths.len() > 1);
    let groups: HashMap<TreePath, TreePath> = groups
        .flat_map(|paths| {
            let first = paths.iter().min().cloned().unwrap_or_default();
            paths.into_iter().map(move |path| (path, first.clone()))
        })
        .collect();
    for LayerEntry { path, change } in &mut entries {
        if let Change::Put { node, .. } = change {
            node.link_group = groups.get(path).cloned();
        }
    }
    Ok(Scanned { top, entries: Entries::new(entries), dir })
}

struct Scan<'a> {
    digests: FileDigests<'a>,
    entries: Vec<LayerEntry>,
    /// The names of files that have several, by inode.
    names: HashMap<u64, Vec<TreePath>>,
}

impl Scan<'_> {
    fn directory(
        &mut self,
        root: &OwnedFd,
        path: &TreePath,
        dirs: &mut Vec<TreePath>,
    ) -> Result<(), MountError> {
        let dir = disk::open_dir(root.as_fd(), path.as_bytes()).map_err(MountError::io("open", path))?;
        let key = DirKey::of(dir.as_fd()).map_err(MountError::io("stat", path))?;
        let mut within = self.digests.enter(key)?;
        let mut names: Vec<CString> = Vec::new();
        read_names(dir.as_fd(), path, &mut |name, _| {
            names.push(name.to_owned());
            Ok(())
        })?;
        for name in names {
            let child = path.child(name.to_bytes());
            if child.is_too_long() {
                return Err(MountError::TooLong(child));
            }
            let Some(stat) = stat_in(dir.as_fd(), &name, &|| child.clone())? else { continue };
            let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
                FileType::RegularFile => {
                    let found = self.digests.of(&mut within, dir.as_fd(), &name, &stat, &|| child.clone())?;
                    let Some((content, size)) = found else { continue };
                    if stat.stx_nlink > 1 {
                        self.names.entry(stat.stx_ino).or_default().push(child.clone());
                    }
                    Kind::File { size, content }
                }
                FileType::Directory => {
                    dirs.push(child.clone());
                    Kind::Dir
                }
                FileType::Symlink => {
                    let target = disk::read_link(dir.as_fd(), name.to_bytes());
                    Kind::Symlink { target: target.map_err(MountError::io("read the link", &child))? }
                }
                FileType::Fifo => Kind::Fifo,
                _ => continue,
            };
            let xattrs = disk::xattrs_at(dir.as_fd(), name.to_bytes());
            let xattrs = xattrs.map_err(MountError::io("read the attributes of", &child))?;
            let change = Change::Put { node: node(kind, &stat, xattrs), mtime: mtime(&stat) };
            self.entries.push(LayerEntry { path: child, change });
        }
        self.digests.leave(within);
        Ok(())
    }
}

fn node(kind: Kind, stat: &Statx, xattrs: Xattrs) -> Node {
    let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { u32::from(stat.stx_mode) & 0o7777 };
    Node { kind, mode, uid: stat.stx_uid, gid: stat.stx_gid, mtime: None, xattrs, link_group: None }
}

fn mtime(stat: &Statx) -> i64 {
    let time = &stat.stx_mtime;
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
}
