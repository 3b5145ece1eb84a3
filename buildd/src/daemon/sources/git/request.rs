//! What a git source asks for.

use solver::op::{SourceOp, attr};

use super::GitError;

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
        Ok(Self {
            url,
            reference: reference.to_owned(),
            subdir: subdir.trim_matches('/').to_owned(),
            checksum,
            keep_git_dir: flag(attr::KEEP_GIT_DIR),
            submodules: !flag(attr::GIT_SKIP_SUBMODULES),
            commit_times: text(attr::GIT_MTIME) == "commit",
            by_commit,
            access: AccessRequest {
                header_secret: text(attr::GIT_AUTH_HEADER_SECRET),
                token_secret: text(attr::GIT_AUTH_TOKEN_SECRET),
                agent: op.attrs.get(attr::GIT_MOUNT_SSH_SOCK).filter(|id| !id.is_empty()).cloned(),
                known_hosts: text(attr::GIT_KNOWN_SSH_HOSTS),
            },
        })
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
}
