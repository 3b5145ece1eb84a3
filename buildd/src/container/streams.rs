//! A container's standard streams: pipes, or a terminal.

use std::io;
use std::os::fd::OwnedFd;

use runner::Stdio;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;
use tokio::net::unix::pipe::{Receiver, Sender};

/// Which stream output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Also what a terminal shows.
    Stdout,
    /// Apart from the other only where there is no terminal.
    Stderr,
}

/// This side's ends.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// `None` where the container has no stdin.
    pub stdin: Option<Sender>,
    /// What is to be read.
    pub outputs: Vec<(Source, Receiver)>,
    /// To be resized.
    pub terminal: Option<OwnedFd>,
}

impl Streams {
    /// Pipes, with the sandbox's ends; with `tty` nothing yet, as a sandbox makes its terminal itself. With `merged` both outputs
    /// are one pipe, which keeps their order.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(crate) fn new(tty: bool, interactive: bool, merged: bool) -> io::Result<(Self, Stdio)> {
        let (mut streams, mut sandbox) = (Self::default(), Stdio::default());
        if tty {
            return Ok((streams, sandbox));
        }
        let (out, out_end) = output_pipe()?;
        streams.outputs = vec![(Source::Stdout, out)];
        sandbox.stderr = Some(if merged {
            out_end.try_clone()?
        } else {
            let (err, err_end) = output_pipe()?;
            streams.outputs.push((Source::Stderr, err));
            err_end
        });
        sandbox.stdout = Some(out_end);
        if interactive {
            let (end, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
            sandbox.stdin = Some(end);
            streams.stdin = Some(Sender::from_owned_fd(stdin)?);
        }
        Ok((streams, sandbox))
    }

    /// Those of a sandbox with a terminal, by its master.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(crate) fn of_terminal(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self {
            // Terminals are polled as pipes are.
            outputs: vec![(Source::Stdout, Receiver::from_owned_fd_unchecked(master.try_clone()?)?)],
            stdin: Some(Sender::from_owned_fd_unchecked(master.try_clone()?)?),
            terminal: Some(master),
        })
    }
}

/// Tells a terminal its size; one that is gone needs none.
pub(crate) fn resize(terminal: &OwnedFd, rows: u32, columns: u32) {
    let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: short(rows), ws_col: short(columns), ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

/// A pipe whose reading end tokio watches.
///
/// # Errors
/// When no pipe can be had.
pub(crate) fn output_pipe() -> io::Result<(Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Receiver::from_owned_fd(read)?, write))
}
