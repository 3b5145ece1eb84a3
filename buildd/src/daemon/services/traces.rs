//! OpenTelemetry's trace service: clients hand their spans over to the daemon, which knows the collector.

use std::sync::Arc;

use proto::otlp::collector::trace::v1::trace_service_server::TraceService;
use proto::otlp::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::{Request, Response, Status};

use crate::daemon::traces::Traces;

/// Takes spans.
#[derive(Debug)]
pub(crate) struct TracesService {
    /// Where they go.
    pub(crate) traces: Arc<Traces>,
}

#[tonic::async_trait]
impl TraceService for TracesService {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.take(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
