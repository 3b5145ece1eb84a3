//! Writing packs: what is in none of those that are there.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};

use fastcdc::v2020::StreamCDC;
use solver::Digest;

use super::chunks::{Chunk, Contents};
use super::error::MountError;
use super::list::{MountList, Pack, nodes};
use super::scan::Scanned;
use crate::layer::{Change, Entries};
use crate::tree::{FileDigest, Kind, TreePath};

/// The media type of a pack.
pub const PACK_TYPE: &str = "application/vnd.rbuild.mount-pack.v1+zstd";
/// How large a pack may be in bytes, before and after compression.
pub const PACK_LIMIT: u64 = 64 << 20;
/// How large packs are made, in bytes before compression.
const PACK_TARGET: usize = 16 << 20;
/// Larger files are cut, in bytes.
const WHOLE: u64 = 256 << 10;
/// The least, usual and greatest length of the pieces, in bytes.
pub(super) const CUT: (usize, usize, usize) = (64 << 10, 256 << 10, 1 << 20);
/// How hard packs are compressed, on zstd's scale: most of what package managers keep is compressed already.
const LEVEL: i32 = 3;
/// A pack is small below this, in bytes before compression.
const SMALL: u64 = 4 << 20;
/// So many small packs become one.
const MANY: usize = 8;

/// A pack that has to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPack {
    /// What it is called.
    pub pack: Pack,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A list whose bytes are all in packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The list.
    pub list: MountList,
    /// How many entries were left out because nobody has their bytes any more.
    pub lost: usize,
}

/// Packs the bytes of `list` that are in none of its packs, from the files of `local`, and hands the new packs to `emit`. Packs of which
/// little is used, and many small ones, are replaced, as far as `local` has what is in them.
///
/// Blocking.
///
/// # Errors
/// Files that change meanwhile, and what `emit` gives.
pub fn pack(
    list: MountList,
    local: &Scanned,
    emit: &mut dyn FnMut(NewPack) -> Result<(), MountError>,
) -> Result<Packed, MountError> {
    let paths: HashMap<FileDigest, &TreePath> =
        contents(&local.entries).map(|(path, content, _)| (content, path)).collect();
    let kept = worthwhile(&list, &paths, &pieces(&list, local, &paths)?);
    let mut packer = Packer {
        kept,
        old: &list,
        list: Contents::default(),
        packs: Vec::new(),
        numbers: HashMap::new(),
        open: None,
        emit,
    };
    let mut lost: HashSet<FileDigest> = HashSet::new();
    let mut seen = HashSet::new();
    for (_, content, _) in contents(&list.entries) {
        if !seen.insert(content) || packer.take_kept(&content) {
            continue;
        }
        match paths.get(&content) {
            Some(path) => packer.read(local, path, content)?,
            None => drop(lost.insert(content)),
        }
    }
    packer.flush()?;
    let (contents, packs) = (packer.list, packer.packs);
    let is_lost = |change: &Change| match change {
        Change::Put { node, .. } => {
            matches!(&node.kind, Kind::File { content, .. } if lost.contains(content))
        }
        Change::Whiteout => false,
    };
    let all = list.entries.len();
    let entries: Vec<_> = list.entries.iter().filter(|entry| !is_lost(&entry.change)).cloned().collect();
    let lost = all - entries.len();
    Ok(Packed { list: MountList { top: list.top, entries: Entries::new(entries), contents, packs }, lost })
}

/// The bytes of a pack, if it is the one that is meant.
///
/// # Errors
/// [`MountError::Damaged`] for anything else.
pub fn unpack(bytes: &[u8], pack: &Pack) -> Result<Vec<u8>, MountError> {
    if Digest::of(bytes) != pack.digest {
        return Err(MountError::Damaged("the digest of a pack is another one"));
    }
    let damaged = MountError::Damaged("a pack cannot be decompressed");
    let Ok(decoder) = zstd::Decoder::with_buffer(bytes) else { return Err(damaged) };
    let mut plain = Vec::with_capacity(pack.plain.min(PACK_LIMIT) as usize);
    match decoder.take(PACK_LIMIT + 1).read_to_end(&mut plain) {
        Ok(_) if plain.len() as u64 == pack.plain => Ok(plain),
        _ => Err(damaged),
    }
}

/// The files that have bytes, with their contents and sizes.
fn contents(entries: &Entries) -> impl Iterator<Item = (&TreePath, FileDigest, u64)> {
    nodes(entries).filter_map(|(path, node)| match &node.kind {
        Kind::File { size, content } if *size > 0 => Some((path, *content, *size)),
        _ => None,
    })
}

/// The chunks that are known of large files that are not: of a file that was changed most are.
fn pieces(
    list: &MountList,
    local: &Scanned,
    here: &HashMap<FileDigest, &TreePath>,
) -> Result<HashMap<FileDigest, Vec<Chunk>>, MountError> {
    let mut pieces = HashMap::new();
    for (_, content, size) in contents(&list.entries) {
        let Some(path) = here.get(&content).filter(|_| size > WHOLE && !list.packs.is_empty()) else {
            continue;
        };
        if pieces.contains_key(&content) || list.contents.of(&content).is_some() {
            continue;
        }
        let io = MountError::io("read", path);
        let mut known = Vec::new();
        for piece in cut(local.open(path).map_err(&io)?) {
            let piece = piece.map_err(|e| io(io::Error::other(e)))?;
            known.extend(list.contents.chunk(&FileDigest::of(&piece.data)));
        }
        pieces.insert(content, known);
    }
    Ok(pieces)
}

/// Cuts a file where its content says.
fn cut(file: File) -> StreamCDC<File> {
    StreamCDC::new(file, CUT.0, CUT.1, CUT.2)
}

/// The packs that go on being used, by number.
fn worthwhile(
    list: &MountList,
    here: &HashMap<FileDigest, &TreePath>,
    pieces: &HashMap<FileDigest, Vec<Chunk>>,
) -> HashSet<u32> {
    let mut live = vec![0u64; list.packs.len()];
    let mut movable = vec![true; list.packs.len()];
    let mut seen = HashSet::new();
    for (_, content, _) in contents(&list.entries) {
        let known = list.contents.of(&content).map(|chunks| chunks.copied().collect());
        let known: Vec<Chunk> = known.or_else(|| pieces.get(&content).cloned()).unwrap_or_default();
        for chunk in known {
            let at = chunk.pack as usize;
            movable[at] &= here.contains_key(&content);
            if seen.insert(chunk.digest) {
                live[at] += chunk.len;
            }
        }
    }
    let usable = |at: &usize| live[*at] > 0;
    let used = |at: &usize| !movable[*at] || live[*at] * 2 >= list.packs[*at].plain;
    let mut kept: Vec<usize> = (0..list.packs.len()).filter(usable).filter(used).collect();
    let small = |at: &usize| movable[*at] && list.packs[*at].plain < SMALL;
    if kept.iter().filter(|at| small(at)).count() >= MANY {
        kept.retain(|at| !small(at));
    }
    kept.into_iter().map(|at| at as u32).collect()
}

/// Fills packs.
struct Packer<'a> {
    kept: HashSet<u32>,
    old: &'a MountList,
    list: Contents,
    packs: Vec<Pack>,
    /// The new numbers of packs that are kept.
    numbers: HashMap<u32, u32>,
    /// The number of the pack that is being filled, and what is in it.
    open: Option<(usize, Vec<u8>)>,
    emit: &'a mut dyn FnMut(NewPack) -> Result<(), MountError>,
}

impl Packer<'_> {
    /// Takes a content from packs that are kept; whether it is there.
    fn take_kept(&mut self, content: &FileDigest) -> bool {
        let Some(chunks) = self.old.contents.of(content) else { return false };
        let chunks: Vec<Chunk> = chunks.copied().collect();
        if !chunks.iter().all(|chunk| self.kept.contains(&chunk.pack)) {
            return false;
        }
        let digests: Vec<FileDigest> = chunks.iter().map(|chunk| chunk.digest).collect();
        chunks.into_iter().for_each(|chunk| self.take_chunk(chunk));
        self.say(*content, &digests);
        true
    }

    fn take_chunk(&mut self, chunk: Chunk) {
        if self.list.chunk(&chunk.digest).is_some() {
            return;
        }
        let pack = *self.numbers.entry(chunk.pack).or_insert_with(|| {
            self.packs.push(self.old.packs[chunk.pack as usize].clone());
            self.packs.len() as u32 - 1
        });
        self.list.add(Chunk { pack, ..chunk });
    }

    fn say(&mut self, content: FileDigest, chunks: &[FileDigest]) {
        if *chunks != [content] {
            self.list.join(content, chunks.iter().copied());
        }
    }

    /// Takes a content from a file here.
    fn read(&mut self, local: &Scanned, path: &TreePath, content: FileDigest) -> Result<(), MountError> {
        let io = MountError::io("read", path);
        let mut file = local.open(path).map_err(&io)?;
        let size = file.metadata().map_err(&io)?.len();
        let mut digests = Vec::new();
        let found = if size <= WHOLE {
            let mut data = Vec::with_capacity(size as usize);
            Read::by_ref(&mut file).take(WHOLE + 1).read_to_end(&mut data).map_err(&io)?;
            let digest = FileDigest::of(&data);
            if digest == content {
                self.put(digest, &data)?;
            }
            digests.push(digest);
            digest
        } else {
            let mut whole = blake3::Hasher::new();
            for piece in cut(file) {
                let piece = piece.map_err(|e| io(io::Error::other(e)))?;
                whole.update(&piece.data);
                let digest = FileDigest::of(&piece.data);
                self.put(digest, &piece.data)?;
                digests.push(digest);
            }
            FileDigest::from_bytes(whole.finalize().into())
        };
        if found != content {
            return Err(MountError::Changed(path.clone()));
        }
        self.say(content, &digests);
        Ok(())
    }

    fn put(&mut self, digest: FileDigest, data: &[u8]) -> Result<(), MountError> {
        if self.list.chunk(&digest).is_some() {
            return Ok(());
        }
        if let Some(chunk) = self.old.contents.chunk(&digest).filter(|chunk| self.kept.contains(&chunk.pack))
        {
            self.take_chunk(*chunk);
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|(_, open)| open.len() + data.len() > PACK_TARGET) {
            self.flush()?;
        }
        let (number, open) = self.open.get_or_insert_with(|| {
            // What it is called is known when it is full.
            self.packs.push(Pack { digest: Digest::of(b""), size: 0, plain: 0 });
            (self.packs.len() - 1, Vec::new())
        });
        let (pack, offset, len) = (*number as u32, open.len() as u64, data.len() as u64);
        open.extend_from_slice(data);
        self.list.add(Chunk { digest, pack, offset, len });
        Ok(())
    }

    /// Ends the pack that is being filled.
    fn flush(&mut self) -> Result<(), MountError> {
        let Some((number, plain)) = self.open.take() else { return Ok(()) };
        let bytes = zstd::bulk::compress(&plain, LEVEL).map_err(MountError::Compress)?;
        let pack = Pack { digest: Digest::of(&bytes), size: bytes.len() as u64, plain: plain.len() as u64 };
        self.packs[number] = pack.clone();
        (self.emit)(NewPack { pack, bytes })
    }
}
