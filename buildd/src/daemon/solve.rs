//! `Control.Solve`: one request from frontend to exporters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cache::oci::Descriptor;
use cache::store::BlobRef;
use proto::control::SolveRequest;
use solver::{Need, SessionGroup, VertexContext};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

use super::at_hand::at_hand;
use super::blocking::blocking;
use super::builds::Builds;
use super::claims::{Claim, SPDX};
use super::devices::DEVICE;
use super::entitlements::Entitlements;
use super::explain;
use super::export::{Built, EpochChoice, ExportKind, ExportRequest, Results};
use super::failure::Failure;
use super::frontends::{self, Outcome};
use super::gateway;
use super::history::{Done, Told};
use super::insecure;
use super::keyed_cache::KeyedTarget;
use super::nearby::Nearby;
use super::parts::Parts;
use super::peer::Peer;
use super::platforms;
use super::policies::Policies;
use super::progress::Teller;
use super::provenance::{
    Attestations, Capture, Detail, Facts, Made, Provenance, ProvenanceOptions, SbomOptions,
};
use super::remote_cache::{self, CacheGraph, CachePlace, RemoteCaches};
use super::run::{Means, Rights, Run};
use super::sbom;
use super::sources::image::oci_platform;
use super::traces::{self, TraceContext};
use crate::explanation::EXPLAIN_HEADER;
use crate::session::{ARRIVAL, Session};

/// How long a build waits for the session that it names.
const SESSION_ARRIVAL: Duration = Duration::from_secs(10);

/// Who asks, and how.
#[derive(Debug)]
pub(super) struct Caller {
    pub client: Peer,
    pub trace: TraceContext,
    /// Steps are to tell while they run why they do.
    pub explain: bool,
}

impl Caller {
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Self {
        Self {
            client: Peer::of(request.extensions()),
            trace: TraceContext::of(request.metadata()),
            explain: request.metadata().contains_key(EXPLAIN_HEADER),
        }
    }
}

/// Runs a request to its end, or until its `caller` has gone.
///
/// # Errors
/// Whatever failed, with its place.
pub(super) async fn solve(
    parts: &Arc<Parts>,
    builds: &Arc<Builds>,
    request: SolveRequest,
    Caller { client, trace, explain }: Caller,
    caller: CancellationToken,
) -> Result<BTreeMap<String, String>, Failure> {
    if request.r#ref.is_empty() {
        return Err(Failure::new(Code::InvalidArgument, "the request has no ref"));
    }
    if request.proxy_network {
        let what =
            "the proxy network is not supported: steps have a network of their own, the host's, or none";
        return Err(Failure::new(Code::InvalidArgument, what));
    }
    builds.admit().map_err(|refused| Failure::new(refused.code(), refused.message()))?;
    let listed = builds.begin_for(&request.r#ref, &caller).ok_or_else(|| {
        Failure::new(Code::AlreadyExists, format!("a build with the ref `{}` runs already", request.r#ref))
    })?;
    let _lease = parts.leases.begin(&request.r#ref);
    let _memory = Memory { parts, build: &request.r#ref };
    let _spans = parts.traces.follow(&request.r#ref, &trace);
    let rights = Rights {
        entitlements: entitlements(parts, &client, &request)?,
        policies: Policies::new(request.source_policy.as_ref(), &request.source_policy_session)?,
    };
    let caches = Arc::new(RemoteCaches::new(parts, Teller::new(listed.journal.clone())));
    let imports = request.cache.as_ref().map_or(&[][..], |cache| &cache.imports);
    let insecure = insecure::hosts(&request);
    if !insecure.is_empty() {
        parts.images.trust_blindly(&request.r#ref, insecure.iter().map(String::as_str));
    }
    caches.add(remote_cache::imports_of(&request.frontend_attrs, imports));
    parts.worker.travels.begin(&request.r#ref, caches.keyed());
    let lender = Some(caches.clone() as Arc<dyn solver::Elsewhere>);
    let build = parts.engine.begin(&request.r#ref, &request.session, listed.cancel.clone(), lender);
    let quiet = VertexContext {
        build: request.r#ref.clone(),
        sessions: SessionGroup::of(&request.session),
        progress: solver::Progress::new(|_| {}),
        cancel: listed.cancel.clone(),
    };
    let elsewhere = explain::Elsewhere::new(parts, &request.session, &caches, quiet);
    let observer = explain::Observer::new(&parts.explainer, elsewhere, explain);
    let nearby = Nearby { locals: parts.locals.clone(), trees: parts.chains.trees.clone() };
    let run = Arc::new(Run::new(
        &request.r#ref,
        &request.session,
        rights,
        listed.journal.clone(),
        listed.cancel.clone(),
        Means { build, caches, nearby, observer },
    ));
    let _passed = parts.passed.claim(&request.session);
    let _over = watch_session(parts, &run);
    let recording = (!request.internal).then(|| parts.histories.begin(&request));
    let listening = (trace.sampled && recording.is_some()).then(|| parts.traces.listen(trace.trace));
    let result = work(parts, &run, &request, recording.is_some()).await;
    run.caches.keyed().tell_faults();
    if result.is_err() && run.caches.keyed().writes() && !run.cancel.is_cancelled() {
        // What did succeed need not run again elsewhere. That it cannot be written is not what is told.
        let cx = run.context(solver::Progress::new(|_| {}));
        let _ = run.cancel.run_until_cancelled(run.caches.keyed().finish(&[], 0, &cx)).await;
    }
    if listening.is_some() || trace.sampled && parts.traces.are_sent_on() {
        tell(parts, &run, &trace, result.as_ref().err().map(|failure| failure.message.clone())).await;
    }
    let pending = listening.map(|listening| parts.histories.expect_trace(&request.r#ref, listening));
    let result = match recording {
        None => result,
        Some(recording) => {
            let (journal, lease) = (listed.journal.clone(), parts.leases.of(&request.r#ref));
            let ended = run.observer.ended(&run.reference, result.as_ref().err()).await;
            let (explainer, observer) = (parts.explainer.clone(), run.observer.clone());
            let ending = blocking(move || {
                recording.end(&journal, &lease, &result);
                (explainer.end(&observer, ended), result)
            });
            let (leaving, result) = ending.await;
            if let Some(leaving) = leaving {
                run.observer.leave(leaving).await;
            }
            result
        }
    };
    let _ = run.cancel.run_until_cancelled(run.caches.keyed().rest()).await;
    if let Some(pending) = pending {
        pending.keep(trace.parent.is_some());
    }
    parts.checkpoint_soon();
    Ok(result?.response)
}

/// Makes the build's spans.
async fn tell(parts: &Arc<Parts>, run: &Run, trace: &TraceContext, error: Option<String>) {
    let (trace, journal) = (*trace, run.journal.clone());
    let nanos = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    };
    let times = (nanos(run.started), nanos(SystemTime::now()));
    let spans = blocking(move || traces::of_build(&trace, &journal, times, error.as_deref())).await;
    parts.traces.take(spans);
}

/// What is kept in memory for a build; gone when dropped, also after a panic.
struct Memory<'a> {
    parts: &'a Parts,
    build: &'a str,
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        self.parts.forget(self.build);
    }
}

/// Cancels the build when its session ends.
fn watch_session(parts: &Arc<Parts>, run: &Run) -> DropGuard {
    let over = CancellationToken::new();
    let (parts, session, cancel, ended) =
        (parts.clone(), run.session.clone(), run.cancel.clone(), over.clone());
    if !session.is_empty() {
        tokio::spawn(ended.run_until_cancelled_owned(async move {
            if let Ok(s) = parts.sessions.get(&session, SESSION_ARRIVAL).await {
                s.closed().await;
                cancel.cancel();
            }
        }));
    }
    over.drop_guard()
}

async fn work(
    parts: &Arc<Parts>,
    run: &Arc<Run>,
    request: &SolveRequest,
    recorded: bool,
) -> Result<Done, Failure> {
    let mut exports = exports(request)?;
    let caches = request.cache.as_ref().map_or(&[][..], |cache| &cache.exports);
    let caches = remote_cache::exports(caches).map_err(|e| Failure::invalid(&e))?;
    if caches.keyed.iter().any(KeyedTarget::is_directory) {
        let client = match run.session.as_str() {
            "" => None,
            _ => Some(session(parts, run).await?),
        };
        let mut keyed = caches.keyed.iter();
        keyed.try_for_each(|target| target.check(client.as_ref())).map_err(|e| Failure::invalid(&e))?;
    }
    let mut idle = idle_attributes(request);
    idle.extend(caches.keyed.iter().flat_map(KeyedTarget::idle));
    caution(run, &idle);
    let named_mounts = run.caches.keyed().named_mounts(&caches.keyed);
    if let Some(packing) = exports.iter().find_map(ExportRequest::layer_form) {
        run.caches.keyed().images_are(packing);
    }
    caches.keyed.into_iter().for_each(|target| run.caches.keyed().write_to(target));
    let caches = caches.graphs;
    if !request.frontend.is_empty() && definition(request).is_some() {
        return Err(Failure::two_ways());
    }
    let named = |e: &ExportRequest| e.kind == ExportKind::Image && !e.push;
    let _ahead = exports.iter().any(named).then(|| parts.diff_ids.expect(&run.reference));
    let attestations = Attestations::read(&request.frontend_attrs)?;
    let mut results = match request.frontend.as_str() {
        "" if request.definition.is_none() => {
            let open = gateway::Open::new(parts, run, request);
            let results = open.result().await?;
            // The client may look into its result to decide.
            ask_for_exports(parts, run, request, &results, open.ids(), &mut exports).await?;
            results
        }
        "" => graph(parts, run, request).await?,
        name => {
            let (attrs, inputs) = (&request.frontend_attrs, &request.frontend_inputs);
            match frontends::plan(parts, run, name, attrs, inputs, None).await? {
                Outcome::Answer(answer) => return Ok(Done { response: answer, ..Done::default() }),
                Outcome::Plan(plan) => plan.evaluate(run).await?,
            }
        }
    };
    if request.definition.is_some() || !request.frontend.is_empty() {
        ask_for_exports(parts, run, request, &results, Vec::new(), &mut exports).await?;
    }
    let graphs = results.built.iter().filter_map(|built| Some(&*built.made.as_ref()?.graph));
    caution(run, &run.caches.keyed().idle_mounts(&named_mounts, graphs));
    if !exports.is_empty() {
        at_hand(parts, run, &exports, attestations.sbom.is_some(), &mut results).await?;
    }
    if let Some(options) = &attestations.sbom {
        Box::pin(scan(parts, run, request, options, &mut results)).await?;
    }
    let mut told = Vec::new();
    if recorded || attestations.provenance.is_some() {
        for built in &mut results.built {
            let provenance = match provenance(parts, run, built).await {
                Ok(Some(provenance)) => provenance,
                Ok(None) => continue,
                Err(e) if attestations.provenance.is_none() => {
                    tracing::warn!(build = run.reference, "cannot tell how a result came about: {e}");
                    continue;
                }
                Err(e) => return Err(e),
            };
            built.provenance = attestations.provenance.clone().map(|o| Arc::new(provenance.clone().with(o)));
            let platform = results.multi_platform.then(|| oci_platform(&built.platform).full());
            told.push(Told { platform, provenance });
        }
    }
    let mut graphs = Vec::new();
    if !caches.is_empty() {
        for built in &mut results.built {
            let graph = match CacheGraph::of(parts, run, built).await {
                Err(e) if caches.iter().all(|cache| cache.ignore_error) && !run.cancel.is_cancelled() => {
                    tracing::warn!(build = run.reference, "cannot tell what a cache would hold: {e}");
                    None
                }
                graph => graph?,
            };
            if caches.iter().any(|cache| cache.place == CachePlace::Inline) {
                built.cache = graph.clone();
            }
            graphs.extend(graph);
        }
    }
    let warnings = platforms::mismatch(request.frontend_attrs.get("platform"), &results)?;
    let (mut response, made) = export(parts, run, &exports, &results, warnings).await?;
    let cx = run.context(solver::Progress::new(|_| {}));
    for cache in &caches {
        let written = tokio::select! {
            r = remote_cache::write(parts, run, &graphs, cache, &cx) => r,
            () = run.cancel.cancelled() => Err(solver::ExecError::Canceled),
        };
        response.extend(written.map_err(|e| Failure::of_export(&e))?);
    }
    share(run, &results).await?;
    response.extend(results.metadata.for_client());
    if request.enable_session_exporter {
        let session = session(parts, run).await?;
        session.finalize_export(&response).await.map_err(|e| Failure::of_session(&e))?;
    }
    Ok(Done { response, told, made })
}

/// What the request says of its caches that can have no effect.
fn idle_attributes(request: &SolveRequest) -> Vec<String> {
    let cache = request.cache.as_ref();
    let imports = cache.map_or(&[][..], |cache| &cache.imports);
    let exports = cache.map_or(&[][..], |cache| &cache.exports);
    remote_cache::idle_attributes(&request.frontend_attrs, imports, exports)
}

/// Warns of options that have no effect.
fn caution(run: &Run, warnings: &[String]) {
    if !warnings.is_empty() {
        let step = run.teller.step("[internal] check cache options");
        step.warn(warnings);
        // It cannot fail.
        let _ = step.end(Ok::<_, Failure>(()));
    }
}

/// Writes what is known of all that the results stand on to keyed caches, and waits for what was begun behind the build.
async fn share(run: &Run, results: &Results) -> Result<(), Failure> {
    let keyed = run.caches.keyed();
    if !keyed.writes() {
        return Ok(());
    }
    let (mut known, mut foreign) = (Vec::new(), 0);
    for made in results.built.iter().filter_map(|built| built.made.as_ref()) {
        let Some(head) = made.graph.head else { continue };
        let survey =
            run.build.survey(&made.graph, &[head]).await.map_err(|e| Failure::of_export(&e.error))?;
        known.extend(survey.made);
        foreign += survey.found.iter().filter(|found| **found).count();
    }
    let cx = run.context(solver::Progress::new(|_| {}));
    tokio::select! {
        written = keyed.finish(&known, foreign, &cx) => written.map_err(|e| Failure::of_export(&e)),
        () = run.cancel.cancelled() => Err(Failure::of_export(&solver::ExecError::Canceled)),
    }
}

/// Adds the exports that the client's session wishes for, now that there are results, which it knows by `ids`.
async fn ask_for_exports(
    parts: &Parts,
    run: &Run,
    request: &SolveRequest,
    results: &Results,
    ids: Vec<String>,
    exports: &mut Vec<ExportRequest>,
) -> Result<(), Failure> {
    if !request.enable_session_exporter {
        return Ok(());
    }
    let metadata = results.metadata.clone().into_inner();
    let wished = session(parts, run).await?.find_exporters(metadata, ids).await;
    for wish in wished.map_err(|e| Failure::of_session(&e))? {
        let read = ExportRequest::new(exports.len(), &wish.r#type, &wish.attrs);
        exports.push(read.map_err(|e| Failure::invalid(&e))?);
    }
    let alone = exports.len() == 1;
    exports.iter_mut().for_each(|export| export.alone = alone);
    Ok(())
}

/// The client's session.
async fn session(parts: &Parts, run: &Run) -> Result<Session, Failure> {
    parts.sessions.get(&run.session, ARRIVAL).await.map_err(|e| Failure::of_session(&e))
}

/// Lets a scanner say what the results hold, unless a frontend has said it.
async fn scan(
    parts: &Arc<Parts>,
    run: &Arc<Run>,
    request: &SolveRequest,
    options: &SbomOptions,
    results: &mut Results,
) -> Result<(), Failure> {
    if results.built.iter().flat_map(|built| &built.claims).any(|claim| claim.predicate_type == SPDX) {
        return Ok(());
    }
    let Some(generator) = &options.generator else {
        for built in &mut results.built {
            built.sbom = sbom::scan(parts, run, built, build_epoch(&request.frontend_attrs)).await?;
        }
        return Ok(());
    };
    let scanner = gateway::Scanner::new(parts, run, generator, options, &request.frontend_attrs).await?;
    for built in &mut results.built {
        let Some(made) = &built.made else { continue };
        let platform = oci_platform(&built.platform).full();
        let files = scanner.scan(parts, run, &platform, &made.graph, &built.scans).await?;
        built.claims.push(Claim::sbom(Some(files)));
    }
    Ok(())
}

/// What is to be told of a result, without what may be private.
async fn provenance(parts: &Parts, run: &Run, built: &Built) -> Result<Option<Provenance>, Failure> {
    let Some(made) = built.made.clone().filter(|made| made.graph.head.is_some()) else { return Ok(None) };
    let cx = run.context(solver::Progress::new(|_| {}));
    let mut capture = Capture::default();
    for graph in std::iter::once(made.graph.clone()).chain(made.origin.looked_at()) {
        let one = Capture::of_graph(&parts.sources, &graph, &cx).await;
        capture.merge(one.map_err(|e| Failure::of_export(&e))?);
    }
    let facts = Facts {
        invocation: run.reference.clone(),
        started: run.started,
        environment: parts.provenance_environment.clone(),
    };
    let options = ProvenanceOptions { detail: Detail::Sources, ..ProvenanceOptions::default() };
    Ok(Some(Provenance::new(options, facts, made, capture)))
}

/// The graph that a request brings along; one without operations is none.
fn definition(request: &SolveRequest) -> Option<&proto::pb::Definition> {
    request.definition.as_ref().filter(|definition| !definition.def.is_empty())
}

/// Evaluates the graph that a request brings along.
async fn graph(parts: &Parts, run: &Run, request: &SolveRequest) -> Result<Results, Failure> {
    let Some(definition) = definition(request) else { return Ok(Results::default()) };
    let graph = Arc::new(super::definition::load(parts, run, definition).await?);
    let output = run.evaluate(&graph, Need::Available).await?;
    let made = Some(Made { graph, origin: Arc::default() });
    let built = Built { output, made, ..Built::scratch() };
    Ok(Results { built: vec![built], ..Results::default() })
}

/// Runs the exports, and gives what the client is told and which manifests or indexes they made.
async fn export(
    parts: &Arc<Parts>,
    run: &Run,
    exports: &[ExportRequest],
    results: &Results,
    warnings: Vec<String>,
) -> Result<(BTreeMap<String, String>, BTreeMap<u64, BlobRef>), Failure> {
    let (mut response, mut all_made) = (BTreeMap::new(), BTreeMap::new());
    let mut warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    if exports.is_empty()
        && let Some(warnings) = warnings.take()
    {
        let step = run.teller.step("Verifying build result");
        step.warn(&warnings);
        step.end(Ok::<_, Failure>(()))?;
    }
    for request in exports {
        let cx = run.context(solver::Progress::new(|_| {}));
        let (request, results) = &request.settled(results)?;
        let step = run.teller.step(request.kind.step_name());
        step.warn(&warnings.take().unwrap_or_default());
        let done = async {
            match request.kind {
                // Files are read from directories, so all layers have to be here.
                ExportKind::Local | ExportKind::Tar => {
                    let fetched = parts.fetch_layers(results, &cx).await?;
                    parts.exporter.export(request, &fetched, step, &cx).await
                }
                ExportKind::Image | ExportKind::Oci | ExportKind::Docker => {
                    parts.exporter.export(request, results, step, &cx).await
                }
            }
        };
        let told = tokio::select! {
            r = done => r,
            () = run.cancel.cancelled() => Err(solver::ExecError::Canceled),
        };
        let told = told.map_err(|e| Failure::of_export(&e))?;
        all_made.extend(made(&told).map(|made| (request.id as u64, made)));
        response.extend(told);
    }
    Ok((response, all_made))
}

/// What an exporter says that it made.
fn made(told: &BTreeMap<String, String>) -> Option<BlobRef> {
    let json = STANDARD.decode(told.get("containerimage.descriptor")?).ok()?;
    let Descriptor { media_type, digest, size, .. } = serde_json::from_slice(&json).ok()?;
    Some(BlobRef { digest, size, media_type })
}

fn exports(request: &SolveRequest) -> Result<Vec<ExportRequest>, Failure> {
    let mut all: Vec<(String, &BTreeMap<String, String>)> =
        request.exporters.iter().map(|e| (e.r#type.clone(), &e.attrs)).collect();
    if all.is_empty() && !request.exporter_deprecated.is_empty() {
        all.push((request.exporter_deprecated.clone(), &request.exporter_attrs_deprecated));
    }
    let alone = all.len() == 1;
    let epoch = build_epoch(&request.frontend_attrs);
    let read = |(i, (kind, attrs)): (usize, (String, &BTreeMap<String, String>))| {
        let request = ExportRequest::new(i, &kind, attrs).map_err(|e| Failure::invalid(&e))?;
        let epoch = match request.epoch {
            EpochChoice::OfBuild => epoch.unwrap_or_default(),
            own => own,
        };
        Ok(ExportRequest { alone, epoch, ..request })
    };
    all.into_iter().enumerate().map(read).collect()
}

/// `SOURCE_DATE_EPOCH` as the build's argument says it, for exporters that are not given a time of their own. What is no
/// number is for the frontend, such as `context`.
fn build_epoch(attrs: &BTreeMap<String, String>) -> Option<EpochChoice> {
    match attrs.get("build-arg:SOURCE_DATE_EPOCH")?.as_str() {
        "" => Some(EpochChoice::None),
        seconds => seconds.parse().ok().map(EpochChoice::Given),
    }
}

/// What the client asks for and the daemon's configuration grants.
fn entitlements(parts: &Parts, client: &Peer, request: &SolveRequest) -> Result<Entitlements, Failure> {
    // A device is granted by its name, all of them by none.
    let kind = |entitlement: &String| match entitlement.split_once('=') {
        Some((DEVICE, _)) => DEVICE.to_owned(),
        _ => entitlement.clone(),
    };
    let granted = parts.entitlements_of(client);
    match request.entitlements.iter().map(kind).find(|e| !granted.contains(e)) {
        Some(refused) if refused == DEVICE || parts.entitlements.contains(&refused) => {
            let key = if parts.config.cdi.disabled { "cdi" } else { "grpc.entitlements" };
            let message = format!(
                "granting entitlement {refused} is not allowed by build daemon configuration: see `[{key}]` in buildd.toml"
            );
            Err(Failure::new(Code::PermissionDenied, message))
        }
        Some(refused) => {
            let message = format!(
                "granting entitlement {refused} is not allowed by build daemon configuration: add it to `insecure-entitlements` in buildd.toml"
            );
            Err(Failure::new(Code::PermissionDenied, message))
        }
        None => {
            let names = request.entitlements.iter().cloned().collect();
            Entitlements::new(names, parts.worker.devices.clone()).map_err(|e| Failure::invalid(&e))
        }
    }
}
