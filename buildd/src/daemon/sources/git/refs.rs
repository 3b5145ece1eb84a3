//! Which commit a name stands for at the remote.

use std::collections::HashMap;

/// The names under which `wanted` may be listed, the preferred first. Empty is the default branch.
pub(super) fn names(wanted: &str) -> Vec<String> {
    match wanted {
        "" => vec!["HEAD".to_owned()],
        full if full.starts_with("refs/") => vec![full.to_owned()],
        // As in BuildKit; git, too, prefers branches to tags.
        short => ["refs/", "refs/heads/", "refs/tags/"].map(|prefix| format!("{prefix}{short}")).to_vec(),
    }
}

/// The patterns that ls-remote is asked for, so that it does not list a large repository's thousands.
pub(super) fn patterns(wanted: &str) -> Vec<String> {
    names(wanted).into_iter().flat_map(|name| [format!("{name}^{{}}"), name]).collect()
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) commit: String,
    /// What the name itself points to: the commit, or the annotated tag around it.
    pub(super) object: String,
    /// The full name: of the branch that HEAD names, if it does.
    pub(super) full_ref: String,
}

impl Found {
    /// Whether there is an annotated tag around the commit.
    pub(super) fn is_tag(&self) -> bool {
        self.object != self.commit
    }
}

/// Finds `wanted` in the output of `ls-remote --symref`.
pub(super) fn select(listing: &str, wanted: &str) -> Option<Found> {
    let lines = listing.lines().filter_map(|line| line.split_once('\t'));
    let (symbolic, listed): (HashMap<_, _>, HashMap<_, _>) = {
        let pairs = lines.map(|(object, name)| (name.trim(), object.trim()));
        pairs.partition(|(_, object)| object.starts_with("ref: "))
    };
    names(wanted).into_iter().find_map(|name| {
        let object = *listed.get(name.as_str())?;
        let commit = listed.get(format!("{name}^{{}}").as_str()).copied().unwrap_or(object);
        let branch = symbolic.get(name.as_str()).and_then(|target| target.strip_prefix("ref: "));
        let full_ref = branch.map_or(name, str::to_owned);
        Some(Found { commit: commit.to_owned(), object: object.to_owned(), full_ref })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "ref: refs/heads/main\tHEAD\naaa\tHEAD\nbbb\trefs/heads/main\nccc\trefs/heads/v1\nddd\trefs/tags/v1\neee\trefs/tags/v2\nfff\trefs/tags/v2^{}\nggg\trefs/pull/7/head\n";

    #[test]
    fn refs_are_found_as_git_would() {
        for (wanted, commit, object, name) in [
            ("", "aaa", "aaa", "refs/heads/main"),
            ("main", "bbb", "bbb", "refs/heads/main"),
            ("heads/main", "bbb", "bbb", "refs/heads/main"),
            ("v1", "ccc", "ccc", "refs/heads/v1"),
            ("refs/tags/v1", "ddd", "ddd", "refs/tags/v1"),
            ("v2", "fff", "eee", "refs/tags/v2"),
            ("pull/7/head", "ggg", "ggg", "refs/pull/7/head"),
        ] {
            let found = select(LISTING, wanted).unwrap();
            assert_eq!(
                (&*found.commit, &*found.object, &*found.full_ref),
                (commit, object, name),
                "{wanted}"
            );
        }
        assert_eq!(select(LISTING, "nope"), None);
        assert_eq!(select("aaa\tHEAD\n", "").unwrap().full_ref, "HEAD", "it is detached");
    }
}
