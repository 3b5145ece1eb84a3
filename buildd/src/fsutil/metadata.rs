//! A list of what a sender has, instead of its files (LLB's `local.metadatatransfer`).

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use prost::Message as _;
use proto::fsutil::Stat;
use solver::pattern::PatternMatcher;
use tempfile::NamedTempFile;

use super::TransferError;
use super::mirror::Mirror;
use super::mode::is_dir;
use super::receive::{Data, Sink};

/// The file at the top of the directory that holds the list: for each entry the length of its message in four bytes, little
/// endian, and the message [`Stat`]. An entry of this name is not transferred.
const LIST: &str = ".fsutil-metadata";

/// Makes a list of the entries, and mirrors only those that some patterns match, with the directories they are in.
#[derive(Debug)]
pub struct MetadataOnly {
    mirror: Mirror,
    exceptions: PatternMatcher,
    list: BufWriter<NamedTempFile>,
    /// The directories down to the last entry that are not mirrored, outermost first.
    passed: Vec<(u32, Stat)>,
}

impl MetadataOnly {
    /// Puts what `exceptions` match, and the list, into `mirror`. The list is written in `tmp`, on the same file system.
    ///
    /// # Errors
    /// A malformed pattern; no file can be made in `tmp`.
    pub fn new(mirror: Mirror, exceptions: &[String], tmp: &Path) -> Result<Self, TransferError> {
        let list = NamedTempFile::new_in(tmp).map_err(|e| TransferError::io(tmp, e))?;
        let exceptions = PatternMatcher::new(exceptions)?;
        Ok(Self { mirror, exceptions, list: BufWriter::new(list), passed: Vec::new() })
    }

    /// The mirror, once all is there.
    pub fn into_mirror(self) -> Mirror {
        self.mirror
    }

    fn note(&mut self, stat: &Stat) -> Result<(), TransferError> {
        let message = stat.encode_to_vec();
        let len = u32::try_from(message.len()).map_err(|_| TransferError::Large(message.len()))?;
        let written = self.list.write_all(&len.to_le_bytes()).and_then(|()| self.list.write_all(&message));
        written.map_err(|e| TransferError::io(PathBuf::from(LIST), e))
    }
}

impl Sink for MetadataOnly {
    fn entry(&mut self, id: u32, stat: Stat) -> Result<bool, TransferError> {
        if stat.path == LIST {
            return Ok(false);
        }
        self.note(&stat)?;
        let parent = stat.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        while self.passed.last().is_some_and(|(_, dir)| dir.path != parent) {
            self.passed.pop();
        }
        if self.exceptions.matches(stat.path.as_bytes()) {
            for (id, dir) in std::mem::take(&mut self.passed) {
                self.mirror.entry(id, dir)?;
            }
            return self.mirror.entry(id, stat);
        }
        if is_dir(stat.mode) {
            self.passed.push((id, stat));
        }
        Ok(false)
    }

    fn data(&mut self, id: u32, data: Data) -> Result<(), TransferError> {
        self.mirror.data(id, data)
    }

    fn end(&mut self, id: u32) -> Result<(), TransferError> {
        self.mirror.end(id)
    }

    fn pause(&mut self) -> Result<(), TransferError> {
        self.mirror.pause()
    }

    fn finish(&mut self) -> Result<(), TransferError> {
        self.mirror.finish()?;
        let failed = |e| TransferError::io(PathBuf::from(LIST), e);
        self.list.flush().map_err(failed)?;
        self.mirror.add(LIST, self.list.get_ref())
    }
}
