//! ADD of a local archive: is it one, and is it still the one that was keyed?

use std::fs::File;
use std::io::{self, Read};

use super::decompress::{Format, decompress};
use super::env::FileOpEnv;
use super::error::ActionError;
use super::jobs::open_guarded;
use super::source::{Source, check_digest};
use super::state::{Owner, Target};
use super::untar::Untar;
use crate::layer::{Meta, TarError, TarReader};
use crate::tree::{FileDigest, Kind, TreePath};

/// Bytes read at a time behind the archive's end.
const BUFFER: usize = 64 << 10;

/// Unpacks the archive at `from` into `dest`; false, and nothing done, if it is none.
pub(super) fn unpack(
    source: &Source<'_>,
    from: &TreePath,
    target: &Target,
    dest: &TreePath,
    parents: &Meta,
    owner: Option<Owner>,
    env: &FileOpEnv<'_>,
) -> Result<bool, ActionError> {
    let path = source.resolve(from.as_bytes(), true)?;
    let Some(Kind::File { content, .. }) = source.get(&path)?.map(|node| node.kind) else { return Ok(false) };
    if !can_be_unpacked(open_guarded(source, &path)?) {
        return Ok(false);
    }
    let root = target.resolve(dest)?;
    target.mkdir_all(&root, parents)?;

    let mut file = HashingReader { inner: open_guarded(source, &path)?, hasher: blake3::Hasher::new() };
    let fail = |e: io::Error| archive_error(&path, e.into());
    {
        let plain = Bounded { inner: decompress(&mut file).map_err(fail)?, left: env.limits.bytes };
        let mut reader = TarReader::new(plain);
        Untar::new(target, root, owner, env, &path).run(&mut reader)?;
    }
    // What follows the archive's end belongs to the file's digest all the same.
    let mut rest = vec![0; BUFFER];
    while file.read(&mut rest).map_err(fail)? > 0 {}
    let digest = FileDigest::from_bytes(file.hasher.finalize().into());
    check_digest(source, &path, &content, &digest)?;
    Ok(true)
}

/// How much of a file's beginning [`is_archive`] needs, in bytes.
pub const ARCHIVE_HEAD: u64 = 1024;

/// Whether a build context that begins with `head` ([`ARCHIVE_HEAD`] bytes are enough) is an archive and no Dockerfile: it is compressed,
/// or a tar's first header (POSIX.1-1988, with its checksum).
pub fn is_archive(head: &[u8]) -> bool {
    if Format::of(head) != Format::Plain {
        return true;
    }
    let Some(header) = head.first_chunk::<512>() else { return false };
    let stated = std::str::from_utf8(&header[CHECKSUM]).ok();
    let stated = stated.and_then(|text| u32::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok());
    // The checksum's own field counts as blanks.
    let sum: u32 =
        header.iter().enumerate().map(|(i, b)| if CHECKSUM.contains(&i) { 32 } else { (*b).into() }).sum();
    stated == Some(sum)
}

/// Where a tar header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Whether a first tar header can be read, compressed or not; as BuildKit decides.
fn can_be_unpacked(file: File) -> bool {
    let Ok(plain) = decompress(file) else { return false };
    matches!(TarReader::new(plain).next_entry(), Ok(Some(_)))
}

/// A failure while reading an archive, in BuildKit's words where it ends too early.
pub(super) fn archive_error(path: &TreePath, source: TarError) -> ActionError {
    match source {
        TarError::Truncated => ActionError::ArchiveCut,
        TarError::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => ActionError::ArchiveCut,
        source => ActionError::Archive { path: path.clone(), source },
    }
}

/// Hashes what is read.
struct HashingReader {
    inner: File,
    hasher: blake3::Hasher,
}

impl Read for HashingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.hasher.update(&buf[..len]);
        Ok(len)
    }
}

/// Fails after so many bytes: an archive that unpacks to more than is allowed.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.left = self.left.checked_sub(len as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_and_dockerfiles() {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut tar::Header::new_gnu(), "Dockerfile", &b""[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut broken = tar.clone();
        broken[0] = b'X';
        for (head, expected) in [
            (&tar[..1024], true),
            (&tar[..512], true),
            (&tar[..511], false),
            (&broken[..], false),
            (&[0; 1024], false),
            (b"\x1f\x8b\x08", true),
            (b"BZh9", true),
            (b"\xfd7zXZ\0", true),
            (b"\x28\xb5\x2f\xfd", true),
            (b"FROM scratch\n", false),
            (b"", false),
        ] {
            assert_eq!(is_archive(head), expected, "{:?}", head.first_chunk::<8>());
        }
    }
}
