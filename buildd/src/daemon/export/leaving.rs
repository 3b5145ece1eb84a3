//! Files of one or several platforms on their way out: one walk, for directories of the client as for archives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::tree::TreePath;
use cache::view::{FileType, Located, MergedView, ViewError};
use proto::fsutil::Stat;

use crate::daemon::stat::stat;
use crate::fsutil::{Files, TransferError, file_mode};

/// The mode of a statement about the files.
const STATEMENT_MODE: u32 = 0o100_600;
/// The mode of a platform's directory.
const PLATFORM_MODE: u32 = 0o040_755;

/// One platform's files as they leave.
pub(super) struct PlatformFiles {
    /// The result.
    pub view: Arc<MergedView>,
    /// For what they are; empty where there is nothing.
    pub platform: String,
    /// The directory that they are put into.
    pub dir: Option<String>,
    /// Statements about them, by file name; they lie beside the files, and win over them.
    pub statements: BTreeMap<String, Vec<u8>>,
    /// When the statements were made, in nanoseconds since 1970, a whole second.
    pub told: i64,
    /// The time that all of them get, in nanoseconds since 1970.
    pub mtime: Option<i64>,
}

/// The files of all platforms.
pub(crate) struct AllFiles(Vec<PlatformFiles>);

/// One entry that leaves.
pub(crate) struct Entry<'a> {
    /// What it is.
    pub what: Leaving<'a>,
    /// Its time, in nanoseconds since 1970.
    pub mtime: i64,
    dir: Option<&'a str>,
}

/// What leaves.
pub(crate) enum Leaving<'a> {
    /// A platform's directory.
    Dir,
    /// A statement about the files, and its name.
    Statement(&'a str, &'a [u8]),
    /// An object of the result, and where the same file was before.
    Object(&'a MergedView, &'a Located, Option<TreePath>),
}

/// Takes an entry.
type Emit<'a, E> = dyn FnMut(Entry<'_>) -> Result<(), E> + 'a;

/// First paths of files with several names, by layer and inode.
type Links = HashMap<(usize, u64), TreePath>;

/// Files of several platforms cannot go into one directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum Conflict {
    /// Two have a file in the same place.
    #[error("cannot overwrite {path} from {other} with {by} when split option is disabled")]
    Overwritten {
        /// The place.
        path: String,
        /// Whose file was there.
        other: String,
        /// Whose would be.
        by: String,
    },
    /// A layer cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
}

impl Entry<'_> {
    /// Where it goes; relative.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.what {
            Leaving::Dir => self.dir.unwrap_or_default().into(),
            Leaving::Statement(name, _) => self.below(Path::new(name)),
            Leaving::Object(_, found, _) => self.below(found.path.as_path()),
        }
    }

    /// Where the same file went before; relative.
    pub(crate) fn link(&self) -> Option<PathBuf> {
        match &self.what {
            Leaving::Object(_, _, Some(first)) => Some(self.below(first.as_path())),
            _ => None,
        }
    }

    fn below(&self, path: &Path) -> PathBuf {
        self.dir.map_or_else(|| path.to_owned(), |dir| Path::new(dir).join(path))
    }
}

impl PlatformFiles {
    fn walk<E: From<ViewError>>(&self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let entry = |what, mtime| Entry { what, mtime, dir: self.dir.as_deref() };
        if self.dir.is_some() {
            emit(entry(Leaving::Dir, self.mtime.unwrap_or(0)))?;
        }
        let root = TreePath::root();
        let listed = self.view.list(&root)?;
        let mut names: BTreeSet<&[u8]> = listed.iter().map(|item| &item.name[..]).collect();
        names.extend(self.statements.keys().map(String::as_bytes));
        let mut links = Links::new();
        for name in names {
            let statement =
                std::str::from_utf8(name).ok().and_then(|name| self.statements.get_key_value(name));
            match statement {
                Some((name, text)) => {
                    emit(entry(Leaving::Statement(name, text), self.mtime.unwrap_or(self.told)))?;
                }
                None => self.object(&root, name, &mut links, emit)?,
            }
        }
        Ok(())
    }

    fn object<E: From<ViewError>>(
        &self,
        dir: &TreePath,
        name: &[u8],
        links: &mut Links,
        emit: &mut Emit<'_, E>,
    ) -> Result<(), E> {
        let path = dir.join(name).map_err(|_| ViewError::NotFound(dir.clone()))?;
        let Some(found) = self.view.get(&path)? else { return Ok(()) };
        let linked = found.stat.file_type == FileType::File && found.stat.nlink > 1;
        let first =
            linked.then(|| links.entry((found.layer, found.stat.ino)).or_insert_with(|| path.clone()));
        let first = first.filter(|first| **first != path).cloned();
        let mtime = self.mtime.unwrap_or(found.stat.mtime);
        emit(Entry { what: Leaving::Object(&self.view, &found, first), mtime, dir: self.dir.as_deref() })?;
        if found.stat.file_type == FileType::Dir {
            for item in self.view.list(&path)? {
                self.object(&path, &item.name, links, emit)?;
            }
        }
        Ok(())
    }

    /// What is at a path, if something is; a statement wins.
    fn open(&self, path: &str) -> Result<Option<Box<dyn Read + Send>>, io::Error> {
        let inner = match &self.dir {
            None => path,
            Some(dir) => match path.strip_prefix(dir.as_str()).and_then(|rest| rest.strip_prefix('/')) {
                Some(inner) => inner,
                None => return Ok(None),
            },
        };
        if let Some(text) = self.statements.get(inner) {
            return Ok(Some(Box::new(io::Cursor::new(text.clone()))));
        }
        let path = TreePath::clean(inner.as_bytes()).map_err(io::Error::other)?;
        match self.view.get(&path).map_err(io::Error::other)? {
            Some(found) => Ok(Some(Box::new(self.view.open_file(&found).map_err(io::Error::other)?))),
            None => Ok(None),
        }
    }
}

impl AllFiles {
    /// The files of some platforms; none of them is an empty directory.
    pub(super) fn new(mut all: Vec<PlatformFiles>) -> Self {
        all.sort_by(|a, b| a.dir.cmp(&b.dir));
        Self(all)
    }

    /// The same, if no platform's file would take the place of another's.
    ///
    /// # Errors
    /// The first that would.
    pub(super) fn without_conflicts(self) -> Result<Self, Conflict> {
        let mut taken: HashMap<PathBuf, &str> = HashMap::new();
        for files in self.0.iter().filter(|_| self.share_a_directory()) {
            files.walk(&mut |entry| {
                let is_dir = match entry.what {
                    Leaving::Object(_, found, _) => found.stat.file_type == FileType::Dir,
                    Leaving::Statement(..) => false,
                    Leaving::Dir => true,
                };
                let path = entry.path();
                match taken.get(&path).filter(|_| !is_dir) {
                    Some(other) => Err(Conflict::Overwritten {
                        path: path.display().to_string(),
                        other: (*other).to_owned(),
                        by: files.platform.clone(),
                    }),
                    None => {
                        taken.insert(path, &files.platform);
                        Ok(())
                    }
                }
            })?;
        }
        Ok(self)
    }

    /// Whether entries of several platforms are each other's neighbours.
    fn share_a_directory(&self) -> bool {
        self.0.len() > 1 && self.0.iter().any(|files| files.dir.is_none())
    }

    /// Hands on all entries, platform by platform, each directory's sorted bytewise.
    ///
    /// # Errors
    /// A layer that cannot be read; also passes on what `emit` says.
    pub(crate) fn each<E: From<ViewError>>(&self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        self.0.iter().try_for_each(|files| files.walk(emit))
    }
}

impl From<ViewError> for TransferError {
    fn from(error: ViewError) -> Self {
        Self::Io { path: "/".into(), source: io::Error::other(error) }
    }
}

impl Files for AllFiles {
    fn walk(&self, emit: &mut dyn FnMut(Stat) -> Result<(), TransferError>) -> Result<(), TransferError> {
        if !self.share_a_directory() {
            return self.each(&mut |entry| emit(told(&entry)?));
        }
        let mut all = Vec::new();
        self.each(&mut |entry| {
            all.push(told(&entry)?);
            Ok::<_, TransferError>(())
        })?;
        all.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        all.dedup_by(|a, b| a.path == b.path);
        all.into_iter().try_for_each(emit)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        for files in &self.0 {
            if let Some(found) = files.open(path)? {
                return Ok(found);
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// An entry as fsutil tells it.
fn told(entry: &Entry<'_>) -> Result<Stat, ViewError> {
    let path = entry.path().to_string_lossy().into_owned();
    let made = |mode, size| Stat { mode: file_mode(mode), size, ..Stat::default() };
    let mut told = match &entry.what {
        Leaving::Dir => made(PLATFORM_MODE, 0),
        Leaving::Statement(_, text) => made(STATEMENT_MODE, text.len() as i64),
        Leaving::Object(view, found, _) => stat(view, found, path.as_bytes())?,
    };
    if let Some(first) = entry.link() {
        told.linkname = first.to_string_lossy().into_owned();
        told.size = 0;
    }
    Ok(Stat { path, mod_time: entry.mtime, ..told })
}
