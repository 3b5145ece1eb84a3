//! Choosing a display and feeding it.

use std::io::{self, IsTerminal as _};
use std::str::FromStr;
use std::time::Duration;

use proto::control::StatusResponse;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::plain::Printer;
use super::rawjson;
use super::trace::Trace;
use super::tty::Screen;

/// How often a display is drawn while messages come (BuildKit's figure).
const REDRAW: Duration = Duration::from_millis(100);

/// Messages on their way to the display, each of up to 128 KiB.
const BACKLOG: usize = 16;

/// Bytes of output that may gather before they are drawn out of turn: steps print hundreds of megabytes in a second.
const GATHERED: usize = 1 << 20;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// Lines.
    Plain,
    /// A live picture; an error when stderr is no terminal.
    Tty,
    /// JSON lines.
    RawJson,
    /// Nothing.
    Quiet,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" | "" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "tty" => Ok(Self::Tty),
            "rawjson" => Ok(Self::RawJson),
            "quiet" | "none" => Ok(Self::Quiet),
            _ => Err("want auto, plain, tty, rawjson or quiet".to_owned()),
        }
    }
}

/// One way of showing progress.
#[derive(Debug)]
pub enum Display {
    #[doc(hidden)]
    Plain(Box<Trace>, PlainState),
    #[doc(hidden)]
    Tty(Box<Trace>, Box<Screen>),
    #[doc(hidden)]
    RawJson,
    #[doc(hidden)]
    Quiet,
}

/// The plain printer's memory.
#[derive(Debug, Default)]
pub struct PlainState(Printer);

impl Display {
    /// The display for a mode, on stderr.
    ///
    /// # Errors
    /// `tty` without a terminal.
    pub fn new(mode: Mode) -> io::Result<Self> {
        let terminal = io::stderr().is_terminal();
        Ok(match mode {
            Mode::Tty if !terminal => {
                return Err(io::Error::other("progress `tty` needs a terminal on stderr"));
            }
            Mode::Tty => Self::tty(),
            Mode::Auto if terminal => Self::tty(),
            Mode::Auto | Mode::Plain => Self::Plain(Box::default(), PlainState::default()),
            Mode::RawJson => Self::RawJson,
            Mode::Quiet => Self::Quiet,
        })
    }

    fn tty() -> Self {
        Self::Tty(Box::default(), Box::default())
    }

    /// Takes a message; what has to be written at once is appended to `out`.
    fn update(&mut self, message: StatusResponse, out: &mut Vec<u8>) {
        match self {
            Self::Plain(trace, _) | Self::Tty(trace, _) => trace.update(message),
            Self::RawJson => out.extend_from_slice(rawjson::line(&message).as_bytes()),
            Self::Quiet => {}
        }
    }

    fn draw(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(trace, state) => state.0.print(trace, out),
            Self::Tty(trace, screen) => screen.draw(trace, out),
            Self::RawJson | Self::Quiet => {}
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(trace, state) => {
                state.0.print(trace, out);
                out.extend_from_slice(trace.error_logs().as_bytes());
            }
            Self::Tty(trace, screen) => {
                screen.finish(trace, out);
                out.extend_from_slice(trace.error_logs().as_bytes());
            }
            Self::RawJson | Self::Quiet => {}
        }
    }
}

/// Shows what is sent until the sender is dropped; the task then ends, everything being written.
pub fn spawn(display: Display) -> (mpsc::Sender<StatusResponse>, JoinHandle<()>) {
    show_on(display, tokio::io::stderr())
}

/// As [`spawn`], on another stream than stderr. It has to write on another thread: this one has the daemon's health checks to answer
/// while nobody reads. Messages wait meanwhile.
pub fn show_on(
    display: Display,
    stream: impl AsyncWrite + Unpin + Send + 'static,
) -> (mpsc::Sender<StatusResponse>, JoinHandle<()>) {
    let (tx, rx) = mpsc::channel(BACKLOG);
    (tx, tokio::spawn(run(display, rx, stream)))
}

async fn run(
    mut display: Display,
    mut messages: mpsc::Receiver<StatusResponse>,
    mut stream: impl AsyncWrite + Unpin,
) {
    let mut out = Vec::new();
    let mut ticks = interval(REDRAW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut drawn, mut gathered) = (None::<Instant>, 0);
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                None => break,
                Some(message) => {
                    gathered += message.logs.iter().map(|log| log.msg.len()).sum::<usize>();
                    display.update(message, &mut out);
                }
            },
            _ = ticks.tick() => drawn = None,
        }
        if drawn.is_none_or(|at| at.elapsed() >= REDRAW) || gathered > GATHERED {
            display.draw(&mut out);
            (drawn, gathered) = (Some(Instant::now()), 0);
        }
        write(&mut stream, &mut out).await;
    }
    display.finish(&mut out);
    write(&mut stream, &mut out).await;
}

/// Writes what has gathered. A reader that went away is no reason to stop the build.
async fn write(stream: &mut (impl AsyncWrite + Unpin), out: &mut Vec<u8>) {
    if !out.is_empty() {
        let _ = stream.write_all(out).await;
        let _ = stream.flush().await;
        out.clear();
        // 100 MB that came at once are not kept as capacity.
        out.shrink_to(1 << 20);
    }
}
