//! What a directory holds by name: for those who look for a path that is not there.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};

use super::listing::read_names;
use super::local::ThreadInit;
use crate::tree::TreePath;

/// The paths in a directory, level by level, at most `limit` of them; directories that cannot be read are left out.
///
/// Blocking. No link is followed, and with `thread_init` all is read in a thread of its own that calls it first.
pub fn names(dir: BorrowedFd<'_>, thread_init: Option<&ThreadInit>, limit: usize) -> Vec<TreePath> {
    let Some(init) = thread_init else { return list(dir, limit) };
    let work = || {
        init();
        list(dir, limit)
    };
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn list(dir: BorrowedFd<'_>, limit: usize) -> Vec<TreePath> {
    let (mut paths, mut dirs) = (Vec::new(), VecDeque::from([TreePath::root()]));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    while let Some(path) = dirs.pop_front() {
        let at = if path.is_root() { ".".as_ref() } else { path.as_path() };
        let Ok(open) = openat2(dir, at, flags, Mode::empty(), resolve) else { continue };
        // A directory that fails half-way has still shown some names.
        let _ = read_names(open.as_fd(), &path, &mut |name, kind| {
            if paths.len() < limit {
                let path = path.child(name.to_bytes());
                if kind == FileType::Directory {
                    dirs.push_back(path.clone());
                }
                paths.push(path);
            }
            Ok(())
        });
        if paths.len() >= limit {
            break;
        }
    }
    paths
}
