//! The list of what a mount holds.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use solver::Digest;

use super::chunks::{Chunk, Contents};
use super::error::MountError;
use crate::keyed::SharedBlob;
use crate::layer::{Change, Entries};
use crate::tree::codec::{Reader, put_bytes, put_node, put_varint};
use crate::tree::{FileDigest, Kind, Node, TreePath};

use super::pack::{PACK_LIMIT, PACK_TYPE};

/// The media type of an encoded list.
pub const LIST_TYPE: &str = "application/vnd.rbuild.mount.v1+zstd";
/// How large an encoded list may be, in bytes.
pub const LIST_LIMIT: u64 = 64 << 20;
/// How large it may be before compression.
const PLAIN_LIMIT: u64 = 128 << 20;
/// What all its entries may take in memory, in bytes.
const ENTRIES_LIMIT: usize = 1 << 30;
/// How hard it is compressed, on zstd's scale.
const LEVEL: i32 = 3;
/// How many bytes all its files may have together: no honest mount is near.
const FILES_LIMIT: u64 = 1 << 40;
/// How many packs it may name.
const PACKS_LIMIT: u64 = 1 << 16;
/// The shortest chunk of a file that has several, but for its last, in bytes.
const SHORTEST: u64 = super::pack::CUT.0 as u64;
/// First byte before compression; another value means another format.
const FORMAT: u8 = 1;

/// What a mount holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountList {
    /// The mount's own directory, and its modification time in nanoseconds since 1970.
    pub top: (Node, i64),
    /// What is in it: files, directories, links and pipes, each with its parents.
    pub entries: Entries,
    /// Where the bytes of the files are.
    pub contents: Contents,
    /// The packs that those name by number.
    pub packs: Vec<Pack>,
}

/// A pack that lies in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its size before compression.
    pub plain: u64,
}

impl Pack {
    /// As what it is stored.
    pub fn blob(&self) -> SharedBlob {
        SharedBlob { digest: self.digest, size: self.size, media_type: PACK_TYPE.to_owned() }
    }
}

impl MountList {
    /// The bytes that are stored, compressed.
    ///
    /// Format before compression (primitives as in `tree::codec`): a format byte 1; the top's node and time (i64 little-endian); the
    /// entries as layers have them, with their length; the number of packs, and of each digest, size and plain size; the number of
    /// chunks, and of each digest, pack, offset and length; the number of contents of several chunks, and of each digest, how many, and
    /// their numbers.
    ///
    /// # Errors
    /// [`MountError::TooLarge`] for more than could be read again.
    pub fn encode(&self) -> Result<Vec<u8>, MountError> {
        let mut out = vec![FORMAT];
        put_node(&mut out, &self.top.0);
        out.extend_from_slice(&self.top.1.to_le_bytes());
        put_bytes(&mut out, &self.entries.encode());
        put_varint(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            put_bytes(&mut out, pack.digest.as_bytes());
            put_varint(&mut out, pack.size);
            put_varint(&mut out, pack.plain);
        }
        let chunks = self.contents.chunks();
        put_varint(&mut out, chunks.len() as u64);
        for chunk in chunks {
            put_bytes(&mut out, chunk.digest.as_bytes());
            put_varint(&mut out, chunk.pack.into());
            put_varint(&mut out, chunk.offset);
            put_varint(&mut out, chunk.len);
        }
        let mut files: Vec<(&FileDigest, &[u32])> = self.contents.files().collect();
        files.sort_unstable();
        put_varint(&mut out, files.len() as u64);
        for (content, numbers) in files {
            put_bytes(&mut out, content.as_bytes());
            put_varint(&mut out, numbers.len() as u64);
            numbers.iter().for_each(|number| put_varint(&mut out, (*number).into()));
        }
        let fits = out.len() as u64 <= PLAIN_LIMIT
            && self.entries.memory() <= ENTRIES_LIMIT
            && self.packs.len() as u64 <= PACKS_LIMIT;
        let encoded = zstd::encode_all(out.as_slice(), LEVEL).map_err(MountError::Compress)?;
        if fits && encoded.len() as u64 <= LIST_LIMIT { Ok(encoded) } else { Err(MountError::TooLarge) }
    }

    /// Reads what [`Self::encode`] gave.
    ///
    /// # Errors
    /// [`MountError::Damaged`] for anything else, and for lists that no mount has: devices, names without their directory, files whose
    /// bytes are nowhere.
    pub fn decode(bytes: &[u8]) -> Result<Self, MountError> {
        let damaged = MountError::Damaged("the list of a cache mount is damaged");
        let mut plain = Vec::new();
        let decoder = zstd::Decoder::with_buffer(bytes).map_err(|_| damaged)?;
        let read = decoder.take(PLAIN_LIMIT).read_to_end(&mut plain);
        let damaged = MountError::Damaged("the list of a cache mount is damaged");
        match read.ok().and_then(|_| decode(&mut Reader(&plain))) {
            Some(list) if list.is_sound() && list.bytes() <= FILES_LIMIT => Ok(list),
            _ => Err(damaged),
        }
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        let own =
            |(path, node): &(&TreePath, &Node)| node.link_group.as_ref().is_none_or(|group| group == *path);
        self.nodes().filter(own).map(|(_, node)| size_of(node)).fold(0, u64::saturating_add)
    }

    /// Whether the bytes of all files are known.
    pub fn is_complete(&self) -> bool {
        self.nodes().all(|(_, node)| match &node.kind {
            Kind::File { size, content } => self.has(content, *size),
            _ => true,
        })
    }

    /// Whether a pack, by number, has anything of the files.
    pub fn packs_in_use(&self) -> HashSet<u32> {
        let contents = self.nodes().filter_map(|(_, node)| match &node.kind {
            Kind::File { content, size } if *size > 0 => self.contents.of(content),
            _ => None,
        });
        contents.flatten().map(|chunk| chunk.pack).collect()
    }

    /// Forgets what is in these packs, which are no good.
    pub fn forget(&mut self, packs: &HashSet<Digest>) {
        let numbers = (0u32..).zip(&self.packs).filter(|(_, pack)| packs.contains(&pack.digest));
        let numbers: HashSet<u32> = numbers.map(|(number, _)| number).collect();
        if !numbers.is_empty() {
            self.contents = self.contents.without(&numbers);
        }
    }

    /// Whether it says the same but for the times of directories, which change with each file that comes and goes in them.
    pub fn is_like(&self, other: &Self) -> bool {
        let plain = |(path, change): (&TreePath, &Change)| match change {
            Change::Put { node, .. } if node.kind == Kind::Dir => (path.clone(), node.clone(), None),
            Change::Put { node, mtime } => (path.clone(), node.clone(), Some(*mtime)),
            Change::Whiteout => (path.clone(), Node::plain_dir(), None),
        };
        let all = |list: &Self| list.entries.len();
        all(self) == all(other)
            && self.top.0 == other.top.0
            && self
                .entries
                .iter()
                .zip(other.entries.iter())
                .all(|(one, other)| plain((&one.path, &one.change)) == plain((&other.path, &other.change)))
    }

    /// The packs that are named, as blobs.
    pub fn blobs(&self) -> impl Iterator<Item = SharedBlob> {
        self.packs.iter().map(Pack::blob)
    }

    fn nodes(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        nodes(&self.entries)
    }

    fn is_sound(&self) -> bool {
        let mut dirs: Vec<&TreePath> = Vec::new();
        let mut groups: HashMap<&TreePath, &Node> = HashMap::new();
        self.top.0.kind == Kind::Dir
            && self.entries.iter().all(|entry| {
                let Change::Put { node, .. } = &entry.change else { return false };
                while dirs.last().is_some_and(|dir| !entry.path.starts_with(dir)) {
                    dirs.pop();
                }
                let parent = entry.path.parent().unwrap_or_default();
                if dirs.last().map_or(!parent.is_root(), |dir| **dir != parent) || entry.path.is_too_long() {
                    return false;
                }
                if let Some(group) = &node.link_group
                    && **groups.entry(group).or_insert(node) != *node
                {
                    return false;
                }
                match &node.kind {
                    Kind::Dir => dirs.push(&entry.path),
                    Kind::File { size, content } => return self.has(content, *size),
                    Kind::Symlink { .. } | Kind::Fifo => {}
                    Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Socket => return false,
                }
                node.kind != Kind::Dir || node.link_group.is_none()
            })
    }

    /// Whether the bytes of a content are known, and are so many.
    pub(super) fn has(&self, content: &FileDigest, size: u64) -> bool {
        size == 0 || self.contents.size(content) == Some(size)
    }
}

/// What lies at each path.
pub(super) fn nodes(entries: &Entries) -> impl Iterator<Item = (&TreePath, &Node)> {
    entries.iter().filter_map(|entry| match &entry.change {
        Change::Put { node, .. } => Some((&entry.path, node)),
        Change::Whiteout => None,
    })
}

/// The size of a file in bytes; 0 for anything else.
pub(super) fn size_of(node: &Node) -> u64 {
    if let Kind::File { size, .. } = node.kind { size } else { 0 }
}

fn decode(input: &mut Reader<'_>) -> Option<MountList> {
    if input.byte()? != FORMAT {
        return None;
    }
    let top = (input.node()?, input.i64()?);
    let entries = Entries::decode_within(input.bytes()?, ENTRIES_LIMIT).ok()?;
    let (mut packs, mut known) = (Vec::new(), HashSet::new());
    for _ in 0..input.varint().filter(|count| *count <= PACKS_LIMIT)? {
        let digest = Digest::from_bytes(input.bytes()?.try_into().ok()?);
        let (size, plain) = (input.varint()?, input.varint()?);
        let fits = known.insert(digest) && size.min(plain) > 0 && size.max(plain) <= PACK_LIMIT;
        packs.push(fits.then_some(Pack { digest, size, plain })?);
    }
    let mut contents = Contents::default();
    for _ in 0..input.varint()? {
        let digest = FileDigest::from_bytes(input.bytes()?.try_into().ok()?);
        let pack: u32 = input.varint()?.try_into().ok()?;
        let (offset, len) = (input.varint()?, input.varint()?);
        let end = offset.checked_add(len).filter(|_| len > 0)?;
        packs.get(pack as usize).filter(|pack| end <= pack.plain)?;
        contents.add(Chunk { digest, pack, offset, len });
    }
    let mut all = 0u64;
    for _ in 0..input.varint()? {
        let content = FileDigest::from_bytes(input.bytes()?.try_into().ok()?);
        let (mut numbers, mut size) = (Vec::new(), 0u64);
        for _ in 0..input.varint()? {
            let number: u32 = input.varint()?.try_into().ok()?;
            // So its numbers take no more memory than what they stand for has.
            (size >= SHORTEST * numbers.len() as u64).then_some(())?;
            size = size.checked_add(contents.chunks().get(number as usize)?.len)?;
            numbers.push(number);
        }
        all = all.checked_add(contents.join_numbers(content, numbers)?).filter(|all| *all <= FILES_LIMIT)?;
    }
    input.0.is_empty().then_some(MountList { top, entries, contents, packs })
}
