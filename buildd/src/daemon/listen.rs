//! Addresses and the gRPC server on them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::content::content_server::ContentServer;
use proto::control::control_server::ControlServer;
use proto::gateway::llb_bridge_server::LlbBridgeServer;
use proto::otlp::collector::trace::v1::trace_service_server::TraceServiceServer;
use proto::rbuild::containers_server::ContainersServer;
use proto::rbuild::debug_server::DebugServer;
use proto::rbuild::explain_server::ExplainServer;
use proto::rbuild::images_server::ImagesServer;
use proto::rbuild::version_server::VersionServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::builds::Builds;
use super::config::Grpc;
use super::control::ControlService;
use super::gateway::GatewayService;
use super::parts::Parts;
use super::reflection;
use super::services::{
    ContainersService, ContentService, DebugService, ExplainService, ImagesService, TracesService,
    VersionService, take_up,
};
use super::side;
use super::tls::{self, Certificates};

/// How often a TCP connection is looked at: a client whose machine or network is gone says nothing, and its builds have to
/// end. A unix socket tells by itself.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How long the other end of a TCP connection may take to answer. Less, and a busy machine loses its builds.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(30);

/// How long running calls may take to be answered once the daemon leaves.
const ANSWERS: Duration = Duration::from_secs(4);

/// How long builds that run may go on then; with the above and [`super::start`]'s waits less than the ten seconds that are promised.
const GRACE: Duration = Duration::from_secs(3);

/// BuildKit's limit for a message.
pub(super) const MAX_MESSAGE: usize = 16 << 20;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Neither `unix://` nor `tcp://`.
    #[error("invalid address `{0}`: want `unix:///path` or `tcp://host:port`")]
    Address(String),
    /// Another daemon serves there.
    #[error("another daemon listens on `{0}`")]
    InUse(String),
    /// The system refused.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server failed.
    #[error("the gRPC server failed")]
    Serve(#[source] tonic::transport::Error),
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// Another scheme, or nothing after it.
    pub(super) fn parse(text: &str) -> Result<Self, ListenError> {
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", host)) if host.contains(':') => Ok(Self::Tcp(host.to_owned())),
            _ => Err(ListenError::Address(text.to_owned())),
        }
    }
}

/// When the daemon leaves.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// It takes no more clients.
    pub stop: CancellationToken,
    /// Nor does it wait for builds.
    pub hurry: CancellationToken,
}

/// Removes its sockets when dropped.
pub(super) struct Sockets(pub(super) Vec<PathBuf>);

impl Drop for Sockets {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs_err::remove_file(path);
        }
    }
}

/// Serves all addresses until `leaving.stop`. A `replaceable` daemon leaves for a client of another version.
///
/// Builds that run get a grace time, in which they and their clients are served as ever; `leaving.hurry` ends it.
///
/// # Errors
/// An address that cannot be listened on; then none is.
pub(super) async fn serve(
    addresses: &[Address],
    certificates: Option<Arc<Certificates>>,
    parts: &Arc<Parts>,
    builds: &Arc<Builds>,
    leaving: &Leaving,
    replaceable: bool,
) -> Result<(), ListenError> {
    let Leaving { stop, hurry } = leaving;
    let over = CancellationToken::new();
    take_up(parts, builds);
    let mut sockets = Sockets(Vec::new());
    let mut tasks: Vec<JoinHandle<Result<(), tonic::transport::Error>>> = Vec::new();
    let mut sides = Vec::new();
    for address in addresses {
        let leaving = replaceable.then(|| stop.clone());
        let stopped = over.clone().cancelled_owned();
        match address {
            Address::Unix(path) => {
                // Before anything of another daemon's is replaced.
                refuse_if_in_use(path)?;
                let side = side::listen(path).map_err(|source| bind_error(path, source))?;
                sides.push(tokio::spawn(side::serve(side, parts.passed.clone())));
                // The main socket comes last: whoever sees it can use everything.
                let listener = bind_unix(path, &parts.config.grpc)?;
                sockets.0.extend([path.clone(), crate::sidesocket::path(path)]);
                let incoming = UnixListenerStream::new(listener);
                let router = router(Server::builder(), parts, builds, leaving)?;
                tasks.push(tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped)));
            }
            Address::Tcp(host) => {
                let listener = bind_tcp(host).await?;
                let server = Server::builder()
                    .http2_keepalive_interval(Some(KEEPALIVE))
                    .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER));
                let router = router(server, parts, builds, leaving)?;
                tasks.push(match &certificates {
                    Some(certificates) => {
                        let incoming = tls::incoming(listener, certificates.clone(), KEEPALIVE, stop.clone());
                        tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped))
                    }
                    None => {
                        let incoming = TcpIncoming::from(listener);
                        let incoming = incoming.with_nodelay(Some(true)).with_keepalive(Some(KEEPALIVE));
                        tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped))
                    }
                });
                warn_of_strangers(host, certificates.as_deref());
            }
        }
    }
    stop.cancelled().await;
    builds.close();
    drop(sockets);
    let grace = parts.config.shutdown_grace.map_or(GRACE, |period| period.0);
    if builds.busy() > 0 && !grace.is_zero() {
        tracing::info!(
            "leaving: {} builds may go on for {grace:?}; another signal cancels them",
            builds.busy()
        );
        tokio::select! {
            () = builds.idle() => {}
            () = tokio::time::sleep(grace) => {}
            () = hurry.cancelled() => {}
        }
    }
    sides.iter().for_each(JoinHandle::abort);
    over.cancel();
    // Running calls get their answers: cancelled builds end soon. Sessions would stay open as long as their clients.
    builds.cancel_all();
    let deadline = tokio::time::Instant::now() + ANSWERS;
    builds.ended(deadline).await;
    let _late = tokio::time::timeout_at(deadline, parts.sessions.shutdown()).await;
    for task in tasks {
        let abort = task.abort_handle();
        match tokio::time::timeout_at(deadline, task).await {
            Ok(Ok(served)) => served.map_err(ListenError::Serve)?,
            Ok(Err(_)) => {}
            Err(_) => abort.abort(),
        }
    }
    Ok(())
}

/// Whoever reaches such an address builds what it likes.
fn warn_of_strangers(host: &str, certificates: Option<&Certificates>) {
    match certificates {
        None => tracing::warn!(
            "`tcp://{host}` is neither encrypted nor are its clients known: see `--tlscert` and `--tlscacert`"
        ),
        Some(certificates) if !certificates.tell_clients_apart() => {
            tracing::warn!("clients of `tcp://{host}` need no certificates: see `--tlscacert`");
        }
        Some(_) => {}
    }
}

fn router(
    mut server: Server,
    parts: &Arc<Parts>,
    builds: &Arc<Builds>,
    stop: Option<CancellationToken>,
) -> Result<tonic::transport::server::Router, ListenError> {
    let control = ControlService { parts: parts.clone(), builds: builds.clone() };
    let control = ControlServer::new(control)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let gateway = LlbBridgeServer::new(GatewayService { parts: parts.clone(), only: None })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let (_, health) = tonic_health::server::health_reporter();
    let (parts, builds) = (parts.clone(), builds.clone());
    let router = server
        .add_service(control)
        .add_service(gateway)
        .add_service(health)
        .add_service(reflection::v1())
        .add_service(reflection::v1alpha())
        .add_service(VersionServer::new(VersionService {
            parts: parts.clone(),
            builds: builds.clone(),
            stop,
        }))
        .add_service(ImagesServer::new(ImagesService { parts: parts.clone(), builds: builds.clone() }))
        .add_service(ContainersServer::new(ContainersService { parts: parts.clone(), builds }))
        .add_service(ContentServer::new(ContentService { store: parts.store.clone() }))
        .add_service(
            TraceServiceServer::new(TracesService { traces: parts.traces.clone() })
                .max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            ExplainServer::new(ExplainService { parts: parts.clone() })
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .add_service(DebugServer::new(DebugService { parts }));
    Ok(router)
}

fn bind_error(path: &Path, source: io::Error) -> ListenError {
    ListenError::Bind { address: path.display().to_string(), source }
}

fn refuse_if_in_use(path: &Path) -> Result<(), ListenError> {
    match StdUnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse(path.display().to_string())),
        Err(_) => Ok(()),
    }
}

/// Binds `HOST:PORT`.
pub(super) async fn bind_tcp(host: &str) -> Result<TcpListener, ListenError> {
    let failed = |source| ListenError::Bind { address: host.to_owned(), source };
    TcpListener::bind(host).await.map_err(failed)
}

/// Binds beside the path and renames: the socket appears only when it serves, and a stale one is replaced. It belongs to
/// the configured owner; members of the group may connect.
pub(super) fn bind_unix(path: &Path, grpc: &Grpc) -> Result<UnixListener, ListenError> {
    refuse_if_in_use(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = fs_err::remove_file(&beside);
    let failed = |source| bind_error(path, source);
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    std::os::unix::fs::chown(&beside, grpc.uid, grpc.gid).map_err(failed)?;
    let mode = if grpc.gid.is_some() { 0o660 } else { 0o600 };
    fs_err::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    fs_err::rename(&beside, path).map_err(failed)?;
    Ok(listener)
}
