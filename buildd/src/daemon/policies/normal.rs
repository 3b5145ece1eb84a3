//! The identifiers of sources as rules about them know them: one for each source, however it is written.

use cache::oci::Reference;
use solver::op::{SourceOp, attr};
use url::Url;

/// A source's identifier in BuildKit's normal form; one that cannot be read stays as it is.
pub(super) fn normal(op: &SourceOp) -> String {
    let (scheme, rest) = op.scheme_and_ref();
    let normal = match scheme {
        "docker-image" => Reference::parse(rest).ok().map(|image| image.with_default_tag().to_string()),
        "docker-image-blob" => Reference::parse(rest).ok().map(|blob| blob.to_string()),
        "git" => {
            let (plain, fragment) = rest.split_once('#').unwrap_or((rest, ""));
            let url = op.attrs.get(attr::FULL_REMOTE_URL).map_or(plain, String::as_str);
            repository(url).map(|repository| repository + &place(fragment))
        }
        _ => None,
    };
    normal.map_or_else(|| op.identifier.clone(), |normal| format!("{scheme}://{normal}"))
}

/// Host and path of a repository's URL.
fn repository(url: &str) -> Option<String> {
    let (host, path) = match url.split_once("://") {
        Some(_) => {
            let url = Url::parse(url).ok()?;
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            (format!("{}{port}", url.host_str()?), url.path().to_owned())
        }
        // As ssh writes it: `git@host:path`.
        None if url.contains('@') => {
            let (host, path) = url.split_once('@')?.1.split_once(':')?;
            (host.to_owned(), path.to_owned())
        }
        None => {
            let (host, path) = url.split_once('/').unwrap_or((url, ""));
            (host.to_owned(), path.to_owned())
        }
    };
    let path = clean(&path);
    (!host.is_empty()).then(|| if path.is_empty() { format!("{host}/") } else { format!("{host}/{path}") })
}

/// The branch, tag or commit, and the directory in it.
fn place(fragment: &str) -> String {
    let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
    match clean(directory) {
        _ if fragment.is_empty() => String::new(),
        directory if directory.is_empty() => format!("#{reference}"),
        directory => format!("#{reference}:{directory}"),
    }
}

/// A path from the root, without its slashes at the ends.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_one_name() {
        for (given, want) in [
            ("docker-image://alpine", "docker-image://docker.io/library/alpine:latest"),
            ("docker-image://h:5000/a:1", "docker-image://h:5000/a:1"),
            ("docker-image://A b", "docker-image://A b"),
            ("local://context", "local://context"),
            ("https://h/a/../b", "https://h/a/../b"),
            ("git://github.com/u/r.git#main:../absolute/path", "git://github.com/u/r.git#main:absolute/path"),
            ("git://github.com/u/r.git", "git://github.com/u/r.git"),
            ("git://github.com/u/r.git#:d/", "git://github.com/u/r.git#:d"),
        ] {
            let op = SourceOp { identifier: given.to_owned(), attrs: Default::default() };
            assert_eq!(normal(&op), want);
        }
        for (url, want) in [
            ("https://u:p@h:8443/a/./r.git", "git://h:8443/a/r.git#v1"),
            ("git@h:u/r.git", "git://h/u/r.git#v1"),
        ] {
            let attrs = [(attr::FULL_REMOTE_URL.to_owned(), url.to_owned())].into();
            assert_eq!(normal(&SourceOp { identifier: "git://x/y#v1".to_owned(), attrs }), want);
        }
    }
}
