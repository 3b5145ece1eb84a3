//! A strict, streaming reader of tar archives (ustar, PAX, GNU long names).
//!
//! Where two readers could understand an archive differently it is refused: a size that header and PAX record give
//! differently (CVE-2025-62518), a name given twice, content behind a link or directory, sparse files.

pub(crate) mod extended;
mod header;

use std::io::{self, BufReader, Read, Seek};

use self::extended::Extended;
use self::header::{BLOCK, RawHeader};
use crate::tree::Xattrs;

/// Bytes of extended headers for one entry: enough for the longest path and attributes, small enough to hold.
const MAX_EXTENDED: u64 = 1 << 20;

/// Bytes of extended attributes in one archive. A layer under construction holds them in memory until its end.
const MAX_XATTRS: usize = 128 << 20;

/// What an attribute takes in memory beside its name and value, about.
const XATTR_OVERHEAD: usize = 64;

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

impl From<io::Error> for TarError {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Read(e) }
    }
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
    input: BufReader<R>,
    /// Bytes read so far.
    offset: u64,
    /// Bytes of the current entry that are not read yet.
    left: u64,
    /// Zeros between the current entry's content and the next header.
    padding: u64,
    /// Bytes of extended attributes so far.
    xattrs: usize,
    ended: bool,
}

impl<R: Read> TarReader<R> {
    /// Starts at the beginning of an archive.
    pub fn new(input: R) -> Self {
        let input = BufReader::with_capacity(128 << 10, input);
        Self { input, offset: 0, left: 0, padding: 0, xattrs: 0, ended: false }
    }

    /// Skips what is left of the current entry and reads the next header; `None` at the end of the archive.
    ///
    /// # Errors
    /// When the stream fails or the archive is damaged or ambiguous.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        let mut extended = Extended::default();
        loop {
            self.skip_rest()?;
            let offset = self.offset;
            let invalid = |reason| TarError::Invalid { reason, offset };
            let Some(raw) = self.header()? else {
                return if extended.is_empty() { Ok(None) } else { Err(TarError::Truncated) };
            };
            let size = raw.size().map_err(invalid)?;
            match raw.kind() {
                b'x' => extended.add_records(&self.extension(size, offset)?).map_err(invalid)?,
                b'g' => extended::check_global(&self.extension(size, offset)?).map_err(invalid)?,
                b'L' => extended.add_name(self.extension(size, offset)?).map_err(invalid)?,
                b'K' => extended.add_link(self.extension(size, offset)?).map_err(invalid)?,
                _ => {
                    let entry = header::entry(&raw, extended).map_err(invalid)?;
                    let held =
                        |(name, value): &(Box<[u8]>, Box<[u8]>)| name.len() + value.len() + XATTR_OVERHEAD;
                    self.xattrs += entry.xattrs.iter().map(held).sum::<usize>();
                    if self.xattrs > MAX_XATTRS {
                        return Err(invalid("more than 128 MiB of extended attributes"));
                    }
                    self.expect(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads to the end of the stream: there may be padding after the archive's end.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn drain(&mut self) -> Result<(), TarError> {
        io::copy(&mut self.input, &mut io::sink()).map(drop).map_err(TarError::Read)
    }

    /// Reads to the end of the stream and gives it back.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn into_inner(mut self) -> Result<R, TarError> {
        self.drain()?;
        Ok(self.input.into_inner())
    }

    /// Where the content of the current entry starts, in bytes from the archive's start; before any of it is read.
    pub(crate) fn position(&self) -> u64 {
        self.offset
    }

    /// The stream.
    pub(super) fn input(&self) -> &R {
        self.input.get_ref()
    }

    /// Content of `size` bytes follows.
    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        if rest > 0 && io::copy(&mut (&mut self.input).take(rest), &mut io::sink())? != rest {
            return Err(TarError::Truncated);
        }
        self.offset += rest;
        Ok(())
    }

    /// The next header; `None` at two zero blocks or, as other readers allow, at the end of the stream.
    fn header(&mut self) -> Result<Option<RawHeader>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        let block = match self.block()? {
            Some(block) if block == [0; BLOCK] => match self.block()? {
                Some(block) if block != [0; BLOCK] => {
                    return Err(TarError::Invalid { reason: "an entry after an end mark", offset });
                }
                _ => None,
            },
            other => other,
        };
        self.ended = block.is_none();
        block
            .map(|block| RawHeader::check(block).map_err(|reason| TarError::Invalid { reason, offset }))
            .transpose()
    }

    /// The next block; `None` when the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match super::hash::read_some(&mut self.input, &mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(TarError::Truncated),
                n => filled += n,
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    /// The content of an extended header.
    fn extension(&mut self, size: u64, offset: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENDED {
            return Err(TarError::Invalid { reason: "an extended header above 1 MiB", offset });
        }
        self.expect(size);
        let mut data = Vec::new();
        (&mut *self).take(size).read_to_end(&mut data)?;
        Ok(data)
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// Skips what is left of the current entry without reading it. An archive that ends there seems whole.
    ///
    /// # Errors
    /// When the stream cannot go there.
    pub(crate) fn seek_past(&mut self) -> Result<(), TarError> {
        let rest = self.left + self.padding;
        let out_of_range = |_| TarError::Truncated;
        self.input.seek_relative(i64::try_from(rest).map_err(out_of_range)?)?;
        (self.left, self.padding) = (0, 0);
        self.offset += rest;
        Ok(())
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if room == 0 {
            return Ok(0);
        }
        let n = self.input.read(&mut buf[..room])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        self.offset += n as u64;
        Ok(n)
    }
}
