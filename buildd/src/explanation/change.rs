//! Where a text became another one, in short.

use std::fmt;

/// So many characters of a line are shown at most, but for the dots.
const MAX_CHARS: usize = 60;
/// So many of them at most are what is the same before the first that is another one.
const BEFORE: usize = 20;

/// The first lines that are different, each as far as that shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// A line became another one.
    Line(String, String),
    /// A line came.
    Added(String),
    /// A line went.
    Removed(String),
    /// All that is shown of it is the same; its first line.
    Nothing(String),
}

impl Changed {
    /// What `old` has to become `new`. Lines of the end count as the same before those of the middle do.
    pub(super) fn between(old: &str, new: &str) -> Self {
        let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
        let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
        let (old_rest, new_rest) = (&old[same..], &new[same..]);
        let tail =
            old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(old, new)| old == new).count();
        let (old_rest, new_rest) = (&old_rest[..old_rest.len() - tail], &new_rest[..new_rest.len() - tail]);
        match (old_rest.first(), new_rest.first()) {
            (Some(old), Some(new)) => {
                let same = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
                Self::Line(around(old, same), around(new, same))
            }
            (None, Some(new)) => Self::Added(around(new, 0)),
            (Some(old), None) => Self::Removed(around(old, 0)),
            (None, None) => Self::Nothing(around(old.first().unwrap_or(&""), 0)),
        }
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(old, new) => write!(f, "`{old}` → `{new}`"),
            Self::Added(line) => write!(f, "the line `{line}` is new"),
            Self::Removed(line) => write!(f, "the line `{line}` is gone"),
            Self::Nothing(line) => write!(f, "`{line}`, in what is not shown"),
        }
    }
}

/// As much of a line as fits, with what is at the character `at`; dots for the rest.
fn around(line: &str, at: usize) -> String {
    let count = line.chars().count();
    if count <= MAX_CHARS {
        return line.to_owned();
    }
    let start = at.saturating_sub(BEFORE).min(count - MAX_CHARS);
    let shown: String = line.chars().skip(start).take(MAX_CHARS).collect();
    let (before, after) =
        (if start > 0 { "…" } else { "" }, if start + MAX_CHARS < count { "…" } else { "" });
    format!("{before}{shown}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &str, new: &str, expected: &str) {
        assert_eq!(Changed::between(old, new).to_string(), expected);
    }

    #[test]
    fn the_first_lines_that_are_different() {
        check("RUN a", "RUN b", "`RUN a` → `RUN b`");
        check("RUN <<EOF\necho 1\nEOF", "RUN <<EOF\necho 2\nEOF", "`echo 1` → `echo 2`");
        check("RUN <<EOF\na\nEOF", "RUN <<EOF\na\nb\nEOF", "the line `b` is new");
        check("RUN <<EOF\na\nb\nEOF", "RUN <<EOF\nb\nEOF", "the line `a` is gone");
        check("RUN <<EOF\na\na\nEOF", "RUN <<EOF\na\nEOF", "the line `a` is gone");
        check(
            "ADD http://u:xxxxx@h /",
            "ADD http://u:xxxxx@h /",
            "`ADD http://u:xxxxx@h /`, in what is not shown",
        );
        check("", "RUN a", "the line `RUN a` is new");
    }

    #[test]
    fn long_lines_are_shown_around_the_difference() {
        let long = |x: &str, after: usize| format!("RUN {}{x}{}", "ü".repeat(100), "b".repeat(after));
        let same = "ü".repeat(BEFORE);
        let more = "b".repeat(MAX_CHARS - BEFORE - 1);
        check(&long("1", 100), &long("2", 100), &format!("`…{same}1{more}…` → `…{same}2{more}…`"));
        let end = "ü".repeat(MAX_CHARS - 1);
        check(&long("1", 0), &long("2", 0), &format!("`…{end}1` → `…{end}2`"));
        check("RUN a", &long("", 0), &format!("`RUN a` → `RUN {}…`", "ü".repeat(MAX_CHARS - 4)));
    }
}
