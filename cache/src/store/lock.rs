//! One process per root.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use fs_err as fs;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::StoreError;
use super::layout::Layout;

/// The root's lock, held until it is dropped or the process dies.
#[derive(Debug)]
pub struct RootLock {
    layout: Layout,
    _file: Flock<std::fs::File>,
}

impl RootLock {
    /// Makes the root where there is none, takes its lock without waiting, and writes down who holds it.
    ///
    /// # Errors
    /// [`StoreError::Locked`], or when the disk fails.
    pub fn take(root: &Path) -> Result<Self, StoreError> {
        let layout = Layout::new(root);
        create_root(root)?;
        let path = layout.lock();
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io("open", &path))?
            .into_parts()
            .0;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => {
                return Err(StoreError::Locked { root: layout.root().to_owned(), holder: holder(file) });
            }
            Err((_, errno)) => return Err(StoreError::io("lock", &path)(errno.into())),
        };
        let note = format!("{} (pid {})\n", program(), std::process::id());
        let written = file.set_len(0).and_then(|()| file.write_all(note.as_bytes()));
        match written {
            Ok(()) => {}
            // The note is only for the error message of others: a full disk must not keep the store from
            // opening, since a prune is what helps.
            Err(e) => tracing::debug!(error = %e, "cannot note the holder of the lock"),
        }
        Ok(Self { layout, _file: file })
    }

    /// What it locks.
    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Only the daemon's user may look in: layers hold setuid programs and private files.
fn create_root(root: &Path) -> Result<(), StoreError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    builder.recursive(true);
    builder.create(root).map_err(StoreError::io("create", root))
}

/// What the holder wrote down.
fn holder(mut file: std::fs::File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(256).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), note) if !note.is_empty() => format!("`{note}`"),
        _ => "another process".to_owned(),
    }
}

fn program() -> String {
    let exe = std::env::current_exe().ok();
    let name = exe.as_deref().and_then(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "rbuild".to_owned())
}
