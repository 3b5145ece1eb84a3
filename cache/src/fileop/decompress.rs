//! Archives as ADD finds them: gzip, bzip2, xz, zstd or plain, told apart by their first bytes.

use std::io::{self, BufRead, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

/// Bytes of the archive read at a time.
const BUFFER: usize = 256 << 10;
/// The largest window that a zstd frame may ask for, as a power of two: 128 MiB. A larger one would let a small
/// archive claim gigabytes of memory.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    Plain,
}

impl Format {
    /// What a file is that begins like this: by the magic numbers of RFC 1952, bzip2, the xz format and RFC 8878 (with
    /// its skippable frames).
    pub(super) fn of(head: &[u8]) -> Self {
        let skippable = head.len() >= 8 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
        if head.starts_with(b"\x1f\x8b\x08") {
            Self::Gzip
        } else if head.starts_with(b"BZh") {
            Self::Bzip2
        } else if head.starts_with(b"\xfd7zXZ\0") {
            Self::Xz
        } else if head.starts_with(b"\x28\xb5\x2f\xfd") || skippable {
            Self::Zstd
        } else {
            Self::Plain
        }
    }
}

/// What an archive's bytes are, decompressed.
pub(super) fn decompress<'a>(archive: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut archive = BufReader::with_capacity(BUFFER, archive);
    Ok(match Format::of(archive.fill_buf()?) {
        Format::Gzip => Box::new(MultiGzDecoder::new(archive)),
        Format::Bzip2 => Box::new(MultiBzDecoder::new(archive)),
        Format::Xz => Box::new(XzReader::new(archive, true)),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(archive)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Format::Plain => Box::new(archive),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_each_compressor_wrote() {
        let text = b"decompress: the same bytes come out".repeat(50);
        let mut gz = flate2::read::GzEncoder::new(&text[..], flate2::Compression::fast());
        let mut bz = bzip2::read::BzEncoder::new(&text[..], bzip2::Compression::fast());
        let zst = zstd::encode_all(&text[..], 1).unwrap();
        let (mut gzip, mut bzip) = (Vec::new(), Vec::new());
        gz.read_to_end(&mut gzip).unwrap();
        bz.read_to_end(&mut bzip).unwrap();
        let twice = [gzip.clone(), gzip.clone()].concat();
        for (packed, want) in
            [(&text, &text), (&gzip, &text), (&bzip, &text), (&zst, &text), (&twice, &text.repeat(2))]
        {
            let mut out = Vec::new();
            decompress(&packed[..]).unwrap().read_to_end(&mut out).unwrap();
            assert!(out == **want);
        }
        for cut in [&gzip, &bzip, &zst] {
            let mut out = Vec::new();
            assert!(decompress(&cut[..cut.len() - 9]).unwrap().read_to_end(&mut out).is_err());
        }
    }

    #[test]
    fn reads_xz() {
        // `printf hello | xz`, by xz 5.4.
        let xz = hex::decode(
            "fd377a585a000004e6d6b4460200210116000000742fe5a301000468656c6c6f00000000\
             b137b9dbe5da1e9b00011d05b82d80af1fb6f37d010000000004595a",
        )
        .unwrap();
        let mut out = Vec::new();
        decompress(&xz[..]).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, b"hello");
    }
}
