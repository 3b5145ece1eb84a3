//! The client of OCI registries: HTTP/1.1 and 2 over rustls, tokens and passwords, mirrors, retries.
//!
//! [`Registries`] is made once per process and owns connections and configuration. [`Client`] is made per
//! build: it holds that build's credentials and tokens, so one build never uses what another may.
//! Source: OCI distribution specification 1.1 and the token authentication of the distribution project.
//!
//! Invariants:
//! - Credentials go to the host that they are for, to its token server under the rules of [`HostConfig::token_hosts`],
//!   and nowhere else: not along redirects, not to foreign layers' URLs, not from HTTPS to HTTP.
//! - Nothing that a registry sent is used before its digest has been verified, except the digest of a tag.

mod auth;
mod challenge;
mod client;
mod credentials;
mod docker_config;
mod endpoint;
mod error;
mod host;
mod http;
mod progress;
mod pull;
mod push;
mod referrers;
mod resolve;
mod retry;
mod tags;
mod token;

pub use client::{Client, Registries};
pub use credentials::{Anonymous, Credential, Credentials, CredentialsError, IssuedToken, Secret, TokenAsk};
pub use docker_config::DockerConfig;
pub use error::Error;
pub use host::HostConfig;
pub(crate) use host::is_loopback;
pub use progress::{Direction, ProgressFn, Transfer};
pub use pull::{BlobStream, Fault};
pub use push::{PushSource, Pushed};
pub use resolve::{DocumentCache, NoCache};
pub use retry::Tuning;
