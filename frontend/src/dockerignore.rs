//! The syntax of `.dockerignore`: one pattern a line, comments, `!`. What the patterns mean is [`solver::pattern`]'s.

use solver::pattern::clean;

/// The patterns of a `.dockerignore` file, cleaned, for [`solver::pattern::PatternMatcher::new`].
///
/// A byte-order mark is dropped, lines that start with `#` are comments, blanks around patterns and after `!` do not count,
/// and one leading slash is dropped. Bytes that are not UTF-8 become U+FFFD.
pub fn read_patterns(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<String> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (mark, pattern) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        return Some(mark.to_owned());
    }
    let cleaned = clean(pattern);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
    Some(format!("{mark}{relative}"))
}
