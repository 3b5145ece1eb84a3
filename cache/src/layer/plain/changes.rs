//! What changed in a plain directory, brought into the form that overlayfs would have left.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::copy_out::{below, meta, set_attributes};
use crate::layer::builder::Meta;
use crate::layer::error::LayerError;
use crate::layer::normal::{io_error, make_whiteout};
use crate::tree::{TreeError, TreePath};
use crate::view::Stat;
use crate::view::disk::{self, FileType};

/// A file whose status changed so shortly before the record counts as changed: what a step does to it right away may
/// get the same time from the kernel's coarse clock (10 ms at 100 Hz).
const CLOCK_LAG_NS: i64 = 20_000_000;

/// What a plain directory holds before a step works in it.
#[derive(Debug)]
pub struct Recorded {
    /// The names in each directory.
    dirs: HashMap<TreePath, HashMap<Box<[u8]>, Stamp>>,
}

/// Tells whether an object is still the one that it was, content and attributes included.
///
/// Programs can set every time but this one (`ctime`, inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    ino: u64,
    changed: i64,
}

impl Recorded {
    /// Notes what is in `dir`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(dir: &Path) -> Result<Self, LayerError> {
        let root = open_root(dir)?;
        let mut recorded = Self { dirs: HashMap::new() };
        recorded.add(&root, &TreePath::root())?;
        Ok(recorded)
    }

    fn add(&mut self, root: &OwnedFd, path: &TreePath) -> Result<(), LayerError> {
        let names = list(root, path)?;
        let stamps = names.iter().map(|(name, stat)| (name.clone(), Stamp::of(stat))).collect();
        self.dirs.insert(path.clone(), stamps);
        for (name, _) in names.iter().filter(|(_, stat)| stat.file_type == FileType::Dir) {
            self.add(root, &path.child(name))?;
        }
        Ok(())
    }

    /// Moves all that is new or changed in `dir` into the empty directory `upper` on the same file system, and makes
    /// whiteouts there for what is gone. What is left in `dir` is useless then.
    ///
    /// What changed so early that times do not tell is moved as well; [`super::super::commit()`] leaves out what
    /// equals the base.
    ///
    /// # Errors
    /// When files cannot be moved, or `upper` not be written.
    pub fn move_changes(self, dir: &Path, upper: &Path) -> Result<(), LayerError> {
        let newest = self.dirs.values().flat_map(HashMap::values).map(|stamp| stamp.changed).max();
        let mut moving = Moving {
            recorded: self,
            trusted_before: newest.map_or(i64::MIN, |at| at.saturating_sub(CLOCK_LAG_NS)),
            root: open_root(dir)?,
            dir,
            upper,
            made: Vec::new(),
        };
        moving.directory(&TreePath::root())?;
        moving.finish()
    }
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self { ino: stat.ino, changed: stat.ctime }
    }
}

/// Changes on their way.
struct Moving<'a> {
    recorded: Recorded,
    /// A stamp that is older than this and equal proves that nothing was done.
    trusted_before: i64,
    root: OwnedFd,
    dir: &'a Path,
    upper: &'a Path,
    /// Directories of `upper` with the attributes that they get in the end, parents first.
    made: Vec<(TreePath, Meta)>,
}

impl Moving<'_> {
    fn directory(&mut self, path: &TreePath) -> Result<(), LayerError> {
        let mut before = self.recorded.dirs.remove(path).unwrap_or_default();
        for (name, stat) in list(&self.root, path)? {
            let (child, stamp) = (path.child(&name), before.remove(&name));
            if child.is_too_long() {
                return Err(TreeError::PathTooLong(child).into());
            }
            let was_dir = self.recorded.dirs.contains_key(&child);
            let same = stamp.is_some_and(|s| s == Stamp::of(&stat) && s.changed < self.trusted_before);
            match stat.file_type {
                FileType::Dir if was_dir => {
                    if !same {
                        self.make_dir(&child)?;
                    }
                    self.directory(&child)?;
                }
                _ if same => {}
                _ => self.take(&child)?,
            }
        }
        for name in before.into_keys() {
            self.make_dir(path)?;
            let child = path.child(&name);
            let upper = open_root(self.upper)?;
            make_whiteout(upper.as_fd(), &child).map_err(|e| io_error("make a whiteout for", &child, e))?;
        }
        Ok(())
    }

    /// Moves an object with all below it.
    fn take(&mut self, path: &TreePath) -> Result<(), LayerError> {
        self.make_dir(&path.parent().unwrap_or_default())?;
        fs_err::rename(below(self.dir, path), below(self.upper, path)).map_err(|e| io_error("move", path, e))
    }

    /// Makes a directory as it is in the tree, and its parents. Called before anything is moved out of it.
    fn make_dir(&mut self, path: &TreePath) -> Result<(), LayerError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let io = |source| io_error("make", path, source);
        let target = below(self.upper, path);
        if target.exists() {
            return Ok(());
        }
        self.make_dir(&parent)?;
        let dir = disk::open_dir(self.root.as_fd(), path.as_bytes()).map_err(io)?;
        let attributes = meta(&disk::fstat(&dir).map_err(io)?, disk::xattrs_of(&dir).map_err(io)?);
        fs_err::create_dir(&target).map_err(io)?;
        self.made.push((path.clone(), attributes));
        Ok(())
    }

    /// Gives the directories their attributes, the innermost first: what is made in one changes its time.
    fn finish(self) -> Result<(), LayerError> {
        for (path, meta) in self.made.iter().rev() {
            set_attributes(&below(self.upper, path), false, meta)
                .map_err(|e| io_error("set the attributes of", path, e))?;
        }
        Ok(())
    }
}

fn open_root(dir: &Path) -> Result<OwnedFd, LayerError> {
    disk::open_root(dir).map_err(|e| io_error("open", &TreePath::root(), e))
}

/// Names with their attributes.
type Names = Vec<(Box<[u8]>, Stat)>;

/// What is in a directory.
fn list(root: &OwnedFd, path: &TreePath) -> Result<Names, LayerError> {
    let io = |source| io_error("list", path, source);
    let dir = disk::open_dir(root.as_fd(), path.as_bytes()).map_err(io)?;
    let look = |name: Box<[u8]>| {
        let stat = disk::stat(dir.as_fd(), &name)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((name, stat))
    };
    disk::names(&dir).and_then(|names| names.into_iter().map(|raw| look(raw.name)).collect()).map_err(io)
}
