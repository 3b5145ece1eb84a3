//! What a file operation works on and with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use crate::context::Context;
use crate::layer::{Backing, Base, CommittedLayer, UnpackLimits};
use crate::tree::Trees;

/// An input of the vertex.
#[derive(Debug, Clone)]
pub enum FileInput {
    /// A chain of layers.
    Chain(Base),
    /// A client's directory. As the thing that is changed it becomes a layer of its own, over scratch.
    Context(Context),
}

/// What [`super::execute()`] needs besides operation and inputs.
#[derive(Debug)]
pub struct FileOpEnv<'a> {
    /// An existing directory, empty, on the file system of the snapshots. Layers are made in it; on failure its
    /// content is useless.
    pub dir: &'a Path,
    /// The store of trees.
    pub trees: Arc<Trees>,
    /// What the operation gave before, which need not be written again where it is the same.
    pub backing: Option<Backing>,
    /// How many threads copy, at least 1.
    pub threads: usize,
    /// Bounds on what an archive (ADD) may unpack to.
    pub limits: UnpackLimits,
    /// The time of what gets no other, which does not count for what the layer contains.
    pub now: SystemTime,
    /// Ends the operation early when set.
    pub cancel: &'a AtomicBool,
    /// Counts what was copied.
    pub progress: &'a CopyProgress,
}

/// What was copied so far; read it from another thread.
#[derive(Debug, Default)]
pub struct CopyProgress {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl CopyProgress {
    /// Regular files written.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// An output of the vertex.
#[derive(Debug, Clone)]
pub struct FileOutput {
    /// The layer; its `root` is the tree of input and layer together. It may have no entries.
    pub layer: CommittedLayer,
    /// Where it is, below [`FileOpEnv::dir`].
    pub dir: PathBuf,
}
