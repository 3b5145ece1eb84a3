//! The bytes of nodes: what is stored and what is hashed.
//!
//! ```text
//! varint  = LEB128, unsigned            bytes = varint length, then the bytes
//! attrs   = kind, mode varint, uid varint, gid varint, xattr count varint, (name bytes, value bytes)*
//! kind    = 1 size varint, BLAKE3[32] | 2 | 3 target bytes | 4 major varint, minor varint | 5 the same | 6 | 7
//!           (file, directory, symlink, character device, block device, pipe, socket)
//! node    = attrs, (0 | 1 mtime i64 little-endian), (0 | 1 link group bytes)
//! dirnode = count varint, (name bytes, node, [id[32], copy digest[32] if a directory])*   sorted by name
//! ```
//! A node's id is SHA-256 in the domain `rbuild.tree.node.v1` over `dirnode`. The copy digest of a directory's
//! contents is the same in the domain `rbuild.tree.copydir.v1` over: count, then per child its name, its `attrs`, and for a
//! directory its contents' copy digest. Changing any of this invalidates every tree on disk.

use bytes::Bytes;
use solver::Digest;
use solver::digest::Hasher;

use super::node::{FileDigest, Kind, Node, NodeId, Xattrs};
use super::path::TreePath;

/// What a directory entry says of a directory's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The node of the contents.
    pub(crate) id: NodeId,
    /// Their copy digest.
    pub(crate) copy: Digest,
}

/// One name of a directory node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) name: Box<[u8]>,
    pub(crate) node: Node,
    /// Present exactly for directories.
    pub(crate) contents: Option<Contents>,
}

/// A decoded directory node: children sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DirNode {
    pub(crate) children: Vec<Child>,
}

impl DirNode {
    /// The child of that name.
    pub(crate) fn child(&self, name: &[u8]) -> Option<&Child> {
        let at = self.children.binary_search_by(|c| (*c.name).cmp(name)).ok()?;
        Some(&self.children[at])
    }

    /// Encodes and hashes.
    pub(crate) fn seal(&self) -> (Contents, Bytes) {
        let mut out = Vec::with_capacity(self.children.len() * 96 + 4);
        put_varint(&mut out, self.children.len() as u64);
        for child in &self.children {
            put_bytes(&mut out, &child.name);
            put_node(&mut out, &child.node);
            if let Some(contents) = &child.contents {
                out.extend_from_slice(contents.id.digest().as_bytes());
                out.extend_from_slice(contents.copy.as_bytes());
            }
        }
        let mut copy = CopyHasher::new(self.children.len());
        for child in &self.children {
            copy.child(&child.name, &child.node, child.contents.map(|c| c.copy));
        }
        (Contents { id: node_id(&out), copy: copy.finish() }, out.into())
    }

    /// Reads what [`Self::seal`] encoded; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader(bytes);
        let count = usize::try_from(input.varint()?).ok()?;
        let mut children: Vec<Child> = Vec::with_capacity(count.min(bytes.len() / 8));
        for _ in 0..count {
            let name: Box<[u8]> = input.bytes()?.into();
            let node = input.node()?;
            let contents = match node.kind {
                Kind::Dir => Some(Contents { id: NodeId::new(input.digest()?), copy: input.digest()? }),
                _ => None,
            };
            if children.last().is_some_and(|last| last.name >= name) {
                return None;
            }
            children.push(Child { name, node, contents });
        }
        input.0.is_empty().then_some(Self { children })
    }
}

/// The id of a node with this encoding.
pub(crate) fn node_id(encoding: &[u8]) -> NodeId {
    let mut h = Hasher::new("rbuild.tree.node.v1");
    h.bytes(encoding);
    NodeId::new(h.finish())
}

/// Hashes the contents of a directory for the copy digest.
pub(crate) struct CopyHasher {
    hasher: Hasher,
    attrs: Vec<u8>,
}

impl CopyHasher {
    /// Starts a directory with `count` children.
    pub(crate) fn new(count: usize) -> Self {
        let mut hasher = Hasher::new("rbuild.tree.copydir.v1");
        hasher.u64(count as u64);
        Self { hasher, attrs: Vec::new() }
    }

    /// Adds a child; children come sorted by name.
    pub(crate) fn child(&mut self, name: &[u8], node: &Node, contents: Option<Digest>) {
        self.attrs.clear();
        put_attrs(&mut self.attrs, node);
        self.hasher.bytes(name).bytes(&self.attrs);
        if let Some(copy) = contents {
            self.hasher.digest(&copy);
        }
    }

    /// Ends the directory.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

/// The copy digest of one object: its `attrs` and, for a directory, its contents, in `rbuild.tree.copy.v1`.
pub(crate) fn copy_digest_of(node: &Node, contents: Option<Digest>) -> Digest {
    let mut attrs = Vec::new();
    put_attrs(&mut attrs, node);
    let mut h = Hasher::new("rbuild.tree.copy.v1");
    h.bytes(&attrs);
    if let Some(copy) = contents {
        h.digest(&copy);
    }
    h.finish()
}

/// Appends a number.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a byte string with its length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends `attrs`.
fn put_attrs(out: &mut Vec<u8>, node: &Node) {
    match &node.kind {
        Kind::File { size, content } => {
            out.push(1);
            put_varint(out, *size);
            out.extend_from_slice(content.as_bytes());
        }
        Kind::Dir => out.push(2),
        Kind::Symlink { target } => {
            out.push(3);
            put_bytes(out, target);
        }
        Kind::CharDevice { major, minor } => put_device(out, 4, *major, *minor),
        Kind::BlockDevice { major, minor } => put_device(out, 5, *major, *minor),
        Kind::Fifo => out.push(6),
        Kind::Socket => out.push(7),
    }
    for n in [node.mode, node.uid, node.gid] {
        put_varint(out, n.into());
    }
    put_varint(out, node.xattrs.len() as u64);
    for (name, value) in &node.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_device(out: &mut Vec<u8>, tag: u8, major: u32, minor: u32) {
    out.push(tag);
    put_varint(out, major.into());
    put_varint(out, minor.into());
}

/// Appends `node`.
pub(crate) fn put_node(out: &mut Vec<u8>, node: &Node) {
    put_attrs(out, node);
    match node.mtime {
        None => out.push(0),
        Some(ns) => {
            out.push(1);
            out.extend_from_slice(&ns.to_le_bytes());
        }
    }
    match &node.link_group {
        None => out.push(0),
        Some(group) => {
            out.push(1);
            put_bytes(out, group.as_bytes());
        }
    }
}

/// Reads encoded values from a slice; every method gives `None` when the bytes do not fit.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    /// A number.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    /// A number below 2³².
    fn varint32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    /// A byte string with its length.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.varint()?.try_into().ok()?;
        self.take(n)
    }

    /// A signed number of eight bytes.
    pub(crate) fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn digest(&mut self) -> Option<Digest> {
        Some(Digest::from_bytes(self.take(32)?.try_into().ok()?))
    }

    fn kind(&mut self) -> Option<Kind> {
        Some(match self.byte()? {
            1 => {
                let size = self.varint()?;
                Kind::File { size, content: FileDigest::from_bytes(self.take(32)?.try_into().ok()?) }
            }
            2 => Kind::Dir,
            3 => Kind::Symlink { target: self.bytes()?.into() },
            4 => Kind::CharDevice { major: self.varint32()?, minor: self.varint32()? },
            5 => Kind::BlockDevice { major: self.varint32()?, minor: self.varint32()? },
            6 => Kind::Fifo,
            7 => Kind::Socket,
            _ => return None,
        })
    }

    /// A `node`.
    pub(crate) fn node(&mut self) -> Option<Node> {
        let kind = self.kind()?;
        let (mode, uid, gid) = (self.varint32()?, self.varint32()?, self.varint32()?);
        let mut xattrs = Xattrs::new();
        for _ in 0..self.varint()? {
            xattrs.push((self.bytes()?.into(), self.bytes()?.into()));
        }
        let mtime = match self.byte()? {
            0 => None,
            1 => Some(self.i64()?),
            _ => return None,
        };
        let link_group = match self.byte()? {
            0 => None,
            1 => Some(TreePath::parse(self.bytes()?).ok()?),
            _ => return None,
        };
        Some(Node { kind, mode, uid, gid, mtime, xattrs, link_group })
    }
}
