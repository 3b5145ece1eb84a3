//! The entries of a layer: what its directory holds, as data.

use solver::LayerId;
use solver::digest::Hasher;

use super::error::LayerError;
use crate::tree::codec::{Reader, put_bytes, put_node, put_varint};
use crate::tree::{Node, NodeId, TreePath};

/// First byte of encoded entries; another value means another format.
const FORMAT: u8 = 1;

/// What a layer does at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What is below is gone.
    Whiteout,
    /// An object, new or instead of what was there; a directory over a directory keeps the names below.
    Put {
        /// The object as trees know it.
        node: Node,
        /// Its real modification time in nanoseconds since 1970.
        mtime: i64,
    },
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// Where; never the root.
    pub path: TreePath,
    /// What.
    pub change: Change,
}

/// All entries of a layer in walk order, each path once.
///
/// Those of a layer directory hold every parent directory; a listing made by other means may leave them out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entries(Vec<LayerEntry>);

impl Entries {
    /// Sorts a listing. The root is left out; of equal paths the last one stays.
    pub fn new(mut list: Vec<LayerEntry>) -> Self {
        list.retain(|e| !e.path.is_root());
        list.sort_by(|a, b| a.path.cmp(&b.path));
        list.dedup_by(|later, earlier| {
            let same = later.path == earlier.path;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self(list)
    }

    /// Takes what is in order already.
    pub(super) fn from_sorted(list: Vec<LayerEntry>) -> Self {
        debug_assert!(list.is_sorted_by(|a, b| a.path < b.path), "entries are in walk order");
        Self(list)
    }

    /// The entries, in walk order.
    pub fn iter(&self) -> std::slice::Iter<'_, LayerEntry> {
        self.0.iter()
    }

    /// The entries, in walk order.
    pub fn as_slice(&self) -> &[LayerEntry] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry of one path.
    pub fn get(&self, path: &TreePath) -> Option<&LayerEntry> {
        let at = self.0.binary_search_by(|e| e.path.cmp(path)).ok()?;
        Some(&self.0[at])
    }

    /// The layer's portable id: SHA-256 of [`Self::encode`] in the domain `rbuild.layer.entries.v1`.
    pub fn layer_id(&self) -> LayerId {
        let mut h = Hasher::new("rbuild.layer.entries.v1");
        h.bytes(&self.encode());
        LayerId(h.finish())
    }

    /// The canonical bytes, to be kept beside the layer's directory.
    ///
    /// Format (primitives as in `tree::codec`): a format byte 1, count varint, then per entry the number of bytes that its path shares
    /// with the one before, the rest of its path, and 0 for a whiteout or 1, `node`, mtime (i64 little-endian).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.0.len() * 96);
        out.push(FORMAT);
        put_varint(&mut out, self.0.len() as u64);
        let mut last: &[u8] = &[];
        for entry in &self.0 {
            let path = entry.path.as_bytes();
            let shared = path.iter().zip(last).take_while(|(a, b)| a == b).count();
            put_varint(&mut out, shared as u64);
            put_bytes(&mut out, &path[shared..]);
            last = path;
            match &entry.change {
                Change::Whiteout => out.push(0),
                Change::Put { node, mtime } => {
                    out.push(1);
                    put_node(&mut out, node);
                    out.extend_from_slice(&mtime.to_le_bytes());
                }
            }
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`LayerError::DamagedEntries`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayerError> {
        Self::decode_within(bytes, usize::MAX)
    }

    /// What the list takes in memory, about, in bytes.
    pub fn memory(&self) -> usize {
        self.0.iter().map(|entry| memory(entry.path.as_bytes())).sum()
    }

    /// As [`Self::decode`], for a list of somebody else, which is not to take more than `limit` bytes of memory.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_within(bytes: &[u8], limit: usize) -> Result<Self, LayerError> {
        decode(&mut Reader(bytes), limit).map(Self).ok_or(LayerError::DamagedEntries)
    }
}

/// What an entry takes in memory, about, in bytes.
fn memory(path: &[u8]) -> usize {
    size_of::<LayerEntry>() + path.len()
}

fn decode(input: &mut Reader<'_>, mut left: usize) -> Option<Vec<LayerEntry>> {
    if input.byte()? != FORMAT {
        return None;
    }
    let count = usize::try_from(input.varint()?).ok()?;
    // An entry of a file has some fifty bytes; what has less costs the growth of the list.
    let mut list: Vec<LayerEntry> = Vec::with_capacity(count.min(input.0.len() / 40));
    let mut path = Vec::new();
    for _ in 0..count {
        let shared = usize::try_from(input.varint()?).ok()?;
        if shared > path.len() {
            return None;
        }
        path.truncate(shared);
        path.extend_from_slice(input.bytes()?);
        left = left.checked_sub(memory(&path))?;
        let path = TreePath::parse(&path).ok().filter(|p| !p.is_root())?;
        let change = match input.byte()? {
            0 => Change::Whiteout,
            1 => Change::Put { node: input.node()?, mtime: input.i64()? },
            _ => return None,
        };
        if list.last().is_some_and(|last| last.path >= path) {
            return None;
        }
        list.push(LayerEntry { path, change });
    }
    input.0.is_empty().then_some(list)
}

/// A layer whose directory is in normal form and complete; the caller renames it to its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedLayer {
    /// Portable id.
    pub id: LayerId,
    /// What it holds.
    pub entries: Entries,
    /// The tree of parent and layer together: the content digest of the output.
    pub root: NodeId,
    /// Bytes on disk (allocated blocks), of its own directory.
    pub disk_bytes: u64,
    /// The layer that it is thin over ([`super::Backing`]), if it is.
    pub backing: Option<LayerId>,
}
