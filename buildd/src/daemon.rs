//! The daemon: it puts its parts together, listens, and leaves in order.
//!
//! `Control.Solve` arrives in [`control`], becomes a [`mod@run`] in [`solve`], is lowered by [`dockerfile`], evaluated by the
//! solver with [`sources`] and [`worker`], and handed on by [`export`]. What it tells goes through [`progress`] into its
//! [`journal`], which `Control.Status` reads.

mod about;
mod agent;
mod at_hand;
mod broken;
mod builds;
mod chains;
mod claims;
mod config;
mod control;
mod definition;
mod devices;
mod diffids;
mod dockerfile;
mod entitlements;
mod explain;
mod export;
mod failure;
mod frontends;
mod gateway;
mod gc;
mod history;
mod insecure;
mod journal;
mod keyed_cache;
mod leases;
mod listen;
mod locals;
mod metadata;
mod metrics;
mod mounting;
mod nearby;
mod parts;
mod peer;
mod plan;
mod platforms;
mod policies;
mod progress;
mod provenance;
mod reflection;
mod remote_cache;
mod rootfs_tar;
mod run;
mod sandboxes;
mod sbom;
mod secrets;
mod services;
mod side;
mod snapshot;
mod solve;
mod sources;
mod start;
mod stat;
mod timestamp;
mod tls;
mod traces;
mod turns;
mod users;
mod worker;

use crate::blocking;

pub use config::{Config, ConfigError, LogFormat, LogLevel, Size};
pub use start::{DaemonArgs, DaemonError, Defaults, run};
