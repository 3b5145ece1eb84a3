//! How a source that is one file lies in the image: name, mode and owner, by the attributes of HTTP sources.

use cache::layer::Meta;
use reqwest::Url;
use solver::ExecError;
use solver::digest::Hasher;
use solver::op::{SourceOp, attr};

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

/// The name as the source says it, as the server does, or by the URL: that of the answer, or else that of the source.
pub(super) fn file_name(op: &SourceOp, disposition: Option<&str>, url: Option<&Url>) -> String {
    if let Some(name) = own_name(op) {
        return name;
    }
    if let Some(name) = disposition.and_then(disposition_name) {
        return name;
    }
    let own = || Url::parse(&op.identifier).ok();
    let url = url.cloned().or_else(own);
    safe_name(url.as_ref().and_then(|url| url.path_segments()?.next_back()).unwrap_or_default())
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
    let number = |attr: &'static str, radix| match op.attrs.get(attr) {
        Some(value) => u32::from_str_radix(value.trim_start_matches("0o"), radix)
            .map(Some)
            .map_err(|_| ExecError::failed(BadNumber { attr, value: value.clone() })),
        None => Ok(None),
    };
    Ok(Meta {
        mode: number(attr::HTTP_PERM, 8)?.unwrap_or(DEFAULT_MODE),
        uid: number(attr::HTTP_UID, 10)?.unwrap_or(0),
        gid: number(attr::HTTP_GID, 10)?.unwrap_or(0),
        // Without a time of its own the file is from 1970, as in BuildKit: the time of the download must not count.
        mtime: modified.unwrap_or(0),
        ..Meta::default()
    })
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
    fn numbers_that_are_none() {
        let of = |name: &str, value: &str| {
            let attrs = [(name.to_owned(), value.to_owned())].into();
            meta(&SourceOp { identifier: "https://h/f".to_owned(), attrs }, None).map_err(|e| e.to_string())
        };
        assert_eq!(of(attr::HTTP_PERM, "0644").unwrap().mode, 0o644);
        let error = of(attr::HTTP_UID, "root").unwrap_err();
        assert!(error.contains("invalid `http.uid` `root` of a file"), "{error}");
    }
}
