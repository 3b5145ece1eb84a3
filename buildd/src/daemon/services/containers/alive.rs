//! Whether a container lives: its monitor holds the writing end of a named pipe in the container's directory, so any daemon
//! sees its end as the end of that pipe, however the monitor ended.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// Its name in the container's directory.
const NAME: &str = "alive";

/// The reading end.
#[derive(Debug)]
pub(super) struct Alive(Receiver);

impl Alive {
    /// Makes the pipe; the monitor is to hold the other end.
    ///
    /// # Errors
    /// When the directory cannot be written to.
    pub(super) fn make(dir: &Path) -> io::Result<(Self, OwnedFd)> {
        let path = dir.join(NAME);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let alive = Self(open(&path)?);
        let writer = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok((alive, writer))
    }

    /// The pipe of a container that an earlier daemon started; none when that has ended.
    pub(super) fn find(dir: &Path) -> Option<Self> {
        let alive = open(&dir.join(NAME)).ok()?;
        // Nothing is ever written. Asked directly: a reactor tells only of writers that leave later.
        match rustix::io::read(&alive, &mut [0_u8; 1]) {
            Err(rustix::io::Errno::AGAIN) => Some(Self(alive)),
            _ => None,
        }
    }

    /// Waits for the container's end; false when that cannot be learnt any more.
    pub(super) async fn ended(mut self) -> bool {
        self.0.read(&mut [0; 1]).await.is_ok()
    }
}

fn open(path: &Path) -> io::Result<Receiver> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Receiver::from_owned_fd(rustix::fs::open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn seen_by_any_daemon() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Alive::find(dir.path()).is_none());
        let (first, writer) = Alive::make(dir.path()).unwrap();
        let second = Alive::find(dir.path()).expect("it lives");
        drop(first);
        let third = Alive::find(dir.path()).expect("it still lives");
        let waiting = tokio::spawn(second.ended());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(writer);
        assert!(waiting.await.unwrap());
        assert!(third.ended().await);
        assert!(Alive::find(dir.path()).is_none());
    }
}
