//! The spans of a build: of the call, and of each vertex that ran or was found.

use proto::control::Vertex;
use proto::otlp::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use proto::otlp::resource::v1::Resource;
use proto::otlp::trace::v1::span::SpanKind;
use proto::otlp::trace::v1::status::StatusCode;
use proto::otlp::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::context::{TraceContext, random};
use crate::daemon::journal::Journal;

/// What BuildKit calls the span of a build.
const CALL: &str = "moby.buildkit.v1.Control/Solve";
/// More vertices than this have no spans.
const MOST: usize = 10_000;

/// The spans of a build that has ended; times are in nanoseconds since 1970. Blocking.
pub(in crate::daemon) fn of_build(
    context: &TraceContext,
    journal: &Journal,
    (started, ended): (u64, u64),
    error: Option<&str>,
) -> Vec<ResourceSpans> {
    let call = Span {
        trace_id: context.trace.0.to_vec().into(),
        span_id: context.call.to_vec().into(),
        parent_span_id: context.parent.map(|id| id.to_vec()).unwrap_or_default().into(),
        name: CALL.to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: started,
        end_time_unix_nano: ended,
        attributes: vec![
            text("rpc.system", "grpc"),
            text("rpc.service", "moby.buildkit.v1.Control"),
            text("rpc.method", "Solve"),
        ],
        status: error.map(failed),
        ..Span::default()
    };
    let mut spans = vec![call.clone()];
    let mut offset = 0;
    while let Some((message, next)) = journal.so_far(offset) {
        offset = next;
        spans.extend(message.vertexes.iter().filter_map(|vertex| of_vertex(vertex, &call)));
    }
    spans.truncate(MOST);
    let scope =
        InstrumentationScope { name: env!("CARGO_PKG_NAME").to_owned(), ..InstrumentationScope::default() };
    let scope = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    vec![ResourceSpans { resource: Some(resource()), scope_spans: vec![scope], ..ResourceSpans::default() }]
}

/// A vertex that has ended, below the call.
fn of_vertex(vertex: &Vertex, call: &Span) -> Option<Span> {
    let nanos = |t: &prost_types::Timestamp| (t.seconds * 1_000_000_000 + i64::from(t.nanos)) as u64;
    let ended = vertex.completed.as_ref().map(nanos)?;
    let started = vertex.started.as_ref().map_or(ended, nanos);
    // In BuildKit's words.
    let name = if vertex.cached { format!("load cache: {}", vertex.name) } else { vertex.name.clone() };
    Some(Span {
        trace_id: call.trace_id.clone(),
        span_id: random::<8>().to_vec().into(),
        parent_span_id: call.span_id.clone(),
        name,
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: started,
        end_time_unix_nano: ended,
        attributes: vec![text("vertex", &vertex.digest)],
        status: Some(vertex.error.as_str()).filter(|error| !error.is_empty()).map(failed),
        ..Span::default()
    })
}

fn failed(message: &str) -> Status {
    Status { code: StatusCode::Error.into(), message: message.to_owned() }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

/// This program, under the name that its environment gives it.
fn resource() -> Resource {
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let attributes = vec![
        text("service.name", name.as_deref().unwrap_or("rbuild")),
        text("service.version", env!("CARGO_PKG_VERSION")),
    ];
    Resource { attributes, ..Resource::default() }
}

#[cfg(test)]
mod tests {
    use proto::control::StatusResponse;

    use super::super::TraceId;
    use super::*;

    #[test]
    fn steps_are_below_the_call() {
        let journal = Journal::new(std::env::temp_dir());
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 5 });
        let vertex = |name: &str, started, completed| Vertex {
            name: name.to_owned(),
            digest: format!("digest of {name}"),
            started,
            completed,
            ..Vertex::default()
        };
        let failing = Vertex { error: "exit code: 1".to_owned(), ..vertex("run", at(2), at(3)) };
        let cached = Vertex { cached: true, ..vertex("found", None, at(1)) };
        let vertexes = vec![vertex("run", at(2), None), cached, failing];
        journal.push(&StatusResponse { vertexes, ..StatusResponse::default() });
        let context =
            TraceContext { trace: TraceId([7; 16]), parent: Some([3; 8]), call: [4; 8], sampled: true };
        let made = of_build(&context, &journal, (1, 9), Some("it failed"));
        let spans = &made[0].scope_spans[0].spans;
        let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, [CALL, "load cache: found", "run"]);
        assert_eq!((&spans[0].parent_span_id[..], spans[0].end_time_unix_nano), (&[3; 8][..], 9));
        assert!(spans.iter().all(|span| span.trace_id[..] == [7; 16]));
        assert_eq!(spans[0].span_id[..], [4; 8]);
        assert!(spans[1..].iter().all(|span| span.parent_span_id == spans[0].span_id));
        assert_eq!(
            (spans[2].start_time_unix_nano, spans[2].end_time_unix_nano),
            (2_000_000_005, 3_000_000_005)
        );
        assert_eq!(spans[2].status, Some(failed("exit code: 1")));
        assert_eq!(spans[0].status, Some(failed("it failed")));
    }
}
