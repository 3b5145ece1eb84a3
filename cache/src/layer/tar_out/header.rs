//! The bytes of a tar header (POSIX.1-2001 pax, section "ustar Interchange Format").

/// Everything in a tar archive is a multiple of this.
pub(super) const BLOCK: usize = 512;

/// Fields of the ustar header: offset and length.
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const UID: (usize, usize) = (108, 8);
const GID: (usize, usize) = (116, 8);
const SIZE: (usize, usize) = (124, 12);
const MTIME: (usize, usize) = (136, 12);
const CHECKSUM: (usize, usize) = (148, 8);
const TYPE: usize = 156;
const LINK: (usize, usize) = (157, 100);
const MAGIC: (usize, usize) = (257, 8);
const MAJOR: (usize, usize) = (329, 8);
const MINOR: (usize, usize) = (337, 8);

/// One entry.
#[derive(Debug, Default)]
pub(super) struct Header<'a> {
    pub(super) name: &'a [u8],
    /// The type flag.
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    /// Target of a link of either sort.
    pub(super) link: &'a [u8],
    /// Major and minor number.
    pub(super) device: (u32, u32),
    /// Value of `security.capability`.
    pub(super) capability: Option<&'a [u8]>,
}

impl Header<'_> {
    /// Appends the entry's header, after a PAX header for what does not fit.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut block = [0u8; BLOCK];
        let mut records = Vec::new();
        put_text(&mut block, NAME, self.name, "path", &mut records);
        put_text(&mut block, LINK, self.link, "linkpath", &mut records);
        put_number(&mut block, MODE, self.mode.into(), None, &mut records);
        put_number(&mut block, UID, self.uid.into(), Some("uid"), &mut records);
        put_number(&mut block, GID, self.gid.into(), Some("gid"), &mut records);
        put_number(&mut block, SIZE, i128::from(self.size), Some("size"), &mut records);
        put_number(&mut block, MTIME, self.mtime.into(), Some("mtime"), &mut records);
        put_number(&mut block, MAJOR, self.device.0.into(), None, &mut records);
        put_number(&mut block, MINOR, self.device.1.into(), None, &mut records);
        if let Some(value) = self.capability {
            record(&mut records, "SCHILY.xattr.security.capability", value);
        }
        block[TYPE] = self.kind;
        if !records.is_empty() {
            write_records(out, &records);
        }
        seal(&mut block);
        out.extend_from_slice(&block);
    }
}

/// Appends zeros after `size` bytes of content, to the end of the block.
pub(super) fn pad(out: &mut Vec<u8>, size: u64) {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over > 0 {
        out.resize(out.len() + BLOCK - over, 0);
    }
}

/// Appends a PAX extended header. Its own name means nothing; a constant one keeps the stream deterministic.
fn write_records(out: &mut Vec<u8>, records: &[u8]) {
    let mut block = [0u8; BLOCK];
    let mut none = Vec::new();
    put_text(&mut block, NAME, b"PaxHeaders.0/entry", "path", &mut none);
    for field in [MODE, UID, GID, MTIME, MAJOR, MINOR] {
        put_number(&mut block, field, 0, None, &mut none);
    }
    put_number(&mut block, SIZE, records.len() as i128, None, &mut none);
    block[TYPE] = b'x';
    seal(&mut block);
    out.extend_from_slice(&block);
    out.extend_from_slice(records);
    pad(out, records.len() as u64);
}

/// Fills in magic and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[MAGIC.0..MAGIC.0 + MAGIC.1].copy_from_slice(b"ustar\x0000");
    block[CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[CHECKSUM.0..CHECKSUM.0 + 7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// Puts a text into its field; one that is too long or not ASCII also becomes a record, which then counts.
fn put_text(
    block: &mut [u8; BLOCK],
    (at, len): (usize, usize),
    text: &[u8],
    key: &str,
    records: &mut Vec<u8>,
) {
    let fits = text.len() <= len && text.is_ascii();
    if !fits {
        record(records, key, text);
    }
    let ascii = text.iter().filter(|b| b.is_ascii()).take(len);
    for (to, from) in block[at..at + len].iter_mut().zip(ascii) {
        *to = *from;
    }
}

/// Puts a number into its field as octal digits; one that does not fit becomes a record and the field 0.
fn put_number(
    block: &mut [u8; BLOCK],
    (at, len): (usize, usize),
    number: i128,
    key: Option<&str>,
    records: &mut Vec<u8>,
) {
    let digits = len - 1;
    let fits = number >= 0 && number < 1i128 << (3 * digits);
    if let (false, Some(key)) = (fits, key) {
        record(records, key, number.to_string().as_bytes());
    }
    let shown = if fits { number } else { 0 };
    block[at..at + digits].copy_from_slice(format!("{shown:0digits$o}").as_bytes());
}

/// Appends a PAX record `LENGTH KEY=VALUE\n`; the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}
