//! Messages of the side socket, over which a client on the same host hands descriptors to the daemon.
//!
//! The daemon listens beside its gRPC socket, at [`path`]: a unix stream socket. A client connects, sends one JSON line
//! with exactly one descriptor attached to its first byte (SCM_RIGHTS), and reads one line: `ok`, or what is wrong.
//! It may then send further lines on the same connection. The daemon reads the peer's credentials (SO_PEERCRED) and later
//! walks a passed directory with the peer's rights only.
//!
//! A daemon without side socket, or a client that does not use it, is no error: contexts then travel by diff-copy, outputs by FileSend.

use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};

/// Added to the gRPC socket's path.
const SUFFIX: &str = ".fd";

/// How long the daemon may take to answer a line; it only has to keep the descriptor.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a line that was accepted.
pub const OK: &str = "ok\n";

/// Longest line, newline included, that the daemon has to accept.
pub const MAX_LINE: usize = 4096;

/// What a passed descriptor is for. One per line, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Offer {
    /// A directory: the local source `name` of the session.
    Directory {
        /// Session id.
        session: String,
        /// Name of the local source, such as `context`.
        name: String,
    },
    /// A file, empty and open for writing: where the exporter's archive goes.
    Output {
        /// Session id.
        session: String,
        /// Index of the exporter in the SolveRequest, in decimal.
        output: String,
    },
    /// An end of the container that the session is going to run. With [`ContainerEnd::Control`] the set is complete.
    Container {
        /// Session id.
        session: String,
        /// Which end.
        container: ContainerEnd,
    },
}

/// What a container is given by a client on the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerEnd {
    /// A pipe that it reads.
    Stdin,
    /// A pipe that it writes.
    Stdout,
    /// A pipe that it writes.
    Stderr,
    /// The other end of the client's [`runner::SandboxHandle`].
    Control,
}

/// Where the side socket of a gRPC socket is.
pub fn path(grpc_socket: &Path) -> PathBuf {
    let mut name = grpc_socket.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// The client's end.
#[derive(Debug)]
pub struct SideSocket(UnixStream);

impl SideSocket {
    /// Connects to the side socket that belongs to a gRPC socket; `None` when the daemon has none.
    pub fn connect(grpc_socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(path(grpc_socket)).ok()?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
        Some(Self(stream))
    }

    /// Passes a descriptor and waits until the daemon has it.
    ///
    /// # Errors
    /// When the daemon refuses it or does not answer; the caller then goes the ordinary way.
    pub fn offer(&mut self, offer: &Offer, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(offer)?;
        line.push(b'\n');
        let fds = [fd.as_raw_fd()];
        let sent = sendmsg::<()>(
            self.0.as_fd().as_raw_fd(),
            &[IoSlice::new(&line)],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        if sent != line.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.answer()
    }

    fn answer(&mut self) -> io::Result<()> {
        let mut answer = Vec::new();
        let mut byte = [0];
        while answer.len() < MAX_LINE && answer.last() != Some(&b'\n') {
            self.0.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        match answer == OK.as_bytes() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&answer).trim_end().to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_told_apart() {
        for (offer, json) in [
            (
                Offer::Directory { session: "s".into(), name: "context".into() },
                r#"{"session":"s","name":"context"}"#,
            ),
            (Offer::Output { session: "s".into(), output: "0".into() }, r#"{"session":"s","output":"0"}"#),
            (
                Offer::Container { session: "s".into(), container: ContainerEnd::Stdin },
                r#"{"session":"s","container":"stdin"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&offer).unwrap(), json);
            assert_eq!(serde_json::from_str::<Offer>(json).unwrap(), offer);
        }
    }

    #[test]
    fn no_daemon_is_none() {
        assert!(SideSocket::connect(Path::new("/nonexistent/sock")).is_none());
    }
}
