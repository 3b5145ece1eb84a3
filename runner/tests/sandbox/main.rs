//! Sandboxes as a daemon starts them, over a root made of a static busybox. Needs root, but for `rootless`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod basics;
mod isolation;
mod join;
mod lifecycle;
mod monitor;
mod mounts;
mod network;
mod rootless;
mod support;
