//! A container's files: what it writes, its working directory, its volumes.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use cache::fileop::{CopyProgress, FileInput, FileOpEnv, execute};
use cache::layer::{Base, copy_out};
use cache::store::{Held, Store};
use cache::tree::TreePath;
use cache::view::MergedView;
use runner::overlay::{Overlay, Upper};
use runner::{Mount, MountSource, RootFs};
use solver::op::{ActionInput, FileAction, FileActionKind, FileOp, MkDirAction};
use solver::{Digest, ExecError, LayerId};
use tokio_util::sync::CancellationToken;

use super::alive::Alive;
use super::plan::{Volume, VolumeSource};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::mounting::{Copied, Mounting};
use crate::daemon::worker::UNPACK_LIMITS;

/// Names of the leases of containers begin with this.
const LEASE: &str = "container/";

/// Holds the container's name, for the next daemon.
const NAME: &str = "name";

/// A container's directory and its hold on layers; both go when this is dropped.
#[derive(Debug)]
pub(super) struct Files {
    store: Store,
    id: String,
    dir: PathBuf,
    /// They are left to the next daemon.
    left: bool,
}

/// Something of a container could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot create `{}`", path.display())]
struct CreateError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Ids of the containers that hold layers.
pub(super) fn held(store: &Store) -> Vec<String> {
    let names = store.named_leases().unwrap_or_default();
    names.iter().filter_map(|name| name.strip_prefix(LEASE)).map(str::to_owned).collect()
}

/// Ends a container's hold on layers.
pub(super) fn release(store: &Store, id: &str) {
    let name = format!("{LEASE}{id}");
    if let Err(e) = store.release(&name) {
        tracing::warn!("cannot release `{name}`: {e}");
    }
}

/// Waits for a container's end and removes its files; when the daemon leaves before, they stay for the next one.
pub(super) async fn attend(alive: Alive, mut files: Files, cancel: &CancellationToken) {
    // Whatever ends this task early, the container goes on.
    files.left = true;
    if cancel.run_until_cancelled(alive.ended()).await == Some(true) {
        files.left = false;
        blocking(move || drop(files)).await;
    }
}

fn remove(dir: &Path) {
    match fs_err::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove a container's files: {e}")
        }
        _ => {}
    }
}

impl Files {
    /// Makes the directory of a container and holds its layers.
    pub(super) fn create(store: &Store, id: &str, layers: &[LayerId]) -> Result<Self, ExecError> {
        let held = Held { layers: layers.iter().copied().collect(), ..Held::default() };
        store.hold(&format!("{LEASE}{id}"), &held).map_err(from_store)?;
        let files = Self::of(store, id);
        make_dir(&files.dir, 0o700)?;
        Ok(files)
    }

    /// Those of a container that exists.
    pub(super) fn of(store: &Store, id: &str) -> Self {
        let dir = store.root().join("containers").join(id);
        Self { store: store.clone(), id: id.to_owned(), dir, left: false }
    }

    /// Prepares for a container that outlives the daemon: the next one finds it under its name.
    pub(super) fn outlive(&self, name: &str) -> Result<(Alive, OwnedFd), ExecError> {
        let made = fs_err::write(self.dir.join(NAME), name).and_then(|()| Alive::make(&self.dir));
        made.map_err(|source| ExecError::failed(CreateError { path: self.dir.clone(), source }))
    }

    /// The container's name, if it outlives its daemon.
    pub(super) fn name(&self) -> Option<String> {
        fs_err::read_to_string(self.dir.join(NAME)).ok()
    }

    /// The container's root: `lower`, the working directory where there is none, and a directory for what is written.
    pub(super) fn root(
        &self,
        base: &Base,
        mut lower: Vec<PathBuf>,
        cwd: &Path,
        mounting: Mounting,
    ) -> Result<RootFs, ExecError> {
        lower.extend(self.working_directory(base, cwd)?);
        if mounting == Mounting::Copy {
            let view = Arc::new(MergedView::open(&lower).map_err(ExecError::failed)?);
            let copied = Copied::make(&Base { view, ..base.clone() }, self.dir.join("root"));
            return Ok(RootFs::Directory(copied.map_err(ExecError::failed)?.dir));
        }
        let upper = Upper { dir: self.dir.join("upper"), work: self.dir.join("work") };
        let root = base.view.get(&TreePath::root()).ok().flatten();
        let (mode, uid, gid) = root.map_or((0o755, 0, 0), |r| (r.stat.mode & 0o7777, r.stat.uid, r.stat.gid));
        make_dir(&upper.dir, 0o755)?;
        make_dir(&upper.work, 0o700)?;
        let failed = |source| ExecError::failed(CreateError { path: upper.dir.clone(), source });
        std::os::unix::fs::chown(&upper.dir, Some(uid), Some(gid)).map_err(failed)?;
        fs_err::set_permissions(&upper.dir, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(RootFs::Overlay(Overlay { lower, upper: Some(upper) }))
    }

    /// A layer with the working directory, for an image that lacks it: links on the way are followed in the image.
    fn working_directory(&self, base: &Base, cwd: &Path) -> Result<Option<PathBuf>, ExecError> {
        if cwd == Path::new("/") {
            return Ok(None);
        }
        let dir = self.dir.join("workdir");
        make_dir(&dir, 0o700)?;
        let env = FileOpEnv {
            dir: &dir,
            trees: base.trees.clone(),
            backing: None,
            threads: 1,
            limits: UNPACK_LIMITS,
            now: SystemTime::now(),
            cancel: &AtomicBool::new(false),
            progress: &CopyProgress::default(),
        };
        let inputs = [FileInput::Chain(base.clone())];
        let outputs = execute(&make_directory(cwd), &inputs, &env).map_err(ExecError::failed)?;
        Ok(outputs.into_values().find(|made| !made.layer.entries.is_empty()).map(|made| made.dir))
    }

    /// A volume as the runner mounts it. A missing one is made; a new one of ours begins with what the image has there.
    pub(super) fn volume(&self, volume: &Volume, base: &Base) -> Result<Mount, ExecError> {
        let path = match &volume.source {
            VolumeSource::Path(path) => {
                if !path.exists() {
                    make_dir(path, 0o755)?;
                }
                path.clone()
            }
            VolumeSource::Named(name) => self.named(name, &volume.target, base)?,
            VolumeSource::Anonymous => {
                let target = volume.target.as_os_str().as_encoded_bytes();
                self.new_volume(&Digest::of(target).hex(), &volume.target, base)?
            }
        };
        let source = MountSource::Volume { path };
        Ok(Mount { target: volume.target.clone(), source, read_only: volume.read_only })
    }

    fn named(&self, name: &str, target: &Path, base: &Base) -> Result<PathBuf, ExecError> {
        let volumes = self.store.root().join("volumes");
        let path = volumes.join(name);
        if path.exists() {
            return Ok(path);
        }
        make_dir(&volumes, 0o700)?;
        let new = self.new_volume(name, target, base)?;
        match fs_err::rename(&new, &path) {
            // Another container was quicker, and has written to it.
            Err(_) if path.exists() => Ok(path),
            Err(source) => Err(ExecError::failed(CreateError { path, source })),
            Ok(()) => Ok(path),
        }
    }

    fn new_volume(&self, name: &str, target: &Path, base: &Base) -> Result<PathBuf, ExecError> {
        let new = self.dir.join(format!("volume-{name}"));
        make_dir(&new, 0o755)?;
        copy_out(&base.view, target.as_os_str().as_encoded_bytes(), &new).map_err(ExecError::failed)?;
        Ok(new)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.left {
            remove(&self.dir);
            release(&self.store, &self.id);
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), ExecError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| ExecError::failed(CreateError { path: path.to_owned(), source }))
}

/// `mkdir -p`.
fn make_directory(path: &Path) -> FileOp {
    let action = MkDirAction {
        path: path.to_string_lossy().into_owned(),
        mode: Some(0o755),
        make_parents: true,
        owner: None,
        timestamp: None,
    };
    FileOp {
        actions: vec![FileAction {
            input: ActionInput::Vertex(0),
            secondary: ActionInput::Scratch,
            output: Some(0),
            kind: FileActionKind::MkDir(action),
        }],
    }
}
