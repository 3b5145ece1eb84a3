//! The client's end of a session: services that the daemon may call while a build runs.

mod auth;
mod cache_directories;
mod contexts;
mod exports;
mod raw;
mod secrets;
mod seeds;
mod ssh;
mod stores;
mod uploads;

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::StreamExt as _;
use proto::content::content_server::ContentServer;
use proto::control::BytesMessage;
use proto::filesync::auth_server::AuthServer;
use proto::filesync::file_sync_server::FileSyncServer;
use proto::rbuild::cache_directory_server::CacheDirectoryServer;
use proto::secrets::secrets_server::SecretsServer;
use proto::sshforward::ssh_server::SshServer;
use proto::upload::upload_server::UploadServer;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Server;
use tonic::{Extensions, Request, Status};

use self::auth::Auth;
use self::cache_directories::CacheDirectories;
use self::contexts::Contexts;
use self::exports::FileSendServer;
use self::secrets::Secrets;
use self::ssh::Ssh;
use self::stores::Stores;
use self::uploads::Uploads;
use super::output::Target;
use super::{Client, ClientError};
use crate::pipe::{BytePipe, outgoing};

pub use self::secrets::SecretSource;
pub use self::ssh::SshSource;
pub use self::uploads::UploadSource;

/// Flow-control windows inside the tunnel, see `session::tunnel`.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What a session offers.
#[derive(Debug, Default)]
pub struct Services {
    /// Local sources by name.
    pub dirs: BTreeMap<String, PathBuf>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// SSH agents by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// Directories with OCI layouts, by the id in `oci-layout://ID@DIGEST`.
    pub layouts: BTreeMap<String, PathBuf>,
    /// Directories with caches, and whether the daemon may write them.
    pub caches: BTreeMap<PathBuf, bool>,
    /// The directory with an OCI layout that an exported image's blobs go into.
    pub export: Option<PathBuf>,
    /// What the daemon may take once, by the name in `http://buildkit-session/NAME`.
    pub uploads: BTreeMap<String, UploadSource>,
    /// Directories that hold shared caches, by the name that the request has for them.
    pub cache_directories: BTreeMap<String, PathBuf>,
}

/// An open session; dropping it closes it.
#[derive(Debug)]
pub struct ClientSession {
    id: String,
    _open: DropGuard,
}

impl ClientSession {
    /// Opens a session. The daemon waits for its arrival, so calls that name it may be made at once.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn open(client: &Client, services: Services) -> Result<Self, ClientError> {
        Self::with_targets(client, services, Vec::new())
    }

    /// Opens a session that takes results, too; targets are in the order of the exporters.
    pub(super) fn with_targets(
        client: &Client,
        services: Services,
        targets: Vec<Option<Target>>,
    ) -> Result<Self, ClientError> {
        let id = random_id()?;
        let stop = CancellationToken::new();
        let metadata = headers(&id, &services, &targets);
        let client = client.clone();
        let stopped = stop.clone();
        tokio::spawn(async move {
            // A failure shows in the calls that need the session.
            if let Err(status) = serve(client, metadata, services, targets, stopped).await {
                tracing::debug!(%status, "session");
            }
        });
        Ok(Self { id, _open: stop.drop_guard() })
    }

    /// The id that the daemon knows the session by.
    pub fn id(&self) -> &str {
        &self.id
    }
}

async fn serve(
    client: Client,
    metadata: MetadataMap,
    services: Services,
    targets: Vec<Option<Target>>,
    stopped: CancellationToken,
) -> Result<(), Status> {
    let (tx, rx) = outgoing::<BytesMessage>();
    let request = Request::from_parts(metadata, Extensions::default(), rx);
    // The connection lives in a task of its own, which ends with its stream.
    let incoming =
        client.control().session(request).await?.into_inner().take_until(stopped.clone().cancelled_owned());
    let connection =
        futures_util::stream::once(async { Ok::<_, std::io::Error>(BytePipe::new(incoming, tx)) })
            // The server would stop with the last connection; there is one for the whole session.
            .chain(futures_util::stream::pending());
    let (_, health) = tonic_health::server::health_reporter();
    let has_stores = has_stores(&services);
    let Services { dirs, secrets, ssh, layouts, caches, export, uploads, cache_directories } = services;
    let cache_directories = (!cache_directories.is_empty()).then(|| CacheDirectories::new(cache_directories));
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_service(health)
        .add_service(AuthServer::new(Auth))
        .add_optional_service((!dirs.is_empty()).then(|| FileSyncServer::new(Contexts(dirs))))
        .add_optional_service((!secrets.is_empty()).then(|| SecretsServer::new(Secrets(secrets))))
        .add_optional_service((!ssh.is_empty()).then(|| SshServer::new(Ssh(ssh))))
        .add_optional_service(has_stores.then(|| ContentServer::new(Stores { layouts, caches, export })))
        .add_optional_service((!uploads.is_empty()).then(|| UploadServer::new(Uploads::new(uploads))))
        .add_optional_service(cache_directories.map(CacheDirectoryServer::new))
        .add_optional_service(targets.iter().any(Option::is_some).then(|| FileSendServer::new(targets)))
        .serve_with_incoming(connection);
    tokio::select! {
        served = serving => served.map_err(|err| Status::unavailable(err.to_string())),
        () = stopped.cancelled() => Ok(()),
    }
}

/// What tells the daemon the session's id and services.
fn headers(id: &str, services: &Services, targets: &[Option<Target>]) -> MetadataMap {
    let mut methods = vec![
        "/grpc.health.v1.Health/Check",
        "/moby.filesync.v1.Auth/Credentials",
        "/moby.filesync.v1.Auth/FetchToken",
        "/moby.filesync.v1.Auth/GetTokenAuthority",
        "/moby.filesync.v1.Auth/VerifyTokenAuthority",
    ];
    if !services.dirs.is_empty() {
        methods.push("/moby.filesync.v1.FileSync/DiffCopy");
    }
    if !services.secrets.is_empty() {
        methods.push("/moby.buildkit.secrets.v1.Secrets/GetSecret");
    }
    if !services.ssh.is_empty() {
        methods.extend(["/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"]);
    }
    if services.export.is_some() || services.caches.values().any(|writable| *writable) {
        methods.push("/containerd.services.content.v1.Content/Write");
    }
    if has_stores(services) {
        methods.extend([
            "/containerd.services.content.v1.Content/Info",
            "/containerd.services.content.v1.Content/Read",
        ]);
    }
    if !services.uploads.is_empty() {
        methods.push("/moby.upload.v1.Upload/Pull");
    }
    if !services.cache_directories.is_empty() {
        methods.extend(cache_directories::METHODS);
    }
    if targets.iter().any(Option::is_some) {
        methods.push(exports::METHOD);
    }
    let mut metadata = MetadataMap::new();
    let id = AsciiMetadataValue::try_from(id).expect("ids are hexadecimal");
    metadata.insert("x-docker-expose-session-uuid", id);
    metadata.insert("x-docker-expose-session-sharedkey", shared_key(services));
    if let Some(name) = context_name(services) {
        metadata.insert("x-docker-expose-session-name", name);
    }
    for method in methods {
        metadata.append("x-docker-expose-session-grpc-method", AsciiMetadataValue::from_static(method));
    }
    metadata
}

fn has_stores(services: &Services) -> bool {
    !services.layouts.is_empty() || !services.caches.is_empty() || services.export.is_some()
}

/// Lets a daemon recognise the same directories in a later session.
fn shared_key(services: &Services) -> AsciiMetadataValue {
    let mut hasher = solver::digest::Hasher::new("rbuild.session.sharedkey.v1");
    for (name, dir) in &services.dirs {
        hasher.str(name).bytes(dir.as_os_str().as_encoded_bytes());
    }
    let machine = fs_err::read("/etc/machine-id").unwrap_or_default();
    hasher.bytes(&machine);
    AsciiMetadataValue::try_from(hasher.finish().hex()).expect("digests are hexadecimal")
}

/// What the directory that is built is called, whatever machine it is on.
fn context_name(services: &Services) -> Option<AsciiMetadataValue> {
    let dir = services.dirs.get("context")?;
    let whole = fs_err::canonicalize(dir).ok()?;
    AsciiMetadataValue::try_from(whole.file_name()?.to_str()?).ok()
}

/// 25 random characters, as BuildKit's ids have.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn random_id() -> Result<String, ClientError> {
    let mut bytes = [0; 13];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| ClientError::io("getrandom", e.into()))?;
    let mut id = hex::encode(bytes);
    id.truncate(25);
    Ok(id)
}
