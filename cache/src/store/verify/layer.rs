//! Comparing a layer's directory with the list of its entries.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use fs_err as fs;
use solver::{Digest, LayerId};

use crate::layer::{Change, Entries};
use crate::store::error::StoreError;
use crate::store::layers::LayerInfo;
use crate::store::layout::Layout;
use crate::tree::{FileDigest, Kind, Node, TreePath};

/// Whether a layer's directory is what was stored.
pub(in crate::store) fn is_sound(
    layout: &Layout,
    id: &LayerId,
    info: &LayerInfo,
) -> Result<bool, StoreError> {
    Ok(problem(layout, id, info)?.is_none())
}

/// What is wrong with a layer's directory, if anything.
///
/// Extended attributes are not compared: a journal that lost them lost the inode's other changes of that time
/// as well.
pub(super) fn problem(layout: &Layout, id: &LayerId, info: &LayerInfo) -> Result<Option<String>, StoreError> {
    let Ok(bytes) = fs::read(layout.snapshot_entries(id)) else {
        return Ok(Some("its list of entries is missing".to_owned()));
    };
    if info.entries_digest != Some(Digest::of(&bytes)) {
        return Ok(Some("its list of entries is damaged".to_owned()));
    }
    let Ok(entries) = Entries::decode(&bytes) else {
        return Ok(Some("its list of entries does not parse".to_owned()));
    };
    let Some(below) = below(layout, info)? else {
        return Ok(Some("what it is thin over is missing or damaged".to_owned()));
    };
    let mut expected: HashMap<&TreePath, &Change> =
        entries.iter().map(|entry| (&entry.path, &entry.change)).collect();
    let root = layout.snapshot_fs(id);
    for entry in walkdir::WalkDir::new(&root).min_depth(1) {
        let Ok(entry) = entry else { return Ok(Some("it cannot be walked".to_owned())) };
        let relative = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        let known = TreePath::parse(relative.as_os_str().as_bytes()).ok();
        // A whiteout for what the backing has there, or what the parent has and the backing would hide.
        let hides = known.as_ref().is_some_and(|path| below.get(path).is_some());
        let Some(change) = known.and_then(|path| expected.remove(&path)) else {
            if hides {
                continue;
            }
            return Ok(Some(format!("`{}` was added", relative.display())));
        };
        if let Some(what) = difference(entry.path(), change)? {
            return Ok(Some(format!("`{}` has another {what}", relative.display())));
        }
    }
    expected.retain(|path, change| below.get(path).is_none_or(|entry| !is_same(&entry.change, change)));
    Ok(expected.keys().min().map(|path| format!("`{path}` is missing")))
}

/// What a thin layer's backing has, which is verified by itself; nothing for a layer that is not thin.
fn below(layout: &Layout, info: &LayerInfo) -> Result<Option<Entries>, StoreError> {
    let Some(backing) = &info.backing else { return Ok(Some(Entries::default())) };
    match fs::read(layout.snapshot_entries(backing)) {
        Ok(bytes) => Ok(Entries::decode(&bytes).ok()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("read", &layout.snapshot_entries(backing))(e)),
    }
}

/// Whether two layers have the same object, whether or not its time counts.
fn is_same(a: &Change, b: &Change) -> bool {
    match (a, b) {
        (Change::Put { node: a, mtime: at }, Change::Put { node: b, mtime: bt }) => {
            at == bt && Node { mtime: None, ..a.clone() } == Node { mtime: None, ..b.clone() }
        }
        _ => a == b,
    }
}

/// In what a file differs from its entry.
fn difference(path: &Path, change: &Change) -> Result<Option<&'static str>, StoreError> {
    let meta = fs::symlink_metadata(path).map_err(StoreError::io("read", path))?;
    let (node, mtime) = match change {
        Change::Whiteout => {
            let kind = meta.file_type();
            let whiteout = (kind.is_char_device() || kind.is_block_device()) && meta.rdev() == 0;
            return Ok((!whiteout).then_some("type"));
        }
        Change::Put { node, mtime } => (node, *mtime),
    };
    let mode = if node.link_target().is_some() { 0o777 } else { meta.mode() & 0o7777 };
    let found_mtime = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
    Ok(match () {
        () if mode != node.mode => Some("mode"),
        () if (meta.uid(), meta.gid()) != (node.uid, node.gid) => Some("owner"),
        () if found_mtime != mtime => Some("modification time"),
        () => content_difference(path, &meta, node)?,
    })
}

fn content_difference(
    path: &Path,
    meta: &std::fs::Metadata,
    node: &Node,
) -> Result<Option<&'static str>, StoreError> {
    let kind = meta.file_type();
    let device = |major: u32, minor: u32| meta.rdev() == rustix::fs::makedev(major, minor);
    let same_type = match &node.kind {
        Kind::File { .. } => kind.is_file(),
        Kind::Dir => kind.is_dir(),
        Kind::Symlink { .. } => kind.is_symlink(),
        Kind::CharDevice { major, minor } => kind.is_char_device() && device(*major, *minor),
        Kind::BlockDevice { major, minor } => kind.is_block_device() && device(*major, *minor),
        Kind::Fifo => kind.is_fifo(),
        Kind::Socket => kind.is_socket(),
    };
    if !same_type {
        return Ok(Some("type"));
    }
    let same = match &node.kind {
        Kind::File { size, content } => meta.len() == *size && hash_file(path)? == *content,
        Kind::Symlink { target } => {
            let found = fs::read_link(path).map_err(StoreError::io("read", path))?;
            found.as_os_str().as_bytes() == &**target
        }
        _ => true,
    };
    Ok((!same).then_some("content"))
}

fn hash_file(path: &Path) -> Result<FileDigest, StoreError> {
    let file = fs::File::open(path).map_err(StoreError::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(StoreError::io("read", path))?;
    Ok(FileDigest::from_bytes(*hasher.finalize().as_bytes()))
}
