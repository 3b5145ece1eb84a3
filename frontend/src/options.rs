//! What a build asks of the frontend: BuildKit's frontend attributes, read and checked (`frontend/dockerui`).

mod context;
mod error;
mod limits;
mod parse;

use std::collections::{BTreeMap, BTreeSet};

pub use context::{ContextSpec, MainContext};
pub use error::OptionError;
use solver::graph::LinuxResources;
use solver::op::{HostIp, NetMode, Platform, Ulimit};

use crate::lint::CheckOptions;

/// Which stages run again whatever the cache holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of these names, in lower case.
    Stages(BTreeSet<String>),
}

impl NoCache {
    /// Whether the stage of this name (empty for none) runs again.
    pub fn covers(&self, stage: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Stages(names) => names.contains(&stage.to_lowercase()),
        }
    }
}

/// Where image names are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolveMode {
    /// As the daemon sees fit.
    #[default]
    Default,
    /// Always at the registry.
    ForcePull,
    /// In the daemon's own store first.
    PreferLocal,
}

impl ResolveMode {
    /// LLB's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::ForcePull => "pull",
            Self::PreferLocal => "local",
        }
    }
}

/// Where a cache comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheImport {
    /// `registry`, `local`, …
    pub kind: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
}

/// The options of a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildOptions {
    /// The stage that is wanted; `None` is the last.
    pub target: Option<String>,
    /// Values for ARG.
    pub build_args: BTreeMap<String, String>,
    /// Labels for the image.
    pub labels: BTreeMap<String, String>,
    /// The platforms that are wanted; none is the build platform's, and then the base image may say otherwise.
    pub platforms: Vec<Platform>,
    /// The platform that commands run on.
    pub build_platform: Platform,
    /// Whether the result is an index, even of one platform.
    pub multi_platform: bool,
    /// Which stages run again.
    pub no_cache: NoCache,
    /// The main context.
    pub context: MainContext,
    /// `filename`: the Dockerfile's path in its context.
    pub filename: String,
    /// The local source that the Dockerfile is read from.
    pub dockerfile_local: String,
    /// Whether the Dockerfile comes from `dockerfile_local` even when the context is remote.
    pub dockerfile_is_local: bool,
    /// Named contexts: `NAME` or `NAME::PLATFORM` and the text that says what it is.
    pub named_contexts: BTreeMap<String, String>,
    /// Hints by named context that tell the directories of different clients apart.
    pub shared_keys: BTreeMap<String, String>,
    /// Image metadata by frontend input, as JSON.
    pub input_metadata: BTreeMap<String, String>,
    /// The session that local sources come from; without one they name none.
    pub session: Option<String>,
    /// Sessions of single local sources.
    pub local_sessions: BTreeMap<String, String>,
    /// The network of RUN where the Dockerfile says nothing.
    pub network: NetMode,
    /// Lines for /etc/hosts.
    pub extra_hosts: Vec<HostIp>,
    /// The host name of RUN; empty is the usual one.
    pub hostname: String,
    /// Bytes of /dev/shm; 0 is the usual size.
    pub shm_size: i64,
    /// Resource limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// A parent for the cgroups of RUN; empty is the usual one.
    pub cgroup_parent: String,
    /// Limits of each RUN.
    pub resources: Option<LinuxResources>,
    /// Whether `RUN --device` is understood, as the frontend's labs releases do.
    pub devices: bool,
    /// Where image names are looked up.
    pub resolve_mode: ResolveMode,
    /// Keeps the cache mounts of projects apart.
    pub cache_mount_namespace: String,
    /// Caches to use.
    pub cache_imports: Vec<CacheImport>,
    /// Options of the linter that replace the Dockerfile's.
    pub check: Option<CheckOptions>,
    /// Lower all stages, needed or not, as `--check` does.
    pub all_stages: bool,
    /// `requestid`: a question about the Dockerfile in place of a build, such as `frontend.outline`.
    pub subrequest: Option<String>,
    /// `source`: the image of another frontend that was asked for.
    pub frontend_image: Option<String>,
    /// `cmdline`: the whole value of `# syntax=`.
    pub command_line: Option<String>,
    /// `attest:*`: attestations by kind, unread.
    pub attestations: BTreeMap<String, String>,
}

impl BuildOptions {
    /// The options of a plain build for one platform.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            build_platform,
            filename: "Dockerfile".to_owned(),
            dockerfile_local: "dockerfile".to_owned(),
            ..Self::default()
        }
    }

    /// Reads BuildKit's frontend attributes; unknown ones are left alone, as BuildKit does.
    ///
    /// # Errors
    /// The first attribute whose value cannot be.
    pub fn from_attrs(
        attrs: &BTreeMap<String, String>,
        build_platform: Platform,
    ) -> Result<Self, OptionError> {
        parse::parse(attrs, build_platform)
    }

    /// The session that a local source comes from.
    pub fn session_of(&self, local: &str) -> Option<&str> {
        self.local_sessions.get(local).or(self.session.as_ref()).map(String::as_str)
    }
}
