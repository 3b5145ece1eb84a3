//! Layers read as plain tars, whatever they are compressed with.

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// Bytes of compressed input read at a time.
const BUFFER: usize = 256 << 10;
/// The largest window that a zstd frame may ask for, as a power of two: 128 MiB, zstd's own limit for streams.
/// A larger one would let a small blob claim gigabytes of memory.
const ZSTD_WINDOW_LOG: u32 = 27;

const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What the first bytes of a blob make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
}

/// The name of the compression that a blob starts with: `gzip`, `zstd` or `uncompressed`.
pub fn sniff(head: &[u8]) -> &'static str {
    match format(head) {
        Format::Plain => "uncompressed",
        Format::Gzip => "gzip",
        Format::Zstd => "zstd",
    }
}

fn format(head: &[u8]) -> Format {
    let skippable = head.len() >= 4 && (0x50..=0x5f).contains(&head[0]) && head[1..4] == [0x2a, 0x4d, 0x18];
    if head.starts_with(&GZIP_MAGIC) {
        Format::Gzip
    } else if head.starts_with(&ZSTD_MAGIC) || skippable {
        Format::Zstd
    } else {
        Format::Plain
    }
}

/// A blob's first bytes, then the rest of it.
type Source<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

enum Inner<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Source<R>>>),
}

/// Reads gzip (any number of members), zstd (any number of frames) or plain bytes, told apart by their start.
///
/// Bytes after the last member or frame that start no other one are an error.
pub struct Decompressor<R: Read> {
    inner: Inner<R>,
}

impl<R: Read> fmt::Debug for Decompressor<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.inner {
            Inner::Plain(_) => Format::Plain,
            Inner::Gzip(_) => Format::Gzip,
            Inner::Zstd(_) => Format::Zstd,
        };
        f.debug_struct("Decompressor").field("format", &format).finish()
    }
}

impl<R: Read> Decompressor<R> {
    /// Reads the first bytes and decides.
    ///
    /// # Errors
    /// Whatever reading them gave.
    pub fn new(mut reader: R) -> io::Result<Self> {
        let mut head = Vec::with_capacity(ZSTD_MAGIC.len());
        reader.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut head)?;
        let format = format(&head);
        let source = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(reader));
        let inner = match format {
            Format::Plain => Inner::Plain(source),
            Format::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(source))),
            Format::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Inner::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { inner })
    }

    /// Reads the compressed input to its end, so that a digest taken below sees every byte.
    ///
    /// A tar reader stops at the end mark; what follows it belongs to the blob all the same.
    ///
    /// # Errors
    /// Whatever reading gave.
    pub fn drain(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let source = match &mut self.inner {
            Inner::Plain(source) => source,
            Inner::Gzip(decoder) => decoder.get_mut(),
            Inner::Zstd(decoder) => decoder.get_mut(),
        };
        while !source.fill_buf()?.is_empty() {
            let length = source.buffer().len();
            source.consume(length);
        }
        Ok(())
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(source) => source.read(buffer),
            Inner::Gzip(decoder) => decoder.read(buffer),
            Inner::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn plain(data: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decompressor::new(data)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn formats_are_told_by_their_start() {
        let zstd = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
        let cases = [
            (b"".to_vec(), b"".to_vec()),
            (b"ab".to_vec(), b"ab".to_vec()),
            (b"plain tar".to_vec(), b"plain tar".to_vec()),
            (gzip(b"one"), b"one".to_vec()),
            ([gzip(b"one"), gzip(b""), gzip(b"two")].concat(), b"onetwo".to_vec()),
            (zstd(b"one"), b"one".to_vec()),
            ([zstd(b"one"), zstd(b"two")].concat(), b"onetwo".to_vec()),
        ];
        for (packed, expected) in cases {
            assert_eq!(plain(&packed).unwrap(), expected, "{packed:02x?}");
        }
        assert_eq!([sniff(&gzip(b"x")), sniff(&zstd(b"x")), sniff(b"x")], ["gzip", "zstd", "uncompressed"]);
    }

    #[test]
    fn damage_is_an_error() {
        let packed = gzip(&[7; 10_000]);
        assert!(plain(&packed[..packed.len() - 5]).is_err(), "cut short");
        let mut flipped = packed.clone();
        let last = flipped.len() - 6;
        flipped[last] ^= 1;
        assert!(plain(&flipped).is_err(), "bad checksum");
        let packed = zstd::encode_all(&[7; 10_000][..], 1).unwrap();
        assert!(plain(&packed[..packed.len() - 2]).is_err(), "zstd cut short");
    }

    #[test]
    fn draining_reads_every_byte() {
        for data in [gzip(b"x"), b"plain".to_vec(), zstd::encode_all(&b"y"[..], 1).unwrap()] {
            let mut cursor = Cursor::new(data);
            Decompressor::new(&mut cursor).unwrap().drain().unwrap();
            assert_eq!(cursor.position(), cursor.get_ref().len() as u64);
        }
    }
}
