//! Generated gRPC and LLB messages, nothing else.
//!
//! The sources are `proto/**/*.proto`. Field names, numbers, types and package names are BuildKit's wire format;
//! `rbuild` is ours. Each package has a short module here.

#[expect(
    missing_docs,
    unreachable_pub,
    clippy::large_enum_variant,
    reason = "generated from the .proto files, which carry the documentation"
)]
mod packages {
    tonic::include_proto!("packages");
}

/// The `.proto` files as a `google.protobuf.FileDescriptorSet`: what services and messages there are, for gRPC's reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use packages::containerd::services::content::v1 as content;
pub use packages::errdefs;
pub use packages::fsutil::types as fsutil;
pub use packages::google::rpc;
pub use packages::moby::buildkit::secrets::v1 as secrets;
pub use packages::moby::buildkit::v1 as control;
pub use packages::moby::buildkit::v1::apicaps as caps;
pub use packages::moby::buildkit::v1::frontend as gateway;
pub use packages::moby::buildkit::v1::sourcepolicy;
pub use packages::moby::buildkit::v1::sourcepolicy::policysession;
pub use packages::moby::buildkit::v1::types as worker;
pub use packages::moby::exporter::v1 as exporter;
pub use packages::moby::filesync::v1 as filesync;
pub use packages::moby::sshforward::v1 as sshforward;
pub use packages::moby::upload::v1 as upload;
pub use packages::opentelemetry::proto as otlp;
pub use packages::pb;
pub use packages::rbuild::v1 as rbuild;
