//! A connection to a daemon.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::content::content_client::ContentClient;
use proto::control::control_client::ControlClient;
use proto::gateway::llb_bridge_client::LlbBridgeClient;
use proto::rbuild::containers_client::ContainersClient;
use proto::rbuild::debug_client::DebugClient;
use proto::rbuild::explain_client::ExplainClient;
use proto::rbuild::images_client::ImagesClient;
use proto::rbuild::version_client::VersionClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::encrypted::{Connector, Tls};
use super::{Address, ClientError};

/// Largest message; BuildKit's limit.
const MAX_MESSAGE: usize = 16 << 20;

/// Errors carry the Dockerfile in their trailers, so those may be as large as grpc-go's limit allows.
const MAX_HEADERS: u32 = 16 << 20;

/// How long a TCP connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP/2 windows; contexts and archives pass through one stream of one connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// A connection to a daemon. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    address: Address,
    channel: Channel,
}

impl Client {
    /// Connects; over tcp encrypted, if there are files for it.
    ///
    /// # Errors
    /// Nothing answers there.
    pub async fn connect(address: &Address, tls: &Tls) -> Result<Self, ClientError> {
        let connected = match address {
            Address::Unix(path) => {
                let path = path.clone();
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                endpoint("http://localhost".to_owned())?.connect_with_connector(connector).await
            }
            Address::Tcp(host) if tls.files.is_empty() => endpoint(format!("http://{host}"))?.connect().await,
            Address::Tcp(host) => {
                let connector = Connector::new(host, tls)?;
                let connector = tower::service_fn(move |_| {
                    let connector = connector.clone();
                    async move { connector.connect().await.map(TokioIo::new) }
                });
                // The connector encrypts; tonic would refuse `https` that it does not encrypt itself.
                let origin = format!("https://{host}");
                let origin = origin.parse().map_err(|_| ClientError::Address(origin))?;
                endpoint(format!("http://{host}"))?.origin(origin).connect_with_connector(connector).await
            }
        };
        let channel = connected
            .map_err(|err| ClientError::Connect { address: address.clone(), reason: root_cause(&err) })?;
        Ok(Self { address: address.clone(), channel })
    }

    /// Where the daemon is.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// BuildKit's main service.
    pub fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The blobs of past builds.
    pub fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// What frontends build with.
    pub fn bridge(&self) -> LlbBridgeClient<Channel> {
        LlbBridgeClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The image store of rbuild's daemon.
    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The containers of rbuild's daemon.
    pub fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Self-checks of rbuild's daemon.
    pub fn debug(&self) -> DebugClient<Channel> {
        DebugClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Why steps ran, from rbuild's daemon.
    pub fn explain(&self) -> ExplainClient<Channel> {
        ExplainClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// What rbuild's daemon says of itself.
    pub fn version(&self) -> VersionClient<Channel> {
        VersionClient::new(self.channel.clone())
    }
}

fn endpoint(uri: String) -> Result<Endpoint, ClientError> {
    let endpoint = Endpoint::from_shared(uri.clone()).map_err(|_| ClientError::Address(uri))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADERS)
        .tcp_nodelay(true))
}

/// What lies beneath tonic's `transport error`.
fn root_cause(err: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = err;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
