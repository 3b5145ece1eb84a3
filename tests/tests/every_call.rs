//! Every call of every service with nothing in it, and with what is no message.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tests::{Api, Gateway, Scene, ready};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long is waited for the first word of a stream that may have none.
const MOMENT: Duration = Duration::from_millis(500);

/// The packages and services that the daemon serves; the others are its clients'.
const SERVED: [&str; 9] = [
    "containerd.services.content.v1.Content",
    "moby.buildkit.v1.Control",
    "moby.buildkit.v1.frontend.LLBBridge",
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "rbuild.v1.Containers",
    "rbuild.v1.Debug",
    "rbuild.v1.Explain",
    "rbuild.v1.Images",
    "rbuild.v1.Version",
];
/// Calls of services whose descriptions are not ours; the streaming ones last.
const COMMON: [(&str, bool); 4] = [
    ("/grpc.health.v1.Health/Check", false),
    ("/grpc.health.v1.Health/Watch", false),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", true),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true),
];
/// It ends the daemon, which is what it is for.
const LEAVE: &str = "/rbuild.v1.Version/Leave";

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What a call came to.
#[derive(Debug)]
enum Answer {
    /// A message, or a stream that waits for more to say.
    Well,
    /// The end, without a word.
    Nothing,
    /// An error.
    Refused(Status),
}

/// The calls of the daemon's services, and whether they take a stream.
fn calls() -> Vec<(String, bool)> {
    let files = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap().file;
    let mut calls: Vec<(String, bool)> = COMMON.map(|(path, streams)| (path.to_owned(), streams)).to_vec();
    for file in &files {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if SERVED.contains(&name.as_str()) {
                let call = |m: &prost_types::MethodDescriptorProto| {
                    (format!("/{name}/{}", m.name()), m.client_streaming())
                };
                calls.extend(service.method.iter().map(call));
            }
        }
    }
    calls
}

/// Calls a method with one message and listens for the first word of the answer.
fn call(api: &Api, channel: &Channel, gateway: Option<&Gateway<'_>>, path: &str, message: Bytes) -> Answer {
    let messages = tokio_stream::once(message);
    let request = match gateway {
        Some(gateway) => gateway.request(messages),
        None => tonic::Request::new(messages),
    };
    let (mut client, path) = (Grpc::new(channel.clone()), path.parse().unwrap());
    let asked = async {
        client.ready().await.unwrap();
        let mut answer = match client.streaming(request, path, Raw).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Answer::Refused(status),
        };
        match tokio::time::timeout(MOMENT, answer.message()).await {
            Ok(Ok(Some(_))) | Err(_) => Answer::Well,
            Ok(Ok(None)) => Answer::Nothing,
            Ok(Err(status)) => Answer::Refused(status),
        }
    };
    api.runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await }).expect("an answer in time")
}

#[test]
fn nothing_and_garbage_are_answered_and_nothing_else_is_hurt() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let pid = scene.daemon.pid();
    scene.write("Dockerfile", "FROM base\nRUN sleep 3\n");
    let mut beside = scene.command(&["build", "--progress=plain", "."]).spawn().unwrap();
    let api = Api::connect(&scene.daemon);
    let endpoint = Endpoint::from_shared(scene.daemon.addr()).unwrap();
    let channel = api.runtime.block_on(endpoint.connect()).unwrap();
    let calls = calls();
    for served in SERVED {
        let known = calls.iter().any(|(path, _)| path.starts_with(&format!("/{served}/")));
        assert!(known, "`{served}` has no calls");
    }

    // A field that is longer than the message: no message at all has such bytes.
    let garbage = Bytes::from_static(b"\x0a\xff");
    let gateway = api.gateway("garbage");
    for (path, streams) in &calls {
        let gateway = path.contains("LLBBridge").then_some(&gateway);
        match call(&api, &channel, gateway, path, garbage.clone()) {
            Answer::Refused(status) => {
                assert!(!status.message().is_empty(), "{path}: {status:?}");
                // What takes a stream may refuse it for its headers, or wrap what broke it.
                let fits = |code| match streams {
                    true => !matches!(code, Code::Unavailable | Code::Cancelled),
                    false => matches!(code, Code::Internal | Code::InvalidArgument),
                };
                assert!(fits(status.code()), "{path}: {status:?}");
            }
            // A stream may end with what broke it.
            Answer::Nothing if *streams => {}
            other => panic!("{path} took garbage: {other:?}"),
        }
    }
    // A larger one than any may be.
    let huge = Bytes::from(vec![0; (16 << 20) + 1]);
    match call(&api, &channel, None, "/moby.buildkit.v1.Control/Solve", huge) {
        Answer::Refused(status) => assert_eq!(status.code(), Code::OutOfRange, "{status:?}"),
        other => panic!("{other:?}"),
    }
    // Nothing at all: whatever it means, it is answered, and by the call itself.
    for (path, _) in calls.iter().filter(|(path, _)| path != LEAVE && !path.ends_with("LLBBridge/Return")) {
        let gateway = path.contains("LLBBridge").then_some(&gateway);
        if let Answer::Refused(status) = call(&api, &channel, gateway, path, Bytes::new()) {
            let code = status.code();
            assert!(!matches!(code, Code::Internal | Code::Unavailable), "{path}: {status:?}");
            assert!(!status.message().is_empty(), "{path}: {status:?}");
        }
    }
    for path in ["/no.such.Service/Call", "/moby.buildkit.v1.Control/NoSuchCall"] {
        match call(&api, &channel, None, path, Bytes::new()) {
            Answer::Refused(status) => assert_eq!(status.code(), Code::Unimplemented, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    // What is no gRPC, on every socket.
    let sockets = fs_err::read_dir(scene.daemon.dir()).unwrap().map(|entry| entry.unwrap().path());
    for socket in sockets.filter(|path| UnixStream::connect(path).is_ok()) {
        let mut connection = UnixStream::connect(&socket).unwrap();
        let _ = connection.write_all(&[0xff; 4096]);
    }

    gateway.end();
    assert!(beside.wait().unwrap().success(), "a build beside it finishes");
    assert!(scene.daemon.alive() && scene.daemon.pid() == pid);
    scene.dockerfile("FROM base\nRUN true\n", &[]).ok();
    scene.check_sandboxes();
}
