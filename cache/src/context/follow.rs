//! Paths that COPY sources need, links followed: fsutil's FollowLinks.
//!
//! `COPY link/file` needs the link and what it leads to. The result is a list of include patterns.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat2, readlinkat};
use rustix::io::Errno;

use super::error::ContextError;
use crate::pattern::{glob_match, has_wildcards};
use crate::tree::TreePath;

/// The include patterns for `paths`; `None` when one of them is the whole context.
pub(super) fn follow_paths(
    dir: BorrowedFd<'_>,
    paths: &[String],
) -> Result<Option<Vec<String>>, ContextError> {
    let mut links = Links { dir, resolved: BTreeSet::new() };
    for path in paths {
        links.add(path.as_bytes())?;
    }
    if links.resolved.contains(b"".as_slice()) {
        return Ok(None);
    }
    let mut patterns: Vec<String> = Vec::new();
    for path in &links.resolved {
        let path = String::from_utf8_lossy(path).into_owned();
        let covered = |last: &String| path.strip_prefix(&**last).is_some_and(|rest| rest.starts_with('/'));
        if !patterns.last().is_some_and(covered) {
            patterns.push(path);
        }
    }
    Ok(Some(patterns))
}

struct Links<'a> {
    dir: BorrowedFd<'a>,
    /// Relative, clean; the context itself is empty.
    resolved: BTreeSet<Vec<u8>>,
}

impl Links<'_> {
    fn add(&mut self, path: &[u8]) -> Result<(), ContextError> {
        let path = clean(path);
        let names: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
        for upto in 1..=names.len() {
            let (current, rest) = (names[..upto].join(&b'/'), names[upto..].join(&b'/'));
            let targets = self.link_targets(&current)?;
            if targets.is_none() && !rest.is_empty() {
                continue;
            }
            // Also what ends circles of links.
            if !self.resolved.insert(current) {
                return Ok(());
            }
            for target in targets.unwrap_or_default() {
                self.add(&[&target[..], b"/", &rest].concat())?;
            }
            return Ok(());
        }
        Ok(())
    }

    /// Where the links lead that a component (perhaps a pattern) means; `None` where there can be none.
    fn link_targets(&self, path: &[u8]) -> Result<Option<Vec<Vec<u8>>>, ContextError> {
        let (parent, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        if !has_wildcards(name) {
            return Ok(self.read_link(parent, name)?.map(|target| vec![target]));
        }
        let mut targets = Vec::new();
        for entry in self.names(parent)? {
            if glob_match(name, &entry).unwrap_or(false)
                && let Some(target) = self.read_link(parent, &entry)?
            {
                targets.push(target);
            }
        }
        Ok((!targets.is_empty()).then_some(targets))
    }

    fn names(&self, dir: &[u8]) -> Result<Vec<Vec<u8>>, ContextError> {
        let path = if dir.is_empty() { b"." } else { dir };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(fd) = self.open(path, flags)? else { return Ok(Vec::new()) };
        let fail = |e: Errno| ContextError::io("read", &tree_path(dir), e);
        let mut names = Vec::new();
        for entry in Dir::new(fd).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name().to_bytes().to_vec();
            // A wildcard matches the directory's own entries too, and `..` leads out.
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The target of a link as an absolute path within the context.
    fn read_link(&self, parent: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, ContextError> {
        if name.is_empty() {
            return Ok(None);
        }
        let path = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(fd) = self.open(&path, flags)? else { return Ok(None) };
        match readlinkat(fd.as_fd(), "", Vec::new()) {
            Ok(target) if target.as_bytes().starts_with(b"/") => Ok(Some(clean(target.as_bytes()))),
            Ok(target) => Ok(Some(clean(&[parent, b"/", target.as_bytes()].concat()))),
            // No link (ENOENT for an empty path).
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(e) => Err(ContextError::io("read the link", &tree_path(&path), e)),
        }
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<Option<rustix::fd::OwnedFd>, ContextError> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(self.dir, path, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL) => Ok(None),
            Err(e) => Err(ContextError::io("open", &tree_path(path), e)),
        }
    }
}

/// Relative and clean; `..` stops at the context. A path with NUL names nothing.
fn clean(path: &[u8]) -> Vec<u8> {
    TreePath::clean(path).map(|path| path.as_bytes().to_vec()).unwrap_or_else(|_| path.to_vec())
}

fn tree_path(path: &[u8]) -> TreePath {
    TreePath::clean(path).unwrap_or_default()
}
