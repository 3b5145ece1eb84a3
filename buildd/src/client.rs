//! The client: connects to a daemon, serves its sessions, runs builds.
//!
//! It speaks BuildKit's API, so it works with a stock buildkitd too; what only rbuild's daemon has is asked for by
//! [`Client::images`] and its like, and a plain error elsewhere.

mod address;
mod autostart;
mod broken;
mod build;
mod connection;
mod encrypted;
mod error;
mod failure;
mod output;
mod session;

pub use address::Address;
pub use autostart::{connect_or_start, own_address, own_socket};
pub use broken::{Broken, Inside, build_or_look};
pub use build::{BuildOutcome, BuildRequest, LocalDir, ask, build};
pub use connection::Client;
pub use encrypted::Tls;
pub use error::ClientError;
pub use failure::render;
pub(crate) use output::FileTarget;
pub use output::{Destination, Output};
pub use session::{ClientSession, SecretSource, Services, SshSource, UploadSource, random_id};
