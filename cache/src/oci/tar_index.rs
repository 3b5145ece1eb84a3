//! Random access to the files of a tar archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;

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
        // What is not the system's error is the tar reader's, which quotes whatever it finds.
        let reading = |source: io::Error| match source.raw_os_error() {
            Some(_) => Error::Io { what: format!("cannot read `{}`", origin.display()), source },
            None => bad("it is no tar archive, or a damaged one".to_owned()),
        };
        file.rewind().map_err(reading)?;
        let mut entries = BTreeMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let path = entry.path().map_err(reading)?;
            let Some(name) = clean(&path) else {
                return Err(bad(format!("it has an entry `{}`", path.display())));
            };
            let found = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    Entry::File { offset: entry.raw_file_position(), size: entry.size() }
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let link = entry.link_name().map_err(reading)?.unwrap_or_default();
                    let base = match entry.header().entry_type() {
                        tar::EntryType::Symlink => Path::new(&name).parent().unwrap_or(Path::new("")),
                        _ => Path::new(""),
                    };
                    let Some(target) = clean(&base.join(link)) else { continue };
                    Entry::Link(target)
                }
                _ => continue,
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
