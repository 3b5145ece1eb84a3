//! gRPC's reflection: what services an address has, and what they take.

use proto::{content, control, gateway, otlp, rbuild};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::{Builder, Error, v1alpha};

/// The services of an address, but for reflection itself.
const SERVICES: [&str; 9] = [
    control::control_server::SERVICE_NAME,
    gateway::llb_bridge_server::SERVICE_NAME,
    content::content_server::SERVICE_NAME,
    otlp::collector::trace::v1::trace_service_server::SERVICE_NAME,
    rbuild::version_server::SERVICE_NAME,
    rbuild::images_server::SERVICE_NAME,
    rbuild::containers_server::SERVICE_NAME,
    rbuild::debug_server::SERVICE_NAME,
    "grpc.health.v1.Health",
];

fn builder() -> Builder<'static> {
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    // The files also hold what clients serve.
    SERVICES.into_iter().fold(builder, Builder::with_service_name)
}

/// The present version.
///
/// # Errors
/// Descriptors that do not fit together.
pub(super) fn v1() -> Result<ServerReflectionServer<impl ServerReflection>, Error> {
    builder().with_service_name("grpc.reflection.v1.ServerReflection").build_v1()
}

/// The version before, which older tools ask for.
///
/// # Errors
/// As [`v1`].
pub(super) fn v1alpha() -> Result<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>, Error> {
    builder().with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()
}
