//! eStargz: a layer that can be read file by file before all of it is there.
//!
//! Format (stargz-snapshotter, `docs/estargz.md`): a gzip of several members, of which each begins a piece of a file or
//! the headers before the first one; then, as a tar entry in a member of its own, an index of all entries; then a
//! footer that says where that is. Unpacked it is the whole tar with the index behind its end, so its diff ID is not
//! the tar's.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::Receiver;

use solver::Digest;

use self::entries::Entries;
use super::pool::{Pool, Ticket};
use super::{Compression, invalid};
use crate::hashing::Hashing;

mod entries;
mod toc;

/// The annotation of a layer's descriptor with the digest of its index.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// The annotation of a layer's descriptor with its size unpacked, in bytes.
pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// Bytes of a file in one member, at most.
const CHUNK: u64 = 4 << 20;

/// Headers that wait for a file are cut here.
const MOST_HEADERS: usize = 4 << 20;

/// What describes an eStargz layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estargz {
    /// SHA-256 of what it unpacks to, the index included.
    pub diff_id: Digest,
    /// Bytes that it unpacks to.
    pub uncompressed_size: u64,
    /// SHA-256 of the index.
    pub toc: Digest,
}

/// Makes an eStargz layer of the tar stream that is written to it; the same for every number of threads.
///
/// [`Self::finish`] must be called: what is dropped without it is cut short.
#[derive(Debug)]
pub struct EstargzWriter<W> {
    out: W,
    written: u64,
    plain: Hashing<io::Sink>,
    pool: Pool,
    waiting: VecDeque<Receiver<io::Result<Ticket>>>,
    spare: Vec<Ticket>,
    member: Vec<u8>,
    /// Where each member begins, in bytes.
    offsets: Vec<u64>,
    entries: Entries,
}

impl<W: Write> EstargzWriter<W> {
    /// Writes to `out`, compressing with so many threads, at least one. `level` is libdeflate's, 0 to 12.
    ///
    /// # Errors
    /// A level out of range, or threads that cannot be started.
    pub fn new(out: W, level: u8, threads: usize) -> io::Result<Self> {
        Ok(Self {
            out,
            written: 0,
            plain: Hashing::new(io::sink()),
            pool: Pool::new(Compression::Estargz { level }, threads.max(1))?,
            waiting: VecDeque::new(),
            spare: Vec::new(),
            member: Vec::new(),
            offsets: Vec::new(),
            entries: Entries::default(),
        })
    }

    /// Writes index and footer; gives the writer below and what describes the layer.
    ///
    /// # Errors
    /// A tar that is cut short, or whatever writing gave.
    pub fn finish(mut self) -> io::Result<(W, Estargz)> {
        if !self.entries.is_at_boundary() {
            return Err(invalid("the tar ends within an entry".to_owned()));
        }
        self.cut()?;
        while !self.waiting.is_empty() {
            self.collect()?;
        }
        let toc_offset = self.written;
        let toc = toc::encode(self.entries.list(), &self.offsets)?;
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(toc.len() as u64);
        tar.append_data(&mut header, toc::INDEX_NAME, toc.as_slice())?;
        self.member = tar.into_inner()?;
        self.plain.write_all(&self.member)?;
        self.cut()?;
        self.collect()?;
        self.out.write_all(&toc::footer(toc_offset))?;
        let (_, diff_id, uncompressed_size) = self.plain.finish();
        Ok((self.out, Estargz { diff_id, uncompressed_size, toc: Digest::of(&toc) }))
    }

    /// Ends the member, if anything is in it.
    fn cut(&mut self) -> io::Result<()> {
        if self.member.is_empty() {
            return Ok(());
        }
        let mut ticket = self.spare.pop().unwrap_or_default();
        std::mem::swap(&mut ticket.input, &mut self.member);
        self.member.clear();
        self.waiting.push_back(self.pool.submit(ticket));
        if self.waiting.len() > 2 * self.pool.threads() { self.collect() } else { Ok(()) }
    }

    /// Writes the member that was cut first.
    fn collect(&mut self) -> io::Result<()> {
        let Some(first) = self.waiting.pop_front() else { return Ok(()) };
        let ticket = first.recv().map_err(|_| io::Error::other("a compression thread died"))??;
        self.offsets.push(self.written);
        self.written += ticket.output.len() as u64;
        self.out.write_all(&ticket.output)?;
        self.spare.push(ticket);
        Ok(())
    }

    /// The number that the next member to be cut has.
    fn next_member(&self) -> usize {
        self.offsets.len() + self.waiting.len()
    }
}

impl<W: Write> Write for EstargzWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.entries.begins_chunk() || self.entries.is_at_boundary() && self.member.len() >= MOST_HEADERS {
            self.cut()?;
        }
        let member = self.next_member();
        let taken = self.entries.take(bytes, member)?;
        self.member.extend_from_slice(&bytes[..taken]);
        self.plain.write_all(&bytes[..taken])?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// A tar with an empty file, a small and a large one, links, a long name, attributes.
    fn sample() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |kind: tar::EntryType, name: &str, link: &str, data: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o640);
            header.set_mtime(1_000_000_000);
            header.set_uid(7);
            if link.is_empty() {
                tar.append_data(&mut header, name, data).unwrap();
            } else {
                tar.append_link(&mut header, name, link).unwrap();
            }
        };
        add(tar::EntryType::Directory, "d/", "", b"");
        add(tar::EntryType::Regular, "d/empty", "", b"");
        add(tar::EntryType::Regular, "d/small", "", b"small\n");
        let large: Vec<u8> = (0..CHUNK + 1000).map(|i| (i % 251) as u8).collect();
        add(tar::EntryType::Regular, "d/large", "", &large);
        add(tar::EntryType::Symlink, "d/link", "small", b"");
        add(tar::EntryType::Link, "d/hard", "d/small", b"");
        add(tar::EntryType::Regular, &format!("d/{}", "long/".repeat(60)), "", b"long");
        tar.append_pax_extensions([("SCHILY.xattr.user.a", b"b\nc".as_slice()), ("mtime", b"7.6")]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(4);
        tar.append_data(&mut header, "d/pax", &b"data"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    fn pack(tar: &[u8], threads: usize, piece: usize) -> (Vec<u8>, Estargz) {
        let mut writer = EstargzWriter::new(Vec::new(), 3, threads).unwrap();
        tar.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
        writer.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
        plain
    }

    /// Reads the index as a reader of the format finds it: from the footer.
    fn index(blob: &[u8], about: &Estargz) -> serde_json::Value {
        let footer = &blob[blob.len() - 51..];
        assert_eq!(&footer[..4], [0x1f, 0x8b, 8, 4]);
        assert_eq!((&footer[12..14], &footer[32..38]), (&b"SG"[..], &b"STARGZ"[..]));
        let offset = std::str::from_utf8(&footer[16..32]).unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        let tar = unpacked(&blob[offset..]);
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("stargz.index.json"));
        let mut json = Vec::new();
        entry.read_to_end(&mut json).unwrap();
        assert_eq!(Digest::of(&json), about.toc);
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn unpacks_to_the_tar_and_the_index() {
        let tar = sample();
        let (blob, about) = pack(&tar, 2, 70_000);
        let plain = unpacked(&blob);
        assert!(plain.starts_with(&tar));
        assert_eq!((Digest::of(&plain), plain.len() as u64), (about.diff_id, about.uncompressed_size));
        for (threads, piece) in [(1, 512), (3, usize::MAX), (2, 999)] {
            assert!(pack(&tar, threads, piece) == (blob.clone(), about.clone()), "{threads} {piece}");
        }
    }

    #[test]
    fn files_are_found_by_the_index() {
        let tar = sample();
        let (blob, about) = pack(&tar, 2, 70_000);
        let index = index(&blob, &about);
        let mut told = Vec::new();
        for entry in index["entries"].as_array().unwrap() {
            let number = |key: &str| entry[key].as_u64().unwrap_or(0);
            if let Some(digest) = entry["chunkDigest"].as_str() {
                let at = number("offset") as usize;
                let mut first = flate2::read::GzDecoder::new(&blob[at..]);
                let size = match number("chunkSize") {
                    0 if entry["type"] == "reg" => number("size"),
                    0 => 1000,
                    size => size,
                };
                let mut piece = vec![0; size as usize];
                first.read_exact(&mut piece).unwrap();
                assert_eq!(Digest::of(&piece).to_string(), digest);
            }
            let name = entry["name"].as_str().unwrap();
            let short = if name.len() > 60 { "d/long…" } else { name };
            told.push(format!(
                "{short} {} {} +{} {} {}",
                entry["type"].as_str().unwrap(),
                number("size"),
                number("chunkOffset"),
                entry["linkName"].as_str().unwrap_or("-"),
                entry["modtime"].as_str().unwrap_or("-"),
            ));
        }
        let time = "2001-09-09T01:46:40Z";
        assert_eq!(
            told,
            [
                format!("d/ dir 0 +0 - {time}"),
                format!("d/empty reg 0 +0 - {time}"),
                format!("d/small reg 6 +0 - {time}"),
                format!("d/large reg {} +0 - {time}", CHUNK + 1000),
                format!("d/large chunk 0 +{CHUNK} - -"),
                format!("d/link symlink 0 +0 small {time}"),
                format!("d/hard hardlink 0 +0 d/small {time}"),
                format!("d/long… reg 4 +0 - {time}"),
                "d/pax reg 4 +0 - 1970-01-01T00:00:08Z".to_owned(),
            ]
        );
        let last = index["entries"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["xattrs"]["user.a"], &last["uid"]), (&"Ygpj".into(), &serde_json::Value::Null));
        assert_eq!(index["version"], 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let tar = sample();
        let mut cut = EstargzWriter::new(Vec::new(), 3, 1).unwrap();
        cut.write_all(&tar[..tar.len() / 2]).unwrap();
        assert!(cut.finish().unwrap_err().to_string().contains("ends within"));

        let mut twice = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(1);
        twice.append_data(&mut header, "./stargz.index.json", &b"x"[..]).unwrap();
        let mut writer = EstargzWriter::new(Vec::new(), 3, 1).unwrap();
        let error = writer.write_all(&twice.into_inner().unwrap()).unwrap_err();
        assert!(error.to_string().contains("stargz.index.json"), "{error}");
        assert!(EstargzWriter::new(Vec::new(), 13, 1).is_err());
    }
}
