//! gRPC's reflection: what services an address has, and what they take.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::future::Either;
use proto::{content, control, gateway, otlp, rbuild};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::{Builder, Error, v1alpha};
use tower::Service;

/// The services of an address, but for reflection itself.
const SERVICES: [&str; 10] = [
    control::control_server::SERVICE_NAME,
    gateway::llb_bridge_server::SERVICE_NAME,
    content::content_server::SERVICE_NAME,
    otlp::collector::trace::v1::trace_service_server::SERVICE_NAME,
    rbuild::version_server::SERVICE_NAME,
    rbuild::images_server::SERVICE_NAME,
    rbuild::containers_server::SERVICE_NAME,
    rbuild::debug_server::SERVICE_NAME,
    rbuild::explain_server::SERVICE_NAME,
    "grpc.health.v1.Health",
];

/// A service that its first call makes: the descriptors of all messages take memory, and few clients ask for them.
#[derive(Debug)]
pub(super) struct Late<S> {
    made: Arc<OnceLock<Option<S>>>,
    make: fn() -> Result<S, Error>,
}

impl<S> Late<S> {
    fn new(make: fn() -> Result<S, Error>) -> Self {
        Self { made: Arc::default(), make }
    }

    /// The service; `None` where its descriptors do not fit together.
    fn get(&self) -> Option<&S> {
        let make =
            || (self.make)().inspect_err(|e| tracing::error!("cannot describe the gRPC services: {e}")).ok();
        self.made.get_or_init(make).as_ref()
    }
}

impl<S> Clone for Late<S> {
    fn clone(&self) -> Self {
        Self { made: self.made.clone(), make: self.make }
    }
}

impl<S: NamedService> NamedService for Late<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Late<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<S::Response, Infallible>>>;

    /// The services of tonic are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.get() {
            Some(service) => Either::Left(service.clone().call(request)),
            None => {
                Either::Right(ready(Ok(Status::internal("cannot describe the gRPC services").into_http())))
            }
        }
    }
}

fn builder() -> Builder<'static> {
    let builder = Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    // The files also hold what clients serve.
    SERVICES.into_iter().fold(builder, Builder::with_service_name)
}

/// The present version.
pub(super) fn v1() -> Late<ServerReflectionServer<impl ServerReflection>> {
    Late::new(|| builder().with_service_name("grpc.reflection.v1.ServerReflection").build_v1())
}

/// The version before, which older tools ask for.
pub(super) fn v1alpha() -> Late<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>> {
    Late::new(|| builder().with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the service is made before a call, and after it.
    async fn made<S>(mut late: Late<S>) -> [bool; 2]
    where
        S: NamedService + Clone,
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    {
        let another = late.clone();
        let made = || another.made.get().is_some_and(Option::is_some);
        let before = made();
        let request = http::Request::post(format!("/{}/ServerReflectionInfo", S::NAME));
        late.call(request.body(Body::empty()).unwrap()).await.unwrap();
        [before, made()]
    }

    #[tokio::test]
    async fn descriptors_are_read_when_they_are_asked_for() {
        assert_eq!(made(v1()).await, [false, true]);
        assert_eq!(made(v1alpha()).await, [false, true]);
    }
}
