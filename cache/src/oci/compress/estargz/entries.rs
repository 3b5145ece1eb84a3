//! Reading a tar stream as it passes by.

use std::collections::{BTreeMap, HashMap};
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use solver::Digest;
use tar::{EntryType, Header};

use super::super::invalid;
use super::CHUNK;
use super::toc::{Entry, INDEX_NAME};
use crate::layer::tar_in::extended::records;

const BLOCK: usize = 512;

/// The most that long names and attributes of one entry may take.
const MOST_EXTENSIONS: u64 = 16 << 20;

/// The prefix of extended attributes in PAX records.
const XATTR: &str = "SCHILY.xattr.";

/// The entries so far, and where in the stream we are.
#[derive(Debug, Default)]
pub(super) struct Entries {
    list: Vec<Entry>,
    at: At,
    extensions: Extensions,
    /// The names last told of each number: they are not told again.
    users: HashMap<u64, String>,
    groups: HashMap<u64, String>,
}

#[derive(Debug)]
enum At {
    /// Within a header block.
    Header(Vec<u8>),
    /// Within long names or attributes of the entry that follows.
    Extension { kind: EntryType, body: Vec<u8>, size: usize, left: u64 },
    /// Within a file.
    File(Box<File>),
    /// Before the next block.
    Padding(u64),
    /// Behind the end of the tar.
    End,
}

impl Default for At {
    fn default() -> Self {
        Self::Header(Vec::with_capacity(BLOCK))
    }
}

#[derive(Debug)]
struct File {
    /// What is told of the piece under way.
    entry: Entry,
    /// Which entry of the list is the file's first.
    first: usize,
    size: u64,
    /// Bytes of the pieces that are told.
    done: u64,
    /// Bytes of the piece under way.
    taken: u64,
    padding: u64,
    whole: Sha256,
    piece: Sha256,
}

/// What precedes an entry.
#[derive(Debug, Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: BTreeMap<String, Vec<u8>>,
}

impl Entries {
    /// All entries.
    pub(super) fn list(&mut self) -> &mut [Entry] {
        &mut self.list
    }

    /// Whether what comes next is the begin of a piece of a file.
    pub(super) fn begins_chunk(&self) -> bool {
        matches!(&self.at, At::File(file) if file.taken == 0)
    }

    /// Whether what comes next is a header, or behind the end.
    pub(super) fn is_at_boundary(&self) -> bool {
        match &self.at {
            At::Header(block) => block.is_empty(),
            At::End => true,
            _ => false,
        }
    }

    /// Takes bytes up to where something else begins, and says how many; they go to the member with this number.
    pub(super) fn take(&mut self, bytes: &[u8], member: usize) -> io::Result<usize> {
        let up_to = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        match &mut self.at {
            At::End => Ok(bytes.len()),
            At::Header(block) => {
                let taken = bytes.len().min(BLOCK - block.len());
                block.extend_from_slice(&bytes[..taken]);
                if block.len() == BLOCK {
                    let block = std::mem::take(block);
                    self.at = self.header(&block)?;
                }
                Ok(taken)
            }
            At::Padding(left) => {
                let taken = up_to(*left);
                *left -= taken as u64;
                if *left == 0 {
                    self.at = At::default();
                }
                Ok(taken)
            }
            At::Extension { kind, body, size, left } => {
                let taken = up_to(*left);
                body.extend_from_slice(&bytes[..taken]);
                *left -= taken as u64;
                if *left == 0 {
                    body.truncate(*size);
                    let (kind, body) = (*kind, std::mem::take(body));
                    self.extensions.add(kind, body)?;
                    self.at = At::default();
                }
                Ok(taken)
            }
            At::File(file) => {
                let taken = up_to(file.piece() - file.taken);
                file.take(&bytes[..taken], member, &mut self.list);
                if file.done == file.size {
                    self.at = after(file.padding);
                }
                Ok(taken)
            }
        }
    }

    fn header(&mut self, block: &[u8]) -> io::Result<At> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(At::End);
        }
        let header = Header::from_byte_slice(block);
        let kind = header.entry_type();
        let size = header.entry_size()?;
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        match kind {
            EntryType::XHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XGlobalHeader => {
                let body = usize::try_from(size).ok().filter(|_| size <= MOST_EXTENSIONS);
                let body = body.ok_or_else(|| invalid(format!("{size} bytes of attributes of one entry")))?;
                return Ok(match size {
                    0 => At::default(),
                    _ => At::Extension { kind, body: Vec::new(), size: body, left: size + padding },
                });
            }
            _ => {}
        }
        let extensions = std::mem::take(&mut self.extensions);
        let mut entry = extensions.entry(header)?;
        if entry.name.trim_start_matches("./").trim_start_matches('/') == INDEX_NAME {
            return Err(invalid(format!(
                "the layer has a file `{INDEX_NAME}`, which eStargz needs for itself"
            )));
        }
        entry.user_name = if_changed(&mut self.users, entry.uid, entry.user_name);
        entry.group_name = if_changed(&mut self.groups, entry.gid, entry.group_name);
        if entry.kind != "reg" {
            self.list.push(entry);
            return Ok(after(size + padding));
        }
        let size = extensions.number("size").unwrap_or(size);
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        entry.size = size;
        if size == 0 {
            entry.digest = Digest::of(b"").to_string();
            self.list.push(entry);
            return Ok(At::default());
        }
        Ok(At::File(Box::new(File {
            entry,
            first: self.list.len(),
            size,
            done: 0,
            taken: 0,
            padding,
            whole: Sha256::new(),
            piece: Sha256::new(),
        })))
    }
}

impl File {
    /// Bytes of the piece that is under way, altogether.
    fn piece(&self) -> u64 {
        CHUNK.min(self.size - self.done)
    }

    fn take(&mut self, bytes: &[u8], member: usize, list: &mut Vec<Entry>) {
        self.entry.member.get_or_insert(member);
        self.piece.update(bytes);
        self.whole.update(bytes);
        self.taken += bytes.len() as u64;
        if self.taken < self.piece() {
            return;
        }
        let next = Entry { name: self.entry.name.clone(), kind: "chunk", ..Entry::default() };
        let mut entry = std::mem::replace(&mut self.entry, next);
        entry.chunk_offset = self.done;
        if self.taken == CHUNK {
            entry.chunk_size = CHUNK;
        }
        entry.chunk_digest = digest(&mut self.piece);
        list.push(entry);
        self.done += self.taken;
        self.taken = 0;
        if self.done == self.size {
            list[self.first].digest = digest(&mut self.whole);
        }
    }
}

impl Extensions {
    fn add(&mut self, kind: EntryType, body: Vec<u8>) -> io::Result<()> {
        let text = |mut body: Vec<u8>| {
            body.truncate(body.iter().position(|byte| *byte == 0).unwrap_or(body.len()));
            Some(body)
        };
        match kind {
            EntryType::GNULongName => self.name = text(body),
            EntryType::GNULongLink => self.link = text(body),
            EntryType::XHeader => {
                let read = records(&body, |key, value| {
                    self.pax.insert(String::from_utf8_lossy(key).into_owned(), value.to_vec());
                    Ok(())
                });
                read.map_err(|why| invalid(why.to_owned()))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Option<String> {
        self.pax.get(key).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// The entry of a header with what came before it.
    fn entry(&self, header: &Header) -> io::Result<Entry> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let long = |found: &Option<Vec<u8>>| found.as_deref().map(text);
        let kind = match header.entry_type() {
            EntryType::Regular => "reg",
            EntryType::Link => "hardlink",
            EntryType::Symlink => "symlink",
            EntryType::Directory => "dir",
            EntryType::Char => "char",
            EntryType::Block => "block",
            EntryType::Fifo => "fifo",
            other => return Err(invalid(format!("a tar entry of type {:#x}", other.as_byte()))),
        };
        let name = self.text("path").or(long(&self.name)).unwrap_or_else(|| text(&header.path_bytes()));
        let link = || header.link_name_bytes().map(|link| text(&link)).unwrap_or_default();
        let device = |number: io::Result<Option<u32>>| number.map(|n| n.unwrap_or(0).into());
        let is_device = matches!(kind, "char" | "block");
        let xattrs = self.pax.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?, value)));
        Ok(Entry {
            kind,
            modified: self.modified(header),
            link_name: match kind {
                "hardlink" | "symlink" => self.text("linkpath").or(long(&self.link)).unwrap_or_else(link),
                _ => String::new(),
            },
            // A field that is left blank is 0.
            mode: header.mode().unwrap_or(0).into(),
            uid: self.number("uid").or(header.uid().ok()).unwrap_or(0),
            gid: self.number("gid").or(header.gid().ok()).unwrap_or(0),
            user_name: self.text("uname").or(header.username_bytes().map(text)).unwrap_or_default(),
            group_name: self.text("gname").or(header.groupname_bytes().map(text)).unwrap_or_default(),
            dev_major: if is_device { device(header.device_major())? } else { 0 },
            dev_minor: if is_device { device(header.device_minor())? } else { 0 },
            xattrs: xattrs.map(|(name, value)| (name.to_owned(), STANDARD.encode(value))).collect(),
            name,
            ..Entry::default()
        })
    }

    /// The time to the nearest second, as RFC 3339; empty for 1970.
    fn modified(&self, header: &Header) -> String {
        let precise = self.text("mtime").and_then(|time| time.parse::<f64>().ok());
        // Years that no calendar has become 1970 as well.
        let seconds = match precise {
            Some(time) => time.round() as i64,
            None => header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
        };
        let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        if time == jiff::Timestamp::UNIX_EPOCH { String::new() } else { time.to_string() }
    }
}

/// What comes after so many bytes that only fill a block.
fn after(padding: u64) -> At {
    if padding == 0 { At::default() } else { At::Padding(padding) }
}

fn digest(hasher: &mut Sha256) -> String {
    Digest::from_bytes(hasher.finalize_reset().into()).to_string()
}

/// The name of a number where it is another than the one told last.
fn if_changed(told: &mut HashMap<u64, String>, id: u64, name: String) -> String {
    if name.is_empty() || told.get(&id) == Some(&name) {
        return String::new();
    }
    told.insert(id, name.clone());
    name
}
