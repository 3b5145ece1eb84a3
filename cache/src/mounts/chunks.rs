//! Where the bytes of files are.

use std::collections::HashMap;

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
    files: HashMap<FileDigest, Vec<u32>>,
}

impl Contents {
    /// Adds a chunk, unless there is one of these bytes.
    pub(super) fn add(&mut self, chunk: Chunk) {
        let next = self.chunks.len() as u32;
        if *self.by_digest.entry(chunk.digest).or_insert(next) == next {
            self.chunks.push(chunk);
        }
    }

    /// Says what chunks a content has, all of them known.
    pub(super) fn join(&mut self, content: FileDigest, chunks: &[FileDigest]) {
        let numbers = chunks.iter().filter_map(|digest| self.by_digest.get(digest).copied()).collect();
        self.files.insert(content, numbers);
    }

    /// The chunk of these bytes.
    pub(super) fn chunk(&self, digest: &FileDigest) -> Option<&Chunk> {
        self.chunks.get(*self.by_digest.get(digest)? as usize)
    }

    /// The chunks of a content in order, if they are known.
    pub fn of(&self, content: &FileDigest) -> Option<Vec<Chunk>> {
        match self.files.get(content) {
            Some(numbers) => Some(numbers.iter().map(|number| self.chunks[*number as usize]).collect()),
            None => self.chunk(content).map(|chunk| vec![*chunk]),
        }
    }

    /// All chunks, in the order in which they were added.
    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The contents that have several chunks, and the numbers of those.
    pub(super) fn files(&self) -> impl Iterator<Item = (&FileDigest, &[u32])> {
        self.files.iter().map(|(content, numbers)| (content, numbers.as_slice()))
    }

    /// As [`Self::join`], by the numbers of the chunks.
    pub(super) fn join_numbers(&mut self, content: FileDigest, numbers: Vec<u32>) -> Option<()> {
        numbers.iter().all(|number| (*number as usize) < self.chunks.len()).then_some(())?;
        self.files.insert(content, numbers);
        Some(())
    }
}
