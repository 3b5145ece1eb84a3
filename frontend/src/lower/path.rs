//! Slash-separated paths of images and contexts, as Go's `path` and BuildKit's `util/system` treat them.

use thiserror::Error;

/// Why a Windows path cannot be used; Linux paths always can.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// A bare drive letter.
    #[error("removing drive letter: No relative path specified in \"{0}\"")]
    DriveOnly(String),
    /// `\\host\share`.
    #[error("removing drive letter: UNC paths are not supported")]
    Unc,
    /// Another drive.
    #[error("removing drive letter: The specified path is not on the system drive (C:)")]
    OtherDrive,
}

/// The shortest path that means the same: no `.`, no doubled slashes, `..` resolved; `.` when nothing is left.
pub(crate) fn clean(path: &str) -> String {
    if is_clean(path) {
        return path.to_owned();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    match (rooted, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

/// Whether no part of a path is empty, `.` or `..`: then [`clean`] leaves it as it is.
fn is_clean(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    path.strip_prefix('/').unwrap_or(path).split('/').all(plain)
}

/// Joins and cleans; empty parts do not count.
pub(crate) fn join(first: &str, second: &str) -> String {
    match (first, second) {
        ("", "") => String::new(),
        ("", one) | (one, "") => clean(one),
        ("/", rest) if !rest.starts_with('/') && is_clean(rest) => ["/", rest].concat(),
        _ => clean(&[first, "/", second].concat()),
    }
}

/// The last element, as Go's `path.Base` gives it.
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() { "/" } else { path.rsplit('/').next().unwrap_or(path) }
}

/// With forward slashes only.
pub(crate) fn to_slash(path: &str, os: &str) -> String {
    if os == "windows" { path.replace('\\', "/") } else { path.to_owned() }
}

/// Whether the path is absolute on `os`; a drive letter does not make it so.
pub(crate) fn is_absolute(path: &str, os: &str) -> bool {
    without_drive(path, os, false).is_ok_and(|path| path.starts_with('/'))
}

/// An absolute path with forward slashes and without a drive letter; relative ones start from `parent`.
///
/// Absolute paths are not cleaned. `keep_slash` keeps a final `/` or `/.`, which COPY gives a meaning.
pub(crate) fn normalize(parent: &str, path: &str, os: &str, keep_slash: bool) -> Result<String, PathError> {
    let written = to_slash(path, os);
    let parent = without_drive(if parent.is_empty() { "/" } else { parent }, os, keep_slash)?;
    let parent = if parent.starts_with('/') { parent } else { join("/", &parent) };
    let mut path = without_drive(if written.is_empty() { &parent } else { &written }, os, keep_slash)?;
    if !path.starts_with('/') {
        path = join(&parent, &path);
    }
    if keep_slash {
        path = with_final_slash_of(&written, path);
    }
    Ok(path)
}

/// A working directory: absolute, with the separators of `os`.
pub(crate) fn workdir(current: &str, path: &str, os: &str) -> Result<String, PathError> {
    let path = normalize(current, path, os, false)?;
    Ok(if os == "windows" { path.replace('/', "\\") } else { path })
}

/// Cleans a path of a file action; a relative one starts from `parent`.
pub(crate) fn action_path(parent: &str, path: &str, keep_slash: bool) -> String {
    let mut cleaned = clean(path);
    if !cleaned.starts_with('/') {
        cleaned = join(&format!("/{parent}"), &cleaned);
    }
    if keep_slash { with_final_slash_of(path, cleaned) } else { cleaned }
}

fn with_final_slash_of(written: &str, mut path: String) -> String {
    if written.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    } else if written.ends_with("/.") {
        if path != "/" {
            path.push('/');
        }
        path.push('.');
    }
    path
}

/// On Windows, the path with forward slashes and without `C:`.
pub(crate) fn without_drive(path: &str, os: &str, keep_slash: bool) -> Result<String, PathError> {
    if os != "windows" {
        return Ok(path.to_owned());
    }
    let path = to_slash(path, os);
    if path.len() == 2 && path.ends_with(':') {
        return Err(PathError::DriveOnly(path));
    }
    if path.starts_with("//") {
        return Err(PathError::Unc);
    }
    let rest = match path.split_once(':') {
        None => path.as_str(),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => return Err(PathError::OtherDrive),
    };
    let mut cleaned = clean(rest);
    if keep_slash && cleaned.len() > 1 && rest.ends_with('/') {
        cleaned.push('/');
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_like_go() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//", "/"),
            ("a/", "a"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("a/..", "."),
            ("../../a/..", "../.."),
            ("/a/./b//c/", "/a/b/c"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!((base(""), base("/"), base("/a/b/"), base("c")), (".", "/", "b", "c"));
    }

    #[test]
    fn normalizes() {
        for (parent, path, os, expected) in [
            ("/w", "a", "linux", "/w/a"),
            ("/w", "./", "linux", "/w/"),
            ("/w", "a/.", "linux", "/w/a/."),
            ("/", "/a/../b", "linux", "/a/../b"),
            ("/", ".", "linux", "/"),
            ("", "x/", "linux", "/x/"),
            ("/w", r"C:\a\b\", "windows", "/a/b/"),
            (r"\w", r"c\d", "windows", "/w/c/d"),
        ] {
            assert_eq!(normalize(parent, path, os, true).unwrap(), expected, "{parent} {path}");
        }
        assert_eq!(normalize("/", "d:/x", "windows", true), Err(PathError::OtherDrive));
        assert_eq!(workdir("/a", "b/../c", "linux").unwrap(), "/a/c");
    }
}
