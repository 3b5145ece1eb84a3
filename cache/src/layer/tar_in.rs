//! A strict, streaming reader of tar archives (ustar, PAX, GNU long names).

use std::io::{self, Read};

use crate::tree::Xattrs;

/// An archive that is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive ends inside an entry.
    #[error("the archive is cut short")]
    Truncated,
    /// A header is damaged or says different things in different places.
    #[error("invalid archive: {reason} at byte {offset}")]
    Invalid {
        /// What is wrong.
        reason: &'static str,
        /// Start of the header, in bytes from the archive's start.
        offset: u64,
    },
}

/// The type of a tar entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarKind {
    /// A regular file.
    File,
    /// A hard link to the archive path `target`, as written.
    HardLink {
        /// The other name.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// The header of one object, extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The name as written; may be absolute or hold `..`: the reader of entries has to confine it.
    pub name: Vec<u8>,
    /// Type.
    pub kind: TarKind,
    /// Bytes that follow; 0 unless it is a regular file.
    pub size: u64,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in nanoseconds since 1970.
    pub mtime: i64,
    /// From `SCHILY.xattr.*` records, sorted by name.
    pub xattrs: Xattrs,
}

/// Reads entries one after the other; [`Read`] gives the bytes of the current one.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
}

impl<R: Read> TarReader<R> {
    /// Starts at the beginning of an archive.
    pub fn new(input: R) -> Self {
        Self { input }
    }

    /// Skips what is left of the current entry and reads the next header; `None` at the end of the archive.
    ///
    /// # Errors
    /// When the stream fails or the archive is damaged or ambiguous.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        todo!()
    }

    /// Reads to the end of the stream (padding after the archive's end) and gives the stream back.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn into_inner(self) -> Result<R, TarError> {
        todo!()
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        todo!()
    }
}
