//! The daemon's end of sessions: services of the client that the daemon calls.
//!
//! A client opens `Control.Session`, a byte pipe inside which the daemon is the HTTP/2 client. [`SessionManager`] keeps the
//! open sessions by id; builds look theirs up, waiting a little for one that has not arrived.

mod cache_directory;
mod call;
mod content;
mod error;
mod export;
mod health;
mod manager;
mod services;
#[cfg(test)]
mod tests;
mod tunnel;

/// Where a client uploads what it is to be built from: the beginning of the URL, before a name for one build.
pub const UPLOAD: &str = "http://buildkit-session/";
/// What our clients call a directory that is nothing but what came on stdin.
pub const FROM_STDIN: &str = "-";

pub use error::SessionError;
pub use export::FileWriter;
pub use manager::{ARRIVAL, Session, SessionManager, SessionStream};
pub use services::Credentials;
