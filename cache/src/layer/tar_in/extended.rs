//! PAX records and GNU's long names.

use std::collections::BTreeMap;

/// The longest value of an extended attribute, in bytes: Linux's `XATTR_SIZE_MAX`.
const MAX_XATTR: usize = 64 << 10;

/// Why a header is refused.
type Refused = &'static str;

/// What extended headers say of the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Nanoseconds since 1970.
    pub(super) mtime: Option<i64>,
    pub(super) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    seen_records: bool,
}

impl Extended {
    /// Whether no extended header was read.
    pub(super) fn is_empty(&self) -> bool {
        !self.seen_records && self.name.is_none() && self.link.is_none()
    }

    /// Takes a PAX header.
    pub(super) fn add_records(&mut self, data: &[u8]) -> Result<(), Refused> {
        if self.seen_records {
            return Err("two PAX headers for one entry");
        }
        self.seen_records = true;
        records(data, |key, value| self.add_record(key, value))
    }

    fn add_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refused> {
        match key {
            b"path" => set(&mut self.name, text(value)?),
            b"linkpath" => set(&mut self.link, text(value)?),
            b"size" => set(&mut self.size, number(value)?),
            b"uid" => set(&mut self.uid, number(value)?),
            b"gid" => set(&mut self.gid, number(value)?),
            b"mtime" => set(&mut self.mtime, time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => Err("a sparse file"),
            _ => {
                let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|name| !name.is_empty()) else {
                    return Ok(());
                };
                if value.len() > MAX_XATTR {
                    return Err("an extended attribute above 64 KiB");
                }
                let fine = !name.contains(&0) && self.xattrs.insert(name.into(), value.into()).is_none();
                if fine { Ok(()) } else { Err("an extended attribute given twice or with NUL in its name") }
            }
        }
    }

    /// Takes a GNU long name.
    pub(super) fn add_name(&mut self, data: Vec<u8>) -> Result<(), Refused> {
        set(&mut self.name, gnu_text(data)?)
    }

    /// Takes a GNU long link target.
    pub(super) fn add_link(&mut self, data: Vec<u8>) -> Result<(), Refused> {
        set(&mut self.link, gnu_text(data)?)
    }
}

/// Looks at a global PAX header. Some readers apply it and some do not, so it may only hold what changes nothing
/// (`git archive` puts a comment there).
pub(super) fn check_global(data: &[u8]) -> Result<(), Refused> {
    records(data, |key, _| match key {
        b"path" | b"linkpath" | b"size" | b"uid" | b"gid" => Err("a global PAX header that changes entries"),
        _ if key.starts_with(b"GNU.sparse.") || key.starts_with(b"SCHILY.xattr.") => {
            Err("a global PAX header that changes entries")
        }
        _ => Ok(()),
    })
}

/// Splits `LENGTH KEY=VALUE\n` records.
///
/// # Errors
/// What is no such record; what `each` says.
pub(crate) fn records<'a>(
    mut data: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Refused>,
) -> Result<(), Refused> {
    const BROKEN: Refused = "a broken PAX record";
    while !data.is_empty() {
        let space = data.iter().take(20).position(|&b| b == b' ').ok_or(BROKEN)?;
        let length = usize::try_from(number(&data[..space])?).map_err(|_| BROKEN)?;
        if length <= space + 1 {
            return Err(BROKEN);
        }
        let (record, rest) = data.split_at_checked(length).ok_or(BROKEN)?;
        let body = record[space + 1..].strip_suffix(b"\n").ok_or(BROKEN)?;
        let equals = body.iter().position(|&b| b == b'=').filter(|&at| at > 0).ok_or(BROKEN)?;
        each(&body[..equals], &body[equals + 1..])?;
        data = rest;
    }
    Ok(())
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<(), Refused> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err("a field given twice"),
    }
}

fn text(value: &[u8]) -> Result<Vec<u8>, Refused> {
    if value.is_empty() || value.contains(&0) {
        Err("an empty name or one with NUL")
    } else {
        Ok(value.into())
    }
}

/// GNU ends long names with a NUL, which counts.
fn gnu_text(mut data: Vec<u8>) -> Result<Vec<u8>, Refused> {
    if data.last() == Some(&0) {
        data.pop();
    }
    text(&data)
}

fn number(value: &[u8]) -> Result<u64, Refused> {
    const NOT_A_NUMBER: Refused = "a PAX record that is no number";
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(NOT_A_NUMBER);
    }
    std::str::from_utf8(value).ok().and_then(|s| s.parse().ok()).ok_or(NOT_A_NUMBER)
}

/// Decimal seconds with a fraction of any length, in nanoseconds; out of range it is the end of the range.
fn time(value: &[u8]) -> Result<i64, Refused> {
    const NOT_A_TIME: Refused = "a PAX record that is no time";
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let point = digits.iter().position(|&b| b == b'.').unwrap_or(digits.len());
    let (whole, fraction) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(NOT_A_TIME);
    }
    let mut ns: i64 = 0;
    let nine = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    for digit in whole.iter().copied().chain(nine) {
        ns = ns.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    }
    Ok(if negative { -ns } else { ns })
}
