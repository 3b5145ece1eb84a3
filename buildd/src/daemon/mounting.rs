//! How the layers below a step come together: mounted as an overlay, or copied where the file system refuses that.

use std::path::{Path, PathBuf};

use cache::layer::{Base, LayerError, Recorded, copy_out};
use cache::store::{Store, StoreError};
use runner::overlay::{self, Way};
use runner::{RunnerError, SandboxSpec};
use rustix::io::Errno;

/// Lets a test choose. Not for users, hence in no help text.
const FORCED: &str = "RBUILD_OVERLAY";

/// How layers come together on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounting {
    /// By overlayfs.
    Overlay(Way),
    /// By copying them: slow, and the last resort.
    Copy,
}

/// The daemon cannot mount as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum MountingError {
    /// A value that means nothing.
    #[error("`{FORCED}` is `{0}`: want descriptors, names, classic or copy")]
    Unknown(String),
    /// The chosen way does not work.
    #[error("overlays cannot be mounted as `{FORCED}` says")]
    Refused(#[source] RunnerError),
    /// There is no place to try.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Mounting {
    /// Finds out what works, and warns of the slow way.
    ///
    /// # Errors
    /// When a way was chosen from outside that does not exist or does not work.
    pub(super) fn probe(store: &Store) -> Result<Self, MountingError> {
        let forced = std::env::var(FORCED).unwrap_or_default();
        let ways = match forced.as_str() {
            "" => Way::ALL.to_vec(),
            "descriptors" => vec![Way::Descriptors],
            "names" => vec![Way::Names],
            "classic" => vec![Way::Classic],
            "copy" => return Ok(warn(store, &format!("`{FORCED}` says so"))),
            _ => return Err(MountingError::Unknown(forced)),
        };
        let scratch = store.layers().staging()?;
        match overlay::probe(scratch.path(), &ways) {
            Ok(way) => Ok(Self::Overlay(way)),
            Err(e) if !forced.is_empty() => Err(MountingError::Refused(e)),
            // Says nothing about overlays.
            Err(e) if is_shortage(&e) => Ok(Self::Overlay(Way::default())),
            Err(e) => Ok(warn(store, &e.to_string())),
        }
    }

    /// BuildKit's word for it.
    pub(super) fn snapshotter(self) -> &'static str {
        match self {
            Self::Overlay(_) => "overlayfs",
            Self::Copy => "native",
        }
    }

    /// Tells a sandbox how to mount.
    pub(super) fn apply(self, spec: &mut SandboxSpec) {
        if let Self::Overlay(way) = self {
            spec.overlays = way;
        }
    }
}

fn warn(store: &Store, why: &str) -> Mounting {
    let root = store.root().display();
    tracing::warn!(
        "overlays cannot be mounted below `{root}`, so each step works on a copy of its files: {why}"
    );
    Mounting::Copy
}

fn is_shortage(e: &RunnerError) -> bool {
    let RunnerError::Os { errno, .. } = e else { return false };
    [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM]
        .iter()
        .any(|shortage| shortage.raw_os_error() == *errno)
}

/// A chain as a directory of its own, for one step.
#[derive(Debug)]
pub(super) struct Copied {
    /// Where it is.
    pub dir: PathBuf,
    recorded: Recorded,
}

impl Copied {
    /// Copies what `base` shows into the new directory `dir`. Blocking.
    ///
    /// # Errors
    /// When the layers cannot be read or the directory not be written.
    pub(super) fn make(base: &Base, dir: PathBuf) -> Result<Self, CopyError> {
        fs_err::create_dir(&dir)?;
        copy_out(&base.view, b"", &dir)?;
        let recorded = Recorded::of(&dir)?;
        Ok(Self { dir, recorded })
    }

    /// Moves what a step changed to the empty directory `upper`, as overlayfs would have left it there. Blocking.
    ///
    /// # Errors
    /// When a file cannot be moved.
    pub(super) fn move_changes(self, upper: &Path) -> Result<(), LayerError> {
        self.recorded.move_changes(&self.dir, upper)
    }
}

/// Layers could not be copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// The directory cannot be made.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file cannot be copied.
    #[error(transparent)]
    Layer(#[from] LayerError),
}
