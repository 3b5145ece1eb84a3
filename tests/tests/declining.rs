//! A client that looks at what is said of an export and takes no file: it has it already.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use proto::control::{Exporter, SolveRequest, SolveResponse};
use proto::filesync::BytesMessage;
use proto::filesync::file_send_server::{FileSend, FileSendServer};
use tests::llb::Llb;
use tests::{Api, Scene, ready};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

/// Answers every file with a status, and notes what was said of it.
#[derive(Clone)]
struct Declines {
    with: Code,
    said: Arc<Mutex<BTreeMap<String, String>>>,
}

#[tonic::async_trait]
impl FileSend for Declines {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        for (name, value) in request.metadata().clone().into_headers() {
            let name = name.map(|name| name.to_string()).unwrap_or_default();
            if let Some(name) = name.strip_prefix("exporter-md-") {
                let value = value.to_str().unwrap().to_owned();
                self.said.lock().unwrap().insert(name.to_owned(), value);
            }
        }
        Err(Status::new(self.with, "target already exists"))
    }
}

/// Opens a session whose client serves `files`; it ends with the runtime.
async fn session(api: &Api, id: &str, files: Declines) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (mut read, mut write) = tokio::io::split(theirs);
    let (to, messages) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 15];
        while let Ok(n @ 1..) = read.read(&mut buffer).await {
            let data = buffer[..n].to_vec().into();
            if to.send(proto::control::BytesMessage { data }).await.is_err() {
                return;
            }
        }
    });
    let mut request = Request::new(ReceiverStream::new(messages));
    let headers = request.metadata_mut();
    headers.insert("x-docker-expose-session-uuid", id.parse().unwrap());
    let method = "/moby.filesync.v1.FileSend/DiffCopy";
    headers.append("x-docker-expose-session-grpc-method", method.parse().unwrap());
    let connection = tokio_stream::once(Ok::<_, std::io::Error>(ours));
    tokio::spawn(Server::builder().add_service(FileSendServer::new(files)).serve_with_incoming(connection));
    let mut control = api.control();
    tokio::spawn(async move {
        let mut incoming = control.session(request).await.unwrap().into_inner();
        while let Ok(Some(message)) = incoming.message().await {
            if write.write_all(&message.data).await.is_err() {
                return;
            }
        }
    });
}

fn export(api: &Api, kind: &str, with: Code) -> (Result<SolveResponse, Status>, BTreeMap<String, String>) {
    let files = Declines { with, said: Arc::default() };
    let id = format!("{kind}-{}", with as i32);
    api.runtime.block_on(session(api, &id, files.clone()));
    let mut llb = Llb::new();
    // More than fits on the way, so that the end of the call shows while the file is written.
    let file = llb.file(None, "/f", &"x".repeat(3 << 20));
    let request = SolveRequest {
        r#ref: id.clone(),
        session: id,
        definition: Some(llb.definition(&file)),
        exporters: vec![Exporter { r#type: kind.to_owned(), ..Exporter::default() }],
        ..SolveRequest::default()
    };
    let answer = api.solve(request);
    let said = files.said.lock().unwrap().clone();
    (answer, said)
}

#[test]
fn an_export_that_the_client_has_is_done() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let (answer, said) = export(&api, "oci", Code::AlreadyExists);
    let answer = answer.unwrap().exporter_response;
    assert!(answer["containerimage.digest"].starts_with("sha256:"));
    assert_eq!(said, answer, "the client knew what it would get");
    assert_eq!(export(&api, "tar", Code::AlreadyExists).0.unwrap().exporter_response, BTreeMap::new());
    // Any other answer is a failure.
    for kind in ["oci", "tar"] {
        let failed = export(&api, kind, Code::PermissionDenied).0.unwrap_err();
        assert_ne!(failed.code(), Code::Ok, "{kind}");
    }
}
