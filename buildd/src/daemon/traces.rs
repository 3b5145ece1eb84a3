//! Spans, the daemon's own and those that clients hand over: sent on to a collector, and kept with past builds.
//!
//! A build's spans are made when it ends, from what it has told ([`spans`]); what a step costs while it runs stays as it is.

mod collector;
mod context;
mod json;
mod socket;
mod spans;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;
use proto::otlp::trace::v1::{ResourceSpans, ScopeSpans};

pub(super) use collector::{Collector, CollectorError, Target};
pub(super) use context::{TraceContext, TraceId, random};
pub(super) use socket::{SOCKET, SpanSocket, environment};
pub(super) use spans::of_build;

/// So many bytes of spans are kept of one trace while its build runs.
const MOST_OF_ONE: usize = 16 << 20;

/// All traces that go through the daemon.
#[derive(Debug, Default)]
pub(super) struct Traces {
    collector: Option<Collector>,
    recorded: Mutex<HashMap<TraceId, Recorded>>,
    /// The builds whose steps may tell spans of their own.
    builds: Mutex<HashMap<String, TraceContext>>,
}

/// Lets a build's steps tell spans of their own until it is dropped.
#[derive(Debug)]
pub(super) struct Followed {
    traces: Arc<Traces>,
    build: String,
}

/// A trace that builds of this daemon belong to.
#[derive(Debug, Default)]
struct Recorded {
    spans: Vec<ResourceSpans>,
    bytes: usize,
    builds: usize,
}

/// Keeps the spans of a trace until it is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    traces: Arc<Traces>,
    trace: TraceId,
}

impl Traces {
    /// With a collector to send spans on to, or without.
    pub(super) fn new(collector: Option<Collector>) -> Self {
        Self { collector, ..Self::default() }
    }

    /// Takes spans in.
    pub(super) fn take(&self, spans: Vec<ResourceSpans>) {
        for resource in &spans {
            self.keep(resource);
        }
        if let Some(collector) = &self.collector {
            collector.send(spans);
        }
    }

    /// Whether spans have somewhere to go besides the history.
    pub(super) fn are_sent_on(&self) -> bool {
        self.collector.is_some()
    }

    /// Lets the steps of a build tell spans of their own, if there is a collector to send them to and the client wants any.
    pub(super) fn follow(self: &Arc<Self>, build: &str, context: &TraceContext) -> Option<Followed> {
        if !context.sampled || !self.are_sent_on() {
            return None;
        }
        self.builds().insert(build.to_owned(), *context);
        Some(Followed { traces: self.clone(), build: build.to_owned() })
    }

    /// What the spans of a build's steps are part of; `None` where none are wanted.
    pub(super) fn of_steps(&self, build: &str) -> Option<TraceContext> {
        self.builds().get(build).copied()
    }

    /// Begins to keep the spans of a trace.
    pub(super) fn listen(self: &Arc<Self>, trace: TraceId) -> Listening {
        self.lock().entry(trace).or_default().builds += 1;
        Listening { traces: self.clone(), trace }
    }

    /// Sends what waits, and ends.
    pub(super) async fn shutdown(&self) {
        if let Some(collector) = &self.collector {
            collector.shutdown().await;
        }
    }

    /// Keeps those spans that belong to recorded traces.
    fn keep(&self, resource: &ResourceSpans) {
        let mut recorded = self.lock();
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let trace = <[u8; 16]>::try_from(&span.trace_id[..]).ok().map(TraceId);
                let Some(known) = trace.and_then(|trace| recorded.get_mut(&trace)) else { continue };
                known.bytes += span.encoded_len();
                if known.bytes > MOST_OF_ONE {
                    continue;
                }
                let scope = ScopeSpans { spans: vec![span.clone()], ..without_spans(scope) };
                let resource = resource.resource.clone();
                known.spans.push(ResourceSpans {
                    resource,
                    scope_spans: vec![scope],
                    ..ResourceSpans::default()
                });
            }
        }
    }

    fn builds(&self) -> MutexGuard<'_, HashMap<String, TraceContext>> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TraceId, Recorded>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without_spans(scope: &ScopeSpans) -> ScopeSpans {
    ScopeSpans { scope: scope.scope.clone(), spans: Vec::new(), schema_url: scope.schema_url.clone() }
}

impl Listening {
    /// What has come in so far, as BuildKit keeps it; `None` where there is nothing.
    pub(super) fn text(&self) -> Option<String> {
        let recorded = self.traces.lock();
        let spans = &recorded.get(&self.trace)?.spans;
        (!spans.is_empty()).then(|| json::text(spans))
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.traces.builds().remove(&self.build);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut recorded = self.traces.lock();
        if let Some(known) = recorded.get_mut(&self.trace) {
            known.builds -= 1;
            if known.builds == 0 {
                recorded.remove(&self.trace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::otlp::trace::v1::Span;

    use super::*;

    fn spans(trace: u8, name: &str) -> Vec<ResourceSpans> {
        let span = Span { trace_id: vec![trace; 16].into(), name: name.to_owned(), ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }]
    }

    #[test]
    fn only_what_builds_belong_to_is_kept() {
        let traces = Arc::new(Traces::default());
        let listening = traces.listen(TraceId([1; 16]));
        let again = traces.listen(TraceId([1; 16]));
        assert_eq!(listening.text(), None);
        traces.take(spans(1, "mine"));
        traces.take(spans(2, "another's"));
        traces.take(spans(1, &"x".repeat(MOST_OF_ONE)));
        drop(again);
        let text = listening.text().unwrap();
        assert!(text.contains("mine") && !text.contains("another's") && text.len() < 4096, "{text}");
        drop(listening);
        assert!(traces.lock().is_empty());
    }
}
