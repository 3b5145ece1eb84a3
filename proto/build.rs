//! Compiles the .proto files with protox: no protoc needed.

use std::path::Path;

use prost::Message as _;

/// Every file of `proto/`; imports are found below it.
const FILES: &[&str] = &[
    "buildkit/auth.proto",
    "buildkit/caps.proto",
    "buildkit/control.proto",
    "buildkit/errdefs.proto",
    "buildkit/exporter.proto",
    "buildkit/filesync.proto",
    "buildkit/gateway.proto",
    "buildkit/ops.proto",
    "buildkit/policy.proto",
    "buildkit/policysession.proto",
    "buildkit/secrets.proto",
    "buildkit/sshforward.proto",
    "buildkit/upload.proto",
    "buildkit/worker.proto",
    "containerd/content.proto",
    "fsutil/types.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "opentelemetry/collector.proto",
    "opentelemetry/common.proto",
    "opentelemetry/resource.proto",
    "opentelemetry/trace.proto",
    "rbuild/rbuild.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [root])?;
    let mut bare = descriptors.clone();
    // Comments become documentation of the code; on the wire nobody reads them.
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    let out = std::env::var_os("OUT_DIR").ok_or("cargo names no directory for output")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), bare.encode_to_vec())?;
    tonic_prost_build::configure()
        // Sorted maps: the same message always has the same bytes, which LLB digests rest on.
        .btree_map(".")
        // No copy of file data and logs out of the receive buffer.
        .bytes(".")
        .include_file("packages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
