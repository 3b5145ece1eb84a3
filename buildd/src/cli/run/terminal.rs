//! What goes from the user's terminal to the container: keys, the window's size, signals.

use std::io::{self, IsTerminal as _, Read as _};

use bytes::Bytes;
use proto::rbuild::run_request::Request;
use proto::rbuild::{RunRequest, TerminalSize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Keys pass through unread while this lives; the terminal is restored when it is dropped.
#[derive(Debug)]
pub(super) struct RawMode(());

impl RawMode {
    /// Enters raw mode where stdin is a terminal.
    pub(super) fn enter() -> io::Result<Option<Self>> {
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

/// Forwards until the result is dropped.
pub(super) fn forward(requests: mpsc::Sender<RunRequest>, stdin: bool, tty: bool) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let send = |requests: &mpsc::Sender<RunRequest>, request| {
        let requests = requests.clone();
        async move { requests.send(RunRequest { request: Some(request) }).await.is_ok() }
    };
    if stdin {
        // A thread of its own: a read from a terminal cannot be cancelled.
        let requests = requests.clone();
        std::thread::spawn(move || read_stdin(&requests));
    }
    if tty {
        let requests = requests.clone();
        tasks.spawn(async move {
            let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
            while changes.recv().await.is_some() {
                if let Some(size) = size() {
                    send(&requests, Request::Resize(size)).await;
                }
            }
        });
    }
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
        let requests = requests.clone();
        tasks.spawn(async move {
            let Ok(mut signals) = signal(kind) else { return };
            while signals.recv().await.is_some()
                && send(&requests, Request::Signal(kind.as_raw_value())).await
            {}
        });
    }
    tasks
}

fn read_stdin(requests: &mpsc::Sender<RunRequest>) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let data = match io::stdin().read(&mut buffer) {
            Ok(n) => Bytes::copy_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Bytes::new(),
        };
        let end = data.is_empty();
        if requests.blocking_send(RunRequest { request: Some(Request::Stdin(data)) }).is_err() || end {
            return;
        }
    }
}
