//! What graphs are made from.

use std::collections::BTreeMap;

use cache::oci::Reference;
use serde_json::{Value, json};
use solver::op::{ExecOp, MountKind, NetMode, Platform, attr};
use solver::{Digest, ExecError, Graph, Op, VertexContext, redacted};

use super::purl::purl;
use crate::daemon::sources::Sources;
use crate::daemon::sources::image::oci_platform;
use crate::purl::qualify;

/// What a source turned out to be in a build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::daemon) enum Pin {
    /// An image.
    Image {
        /// As the user named it, normalised.
        reference: Reference,
        /// For which platform.
        platform: Platform,
        /// Of what the name stands for.
        digest: Digest,
        /// It is in an OCI layout of the client.
        layout: bool,
    },
    /// One blob of an image.
    Blob(PinnedBlob),
    /// A commit.
    Git {
        /// The repository, and after `#` the branch or tag where one was named. Credentials are masked.
        url: String,
        /// In hexadecimal digits.
        commit: String,
        /// Where its commits came from instead.
        bundle: Option<PinnedBlob>,
    },
    /// A file.
    Http {
        /// From where; credentials are masked.
        url: String,
        /// Of its bytes.
        digest: Digest,
    },
    /// A directory of the client, of which nothing can be told but its name.
    Local(String),
}

/// A blob, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::daemon) struct PinnedBlob {
    /// Repository and digest.
    pub reference: Reference,
    /// It is in an OCI layout of the client.
    pub layout: bool,
}

impl PinnedBlob {
    /// As a material, qualified in alphabetical order.
    fn material(&self, qualifiers: &[(&str, &str)]) -> Value {
        let mut uri = purl(if self.layout { "oci" } else { "docker" }, &self.reference, None);
        for (name, value) in qualifiers {
            qualify(&mut uri, name, value);
        }
        match self.reference.digest() {
            Some(digest) => json!({ "uri": uri, "digest": { "sha256": digest.hex() } }),
            None => json!({ "uri": uri }),
        }
    }
}

/// What one or several graphs are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Capture {
    sources: Vec<Pin>,
    /// Whether each is optional, by id.
    secrets: BTreeMap<String, bool>,
    ssh: BTreeMap<String, bool>,
    network: bool,
}

impl Capture {
    /// What the head of a graph is made from. The build has evaluated it, so its sources are pinned.
    ///
    /// # Errors
    /// A source that has gone meanwhile; cancellation.
    pub(in crate::daemon) async fn of_graph(
        sources: &Sources,
        graph: &Graph,
        cx: &VertexContext,
    ) -> Result<Self, ExecError> {
        let mut capture = Self::default();
        let reachable = graph.reachable(graph.head);
        for (vertex, _) in graph.vertices().iter().zip(reachable).filter(|(_, reachable)| *reachable) {
            match &vertex.op {
                Op::Source(op) => {
                    capture.secret(op.attrs.get(attr::GIT_AUTH_TOKEN_SECRET), true);
                    capture.secret(op.attrs.get(attr::GIT_AUTH_HEADER_SECRET), true);
                    if let Some(id) = op.attrs.get(attr::GIT_MOUNT_SSH_SOCK) {
                        capture.agent(id, true);
                    }
                    capture.add(sources.pin(op, vertex.platform.as_ref(), cx).await?);
                }
                Op::Exec(op) => capture.exec(op),
                Op::File(_) | Op::Merge(_) | Op::Diff(_) | Op::Build(_) | Op::Passthrough(_) => {}
            }
        }
        Ok(capture)
    }

    fn exec(&mut self, op: &ExecOp) {
        for mount in &op.mounts {
            match &mount.kind {
                MountKind::Secret(secret) => self.secret(Some(&secret.id), secret.optional),
                MountKind::Ssh(ssh) => self.agent(&ssh.id, ssh.optional),
                _ => {}
            }
        }
        for secret in &op.secret_env {
            self.secret(Some(&secret.id), secret.optional);
        }
        self.network |= op.network != NetMode::None;
    }

    fn add(&mut self, pin: Option<Pin>) {
        if let Some(pin) = pin.filter(|pin| !self.sources.contains(pin)) {
            self.sources.push(pin);
        }
    }

    fn secret(&mut self, id: Option<&String>, optional: bool) {
        if let Some(id) = id {
            *self.secrets.entry(id.clone()).or_insert(true) &= optional;
        }
    }

    fn agent(&mut self, id: &str, optional: bool) {
        let id = if id.is_empty() { "default" } else { id };
        *self.ssh.entry(id.to_owned()).or_insert(true) &= optional;
    }

    /// Takes over what another is made from.
    pub(in crate::daemon) fn merge(&mut self, other: Self) {
        for pin in other.sources {
            self.add(Some(pin));
        }
        for (id, optional) in &other.secrets {
            self.secret(Some(id), *optional);
        }
        for (id, optional) in &other.ssh {
            self.agent(id, *optional);
        }
        self.network |= other.network;
    }

    /// The sources that anybody could fetch again, images first, each kind sorted by name.
    pub(super) fn materials(&self) -> Vec<Value> {
        let mut sources: Vec<&Pin> = self.sources.iter().collect();
        sources.sort();
        let material = |pin: &&Pin| match pin {
            Pin::Image { reference, platform, digest, layout } => {
                let kind = if *layout { "oci" } else { "docker" };
                let uri = purl(kind, reference, Some(&oci_platform(platform)));
                vec![json!({ "uri": uri, "digest": { "sha256": digest.hex() } })]
            }
            Pin::Blob(blob) => vec![blob.material(&[("ref_type", "blob")])],
            Pin::Git { url, commit, bundle } => {
                let bundle =
                    bundle.iter().map(|blob| blob.material(&[("ref_type", "bundle"), ("vcs_url", url)]));
                std::iter::once(json!({ "uri": url, "digest": of_commit(commit) })).chain(bundle).collect()
            }
            Pin::Http { url, digest } => vec![json!({ "uri": url, "digest": { "sha256": digest.hex() } })],
            Pin::Local(_) => Vec::new(),
        };
        sources.iter().flat_map(material).collect()
    }

    /// Names of the client's directories.
    pub(super) fn locals(&self) -> Vec<Value> {
        let mut names: Vec<&str> = Vec::new();
        for pin in &self.sources {
            if let Pin::Local(name) = pin
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        names.into_iter().map(|name| json!({ "name": name })).collect()
    }

    /// What the build was given by id: secrets, and agents.
    pub(super) fn given(&self) -> (Vec<Value>, Vec<Value>) {
        let list = |ids: &BTreeMap<String, bool>| {
            let one = |(id, optional): (&String, &bool)| match optional {
                true => json!({ "id": id, "optional": true }),
                false => json!({ "id": id }),
            };
            ids.iter().map(one).collect()
        };
        (list(&self.secrets), list(&self.ssh))
    }

    /// Whether all sources are told as materials.
    pub(super) fn is_complete(&self) -> bool {
        !self.sources.iter().any(|pin| matches!(pin, Pin::Local(_)))
    }

    /// Whether a step could reach the network.
    pub(super) fn uses_network(&self) -> bool {
        self.network
    }

    /// Where a build context came from: its digest where it is one of the sources.
    pub(super) fn config_digest(&self, context: &str) -> Option<Value> {
        let context = redacted(context);
        // A context in a repository may name a subdirectory, the source does not.
        let repository = match context.split_once('#') {
            Some((url, fragment)) => match fragment.split(':').next().unwrap_or_default() {
                "" => url.to_owned(),
                reference => format!("{url}#{reference}"),
            },
            None => context.to_string(),
        };
        self.sources.iter().find_map(|pin| match pin {
            Pin::Git { url, commit, .. } if *url == repository => Some(of_commit(commit)),
            Pin::Http { url, digest } if *url == context => Some(json!({ "sha256": digest.hex() })),
            _ => None,
        })
    }
}

/// A commit's digest under the name of its algorithm.
fn of_commit(commit: &str) -> Value {
    match commit.len() {
        64 => json!({ "sha256": commit }),
        _ => json!({ "sha1": commit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(url: &str, commit: &str) -> Pin {
        Pin::Git { url: url.into(), commit: commit.into(), bundle: None }
    }

    #[test]
    fn directories_of_the_client_are_no_materials() {
        let mut capture = Capture::default();
        capture.add(Some(git("https://h/r#v1", "abc")));
        assert!(capture.is_complete());
        capture.add(Some(Pin::Local("context".into())));
        capture.add(Some(Pin::Local("context".into())));
        assert!(!capture.is_complete());
        assert_eq!(capture.locals(), [json!({ "name": "context" })]);
        assert_eq!(capture.materials(), [json!({ "uri": "https://h/r#v1", "digest": { "sha1": "abc" } })]);
    }

    #[test]
    fn the_context_is_found_among_the_sources() {
        let mut capture = Capture::default();
        capture.add(Some(git("https://xxxxx:xxxxx@h/r.git#v1", "abc")));
        let digest = |context: &str| capture.config_digest(context);
        assert_eq!(digest("https://u:p@h/r.git#v1:sub"), Some(json!({ "sha1": "abc" })));
        assert_eq!(digest("https://u:p@h/r.git#v1"), Some(json!({ "sha1": "abc" })));
        assert_eq!(digest("https://u:p@h/r.git#v2"), None);
    }

    #[test]
    fn what_one_step_needs_is_needed() {
        let mut capture = Capture::default();
        capture.secret(Some(&"a".to_owned()), true);
        capture.agent("", true);
        let mut other = Capture::default();
        other.secret(Some(&"a".to_owned()), false);
        capture.merge(other);
        let (secrets, agents) = capture.given();
        assert_eq!(secrets, [json!({ "id": "a" })]);
        assert_eq!(agents, [json!({ "id": "default", "optional": true })]);
    }
}
