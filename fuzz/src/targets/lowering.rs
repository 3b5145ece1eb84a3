//! Any bytes as a Dockerfile: the whole way to a graph, over a stub base image.

pub(super) fn run(bytes: &[u8]) {
    frontend::inspect::inspect("Dockerfile", bytes);
}
