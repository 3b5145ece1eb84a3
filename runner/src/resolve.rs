//! Finding a path inside a root that somebody else filled: symlinks, `..` and absolute links never lead out of it,
//! and what is missing is made on the way.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::stubs::Stub;

/// As many links as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// What a mount target has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// A mount target that exists (by now).
pub(crate) struct Target {
    /// O_PATH descriptor of it.
    pub fd: OwnedFd,
    /// Permission bits of what was there before; none when it was made.
    pub previous_mode: Option<u32>,
}

/// Opens `path` with `root` as its root; the kernel does the resolution, nothing is made.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename went on meanwhile and the kernel could not prove that `..` stayed inside.
    for _ in 0..64 {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Finds or makes `path` inside `root`. What is made on the root's own file system is noted in `stubs`.
///
/// Every step opens one name relative to a descriptor without following links, so a directory swapped
/// meanwhile (a cache mount shared with another step) cannot lead out.
pub(crate) fn find_or_make(
    root: BorrowedFd<'_>,
    path: &Path,
    kind: Kind,
    stubs: &mut Vec<Stub>,
) -> Result<Target, Errno> {
    let mut walk = Walk { root, root_device: rustix::fs::fstat(root)?.st_dev, stack: Vec::new(), links: 0 };
    let mut pending = components(path.as_os_str());
    let mut made = false;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            walk.stack.pop();
            continue;
        }
        let wanted = if pending.is_empty() { kind } else { Kind::Directory };
        let (entry, stat) = match walk.open(&name) {
            Err(Errno::NOENT) => {
                match walk.make(&name, wanted, stubs) {
                    // Another sandbox, with which a mount is shared, was faster.
                    Err(Errno::EXIST) => {}
                    done => {
                        done?;
                        made = true;
                    }
                }
                walk.open(&name)?
            }
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => walk.follow(&entry, &mut pending)?,
            FileType::Directory => walk.stack.push((name, entry)),
            _ if wanted == Kind::Directory => return Err(Errno::NOTDIR),
            _ => walk.stack.push((name, entry)),
        }
    }
    walk.finish(kind, made)
}

struct Walk<'fd> {
    root: BorrowedFd<'fd>,
    root_device: u64,
    stack: Vec<(OsString, OwnedFd)>,
    links: u32,
}

impl Walk<'_> {
    fn current(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    fn open(&self, name: &OsStr) -> Result<(OwnedFd, Stat), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.current(), name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok((fd, stat))
    }

    fn make(&self, name: &OsStr, kind: Kind, stubs: &mut Vec<Stub>) -> Result<(), Errno> {
        let parent = self.current();
        let before = rustix::fs::fstat(parent)?;
        match kind {
            Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?,
            Kind::File => {
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o755))?;
            }
        }
        if before.st_dev == self.root_device {
            let names = self.stack.iter().map(|(name, _)| name.as_os_str()).chain([name]);
            let path = names.map(OsStr::as_bytes).collect::<Vec<_>>().join(&b'/');
            let after = rustix::fs::fstat(parent)?;
            stubs.push(Stub::new(path, kind == Kind::Directory, &before, &after));
        }
        Ok(())
    }

    fn follow(&mut self, link: &OwnedFd, pending: &mut VecDeque<OsString>) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let text = OsString::from_vec(rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes());
        if text.as_bytes().starts_with(b"/") {
            self.stack.clear();
        }
        for name in components(&text).into_iter().rev() {
            pending.push_front(name);
        }
        Ok(())
    }

    fn finish(mut self, kind: Kind, made: bool) -> Result<Target, Errno> {
        let fd = match self.stack.pop() {
            Some((_, fd)) => fd,
            None => rustix::fs::openat(self.root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
        };
        let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match (kind, is_dir) {
            (Kind::Directory, false) => Err(Errno::NOTDIR),
            (Kind::File, true) => Err(Errno::ISDIR),
            _ => Ok(Target { fd, previous_mode: (!made).then_some(stat.st_mode & 0o7777) }),
        }
    }
}

/// The names of a path; `.` and the root are left out, `..` stays.
fn components(path: &OsStr) -> VecDeque<OsString> {
    Path::new(path)
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn sandboxes_that_share_a_directory_make_the_same_target() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let barrier = Barrier::new(4);
        let race = |n: usize| {
            barrier.wait();
            let path = format!("/{n}/target");
            find_or_make(root.as_fd(), Path::new(&path), Kind::File, &mut Vec::new()).map(drop)
        };
        let all = || (0..200).map(&race).collect::<Vec<_>>();
        let results = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(all)).collect();
            racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}
