//! End-to-end suites: the real program, real sandboxes, a real registry.
//!
//! [`Daemon`] runs `rbuild daemon` on a root of its own; [`Registry`] runs Debian's `docker-registry` on loopback, [`Bucket`] an S3 server;
//! [`base`] makes images of busybox. Suites need root, namespaces and overlayfs; without them [`ready()`] says what
//! is missing and the suite skips itself. [`Api`] speaks to a daemon without its command line, [`llb`] writes graphs.

mod actions;
mod agent;
mod api;
pub mod archive;
mod authority;
mod azure;
pub mod base;
mod bucket;
mod daemon;
mod disk;
pub mod explained;
mod fleet;
mod git;
mod google;
mod http;
mod leaks;
pub mod llb;
pub mod operations;
pub mod processes;
mod random;
mod ready;
mod registry;
pub mod releases;
mod scene;
mod web;

pub use actions::{Actions, Downloads, Job};
pub use agent::Agent;
pub use api::{Api, Gateway};
pub use authority::{Authority, Valid};
pub use azure::Azure;
pub use bucket::{Bucket, bucket_ready};
pub use daemon::{Daemon, Output, output, program};
pub use disk::{Disk, FileSystem};
pub use fleet::Fleet;
pub use git::{GitDaemon, git};
pub use google::Google;
pub use leaks::Leaks;
pub use random::{Random, rounds};
pub use ready::ready;
pub use registry::{Auth, Registry};
pub use scene::Scene;
pub use web::Web;
