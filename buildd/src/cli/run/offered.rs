//! This client's ends of a container that the daemon only starts: on the same host, output, input and the exit code pass
//! between the client and the container's monitor, whatever becomes of the daemon.

use std::io;
use std::os::fd::AsFd as _;

use bytes::Bytes;
use proto::rbuild::run_response::Response;
use proto::rbuild::{RunRequest, RunResponse};
use runner::{SandboxHandle, Stdio};
use tokio::sync::mpsc::{self, Receiver};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::client::Address;
use crate::container::{Ends, Streams, relay, response};
use crate::sidesocket::{ContainerEnd, Offer, SideSocket};

/// Chunks of output that wait to be printed.
const BACKLOG: usize = 16;

/// Ends that the daemon has the other ends of.
#[derive(Debug)]
pub(super) struct Offered {
    handle: SandboxHandle,
    streams: Streams,
}

/// Whether stdout and stderr lead to the same place, where the order of what is written to them shows.
fn same_output() -> bool {
    let (Ok(out), Ok(err)) = (rustix::fs::fstat(io::stdout()), rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    (out.st_dev, out.st_ino, out.st_rdev) == (err.st_dev, err.st_ino, err.st_rdev)
}

impl Offered {
    /// Hands the daemon its ends; none where it does not take them: then it relays.
    pub(super) fn make(address: &Address, session: &str, tty: bool, interactive: bool) -> Option<Self> {
        let mut side = SideSocket::connect(address.socket()?)?;
        let (handle, control) = SandboxHandle::pair().ok()?;
        let (streams, Stdio { stdin, stdout, stderr }) =
            Streams::new(tty, interactive, same_output()).ok()?;
        let ends = [
            (ContainerEnd::Stdin, stdin),
            (ContainerEnd::Stdout, stdout),
            (ContainerEnd::Stderr, stderr),
            // The last: with it they are complete.
            (ContainerEnd::Control, Some(control)),
        ];
        for (container, fd) in ends.into_iter().filter_map(|(end, fd)| Some((end, fd?))) {
            let offer = Offer::Container { session: session.to_owned(), container };
            side.offer(&offer, fd.as_fd()).ok()?;
        }
        Some(Self { handle, streams })
    }

    /// Begins to relay, in the form in which a daemon's relay talks.
    pub(super) fn relay(
        self,
        id: String,
        requests: Receiver<RunRequest>,
        stdin: Receiver<Bytes>,
    ) -> ReceiverStream<Result<RunResponse, Status>> {
        let (tx, rx) = mpsc::channel(BACKLOG);
        let ends = Ends {
            id,
            handle: self.handle,
            streams: self.streams,
            requests: tokio_stream::StreamExt::map(ReceiverStream::new(requests), Ok),
            input: Some(stdin),
            responses: tx.clone(),
            cancel: CancellationToken::new(),
        };
        tokio::spawn(async move {
            let last = relay(ends).await.map(|code| response(Response::Exit(code)));
            // Where nobody listens any more, nobody wants to know.
            let _ = tx.send(last).await;
        });
        ReceiverStream::new(rx)
    }
}
