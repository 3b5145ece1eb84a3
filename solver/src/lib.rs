//! Digests, the build graph, cache keys, and the scheduler that runs a graph at most once.
//!
//! Reading order: [`digest`] and [`graph`] are plain data; [`key`] turns an op into cache keys;
//! with the feature `engine`, `engine` evaluates a graph against the traits of `traits`.
//! Without that feature the crate has no I/O and no async runtime, so the frontend can use it.

pub mod digest;
pub mod graph;
pub mod op;

pub use digest::Digest;
pub use graph::{Edge, Graph, GraphBuilder, Vertex, VertexId, VertexMeta};
pub use op::Op;
