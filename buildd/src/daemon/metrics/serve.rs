//! The address at which they are asked for.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{AxumBody, AxumRouter, Routes};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::Metrics;
use crate::daemon::blocking::blocking;
use crate::daemon::builds::Builds;
use crate::daemon::config::Grpc;
use crate::daemon::listen::{Address, ListenError, Sockets, bind_tcp, bind_unix};

/// Where they are.
const PATH: &str = "/metrics";
/// OpenMetrics' text format.
const TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Begins to serve them over HTTP until `stop`. Whoever reaches the address may read them: they name no build.
///
/// # Errors
/// An address that cannot be listened on; sockets belong to whom `grpc` says.
pub(in crate::daemon) async fn serve(
    address: &str,
    grpc: &Grpc,
    metrics: Arc<Metrics>,
    builds: Arc<Builds>,
    stop: CancellationToken,
) -> Result<(), ListenError> {
    // BuildKit's own takes a host and a port alone, too.
    let address = match address.contains("://") {
        true => Address::parse(address)?,
        false => Address::parse(&format!("tcp://{address}"))?,
    };
    let answer = tower::service_fn(move |request: http::Request<AxumBody>| {
        let (metrics, builds) = (metrics.clone(), builds.clone());
        async move {
            if ![Method::GET, Method::HEAD].contains(request.method()) {
                return Ok::<_, Infallible>(status(StatusCode::METHOD_NOT_ALLOWED));
            }
            let text = blocking(move || metrics.text(&builds)).await;
            let mut response = Response::new(AxumBody::from(text));
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
            Ok(response)
        }
    });
    let router = AxumRouter::new().route_service(PATH, answer);
    let server = Server::builder().accept_http1(true).add_routes(Routes::from(router));
    let stopped = stop.cancelled_owned();
    match address {
        Address::Unix(path) => {
            let incoming = UnixListenerStream::new(bind_unix(&path, grpc)?);
            let sockets = Sockets(vec![path]);
            tokio::spawn(async move {
                let _served = server.serve_with_incoming_shutdown(incoming, stopped).await;
                drop(sockets);
            });
        }
        Address::Tcp(host) => {
            let incoming = TcpIncoming::from(bind_tcp(&host).await?);
            tokio::spawn(server.serve_with_incoming_shutdown(incoming, stopped));
        }
    }
    Ok(())
}

fn status(status: StatusCode) -> Response<AxumBody> {
    let mut response = Response::new(AxumBody::empty());
    *response.status_mut() = status;
    response
}
