//! A step's own spans: a socket in its sandbox, and what its programs are told of it, both as in BuildKit.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::otlp::collector::trace::v1::trace_service_server::TraceServiceServer;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::{TraceContext, Traces};
use crate::daemon::services::TracesService;

/// Where the socket is in the sandbox.
pub(in crate::daemon) const SOCKET: &str = "/dev/otel-grpc.sock";

/// A socket that takes spans until it is dropped.
#[derive(Debug)]
pub(in crate::daemon) struct SpanSocket {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl SpanSocket {
    /// A socket at `path`, for whichever user a step runs as.
    ///
    /// # Errors
    /// When it cannot be made there.
    pub(in crate::daemon) fn open(traces: &Arc<Traces>, path: PathBuf) -> std::io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        let service = TraceServiceServer::new(TracesService { traces: traces.clone() });
        let serving = tokio::spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            if let Err(e) = Server::builder().add_service(service).serve_with_incoming(incoming).await {
                tracing::debug!("spans of a step: {e}");
            }
        });
        Ok(Self { path, serving })
    }

    pub(in crate::daemon) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpanSocket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The variables that make a step's programs send their spans there, as part of the build's trace.
pub(in crate::daemon) fn environment(context: &TraceContext) -> [(&'static str, String); 4] {
    [
        ("OTEL_TRACES_EXPORTER", "otlp".to_owned()),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("unix://{SOCKET}")),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc".to_owned()),
        ("TRACEPARENT", context.header()),
    ]
}

#[cfg(test)]
mod tests {
    use proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
    use proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient;
    use proto::otlp::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use tonic::transport::Endpoint;

    use super::super::TraceId;
    use super::*;

    #[tokio::test]
    async fn spans_of_a_step_are_taken_until_it_ends() {
        let traces = Arc::new(Traces::default());
        let listening = traces.listen(TraceId([7; 16]));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spans");
        let socket = SpanSocket::open(&traces, path.clone()).unwrap();
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.path().display())).unwrap();
        let mut client = TraceServiceClient::new(endpoint.connect().await.unwrap());
        let span = Span { trace_id: vec![7; 16].into(), name: "of a step".to_owned(), ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        client.export(ExportTraceServiceRequest { resource_spans }).await.unwrap();
        assert!(listening.text().unwrap().contains("of a step"));
        drop(socket);
        assert!(SpanSocket::open(&traces, path).is_err(), "each step has a directory of its own");
    }
}
