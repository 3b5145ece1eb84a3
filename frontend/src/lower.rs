//! Stages become a graph: BuildKit's `frontend/dockerfile/dockerfile2llb`, without its I/O.
//!
//! [`lower`] goes through the passes of `build`: global ARGs, stages and their FROM lines, the stages that each needs,
//! base images and their triggers, and then every needed stage, instruction by instruction. What it has to know of the
//! outside it takes from a [`Resolved`]; what is not known yet it returns as [`LowerError::Needs`], all of it that
//! can be told at that point, and the caller looks it up and calls again.

mod arena;
mod args;
mod base;
pub(crate) mod build;
mod configure;
mod context;
mod copy;
mod deps;
mod dispatch;
mod env;
mod epoch;
mod error;
mod expose;
mod from;
mod git_ref;
mod healthcheck;
mod mounts;
mod name;
mod named;
mod outline;
mod path;
mod permissions;
mod ports;
mod remote;
mod resolved;
mod run;
mod signal;
mod stage;
mod state;
mod survey;
mod unused;
mod url;
mod variables;

pub use build::{Checked, check, lower};
pub use context::{dockerfile_sources, dockerignore_source, http_context_file};
pub use error::{Failure, Fault, LowerError};
pub use git_ref::{GitRefError, GitSource};
pub use path::{PathError, base};
pub use ports::PortError;
pub use resolved::{ImageRequest, LocalRequest, Need, Resolved, ResolvedImage, TimeRequest};
pub use survey::survey;
pub use unused::unused_args;

use solver::graph::Graph;

use crate::config::ImageConfig;
use crate::lint::Finding;
use crate::subrequest::Outline;

/// A Dockerfile as a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowered {
    /// What makes the target's files; no head is an empty image. Its first source is the Dockerfile.
    pub graph: Graph,
    /// The image's config, without its layers' digests and times.
    pub image: ImageConfig,
    /// The base image's config as it was found.
    pub base_image: Option<ImageConfig>,
    /// Lint findings, in the order in which they came.
    pub warnings: Vec<Finding>,
    /// What the target takes: ARGs, secrets, SSH agents.
    pub outline: Outline,
    /// The images that were asked for, in the order of asking.
    pub images: Vec<ImageRequest>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// What an SBOM is to cover besides the result: `context` and the names of stages, each with its graph.
    pub scans: Vec<(String, Graph)>,
    /// Whether the target, or a stage that it scans, runs again whatever the cache holds.
    pub ignore_cache: bool,
}
