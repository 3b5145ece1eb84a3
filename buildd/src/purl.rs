//! Package URLs (<https://github.com/package-url/purl-spec>): the parts that all types share.

/// Adds a text with all but unreserved characters (RFC 3986) and those in `plain` as percent signs and digits.
pub(crate) fn escape(url: &mut String, text: &str, plain: impl Fn(u8) -> bool) {
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || plain(byte) {
            true => url.push(byte.into()),
            false => url.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Adds a qualifier; they stand in alphabetical order.
pub(crate) fn qualify(url: &mut String, name: &str, value: &str) {
    url.push(if url.contains('?') { '&' } else { '?' });
    url.push_str(name);
    url.push('=');
    // What packageurl-go leaves as it is.
    escape(url, value, |byte| b"$&+:=@".contains(&byte));
}
