//! Layers out of what sources bring: directories and single files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use cache::context::{Context, MemoryStatCache, WalkRequest, walk};
use cache::fileop::{CopyProgress, FileInput, FileOpEnv, execute};
use cache::layer::{Base, LayerBuilder, Meta, RunWindow};
use cache::store::LayerAbout;
use cache::tree::TreePath;
use solver::op::{ActionInput, CopyAction, FileAction, FileActionKind, FileOp};
use solver::pattern::PatternMatcher;
use solver::{ExecError, Output, redacted};

use super::chains::{Chains, from_store};
use super::leases::Leases;
use super::worker::UNPACK_LIMITS;

/// Makes layers for sources.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    /// Where the layers go.
    pub chains: Chains,
    /// What keeps them while their build runs.
    pub leases: Arc<Leases>,
}

impl Maker {
    /// A layer with everything in a walked directory. Blocking.
    pub(super) fn of_context(
        &self,
        context: Context,
        build: &str,
        description: &str,
    ) -> Result<Output, ExecError> {
        let store = &self.chains.store;
        let staging = store.layers().staging().map_err(from_store)?;
        let env = FileOpEnv {
            dir: staging.path(),
            trees: self.chains.trees.clone(),
            backing: None,
            threads: cache::cores(),
            limits: UNPACK_LIMITS,
            now: SystemTime::now(),
            cancel: &AtomicBool::new(false),
            progress: &CopyProgress::default(),
        };
        let outputs =
            execute(&copy_all(), &[FileInput::Context(context)], &env).map_err(ExecError::failed)?;
        let made = outputs.into_values().next().ok_or_else(|| ExecError::failed(NothingMade))?;
        self.keep(&made.layer, &made.dir, build, description)
    }

    /// A layer with everything in a directory of the daemon's own. Blocking.
    pub(super) fn of_directory(
        &self,
        dir: &Path,
        build: &str,
        description: &str,
    ) -> Result<Output, ExecError> {
        let dir = rustix::fs::open(
            dir,
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let context = walk(&WalkRequest {
            dir: Arc::new(dir.map_err(|e| ExecError::failed(std::io::Error::from(e)))?),
            ignored: &PatternMatcher::default(),
            include_patterns: &[],
            follow_paths: &[],
            stat_cache: &MemoryStatCache::default(),
            trees: self.chains.trees.clone(),
            threads: 2,
            thread_init: None,
            cancel: &AtomicBool::new(false),
        })
        .map_err(ExecError::failed)?;
        self.of_context(context, build, description)
    }

    /// A layer with one file at the top. Blocking.
    pub(super) fn of_file(
        &self,
        name: &str,
        meta: &Meta,
        mut data: impl std::io::Read,
        build: &str,
        description: &str,
    ) -> Result<Output, ExecError> {
        let staging = self.chains.store.layers().staging().map_err(from_store)?;
        let dir = staging.path().join("fs");
        let builder = LayerBuilder::create(&dir, Base::scratch(self.chains.trees.clone()))
            .map_err(ExecError::failed)?;
        let path = TreePath::clean(name.as_bytes()).map_err(ExecError::failed)?;
        builder.write_from(&path, meta, &mut data).map_err(ExecError::failed)?;
        let layer = builder.finish(RunWindow::none()).map_err(ExecError::failed)?;
        self.keep(&layer, &dir, build, description)
    }

    fn keep(
        &self,
        layer: &cache::layer::CommittedLayer,
        dir: &Path,
        build: &str,
        description: &str,
    ) -> Result<Output, ExecError> {
        let about = LayerAbout { description: redacted(description).into_owned(), ..LayerAbout::default() };
        self.chains.store.layers().insert(&self.leases.of(build), layer, about, dir).map_err(from_store)?;
        Ok(Output { chain: Arc::new([layer.id]), content: Some(*layer.root.digest()), local: None })
    }
}

/// `COPY . /` on nothing.
fn copy_all() -> FileOp {
    let copy = CopyAction {
        src: "/".into(),
        dest: "/".into(),
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyAction::default()
    };
    FileOp {
        actions: vec![FileAction {
            input: ActionInput::Scratch,
            secondary: ActionInput::Vertex(0),
            output: Some(0),
            kind: FileActionKind::Copy(Box::new(copy)),
        }],
    }
}

/// A file op without an output.
#[derive(Debug, thiserror::Error)]
#[error("internal error: copying a source made no layer")]
struct NothingMade;
