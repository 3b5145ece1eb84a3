//! A layer's tar stream on its way to a blob.

use std::collections::BTreeMap;
use std::io::{self, Write};

use cache::Hashing;
use cache::oci::{Compression, Compressor, EstargzWriter, TOC_DIGEST, UNCOMPRESSED_SIZE, media_type};
use cache::store::BlobRef;
use solver::Digest;

/// Compresses what is written to it into `W`.
#[derive(Debug)]
pub(super) enum Packer<W: Write + Send + 'static> {
    Blocks(Box<Hashing<Compressor<W>>>),
    Estargz(Box<EstargzWriter<W>>),
}

/// What is known of a layer that was packed.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    /// Digest of what the blob unpacks to.
    pub diff_id: Digest,
    /// The plain tar, where that is what the blob unpacks to: only then is it a form of the stored layer.
    pub plain: Option<BlobRef>,
    /// For the blob's descriptor.
    pub annotations: BTreeMap<String, String>,
}

impl<W: Write + Send + 'static> Packer<W> {
    pub(super) fn new(out: W, compression: Compression) -> io::Result<Self> {
        let threads = cache::cores();
        Ok(match compression {
            Compression::Estargz { level } => {
                Self::Estargz(Box::new(EstargzWriter::new(out, level, threads)?))
            }
            _ => Self::Blocks(Box::new(Hashing::new(Compressor::new(out, compression, threads)?))),
        })
    }

    /// Writes what is left; gives the writer below.
    pub(super) fn finish(self) -> io::Result<(W, Packed)> {
        match self {
            Self::Blocks(hashing) => {
                let (compressor, digest, size) = hashing.finish();
                let plain = BlobRef { media_type: media_type::OCI_LAYER.to_owned(), digest, size };
                let packed = Packed { diff_id: digest, plain: Some(plain), annotations: BTreeMap::new() };
                Ok((compressor.finish()?, packed))
            }
            Self::Estargz(writer) => {
                let (out, about) = writer.finish()?;
                let annotations = BTreeMap::from([
                    (TOC_DIGEST.to_owned(), about.toc.to_string()),
                    (UNCOMPRESSED_SIZE.to_owned(), about.uncompressed_size.to_string()),
                ]);
                Ok((out, Packed { diff_id: about.diff_id, plain: None, annotations }))
            }
        }
    }
}

impl<W: Write + Send + 'static> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Blocks(blocks) => blocks.write(bytes),
            Self::Estargz(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Blocks(blocks) => blocks.flush(),
            Self::Estargz(writer) => writer.flush(),
        }
    }
}
