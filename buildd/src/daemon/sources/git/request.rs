//! What a git source asks for.

use solver::op::{SourceOp, attr};

use super::GitError;
use super::refs::Found;
use crate::daemon::sources::image::blob::Locator;
use crate::signatures::GitSigner;

/// The attributes that say who has to have signed the commit.
pub(in crate::daemon::sources) const SIGNATURE: [&str; 4] = [
    attr::GIT_SIG_PUBKEY,
    attr::GIT_SIG_REJECT_EXPIRED,
    attr::GIT_SIG_REQUIRE_SIGNED_TAG,
    attr::GIT_SIG_IGNORE_SIGNED_TAG,
];

/// A git source, taken from its identifier and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) url: String,
    /// A branch, a tag, a full name below `refs/`, a commit, or empty for the default branch.
    pub(super) reference: String,
    /// Without slashes at its ends.
    pub(super) subdir: String,
    /// The beginning of the commit's (or the tag's) hash.
    pub(super) checksum: Option<String>,
    pub(super) keep_git_dir: bool,
    pub(super) submodules: bool,
    /// All files get the commit's time.
    pub(super) commit_times: bool,
    /// The checksum names the commit, and the remote is not asked what the reference is.
    pub(super) by_commit: bool,
    /// What has the commits, instead of the remote. The checksum is set then.
    pub(super) bundle: Option<Locator>,
    /// The result is a bundle with the commit and its history, not its files.
    pub(super) as_bundle: bool,
    /// Who has to have signed the commit.
    pub(super) signer: Option<GitSigner>,
    pub(super) access: AccessRequest,
}

/// What may be used to be let in, all of it the client's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct AccessRequest {
    /// The secret that is an `Authorization` header's value.
    pub(super) header_secret: String,
    /// The secret that is a token.
    pub(super) token_secret: String,
    /// The id of an SSH agent.
    pub(super) agent: Option<String>,
    /// Lines of a `known_hosts` file.
    pub(super) known_hosts: String,
}

impl Request {
    /// # Errors
    /// No URL, or values that git could take for something else.
    pub(super) fn new(op: &SourceOp) -> Result<Self, GitError> {
        let (_, rest) = op.scheme_and_ref();
        let (plain, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let text = |name: &str| op.attrs.get(name).cloned().unwrap_or_default();
        let flag = |name: &str| text(name) == "true";
        let url = match op.attrs.get(attr::FULL_REMOTE_URL) {
            Some(url) => url.clone(),
            None if plain.is_empty() => return Err(GitError::NoUrl(op.identifier.clone())),
            None => format!("https://{plain}"),
        };
        for (what, value) in [("URL", &url[..]), ("ref", reference), ("subdirectory", subdir)] {
            let bad = value.starts_with('-') || value.contains(['\0', '\n']);
            let escapes = what == "subdirectory" && value.split('/').any(|c| c == "..");
            if bad || escapes {
                return Err(GitError::Invalid { what, value: value.to_owned() });
            }
        }
        let checksum = Some(text(attr::GIT_CHECKSUM)).filter(|sum| !sum.is_empty());
        if let Some(sum) = checksum.as_ref().filter(|sum| !sum.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(GitError::BadChecksum(sum.clone()));
        }
        let by_commit = flag(attr::GIT_FETCH_BY_COMMIT) && !is_commit(reference);
        match &checksum {
            None if by_commit => return Err(GitError::NoCommit),
            Some(sum) if by_commit && !is_commit(sum) => return Err(GitError::ShortCommit(sum.clone())),
            _ => {}
        }
        let bundle = text(attr::GIT_BUNDLE);
        // The layout that a bundle is in goes by the bundle's own name where no attribute names it.
        let name = bundle.split_once("://").and_then(|(_, name)| name.split('@').next());
        let bundle = match bundle.is_empty() {
            true => None,
            false => Some(Locator::new(&bundle, op, name)?),
        };
        if bundle.is_some() {
            match &checksum {
                None => return Err(GitError::BundleWithoutChecksum),
                Some(sum) if is_commit(reference) && !reference.starts_with(sum.as_str()) => {
                    return Err(GitError::Checksum { want: sum.clone(), got: reference.to_owned() });
                }
                Some(_) => {}
            }
        }
        let (keep_git_dir, as_bundle) = (flag(attr::KEEP_GIT_DIR), flag(attr::GIT_CHECKOUT_BUNDLE));
        if as_bundle && keep_git_dir {
            return Err(GitError::BundleAnd("git.keepgitdir"));
        }
        if as_bundle && !subdir.is_empty() {
            return Err(GitError::BundleAnd("git.subdir"));
        }
        Ok(Self {
            url,
            reference: reference.to_owned(),
            subdir: subdir.trim_matches('/').to_owned(),
            checksum,
            keep_git_dir,
            submodules: !flag(attr::GIT_SKIP_SUBMODULES),
            commit_times: text(attr::GIT_MTIME) == "commit",
            by_commit,
            bundle,
            as_bundle,
            signer: SIGNATURE.iter().any(|name| op.attrs.contains_key(*name)).then(|| GitSigner {
                keys: text(attr::GIT_SIG_PUBKEY),
                reject_expired: flag(attr::GIT_SIG_REJECT_EXPIRED),
                require_tag: flag(attr::GIT_SIG_REQUIRE_SIGNED_TAG),
                ignore_tag: flag(attr::GIT_SIG_IGNORE_SIGNED_TAG),
            }),
            access: AccessRequest {
                header_secret: text(attr::GIT_AUTH_HEADER_SECRET),
                token_secret: text(attr::GIT_AUTH_TOKEN_SECRET),
                agent: op.attrs.get(attr::GIT_MOUNT_SSH_SOCK).filter(|id| !id.is_empty()).cloned(),
                known_hosts: text(attr::GIT_KNOWN_SSH_HOSTS),
            },
        })
    }

    /// What is to be looked up, and where.
    pub(super) fn asked(&self) -> String {
        let bundle = self.bundle.as_ref().map(|locator| locator.digest);
        format!("{}#{} {bundle:?}", self.url, self.reference)
    }

    /// The commit, where the request itself names it.
    pub(super) fn given(&self) -> Option<Found> {
        let reference = &self.reference;
        let of = |commit: &str, full_ref: String| Found {
            commit: commit.to_owned(),
            object: commit.to_owned(),
            full_ref,
        };
        match &self.checksum {
            _ if is_commit(reference) => Some(of(reference, String::new())),
            Some(commit) if self.by_commit => Some(of(
                commit,
                match reference.as_str() {
                    "" => String::new(),
                    full if full.starts_with("refs/") => full.to_owned(),
                    branch => format!("refs/heads/{branch}"),
                },
            )),
            // A bundle has no default branch: what it is made for is its commit.
            Some(commit) if self.bundle.is_some() && reference.is_empty() && is_commit(commit) => {
                Some(of(commit, String::new()))
            }
            _ => None,
        }
    }
}

/// Whether the text is a commit's whole hash.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(identifier: &str, attrs: &[(&str, &str)]) -> Result<Request, String> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Request::new(&SourceOp { identifier: identifier.to_owned(), attrs }).map_err(|e| e.to_string())
    }

    #[test]
    fn what_could_be_an_option_or_lead_out_is_rejected() {
        let of = |fragment: &str, url: &str| {
            request(&format!("git://x/y{fragment}"), &[(attr::FULL_REMOTE_URL, url)]).is_err()
        };
        assert!(of("#--upload-pack=x", "https://x/y"));
        assert!(of("#main:../../etc", "https://x/y"));
        assert!(of("", "--upload-pack=x"));
        assert!(!of("#main:a/b", "https://x/y"));
    }

    #[test]
    fn commits_are_told_from_other_checksums() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let by_commit = (attr::GIT_FETCH_BY_COMMIT, "true");
        let of = |attrs: &[(&str, &str)]| request("git://x/y#br", attrs).map(|r| r.by_commit);
        assert_eq!(of(&[by_commit, (attr::GIT_CHECKSUM, commit)]), Ok(true));
        assert_eq!(
            of(&[by_commit]),
            Err("fetch-by-commit requires a checksum or a commit SHA ref".to_owned())
        );
        let short = "fetch-by-commit requires a full commit SHA checksum, got \"0123\"";
        assert_eq!(of(&[by_commit, (attr::GIT_CHECKSUM, "0123")]), Err(short.to_owned()));
        let no_hash = "invalid checksum main for Git URL, expected hex commit hash";
        assert_eq!(of(&[(attr::GIT_CHECKSUM, "main")]), Err(no_hash.to_owned()));
        let named = request(&format!("git://x/y#{commit}"), &[by_commit]).unwrap();
        assert!(!named.by_commit, "the ref is one already");
    }

    #[test]
    fn bundles() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let sum = (attr::GIT_CHECKSUM, commit);
        let locator = format!("oci-layout+blob://not/real@sha256:{}", "a".repeat(64));
        let given = (attr::GIT_BUNDLE, locator.as_str());
        let found = request("git://x/y", &[sum, given]).unwrap();
        assert_eq!(found.bundle.as_ref().unwrap().layout.as_ref().unwrap().store, "oci:not/real");
        assert_eq!(found.given().unwrap().commit, commit);
        assert_eq!(request("git://x/y#main", &[sum, given]).unwrap().given(), None);
        let store = request("git://x/y", &[sum, given, (attr::OCI_LAYOUT_STORE_ID, "s")]).unwrap();
        assert_eq!(store.bundle.unwrap().layout.unwrap().store, "oci:s");
        let as_bundle = (attr::GIT_CHECKOUT_BUNDLE, "true");
        for (identifier, attrs, reason) in [
            ("git://x/y", &[given][..], "git.bundle requires git.checksum"),
            ("git://x/y", &[sum, (attr::GIT_BUNDLE, "https://h/b")], "invalid git.bundle locator"),
            (&format!("git://x/y#{}", "f".repeat(40)), &[sum, given], "expected checksum to match"),
            ("git://x/y", &[as_bundle, (attr::KEEP_GIT_DIR, "true")], "incompatible with git.keepgitdir"),
            ("git://x/y#main:sub", &[as_bundle], "incompatible with git.subdir"),
        ] {
            let error = request(identifier, attrs).unwrap_err();
            assert!(error.contains(reason), "{identifier} {attrs:?}: {error}");
        }
    }
}
