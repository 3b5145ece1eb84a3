//! Encrypted connections, with certificates that may change while the daemon runs.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::peer::Peer;
use crate::blocking::blocking;
use crate::causes::causes;
use crate::tls::{TlsError, TlsFiles};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time: whoever does not come to an end must not take all descriptors.
const HANDSHAKES: usize = 64;
/// How long to wait when no connection can be taken, for instance for want of descriptors.
const RECOVERY: Duration = Duration::from_millis(100);

/// A server's certificates, read again when their files change.
#[derive(Debug)]
pub(super) struct Certificates {
    files: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    stamps: Vec<Stamp>,
    config: Arc<ServerConfig>,
}

/// What tells a file from the one that was there before.
type Stamp = Option<(PathBuf, SystemTime, u64, u64)>;

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    /// Files that give no TLS.
    pub(super) fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let config = Arc::new(files.server()?);
        Ok(Self { files, current: Mutex::new(Current { stamps, config }) })
    }

    /// Whether clients need certificates.
    pub(super) const fn tell_clients_apart(&self) -> bool {
        self.files.ca.is_some()
    }

    /// The present settings.
    pub(super) async fn latest(self: &Arc<Self>) -> Arc<ServerConfig> {
        let certificates = self.clone();
        blocking(move || certificates.current()).await
    }

    /// The present settings. Changed files that give none are warned of, and what was read before holds. Blocking.
    fn current(&self) -> Arc<ServerConfig> {
        let now = stamps(&self.files);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now != current.stamps {
            current.stamps = now;
            match self.files.server() {
                Ok(config) => {
                    tracing::info!("the TLS certificates were read again");
                    current.config = Arc::new(config);
                }
                Err(e) => {
                    tracing::warn!("the TLS certificates have changed and cannot be used: {}", causes(&e));
                }
            }
        }
        current.config.clone()
    }
}

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &std::path::Path| {
        let found = fs_err::metadata(path).ok()?;
        Some((path.to_owned(), found.modified().ok()?, found.len(), found.ino()))
    };
    files.paths().map(stamp).collect()
}

/// A connection after its handshake.
#[derive(Debug)]
pub(super) struct Encrypted(TlsStream<TcpStream>);

impl Connected for Encrypted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let certificates = self.0.get_ref().1.peer_certificates();
        certificates.and_then(<[_]>::first).map_or(Peer::Unknown, |own| Peer::with_certificate(own))
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Takes connections until `stop`; only those that prove to be who they have to be are handed on.
pub(super) fn incoming(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    keepalive: Duration,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Encrypted>> {
    let (to, taken) = mpsc::channel(HANDSHAKES);
    let places = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
    let accepting = async move {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(taken) => taken,
                Err(e) => {
                    tracing::warn!("cannot take a connection: {e}");
                    tokio::time::sleep(RECOVERY).await;
                    continue;
                }
            };
            let (to, certificates) = (to.clone(), certificates.clone());
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE, shake_hands(stream, certificates, keepalive)).await {
                    // The server has gone.
                    Ok(Ok(stream)) => drop(to.send(Ok(stream)).await),
                    // Who only looks whether somebody listens says nothing.
                    Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {}
                    Ok(Err(e)) => tracing::info!("no TLS with `{peer}`: {e}"),
                    Err(_) => tracing::info!("no TLS with `{peer}`: it took more than {HANDSHAKE:?}"),
                }
                drop(place);
            });
        }
    };
    tokio::spawn(stop.run_until_cancelled_owned(accepting));
    ReceiverStream::new(taken)
}

async fn shake_hands(
    stream: TcpStream,
    certificates: Arc<Certificates>,
    keepalive: Duration,
) -> io::Result<Encrypted> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, keepalive)?;
    TlsAcceptor::from(certificates.latest().await).accept(stream).await.map(Encrypted)
}
