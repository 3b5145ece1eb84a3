//! Hashing on the way.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use solver::Digest;

/// Hashes and counts what is written through it.
#[derive(Debug)]
pub struct Hashing<W> {
    out: W,
    hasher: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    /// Passes on to `out`.
    pub fn new(out: W) -> Self {
        Self { out, hasher: Sha256::new(), size: 0 }
    }

    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The writer below, and digest and length in bytes of what went to it.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.out, Digest::from_bytes(self.hasher.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
