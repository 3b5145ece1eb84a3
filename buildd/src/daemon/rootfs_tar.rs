//! A merged view as one tar.

use std::collections::HashMap;
use std::io::{self, Write};

use cache::tree::TreePath;
use cache::view::{FileType, Located, MergedView};
use tar::{Builder, EntryType, Header};

/// Writes all files, sorted, hard links kept within a layer.
///
/// # Errors
/// When a layer cannot be read or `out` not be written.
pub(super) fn write(view: &MergedView, out: &mut dyn Write) -> io::Result<()> {
    let mut tar = Builder::new(out);
    let mut links = HashMap::new();
    below(view, &TreePath::root(), &mut tar, &mut links)?;
    tar.finish()
}

/// First path by layer, device and inode.
type Links = HashMap<(usize, u64), TreePath>;

fn below(
    view: &MergedView,
    dir: &TreePath,
    tar: &mut Builder<&mut dyn Write>,
    links: &mut Links,
) -> io::Result<()> {
    for item in view.list(dir).map_err(io::Error::other)? {
        let path = dir.join(&item.name).map_err(io::Error::other)?;
        let Some(found) = view.get(&path).map_err(io::Error::other)? else { continue };
        entry(view, &found, tar, links)?;
        if found.stat.file_type == FileType::Dir {
            below(view, &path, tar, links)?;
        }
    }
    Ok(())
}

fn entry(
    view: &MergedView,
    found: &Located,
    tar: &mut Builder<&mut dyn Write>,
    links: &mut Links,
) -> io::Result<()> {
    let s = &found.stat;
    let mut header = Header::new_gnu();
    header.set_mode(s.mode & 0o7777);
    header.set_uid(s.uid.into());
    header.set_gid(s.gid.into());
    header.set_mtime(u64::try_from(s.mtime.div_euclid(1_000_000_000)).unwrap_or(0));
    header.set_size(0);
    let path = found.path.as_path();
    match s.file_type {
        FileType::Dir => {
            header.set_entry_type(EntryType::Directory);
            let mut name = path.as_os_str().to_owned();
            name.push("/");
            tar.append_data(&mut header, name, io::empty())
        }
        FileType::Symlink => {
            header.set_entry_type(EntryType::Symlink);
            let target = view.read_link(found).map_err(io::Error::other)?;
            tar.append_link(
                &mut header,
                path,
                std::ffi::OsString::from(String::from_utf8_lossy(&target).into_owned()),
            )
        }
        FileType::File => {
            if s.nlink > 1 {
                if let Some(first) = links.get(&(found.layer, s.ino)) {
                    header.set_entry_type(EntryType::Link);
                    return tar.append_link(&mut header, path, first.as_path());
                }
                links.insert((found.layer, s.ino), found.path.clone());
            }
            header.set_size(s.size);
            tar.append_data(&mut header, path, view.open_file(found).map_err(io::Error::other)?)
        }
        FileType::CharDevice | FileType::BlockDevice => {
            let kind = if s.file_type == FileType::CharDevice { EntryType::Char } else { EntryType::Block };
            header.set_entry_type(kind);
            header.set_device_major(s.rdev.0)?;
            header.set_device_minor(s.rdev.1)?;
            tar.append_data(&mut header, path, io::empty())
        }
        FileType::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            tar.append_data(&mut header, path, io::empty())
        }
        FileType::Socket => Ok(()),
    }
}
