//! Random access to the files of a tar archive.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::layer::{TarError, TarKind, TarReader};

/// The most entries that an image archive may have; memory for the index is bounded by it.
const MAX_ENTRIES: usize = 100_000;
/// How many symbolic links are followed from a name. Old `docker save` links equal layers once.
const MAX_LINKS: usize = 4;

/// Where each file of an archive starts.
#[derive(Debug)]
pub(super) struct TarIndex {
    origin: PathBuf,
    file: Arc<File>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    File { offset: u64, size: u64 },
    Link(String),
}

impl TarIndex {
    /// Reads all headers of the archive at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = fs_err::File::open(path).map_err(Error::io("cannot open the image archive"))?.into_file();
        Self::read(file, path.to_owned())
    }

    /// Reads all headers of the archive `file`, which errors call `origin`.
    pub(super) fn read(mut file: File, origin: PathBuf) -> Result<Self, Error> {
        let bad = |reason: String| Error::Layout { origin: origin.clone(), reason };
        let damaged = || bad("it is no tar archive, or a damaged one".to_owned());
        let failed = |source| Error::Io { what: format!("cannot read `{}`", origin.display()), source };
        let reading = |e: TarError| match e {
            TarError::Read(source) => failed(source),
            TarError::Truncated | TarError::Invalid { .. } => damaged(),
        };
        file.rewind().map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut entries = BTreeMap::new();
        let mut archive = TarReader::new(&file);
        while let Some(entry) = archive.next_entry().map_err(reading)? {
            let offset = archive.position();
            archive.seek_past().map_err(reading)?;
            if archive.position() > length {
                return Err(damaged());
            }
            let path = Path::new(OsStr::from_bytes(&entry.name));
            let Some(name) = clean(path) else {
                return Err(bad(format!("it has an entry `{}`", path.display())));
            };
            let link = |base: &Path, target: &[u8]| clean(&base.join(OsStr::from_bytes(target)));
            let target = match &entry.kind {
                TarKind::File => None,
                TarKind::Symlink { target } => {
                    Some(link(Path::new(&name).parent().unwrap_or(Path::new("")), target))
                }
                TarKind::HardLink { target } => Some(link(Path::new(""), target)),
                _ => continue,
            };
            let found = match target {
                None => Entry::File { offset, size: entry.size },
                Some(Some(target)) => Entry::Link(target),
                // Out of the archive, or not UTF-8: no name that anybody asks for.
                Some(None) => continue,
            };
            if entries.len() == MAX_ENTRIES {
                return Err(bad(format!("it has more than {MAX_ENTRIES} entries")));
            }
            if entries.insert(name.clone(), found).is_some() {
                return Err(bad(format!("it has two entries `{name}`")));
            }
        }
        Ok(Self { origin, file: Arc::new(file), entries })
    }

    pub(super) fn origin(&self) -> &Path {
        &self.origin
    }

    /// The file called `name`, links followed within the archive.
    pub(super) fn find(&self, name: &str) -> Option<Section> {
        let mut name = clean(Path::new(name))?;
        for _ in 0..=MAX_LINKS {
            match self.entries.get(&name)? {
                Entry::Link(target) => name.clone_from(target),
                Entry::File { offset, size } => {
                    return Some(Section { file: Arc::clone(&self.file), offset: *offset, left: *size });
                }
            }
        }
        None
    }
}

/// A name without `.` and with `..` resolved; none if it leads out of the archive or is not UTF-8.
fn clean(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => parts.push(part.to_str()?),
            std::path::Component::ParentDir => drop(parts.pop()?),
            std::path::Component::CurDir => {}
            std::path::Component::RootDir | std::path::Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// A stretch of a file, read without moving the file's own position.
#[derive(Debug)]
pub(super) struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Section {
    /// Bytes that are left.
    pub(super) fn size(&self) -> u64 {
        self.left
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let length = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += length as u64;
        self.left -= length as u64;
        Ok(length)
    }
}
