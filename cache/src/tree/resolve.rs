//! Following symbolic links inside a root, for everything that can say what is at a path.

use std::collections::VecDeque;

use super::lookup::Follow;
use super::path::{InvalidPath, TreePath};

/// The kernel's limit (`MAXSYMLINKS`); a higher one would accept paths that fail in the sandbox.
const MAX_LINKS: u32 = 40;

/// What the resolver has to know of an object.
#[derive(Debug)]
pub(crate) enum Step {
    /// A directory.
    Dir,
    /// A symbolic link with this target.
    Link(Box<[u8]>),
    /// Anything else.
    Other,
}

/// What happens where a directory on the way does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// An error.
    Error,
    /// The rest of the path is taken as it is (containerd's `RootPath` does so).
    Literal,
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub(crate) enum ResolveError<E> {
    /// A directory on the way is missing.
    NotFound(TreePath),
    /// Something on the way is no directory.
    NotADirectory(TreePath),
    /// More than [`MAX_LINKS`] links.
    TooManyLinks,
    /// A NUL.
    Path(InvalidPath),
    /// The look-up itself failed.
    Get(E),
}

/// Resolves `path`; `get` says what is at an exact path. Gives the real path, which may not exist in its last component.
pub(crate) fn resolve<E>(
    path: &[u8],
    follow: Follow,
    missing: Missing,
    mut get: impl FnMut(&TreePath) -> Result<Option<Step>, E>,
) -> Result<TreePath, ResolveError<E>> {
    let mut pending: VecDeque<Box<[u8]>> = names(path).map(Into::into).collect();
    let mut at = TreePath::root();
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        if &*name == b".." {
            at = at.parent().unwrap_or_default();
            continue;
        }
        let next = at.join(&name).map_err(ResolveError::Path)?;
        let last = pending.is_empty();
        match get(&next).map_err(ResolveError::Get)? {
            Some(Step::Link(target)) if !last || follow == Follow::Last => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(ResolveError::TooManyLinks);
                }
                if target.first() == Some(&b'/') {
                    at = TreePath::root();
                }
                for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    pending.push_front(name.into());
                }
                continue;
            }
            Some(Step::Dir) => {}
            None if last || missing == Missing::Literal => {}
            None => return Err(ResolveError::NotFound(next)),
            Some(_) if last => {}
            Some(_) => return Err(ResolveError::NotADirectory(next)),
        }
        at = next;
    }
    Ok(at)
}

/// The components that mean something.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|name| !matches!(*name, b"" | b"."))
}
