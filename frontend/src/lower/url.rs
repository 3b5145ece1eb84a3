//! URLs taken apart as Go's `net/url` does it: nothing is normalised that Go leaves alone.

/// A URL with an authority, or git's `user@host:path`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Url {
    /// In lower case.
    pub(crate) scheme: String,
    /// With the port.
    pub(crate) host: String,
    /// Decoded.
    pub(crate) path: String,
    /// As written.
    pub(crate) query: String,
    /// Decoded.
    pub(crate) fragment: String,
    /// Everything before query and fragment.
    before_query: String,
}

impl Url {
    /// Parses `scheme://[user@]host/path?query#fragment`; `None` where Go reports an error.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme_fits = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
        if !scheme_fits || !scheme.starts_with(|ch: char| ch.is_ascii_alphabetic()) {
            return None;
        }
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or(authority);
        if host.contains([' ', '<', '>', '"', '\\']) || !is_encoded(path) || !is_encoded(fragment) {
            return None;
        }
        let scheme = scheme.to_lowercase();
        Some(Self {
            before_query: format!("{scheme}://{authority}{}", encode_path(path)),
            scheme,
            host: host.to_owned(),
            path: decode(path, false),
            query: query.to_owned(),
            fragment: decode(fragment, false),
        })
    }

    /// Parses `user@host:path?query#fragment`, which means SSH.
    pub(crate) fn parse_scp(text: &str) -> Option<Self> {
        let word = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        let (user, rest) = text.split_once('@')?;
        let (host, rest) = rest.split_once(':')?;
        if !word(user, b"-_") || !word(host, b"-.") || rest.contains('\n') {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Some(Self {
            scheme: "ssh".to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            fragment: fragment.to_owned(),
            before_query: format!("{user}@{host}:{path}"),
        })
    }

    /// The URL without query and fragment.
    pub(crate) fn without_query(&self) -> String {
        self.before_query.clone()
    }
}

/// Replaces `%XX`, and `+` by a blank in queries; what is no escape stays.
pub(crate) fn decode(text: &str, query: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' if let Some(byte) = escaped(bytes, at) => {
                out.push(byte);
                at += 2;
            }
            b'+' if query => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok())?;
    if digits.starts_with('+') { None } else { u8::from_str_radix(digits, 16).ok() }
}

/// Whether every `%` starts an escape.
fn is_encoded(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, b)| b != b'%' || escaped(text.as_bytes(), at).is_some())
}

/// A path as written if it needs no escapes, else escaped.
fn encode_path(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@[]/%".contains(&b);
    if path.bytes().all(plain) {
        return path.to_owned();
    }
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b);
    decode(path, false)
        .bytes()
        .map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_apart() {
        let url = Url::parse("HTTPS://u@h.x:8/a%20b/c?d=e#f%3Ag").unwrap();
        assert_eq!(url.without_query(), "https://u@h.x:8/a%20b/c");
        assert_eq!(
            (&*url.scheme, &*url.host, &*url.path, &*url.query, &*url.fragment),
            ("https", "h.x:8", "/a b/c", "d=e", "f:g")
        );
        assert_eq!(Url::parse("http://h/ä b").unwrap().without_query(), "http://h/%C3%A4%20b");
        for text in ["h/x", "http://h/%zz", "1a://x", "http://a b/"] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }
}
