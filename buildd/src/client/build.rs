//! One build: session, progress and solve at the same time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::control::{
    CacheOptions, CacheOptionsEntry, Exporter, SolveRequest, StatusRequest, StatusResponse,
};
use proto::gateway;
use proto::sourcepolicy::Policy;
use rustix::fs::{Mode, OFlags};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Status};

use super::output::{Target, Targets};
use super::session::random_id;
use super::{Client, ClientError, ClientSession, Output, Services};
use crate::errdetails;
use crate::explanation::EXPLAIN_HEADER;
use crate::sidesocket::{Offer, SideSocket};

/// How long progress may be silent after the build's end before it is given up (BuildKit's figure).
const STATUS_SILENCE: Duration = Duration::from_secs(5);

/// A build as the daemon is asked for it.
#[derive(Debug, Default)]
pub struct BuildRequest {
    /// Such as `dockerfile.v0`.
    pub frontend: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
    /// Local sources by name.
    pub dirs: Vec<LocalDir>,
    /// Exporters and where their results go.
    pub outputs: Vec<Output>,
    /// What the build may do beyond the ordinary, such as `network.host`.
    pub entitlements: Vec<String>,
    /// What its sources may be, and what takes the place of which.
    pub source_policy: Option<Policy>,
    /// Caches to write.
    pub caches: Vec<CacheOptionsEntry>,
    /// Secrets and SSH agents; directories are added to it.
    pub services: Services,
    /// The build's name at the daemon; made up where it is empty.
    pub reference: String,
    /// Steps tell while they run why they do, where the daemon can.
    pub explain: bool,
}

/// A local source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDir {
    /// Such as `context`.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
}

/// What came of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOutcome {
    /// The build's name at the daemon.
    pub reference: String,
    /// What exporters and frontend say of the result.
    pub response: BTreeMap<String, String>,
}

/// Runs a build; progress goes to `progress`, which is closed at the end.
///
/// # Errors
/// The build failed, the daemon went away, or an output cannot be written; no output file is left then.
pub async fn build(
    client: &Client,
    request: BuildRequest,
    progress: mpsc::Sender<StatusResponse>,
) -> Result<BuildOutcome, ClientError> {
    let begun = Begun::new(client, request)?;
    let solve = SolveRequest { frontend: begun.frontend, frontend_attrs: begun.attrs, ..begun.solve };
    let reference = solve.r#ref.clone();
    let response = watched_solve(client, solve, begun.explain, progress).await?;
    for target in begun.targets.0.iter().flatten() {
        target.commit()?;
    }
    Ok(BuildOutcome { reference, response })
}

/// Asks the frontend a question (BuildKit's subrequests): its settings name it. Returns what it answers, such as `result.txt`.
///
/// This client takes the part of the build's frontend and asks over LLBBridge, as the answer is for whoever asks there.
///
/// # Errors
/// The frontend failed, or the daemon went away.
pub async fn ask(
    client: &Client,
    request: BuildRequest,
    progress: mpsc::Sender<StatusResponse>,
) -> Result<BTreeMap<String, String>, ClientError> {
    let begun = Begun::new(client, request)?;
    let reference = begun.solve.r#ref.clone();
    let answered = async { Ok(conduct(client, &reference, begun.question(false), async |_| ()).await) };
    let (_, answer) =
        tokio::try_join!(watched_solve(client, begun.solve.clone(), false, progress), answered)?;
    let answer = answer.map_err(|status| ClientError::Build(Box::new(status)))?;
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    Ok(answer.metadata.into_iter().map(|(key, value)| (key, text(value))).collect())
}

/// Asks, and ends the build with the answer; the build fails with what the frontend fails with, but not before `failed` is done.
pub(super) async fn conduct(
    client: &Client,
    build: &str,
    question: gateway::SolveRequest,
    failed: impl AsyncFnOnce(&Status),
) -> Result<gateway::Result, Status> {
    let mut bridge = client.bridge();
    let answered = bridge.solve(of_build(build, question)?).await;
    let answered = answered.map(|response| response.into_inner().result.unwrap_or_default());
    let end = match &answered {
        Ok(result) => gateway::ReturnRequest { result: Some(result.clone()), error: None },
        Err(status) => {
            failed(status).await;
            gateway::ReturnRequest { result: None, error: Some(errdetails::full(status)) }
        }
    };
    bridge.r#return(of_build(build, end)?).await?;
    answered
}

/// A call that belongs to a build.
pub(super) fn of_build<T>(build: &str, message: T) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let name = build.parse().map_err(|_| Status::internal("a build's name is not ASCII"))?;
    request.metadata_mut().insert("buildkit-controlapi-buildid", name);
    Ok(request)
}

/// A build that the daemon may ask about.
pub(super) struct Begun {
    /// Answers the daemon until it is dropped.
    _session: ClientSession,
    pub(super) targets: Targets,
    frontend: String,
    pub(super) attrs: BTreeMap<String, String>,
    /// Without a frontend.
    pub(super) solve: SolveRequest,
    /// As in [`BuildRequest`].
    pub(super) explain: bool,
}

impl Begun {
    /// What the frontend is asked over LLBBridge; `evaluate` makes it end only when all was built.
    pub(super) fn question(&self, evaluate: bool) -> gateway::SolveRequest {
        gateway::SolveRequest {
            frontend: self.frontend.clone(),
            frontend_opt: self.attrs.clone(),
            allow_result_return: true,
            allow_result_array_ref: true,
            evaluate,
            ..gateway::SolveRequest::default()
        }
    }

    pub(super) fn new(client: &Client, request: BuildRequest) -> Result<Self, ClientError> {
        let mut targets = Targets::default();
        for output in &request.outputs {
            targets.0.push(Target::open(&output.destination)?);
        }
        let mut services = request.services;
        services.dirs.extend(request.dirs.iter().map(|dir| (dir.name.clone(), dir.path.clone())));
        let session = ClientSession::with_targets(client, services, targets.0.clone())?;
        if let Some(socket) = client.address().socket() {
            pass_descriptors(SideSocket::connect(socket), session.id(), &request.dirs, &targets.0);
        }
        let exporters: Vec<Exporter> = request
            .outputs
            .into_iter()
            .map(|output| Exporter { r#type: output.kind, attrs: output.attrs })
            .collect();
        let first = exporters.first().cloned().unwrap_or_default();
        let solve = SolveRequest {
            r#ref: if request.reference.is_empty() { random_id()? } else { request.reference },
            session: session.id().to_owned(),
            // Daemons that know several exporters ignore these two.
            exporter_deprecated: first.r#type,
            exporter_attrs_deprecated: first.attrs,
            exporters,
            entitlements: request.entitlements,
            source_policy: request.source_policy,
            cache: (!request.caches.is_empty())
                .then(|| CacheOptions { exports: request.caches, ..CacheOptions::default() }),
            ..SolveRequest::default()
        };
        let (frontend, attrs, explain) = (request.frontend, request.attrs, request.explain);
        Ok(Self { _session: session, targets, frontend, attrs, solve, explain })
    }
}

/// Solves while passing progress on; steps are to tell why they run where it is to `explain`.
pub(super) async fn watched_solve(
    client: &Client,
    request: SolveRequest,
    explain: bool,
    progress: mpsc::Sender<StatusResponse>,
) -> Result<BTreeMap<String, String>, ClientError> {
    let status = StatusRequest { r#ref: request.r#ref.clone() };
    let heard = Arc::new(AtomicU64::new(0));
    let display = progress.clone();
    let mut watcher = {
        let (mut control, heard) = (client.control(), heard.clone());
        tokio::spawn(async move {
            let mut stream = control.status(status).await?.into_inner();
            while let Some(message) = stream.message().await? {
                if progress.send(message).await.is_err() {
                    break;
                }
                heard.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), tonic::Status>(())
        })
    };
    let mut control = client.control();
    let mut request = Request::new(request);
    if explain {
        request.metadata_mut().insert(EXPLAIN_HEADER, AsciiMetadataValue::from_static("1"));
    }
    let solved = tokio::select! {
        solved = control.solve(request) => solved,
        () = interrupted() => return Err(ClientError::Interrupted),
    };
    // The rest of the progress first; its own errors are no reason to fail a build that went well.
    loop {
        let before = heard.load(Ordering::Relaxed);
        let ended = tokio::time::timeout(STATUS_SILENCE, &mut watcher).await.is_ok();
        // While nobody reads the display, the daemon is not what is silent.
        if ended || (heard.load(Ordering::Relaxed) == before && display.capacity() > 0) {
            break;
        }
    }
    watcher.abort();
    Ok(solved.map_err(|status| ClientError::Build(Box::new(status)))?.into_inner().exporter_response)
}

/// Until somebody ends this program, who finds no half-written output then.
async fn interrupted() {
    let of = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await.unwrap_or(()),
            // It ends the program at once.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = of(SignalKind::interrupt()) => {}
        () = of(SignalKind::terminate()) => {}
        () = of(SignalKind::hangup()) => {}
    }
}

/// Hands directories and output files to a daemon on this host. What is not passed travels over the session.
fn pass_descriptors(side: Option<SideSocket>, session: &str, dirs: &[LocalDir], targets: &[Option<Target>]) {
    let Some(mut side) = side else { return };
    let offered = || -> std::io::Result<()> {
        for dir in dirs {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&dir.path, flags, Mode::empty())?;
            let offer = Offer::Directory { session: session.to_owned(), name: dir.name.clone() };
            side.offer(&offer, std::os::fd::AsFd::as_fd(&fd))?;
        }
        for (index, target) in targets.iter().enumerate() {
            if let Some(Target::File(file)) = target {
                let offer = Offer::Output { session: session.to_owned(), output: index.to_string() };
                file.with_fd(|fd| side.offer(&offer, fd))?;
            }
        }
        Ok(())
    };
    let mut offered = offered;
    if let Err(err) = offered() {
        tracing::debug!(%err, "side socket");
    }
}
