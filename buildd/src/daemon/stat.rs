//! What a merged view says of a file, as fsutil says it.

use cache::view::{FileType, Located, MergedView, ViewError};
use proto::fsutil::Stat;

use crate::fsutil::file_mode;

/// The attributes of an object, which is called `path`.
///
/// # Errors
/// A symbolic link that cannot be read.
pub(super) fn stat(view: &MergedView, found: &Located, path: &[u8]) -> Result<Stat, ViewError> {
    let s = &found.stat;
    let linkname = match s.file_type {
        FileType::Symlink => String::from_utf8_lossy(&view.read_link(found)?).into_owned(),
        _ => String::new(),
    };
    Ok(Stat {
        path: String::from_utf8_lossy(path).into_owned(),
        mode: file_mode(type_bits(s.file_type) | (s.mode & 0o7777)),
        uid: s.uid,
        gid: s.gid,
        // What a directory takes up is its file system's business.
        size: if s.file_type == FileType::Dir { 0 } else { s.size as i64 },
        mod_time: s.mtime,
        linkname,
        devmajor: s.rdev.0.into(),
        devminor: s.rdev.1.into(),
        ..Stat::default()
    })
}

/// The bits of `st_mode` that say what a file is (inode(7)).
fn type_bits(t: FileType) -> u32 {
    let bits = match t {
        FileType::File => rustix::fs::FileType::RegularFile,
        FileType::Dir => rustix::fs::FileType::Directory,
        FileType::Symlink => rustix::fs::FileType::Symlink,
        FileType::CharDevice => rustix::fs::FileType::CharacterDevice,
        FileType::BlockDevice => rustix::fs::FileType::BlockDevice,
        FileType::Fifo => rustix::fs::FileType::Fifo,
        FileType::Socket => rustix::fs::FileType::Socket,
    };
    bits.as_raw_mode()
}
