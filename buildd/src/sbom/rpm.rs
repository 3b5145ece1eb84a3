//! rpm's database: headers (RPM format reference, "Header Structure") in a table of SQLite.

use super::file_kind::ReadError;
use super::package::{Ecosystem, Package};
use super::sqlite::{self, SqliteError};

/// The table that holds the headers.
const TABLE: &str = "Packages";
/// Bytes of an entry of a header's index.
const ENTRY: usize = 16;
/// What rpm itself accepts at most: entries of an index.
const MOST_ENTRIES: usize = 0x0001_0000;
/// Types of values.
const INT32: u32 = 4;
const STRING: u32 = 6;
const I18N_STRING: u32 = 9;
/// Tags (rpmtag.h).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;
const SOURCE: u32 = 1044;
/// Keys that are trusted are kept as packages of this name.
const KEY: &str = "gpg-pubkey";

/// The bytes are no header of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("header {0} of the rpm database is damaged")]
pub struct HeaderError(usize);

/// The packages of the database in SQLite.
///
/// # Errors
/// No such database, or damage.
pub(super) fn packages(bytes: &[u8]) -> Result<Vec<Package>, ReadError> {
    let (mut found, mut count, mut damaged) = (Vec::new(), 0, None);
    let read: Result<(), SqliteError> = sqlite::blobs(bytes, TABLE, &mut |blob| {
        count += 1;
        match Header::parse(blob) {
            Some(header) => found.extend(header.package()),
            None => damaged = damaged.or(Some(HeaderError(count))),
        }
    });
    read?;
    damaged.map_or(Ok(found), |error| Err(error.into()))
}

/// A header as it is stored: without the magic number that it has in files.
struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Option<Self> {
        let (entries, length) = (word(blob, 0)? as usize, word(blob, 4)? as usize);
        if entries > MOST_ENTRIES {
            return None;
        }
        let index = blob.get(8..8 + entries * ENTRY)?;
        let data = blob.get(8 + entries * ENTRY..)?;
        Some(Self { index, data: data.get(..length)? })
    }

    fn package(&self) -> Option<Package> {
        let name = self.string(NAME).filter(|name| *name != KEY)?;
        let version = format!("{}-{}", self.string(VERSION)?, self.string(RELEASE)?);
        let epoch = self.find(EPOCH, &[INT32]).and_then(|at| word(self.data, at));
        Some(
            Package::new(Ecosystem::Rpm, name, &version)?
                .licensed(self.string(LICENSE))
                .qualified("arch", self.string(ARCH).unwrap_or_default())
                .qualified("epoch", &epoch.map(|epoch| epoch.to_string()).unwrap_or_default())
                .qualified("upstream", self.string(SOURCE).unwrap_or_default()),
        )
    }

    /// Where the value with a tag begins.
    fn find(&self, tag: u32, kinds: &[u32]) -> Option<usize> {
        let is_it = |entry: &&[u8]| {
            word(entry, 0) == Some(tag) && word(entry, 4).is_some_and(|kind| kinds.contains(&kind))
        };
        let entry = self.index.chunks_exact(ENTRY).find(is_it)?;
        Some(word(entry, 8)? as usize)
    }

    fn string(&self, tag: u32) -> Option<&'a str> {
        let from = self.data.get(self.find(tag, &[STRING, I18N_STRING])?..)?;
        let end = from.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&from[..end]).ok().filter(|text| !text.is_empty())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
