//! Between a running container and its client: output one way; input, signals and sizes the other.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use proto::rbuild::run_request::Request as Asked;
use proto::rbuild::run_response::Response;
use proto::rbuild::{RunRequest, RunResponse};
use runner::{Exit, RunnerError, SandboxHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::outcome::report;
use super::streams::{Source, Streams, resize};
use crate::blocking::blocking;

/// Bytes of output in one message.
const CHUNK: usize = 32 << 10;
/// Messages of stdin that wait for the container to read them.
pub(crate) const UNREAD: usize = 64;
/// The largest signal number.
const MAX_SIGNAL: i32 = 64;

/// Where responses go.
pub(crate) type Responses = Sender<Result<RunResponse, Status>>;

/// All ends that meet in a running container.
#[derive(Debug)]
pub(crate) struct Ends<R> {
    /// The container's id.
    pub id: String,
    /// Its control socket.
    pub handle: SandboxHandle,
    /// Its standard streams; a terminal's come with the handle.
    pub streams: Streams,
    /// What the client asks for.
    pub requests: R,
    /// Its stdin, where that does not come with the requests: then no request waits for the container to read.
    pub input: Option<Receiver<Bytes>>,
    /// What it is told.
    pub responses: Responses,
    /// Kills the container.
    pub cancel: CancellationToken,
}

/// Relays until the container has ended and its output is sent: [`Response::Started`] first, once the command runs.
/// Returns the exit code, which is still to be told. A client that goes away takes its container along.
///
/// # Errors
/// The container failed, rather than its command.
pub(crate) async fn relay<R>(ends: Ends<R>) -> Result<i32, Status>
where
    R: Stream<Item = Result<RunRequest, Status>> + Unpin,
{
    let Ends { id, handle, mut streams, requests, input, responses, cancel } = ends;
    let handle = Arc::new(handle);
    let starting = handle.clone();
    if blocking(move || starting.started()).await {
        if let Some(master) = handle.terminal() {
            streams = Streams::of_terminal(master).map_err(|e| internal(&e))?;
        }
        let _ = responses.send(Ok(response(Response::Started(id)))).await;
    }
    let (asked, came) = mpsc::channel(UNREAD);
    let unread = input.unwrap_or(came);
    let outputs = streams.outputs.into_iter().map(|(source, from)| {
        forward(from, &responses, move |data| {
            response(match source {
                Source::Stdout => Response::Stdout(data),
                Source::Stderr => Response::Stderr(data),
            })
        })
    });
    let running = async {
        let outputs = futures_util::future::join_all(outputs);
        tokio::join!(wait(&handle, &responses, &cancel), outputs).0
    };
    let steering = async {
        let steered = steer(requests, &handle, streams.terminal.as_ref(), asked);
        tokio::join!(steered, feed(unread, streams.stdin)).0
    };
    let outcome = tokio::select! {
        outcome = running => outcome,
        never = steering => match never {},
    };
    let (code, lines) = report(outcome).map_err(|e| Status::unknown(e.to_string()))?;
    for line in lines {
        let _ = responses.send(Ok(response(Response::Stderr((line + "\n").into())))).await;
    }
    Ok(code)
}

/// A message to the client.
pub(crate) fn response(response: Response) -> RunResponse {
    RunResponse { response: Some(response) }
}

fn internal(e: &io::Error) -> Status {
    Status::internal(format!("cannot connect to the container: {e}"))
}

/// Does what the client asks for; never ends by itself.
async fn steer(
    mut requests: impl Stream<Item = Result<RunRequest, Status>> + Unpin,
    handle: &SandboxHandle,
    terminal: Option<&OwnedFd>,
    input: Sender<Bytes>,
) -> Infallible {
    while let Some(asked) = requests.next().await {
        let Ok(RunRequest { request }) = asked else {
            handle.kill();
            break;
        };
        match request {
            Some(Asked::Stdin(data)) => drop(input.send(data).await),
            Some(Asked::Resize(size)) => {
                if let Some(terminal) = terminal {
                    resize(terminal, size.rows, size.columns);
                }
            }
            Some(Asked::Signal(number)) if (1..=MAX_SIGNAL).contains(&number) => handle.signal(number),
            // A second start, or a signal that is none.
            Some(Asked::Start(_) | Asked::Signal(_)) | None => {}
        }
    }
    // Nothing more will come: the container's stdin ends.
    drop(input);
    std::future::pending().await
}

/// Writes stdin as fast as the container reads it; empty data ends it. What nobody reads is dropped.
pub(crate) async fn feed(mut unread: Receiver<Bytes>, mut stdin: Option<pipe::Sender>) {
    while let Some(data) = unread.recv().await {
        let open = match &mut stdin {
            Some(pipe) => !data.is_empty() && pipe.write_all(&data).await.is_ok(),
            None => false,
        };
        if !open {
            stdin = None;
        }
    }
}

/// Hands output on until all processes of the container have closed it, or nobody wants it any more.
pub(crate) async fn forward<T>(
    mut from: pipe::Receiver,
    to: &Sender<Result<T, Status>>,
    message: impl Fn(Bytes) -> T,
) {
    let mut buf = vec![0; CHUNK];
    loop {
        // A terminal that nobody has open any more gives an error.
        let n = from.read(&mut buf).await.unwrap_or(0);
        if n == 0 || to.send(Ok(message(Bytes::copy_from_slice(&buf[..n])))).await.is_err() {
            return;
        }
    }
}

/// Waits for the end; kills the container when its client or the daemon leaves.
async fn wait(
    handle: &Arc<SandboxHandle>,
    client: &Responses,
    cancel: &CancellationToken,
) -> Result<Exit, RunnerError> {
    let waiting = handle.clone();
    let ended = blocking(move || waiting.wait());
    tokio::pin!(ended);
    tokio::select! {
        exit = &mut ended => return exit,
        () = client.closed() => {}
        () = cancel.cancelled() => {}
    }
    handle.kill();
    ended.await
}
