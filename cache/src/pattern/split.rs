//! Where the wildcards of a COPY source begin.

/// Whether a text holds an unescaped `*`, `?` or `[`.
pub fn has_wildcards(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Parts a clean path (`/` between components) before the first component with a wildcard.
///
/// The second half is empty where there is none.
pub fn split_at_wildcard(path: &[u8]) -> (&[u8], &[u8]) {
    let mut start = 0;
    for component in path.split(|&b| b == b'/') {
        if has_wildcards(component) {
            return (&path[..start.max(1) - 1], &path[start..]);
        }
        start += component.len() + 1;
    }
    (path, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_before_the_first_wildcard() {
        for (path, want) in [
            ("a/b", ("a/b", "")),
            ("a/*/c", ("a", "*/c")),
            ("*.txt", ("", "*.txt")),
            ("a/b[c]", ("a", "b[c]")),
            (r"a/st\*r", (r"a/st\*r", "")),
            ("", ("", "")),
        ] {
            let got = split_at_wildcard(path.as_bytes());
            assert_eq!(got, (want.0.as_bytes(), want.1.as_bytes()), "{path}");
        }
    }
}
