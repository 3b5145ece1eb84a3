//! Columns, counts and times for humans.

use std::io::{self, Write as _};

use prost_types::Timestamp;

/// Prints rows with columns as wide as their widest cell, three blanks between.
pub(super) fn print(rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    stdout(&text)
}

/// Writes to stdout; a reader that has seen enough is no error.
pub(super) fn stdout(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// A row of cells.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// Bytes in decimal units with three digits or so: `1.23MB`.
pub(super) fn size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ => format!("{value:.2}{}", UNITS[unit]),
    }
}

/// The first characters of a text, `most` at most unless all are wanted; `…` stands for the rest.
pub(super) fn cut(text: &str, most: usize, whole: bool) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) if !whole => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

/// How long ago, in the largest unit of which there are at least two.
pub(super) fn ago(time: Option<&Timestamp>) -> String {
    let Some(time) = time.filter(|time| time.seconds > 0) else { return "N/A".to_owned() };
    let seconds = jiff::Timestamp::now().as_second().saturating_sub(time.seconds).max(0);
    let units = [
        (365 * 86_400, "years"),
        (30 * 86_400, "months"),
        (7 * 86_400, "weeks"),
        (86_400, "days"),
        (3600, "hours"),
        (60, "minutes"),
    ];
    match units.iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name} ago", seconds / unit),
        None if seconds == 1 => "1 second ago".to_owned(),
        None => format!("{seconds} seconds ago"),
    }
}

/// The hex digits of a digest, cut to twelve unless asked for all.
pub(super) fn short(digest: &str, whole: bool) -> String {
    match digest.strip_prefix("sha256:") {
        Some(hex) if !whole => hex.chars().take(12).collect(),
        _ => digest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(size(999), "999B");
        assert_eq!(size(1_234_567), "1.23MB");
        assert_eq!(short("sha256:0123456789abcdef", false), "0123456789ab");
        assert_eq!(short("name", false), "name");
        let now = jiff::Timestamp::now().as_second();
        assert_eq!(ago(Some(&Timestamp { seconds: now - 3 * 3600, nanos: 0 })), "3 hours ago");
        assert_eq!(ago(None), "N/A");
    }
}
