//! Paths inside a root file system.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Directories in a path that trees take. Trees are walked recursively, so a deeper one would cost the daemon its
/// stack; no build tool gets near (the deepest `node_modules` have some tens).
pub const MAX_DEPTH: usize = 512;

/// The kernel's PATH_MAX without its NUL. Longer paths can be made (`mkdir x; cd x`, again and again) but not used.
const MAX_LENGTH: usize = 4095;

/// A path inside a root: bytes, relative, without empty, `.` or `..` components and without NUL; the root is empty.
///
/// The order is that of a walk: component by component, so a directory comes directly before what it holds
/// (`a`, `a/b`, `a-b`).
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Box<[u8]>);

/// A string that is no [`TreePath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid path `{}`: want a relative path without `.`, `..`, empty components or NUL", .0.escape_ascii())]
pub struct InvalidPath(Vec<u8>);

impl TreePath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes a path that is already canonical; nothing is cleaned.
    ///
    /// # Errors
    /// When a component is empty, `.`, `..` or holds a NUL.
    pub fn parse(path: &[u8]) -> Result<Self, InvalidPath> {
        let fine = path.is_empty() || path.split(|&b| b == b'/').all(valid_name);
        if fine { Ok(Self(path.into())) } else { Err(InvalidPath(path.iter().copied().take(256).collect())) }
    }

    /// Cleans any path lexically, as if it were absolute: `..` stops at the root.
    ///
    /// # Errors
    /// When it holds a NUL.
    pub fn clean(path: &[u8]) -> Result<Self, InvalidPath> {
        let mut names: Vec<&[u8]> = Vec::new();
        for name in path.split(|&b| b == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(names.pop()),
                name if valid_name(name) => names.push(name),
                _ => return Err(InvalidPath(path.iter().copied().take(256).collect())),
            }
        }
        Ok(Self(names.join(&b'/').into()))
    }

    /// The child `name` of this directory.
    ///
    /// # Errors
    /// When `name` is no single plain component.
    pub fn join(&self, name: &[u8]) -> Result<Self, InvalidPath> {
        if !valid_name(name) || name.contains(&b'/') {
            return Err(InvalidPath(name.iter().copied().take(256).collect()));
        }
        Ok(self.child(name))
    }

    /// The path `below` under this directory.
    pub fn join_path(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => self.child(&below.0),
        }
    }

    /// [`Self::join`] for names that are known to be valid.
    pub(crate) fn child(&self, name: &[u8]) -> Self {
        if self.is_root() {
            return Self(name.into());
        }
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        path.extend_from_slice(&self.0);
        path.push(b'/');
        path.extend_from_slice(name);
        Self(path.into())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].into()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|&b| b == b'/').map_or(0, |i| i + 1);
        &self.0[start..]
    }

    /// The components, outermost first; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// Whether it has more than [`MAX_DEPTH`] components or is longer than the kernel takes.
    pub fn is_too_long(&self) -> bool {
        self.0.len() > MAX_LENGTH || self.components().nth(MAX_DEPTH).is_some()
    }

    /// Whether it is `dir` or lies below it.
    pub fn starts_with(&self, dir: &Self) -> bool {
        dir.is_root() || self.0.strip_prefix(&*dir.0).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// What remains of it below `dir`.
    pub fn strip_prefix(&self, dir: &Self) -> Option<Self> {
        if dir.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&*dir.0)? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }

    /// The bytes, without a leading or trailing slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a relative [`Path`]; empty for the root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

/// Whether `name` may be a component (slashes are the caller's concern).
fn valid_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&0)
}

/// Compares two raw paths in walk order.
pub(crate) fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    match (a.get(common), b.get(common)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        // `/` ends a component, so it sorts before every byte of a longer name.
        (Some(b'/'), Some(_)) => Ordering::Less,
        (Some(_), Some(b'/')) => Ordering::Greater,
        (Some(x), Some(y)) => x.cmp(y),
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        walk_order(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    /// Absolute, with bytes that are no printable ASCII escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.chars().any(char::is_control) => write!(f, "/{text}"),
            _ => write!(f, "/{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
