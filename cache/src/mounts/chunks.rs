//! Where the bytes of files are.

use std::collections::{HashMap, HashSet};

use crate::tree::FileDigest;

/// A piece of a file, or a whole one, in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Digest of its bytes.
    pub digest: FileDigest,
    /// The number of its pack in the list.
    pub pack: u32,
    /// Where it begins in the pack, in bytes before compression.
    pub offset: u64,
    /// Its length in bytes, at least 1.
    pub len: u64,
}

/// The chunks of files by the digests of their contents. A chunk by itself is a content, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    chunks: Vec<Chunk>,
    by_digest: HashMap<FileDigest, u32>,
    /// The contents that have several chunks.
    files: HashMap<FileDigest, Pieces>,
}

/// The chunks of a content by number, and how long they are together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pieces {
    numbers: Vec<u32>,
    size: u64,
}

impl Contents {
    /// Adds a chunk, unless there is one of these bytes.
    pub(super) fn add(&mut self, chunk: Chunk) {
        let next = self.chunks.len() as u32;
        if *self.by_digest.entry(chunk.digest).or_insert(next) == next {
            self.chunks.push(chunk);
        }
    }

    /// Says what chunks a content has; nothing where one of them is not known.
    pub(super) fn join(&mut self, content: FileDigest, chunks: impl IntoIterator<Item = FileDigest>) {
        let known = chunks.into_iter().map(|digest| self.by_digest.get(&digest).copied());
        if let Some(numbers) = known.collect::<Option<Vec<u32>>>() {
            self.join_numbers(content, numbers);
        }
    }

    /// As [`Self::join`], by the numbers of the chunks; the size of the content, if there are such chunks.
    pub(super) fn join_numbers(&mut self, content: FileDigest, numbers: Vec<u32>) -> Option<u64> {
        let len = |number: &u32| self.chunks.get(*number as usize).map(|chunk| chunk.len);
        let size = numbers.iter().try_fold(0u64, |sum, number| sum.checked_add(len(number)?))?;
        self.files.insert(content, Pieces { numbers, size });
        Some(size)
    }

    /// The chunk of these bytes.
    pub(super) fn chunk(&self, digest: &FileDigest) -> Option<&Chunk> {
        self.chunks.get(*self.by_digest.get(digest)? as usize)
    }

    /// The chunks of a content in order, if they are known.
    pub fn of(&self, content: &FileDigest) -> Option<impl Iterator<Item = &Chunk>> {
        let numbers = match self.files.get(content) {
            Some(pieces) => pieces.numbers.as_slice(),
            None => std::slice::from_ref(self.by_digest.get(content)?),
        };
        Some(numbers.iter().map(|number| &self.chunks[*number as usize]))
    }

    /// The size of a content in bytes, if its chunks are known.
    pub(super) fn size(&self, content: &FileDigest) -> Option<u64> {
        match self.files.get(content) {
            Some(pieces) => Some(pieces.size),
            None => self.chunk(content).map(|chunk| chunk.len),
        }
    }

    /// All chunks, in the order in which they were added.
    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The contents that have several chunks, and the numbers of those.
    pub(super) fn files(&self) -> impl Iterator<Item = (&FileDigest, &[u32])> {
        self.files.iter().map(|(content, pieces)| (content, pieces.numbers.as_slice()))
    }

    /// The same without the chunks of some packs.
    pub(super) fn without(&self, packs: &HashSet<u32>) -> Self {
        let mut rest = Self::default();
        self.chunks.iter().filter(|chunk| !packs.contains(&chunk.pack)).for_each(|chunk| rest.add(*chunk));
        for (content, numbers) in self.files() {
            rest.join(*content, numbers.iter().map(|number| self.chunks[*number as usize].digest));
        }
        rest
    }
}
