//! The files of a result as one tar.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use cache::view::{FileType, Located, MergedView, ViewError};
use tar::{Builder, EntryType, Header};

use super::export::{AllFiles, Entry, Leaving};

/// A tar could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    /// A layer cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The other end does not take it, or a file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes all files, sorted, hard links kept within a layer.
///
/// # Errors
/// When a layer cannot be read or `out` not be written.
pub(super) fn write(files: &AllFiles, out: &mut dyn Write) -> Result<(), TarError> {
    let mut tar = Builder::new(out);
    files.each(&mut |entry| append(&mut tar, &entry))?;
    Ok(tar.finish()?)
}

fn append(tar: &mut Builder<&mut dyn Write>, entry: &Entry<'_>) -> Result<(), TarError> {
    let path = entry.path();
    // To the nearest second, as Go's writer does.
    let seconds = entry.mtime.saturating_add(500_000_000).div_euclid(1_000_000_000);
    match &entry.what {
        Leaving::Dir => directory(tar, header(0o755, seconds), path),
        Leaving::Statement(_, text) => {
            let mut header = header(0o600, seconds);
            header.set_size(text.len() as u64);
            Ok(tar.append_data(&mut header, path, *text)?)
        }
        Leaving::Object(view, found, _) => {
            let mut header = header(found.stat.mode & 0o7777, seconds);
            header.set_uid(found.stat.uid.into());
            header.set_gid(found.stat.gid.into());
            match entry.link() {
                None => object(tar, header, path, view, found),
                Some(first) => {
                    header.set_entry_type(EntryType::Link);
                    Ok(tar.append_link(&mut header, path, first)?)
                }
            }
        }
    }
}

fn header(mode: u32, mtime: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_size(0);
    header
}

fn directory(tar: &mut Builder<&mut dyn Write>, mut header: Header, path: PathBuf) -> Result<(), TarError> {
    header.set_entry_type(EntryType::Directory);
    let mut name = path.into_os_string();
    name.push("/");
    Ok(tar.append_data(&mut header, name, io::empty())?)
}

fn object(
    tar: &mut Builder<&mut dyn Write>,
    mut header: Header,
    path: PathBuf,
    view: &MergedView,
    found: &Located,
) -> Result<(), TarError> {
    let s = &found.stat;
    match s.file_type {
        FileType::Dir => directory(tar, header, path)?,
        FileType::Symlink => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, path, OsString::from_vec(view.read_link(found)?))?;
        }
        FileType::File => {
            header.set_size(s.size);
            tar.append_data(&mut header, path, view.open_file(found)?)?;
        }
        FileType::CharDevice | FileType::BlockDevice => {
            let kind = if s.file_type == FileType::CharDevice { EntryType::Char } else { EntryType::Block };
            header.set_entry_type(kind);
            header.set_device_major(s.rdev.0)?;
            header.set_device_minor(s.rdev.1)?;
            tar.append_data(&mut header, path, io::empty())?;
        }
        FileType::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            tar.append_data(&mut header, path, io::empty())?;
        }
        FileType::Socket => {}
    }
    Ok(())
}
