//! Any bytes as a Dockerfile: the whole way to a graph, over a stub base image.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    frontend::inspect::inspect("Dockerfile", bytes);
});
