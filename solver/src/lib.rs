//! Digests, the build graph, cache keys, and the scheduler that runs a graph at most once.
//!
//! Reading order: [`digest`], [`op`] and [`graph`] are plain data; [`record`] is what the cache keeps.
//! With the feature `engine`, the scheduler evaluates a graph against the traits `RecordStore`, `Source`
//! and `Worker`. Without that feature the crate has no I/O and no async runtime, so the frontend can use it.

pub mod digest;
pub mod graph;
pub mod key;
pub mod op;
pub mod pattern;
pub mod platform;
pub mod record;
mod redact;

#[cfg(feature = "engine")]
mod engine;
#[cfg(feature = "engine")]
mod flight;
#[cfg(feature = "engine")]
mod holders;
#[cfg(feature = "engine")]
mod log;
#[cfg(feature = "engine")]
mod session;
#[cfg(feature = "engine")]
mod traits;

pub use digest::Digest;
#[cfg(feature = "engine")]
pub use engine::{Build, Engine, Need, SolveError, Survey};
pub use graph::{Edge, Graph, GraphBuilder, Variable, Vertex, VertexId, VertexMeta};
#[cfg(feature = "engine")]
pub use holders::Hold;
pub use key::{Selection, Use, step_digest};
pub use op::Op;
pub use record::{Kept, Key, LayerId, Name, OutputRecord, Record, StandsOn};
#[cfg(feature = "engine")]
pub use record::{Put, RecordError, RecordStore};
pub use redact::redacted;
#[cfg(feature = "engine")]
pub use session::SessionGroup;
#[cfg(feature = "engine")]
pub use traits::{
    Elsewhere, Ended, Event, EventSink, ExecError, ExecFailure, Execution, Finding, Found, Job, LocalRef,
    Made, Output, Progress, Question, Reason, Remains, Source, SourceAnswer, SourceIdentity, Status, Stream,
    Update, VertexContext, Worker,
};
