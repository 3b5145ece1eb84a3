//! Large files that are written or read once, from their start to their end, past the page cache.
//!
//! A layer's blob is written once and rarely read soon; its pages would push out those of the files that steps work on.
//! Taking pages is not free either: in a virtual machine that gave its memory back, writing through the cache reached
//! 350 to 570 MB/s where the disk took 1,300 (ext4, kernel 6.18).

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What is written or read at a time, in bytes.
const PIECE: usize = 1 << 20;
/// Offsets, lengths and addresses of direct I/O are multiples of it: no disk in use has larger sectors.
const ALIGNMENT: usize = 4096;
/// Bytes that go through the page cache first: what is smaller stays there, and is read soon.
const SMALL: u64 = 8 << 20;
/// Pieces after which a disk is judged.
const TRIAL: u32 = 8;
/// How long a disk may take for a piece. One that is slower than about 400 MB/s would be waited for; the page cache
/// writes behind.
const PATIENCE: Duration = Duration::from_micros(2500);

/// A buffer for direct I/O.
#[derive(Debug)]
struct Piece {
    memory: Vec<u8>,
    /// Where the aligned part begins.
    start: usize,
}

impl Piece {
    fn new() -> Self {
        let memory = vec![0; PIECE + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..PIECE]
    }
}

fn flags(file: &File) -> nix::Result<OFlag> {
    fcntl(file.as_fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_retain)
}

/// Sets whether a file's reads and writes pass by the page cache; says whether it can be had.
fn set_direct(file: &File, direct: bool) -> bool {
    let set = |mut flags: OFlag| {
        flags.set(OFlag::O_DIRECT, direct);
        fcntl(file.as_fd(), FcntlArg::F_SETFL(flags))
    };
    flags(file).and_then(set).is_ok()
}

/// How a [`StreamWriter`] writes.
#[derive(Debug)]
enum Mode {
    /// Through the page cache; so many bytes may change that.
    Small { left: u64 },
    /// Past it: what waits for its piece to be full, how many were written, and for how long.
    Direct { piece: Piece, filled: usize, written: u32, spent: Duration },
    /// Through the page cache for good.
    Cached,
}

impl Mode {
    fn direct() -> Self {
        Self::Direct { piece: Piece::new(), filled: 0, written: 0, spent: Duration::ZERO }
    }
}

/// Writes a file from its start; past the page cache where the file is large and the disk fast.
///
/// What is dropped without [`Write::flush`] is cut short.
#[derive(Debug)]
pub struct StreamWriter {
    file: File,
    /// All of the file is written here.
    whole: bool,
    length: u64,
    mode: Mode,
}

impl StreamWriter {
    /// Writes into `file`. What is no regular file, empty and at its start, is written as it is.
    pub fn new(mut file: File) -> Self {
        let empty = file.metadata().is_ok_and(|m| m.is_file() && m.len() == 0);
        let at_start = empty && file.stream_position().is_ok_and(|place| place == 0);
        // Whatever is written to a file that is only appended to comes last.
        let appended = flags(&file).is_ok_and(|flags| flags.contains(OFlag::O_APPEND));
        let whole = at_start && !appended;
        let mode = if whole { Mode::Small { left: SMALL } } else { Mode::Cached };
        Self { file, whole, length: 0, mode }
    }

    /// Whether [`Self::amend`] can be called.
    pub fn can_amend(&self) -> bool {
        self.whole
    }

    /// The file; some of its bytes may not have got there.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Replaces bytes that were written, from `offset` on.
    ///
    /// # Errors
    /// Whatever writing gave.
    pub fn amend(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.file.write_all_at(bytes, offset)
    }

    /// Goes back to the page cache for good.
    fn leave(&mut self) -> io::Result<()> {
        if let Mode::Direct { mut piece, filled, .. } = std::mem::replace(&mut self.mode, Mode::Cached) {
            set_direct(&self.file, false);
            self.file.write_all(&piece.bytes()[..filled])?;
        }
        Ok(())
    }

    /// Writes a piece that is full.
    fn end_piece(&mut self) -> io::Result<()> {
        let Mode::Direct { piece, filled, written, spent } = &mut self.mode else { return Ok(()) };
        let begun = Instant::now();
        let mut rest: &[u8] = piece.bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The file system says so only now, or wrote an odd part of the piece.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    let rest = rest.to_vec();
                    *filled = 0;
                    self.leave()?;
                    return self.file.write_all(&rest);
                }
                Err(error) => return Err(error),
            }
        }
        *filled = 0;
        *written += 1;
        *spent += begun.elapsed();
        if *written == TRIAL && *spent > PATIENCE * TRIAL {
            self.leave()?;
        }
        Ok(())
    }
}

impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.mode {
            Mode::Cached => self.file.write(bytes)?,
            Mode::Small { left } => {
                let few = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let written = self.file.write(&bytes[..few])?;
                *left -= written as u64;
                if *left == 0 {
                    self.mode = match set_direct(&self.file, true) {
                        true => Mode::direct(),
                        false => Mode::Cached,
                    };
                }
                written
            }
            Mode::Direct { piece, filled, .. } => {
                let taken = bytes.len().min(PIECE - *filled);
                piece.bytes()[*filled..][..taken].copy_from_slice(&bytes[..taken]);
                *filled += taken;
                if *filled == PIECE {
                    self.end_piece()?;
                }
                taken
            }
        };
        self.length += written as u64;
        Ok(written)
    }

    /// Writes what waits for its piece to be full. What follows counts as a new file, small at first.
    fn flush(&mut self) -> io::Result<()> {
        if matches!(self.mode, Mode::Direct { .. }) {
            self.leave()?;
            let begin = (self.length + SMALL).next_multiple_of(ALIGNMENT as u64);
            self.mode = Mode::Small { left: begin - self.length };
        }
        self.file.flush()
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        // Whoever passed the file shares the flag.
        if matches!(self.mode, Mode::Direct { .. }) {
            set_direct(&self.file, false);
        }
    }
}

/// Reads a file from its start; past the page cache where it is large.
#[derive(Debug)]
pub struct StreamReader {
    file: File,
    direct: bool,
    piece: Piece,
    /// What of the piece was read and not yet given.
    waiting: std::ops::Range<usize>,
}

impl StreamReader {
    /// Reads `file`, which nobody else has open.
    pub fn new(file: File) -> Self {
        let large = file.metadata().is_ok_and(|m| m.is_file() && m.len() >= SMALL);
        let direct = large && set_direct(&file, true);
        Self { file, direct, piece: Piece::new(), waiting: 0..0 }
    }

    fn fill(&mut self) -> io::Result<()> {
        let read = loop {
            match self.file.read(self.piece.bytes()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && self.direct => self.leave(),
                other => break other?,
            }
        };
        // The end, in all likelihood; what follows may lie at any offset.
        if read % ALIGNMENT != 0 {
            self.leave();
        }
        self.waiting = 0..read;
        Ok(())
    }

    fn leave(&mut self) {
        self.direct = false;
        set_direct(&self.file, false);
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.waiting.is_empty() {
            self.fill()?;
        }
        let n = buffer.len().min(self.waiting.len());
        let from = self.waiting.start;
        buffer[..n].copy_from_slice(&self.piece.bytes()[from..from + n]);
        self.waiting.start += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_direct(file: &File) -> bool {
        flags(file).unwrap().contains(OFlag::O_DIRECT)
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
    }

    /// Any length, written in any parts, on any file system, comes back whole.
    #[test]
    fn what_is_written_is_read() {
        let small = SMALL as usize;
        let lengths = [0, 1, small - 1, small, small + 1, small + PIECE, small + 9 * PIECE + 12_345];
        for dir in [std::env::temp_dir(), "/dev/shm".into(), env!("CARGO_MANIFEST_DIR").into()] {
            for (length, part) in lengths.into_iter().zip([7, 4096, 77_777, 3 << 20, 123, 1 << 20, 333_333]) {
                let mut file = tempfile::tempfile_in(&dir).unwrap();
                let bytes = sample(length);
                let mut writer = StreamWriter::new(file.try_clone().unwrap());
                bytes.chunks(part).for_each(|part| writer.write_all(part).unwrap());
                writer.flush().unwrap();
                assert!(!is_direct(&file), "the flag stays on a file that was passed");
                file.rewind().unwrap();
                let mut found = Vec::new();
                StreamReader::new(file).read_to_end(&mut found).unwrap();
                assert!(found == bytes, "{length} bytes in parts of {part} in {}", dir.display());
            }
        }
    }

    /// Bytes are replaced wherever they are: on disk, in the cache, or waiting for their piece; and writing goes on.
    #[test]
    fn written_bytes_can_be_replaced() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut writer = StreamWriter::new(file.try_clone().unwrap());
        let mut expected = Vec::new();
        for length in [5, SMALL as usize + 2 * PIECE + 77, SMALL as usize + PIECE, 3] {
            let bytes = sample(length);
            writer.write_all(&bytes).unwrap();
            expected.extend(bytes);
            for at in [0, expected.len() / 2, expected.len() - 2] {
                writer.amend(at as u64, b"XY").unwrap();
                expected[at..][..2].copy_from_slice(b"XY");
            }
        }
        writer.flush().unwrap();
        let mut found = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut found).unwrap();
        assert!(found == expected);
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_the_flag_as_it_was() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut writer = StreamWriter::new(file.try_clone().unwrap());
        writer.write_all(&sample(SMALL as usize + 1)).unwrap();
        drop(writer);
        assert!(!is_direct(&file));
    }

    /// Bytes that are there already stay, and files that cannot seek are written as they are.
    #[test]
    fn only_an_empty_file_is_written_past_the_cache() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        let mut writer = StreamWriter::new(file.try_clone().unwrap());
        writer.write_all(&sample(SMALL as usize + PIECE)).unwrap();
        assert!(!is_direct(&file));
        writer.flush().unwrap();
        let mut head = [0; 7];
        file.rewind().unwrap();
        file.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"before ");
        assert!(!writer.can_amend());
        let appended = tempfile::NamedTempFile::new().unwrap();
        let appended = File::options().append(true).open(appended.path()).unwrap();
        assert!(!StreamWriter::new(appended).can_amend());
        let (mut reader, writer) = io::pipe().unwrap();
        let mut writer = StreamWriter::new(File::from(std::os::fd::OwnedFd::from(writer)));
        writer.write_all(b"through a pipe").unwrap();
        drop(writer);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "through a pipe");
    }
}
