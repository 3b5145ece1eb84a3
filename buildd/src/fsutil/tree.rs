//! A directory of this host as the sending end, with include, exclude and follow patterns.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use proto::fsutil::Stat;
use solver::pattern::{ParentMatches, PatternMatcher, Verdict};

use super::TransferError;
use super::follow::follow_links;
use super::mode::file_mode;
use super::send::Files;

/// Which part of a directory is sent.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these and what is below them; empty: all.
    pub include: Vec<String>,
    /// Not these; as in `.dockerignore`.
    pub exclude: Vec<String>,
    /// Added to `include` with all that symbolic links on the way lead to.
    pub follow: Vec<String>,
}

/// A directory and what of it is sent.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    include: Option<Include>,
    exclude: PatternMatcher,
    /// uid and gid are sent as 0, as BuildKit's clients do for contexts.
    reset_owner: bool,
}

#[derive(Debug)]
struct Include {
    matcher: PatternMatcher,
    /// Patterns without wildcards: a directory that is on the way to none of them need not be read.
    prefixes: Option<Vec<String>>,
}

/// A directory on the way down.
struct Dir {
    /// Its entry, until it is sent. One that is not selected itself is sent when something below it is.
    unsent: Option<Stat>,
    /// Everything below it is included.
    whole: bool,
    include: ParentMatches,
    exclude: ParentMatches,
}

/// What is to be done with an entry, and what a directory's entries need to know.
#[derive(Default)]
struct Judgement {
    selected: bool,
    enter: bool,
    whole: bool,
    include: ParentMatches,
    exclude: ParentMatches,
}

struct Walk<'a> {
    tree: &'a Tree,
    emit: &'a mut dyn FnMut(Stat) -> Result<(), TransferError>,
    dirs: Vec<Dir>,
    /// Device and inode of every file with several names that was sent, and the path it was sent under.
    links: HashMap<(u64, u64), String>,
}

impl Tree {
    /// Prepares a directory for sending; ownership is reset to 0:0.
    ///
    /// # Errors
    /// A malformed pattern, or links that cannot be read.
    pub fn new(root: &Path, selection: &Selection) -> Result<Self, TransferError> {
        let mut include = selection.include.clone();
        let mut all = false;
        if !selection.follow.is_empty() {
            match follow_links(root, &selection.follow)? {
                Some(found) => include.extend(found),
                None => all = include.is_empty(),
            }
        }
        let include = match include.is_empty() || all {
            true => None,
            false => Some(Include::new(&include)?),
        };
        let exclude = PatternMatcher::new(&selection.exclude)?;
        Ok(Self { root: root.to_owned(), include, exclude, reset_owner: true })
    }

    fn stat(&self, path: &str, meta: &std::fs::Metadata) -> Result<Stat, TransferError> {
        let kind = meta.file_type();
        let full = self.root.join(path);
        let mut stat = Stat {
            path: path.to_owned(),
            mode: file_mode(meta.mode()),
            mod_time: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
            ..Stat::default()
        };
        if !self.reset_owner {
            (stat.uid, stat.gid) = (meta.uid(), meta.gid());
        }
        if !kind.is_dir() {
            stat.size = meta.size() as i64;
        }
        if kind.is_symlink() {
            let target = std::fs::read_link(&full).map_err(|e| TransferError::io(&full, e))?;
            stat.linkname = target.to_string_lossy().into_owned();
        }
        if kind.is_block_device() || kind.is_char_device() {
            stat.devmajor = rustix::fs::major(meta.rdev()).into();
            stat.devminor = rustix::fs::minor(meta.rdev()).into();
        }
        Ok(stat)
    }
}

impl Files for Tree {
    fn walk(&self, emit: &mut dyn FnMut(Stat) -> Result<(), TransferError>) -> Result<(), TransferError> {
        let mut walk = Walk { tree: self, emit, dirs: Vec::new(), links: HashMap::new() };
        walk.directory("")
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        // Neither a link that took the file's place meanwhile nor a pipe may be waited for.
        let flags = libc_flags();
        let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(self.root.join(path))?;
        match file.metadata()?.is_file() {
            true => Ok(Box::new(file)),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

fn libc_flags() -> i32 {
    (nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits()
}

impl Include {
    fn new(patterns: &[String]) -> Result<Self, TransferError> {
        let matcher = PatternMatcher::new(patterns)?;
        let plain = |text: &str| {
            let text = text.strip_suffix("/**").or_else(|| text.strip_suffix("/*")).unwrap_or(text);
            (!text.contains(['*', '[', ']', '?', '^', '\\'])).then(|| text.to_owned())
        };
        let prefixes =
            matcher.patterns().filter(|(_, inverted)| !inverted).map(|(text, _)| plain(text)).collect();
        Ok(Self { matcher, prefixes })
    }

    /// Whether something below an unselected directory may be selected.
    fn reaches_below(&self, dir: &str) -> bool {
        // `dir/*` has the prefix `dir`.
        let below =
            |p: &String| p.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.prefixes.as_ref().is_none_or(|all| all.iter().any(below))
    }
}

impl Walk<'_> {
    fn directory(&mut self, dir: &str) -> Result<(), TransferError> {
        let full = self.tree.root.join(dir);
        let mut names = Vec::new();
        match fs::read_dir(&full) {
            Ok(entries) => {
                for entry in entries {
                    names.push(entry.map_err(|e| TransferError::io(&full, e))?.file_name());
                }
            }
            // Removed meanwhile: as if it had never been there.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !dir.is_empty() => return Ok(()),
            Err(e) => return Err(TransferError::io(&full, e)),
        }
        names.sort_unstable();
        for name in names {
            let Some(name) = name.to_str() else {
                return Err(TransferError::Path(full.join(&name).to_string_lossy().into_owned()));
            };
            let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            self.entry(&path)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &str) -> Result<(), TransferError> {
        let full = self.tree.root.join(path);
        let meta = match std::fs::symlink_metadata(&full) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| TransferError::io(&full, e))?,
        };
        let judgement = self.judge(path, meta.is_dir());
        let Judgement { selected, enter, whole, include, exclude } = judgement;
        if !(selected || enter && meta.is_dir()) {
            return Ok(());
        }
        let stat = self.tree.stat(path, &meta)?;
        if !meta.is_dir() {
            return self.file(stat, &meta);
        }
        self.dirs.push(Dir { unsent: Some(stat), whole, include, exclude });
        if selected {
            self.send_dirs()?;
        }
        if enter {
            self.directory(path)?;
        }
        self.dirs.pop();
        Ok(())
    }

    fn judge(&self, path: &str, is_dir: bool) -> Judgement {
        let top = ParentMatches::default();
        let parent = self.dirs.last();
        let mut found = Judgement { selected: true, enter: true, whole: true, ..Judgement::default() };
        if let Some(include) = self.tree.include.as_ref().filter(|_| parent.is_none_or(|dir| !dir.whole)) {
            // The matcher is made for ignoring: what it would ignore is what is included here.
            let (verdict, below) =
                include.matcher.judge(path.as_bytes(), is_dir, parent.map_or(&top, |dir| &dir.include));
            found.selected = verdict != Verdict::Include;
            found.whole = verdict == Verdict::Exclude;
            found.enter = found.selected || include.reaches_below(path);
            found.include = below;
        }
        let (verdict, below) =
            self.tree.exclude.judge(path.as_bytes(), is_dir, parent.map_or(&top, |dir| &dir.exclude));
        found.exclude = below;
        match verdict {
            Verdict::Include => {}
            Verdict::Descend => found.selected = false,
            Verdict::Exclude => (found.selected, found.enter) = (false, false),
        }
        found
    }

    fn send_dirs(&mut self) -> Result<(), TransferError> {
        for dir in &mut self.dirs {
            if let Some(stat) = dir.unsent.take() {
                (self.emit)(stat)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, mut stat: Stat, meta: &std::fs::Metadata) -> Result<(), TransferError> {
        self.send_dirs()?;
        if meta.nlink() > 1 && !meta.file_type().is_symlink() {
            let id = (meta.dev(), meta.ino());
            match self.links.get(&id) {
                Some(first) => {
                    stat.linkname.clone_from(first);
                    stat.size = 0;
                }
                None => drop(self.links.insert(id, stat.path.clone())),
            }
        }
        (self.emit)(stat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(root: &Path, selection: &Selection) -> Vec<String> {
        let mut found = Vec::new();
        let tree = Tree::new(root, selection).unwrap();
        tree.walk(&mut |stat| {
            found.push(stat.path);
            Ok(())
        })
        .unwrap();
        found
    }

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/one", "a/b/two", "a/c", "a.txt", "z/deep/er/file"] {
            let full = dir.path().join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, path).unwrap();
        }
        std::os::unix::fs::symlink("../a/c", dir.path().join("z/link")).unwrap();
        dir
    }

    fn select(include: &[&str], exclude: &[&str], follow: &[&str]) -> Selection {
        let own = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        Selection { include: own(include), exclude: own(exclude), follow: own(follow) }
    }

    #[test]
    fn everything_in_walk_order() {
        let dir = sample();
        let all = listed(dir.path(), &Selection::default());
        assert_eq!(
            all,
            [
                "a",
                "a/b",
                "a/b/one",
                "a/b/two",
                "a/c",
                "a.txt",
                "z",
                "z/deep",
                "z/deep/er",
                "z/deep/er/file",
                "z/link"
            ]
        );
    }

    #[test]
    fn exclude_and_take_back() {
        let dir = sample();
        let all = listed(dir.path(), &select(&[], &["a", "!a/b/two", "z"], &[]));
        assert_eq!(all, ["a", "a/b", "a/b/two", "a.txt"]);
    }

    #[test]
    fn include_sends_parents_first() {
        let dir = sample();
        assert_eq!(
            listed(dir.path(), &select(&["z/deep"], &[], &[])),
            ["z", "z/deep", "z/deep/er", "z/deep/er/file"]
        );
        assert_eq!(listed(dir.path(), &select(&["**/two"], &[], &[])), ["a", "a/b", "a/b/two"]);
        assert!(listed(dir.path(), &select(&["nothing"], &[], &[])).is_empty());
    }

    #[test]
    fn links_are_followed() {
        let dir = sample();
        assert_eq!(listed(dir.path(), &select(&[], &[], &["z/link"])), ["a", "a/c", "z", "z/link"]);
        assert_eq!(
            listed(dir.path(), &select(&[], &[], &["a/*"])),
            ["a", "a/b", "a/b/one", "a/b/two", "a/c"]
        );
        // The root among the paths means everything.
        assert_eq!(listed(dir.path(), &select(&[], &[], &["."])).len(), 11);
    }

    #[test]
    fn hard_links_name_the_first_path_sent() {
        let dir = sample();
        std::fs::hard_link(dir.path().join("a.txt"), dir.path().join("b.txt")).unwrap();
        let mut links = Vec::new();
        Tree::new(dir.path(), &select(&[], &["a"], &[]))
            .unwrap()
            .walk(&mut |stat| {
                links.push((stat.path, stat.linkname));
                Ok(())
            })
            .unwrap();
        assert!(links.contains(&("b.txt".into(), "a.txt".into())), "{links:?}");
    }
}
