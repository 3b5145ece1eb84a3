//! Reading an upper directory: one walk, then the files' bytes in parallel.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs;

use super::OverlayMarks;
use crate::layer::base::Base;
use crate::layer::entry::Change;
use crate::layer::error::LayerError;
use crate::layer::hash::{hash_reader, in_parallel};
use crate::layer::normal::{Item, OVERLAY_PREFIXES, Place, Time, io_error, is_overlay_xattr};
use crate::tree::{FileDigest, Kind, Node, NodeId, TreeError, TreePath, Trees, Xattrs};
use crate::view::disk::{self, FileType, Stat};

/// Reads an upper directory; the items are in walk order.
pub(super) fn scan(root: BorrowedFd<'_>, base: &Base, marks: OverlayMarks) -> Result<Vec<Item>, LayerError> {
    let mut scan = Scan { root, base, marks, items: Vec::new(), files: Vec::new(), links: HashMap::new() };
    scan.dir(&TreePath::root(), None, base.root, Merged::Yes)?;
    scan.read_files()?;
    Ok(scan.items)
}

/// Whether a directory shows what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merged {
    Yes,
    /// It or one above it has an opaque mark.
    No,
}

struct Scan<'a> {
    root: BorrowedFd<'a>,
    base: &'a Base,
    marks: OverlayMarks,
    items: Vec<Item>,
    /// Indices of the regular files, one per inode.
    files: Vec<usize>,
    /// The first item of each inode that has several names, and the other items.
    links: HashMap<u64, (usize, Vec<usize>)>,
}

/// A name of a directory and what its attributes say.
struct Found {
    stat: Stat,
    target: Option<Box<[u8]>>,
    xattrs: Xattrs,
}

impl Scan<'_> {
    /// Reads a directory. `lower` is the node of the directory below it.
    fn dir(
        &mut self,
        path: &TreePath,
        item: Option<usize>,
        lower: NodeId,
        above: Merged,
    ) -> Result<(), LayerError> {
        let below = self.base.trees.load(&lower)?;
        let dir = disk::open_dir(self.root, path.as_bytes()).map_err(|e| io_error("open", path, e))?;
        let own = self.clean_xattrs(&dir, path)?;
        if let Some(Change::Put { node, .. }) = item.map(|i| &mut self.items[i].change) {
            node.xattrs = own.xattrs;
        }
        let merged = if own.opaque { Merged::No } else { above };
        let mut names = self.read_names(path, &dir)?;
        // Closed before what is below is entered: the depth of a tree must not cost descriptors.
        drop(dir);
        if merged == Merged::No {
            for hidden in &below.children {
                names.entry(hidden.name.clone()).or_insert(None);
            }
        }
        for (name, found) in names {
            let under = below.child(&name);
            let lower = under.and_then(|child| child.contents).unwrap_or_else(Trees::empty_contents).id;
            let path = path.child(&name);
            if path.is_too_long() {
                return Err(TreeError::PathTooLong(path).into());
            }
            let index = self.items.len();
            let is_dir = found.as_ref().is_some_and(|f| f.stat.file_type == FileType::Dir);
            self.add(path.clone(), item, found, under.map(|child| child.node.clone()));
            if is_dir {
                self.dir(&path, Some(index), lower, merged)?;
            }
        }
        Ok(())
    }

    /// Adds an item; `found` is `None` for a name that an opaque mark hides.
    fn add(&mut self, path: TreePath, parent: Option<usize>, found: Option<Found>, lower: Option<Node>) {
        let index = self.items.len();
        let mut item = Item {
            path,
            parent,
            change: Change::Whiteout,
            lower,
            place: if found.is_some() { Place::Own } else { Place::Missing },
            time: Time::Own,
            allocated: 0,
            inode: None,
        };
        if let Some(Found { stat, target, xattrs }) = found.filter(|f| !f.stat.is_whiteout()) {
            item.allocated = stat.allocated;
            if stat.nlink > 1 && stat.file_type != FileType::Dir {
                item.inode = Some(stat.ino);
            }
            let first =
                match item.inode.map(|ino| self.links.entry(ino).or_insert_with(|| (index, Vec::new()))) {
                    Some((first, others)) if *first != index => {
                        others.push(index);
                        false
                    }
                    _ => true,
                };
            if first && stat.file_type == FileType::File {
                self.files.push(index);
            }
            let mtime = stat.mtime;
            item.change = Change::Put { node: node_of(&stat, target, xattrs), mtime };
        }
        self.items.push(item);
    }

    /// The names of a directory with their attributes, sorted.
    fn read_names(
        &self,
        path: &TreePath,
        dir: &OwnedFd,
    ) -> Result<BTreeMap<Box<[u8]>, Option<Found>>, LayerError> {
        let io = |source| io_error("list", path, source);
        let mut names = BTreeMap::new();
        for raw in disk::names(dir).map_err(io)? {
            let stat = disk::stat(dir.as_fd(), &raw.name).map_err(io)?;
            let stat = stat.ok_or_else(|| io(io::ErrorKind::NotFound.into()))?;
            let mut found = Found { stat, target: None, xattrs: Xattrs::new() };
            match found.stat.file_type {
                FileType::File | FileType::Dir => {}
                other => {
                    found.xattrs = clean_unopened(dir.as_fd(), &raw.name).map_err(io)?;
                    if other == FileType::Symlink {
                        found.target = Some(disk::read_link(dir.as_fd(), &raw.name).map_err(io)?);
                    }
                }
            }
            names.insert(raw.name, Some(found));
        }
        Ok(names)
    }

    /// Hashes the regular files and reads their attributes.
    fn read_files(&mut self) -> Result<(), LayerError> {
        let this = &*self;
        let read = in_parallel(this.files.len(), |i| this.read_file(&this.items[this.files[i]]))?;
        for (index, (size, content, xattrs)) in std::mem::take(&mut self.files).into_iter().zip(read) {
            if let Change::Put { node, .. } = &mut self.items[index].change {
                node.kind = Kind::File { size, content };
                node.xattrs = xattrs;
            }
        }
        for (first, others) in std::mem::take(&mut self.links).into_values() {
            for other in others {
                self.items[other].change = self.items[first].change.clone();
            }
        }
        Ok(())
    }

    fn read_file(&self, item: &Item) -> Result<(u64, FileDigest, Xattrs), LayerError> {
        let io = |source| io_error("read", &item.path, source);
        let file = disk::open_file(self.root, item.path.as_bytes()).map_err(io)?;
        let own = self.clean_xattrs(&file, &item.path)?;
        let hint = match &item.change {
            Change::Put { node: Node { kind: Kind::File { size, .. }, .. }, .. } => *size,
            _ => 0,
        };
        let (size, content) = hash_reader(&file, hint).map_err(io)?;
        Ok((size, content, own.xattrs))
    }

    /// Reads the attributes of an open file or directory and removes overlayfs's.
    fn clean_xattrs(&self, fd: impl AsFd, path: &TreePath) -> Result<Own, LayerError> {
        let io = |source| io_error("read the attributes of", path, source);
        let mut own = Own::default();
        for (name, value) in disk::xattrs_of(fd.as_fd()).map_err(io)? {
            if !is_overlay_xattr(&name) {
                own.xattrs.push((name, value));
                continue;
            }
            match name.strip_prefix(self.prefix()) {
                Some(b"opaque") if &*value == b"y" => own.opaque = true,
                // A renamed directory, a file without its data, a whiteout that is no device: ruled out by the
                // mount options, and not to be understood without the lower directories.
                Some(b"redirect" | b"metacopy" | b"whiteout") => {
                    let mark = String::from_utf8_lossy(&name).into_owned();
                    return Err(LayerError::OverlayMark { path: path.clone(), mark });
                }
                _ => {}
            }
            fs::fremovexattr(fd.as_fd(), &*name).map_err(|e| io(e.into()))?;
        }
        Ok(own)
    }

    fn prefix(&self) -> &'static [u8] {
        match self.marks {
            OverlayMarks::Trusted => OVERLAY_PREFIXES[0],
            OverlayMarks::User => OVERLAY_PREFIXES[1],
        }
    }
}

/// What the attributes of an object say.
#[derive(Default)]
struct Own {
    opaque: bool,
    xattrs: Xattrs,
}

/// Reads the attributes of a link or special file and removes overlayfs's.
fn clean_unopened(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Xattrs> {
    let mut xattrs = disk::xattrs_at(dir, name)?;
    let path = disk::proc_path(dir, name);
    for (name, _) in xattrs.extract_if(.., |(name, _)| is_overlay_xattr(name)) {
        fs::lremovexattr(&*path, &*name)?;
    }
    Ok(xattrs)
}

/// The node of an object; a file's content is filled in later.
fn node_of(stat: &Stat, target: Option<Box<[u8]>>, xattrs: Xattrs) -> Node {
    let (major, minor) = stat.rdev;
    let kind = match stat.file_type {
        FileType::File => Kind::File { size: stat.size, content: FileDigest::from_bytes([0; 32]) },
        FileType::Dir => Kind::Dir,
        FileType::Symlink => Kind::Symlink { target: target.unwrap_or_default() },
        FileType::CharDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
    };
    Node { kind, mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: None, xattrs, link_group: None }
}
