//! Typed operations, one to one with BuildKit's LLB (`solver/pb/ops.proto`).
//!
//! Every LLB field is kept, also those that no key of ours reads: BuildKit's own cache digests need them.
//! Input indexes (`Option<usize>`) point into the vertex's input list; `None` is scratch (LLB's -1).

mod exec;
mod file;

use std::collections::BTreeMap;

pub use exec::{
    CacheMount, CacheSharing, CdiDevice, ExecMeta, ExecOp, HostIp, Mount, MountContentCache, MountKind,
    NetMode, ProxyEnv, SecretEnv, SecretMount, SecurityMode, SshMount, Ulimit,
};
pub use file::{
    ActionInput, ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, MkDirAction, MkFileAction,
    RmAction, SymlinkAction, UserOpt,
};

use crate::graph::Graph;

/// One operation of a build graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Brings something in from outside: an image, a local directory, a git repository, a URL.
    Source(SourceOp),
    /// Runs a command in a sandbox. Boxed: much the largest.
    Exec(Box<ExecOp>),
    /// Copies, makes and removes files.
    File(FileOp),
    /// Stacks inputs, later over earlier. Indexes into the vertex's inputs.
    Merge(MergeOp),
    /// What has to be applied to `lower` to get `upper`.
    Diff(DiffOp),
    /// Solves a graph that an input holds.
    Build(BuildOp),
    /// Hands inputs through under new output indexes.
    Passthrough(PassthroughOp),
}

/// A source, identified as LLB does it: `docker-image://…`, `local://…`, `git://…`, `https://…`, `oci-layout://…`,
/// `docker-image+blob://…`, `oci-layout+blob://…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOp {
    /// Scheme, `://` and the reference.
    pub identifier: String,
    /// Settings such as `local.followpaths` or `git.keepgitdir`; see [`attr`].
    pub attrs: BTreeMap<String, String>,
}

impl SourceOp {
    /// Splits the identifier at `://`; the scheme is empty where there is none.
    pub fn scheme_and_ref(&self) -> (&str, &str) {
        self.identifier.split_once("://").unwrap_or(("", &self.identifier))
    }
}

/// Names of source attributes, as LLB spells them (`solver/pb/attr.go`).
pub mod attr {
    #![expect(missing_docs, reason = "the names say it; their meaning is BuildKit's")]
    pub const KEEP_GIT_DIR: &str = "git.keepgitdir";
    pub const FULL_REMOTE_URL: &str = "git.fullurl";
    pub const GIT_AUTH_HEADER_SECRET: &str = "git.authheadersecret";
    pub const GIT_AUTH_TOKEN_SECRET: &str = "git.authtokensecret";
    pub const GIT_KNOWN_SSH_HOSTS: &str = "git.knownsshhosts";
    pub const GIT_MOUNT_SSH_SOCK: &str = "git.mountsshsock";
    pub const GIT_CHECKSUM: &str = "git.checksum";
    pub const GIT_SKIP_SUBMODULES: &str = "git.skipsubmodules";
    pub const GIT_MTIME: &str = "git.mtime";
    pub const GIT_FETCH_BY_COMMIT: &str = "git.fetchbycommit";
    pub const GIT_BUNDLE: &str = "git.bundle";
    pub const GIT_CHECKOUT_BUNDLE: &str = "git.checkoutbundle";
    pub const GIT_SIG_PUBKEY: &str = "git.sig.pubkey";
    pub const GIT_SIG_REJECT_EXPIRED: &str = "git.sig.rejectexpired";
    pub const GIT_SIG_REQUIRE_SIGNED_TAG: &str = "git.sig.requiresignedtag";
    pub const GIT_SIG_IGNORE_SIGNED_TAG: &str = "git.sig.ignoresignedtag";
    pub const HTTP_SIG_PUBKEY: &str = "http.sig.pubkey";
    pub const HTTP_SIG_SIGNATURE: &str = "http.sig.signature";
    /// The attributes that ask for a signature begin with these.
    pub const SIGNATURES: [&str; 2] = ["git.sig.", "http.sig."];
    pub const LOCAL_SESSION_ID: &str = "local.session";
    pub const LOCAL_UNIQUE_ID: &str = "local.unique";
    pub const INCLUDE_PATTERNS: &str = "local.includepattern";
    pub const FOLLOW_PATHS: &str = "local.followpaths";
    pub const EXCLUDE_PATTERNS: &str = "local.excludepatterns";
    pub const SHARED_KEY_HINT: &str = "local.sharedkeyhint";
    pub const LOCAL_DIFFER: &str = "local.differ";
    pub const METADATA_TRANSFER: &str = "local.metadatatransfer";
    pub const METADATA_TRANSFER_EXCLUDE: &str = "local.metadatatransferexclude";
    pub const HTTP_CHECKSUM: &str = "http.checksum";
    pub const HTTP_FILENAME: &str = "http.filename";
    pub const HTTP_PERM: &str = "http.perm";
    pub const HTTP_UID: &str = "http.uid";
    pub const HTTP_GID: &str = "http.gid";
    pub const HTTP_AUTH_HEADER_SECRET: &str = "http.authheadersecret";
    pub const HTTP_HEADER_PREFIX: &str = "http.header.";
    pub const IMAGE_RESOLVE_MODE: &str = "image.resolvemode";
    pub const IMAGE_RECORD_TYPE: &str = "image.recordtype";
    pub const IMAGE_LAYER_LIMIT: &str = "image.layerlimit";
    pub const IMAGE_CHECKSUM: &str = "image.checksum";
    pub const OCI_LAYOUT_SESSION_ID: &str = "oci.session";
    pub const OCI_LAYOUT_STORE_ID: &str = "oci.store";
    pub const OCI_LAYOUT_LAYER_LIMIT: &str = "oci.layerlimit";
}

/// A merge of two or more inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeOp {
    /// Lowest first; `None` is scratch.
    pub inputs: Vec<Option<usize>>,
}

/// The difference of two inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffOp {
    /// What is taken away; `None` is scratch.
    pub lower: Option<usize>,
    /// What remains; `None` is scratch.
    pub upper: Option<usize>,
}

/// A nested build (LLB's BuildOp).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOp {
    /// The input that builds, or `None` for LLB itself (`llbbuild`).
    pub builder: Option<usize>,
    /// Named inputs.
    pub inputs: BTreeMap<String, usize>,
    /// The graph to build where no input holds it.
    pub definition: Option<Box<Graph>>,
    /// Settings of the builder.
    pub attrs: BTreeMap<String, String>,
}

/// Inputs under new output numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassthroughOp {
    /// Distinguishes vertices that pass the same inputs.
    pub id: String,
    /// The input index behind each output.
    pub outputs: Vec<usize>,
}

/// An operating system and architecture (OCI image spec, "platform").
#[derive(
    Debug, Clone, PartialEq, Eq, Default, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Platform {
    /// GOARCH, such as `amd64`.
    pub architecture: String,
    /// GOOS, such as `linux`.
    pub os: String,
    /// CPU variant such as `v7`; mostly empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Windows build number; mostly empty.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}
