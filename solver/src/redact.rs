//! Credentials in URLs, masked wherever a text is shown or kept.

use std::borrow::Cow;

/// BuildKit's mask.
const MASK: &str = "xxxxx";

/// The text with the credentials masked in all URLs in it.
///
/// `https://user:password@host` becomes `https://xxxxx:xxxxx@host`. A name without a password is masked only where it
/// may be a token (HTTP): `ssh://git@host` stays.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        done.push_str(before);
        let authority = &after[..after.find(ends_authority).unwrap_or(after.len())];
        let user = authority.rfind('@').map_or("", |end| &authority[..end]);
        match mask(before, user) {
            Some(masked) => done.push_str(&masked),
            None => done.push_str(user),
        }
        rest = &after[user.len()..];
    }
    done.push_str(rest);
    if done == text { Cow::Borrowed(text) } else { Cow::Owned(done) }
}

/// RFC 3986, section 3.2, and what a text puts around a URL.
fn ends_authority(c: char) -> bool {
    matches!(c, '/' | '?' | '#' | '"' | '\'' | '`' | '<' | '>' | '\\') || c.is_whitespace() || c.is_control()
}

fn mask(before: &str, user: &str) -> Option<String> {
    let scheme = before.trim_end_matches("://");
    let web = ["http", "https", "ftp"].iter().any(|s| scheme.to_ascii_lowercase().ends_with(s));
    match user.split_once(':') {
        Some(_) => Some(format!("{MASK}:{MASK}")),
        None if web && !user.is_empty() => Some(MASK.to_owned()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_masked_and_nothing_else() {
        for (text, want) in [
            ("https://u:p@h/x.git#main", "https://xxxxx:xxxxx@h/x.git#main"),
            ("ADD http://token@h/f http://u:p@h:1/g /", "ADD http://xxxxx@h/f http://xxxxx:xxxxx@h:1/g /"),
            ("HTTPS://:p@h", "HTTPS://xxxxx:xxxxx@h"),
            ("cannot fetch `http://u:p@ss@h`: no", "cannot fetch `http://xxxxx:xxxxx@h`: no"),
            ("ssh://git@h/x ssh://git:p@h/x", "ssh://git@h/x ssh://xxxxx:xxxxx@h/x"),
            ("http://h/a@b http://h?q=a@b", "http://h/a@b http://h?q=a@b"),
            ("git@h:x", "git@h:x"),
            ("docker-image://a@sha256:0", "docker-image://a@sha256:0"),
            ("http://", "http://"),
            ("ü://ü@ü", "ü://ü@ü"),
        ] {
            assert_eq!(redacted(text), want);
            assert_eq!(redacted(&redacted(text)), want);
        }
    }
}
