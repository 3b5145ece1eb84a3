//! Both ends of a session in one process, over a unix socket.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use proto::control::control_server::{Control, ControlServer};
use proto::control::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::{Session, SessionError, SessionManager, SessionStream};
use crate::client::{
    Address, BuildRequest, Client, ClientSession, Destination, LocalDir, Output, SecretSource, Services,
    SshSource, Tls,
};
use crate::fsutil::{DirWriter, Owners, Selection, Tree};

const WAIT: Duration = Duration::from_secs(10);

/// A daemon with sessions, whose builds copy the context into every output.
#[derive(Clone)]
struct Daemon(SessionManager);

type Reply<T> = Result<Response<T>, Status>;

fn none<T>() -> Reply<T> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl Control for Daemon {
    type StatusStream = BoxStream<'static, Result<StatusResponse, Status>>;
    type SessionStream = SessionStream;
    type PruneStream = BoxStream<'static, Result<UsageRecord, Status>>;
    type ListenBuildHistoryStream = BoxStream<'static, Result<BuildHistoryEvent, Status>>;

    async fn session(&self, request: Request<Streaming<BytesMessage>>) -> Reply<SessionStream> {
        self.0.handle(request, String::new()).await
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Reply<SolveResponse> {
        let request = request.into_inner();
        let session = self.0.get(&request.session, WAIT).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let writer = DirWriter::new(dir.path(), Owners::Mine);
        session.diff_copy("context", &Selection::default(), writer, &|_| ()).await.unwrap();
        for (index, exporter) in request.exporters.iter().enumerate() {
            if exporter.r#type == "local" {
                let tree = Tree::new(dir.path(), &Selection::default()).unwrap();
                session.send_dir(index, Arc::new(tree)).await.unwrap();
            } else {
                let mut file = session.send_file(index, &BTreeMap::new()).unwrap();
                file.write_all(&vec![7; 5 << 20]).await.unwrap();
                file.finish().await.unwrap();
            }
        }
        match request.frontend_attrs.get("fail") {
            Some(why) => Err(Status::unknown(why)),
            None => Ok(Response::new(SolveResponse::default())),
        }
    }

    async fn status(&self, _: Request<StatusRequest>) -> Reply<Self::StatusStream> {
        Ok(Response::new(Box::pin(futures_util::stream::empty())))
    }

    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Reply<DiskUsageResponse> {
        none()
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Reply<Self::PruneStream> {
        none()
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Reply<ListWorkersResponse> {
        none()
    }

    async fn info(&self, _: Request<InfoRequest>) -> Reply<InfoResponse> {
        none()
    }

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Reply<Self::ListenBuildHistoryStream> {
        none()
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Reply<UpdateBuildHistoryResponse> {
        none()
    }
}

struct Setup {
    dir: tempfile::TempDir,
    manager: SessionManager,
    client: Client,
}

async fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let manager = SessionManager::new();
    let service = ControlServer::new(Daemon(manager.clone()));
    tokio::spawn(
        Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)),
    );
    let client = Client::connect(&Address::Unix(socket), &Tls::default()).await.unwrap();
    Setup { dir, manager, client }
}

async fn open(setup: &Setup, services: Services) -> (ClientSession, Session) {
    let ours = ClientSession::open(&setup.client, services).unwrap();
    let theirs = setup.manager.get(ours.id(), WAIT).await.unwrap();
    (ours, theirs)
}

fn context(dir: &Path) -> std::path::PathBuf {
    let root = dir.join("ctx");
    std::fs::create_dir_all(root.join("sub/empty")).unwrap();
    std::fs::write(root.join("big"), vec![1; 1 << 20]).unwrap();
    std::fs::write(root.join("sub/none"), "").unwrap();
    std::fs::write(root.join("sub/run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(root.join("sub/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::hard_link(root.join("big"), root.join("sub/same")).unwrap();
    std::os::unix::fs::symlink("../big", root.join("sub/link")).unwrap();
    root
}

/// Path, mode, size, modification time and link target of everything.
fn listing(root: &Path) -> Vec<proto::fsutil::Stat> {
    use crate::fsutil::Files as _;
    let mut found = Vec::new();
    let all = Tree::new(root, &Selection::default()).unwrap();
    all.walk(&mut |mut stat| {
        // A link's own time is set too, but not by hand in this test's sources.
        if stat.linkname.starts_with('.') {
            stat.mod_time = 0;
        }
        found.push(stat);
        Ok(())
    })
    .unwrap();
    found
}

fn dirs(path: &Path) -> Services {
    Services { dirs: [("context".to_owned(), path.to_owned())].into(), ..Services::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_arrives_whole() {
    let setup = setup().await;
    let root = context(setup.dir.path());
    let (_ours, session) = open(&setup, dirs(&root)).await;
    let copy = setup.dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let writer = DirWriter::new(&copy, Owners::Mine);
    let writer = session.diff_copy("context", &Selection::default(), writer, &|_| ()).await.unwrap();
    assert_eq!(listing(&copy), listing(&root));
    assert_eq!(writer.written(), (1 << 20) + 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_reach_the_client() {
    let setup = setup().await;
    let root = context(setup.dir.path());
    std::fs::write(root.join("grün=&+ %"), "x").unwrap();
    let (_ours, session) = open(&setup, dirs(&root)).await;
    let copy = setup.dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let selection = Selection {
        include: vec!["grün=&+ %".into(), "sub".into()],
        exclude: vec!["**/run".into()],
        ..Selection::default()
    };
    session.diff_copy("context", &selection, DirWriter::new(&copy, Owners::Mine), &|_| ()).await.unwrap();
    let names: Vec<_> = listing(&copy).into_iter().map(|s| s.path).collect();
    assert_eq!(names, ["grün=&+ %", "sub", "sub/empty", "sub/link", "sub/none", "sub/same"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_source_is_an_error() {
    let setup = setup().await;
    let (_ours, session) = open(&setup, dirs(setup.dir.path())).await;
    let writer = DirWriter::new(setup.dir.path(), Owners::Mine);
    let err = session.diff_copy("other", &Selection::default(), writer, &|_| ()).await.unwrap_err();
    assert!(err.to_string().contains("no access allowed to dir \"other\""), "{err}");
    assert!(err.is_missing());
    let (_ours, bare) = open(&setup, Services::default()).await;
    let writer = DirWriter::new(setup.dir.path(), Owners::Mine);
    let err = bare.diff_copy("context", &Selection::default(), writer, &|_| ()).await.unwrap_err();
    assert!(matches!(err, SessionError::Unsupported(_)), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets() {
    let setup = setup().await;
    let file = setup.dir.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let secrets = [
        ("token".to_owned(), SecretSource::File(file)),
        ("gone".to_owned(), SecretSource::File("/nonexistent".into())),
    ];
    let (_ours, session) = open(&setup, Services { secrets: secrets.into(), ..Services::default() }).await;
    assert_eq!(session.secret("token").await.unwrap().unwrap(), "s3cret\n");
    assert_eq!(session.secret("other").await.unwrap(), None);
    assert!(session.secret("gone").await.is_err());
    let (_ours, bare) = open(&setup, Services::default()).await;
    assert_eq!(bare.secret("token").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_forwarded() {
    let setup = setup().await;
    let socket = setup.dir.path().join("agent");
    let agent = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = agent.accept().await.unwrap();
        let mut question = [0; 4];
        stream.read_exact(&mut question).await.unwrap();
        stream.write_all(&question.map(|b| b.to_ascii_uppercase())).await.unwrap();
    });
    let ssh = [("default".to_owned(), SshSource { socket })].into();
    let (_ours, session) = open(&setup, Services { ssh, ..Services::default() }).await;
    assert!(session.has_ssh("default").await.unwrap());
    assert!(!session.has_ssh("other").await.unwrap());
    let mut pipe = session.ssh("default").unwrap();
    pipe.write_all(b"ping").await.unwrap();
    let mut answer = String::new();
    pipe.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "PING");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_is_noticed() {
    let setup = setup().await;
    let (ours, session) = open(&setup, Services::default()).await;
    assert!(!session.is_closed());
    drop(ours);
    tokio::time::timeout(WAIT, session.closed()).await.unwrap();
    let err = setup.manager.get(session.id(), Duration::from_millis(10)).await.unwrap_err();
    assert!(matches!(err, SessionError::Unknown(_)), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_appear_after_the_build() {
    let setup = setup().await;
    let root = context(setup.dir.path());
    let (tar, out) = (setup.dir.path().join("out.tar"), setup.dir.path().join("out"));
    let request = |attrs| BuildRequest {
        frontend: "dockerfile.v0".into(),
        attrs,
        dirs: vec![LocalDir { name: "context".into(), path: root.clone() }],
        outputs: vec![
            Output {
                kind: "tar".into(),
                attrs: BTreeMap::new(),
                destination: Destination::File(tar.clone()),
            },
            Output {
                kind: "local".into(),
                attrs: BTreeMap::new(),
                destination: Destination::Directory(out.clone()),
            },
        ],
        ..BuildRequest::default()
    };
    let (progress, _rest) = tokio::sync::mpsc::channel(8);
    let failing = [("fail".to_owned(), "exit code: 1".to_owned())].into();
    let err = crate::client::build(&setup.client, request(failing), progress.clone()).await.unwrap_err();
    assert_eq!(err.to_string(), "failed to solve: exit code: 1");
    assert!(!tar.exists());
    crate::client::build(&setup.client, request(BTreeMap::new()), progress).await.unwrap();
    assert_eq!(std::fs::read(&tar).unwrap(), vec![7; 5 << 20]);
    assert_eq!(listing(&out), listing(&root));
}

#[tokio::test]
async fn shutdown_closes_sessions() {
    let setup = setup().await;
    let (_ours, session) = open(&setup, Services::default()).await;
    setup.manager.shutdown().await;
    assert!(session.is_closed());
}
