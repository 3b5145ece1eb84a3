//! `Control.Solve`: one request from frontend to exporters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cache::store::{BuildRecord, BuildStatus, StepCounts};
use proto::control::SolveRequest;
use solver::{Need, redacted};
use tonic::Code;

use super::builds::Builds;
use super::dockerfile::{Dockerfile, Outcome};
use super::export::{Built, ExportKind, ExportRequest, Results};
use super::failure::Failure;
use super::parts::Parts;
use super::run::Run;
use super::sources::image::host_platform;

/// How long a build waits for the session that it names.
const SESSION_ARRIVAL: Duration = Duration::from_secs(10);

/// Runs a request to its end.
///
/// # Errors
/// Whatever failed, with its place.
pub(super) async fn solve(
    parts: &Arc<Parts>,
    builds: &Arc<Builds>,
    request: SolveRequest,
) -> Result<BTreeMap<String, String>, Failure> {
    if request.r#ref.is_empty() {
        return Err(Failure::new(Code::InvalidArgument, "the request has no ref"));
    }
    let listed = builds.begin(&request.r#ref).ok_or_else(|| {
        Failure::new(Code::AlreadyExists, format!("a build with the ref `{}` runs already", request.r#ref))
    })?;
    let _lease = parts.leases.begin(&request.r#ref);
    let entitlements = entitlements(parts, &request)?;
    let engine = parts.engine.begin(&request.r#ref, &request.session, listed.cancel.clone());
    let run = Run::new(
        &request.r#ref,
        &request.session,
        entitlements,
        listed.journal.clone(),
        listed.cancel.clone(),
        engine,
    );
    let _gone = watch_session(parts, &run);
    let started = SystemTime::now();
    let result = work(parts, &run, &request).await;
    parts.forget(&request.r#ref);
    if !request.internal {
        record(parts, &request, started, &result);
    }
    parts.checkpoint_soon();
    drop(listed);
    result
}

/// Cancels the build when its client goes away.
fn watch_session(parts: &Arc<Parts>, run: &Run) -> tokio_util::sync::DropGuard {
    let over = tokio_util::sync::CancellationToken::new();
    let (parts, session, cancel, ended) =
        (parts.clone(), run.session.clone(), run.cancel.clone(), over.clone());
    if !session.is_empty() {
        tokio::spawn(async move {
            let watch = async {
                if let Ok(s) = parts.sessions.get(&session, SESSION_ARRIVAL).await {
                    s.closed().await;
                    parts.passed.forget(&session);
                    cancel.cancel();
                }
            };
            tokio::select! {
                () = watch => {}
                () = ended.cancelled() => parts.passed.forget(&session),
            }
        });
    }
    over.drop_guard()
}

async fn work(
    parts: &Arc<Parts>,
    run: &Run,
    request: &SolveRequest,
) -> Result<BTreeMap<String, String>, Failure> {
    let exports = exports(request)?;
    let named = |e: &ExportRequest| e.kind == ExportKind::Image && !e.push;
    let _ahead = exports.iter().any(named).then(|| parts.diff_ids.expect(&run.reference));
    let outcome = match request.frontend.as_str() {
        "dockerfile.v0" => Dockerfile::new(parts, run, &request.frontend_attrs)?.solve().await?,
        "" => Outcome::Results(definition(run, request).await?),
        other => return Err(Failure::new(Code::InvalidArgument, format!("frontend {other} not found"))),
    };
    match outcome {
        Outcome::Answer(answer) => Ok(answer),
        Outcome::Results(results) => export(parts, run, &exports, &results).await,
    }
}

/// A request that brings its graph along.
async fn definition(run: &Run, request: &SolveRequest) -> Result<Results, Failure> {
    let Some(definition) = &request.definition else { return Ok(Results::default()) };
    let graph = crate::llb::from_definition(definition).map_err(|e| Failure::invalid(&e))?;
    let Some(head) = graph.head else { return Ok(Results::default()) };
    super::dockerfile::check_policy(&graph, run)?;
    let output = run.solve(&Arc::new(graph), head, Need::Available).await?;
    let built = Built { platform: host_platform(), output, config: None, epoch: None };
    Ok(Results { built: vec![built], multi_platform: false })
}

async fn export(
    parts: &Arc<Parts>,
    run: &Run,
    exports: &[ExportRequest],
    results: &Results,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut response = BTreeMap::new();
    for request in exports {
        let cx = run.context(solver::Progress::new(|_| {}));
        let done = async {
            match request.kind {
                // Files are read from directories, so all layers have to be here.
                ExportKind::Local | ExportKind::Tar => parts.fetch_layers(results, &cx).await?,
                ExportKind::Image | ExportKind::Oci | ExportKind::Docker => {}
            }
            parts.exporter.export(request, results, &run.teller, &cx).await
        };
        let told = tokio::select! {
            r = done => r,
            () = run.cancel.cancelled() => Err(solver::ExecError::Canceled),
        };
        response.extend(told.map_err(|e| Failure::new(Code::Unknown, super::failure::text(&e)))?);
    }
    Ok(response)
}

fn exports(request: &SolveRequest) -> Result<Vec<ExportRequest>, Failure> {
    let mut all: Vec<(String, &BTreeMap<String, String>)> =
        request.exporters.iter().map(|e| (e.r#type.clone(), &e.attrs)).collect();
    if all.is_empty() && !request.exporter_deprecated.is_empty() {
        all.push((request.exporter_deprecated.clone(), &request.exporter_attrs_deprecated));
    }
    let read = |(i, (kind, attrs)): (usize, (String, &BTreeMap<String, String>))| {
        ExportRequest::new(i, &kind, attrs).map_err(|e| Failure::invalid(&e))
    };
    all.into_iter().enumerate().map(read).collect()
}

/// What the client asks for and the daemon's configuration grants.
fn entitlements(parts: &Parts, request: &SolveRequest) -> Result<BTreeSet<String>, Failure> {
    match request.entitlements.iter().find(|e| !parts.entitlements.contains(e)) {
        Some(refused) => {
            let message = format!(
                "{refused} is not allowed by the daemon: add it to `insecure-entitlements` in buildd.toml"
            );
            Err(Failure::new(Code::PermissionDenied, message))
        }
        None => Ok(request.entitlements.iter().cloned().collect()),
    }
}

/// Writes the build into the history.
fn record(
    parts: &Parts,
    request: &SolveRequest,
    started: SystemTime,
    result: &Result<BTreeMap<String, String>, Failure>,
) {
    let ms = |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let secret = |k: &String| k.starts_with("build-arg:") || k.contains("secret") || k.contains("token");
    let record = BuildRecord {
        reference: request.r#ref.clone(),
        started_ms: ms(started),
        finished_ms: Some(ms(SystemTime::now())),
        status: match result {
            Ok(_) => BuildStatus::Done,
            Err(f) if f.code == Code::Cancelled => BuildStatus::Cancelled,
            Err(f) => BuildStatus::Failed(f.message.clone()),
        },
        frontend: request.frontend.clone(),
        attrs: request
            .frontend_attrs
            .iter()
            .filter(|(k, _)| !secret(k))
            .map(|(k, v)| (k.clone(), redacted(v).into_owned()))
            .collect(),
        steps: StepCounts::default(),
        log: None,
        pinned: false,
    };
    if let Err(e) = parts.store.history().put(&record) {
        tracing::warn!("cannot note a build: {e}");
    }
}
