//! One block in, one gzip member or zstd frame out.

use std::fmt;
use std::io;

use libdeflater::CompressionLvl;

use super::density::{self, Density};
use super::{Compression, invalid};

/// A compressor of whole blocks, reused from one to the next.
pub(super) enum BlockCodec {
    Gzip(Box<GzipCodec>),
    /// One gzip member for each block.
    Member(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl fmt::Debug for BlockCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Member(_) => "Member",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl BlockCodec {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        match compression {
            Compression::Uncompressed => Err(invalid("no block codec for uncompressed layers".to_owned())),
            Compression::Gzip { level } => Ok(Self::Gzip(Box::new(GzipCodec {
                deflate: libdeflater::Compressor::new(gzip_level(level)?),
                store: libdeflater::Compressor::new(CompressionLvl::fastest()),
                zeros: (0, Vec::new()),
            }))),
            Compression::Estargz { level } => {
                Ok(Self::Member(libdeflater::Compressor::new(gzip_level(level)?)))
            }
            Compression::Zstd { level } => {
                if !zstd::compression_level_range().contains(&level.into()) {
                    return Err(invalid(format!("zstd level {level} is not between 1 and 22")));
                }
                let mut compressor = zstd::bulk::Compressor::new(level.into())?;
                compressor.include_checksum(true)?;
                Ok(Self::Zstd(compressor))
            }
        }
    }

    /// Replaces `output` with the compressed `block`.
    pub(super) fn compress(&mut self, block: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gzip(codec) => codec.compress(block, output)?,
            Self::Member(compressor) => {
                output.clear();
                append_member(compressor, block, output)?;
            }
            Self::Zstd(compressor) => {
                output.clear();
                output.reserve(zstd::zstd_safe::compress_bound(block.len()));
                compressor.compress_to_buffer(block, output)?;
            }
        }
        Ok(())
    }
}

/// Deflates what can be deflated and stores the rest, each run of it as a gzip member.
pub(super) struct GzipCodec {
    deflate: libdeflater::Compressor,
    /// Level 0: stored blocks.
    store: libdeflater::Compressor,
    /// How long the last run of zeros was, and what became of it.
    zeros: (usize, Vec<u8>),
}

impl GzipCodec {
    fn compress(&mut self, block: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        output.clear();
        for (run, density) in density::runs(block) {
            let zeros = density == Density::Zeros;
            if zeros && self.zeros.0 == run.len() {
                output.extend_from_slice(&self.zeros.1);
                continue;
            }
            let compressor = if density == Density::Dense { &mut self.store } else { &mut self.deflate };
            let start = output.len();
            append_member(compressor, run, output)?;
            if zeros {
                self.zeros = (run.len(), output[start..].to_vec());
            }
        }
        Ok(())
    }
}

fn gzip_level(level: u8) -> io::Result<CompressionLvl> {
    CompressionLvl::new(level.into())
        .map_err(|_| invalid(format!("gzip level {level} is not between 0 and 12")))
}

/// Adds a gzip member with what `plain` becomes.
fn append_member(
    compressor: &mut libdeflater::Compressor,
    plain: &[u8],
    output: &mut Vec<u8>,
) -> io::Result<()> {
    let start = output.len();
    output.resize(start + compressor.gzip_compress_bound(plain.len()), 0);
    let length = compressor.gzip_compress(plain, &mut output[start..]).map_err(io::Error::other)?;
    output.truncate(start + length);
    Ok(())
}
