//! What tools learn of the daemon's gRPC services by asking for them.

use proto::control::control_server::SERVICE_NAME as CONTROL;
use tests::{Daemon, ready};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_reflection::pb::{v1, v1alpha};

use v1::server_reflection_request::MessageRequest;
use v1::server_reflection_response::MessageResponse;

fn ask(runtime: &Runtime, channel: &Channel, request: MessageRequest) -> Result<MessageResponse, Status> {
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    runtime.block_on(async move {
        let requests = tokio_stream::once(request);
        let mut answers = client.server_reflection_info(requests).await?.into_inner();
        Ok(answers.message().await?.unwrap().message_response.unwrap())
    })
}

#[test]
fn services_tell_what_they_are() {
    if !ready() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let daemon = Daemon::start(&dir.path().join("d"), "");
    let runtime = Runtime::new().unwrap();
    let endpoint = Endpoint::from_shared(daemon.addr()).unwrap();
    let channel = runtime.block_on(endpoint.connect()).unwrap();
    let Ok(MessageResponse::ListServicesResponse(listed)) =
        ask(&runtime, &channel, MessageRequest::ListServices(String::new()))
    else {
        panic!("no list");
    };
    let names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    for served in [
        CONTROL,
        "moby.buildkit.v1.frontend.LLBBridge",
        "containerd.services.content.v1.Content",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "rbuild.v1.Explain",
        "rbuild.v1.Images",
    ] {
        assert!(names.iter().any(|name| name == served), "no `{served}` in {names:?}");
        let symbol = MessageRequest::FileContainingSymbol(served.to_owned());
        let answer = ask(&runtime, &channel, symbol);
        assert!(matches!(answer, Ok(MessageResponse::FileDescriptorResponse(_))), "{served}: {answer:?}");
    }
    assert!(!names.iter().any(|name| name.starts_with("moby.filesync")), "that is the client's: {names:?}");
    let unknown = MessageRequest::FileContainingSymbol("no.such.Service".to_owned());
    assert_eq!(ask(&runtime, &channel, unknown).unwrap_err().code(), Code::NotFound);

    // As tools asked before there was a first version.
    let mut old = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let listed = runtime.block_on(async move {
        let mut answers = old.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap()
    });
    assert!(format!("{listed:?}").contains(CONTROL), "{listed:?}");
}
