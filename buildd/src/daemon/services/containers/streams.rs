//! A container's standard streams: pipes, or a terminal.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use proto::rbuild::TerminalSize;
use runner::{SandboxHandle, Stdio};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::daemon::blocking::blocking;
use crate::daemon::sandboxes::output_pipe;

/// Which stream output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

/// The daemon's ends, and the sandbox's until it has them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    tty: bool,
    /// `None` where the container has no stdin.
    pub(super) stdin: Option<Sender>,
    pub(super) outputs: Vec<(Source, Receiver)>,
    /// To be resized.
    pub(super) terminal: Option<OwnedFd>,
    sandbox: Stdio,
}

impl Streams {
    /// Pipes; with `tty` nothing yet, as a sandbox makes its terminal itself.
    pub(super) fn new(tty: bool, interactive: bool) -> io::Result<Self> {
        let mut streams = Self { tty, ..Self::default() };
        if tty {
            return Ok(streams);
        }
        let (out, out_end) = output_pipe()?;
        let (err, err_end) = output_pipe()?;
        streams.outputs = vec![(Source::Stdout, out), (Source::Stderr, err)];
        (streams.sandbox.stdout, streams.sandbox.stderr) = (Some(out_end), Some(err_end));
        if interactive {
            let (end, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
            streams.sandbox.stdin = Some(end);
            streams.stdin = Some(Sender::from_owned_fd(stdin)?);
        }
        Ok(streams)
    }

    /// Copies of the sandbox's ends.
    pub(super) fn for_sandbox(&self) -> io::Result<Stdio> {
        let copy = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
        let Stdio { stdin, stdout, stderr } = &self.sandbox;
        Ok(Stdio { stdin: copy(stdin)?, stdout: copy(stdout)?, stderr: copy(stderr)? })
    }

    /// Lets go of the sandbox's ends: output ends when the sandbox does.
    pub(super) fn close_sandbox_ends(&mut self) {
        self.sandbox = Stdio::default();
    }

    /// Waits for the terminal, if the container has one.
    pub(super) async fn connect(
        &mut self,
        handle: &Arc<SandboxHandle>,
        size: Option<&TerminalSize>,
    ) -> io::Result<()> {
        if !self.tty {
            return Ok(());
        }
        let waiting = handle.clone();
        // None: it ended before, and that is told as its outcome.
        let Some(master) = blocking(move || waiting.terminal()).await else { return Ok(()) };
        rustix::io::ioctl_fionbio(&master, true)?;
        // Terminals are polled as pipes are.
        self.outputs = vec![(Source::Stdout, Receiver::from_owned_fd_unchecked(master.try_clone()?)?)];
        self.stdin = Some(Sender::from_owned_fd_unchecked(master.try_clone()?)?);
        if let Some(size) = size {
            resize(&master, size);
        }
        self.terminal = Some(master);
        Ok(())
    }
}

/// Tells a terminal its size; one that is gone needs none.
pub(super) fn resize(terminal: &OwnedFd, size: &TerminalSize) {
    let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: short(size.rows), ws_col: short(size.columns), ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}
