//! Reading `WWW-Authenticate` (RFC 9110, 11.6.1).

/// How a host wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// What to call the registry there.
        service: Option<String>,
        /// What the request would have needed.
        scopes: Vec<String>,
    },
}

impl Challenge {
    /// The best challenge among the header's values: a token before a password.
    pub(super) fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut all: Vec<Self> = headers.into_iter().flat_map(parse).collect();
        let bearer = all.iter().position(|challenge| matches!(challenge, Self::Bearer { .. }));
        match bearer {
            Some(position) => Some(all.swap_remove(position)),
            None => all.pop(),
        }
    }
}

/// All challenges of one header value that are understood.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '\t']).unwrap_or(rest.len());
        let scheme = &rest[..end];
        let (parameters, after) = parse_parameters(&rest[end..]);
        rest = after;
        let get = |name: &str| {
            parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = get("realm")
        {
            let scopes = get("scope")
                .unwrap_or_default()
                .split(' ')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect();
            challenges.push(Challenge::Bearer { realm, service: get("service"), scopes });
        }
    }
    challenges
}

/// Parameters as `key=value` or `key="value"`, up to the next scheme.
fn parse_parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut parameters = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some(equals) = rest.find('=') else { return (parameters, skip_token(rest)) };
        let key = &rest[..equals];
        if key.is_empty() || key.contains([' ', ',', '"', '\t']) {
            // The next word is another scheme, not a key.
            return (parameters, rest);
        }
        let (value, after) = parse_value(&rest[equals + 1..]);
        parameters.push((key.to_owned(), value));
        rest = after;
    }
}

/// Drops a last word without `=`, unless it is a scheme of its own.
fn skip_token(rest: &str) -> &str {
    let word = rest.trim();
    if word.eq_ignore_ascii_case("basic") { rest } else { "" }
}

/// A quoted string with its escapes undone, or a bare word.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scopes: &[&str]) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        })
    }

    #[test]
    fn challenges_are_read() {
        let cases: &[(&[&str], Option<Challenge>)] = &[
            (&[r#"Basic realm="Registry Realm""#], Some(Challenge::Basic)),
            (&["basic"], Some(Challenge::Basic)),
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#,
                ],
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    &["repository:library/busybox:pull"],
                ),
            ),
            (
                &[r#"bearer realm=https://x/t, scope="a:b:pull,push c:d:pull""#],
                bearer("https://x/t", None, &["a:b:pull,push", "c:d:pull"]),
            ),
            (&[r#"Basic realm="x", Bearer realm="https://y""#], bearer("https://y", None, &[])),
            (&[r#"Bearer realm="https://y", Basic realm="x""#], bearer("https://y", None, &[])),
            (&[r#"Basic realm="x""#, r#"Bearer realm="https://y""#], bearer("https://y", None, &[])),
            (&[r#"Bearer realm="a\"b\\c""#], bearer("a\"b\\c", None, &[])),
            (&[r#"Bearer realm="unterminated"#], bearer("unterminated", None, &[])),
            (&["Bearer"], None),
            (&["Negotiate abc=="], None),
            (&["Digest realm=x, Basic realm=y"], Some(Challenge::Basic)),
            (&[""], None),
            (&[], None),
        ];
        for (headers, expected) in cases {
            assert_eq!(&Challenge::choose(headers.iter().copied()), expected, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn never_hangs_or_panics(text in "[A-Za-z ,=\"\\\\\t]{0,60}") {
            let _ = Challenge::choose([text.as_str()]);
        }
    }
}
