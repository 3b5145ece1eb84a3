//! Layer compression whose output depends on the input and the level only, never on threads or time.
//!
//! The input is cut into blocks, each block compressed on its own, and the results joined: gzip allows
//! any number of members (RFC 1952, 2.2) and zstd any number of frames (RFC 8878, 3.1). So blocks can be
//! compressed in parallel and every number of threads gives the same bytes.

mod block;
mod density;
mod drain;
mod estargz;
mod pool;

use std::io::{self, Write};

use block::BlockCodec;
use drain::Drain;
pub use estargz::{Estargz, EstargzWriter, TOC_DIGEST, UNCOMPRESSED_SIZE};
use pool::Pool;

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
    /// Gzip members that begin with files, and an index: made by [`EstargzWriter`], not by [`Compressor`].
    Estargz {
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
    /// Whether a layer gets an index, which makes another layer of it than its tar is.
    pub fn is_indexed(self) -> bool {
        matches!(self, Self::Estargz { .. })
    }

    /// The media type of a layer stored this way. Docker's own types are used where `oci_types` is false.
    pub fn media_type(self, oci_types: bool) -> &'static str {
        match (self, oci_types) {
            (Self::Uncompressed, true) => media_type::OCI_LAYER,
            (Self::Gzip { .. } | Self::Estargz { .. }, true) => media_type::OCI_LAYER_GZIP,
            (Self::Zstd { .. }, true) => media_type::OCI_LAYER_ZSTD,
            (Self::Uncompressed, false) => media_type::DOCKER_LAYER,
            (Self::Gzip { .. } | Self::Estargz { .. }, false) => media_type::DOCKER_LAYER_GZIP,
            (Self::Zstd { .. }, false) => media_type::DOCKER_LAYER_ZSTD,
        }
    }
}

/// Compresses what is written to it into `W`.
///
/// With threads, reading, compressing and writing go on side by side, and memory is bounded by about four blocks per
/// thread. [`Self::finish`] must be called: what is dropped without it is cut short.
#[derive(Debug)]
pub struct Compressor<W: Write + Send + 'static> {
    block: Vec<u8>,
    wrote: bool,
    stage: Stage<W>,
}

#[derive(Debug)]
enum Stage<W> {
    Plain(W),
    Inline { inner: W, codec: BlockCodec, output: Vec<u8> },
    Parallel { pool: Pool, drain: Drain<W> },
}

impl<W: Write + Send + 'static> Compressor<W> {
    /// Compresses with up to `threads` threads; with 0 or 1 on the caller's own.
    ///
    /// # Errors
    /// eStargz, a level out of range, or threads that cannot be started.
    pub fn new(inner: W, compression: Compression, threads: usize) -> io::Result<Self> {
        if compression.is_indexed() {
            return Err(invalid("eStargz has a writer of its own".to_owned()));
        }
        let stage = if compression == Compression::Uncompressed {
            Stage::Plain(inner)
        } else if threads < 2 {
            Stage::Inline { inner, codec: BlockCodec::new(compression)?, output: Vec::new() }
        } else {
            let pool = Pool::new(compression, threads)?;
            Stage::Parallel { drain: Drain::new(inner, pool.threads() * 2)?, pool }
        };
        Ok(Self { block: Vec::new(), wrote: false, stage })
    }

    /// Writes what is left and returns the writer below.
    ///
    /// # Errors
    /// Whatever writing to it gave.
    pub fn finish(mut self) -> io::Result<W> {
        // An empty input still needs one member, or it would not be gzip at all.
        if !matches!(self.stage, Stage::Plain(_)) && (!self.block.is_empty() || !self.wrote) {
            self.end_block()?;
        }
        match self.stage {
            Stage::Plain(inner) | Stage::Inline { inner, .. } => Ok(inner),
            Stage::Parallel { mut drain, .. } => drain.finish(),
        }
    }

    /// Hands over the block that is full, or last.
    fn end_block(&mut self) -> io::Result<()> {
        self.wrote = true;
        match &mut self.stage {
            Stage::Plain(_) => Ok(()),
            Stage::Inline { inner, codec, output } => {
                codec.compress(&self.block, output)?;
                self.block.clear();
                inner.write_all(output)
            }
            Stage::Parallel { pool, drain } => {
                let mut ticket = drain.spare().unwrap_or_default();
                std::mem::swap(&mut ticket.input, &mut self.block);
                self.block.clear();
                drain.push(pool.submit(ticket))
            }
        }
    }
}

impl<W: Write + Send + 'static> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Stage::Plain(inner) = &mut self.stage {
            return inner.write(bytes);
        }
        self.block.reserve_exact(BLOCK_SIZE - self.block.len());
        let taken = bytes.len().min(BLOCK_SIZE - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_SIZE {
            self.end_block()?;
        }
        Ok(taken)
    }

    /// Flushes the writer below, unless a thread writes to it; a block that is not full stays, or the output would
    /// depend on flushes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stage {
            Stage::Plain(inner) | Stage::Inline { inner, .. } => inner.flush(),
            Stage::Parallel { .. } => Ok(()),
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
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
            for blocks in [1, 16] {
                let mut compressor = Compressor::new(Full, Compression::default(), threads).unwrap();
                let written = compressor.write_all(&sample(blocks * BLOCK_SIZE));
                let ended = written.and_then(|()| compressor.finish().map(drop));
                assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::StorageFull, "{blocks} on {threads}");
            }
        }
    }
}
