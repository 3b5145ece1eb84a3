//! Layer compression whose output depends on the input and the level only, never on threads or time.
//!
//! The input is cut into blocks, each block compressed on its own, and the results joined: gzip allows
//! any number of members (RFC 1952, 2.2) and zstd any number of frames (RFC 8878, 3.1). So blocks can be
//! compressed in parallel and every number of threads gives the same bytes.

mod block;
mod density;
mod pool;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::Receiver;

use block::BlockCodec;
use pool::{Pool, Ticket};

use super::media_type;

/// Bytes of input per gzip member or zstd frame. Changing it changes the digest of every layer made.
pub const BLOCK_SIZE: usize = 512 << 10;

/// The gzip level where none is asked for.
///
/// On 60 MiB of programs and scripts libdeflate 1, 2, 3, 4, 6 gave ratios of .295, .283, .279, .276, .266 at
/// 177, 138, 106, 112, 66 MB/s; zlib's level 6, which BuildKit's archives match, gave .269. Layers may be
/// 5 % larger than that, which level 2 just misses.
pub const DEFAULT_GZIP_LEVEL: u8 = 3;

/// The zstd level where none is asked for, zstd's own default.
pub const DEFAULT_ZSTD_LEVEL: u8 = 3;

/// How a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// A plain tar.
    Uncompressed,
    /// Gzip members of [`BLOCK_SIZE`].
    Gzip {
        /// 0 (store) to 12 (slowest), libdeflate's scale.
        level: u8,
    },
    /// Zstd frames of [`BLOCK_SIZE`].
    Zstd {
        /// 1 to 22, zstd's scale.
        level: u8,
    },
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip { level: DEFAULT_GZIP_LEVEL }
    }
}

impl Compression {
    /// The media type of a layer stored this way. Docker's own types are used where `oci_types` is false.
    pub fn media_type(self, oci_types: bool) -> &'static str {
        match (self, oci_types) {
            (Self::Uncompressed, true) => media_type::OCI_LAYER,
            (Self::Gzip { .. }, true) => media_type::OCI_LAYER_GZIP,
            (Self::Zstd { .. }, true) => media_type::OCI_LAYER_ZSTD,
            (Self::Uncompressed, false) => media_type::DOCKER_LAYER,
            (Self::Gzip { .. }, false) => media_type::DOCKER_LAYER_GZIP,
            (Self::Zstd { .. }, false) => media_type::DOCKER_LAYER_ZSTD,
        }
    }
}

/// Compresses what is written to it into `W`.
///
/// Memory is bounded by about four blocks per thread. [`Self::finish`] must be called: what is dropped
/// without it is cut short.
#[derive(Debug)]
pub struct Compressor<W: Write> {
    inner: W,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Plain,
    Inline {
        codec: BlockCodec,
        block: Vec<u8>,
        output: Vec<u8>,
        wrote: bool,
    },
    Parallel {
        pool: Pool,
        block: Vec<u8>,
        pending: VecDeque<Receiver<io::Result<Ticket>>>,
        spare: Vec<Ticket>,
        wrote: bool,
    },
}

impl<W: Write> Compressor<W> {
    /// Compresses with up to `threads` threads; with 0 or 1 on the caller's own.
    ///
    /// # Errors
    /// A level out of range, or threads that cannot be started.
    pub fn new(inner: W, compression: Compression, threads: usize) -> io::Result<Self> {
        if compression == Compression::Uncompressed {
            return Ok(Self { inner, stage: Stage::Plain });
        }
        let block = Vec::with_capacity(BLOCK_SIZE);
        let stage = if threads < 2 {
            Stage::Inline { codec: BlockCodec::new(compression)?, block, output: Vec::new(), wrote: false }
        } else {
            let pool = Pool::new(compression, threads)?;
            Stage::Parallel { pool, block, pending: VecDeque::new(), spare: Vec::new(), wrote: false }
        };
        Ok(Self { inner, stage })
    }

    /// Writes what is left and returns the writer below.
    ///
    /// # Errors
    /// Whatever writing to it gave.
    pub fn finish(mut self) -> io::Result<W> {
        let (block, wrote) = match &self.stage {
            Stage::Plain => return Ok(self.inner),
            Stage::Inline { block, wrote, .. } | Stage::Parallel { block, wrote, .. } => (block, *wrote),
        };
        // An empty input still needs one member, or it would not be gzip at all.
        if !block.is_empty() || !wrote {
            self.end_block()?;
        }
        while self.collect_one()? {}
        Ok(self.inner)
    }

    /// Hands over the block that is full, or last.
    fn end_block(&mut self) -> io::Result<()> {
        match &mut self.stage {
            Stage::Plain => Ok(()),
            Stage::Inline { codec, block, output, wrote } => {
                codec.compress(block, output)?;
                block.clear();
                *wrote = true;
                self.inner.write_all(output)
            }
            Stage::Parallel { pool, block, pending, spare, wrote } => {
                let mut ticket = spare.pop().unwrap_or_default();
                std::mem::swap(&mut ticket.input, block);
                block.clear();
                block.reserve_exact(BLOCK_SIZE);
                pending.push_back(pool.submit(ticket));
                *wrote = true;
                let full = pending.len() >= pool.threads() * 2;
                if full { self.collect_one().map(drop) } else { Ok(()) }
            }
        }
    }

    /// Writes the oldest block that is being compressed; false when there is none.
    fn collect_one(&mut self) -> io::Result<bool> {
        let Stage::Parallel { pending, spare, .. } = &mut self.stage else { return Ok(false) };
        let Some(receiver) = pending.pop_front() else { return Ok(false) };
        let ticket = receiver.recv().map_err(|_| io::Error::other("a compression thread died"))??;
        self.inner.write_all(&ticket.output)?;
        spare.push(ticket);
        Ok(true)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = match &mut self.stage {
            Stage::Plain => return self.inner.write(bytes),
            Stage::Inline { block, .. } | Stage::Parallel { block, .. } => block,
        };
        let taken = bytes.len().min(BLOCK_SIZE - block.len());
        block.extend_from_slice(&bytes[..taken]);
        if block.len() == BLOCK_SIZE {
            self.end_block()?;
        }
        Ok(taken)
    }

    /// Flushes the writer below; a block that is not full stays, or the output would depend on flushes.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Decompressor;
    use std::io::Read;

    /// Text-like bytes that compress somewhat, the same in every run.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..length).map(|i| if i % 3 == 0 { (next() % 64) as u8 + 32 } else { b'e' }).collect()
    }

    fn compress(data: &[u8], compression: Compression, threads: usize, chunk: usize) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression, threads).unwrap();
        for piece in data.chunks(chunk.max(1)) {
            compressor.write_all(piece).unwrap();
        }
        compressor.finish().unwrap()
    }

    #[test]
    fn output_is_the_same_for_any_number_of_threads() {
        let all = [
            Compression::Uncompressed,
            Compression::default(),
            Compression::Gzip { level: 1 },
            Compression::Zstd { level: DEFAULT_ZSTD_LEVEL },
        ];
        for compression in all {
            for length in [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 5 * BLOCK_SIZE + 7] {
                let data = sample(length);
                let once = compress(&data, compression, 1, 1 << 16);
                for (threads, chunk) in [(0, 4096), (2, 1 << 20), (3, 77_777), (8, usize::MAX)] {
                    let again = compress(&data, compression, threads, chunk);
                    assert!(again == once, "{compression:?} {length} bytes on {threads} threads");
                }
                let mut plain = Vec::new();
                Decompressor::new(once.as_slice()).unwrap().read_to_end(&mut plain).unwrap();
                assert!(plain == data, "{compression:?} {length} bytes round trip");
            }
        }
    }

    #[test]
    fn a_stock_gzip_reads_it() {
        let data = sample(2 * BLOCK_SIZE + 5);
        let packed = compress(&data, Compression::default(), 2, 1 << 16);
        assert!(packed.len() < data.len());
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut plain).unwrap();
        assert!(plain == data);
    }

    #[test]
    fn levels_out_of_range_are_refused() {
        for compression in [Compression::Gzip { level: 13 }, Compression::Zstd { level: 23 }] {
            for threads in [1, 2] {
                assert!(Compressor::new(Vec::new(), compression, threads).is_err(), "{compression:?}");
            }
        }
    }

    #[test]
    fn a_writer_that_fails_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for threads in [1, 2] {
            let mut compressor = Compressor::new(Full, Compression::default(), threads).unwrap();
            let written = compressor.write_all(&sample(16 * BLOCK_SIZE));
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
