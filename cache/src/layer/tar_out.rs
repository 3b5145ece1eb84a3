//! Layer to tar stream, as containerd's differ writes it.
//!
//! Entries come in walk order, parents before what they hold. ustar headers, with PAX records only for what does not
//! fit; times are cut to seconds; user and group names are empty; of the extended attributes only `security.capability` is
//! kept; a removed name is an empty file `.wh.NAME` with mode and time 0; sockets are left out.

mod header;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use solver::Digest;

use self::header::{BLOCK, Header, pad};
use super::entry::{Change, Entries, LayerEntry};
use super::error::LayerError;
use super::hash::CHUNK;
use super::normal::io_error;
use crate::hashing::Hashing;
use crate::tree::{Kind, Node, TreePath};
use crate::view::disk;

/// The only extended attribute that reaches an image.
const CAPABILITY: &[u8] = b"security.capability";

/// How a tar stream is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TarOptions {
    /// Later times become this one, in seconds since 1970 (SOURCE_DATE_EPOCH with rewritten timestamps).
    pub max_mtime: Option<i64>,
}

/// Writes the OCI layer tar of a layer; deterministic, streaming. Its content is in `dirs`, lowest first: its own
/// directory, and before it that of the layer that it is thin over.
///
/// # Errors
/// [`LayerError::Stream`] when `out` fails, [`LayerError::Io`] or [`LayerError::Changed`] when a file cannot be read
/// as it was.
pub fn write_tar<W: Write, D: AsRef<Path>>(
    entries: &Entries,
    dirs: &[D],
    options: TarOptions,
    out: W,
) -> Result<W, LayerError> {
    let open = |dir: &D| disk::open_root(dir.as_ref()).map_err(|e| io_error("open", &TreePath::root(), e));
    let roots = dirs.iter().rev().map(open).collect::<Result<_, _>>()?;
    let mut writer =
        Writer { roots, options, out, first_names: HashMap::new(), buf: Vec::with_capacity(2 * CHUNK) };
    for entry in entries.iter() {
        writer.entry(entry)?;
    }
    writer.finish()
}

/// The diff ID of a layer (SHA-256 of its tar stream) and the stream's length in bytes.
///
/// # Errors
/// As [`write_tar`]; [`LayerError::Stream`] soon after `stop` was set.
pub fn diff_id<D: AsRef<Path>>(
    entries: &Entries,
    dirs: &[D],
    stop: &AtomicBool,
) -> Result<(Digest, u64), LayerError> {
    let hashing = write_tar(entries, dirs, TarOptions::default(), Hashing::new(Wanted(stop)))?;
    let (_, digest, length) = hashing.finish();
    Ok((digest, length))
}

/// Takes everything until `stop` is set.
struct Wanted<'a>(&'a AtomicBool);

impl Write for Wanted<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody wants the diff ID any more"));
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<'a, W> {
    /// The layer's directories, topmost first.
    roots: Vec<OwnedFd>,
    options: TarOptions,
    out: W,
    /// The first name of each hard-link group.
    first_names: HashMap<&'a TreePath, &'a TreePath>,
    /// What is not written yet: many small entries make one write.
    buf: Vec<u8>,
}

impl<'a, W: Write> Writer<'a, W> {
    fn entry(&mut self, entry: &'a LayerEntry) -> Result<(), LayerError> {
        let path = &entry.path;
        let Change::Put { node, mtime } = &entry.change else {
            let name = path.parent().unwrap_or_default().child(&[b".wh.", path.name()].concat());
            Header { name: name.as_bytes(), kind: b'0', ..Header::default() }.write(&mut self.buf);
            return self.flush_if_full();
        };
        if node.kind == Kind::Socket {
            return Ok(());
        }
        let first = match &node.link_group {
            Some(group) => *self.first_names.entry(group).or_insert(path),
            None => path,
        };
        let linked = (first != path).then_some(first.as_bytes());
        self.header(path, node, *mtime, linked);
        match node.kind {
            Kind::File { size, .. } if linked.is_none() && size > 0 => self.contents(path, size),
            _ => self.flush_if_full(),
        }
    }

    fn header(&mut self, path: &TreePath, node: &Node, mtime: i64, linked: Option<&[u8]>) {
        let mut seconds = mtime.div_euclid(1_000_000_000);
        if let Some(max) = self.options.max_mtime {
            seconds = seconds.min(max);
        }
        let mut dir_name = Vec::new();
        let mut header = Header {
            name: path.as_bytes(),
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: seconds,
            capability: node.xattrs.iter().find(|(name, _)| &**name == CAPABILITY).map(|(_, value)| &**value),
            ..Header::default()
        };
        match (&node.kind, linked) {
            (_, Some(first)) => (header.kind, header.link) = (b'1', first),
            (Kind::File { size, .. }, None) => (header.kind, header.size) = (b'0', *size),
            (Kind::Symlink { target }, None) => (header.kind, header.link) = (b'2', target),
            (Kind::CharDevice { major, minor }, None) => {
                (header.kind, header.device) = (b'3', (*major, *minor))
            }
            (Kind::BlockDevice { major, minor }, None) => {
                (header.kind, header.device) = (b'4', (*major, *minor))
            }
            (Kind::Dir, None) => {
                dir_name.extend_from_slice(path.as_bytes());
                dir_name.push(b'/');
                (header.kind, header.name) = (b'5', &dir_name);
            }
            (Kind::Fifo | Kind::Socket, None) => header.kind = b'6',
        }
        header.write(&mut self.buf);
    }

    /// Copies a file's bytes: exactly as many as the header says, or it is an error.
    fn contents(&mut self, path: &TreePath, size: u64) -> Result<(), LayerError> {
        let read = |source| io_error("read", path, source);
        let file = self.open(path).map_err(read)?;
        let mut file = file.take(size);
        let mut left = size;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let start = self.buf.len();
            self.buf.resize(start + room, 0);
            let n = super::hash::read_some(&mut file, &mut self.buf[start..]).map_err(read)?;
            self.buf.truncate(start + n);
            if n == 0 {
                return Err(LayerError::Changed(path.clone()));
            }
            left -= n as u64;
            self.flush_if_full()?;
        }
        if file.into_inner().read(&mut [0]).map_err(read)? != 0 {
            return Err(LayerError::Changed(path.clone()));
        }
        pad(&mut self.buf, size);
        self.flush_if_full()
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        let mut missing = io::ErrorKind::NotFound.into();
        for root in &self.roots {
            match disk::open_file(root.as_fd(), path.as_bytes()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => missing = e,
                other => return other,
            }
        }
        Err(missing)
    }

    fn flush_if_full(&mut self) -> Result<(), LayerError> {
        if self.buf.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), LayerError> {
        let written = self.out.write_all(&self.buf);
        self.buf.clear();
        written.map_err(|source| LayerError::Stream { action: "write", source })
    }

    fn finish(mut self) -> Result<W, LayerError> {
        self.buf.extend_from_slice(&[0; 2 * BLOCK]);
        self.flush()?;
        self.out.flush().map_err(|source| LayerError::Stream { action: "write", source })?;
        Ok(self.out)
    }
}
