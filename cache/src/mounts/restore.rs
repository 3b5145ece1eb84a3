//! From a list and its packs to a directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, mknodat};

use super::error::MountError;
use super::list::MountList;
use crate::context::{DirKey, FileRecorder, Recorded, StatCache, remember};
use crate::layer::{Change, Meta, below, set_attributes};
use crate::tree::{FileDigest, Kind, Node, TreePath};

/// Bytes copied at a time.
const BUFFER: usize = 256 << 10;

/// Packs that came in, decompressed, one after the other in a file.
#[derive(Debug)]
pub struct Spool {
    /// The file.
    pub file: File,
    /// Where each pack of the list begins in it, in bytes; `None` of those that are not needed.
    pub starts: Vec<Option<u64>>,
}

/// Fills the empty directory `dir`, which nobody else uses, with what `list` says.
///
/// Blocking. What was written is known to the stat cache, so that nobody need read it to find that it is the same.
///
/// # Errors
/// [`MountError::Damaged`] where the packs give other bytes than the list says, [`MountError::Canceled`] once `canceled` says so, and what
/// cannot be written. The directory is then useless.
pub fn restore(
    list: &MountList,
    packs: &Spool,
    dir: &Path,
    stat_cache: &dyn StatCache,
    canceled: &dyn Fn() -> bool,
) -> Result<(), MountError> {
    let mut restore =
        Restore { list, packs, dir, buffer: vec![0; BUFFER], written: Vec::new(), live: HashMap::new() };
    let mut dirs: Vec<(&TreePath, Meta)> = Vec::new();
    let mut first_names: HashMap<&TreePath, &TreePath> = HashMap::new();
    let mut keys: HashMap<TreePath, DirKey> = HashMap::new();
    let root = TreePath::root();
    keys.insert(root.clone(), restore.key(&root)?);
    for entry in list.entries.iter() {
        let Change::Put { node, mtime } = &entry.change else { continue };
        if canceled() {
            return Err(MountError::Canceled);
        }
        let (path, meta) = (&entry.path, meta(node, *mtime));
        let parent = path.parent().unwrap_or_default();
        let key = *keys.get(&parent).ok_or(MountError::Damaged("a file has no directory to lie in"))?;
        let first = node.link_group.as_ref().map(|group| *first_names.entry(group).or_insert(path));
        if let Some(first) = first.filter(|first| *first != path) {
            let linked = std::fs::hard_link(below(dir, first), below(dir, path));
            linked.map_err(MountError::io("link", path))?;
            continue;
        }
        match &node.kind {
            Kind::Dir => {
                std::fs::create_dir(below(dir, path)).map_err(MountError::io("make", path))?;
                keys.insert(path.clone(), restore.key(path)?);
                // What is made in it changes its time.
                dirs.push((path, meta));
            }
            Kind::File { size, content } => restore.file(path, (*size, content), &meta, key)?,
            Kind::Symlink { target } => {
                let linked = std::os::unix::fs::symlink(OsStr::from_bytes(target), below(dir, path));
                linked.map_err(MountError::io("make", path))?;
                set_attributes(&below(dir, path), true, &meta)
                    .map_err(MountError::io("set the attributes of", path))?;
            }
            Kind::Fifo => {
                let made = mknodat(CWD, below(dir, path), rustix::fs::FileType::Fifo, Mode::RUSR, 0);
                made.map_err(MountError::io("make", path))?;
                set_attributes(&below(dir, path), false, &meta)
                    .map_err(MountError::io("set the attributes of", path))?;
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Socket => {}
        }
    }
    dirs.insert(0, (&root, meta(&list.top.0, list.top.1)));
    for (path, meta) in dirs.iter().rev() {
        set_attributes(&below(dir, path), false, meta)
            .map_err(MountError::io("set the attributes of", path))?;
    }
    Ok(remember(stat_cache, &restore.written, &restore.live)?)
}

struct Restore<'a> {
    list: &'a MountList,
    packs: &'a Spool,
    dir: &'a Path,
    buffer: Vec<u8>,
    written: Vec<Recorded>,
    /// How many files each directory has.
    live: HashMap<DirKey, usize>,
}

impl Restore<'_> {
    fn key(&self, path: &TreePath) -> Result<DirKey, MountError> {
        let open = || DirKey::of(File::open(below(self.dir, path))?.as_fd());
        open().map_err(MountError::io("open", path))
    }

    fn file(
        &mut self,
        path: &TreePath,
        (size, content): (u64, &FileDigest),
        meta: &Meta,
        within: DirKey,
    ) -> Result<(), MountError> {
        let target = below(self.dir, path);
        let io = MountError::io("write", path);
        let mut file = File::create_new(&target).map_err(&io)?;
        let mut recorder = FileRecorder::default();
        let chunks = (size > 0).then(|| self.list.contents.of(content));
        let nowhere = MountError::Damaged("the bytes of a file are in no pack");
        let chunks = chunks.map(|chunks| chunks.ok_or(nowhere)).transpose()?;
        for chunk in chunks.into_iter().flatten() {
            let start = self.packs.starts.get(chunk.pack as usize).copied().flatten();
            let start = start.ok_or(MountError::Damaged("a pack is missing"))?;
            let (mut at, end) = (start + chunk.offset, start + chunk.offset + chunk.len);
            while at < end {
                let len = self.buffer.len().min((end - at) as usize);
                let part = &mut self.buffer[..len];
                self.packs.file.read_exact_at(part, at).map_err(short)?;
                recorder.update(part);
                file.write_all(part).map_err(&io)?;
                at += len as u64;
            }
        }
        set_attributes(&target, false, meta).map_err(MountError::io("set the attributes of", path))?;
        let recorded = recorder.finish(within, file.as_fd()).map_err(&io)?;
        if recorded.digest() != *content && size > 0 {
            return Err(MountError::Damaged("the bytes of a file are others than its list says"));
        }
        self.written.push(recorded);
        *self.live.entry(within).or_default() += 1;
        Ok(())
    }
}

/// A pack that ends early.
fn short(error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => MountError::Damaged("a pack is too short"),
        _ => MountError::io("read a pack of", &TreePath::root())(error),
    }
}

fn meta(node: &Node, mtime: i64) -> Meta {
    Meta { mode: node.mode, uid: node.uid, gid: node.gid, mtime, xattrs: node.xattrs.clone() }
}
