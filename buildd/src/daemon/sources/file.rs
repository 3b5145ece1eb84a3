//! How a source that is one file lies in the image: name, mode and owner, by the attributes of HTTP sources.

use cache::layer::Meta;
use reqwest::Url;
use serde_json::Value;
use solver::ExecError;
use solver::digest::Hasher;
use solver::op::{SourceOp, attr};

use crate::purl;

/// What BuildKit gives a file that names no other mode.
const DEFAULT_MODE: u32 = 0o600;
/// What BuildKit calls a file whose name cannot be one.
const DEFAULT_NAME: &str = "download";

/// An attribute that is no number.
#[derive(Debug, thiserror::Error)]
#[error("invalid `{attr}` `{value}` of a file")]
struct BadNumber {
    attr: &'static str,
    value: String,
}

/// The name as the source says it, as the server does, or by the source's URL, wherever that leads.
pub(super) fn file_name(op: &SourceOp, disposition: Option<&str>) -> String {
    if let Some(name) = own_name(op) {
        return name;
    }
    if let Some(name) = disposition.and_then(disposition_name) {
        return name;
    }
    let path = Url::parse(&op.identifier).map(|url| url.path().to_owned()).unwrap_or_default();
    safe_name(&purl::unescape(&path).unwrap_or(path))
}

/// The name that the source gives itself.
pub(super) fn own_name(op: &SourceOp) -> Option<String> {
    op.attrs.get(attr::HTTP_FILENAME).filter(|name| !name.is_empty()).map(|name| safe_name(name))
}

/// The last component of a name, if it can be a file's.
fn safe_name(name: &str) -> String {
    let name = name.trim().trim_end_matches('/');
    let last = name.rsplit('/').next().unwrap_or_default();
    match last {
        "" | "." | ".." => DEFAULT_NAME.to_owned(),
        last if last.contains(char::is_control) => DEFAULT_NAME.to_owned(),
        last => last.to_owned(),
    }
}

/// `filename=` of a Content-Disposition, its last component only (RFC 6266, section 4.3).
fn disposition_name(header: &str) -> Option<String> {
    let (_, rest) = header.split_once("filename=")?;
    let name = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split(';').next()?.trim(),
    };
    let name = name.rsplit(['/', '\\']).next()?;
    (!name.is_empty() && name != "." && name != "..").then(|| name.to_owned())
}

/// Mode, owner and time; `modified` in nanoseconds since 1970.
///
/// # Errors
/// A mode or owner that is no number.
pub(super) fn meta(op: &SourceOp, modified: Option<i64>) -> Result<Meta, ExecError> {
    Ok(Meta {
        mode: number(op, attr::HTTP_PERM)?.filter(|mode| *mode != 0).unwrap_or(DEFAULT_MODE),
        uid: number(op, attr::HTTP_UID)?.unwrap_or(0),
        gid: number(op, attr::HTTP_GID)?.unwrap_or(0),
        // Without a time of its own the file is from 1970, as in BuildKit: the time of the download must not count.
        mtime: modified.unwrap_or(0),
        ..Meta::default()
    })
}

/// Mode and owner as the source gives them, under the names that they have in BuildKit's keys.
///
/// # Errors
/// As [`meta`].
pub(super) fn key_fields(op: &SourceOp) -> Result<[(String, Value); 3], ExecError> {
    let field = |name: &str, attr| {
        let number = number(op, attr)?.unwrap_or(0);
        Ok::<_, ExecError>((name.to_owned(), number.into()))
    };
    Ok([field("Perm", attr::HTTP_PERM)?, field("UID", attr::HTTP_UID)?, field("GID", attr::HTTP_GID)?])
}

/// A number as Go reads it: octal after `0` or `0o`, hexadecimal after `0x`, binary after `0b`, else decimal.
fn number(op: &SourceOp, attr: &'static str) -> Result<Option<u32>, ExecError> {
    let Some(value) = op.attrs.get(attr) else { return Ok(None) };
    let (digits, radix) = match value.split_at_checked(2) {
        Some(("0o" | "0O", digits)) => (digits, 8),
        Some(("0x" | "0X", digits)) => (digits, 16),
        Some(("0b" | "0B", digits)) => (digits, 2),
        Some((two, _)) if two.starts_with('0') => (&value[1..], 8),
        _ => (value.as_str(), 10),
    };
    match u32::from_str_radix(digits, radix) {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(ExecError::failed(BadNumber { attr, value: value.clone() })),
    }
}

/// Takes into an identity how the file lies.
pub(super) fn identify(h: &mut Hasher, name: &str, meta: &Meta) {
    h.str(name).u64(meta.mode.into()).u64(meta.uid.into()).u64(meta.gid.into()).i64(meta.mtime);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_headers() {
        for (header, want) in [
            ("attachment; filename=\"a b.txt\"", Some("a b.txt")),
            ("attachment; filename=x.tar; size=1", Some("x.tar")),
            ("attachment; filename=\"../../etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"..\"", None),
            ("inline", None),
        ] {
            assert_eq!(disposition_name(header).as_deref(), want, "{header}");
        }
    }

    #[test]
    fn names_in_urls() {
        for (url, want) in [
            ("https://h/a/b%20c?d=e", "b c"),
            ("https://h/a/", "a"),
            ("https://h", "download"),
            ("https://h/%", "%"),
        ] {
            let op = SourceOp { identifier: url.to_owned(), attrs: Default::default() };
            assert_eq!(file_name(&op, None), want, "{url}");
        }
    }

    #[test]
    fn names_that_cannot_be_a_files() {
        for (name, want) in [
            ("a", "a"),
            (" a b ", "a b"),
            ("/etc/passwd", "passwd"),
            ("..", "download"),
            ("a/..", "download"),
            ("", "download"),
            ("a\nb", "download"),
        ] {
            assert_eq!(safe_name(name), want, "{name:?}");
        }
    }

    #[test]
    fn numbers() {
        let of = |name: &str, value: &str| {
            let attrs = [(name.to_owned(), value.to_owned())].into();
            meta(&SourceOp { identifier: "https://h/f".to_owned(), attrs }, None).map_err(|e| e.to_string())
        };
        for (text, mode) in
            [("0644", 0o644), ("0o644", 0o644), ("420", 0o644), ("0x1a4", 0o644), ("0", 0o600)]
        {
            assert_eq!(of(attr::HTTP_PERM, text).unwrap().mode, mode, "{text}");
        }
        assert_eq!(of(attr::HTTP_UID, "12").unwrap().uid, 12);
        assert!(of(attr::HTTP_PERM, "0o").is_err() && of(attr::HTTP_PERM, "").is_err());
        let error = of(attr::HTTP_UID, "root").unwrap_err();
        assert!(error.contains("invalid `http.uid` `root` of a file"), "{error}");
    }
}
