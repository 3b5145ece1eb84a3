//! What goes from the user to the container: keys, the window's size, signals.

use std::future::Future;
use std::io::{self, IsTerminal as _, Read as _};

use bytes::Bytes;
use proto::rbuild::run_request::Request;
use proto::rbuild::{RunRequest, TerminalSize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::ClientError;
use crate::container::UNREAD;

/// The user's side of a container. Dropping it stops forwarding and restores the terminal.
#[derive(Debug)]
pub(super) struct Console {
    tty: bool,
    interactive: bool,
    forwarding: JoinSet<()>,
    raw: Option<RawMode>,
    /// The terminal has gone.
    hung_up: CancellationToken,
}

impl Console {
    /// Forwards nothing yet: until the container runs, a signal is meant for this program.
    pub(super) fn new(tty: bool, interactive: bool) -> Self {
        let hung_up = CancellationToken::new();
        Self { tty, interactive, forwarding: JoinSet::new(), raw: None, hung_up }
    }

    /// Forwards signals and sizes from now on. Gives what is read from stdin, which goes another way: it may wait for the
    /// command to read it, and a signal must not.
    pub(super) fn connect(&mut self, requests: &Sender<RunRequest>) -> Receiver<Bytes> {
        let (input, stdin) = mpsc::channel(UNREAD);
        if self.interactive {
            let hung_up = self.hung_up.clone();
            let on_terminal = self.tty;
            // A thread of its own: a read from a terminal cannot be cancelled.
            std::thread::spawn(move || {
                if read_stdin(&input) && on_terminal {
                    hung_up.cancel();
                }
            });
        }
        if self.tty {
            self.forwarding.spawn(forward_sizes(requests.clone()));
        }
        for kind in FORWARDED {
            self.forwarding.spawn(forward_signals(kind(), requests.clone()));
        }
        stdin
    }

    /// Forwards stdin as requests, too.
    pub(super) fn forward_stdin(&mut self, mut stdin: Receiver<Bytes>, requests: Sender<RunRequest>) {
        self.forwarding.spawn(async move {
            while let Some(data) = stdin.recv().await
                && send(&requests, Request::Stdin(data)).await
            {}
        });
    }

    /// The command runs: keys that the container should get go to it unread.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        if self.tty && self.interactive {
            self.raw = RawMode::enter()?;
        }
        Ok(())
    }

    /// Waits for something, unless the terminal goes away: nobody can use the container then.
    ///
    /// # Errors
    /// [`ClientError::HungUp`].
    pub(super) async fn unless_hung_up<T>(&self, work: impl Future<Output = T>) -> Result<T, ClientError> {
        self.hung_up.run_until_cancelled(work).await.ok_or(ClientError::HungUp)
    }
}

/// Signals that the container gets in place of this program.
const FORWARDED: [fn() -> SignalKind; 6] = [
    SignalKind::interrupt,
    SignalKind::terminate,
    SignalKind::hangup,
    SignalKind::quit,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];

/// Keys pass through unread while this lives; the terminal is restored when it is dropped.
#[derive(Debug)]
struct RawMode(());

impl RawMode {
    /// Enters raw mode where stdin is a terminal.
    fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        crossterm::terminal::enable_raw_mode()?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

/// The terminal's size, if there is one.
pub(super) fn size() -> Option<TerminalSize> {
    let (columns, rows) = crossterm::terminal::size().ok()?;
    Some(TerminalSize { rows: rows.into(), columns: columns.into() })
}

async fn send(requests: &Sender<RunRequest>, request: Request) -> bool {
    requests.send(RunRequest { request: Some(request) }).await.is_ok()
}

async fn forward_sizes(requests: Sender<RunRequest>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        // At once, too: it may have changed since the container was asked for.
        let Some(size) = size() else { return };
        if !send(&requests, Request::Resize(size)).await || changes.recv().await.is_none() {
            return;
        }
    }
}

async fn forward_signals(kind: SignalKind, requests: Sender<RunRequest>) {
    let Ok(mut signals) = signal(kind) else { return };
    while signals.recv().await.is_some() && send(&requests, Request::Signal(kind.as_raw_value())).await {}
}

/// Reads until stdin ends, which the container is told; false when the container ended before.
fn read_stdin(input: &Sender<Bytes>) -> bool {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let data = match io::stdin().read(&mut buffer) {
            Ok(n) => Bytes::copy_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Bytes::new(),
        };
        let end = data.is_empty();
        let sent = input.blocking_send(data);
        if sent.is_err() || end {
            return sent.is_ok();
        }
    }
}
