//! What a tree knows of one file, directory or other object.

use std::fmt;

use solver::Digest;

use super::path::TreePath;

/// The address of a directory node: SHA-256 of its encoding (see `codec`).
///
/// The id of a root node is the rootfs digest, the content digest of an output.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Digest);

impl NodeId {
    /// Wraps a digest that names a node.
    pub const fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tree {}", self.0)
    }
}

impl From<NodeId> for Digest {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

/// BLAKE3 of a file's bytes; never shown to other programs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileDigest([u8; 32]);

impl FileDigest {
    /// Hashes `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(blake3::hash(data).into())
    }

    /// Wraps the 32 bytes of a BLAKE3 hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hex::encode(self.0))
    }
}

/// Extended attributes, sorted by name, each name once; names of overlayfs's own (`*.overlay.*`) never occur.
pub type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// The type of an object and what belongs to that type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// Digest of the bytes.
        content: FileDigest,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// What it says, unresolved.
        target: Box<[u8]>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket, as a program left it; layer tars leave it out.
    Socket,
}

/// One object of a file system, without its name and, for a directory, without its children.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Type and content.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky, `0o7777` at most; `0o777` for symlinks.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in nanoseconds since 1970 if it counts, that is if it lies outside the run window of
    /// the step that made the object; else `None`.
    pub mtime: Option<i64>,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// Hard-link group: the smallest path (in walk order) of the group in the layer that made it.
    ///
    /// It never changes afterwards, also when a later layer removes or replaces that path.
    pub link_group: Option<TreePath>,
}

impl Node {
    /// A directory 0755 of root, without a time that counts.
    pub fn plain_dir() -> Self {
        Self {
            kind: Kind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: None,
            xattrs: Vec::new(),
            link_group: None,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }

    /// The target, for a symbolic link.
    pub fn link_target(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Symlink { target } => Some(target),
            _ => None,
        }
    }
}
