//! A layer that was made elsewhere, from its entries and the tar stream that [`super::write_tar`] made of it.
//!
//! The entries have what a tar has not: times whole, all extended attributes, sockets, and what counts for a content digest. The tar
//! has the bytes of the files, which have to be those that the entries tell, and all of it has to be what is written of them.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use solver::Digest;

use super::base::Base;
use super::builder::{LayerBuilder, Meta};
use super::entry::{Change, CommittedLayer, Entries, LayerEntry};
use super::error::LayerError;
use super::normal::Form;
use super::tar_in::{TarEntry, TarError, TarReader};
use super::tar_out::{TarOptions, write_tar};
use super::window::RunWindow;
use crate::hashing::Hashing;
use crate::tree::{Kind, Node, TreePath, Trees};

/// A layer that was put together again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The layer, whose id is that of the entries; its root is that of the layer over nothing.
    pub layer: CommittedLayer,
    /// SHA-256 of the tar stream.
    pub diff_id: Digest,
}

/// Puts a layer together in the new directory `dir`, reading `input`, an uncompressed tar stream, to its end.
///
/// # Errors
/// [`LayerError::Other`] for a tar that is of another layer, [`LayerError::Tar`] for a damaged one, [`LayerError::Unfaithful`] where the
/// file system does not take what the entries say; a directory that cannot be
/// written, which is then useless.
pub fn restore(
    entries: &Entries,
    input: impl Read,
    dir: &Path,
    trees: &Arc<Trees>,
) -> Result<Restored, LayerError> {
    let builder = LayerBuilder::with_form(dir, Base::scratch(trees.clone()), Form::AsGiven)?;
    let mut reader = TarReader::new(Hashing::new(input));
    let mut first_names: HashMap<&TreePath, &TreePath> = HashMap::new();
    for entry in entries.iter() {
        let first = match &entry.change {
            Change::Put { node: Node { link_group: Some(group), .. }, .. } => {
                Some(*first_names.entry(group).or_insert(&entry.path)).filter(|first| *first != &entry.path)
            }
            _ => None,
        };
        put(&builder, entry, first, &mut reader)?;
    }
    if let Some(more) = reader.next_entry()? {
        return Err(LayerError::Other(TreePath::clean(&more.name).unwrap_or_default()));
    }
    let (_, diff_id, _) = reader.into_inner()?.finish();
    let mut layer = builder.finish(RunWindow::none())?;
    compare(entries, &layer.entries)?;
    // What the tar's headers say counts for whoever unpacks it, and is not looked at above.
    let own = write_tar(entries, &[dir], TarOptions::default(), Hashing::new(std::io::sink()))?;
    if own.finish().1 != diff_id {
        return Err(LayerError::Other(TreePath::root()));
    }
    layer.id = entries.layer_id();
    layer.entries = entries.clone();
    Ok(Restored { layer, diff_id })
}

fn put<R: Read>(
    builder: &LayerBuilder,
    entry: &LayerEntry,
    first: Option<&TreePath>,
    reader: &mut TarReader<R>,
) -> Result<(), LayerError> {
    let path = &entry.path;
    let Change::Put { node, mtime } = &entry.change else {
        next(reader, &whiteout(path), path)?;
        return builder.hide(path);
    };
    let Node { kind, mode, uid, gid, xattrs, .. } = node;
    let meta = Meta { mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, xattrs: xattrs.clone() };
    if *kind == Kind::Socket {
        return builder.other(path, Kind::Socket, &meta);
    }
    let found = next(reader, path, path)?;
    match kind {
        _ if first.is_some_and(|_| found.size > 0) => Err(LayerError::Other(path.clone())),
        Kind::Dir => builder.mkdir(path, &meta),
        Kind::File { size, content } => match first {
            Some(first) => builder.hardlink(first, path),
            None if found.size != *size => Err(LayerError::Other(path.clone())),
            None => match builder.write_sized(path, &meta, reader, *size)? == *content {
                true => Ok(()),
                false => Err(LayerError::Other(path.clone())),
            },
        },
        other => match first {
            Some(first) => builder.hardlink(first, path),
            None => builder.other(path, other.clone(), &meta),
        },
    }
}

/// The tar's next entry, which has to have this name.
fn next<R: Read>(reader: &mut TarReader<R>, name: &TreePath, of: &TreePath) -> Result<TarEntry, LayerError> {
    let found = reader.next_entry()?.ok_or(TarError::Truncated)?;
    match TreePath::clean(&found.name) {
        Ok(found_name) if found_name == *name => Ok(found),
        _ => Err(LayerError::Other(of.clone())),
    }
}

/// The name under which a tar says that `path` is gone.
fn whiteout(path: &TreePath) -> TreePath {
    path.parent().unwrap_or_default().child(&[b".wh.", path.name()].concat())
}

/// Whether what lies in the directory is what the entries say, but for what they say beyond it.
fn compare(told: &Entries, found: &Entries) -> Result<(), LayerError> {
    let mut found = found.iter();
    for told in told.iter() {
        let same = found.next().is_some_and(|found| match (&told.change, &found.change) {
            (Change::Whiteout, Change::Whiteout) => told.path == found.path,
            (Change::Put { node: old, mtime }, Change::Put { node: new, mtime: now }) => {
                // Of times it is told which count; none but the object's own can.
                let counts = old.mtime.is_none_or(|counts| counts == *mtime);
                let new = Node { mtime: old.mtime, link_group: old.link_group.clone(), ..new.clone() };
                told.path == found.path && new == *old && mtime == now && counts
            }
            _ => false,
        });
        if !same {
            return Err(LayerError::Unfaithful(told.path.clone()));
        }
    }
    found.next().map_or(Ok(()), |more| Err(LayerError::Unfaithful(more.path.clone())))
}
