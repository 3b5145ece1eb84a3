//! A chain of layers in a temporary directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::layer::{
    Base, Change, CommitRequest, CommittedLayer, Entries, LayerBuilder, OverlayMarks, RunWindow, commit,
};
use crate::tree::{MemoryNodes, NodeId, TreePath, Trees};
use crate::view::MergedView;

/// Layers on disk, bottom first, with their trees.
pub(super) struct Chain {
    pub(super) dir: tempfile::TempDir,
    pub(super) trees: Arc<Trees>,
    pub(super) layers: Vec<(PathBuf, CommittedLayer)>,
}

impl Chain {
    pub(super) fn new() -> Self {
        let trees = Arc::new(Trees::new(Arc::new(MemoryNodes::default())));
        Self { dir: tempfile::tempdir().unwrap(), trees, layers: Vec::new() }
    }

    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        self.layers.iter().map(|(dir, _)| dir.clone()).collect()
    }

    pub(super) fn root(&self) -> NodeId {
        self.layers.last().map_or_else(Trees::empty, |(_, layer)| layer.root)
    }

    pub(super) fn base(&self) -> Base {
        let view = Arc::new(MergedView::open(&self.dirs()).unwrap());
        Base { trees: self.trees.clone(), root: self.root(), view }
    }

    pub(super) fn new_dir(&self) -> PathBuf {
        self.dir.path().join(format!("l{}", self.layers.len()))
    }

    pub(super) fn push(&mut self, dir: PathBuf, layer: CommittedLayer) -> &Entries {
        self.layers.push((dir, layer));
        &self.layers.last().unwrap().1.entries
    }

    /// Adds a layer through a builder.
    pub(super) fn build(&mut self, make: impl FnOnce(&LayerBuilder)) -> &Entries {
        let dir = self.new_dir();
        let builder = LayerBuilder::create(&dir, self.base()).unwrap();
        make(&builder);
        let layer = builder.finish(window()).unwrap();
        self.push(dir, layer)
    }

    /// Commits an upper directory.
    pub(super) fn commit(&mut self, upper: PathBuf, start: SystemTime, stubs: &[TreePath]) -> &Entries {
        let base = self.base();
        let window = RunWindow::new(start, SystemTime::now());
        let marks = OverlayMarks::Trusted;
        let layer = commit(&CommitRequest { upper: &upper, base: &base, window, stubs, marks }).unwrap();
        self.push(upper, layer)
    }
}

/// Times of the last minute do not count.
pub(super) fn window() -> RunWindow {
    RunWindow::new(SystemTime::now() - Duration::from_secs(60), SystemTime::now() + Duration::from_secs(1))
}

pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// Paths of a layer; whiteouts with a `-` before them, directories with a slash behind.
pub(super) fn names(entries: &Entries) -> Vec<String> {
    let name = |e: &crate::layer::LayerEntry| {
        let path = String::from_utf8_lossy(e.path.as_bytes()).into_owned();
        match &e.change {
            Change::Whiteout => format!("-{path}"),
            Change::Put { node, .. } if node.is_dir() => format!("{path}/"),
            Change::Put { .. } => path,
        }
    };
    entries.iter().map(name).collect()
}

/// Whether this process may mount overlays; tests that need it say so and pass when it may not.
pub(super) fn can_mount_overlay() -> bool {
    let probe = tempfile::tempdir().unwrap();
    let mounted = Overlay::mount(probe.path(), &[probe.path().join("lower")]);
    if mounted.is_none() {
        eprintln!("skipped: overlay mounts are not permitted here");
    }
    mounted.is_some()
}

/// An overlay mount, unmounted at the end.
pub(super) struct Overlay {
    pub(super) merged: PathBuf,
    pub(super) upper: PathBuf,
}

impl Overlay {
    /// Mounts over `lower`, bottom first.
    pub(super) fn mount(at: &Path, lower: &[PathBuf]) -> Option<Self> {
        let (merged, upper, work) = (at.join("merged"), at.join("upper"), at.join("work"));
        for dir in [&merged, &upper, &work].into_iter().chain(lower) {
            std::fs::create_dir_all(dir).unwrap();
        }
        let lower: Vec<_> = lower.iter().rev().map(|dir| dir.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off,xino=off",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount(
            "overlay",
            &merged,
            "overlay",
            rustix::mount::MountFlags::empty(),
            Some(&*options),
        )
        .ok()
        .map(|()| Self { merged, upper })
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.merged, rustix::mount::UnmountFlags::empty()).unwrap();
    }
}
