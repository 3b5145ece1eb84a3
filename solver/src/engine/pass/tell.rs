//! What a pass tells of vertices that it did not have to execute.
//!
//! BuildKit looks every vertex without inputs up before anything else and tells that as a piece of work, so such a
//! vertex never shows as cached for the reason alone that what stands on it is. It does when its own result is loaded:
//! where it is wanted, an input of what is executed, or has its content looked at.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Pass;
use crate::graph::VertexId;
use crate::op::Op;
use crate::traits::{Event, EventSink, ExecError, SourceIdentity};

/// Nothing was told of a vertex yet.
const UNTOLD: u8 = 0;
/// That it was looked up.
const LOOKED_UP: u8 = 1;
/// That it came from the cache, or was executed.
pub(super) const TOLD: u8 = 2;

/// A vertex that was told to have started; told to be over at the latest when this is dropped.
pub(in crate::engine) struct Shown {
    events: Arc<dyn EventSink>,
    id: VertexId,
    ended: bool,
}

impl Shown {
    /// Tells that it is over.
    pub(in crate::engine) fn end(mut self, error: Option<&ExecError>) {
        self.tell(Event::Completed(SystemTime::now(), error.map(ToString::to_string)));
    }

    /// Tells that it came from the cache.
    pub(super) fn cached(mut self) {
        self.tell(Event::Cached(SystemTime::now()));
    }

    fn tell(&mut self, event: Event) {
        self.ended = true;
        self.events.event(self.id, event);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(Event::Completed(SystemTime::now(), Some(ExecError::Canceled.to_string())));
        }
    }
}

impl Pass {
    /// Tells that the vertex started.
    pub(in crate::engine) fn begin(&self, id: VertexId) -> Shown {
        self.tell(id, Event::Started(SystemTime::now()));
        Shown { events: self.events.clone(), id, ended: false }
    }

    /// Tells that the vertex and all that stands on record below it came from the cache; of what has no inputs only that
    /// it was looked up.
    pub(super) fn tell_cached(&self, id: VertexId) {
        let (mut todo, mut found) = (vec![id], Vec::new());
        while let Some(id) = todo.pop() {
            let (node, vertex) = (self.node(id), self.graph.vertex(id));
            let told = if vertex.inputs.is_empty() { LOOKED_UP } else { TOLD };
            if matches!(vertex.op, Op::Source(_)) || node.told.fetch_max(told, Ordering::Relaxed) != UNTOLD {
                continue;
            }
            found.push((id, told));
            let inputs = vertex.inputs.iter().map(|e| e.vertex);
            todo.extend(inputs.filter(|v| self.node(*v).record.get().is_some()));
        }
        // In the order of the graph, inputs first, as they would have run.
        found.sort_unstable();
        for (id, told) in found {
            let at = SystemTime::now();
            if told == TOLD {
                self.tell(id, Event::Cached(at));
            } else {
                self.tell(id, Event::Started(at));
                self.tell(id, Event::Completed(at, None));
            }
        }
    }

    /// Tells that the vertex and all that it is made from came from a cache elsewhere.
    pub(super) fn tell_found(&self, id: VertexId) {
        let (mut todo, mut below) = (vec![id], Vec::new());
        while let Some(id) = todo.pop() {
            if !self.node(id).swept.swap(true, Ordering::Relaxed) {
                todo.extend(self.graph.vertex(id).inputs.iter().map(|e| e.vertex));
                below.push(id);
            }
        }
        below.sort_unstable();
        for id in below {
            let source = matches!(self.graph.vertex(id).op, Op::Source(_));
            if !source && self.node(id).told.swap(TOLD, Ordering::Relaxed) == UNTOLD {
                self.tell(id, Event::Cached(SystemTime::now()));
            }
        }
    }

    /// Tells that a vertex without inputs, a source for one, came from the cache.
    pub(super) fn tell_loaded(&self, id: VertexId) {
        let (node, vertex) = (self.node(id), self.graph.vertex(id));
        let known = match node.answer.get() {
            Some(answer) => {
                answer.identity != SourceIdentity::Content
                    && answer.output.as_ref().is_some_and(|o| o.content.is_some())
            }
            None => node.record.get().is_some(),
        };
        if known && vertex.inputs.is_empty() && node.told.swap(TOLD, Ordering::Relaxed) != TOLD {
            self.tell(id, Event::Cached(SystemTime::now()));
        }
    }

    pub(super) fn mark_told(&self, id: VertexId) {
        self.node(id).told.store(TOLD, Ordering::Relaxed);
    }
}
