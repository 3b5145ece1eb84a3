//! The ustar header block and what becomes of it with its extensions.

use super::extended::Extended;
use super::{TarEntry, TarKind};

/// Everything in a tar archive is a multiple of this.
pub(super) const BLOCK: usize = 512;

/// The first size that eleven octal digits cannot hold: from here on the header's own size field means nothing.
const SIZE_LIMIT: u64 = 1 << 33;

/// Why a header is refused.
type Refused = &'static str;

/// A header block with a correct checksum.
#[derive(Debug)]
pub(super) struct RawHeader([u8; BLOCK]);

impl RawHeader {
    /// Checks the checksum, which some old writers sum up with signed bytes.
    pub(super) fn check(block: [u8; BLOCK]) -> Result<Self, Refused> {
        let blanked = block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { b' ' } else { b });
        let (unsigned, signed) =
            blanked.fold((0i64, 0i64), |(u, s), b| (u + i64::from(b), s + i64::from(b as i8)));
        let stated = octal(&block[148..156])?;
        if stated == unsigned || stated == signed {
            Ok(Self(block))
        } else {
            Err("a header with a wrong checksum")
        }
    }

    /// The type flag.
    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Bytes that follow, as the header says.
    pub(super) fn size(&self) -> Result<u64, Refused> {
        u64::try_from(number(&self.0[124..136])?).map_err(|_| "a negative size")
    }

    /// The name, with ustar's prefix.
    fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let is_ustar = &self.0[257..263] == b"ustar\0";
        let is_star = &self.0[508..512] == b"tar\0";
        let prefix = match (is_ustar, is_star) {
            (true, true) => until_nul(&self.0[345..476]),
            (true, false) => until_nul(&self.0[345..500]),
            _ => &[],
        };
        if prefix.is_empty() { name.into() } else { [prefix, b"/", name].concat() }
    }

    fn device(&self) -> Result<(u32, u32), Refused> {
        let part = |field: &[u8]| u32::try_from(number(field)?).map_err(|_| "a device number out of range");
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }
}

/// Puts header and extensions together.
pub(super) fn entry(raw: &RawHeader, extended: Extended) -> Result<TarEntry, Refused> {
    let size = size(raw, &extended)?;
    let name = match extended.name {
        Some(name) => name,
        None => raw.name(),
    };
    if name.is_empty() {
        return Err("an entry without a name");
    }
    let target = match extended.link {
        Some(link) => link,
        None => until_nul(&raw.0[157..257]).to_vec(),
    };
    let kind = kind(raw, &name, target)?;
    if size != 0 && kind != TarKind::File {
        return Err("content behind an entry that is no file");
    }
    let mtime = match extended.mtime {
        Some(ns) => ns,
        None => number(&raw.0[136..148])?.saturating_mul(1_000_000_000),
    };
    Ok(TarEntry {
        name,
        kind,
        size,
        mode: (number(&raw.0[100..108])? & 0o7777) as u32,
        uid: id(extended.uid, &raw.0[108..116])?,
        gid: id(extended.gid, &raw.0[116..124])?,
        mtime,
        xattrs: extended.xattrs.into_iter().collect(),
    })
}

fn size(raw: &RawHeader, extended: &Extended) -> Result<u64, Refused> {
    let stated = raw.size()?;
    match extended.size {
        None => Ok(stated),
        Some(size) if size == stated || size >= SIZE_LIMIT => Ok(size),
        Some(_) => Err("a size that header and PAX record give differently"),
    }
}

fn kind(raw: &RawHeader, name: &[u8], target: Vec<u8>) -> Result<TarKind, Refused> {
    let slash = name.last() == Some(&b'/');
    let linked = |target: Vec<u8>| if target.is_empty() { Err("a link to nothing") } else { Ok(target) };
    Ok(match raw.kind() {
        // Before POSIX, a trailing slash was the only mark of a directory.
        0 if slash => TarKind::Dir,
        b'0' | b'7' if slash => return Err("a file whose name ends with a slash"),
        0 | b'0' | b'7' => TarKind::File,
        b'1' => TarKind::HardLink { target: linked(target)? },
        b'2' => TarKind::Symlink { target: linked(target)? },
        b'3' => raw.device().map(|(major, minor)| TarKind::CharDevice { major, minor })?,
        b'4' => raw.device().map(|(major, minor)| TarKind::BlockDevice { major, minor })?,
        b'5' => TarKind::Dir,
        b'6' => TarKind::Fifo,
        b'S' => return Err("a sparse file"),
        _ => return Err("an entry of unknown type"),
    })
}

/// An owner: 32 bits, and not the one that means "leave it" to chown.
fn id(extended: Option<u64>, field: &[u8]) -> Result<u32, Refused> {
    let id = match extended {
        Some(id) => i64::try_from(id).unwrap_or(-1),
        None => number(field)?,
    };
    u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or("an owner out of range")
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

/// A numeric field: octal, or GNU's base 256 (first bit set, big-endian two's complement).
fn number(field: &[u8]) -> Result<i64, Refused> {
    let Some((&first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) else {
        return octal(field);
    };
    let negative = first & 0x40 != 0;
    let start = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
    // At most twelve bytes: 94 bits fit.
    let value = rest.iter().fold(start, |n, &b| (n << 8) | i128::from(b));
    i64::try_from(value).map_err(|_| "a number out of range")
}

/// Octal digits, with blanks before and blanks or NULs after; an empty field is 0.
fn octal(field: &[u8]) -> Result<i64, Refused> {
    let is_fill = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !is_fill(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_fill).unwrap_or(digits.len());
    let (digits, fill) = digits.split_at(end);
    if !digits.iter().all(|b| (b'0'..=b'7').contains(b)) || !fill.iter().all(is_fill) {
        return Err("a field that is no octal number");
    }
    Ok(digits.iter().fold(0, |n, b| n << 3 | i64::from(b - b'0')))
}
