//! The daemon's end of the side socket: descriptors that local clients hand over.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runner::Stdio;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use crate::sidesocket::{self, ContainerEnd, Offer};

/// Who passed a descriptor (unix(7), SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// Effective user id when it connected.
    pub uid: u32,
    /// Effective group id when it connected.
    pub gid: u32,
}

/// A directory that a client passed.
#[derive(Debug, Clone)]
pub(super) struct PassedDir {
    /// The directory, opened by the client.
    pub fd: Arc<OwnedFd>,
    /// With whose rights it is walked.
    pub peer: Peer,
}

/// How long descriptors are kept for a build that has not begun: its client may have died before it asked for it.
const UNCLAIMED: Duration = Duration::from_secs(60);
/// Descriptors that are kept at a time; whoever comes with more goes the ordinary way.
const MOST: usize = 4096;

/// Descriptors by session, until the build that they were passed for ends.
#[derive(Debug, Default)]
pub(super) struct Passed {
    sessions: Mutex<HashMap<String, Of>>,
}

#[derive(Debug)]
struct Of {
    directories: HashMap<String, PassedDir>,
    outputs: HashMap<String, OwnedFd>,
    container: Stdio,
    control: Option<OwnedFd>,
    /// Builds that use them.
    builds: usize,
    since: Instant,
}

impl Default for Of {
    fn default() -> Self {
        Self {
            directories: HashMap::new(),
            outputs: HashMap::new(),
            container: Stdio::default(),
            control: None,
            builds: 0,
            since: Instant::now(),
        }
    }
}

impl Of {
    /// How many descriptors these are.
    fn count(&self) -> usize {
        let Stdio { stdin, stdout, stderr } = &self.container;
        let container = [stdin, stdout, stderr, &self.control].into_iter().flatten().count();
        self.directories.len() + self.outputs.len() + container
    }
}

/// A build's or container's claim on what its session passed; with the last one the descriptors go.
#[derive(Debug)]
pub(super) struct Claim {
    passed: Arc<Passed>,
    session: String,
}

impl Claim {
    /// Takes the ends that the session passed for its container, if they are complete.
    pub(super) fn take_container(&self) -> Option<ContainerEnds> {
        let mut all = self.passed.lock();
        let of = all.get_mut(&self.session)?;
        let control = of.control.take()?;
        Some(ContainerEnds { control, stdio: std::mem::take(&mut of.container) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut all = self.passed.lock();
        let Some(of) = all.get_mut(&self.session) else { return };
        of.builds -= 1;
        if of.builds == 0 {
            all.remove(&self.session);
        }
    }
}

/// A client's ends of a container.
#[derive(Debug)]
pub(super) struct ContainerEnds {
    /// For the monitor.
    pub control: OwnedFd,
    /// For the command.
    pub stdio: Stdio,
}

impl Passed {
    /// The directory behind a session's local source.
    pub(super) fn directory(&self, session: &str, name: &str) -> Option<PassedDir> {
        self.lock().get(session)?.directories.get(name).cloned()
    }

    /// Takes the file that a session passed for an exporter.
    pub(super) fn take_output(&self, session: &str, exporter: &str) -> Option<OwnedFd> {
        self.lock().get_mut(session)?.outputs.remove(exporter)
    }

    /// Keeps what a session passed, and what it still passes, for a build.
    pub(super) fn claim(self: &Arc<Self>, session: &str) -> Claim {
        self.lock().entry(session.to_owned()).or_default().builds += 1;
        Claim { passed: self.clone(), session: session.to_owned() }
    }

    /// Keeps a descriptor; `false` when there are too many already.
    fn keep(&self, offer: Offer, fd: OwnedFd, peer: Peer) -> bool {
        let mut all = self.lock();
        all.retain(|_, of| of.builds > 0 || of.since.elapsed() < UNCLAIMED);
        if all.values().map(Of::count).sum::<usize>() >= MOST {
            return false;
        }
        match offer {
            Offer::Directory { session, name } => {
                all.entry(session)
                    .or_default()
                    .directories
                    .insert(name, PassedDir { fd: Arc::new(fd), peer });
            }
            Offer::Output { session, output } => {
                all.entry(session).or_default().outputs.insert(output, fd);
            }
            Offer::Container { session, container } => {
                let of = all.entry(session).or_default();
                let end = match container {
                    ContainerEnd::Stdin => &mut of.container.stdin,
                    ContainerEnd::Stdout => &mut of.container.stdout,
                    ContainerEnd::Stderr => &mut of.container.stderr,
                    ContainerEnd::Control => &mut of.control,
                };
                *end = Some(fd);
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Of>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the side socket beside the gRPC socket at `grpc`, until it is dropped or aborted.
///
/// # Errors
/// When the socket cannot be made.
pub(super) fn listen(grpc: &Path) -> io::Result<UnixListener> {
    let path = sidesocket::path(grpc);
    match fs_err::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // As the main socket; until here its directory and the umask guard it.
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts clients for ever.
pub(super) async fn serve(listener: UnixListener, passed: Arc<Passed>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let passed = passed.clone();
                tokio::spawn(async move {
                    if let Err(e) = client(stream, &passed).await {
                        tracing::debug!("side socket: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("side socket: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn client(stream: UnixStream, passed: &Passed) -> io::Result<()> {
    let cred = stream.peer_cred()?;
    let peer = Peer { uid: cred.uid(), gid: cred.gid() };
    while let Some((line, fd)) = receive(&stream).await? {
        let answer = match (serde_json::from_slice::<Offer>(&line), fd) {
            (Ok(offer), Some(fd)) => match passed.keep(offer, fd, peer) {
                true => sidesocket::OK.to_owned(),
                false => "too many descriptors are kept already\n".to_owned(),
            },
            (Ok(_), None) => "no descriptor came with the line\n".to_owned(),
            (Err(e), _) => format!("not understood: {e}\n"),
        };
        send(&stream, answer.as_bytes()).await?;
    }
    Ok(())
}

/// One line and the descriptor that came with it; `None` when the client has hung up.
async fn receive(stream: &UnixStream) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let (mut line, mut fd) = (Vec::new(), None);
    loop {
        stream.readable().await?;
        let mut buf = [0; sidesocket::MAX_LINE];
        let got = stream.try_io(Interest::READABLE, || receive_some(stream.as_fd(), &mut buf));
        let (n, new) = match got {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            other => other?,
        };
        fd = new.or(fd);
        if n == 0 {
            return Ok(None);
        }
        line.extend_from_slice(&buf[..n]);
        if line.last() == Some(&b'\n') {
            return Ok(Some((line, fd)));
        }
        if line.len() > sidesocket::MAX_LINE {
            return Err(io::Error::other("line too long"));
        }
    }
}

fn receive_some(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(socket, &mut [IoSliceMut::new(buf)], &mut control, flags)?;
    let mut fds = control.drain().filter_map(|m| match m {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok((got.bytes, fds.next().and_then(|mut f| f.next())))
}

async fn send(stream: &UnixStream, mut answer: &[u8]) -> io::Result<()> {
    while !answer.is_empty() {
        stream.writable().await?;
        match stream.try_write(answer) {
            Ok(n) => answer = &answer[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(passed: &Passed, session: &str) -> bool {
        let fd = fs_err::File::open("/").unwrap().into_parts().0.into();
        let offer = Offer::Directory { session: session.to_owned(), name: "context".to_owned() };
        passed.keep(offer, fd, Peer { uid: 0, gid: 0 })
    }

    #[test]
    fn descriptors_go_with_the_last_build_of_their_session() {
        let passed = Arc::<Passed>::default();
        assert!(pass(&passed, "s"));
        let (one, two) = (passed.claim("s"), passed.claim("s"));
        drop(one);
        assert!(passed.directory("s", "context").is_some());
        drop(two);
        assert!(passed.directory("s", "context").is_none());
    }

    #[test]
    fn what_no_build_wants_is_not_kept_for_ever() {
        let passed = Arc::<Passed>::default();
        assert!(pass(&passed, "dead") && pass(&passed, "alive"));
        let _claim = passed.claim("alive");
        let Some(old) = Instant::now().checked_sub(UNCLAIMED) else { return };
        passed.lock().values_mut().for_each(|of| of.since = old);
        assert!(pass(&passed, "new"));
        assert!(passed.directory("dead", "context").is_none());
        assert!(passed.directory("alive", "context").is_some());
    }

    #[test]
    fn a_container_keeps_its_ends_however_long_its_image_takes() {
        let passed = Arc::<Passed>::default();
        let end = |container| {
            let fd = fs_err::File::open("/").unwrap().into_parts().0.into();
            let offer = Offer::Container { session: "s".to_owned(), container };
            passed.keep(offer, fd, Peer { uid: 0, gid: 0 })
        };
        assert!(end(ContainerEnd::Stdout) && end(ContainerEnd::Control));
        let claim = passed.claim("s");
        let Some(old) = Instant::now().checked_sub(UNCLAIMED) else { return };
        passed.lock().values_mut().for_each(|of| of.since = old);
        assert!(pass(&passed, "another"));
        let ends = claim.take_container().unwrap();
        assert!(ends.stdio.stdout.is_some() && claim.take_container().is_none());
    }

    #[test]
    fn there_is_a_limit() {
        let passed = Arc::<Passed>::default();
        let one = fs_err::File::open("/").unwrap().into_parts().0;
        let dir = PassedDir { fd: Arc::new(one.into()), peer: Peer { uid: 0, gid: 0 } };
        let all = (0..MOST).map(|i| (i.to_string(), dir.clone())).collect();
        passed.lock().insert("s".to_owned(), Of { directories: all, ..Of::default() });
        assert!(!pass(&passed, "t"));
    }
}
