//! How a server may pack a file on its way (RFC 9110, section 8.4). What arrives is the file as it was.

use std::io::{self, Write};

use cache::store::BlobWriter;
use flate2::write::MultiGzDecoder;

/// What is asked for. Servers may name a file's state differently by coding, so it is the same in every request.
pub(super) const ACCEPTED: &str = "gzip";

/// How the bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Not at all, or in a way that was not asked for, which is then left as it is.
    Identity,
    Gzip,
}

impl Coding {
    /// By the header `Content-Encoding`.
    pub(super) fn of(header: Option<&str>) -> Self {
        match header {
            Some(coding) if coding.trim().eq_ignore_ascii_case(ACCEPTED) => Self::Gzip,
            _ => Self::Identity,
        }
    }

    pub(super) fn decoder(self, to: BlobWriter) -> Decoder {
        match self {
            Self::Identity => Decoder::Identity(Box::new(to)),
            Self::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(to))),
        }
    }
}

/// Unpacks while writing.
pub(super) enum Decoder {
    Identity(Box<BlobWriter>),
    Gzip(Box<MultiGzDecoder<BlobWriter>>),
}

impl Decoder {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(to) => to.write_all(bytes),
            Self::Gzip(to) => to.write_all(bytes),
        }
    }

    /// The blob with all that came.
    ///
    /// # Errors
    /// The bytes end too early.
    pub(super) fn finish(self) -> io::Result<BlobWriter> {
        match self {
            Self::Identity(to) => Ok(*to),
            Self::Gzip(to) => to.finish(),
        }
    }
}
