//! Spans: from clients through the daemon to a collector, and with past builds.

use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::content::ReadContentRequest;
use proto::content::content_client::ContentClient;
use proto::control::{BuildHistoryRecord, BuildHistoryRequest, SolveRequest, UpdateBuildHistoryRequest};
use proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient;
use proto::otlp::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use proto::otlp::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use proto::otlp::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde_json::Value;
use tests::llb::Llb;
use tests::{Api, Scene, ready};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// What a collector has been sent, and the headers of the last message.
#[derive(Debug, Clone, Default)]
struct Collected {
    spans: Arc<Mutex<Vec<Span>>>,
    key: Arc<Mutex<Option<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collected {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let key = request.metadata().get("x-key").map(|value| value.to_str().unwrap().to_owned());
        *self.key.lock().unwrap() = key;
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|r| r.scope_spans).flat_map(|scope| scope.spans);
        self.spans.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collected {
    /// Waits for a span of this name.
    fn named(&self, name: &str) -> Span {
        let begun = Instant::now();
        loop {
            if let Some(span) = self.spans.lock().unwrap().iter().find(|span| span.name == name) {
                return span.clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no span `{name}` in {self:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn channel(api: &Api, scene: &Scene) -> Channel {
    let endpoint = Endpoint::from_shared(scene.daemon.addr()).unwrap();
    api.runtime.block_on(endpoint.connect()).unwrap()
}

/// A build of one command, within a client's span.
fn build(api: &Api, reference: &str, script: &str) -> Result<(), Status> {
    let mut llb = Llb::new();
    let base = llb.image("docker.io/library/base:latest");
    let run = llb.run(&base, script, |_| {});
    let mut request = Request::new(SolveRequest {
        r#ref: reference.to_owned(),
        definition: Some(llb.definition(&run)),
        ..SolveRequest::default()
    });
    let parent = format!("00-{TRACE}-{CLIENT}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    let mut control = api.control();
    api.runtime.block_on(async move { control.solve(request).await.map(drop) })
}

fn record(api: &Api, reference: &str) -> BuildHistoryRecord {
    let mut control = api.control();
    let request = BuildHistoryRequest {
        r#ref: reference.to_owned(),
        early_exit: true,
        ..BuildHistoryRequest::default()
    };
    api.runtime.block_on(async move {
        let mut events = control.listen_build_history(request).await.unwrap().into_inner();
        events.message().await.unwrap().unwrap().record.unwrap()
    })
}

#[test]
fn spans_reach_the_collector_and_the_history() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let plain = "test ! -e /dev/otel-grpc.sock && test -z \"$TRACEPARENT$OTEL_TRACES_EXPORTER\"";
    build(&api, "plain", plain).unwrap();
    let collected = Collected::default();
    let address = StdListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
    let service = TraceServiceServer::new(collected.clone());
    api.runtime.spawn(Server::builder().add_service(service).serve(address));
    scene.daemon.stop();
    scene.daemon.set_environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"));
    scene.daemon.set_environment("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b");
    scene.daemon.again();
    let api = Api::connect(&scene.daemon);

    let error = build(&api, "failing", "exit 3").unwrap_err();
    assert!(error.message().contains("exit code: 3"), "{error}");
    let span = Span {
        trace_id: hex::decode(TRACE).unwrap().into(),
        span_id: hex::decode(CLIENT).unwrap().into(),
        name: "the client's".to_owned(),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    let mut traces = TraceServiceClient::new(channel(&api, &scene));
    api.runtime.block_on(traces.export(ExportTraceServiceRequest { resource_spans })).unwrap();

    let call = collected.named("moby.buildkit.v1.Control/Solve");
    assert_eq!(hex::encode(&call.trace_id), TRACE);
    assert_eq!(hex::encode(&call.parent_span_id), CLIENT);
    assert!(call.status.as_ref().is_some_and(|status| status.code == 2), "{call:?}");
    let step = collected.named("/bin/sh -ec exit 3");
    assert_eq!((&step.parent_span_id, &step.trace_id), (&call.span_id, &call.trace_id));
    assert!(step.start_time_unix_nano >= call.start_time_unix_nano);
    assert!(step.end_time_unix_nano <= call.end_time_unix_nano);
    collected.named("the client's");
    assert_eq!(collected.key.lock().unwrap().as_deref(), Some("a b"));

    // Steps tell spans of their own, below the build's.
    let told = format!(
        "test -S /dev/otel-grpc.sock && test $OTEL_EXPORTER_OTLP_TRACES_ENDPOINT = unix:///dev/otel-grpc.sock && \
         case $TRACEPARENT in 00-{TRACE}-*-01) env | grep -c ^OTEL_ | grep 3;; *) exit 9;; esac"
    );
    build(&api, "telling", &told).unwrap();

    // Long before the client's spans stop being waited for.
    let finalize = UpdateBuildHistoryRequest {
        r#ref: "failing".to_owned(),
        finalize: true,
        ..UpdateBuildHistoryRequest::default()
    };
    api.runtime.block_on(api.control().update_build_history(finalize)).unwrap();
    let trace = record(&api, "failing").trace.expect("a trace");
    assert_eq!(trace.media_type, "application/vnd.buildkit.otlp.json.v0");
    let mut content = ContentClient::new(channel(&api, &scene));
    let request = ReadContentRequest { digest: trace.digest, ..ReadContentRequest::default() };
    let text = api.runtime.block_on(async move {
        let mut parts = content.read(request).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = parts.message().await.unwrap() {
            bytes.extend_from_slice(&part.data);
        }
        String::from_utf8(bytes).unwrap()
    });
    assert_eq!(text.len() as i64, trace.size);
    let spans: BTreeMap<String, Value> = serde_json::Deserializer::from_str(&text)
        .into_iter::<Value>()
        .map(|span| span.unwrap())
        .map(|span| (span["Name"].as_str().unwrap().to_owned(), span))
        .collect();
    assert_eq!(spans["the client's"]["SpanContext"]["SpanID"], CLIENT);
    assert_eq!(spans["/bin/sh -ec exit 3"]["Status"]["Code"], "Error");
    assert_eq!(spans["moby.buildkit.v1.Control/Solve"]["Parent"]["SpanID"], CLIENT);
}

#[test]
fn a_collector_that_is_not_there_costs_no_build() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    scene.daemon.stop();
    scene.daemon.set_environment("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    scene.daemon.set_environment("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    scene.daemon.again();
    let api = Api::connect(&scene.daemon);
    build(&api, "well", "true").unwrap();
    scene.daemon.stop();
    let log = fs_err::read_to_string(scene.daemon.log()).unwrap();
    assert!(log.contains("traces are lost: `http://127.0.0.1:1/v1/traces`"), "{log}");
}
