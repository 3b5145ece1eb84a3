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

/// A text with percent signs and hexadecimal digits for some of its bytes, as it is without them; `None` where it is malformed.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                // A number may have a sign, this may not.
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// Adds a qualifier; they stand in alphabetical order.
pub(crate) fn qualify(url: &mut String, name: &str, value: &str) {
    url.push(if url.contains('?') { '&' } else { '?' });
    url.push_str(name);
    url.push('=');
    // What packageurl-go leaves as it is.
    escape(url, value, |byte| b"$&+:=@".contains(&byte));
}
