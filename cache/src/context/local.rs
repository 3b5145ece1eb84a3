//! A walked context, ready to be copied from.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::stat_cache::DirKey;
use crate::tree::{NodeId, TreePath, Trees};

/// Called first in each thread that opens files of a context: takes on the client's identity (fsuid, fsgid, groups).
pub type ThreadInit = Arc<dyn Fn() + Send + Sync>;

/// A walked context.
#[derive(Clone)]
pub struct Context {
    /// The store of its tree.
    pub trees: Arc<Trees>,
    /// Its content tree.
    pub root: NodeId,
    /// What the walk did.
    pub stats: WalkStats,
    pub(super) dir: Arc<OwnedFd>,
    pub(super) thread_init: Option<ThreadInit>,
}

/// What a walk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalkStats {
    /// Objects that belong to the context, directories included.
    pub entries: u64,
    /// Bytes of its regular files.
    pub bytes: u64,
    /// Files whose bytes were read, because the stat cache did not know them.
    pub hashed: u64,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("root", &self.root)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Opens a regular file for reading, at exactly `path`.
    ///
    /// Threads that call it must have called [`Self::init_thread`].
    ///
    /// # Errors
    /// When it is gone, no longer a regular file, below a link, or may not be read.
    pub fn open(&self, path: &TreePath) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(openat2(&self.dir, path.as_path(), flags, Mode::empty(), resolve)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Which directory it is.
    ///
    /// # Errors
    /// When the directory cannot be looked at.
    pub fn key(&self) -> io::Result<DirKey> {
        DirKey::of(self.dir.as_fd())
    }

    /// Takes on the client's identity in the calling thread, where one was given.
    pub fn init_thread(&self) {
        if let Some(init) = &self.thread_init {
            init();
        }
    }

    /// Whether threads that open files need another identity than the daemon's.
    pub fn has_identity(&self) -> bool {
        self.thread_init.is_some()
    }
}
