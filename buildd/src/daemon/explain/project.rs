//! What is built: what tells whether two builds are of the same thing.

use std::collections::{BTreeMap, BTreeSet};

use cache::oci::Platform;
use solver::Digest;

use crate::session::{FROM_STDIN, UPLOAD};

/// What tells the builds of one thing from those of others.
#[derive(Debug, Clone)]
pub(super) struct Project {
    /// For its platforms.
    pub own: Digest,
    /// For any.
    pub others: Digest,
    pub platforms: String,
    /// For its platforms, as other machines know it, if they do.
    pub shared: Option<Digest>,
    /// It is known what is built: else builds of other directories, and of others, would be taken for earlier ones of it.
    pub is_told: bool,
}

impl Project {
    /// What a build's frontend was asked for; of which directory of which client, which is `called` so, whatever machine it is on.
    pub(super) fn of(asked: Option<&BTreeMap<String, String>>, directory: &[String], called: &str) -> Self {
        let platforms = platforms(asked);
        let digest = |platforms: &str| {
            let mut hasher = solver::digest::Hasher::new("rbuild.explain.project.v2");
            hasher.strs(directory);
            for name in ["filename", "target", "context", "source"] {
                hasher.str(asked.and_then(|attrs| attrs.get(name)).map_or("", String::as_str));
            }
            hasher.str(platforms);
            hasher.finish()
        };
        let is_told = directory.last().is_some_and(|directory| !directory.is_empty());
        let shared = known_as(asked, called).map(|name| {
            let mut hasher = solver::digest::Hasher::new("rbuild.explain.shared-project.v1");
            hasher.str(&name);
            for name in ["filename", "target"] {
                hasher.str(asked.and_then(|attrs| attrs.get(name)).map_or("", String::as_str));
            }
            hasher.str(&platforms);
            hasher.finish()
        });
        Self { own: digest(&platforms), others: digest(""), platforms, shared, is_told }
    }
}

/// What machines that have nothing in common but a cache know a project by: where it comes from, or what its directory is called. `None` of
/// what has no name of its own.
fn known_as(asked: Option<&BTreeMap<String, String>>, called: &str) -> Option<String> {
    let attr = |name: &str| asked.and_then(|attrs| attrs.get(name)).filter(|value| !value.is_empty());
    if let Some(context) =
        attr("context").filter(|context| context.contains("://") || context.starts_with("git@"))
    {
        let (url, fragment) = context.split_once('#').unwrap_or((context, ""));
        // Another branch is the same project, another directory is not.
        let directory = fragment.split_once(':').map_or("", |(_, directory)| directory);
        let from_client = url.starts_with(UPLOAD);
        return (!from_client).then(|| format!("{} {directory}", solver::redacted(url)));
    }
    let called = Some(called).filter(|called| !matches!(*called, "" | FROM_STDIN));
    match attr("vcs:source") {
        Some(source) => {
            let directory = attr("vcs:localdir:context").map(String::as_str).or(called).unwrap_or_default();
            Some(format!("{} {directory}", solver::redacted(source)))
        }
        None => called.map(str::to_owned),
    }
}

/// What a build is for, separated by commas, in one spelling and order.
pub(super) fn platforms(asked: Option<&BTreeMap<String, String>>) -> String {
    let host = Platform::host().to_string();
    let asked = asked.and_then(|attrs| attrs.get("platform")).filter(|platforms| !platforms.is_empty());
    let one = |name: &str| match name.parse::<Platform>() {
        Ok(platform) => platform.normalized().full(),
        Err(_) => name.to_owned(),
    };
    let all: BTreeSet<String> = asked.unwrap_or(&host).split(',').map(one).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_machines_know_it_by() {
        let known = |attrs: &[(&str, &str)], called: &str| {
            let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            known_as(Some(&attrs.collect()), called)
        };
        for (attrs, called, name) in [
            (&[][..], "app", Some("app")),
            (&[], "", None),
            (&[], "-", None),
            (&[("context", "http://buildkit-session/abc")], "app", None),
            (&[("context", "https://u:p@h/r.git")], "", Some("https://xxxxx:xxxxx@h/r.git ")),
            (&[("context", "https://h/r.git#main")], "", Some("https://h/r.git ")),
            (&[("context", "https://h/r.git#v1:svc/a")], "", Some("https://h/r.git svc/a")),
            (&[("context", "git@h:r#v1:a")], "", Some("git@h:r a")),
            (&[("vcs:source", "https://h/r")], "a", Some("https://h/r a")),
            (
                &[("vcs:source", "https://h/r"), ("vcs:localdir:context", "svc/b")],
                "a",
                Some("https://h/r svc/b"),
            ),
            (&[("context", ""), ("vcs:source", "")], "a", Some("a")),
        ] {
            assert_eq!(known(attrs, called).as_deref(), name, "{attrs:?} {called}");
        }
    }
}
