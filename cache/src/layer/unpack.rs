//! Layer tar to directory.
//!
//! Names are cleaned as if they were absolute; links among the parents of a name are followed only where the same
//! archive made them, inside the layer's directory (as containerd does); no path ever reaches the kernel unresolved.

use std::io::{self, Read};
use std::path::Path;

use solver::digest::Hasher;
use solver::{Digest, LayerId};

use super::base::Base;
use super::builder::{LayerBuilder, Meta, Special};
use super::entry::CommittedLayer;
use super::error::LayerError;
use super::normal::Form;
use super::tar_in::{TarEntry, TarError, TarKind, TarReader};
use super::window::RunWindow;
use crate::hashing::Hashing;
use crate::tree::{NodeId, TreePath};

/// Bounds on what an archive may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of the uncompressed stream.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

impl Default for UnpackLimits {
    /// One TiB and ten million entries: no honest layer is near, and a bomb meets the disk's quota first.
    fn default() -> Self {
        Self { bytes: 1 << 40, entries: 10_000_000 }
    }
}

/// What AUFS kept for itself at the root, in layers of old images.
const AUFS: &[u8] = b".wh..wh.";

/// Where AUFS kept the files of several names, which other entries are hard links to.
const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// The mark that hides all that a directory had.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The layer; its `id` is that of [`Unpacked::layer_id`].
    pub layer: CommittedLayer,
    /// SHA-256 of the uncompressed stream: the caller compares it with the image config before it names the layer.
    pub diff_id: Digest,
    /// Whether the directory depends on the parent (opaque marks, links into it, parents left out): then the id does.
    pub depends_on_parent: bool,
}

impl Unpacked {
    /// The id of a pulled layer: of its diff ID alone, or of diff ID and parent tree where the directory depends on
    /// both. Who looks for a layer before unpacking it asks for both ids.
    pub fn layer_id(diff_id: &Digest, parent: Option<&NodeId>) -> LayerId {
        let Some(parent) = parent else { return LayerId::from_diff_id(diff_id) };
        let mut h = Hasher::new("rbuild.layer.diffid-on-parent.v1");
        h.digest(diff_id).digest(parent.digest());
        LayerId(h.finish())
    }
}

/// Unpacks an uncompressed layer tar into the new directory `dir`, in normal form, over `base`.
///
/// Reads `input` to its end, so that its hash is that of the whole stream. All times count.
///
/// # Errors
/// [`LayerError::Tar`] for a damaged or ambiguous archive, [`LayerError::TooLarge`], or when the directory cannot be
/// written. The directory is then useless.
pub fn unpack(
    input: impl Read,
    dir: &Path,
    base: Base,
    limits: UnpackLimits,
) -> Result<Unpacked, LayerError> {
    let parent = base.root;
    let mut reader = TarReader::new(Limited { input: Hashing::new(input), limit: limits.bytes });
    let unpacking = Unpacking { builder: LayerBuilder::with_form(dir, base, Form::AsGiven)? };
    let read = unpacking.all(&mut reader, limits.entries);
    if reader.input().is_too_large() {
        return Err(LayerError::TooLarge { what: "bytes", limit: limits.bytes });
    }
    read?;
    let (_, diff_id, _) = reader.into_inner()?.input.finish();
    let depends_on_parent = unpacking.builder.took_from_base();
    let mut layer = unpacking.builder.finish(RunWindow::none())?;
    layer.id = Unpacked::layer_id(&diff_id, depends_on_parent.then_some(&parent));
    Ok(Unpacked { layer, diff_id, depends_on_parent })
}

/// A stream that may have so many bytes.
struct Limited<R> {
    input: Hashing<R>,
    limit: u64,
}

impl<R> Limited<R> {
    fn is_too_large(&self) -> bool {
        self.input.size() > self.limit
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buf)?;
        match self.is_too_large() {
            true => Err(io::Error::other("the stream is longer than allowed")),
            false => Ok(n),
        }
    }
}

struct Unpacking {
    builder: LayerBuilder,
}

impl Unpacking {
    fn all<R: Read>(&self, reader: &mut TarReader<R>, limit: u64) -> Result<(), LayerError> {
        let mut count = 0;
        while let Some(entry) = reader.next_entry()? {
            count += 1;
            if count > limit {
                return Err(LayerError::TooLarge { what: "entries", limit });
            }
            self.entry(entry, reader)?;
        }
        self.builder.leave_out(&TreePath::root().child(AUFS_LINKS))?;
        Ok(reader.drain()?)
    }

    fn entry(&self, entry: TarEntry, data: &mut dyn Read) -> Result<(), LayerError> {
        let path = TreePath::clean(&entry.name).map_err(crate::tree::TreeError::from)?;
        if path.is_root() {
            return Ok(());
        }
        let path = self.builder.resolve_in_layer(&path)?;
        let top = path.components().next().unwrap_or_default();
        if top.starts_with(AUFS) && path.as_bytes() != OPAQUE {
            if top != AUFS_LINKS || !matches!(entry.kind, TarKind::Dir | TarKind::File) {
                return Ok(());
            }
        } else if let Some(hidden) = path.name().strip_prefix(b".wh.") {
            return self.whiteout(&path, hidden);
        }
        let TarEntry { kind, size, mode, uid, gid, mtime, xattrs, .. } = entry;
        let meta = Meta { mode, uid, gid, mtime, xattrs };
        let builder = &self.builder;
        match kind {
            TarKind::File => builder.write_sized(&path, &meta, data, size).map(drop),
            TarKind::Dir => builder.mkdir(&path, &meta),
            TarKind::Symlink { target } => builder.symlink(&path, &target, &meta),
            TarKind::HardLink { target } => self.hardlink(&target, &path),
            TarKind::Fifo => builder.special(&path, Special::Fifo, &meta),
            // What overlayfs would take for a whiteout is one.
            TarKind::CharDevice { major: 0, minor: 0 } => {
                builder.ensure_parent_of(&path)?;
                builder.hide(&path)
            }
            TarKind::BlockDevice { major: 0, minor: 0 } => {
                // No driver has it, and where whiteouts cannot be character devices it is one.
                tracing::warn!(%path, "device 0:0 of an image left out");
                Ok(())
            }
            TarKind::CharDevice { major, minor } => {
                self.device(&path, Special::CharDevice { major, minor }, &meta)
            }
            TarKind::BlockDevice { major, minor } => {
                self.device(&path, Special::BlockDevice { major, minor }, &meta)
            }
        }
    }

    /// Makes a device; where a user namespace forbids that it is left out, as other rootless engines do.
    fn device(&self, path: &TreePath, special: Special, meta: &Meta) -> Result<(), LayerError> {
        match self.builder.special(path, special, meta) {
            Err(LayerError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(%path, "device of an image left out: not permitted here");
                Ok(())
            }
            other => other,
        }
    }

    /// A link's target is a name of the archive, so its parents resolve as those of any entry.
    fn hardlink(&self, target: &[u8], path: &TreePath) -> Result<(), LayerError> {
        let target = TreePath::clean(target).map_err(crate::tree::TreeError::from)?;
        let target = self.builder.resolve_in_layer(&target)?;
        self.builder.hardlink(&target, path)
    }

    /// A marker file (OCI image spec, "Whiteouts"); `hidden` is its name without the prefix.
    fn whiteout(&self, marker: &TreePath, hidden: &[u8]) -> Result<(), LayerError> {
        let dir = marker.parent().unwrap_or_default();
        self.builder.ensure_parent_of(marker)?;
        match hidden {
            b".wh..opq" => self.builder.hide_contents(&dir),
            _ if hidden.starts_with(b".wh.") => Ok(()),
            _ => match dir.join(hidden) {
                Ok(path) => self.builder.hide(&path),
                Err(_) => Err(TarError::Invalid { reason: "a whiteout of no name", offset: 0 }.into()),
            },
        }
    }
}
