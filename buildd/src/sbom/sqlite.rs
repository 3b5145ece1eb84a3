//! One column of one table of an SQLite database, read from its bytes (<https://www.sqlite.org/fileformat2.html>): what rpm keeps.
//!
//! The library itself would open a file of a stranger's with all that SQL can do. Here pages are looked up and nothing is
//! executed: each page of a table is visited once, and what rows hold is together no longer than the file.

use std::collections::BTreeSet;

/// What the file begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where the first page's own header begins, behind that of the file.
const FIRST_PAGE_HEADER: usize = 100;
/// Kinds of pages of tables.
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// The bytes are no such database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SqliteError {
    /// It begins otherwise.
    #[error("it is no SQLite database")]
    NoDatabase,
    /// It has no such table.
    #[error("it has no table `{0}`")]
    NoTable(&'static str),
    /// Something points to where nothing is.
    #[error("page {0} is damaged")]
    Damaged(u32),
}

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Integer(i64),
    /// A text or a blob.
    Bytes(&'a [u8]),
    /// Null, or a number with a fraction.
    Other,
}

/// Calls `visit` with the second column of each row of a table that has a number as its key and a blob.
///
/// # Errors
/// No database, no such table, damage; rows before that are visited.
pub(super) fn blobs(
    bytes: &[u8],
    table: &'static str,
    visit: &mut dyn FnMut(&[u8]),
) -> Result<(), SqliteError> {
    let database = Database::new(bytes)?;
    let mut root = None;
    // Type, name, table, root page, SQL.
    database.rows(1, &mut |row| {
        if let [Value::Bytes(b"table"), Value::Bytes(name), _, Value::Integer(page), ..] = row[..]
            && name == table.as_bytes()
        {
            root = u32::try_from(page).ok();
        }
    })?;
    database.rows(root.ok_or(SqliteError::NoTable(table))?, &mut |row| {
        if let Some(Value::Bytes(blob)) = row.get(1) {
            visit(blob);
        }
    })
}

struct Database<'a> {
    bytes: &'a [u8],
    page_size: usize,
    /// Bytes of a page that may be used.
    usable: usize,
}

impl<'a> Database<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, SqliteError> {
        if !bytes.starts_with(MAGIC) || bytes.len() < FIRST_PAGE_HEADER {
            return Err(SqliteError::NoDatabase);
        }
        let page_size = match number(bytes, 16, 2) {
            Some(1) => 65536,
            Some(size @ 512..=32768) if size.is_power_of_two() => size as usize,
            _ => return Err(SqliteError::NoDatabase),
        };
        let usable = page_size - usize::from(bytes[20]);
        if usable < 480 {
            return Err(SqliteError::NoDatabase);
        }
        Ok(Self { bytes, page_size, usable })
    }

    fn page(&self, page: u32) -> Result<&'a [u8], SqliteError> {
        let at = (page as usize).checked_sub(1).and_then(|n| n.checked_mul(self.page_size));
        let at = at.ok_or(SqliteError::Damaged(page))?;
        self.bytes.get(at..at.saturating_add(self.page_size)).ok_or(SqliteError::Damaged(page))
    }

    /// Visits the rows of the table whose tree begins at page `root`.
    fn rows(&self, root: u32, visit: &mut dyn FnMut(Vec<Value<'_>>)) -> Result<(), SqliteError> {
        let (mut waiting, mut seen) = (vec![root], BTreeSet::new());
        let mut left = self.bytes.len();
        while let Some(at) = waiting.pop() {
            let damaged = SqliteError::Damaged(at);
            if !seen.insert(at) {
                return Err(damaged);
            }
            let page = self.page(at)?;
            let header = if at == 1 { FIRST_PAGE_HEADER } else { 0 };
            let cells = number(page, header + 3, 2).ok_or(damaged)? as usize;
            let kind = page[header];
            let first = header + if kind == INTERIOR { 12 } else { 8 };
            let mut below = Vec::new();
            for cell in 0..cells {
                let cell = number(page, first + 2 * cell, 2).ok_or(damaged)? as usize;
                match kind {
                    INTERIOR => below.push(number(page, cell, 4).ok_or(damaged)? as u32),
                    LEAF => {
                        let payload = self.payload(page, cell, &mut left).ok_or(damaged)?;
                        visit(record(&payload).ok_or(damaged)?);
                    }
                    _ => return Err(damaged),
                }
            }
            if kind == INTERIOR {
                below.push(number(page, header + 8, 4).ok_or(damaged)? as u32);
            }
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// What a cell of a leaf holds, of which some may lie on pages of its own; `left` is how much rows may still hold.
    fn payload(&self, page: &[u8], cell: usize, left: &mut usize) -> Option<Vec<u8>> {
        let (length, after) = varint(page, cell)?;
        let (_key, start) = varint(page, after)?;
        let length = usize::try_from(length).ok()?;
        *left = left.checked_sub(length)?;
        // "B-tree Cell Format": how much of it stays in the cell.
        let (most, least) = (self.usable - 35, (self.usable - 12) * 32 / 255 - 23);
        let here = match length <= most {
            true => length,
            false => Some(least + (length - least) % (self.usable - 4))
                .filter(|kept| *kept <= most)
                .unwrap_or(least),
        };
        let mut payload = page.get(start..start.checked_add(here)?)?.to_vec();
        if here < length {
            let mut next = number(page, start + here, 4)? as u32;
            while payload.len() < length {
                let page = self.page(next).ok()?;
                next = number(page, 0, 4)? as u32;
                let more = (length - payload.len()).min(self.usable - 4);
                payload.extend_from_slice(page.get(4..4 + more)?);
            }
        }
        Some(payload)
    }
}

/// The values of a row ("Record Format").
fn record(payload: &[u8]) -> Option<Vec<Value<'_>>> {
    let (header, mut at) = varint(payload, 0)?;
    let header = usize::try_from(header).ok().filter(|header| *header <= payload.len())?;
    let (mut values, mut body) = (Vec::new(), header);
    while at < header {
        let (kind, next) = varint(payload, at)?;
        at = next;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let bytes = payload.get(body..body.checked_add(length)?)?;
        body += length;
        values.push(match kind {
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => {
                let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
                let start = if negative { -1 } else { 0 };
                Value::Integer(bytes.iter().fold(start, |n, byte| n << 8 | i64::from(*byte)))
            }
            0 | 7 => Value::Other,
            _ => Value::Bytes(bytes),
        });
    }
    Some(values)
}

/// A number of `length` bytes, the highest first.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

/// A number of one to nine bytes, and where it ends.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for i in 0..8 {
        let byte = *bytes.get(at + i)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, at + i + 1));
        }
    }
    Some((value << 8 | u64::from(*bytes.get(at + 8)?), at + 9))
}
