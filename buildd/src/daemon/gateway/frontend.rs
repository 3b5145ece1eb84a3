//! Frontends in images: a program in a sandbox that calls LLBBridge over its stdin and stdout.
//!
//! It is a client like any other, but for how it is reached: what it solves, runs and returns goes through a bridge of its own,
//! with the entitlements of the build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cache::oci::ImageMetadata;
use frontend::number::boolean;
use futures_util::stream::{self, StreamExt as _};
use prost::Message as _;
use proto::gateway::llb_bridge_server::LlbBridgeServer;
use proto::gateway::result::Result as Refs;
use proto::gateway::{
    InitMessage, NewContainerRequest, ResolveImageConfigRequest, SolveRequest as BridgeRequest,
};
use proto::pb::{self, Definition};
use runner::{Exit, RunnerError};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Server;

use super::result::{Returned, ReturnedPart};
use super::{Bridge, GatewayService};
use crate::causes::causes;
use crate::container::{Source, Streams};
use crate::daemon::about;
use crate::daemon::blocking::blocking;
use crate::daemon::failure::Failure;
use crate::daemon::frontends::Outcome;
use crate::daemon::listen::MAX_MESSAGE;
use crate::daemon::parts::Parts;
use crate::daemon::plan::{Plan, Planned};
use crate::daemon::provenance::Origin;
use crate::daemon::run::Run;
use crate::daemon::sandboxes;

/// What an image without an entrypoint runs.
const DEFAULT_PROGRAM: &str = "/run";
/// Labels of a frontend's image: what it can do, and that it needs no network.
const LABEL_CAPS: &str = "moby.buildkit.frontend.caps";
const LABEL_NO_NETWORK: &str = "moby.buildkit.frontend.network.none";
/// What a frontend has to be able to do that is given inputs.
const CAP_INPUTS: &str = "moby.buildkit.frontend.inputs";
/// Where a frontend finds the definition that it was itself made of.
const METADATA: &str = "/run/config/buildkit/metadata";
/// As much of what a frontend says on stderr is told when it fails, in bytes.
const LAST_WORDS: usize = 4 << 10;
/// What waits in a direction between frontend and server, in bytes.
const BUFFER: usize = 64 << 10;
/// The name of the frontend that runs these.
const NAME: &str = "gateway.v0";
/// How long a frontend that has returned may take to end.
const PARTING: Duration = Duration::from_secs(10);

/// Runs the frontend of the image `source` and gives what it returns. `root` is what was asked for
/// in the first place, where a frontend asks.
///
/// # Errors
/// An image that cannot be had or lacks a capability; what the frontend returns; a frontend that ends without returning.
pub(in crate::daemon) async fn ask(
    parts: &Arc<Parts>,
    run: &Arc<Run>,
    source: &str,
    attrs: &BTreeMap<String, String>,
    inputs: &BTreeMap<String, Definition>,
    root: Option<&Arc<Origin>>,
) -> Result<Outcome, Failure> {
    let _nested = run.frontends.clone().try_acquire_owned().map_err(|_| {
        Failure::new(Code::ResourceExhausted, "too many frontends of images run inside of each other")
    })?;
    // What runs the frontend is none of its own containers.
    let host = Bridge::new(parts, run, BTreeMap::new(), Arc::default(), Arc::default());
    let image = host.image_config(ResolveImageConfigRequest {
        r#ref: source.to_owned(),
        ..ResolveImageConfigRequest::default()
    });
    let image = image.await?;
    let config: ImageMetadata = serde_json::from_slice(&image.config)
        .map_err(|e| Failure::new(Code::InvalidArgument, format!("invalid image config of {source}: {e}")))?;
    check_caps(&config, attrs, inputs)?;
    let definition = image_definition(&image.r#ref, &image.digest)?;
    let files = reference(&host, definition.clone()).await?;
    let own = reference(&host, file("/frontend.bin", definition.encode_to_vec())).await?;
    let none = config.config.labels.get(LABEL_NO_NETWORK).is_some_and(|value| is_true(value));
    let network = if none { pb::NetMode::None } else { pb::NetMode::Unset };
    let mount = |dest: &str, result_id: String| pb::Mount {
        dest: dest.to_owned(),
        result_id,
        readonly: dest != "/",
        ..pb::Mount::default()
    };
    host.new_container(NewContainerRequest {
        mounts: vec![mount("/", files), mount(METADATA, own)],
        network: network.into(),
        ..NewContainerRequest::default()
    })
    .await?;
    let meta = command(parts, run, &config, attrs).await?;
    let origin = Origin::asked(NAME, attrs.clone(), parts.requests.of(inputs), root.cloned());
    // What it makes depends on it.
    if let Ok(graph) = crate::llb::from_definition(&definition) {
        origin.looks_at(Arc::new(graph));
    }
    let origin = Arc::new(origin);
    let root = root.unwrap_or(&origin).clone();
    let asked = Arc::new(Bridge::new(parts, run, inputs.clone(), origin, root));
    let ended = converse(&host, &asked, meta).await;
    asked.containers.release_all().await;
    host.containers.release_all().await;
    // What it returned as its error comes first, then that it failed itself, and only then its result.
    match (asked.returned(), ended) {
        (Some(Err(returned)), _) => Err(returned),
        (_, Err(failure)) => Err(failure),
        (Some(Ok(returned)), Ok(())) => {
            asked.look_back(&returned);
            outcome(returned)
        }
        (None, Ok(())) => Err(Failure::new(Code::Unknown, "frontend did not return a result")),
    }
}

/// Starts the program and serves it until it has ended.
async fn converse(host: &Bridge, asked: &Arc<Bridge>, meta: pb::Meta) -> Result<(), Failure> {
    let broken =
        |e: std::io::Error| Failure::new(Code::Internal, format!("cannot talk to the frontend: {e}"));
    let container =
        host.containers.get("").ok_or_else(|| Failure::of_export(&solver::ExecError::Canceled))?;
    let (streams, stdio) = Streams::new(false, true, false).map_err(broken)?;
    let init = InitMessage { meta: Some(meta), ..InitMessage::default() };
    let handle = host.start(&container, &init, &stdio).await?;
    drop(stdio);
    let Streams { stdin: Some(stdin), outputs, .. } = streams else {
        return Err(Failure::new(Code::Internal, "the frontend has no stdin"));
    };
    let (mut stdout, mut stderr) = (None, None);
    for (source, from) in outputs {
        match source {
            Source::Stdout => stdout = Some(from),
            Source::Stderr => stderr = Some(from),
        }
    }
    let over = CancellationToken::new();
    let serving = tokio::spawn(serve(asked.clone(), stdout, stdin, over.clone()));
    let words = tokio::spawn(last_words(stderr));
    let cancel = host.run.cancel.child_token();
    let waiting = sandboxes::wait(handle, &cancel);
    tokio::pin!(waiting);
    let exit = tokio::select! {
        exit = &mut waiting => exit,
        () = async { asked.wait_returned().await; tokio::time::sleep(PARTING).await } => {
            // It has said all that it had to.
            cancel.cancel();
            let _ended = waiting.await;
            over.cancel();
            return Ok(());
        }
    };
    over.cancel();
    let _served = serving.await;
    if host.run.cancel.is_cancelled() {
        return Err(Failure::of_export(&solver::ExecError::Canceled));
    }
    judge(exit, words.await.unwrap_or_default().trim_end())
}

/// What the end of a frontend's program means.
fn judge(exit: Result<Exit, RunnerError>, words: &str) -> Result<(), Failure> {
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    match exit {
        Ok(exit) if exit.status.success() => Ok(()),
        Ok(exit) => {
            let code = exit.status.code();
            Err(Failure::new(Code::Unknown, format!("frontend failed: exit code: {code}{said}")))
        }
        Err(e) => Err(Failure::new(Code::Unknown, format!("frontend failed: {}{said}", causes(&e)))),
    }
}

/// Serves LLBBridge to a program with these ends.
async fn serve(bridge: Arc<Bridge>, from: Option<pipe::Receiver>, to: pipe::Sender, over: CancellationToken) {
    let Some(from) = from else { return };
    let (ours, mut theirs) = tokio::io::duplex(BUFFER);
    let parts = bridge.parts.clone();
    let gateway = LlbBridgeServer::new(GatewayService { parts, only: Some(bridge) })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let (_, health) = tonic_health::server::health_reporter();
    // One connection, and no other ever: the end of a stream would be the end of the server.
    let incoming = stream::iter([Ok::<_, std::io::Error>(ours)]).chain(stream::pending());
    let stopped = over.clone().cancelled_owned();
    let server = Server::builder().add_service(gateway).add_service(health);
    let mut program = tokio::io::join(from, to);
    tokio::select! {
        _ = server.serve_with_incoming_shutdown(incoming, stopped) => {}
        // Until the program has closed its end.
        _ = tokio::io::copy_bidirectional(&mut theirs, &mut program) => {}
        () = over.cancelled() => {}
    }
}

/// The last that is said on a stream, to its end.
async fn last_words(from: Option<pipe::Receiver>) -> String {
    let Some(mut from) = from else { return String::new() };
    let mut last = Vec::new();
    let mut buf = vec![0; LAST_WORDS];
    while let Ok(n @ 1..) = from.read(&mut buf).await {
        last.extend_from_slice(&buf[..n]);
        last.drain(..last.len().saturating_sub(LAST_WORDS));
    }
    String::from_utf8_lossy(&last).into_owned()
}

/// What is run: the image's entrypoint, with the build's options in its environment.
async fn command(
    parts: &Arc<Parts>,
    run: &Run,
    image: &ImageMetadata,
    attrs: &BTreeMap<String, String>,
) -> Result<pb::Meta, Failure> {
    let config = &image.config;
    let mut env = config.env.clone();
    let option =
        |(n, (key, value)): (usize, (&String, &String))| format!("BUILDKIT_FRONTEND_OPT_{n}={key}={value}");
    env.extend(attrs.iter().enumerate().map(option));
    env.push(format!("BUILDKIT_SESSION_ID={}", run.session));
    env.push(format!("BUILDKIT_WORKERS={}", workers(parts).await?));
    env.push("BUILDKIT_EXPORTEDPRODUCT=buildkit".to_owned());
    let args = match config.entrypoint.is_empty() {
        true => vec![DEFAULT_PROGRAM.to_owned()],
        false => config.entrypoint.clone(),
    };
    let cwd = format!("/{}", config.working_dir.trim_start_matches('/'));
    Ok(pb::Meta { args, env, cwd, remove_mount_stubs_recursive: true, ..pb::Meta::default() })
}

/// The workers, as Go's encoding/json makes them of BuildKit's `client.WorkerInfo`.
async fn workers(parts: &Arc<Parts>) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Worker {
        id: String,
        labels: BTreeMap<String, String>,
        platforms: Vec<solver::op::Platform>,
    }
    let of = parts.clone();
    let record = blocking(move || about::worker(&of)).await;
    let platforms = vec![crate::daemon::sources::image::host_platform()];
    let worker = Worker { id: record.id, labels: record.labels.into_iter().collect(), platforms };
    serde_json::to_string(&[worker]).map_err(|e| Failure::invalid(&e))
}

/// Compares what the build needs with what the image says that its frontend can do.
fn check_caps(
    image: &ImageMetadata,
    attrs: &BTreeMap<String, String>,
    inputs: &BTreeMap<String, Definition>,
) -> Result<(), Failure> {
    let has = caps(image.config.labels.get(LABEL_CAPS).map(String::as_str).unwrap_or_default());
    let mut wanted = caps(attrs.get("frontend.caps").map(String::as_str).unwrap_or_default());
    if !inputs.is_empty() {
        wanted.insert(CAP_INPUTS.to_owned());
    }
    match wanted.into_iter().find(|cap| !has.contains(cap)) {
        None => Ok(()),
        Some(missing) => Err(Failure::no_cap(&missing)),
    }
}

/// Capabilities in a list: `name+detail,name`.
fn caps(list: &str) -> BTreeSet<String> {
    let names = list.split(',').filter_map(|cap| cap.split('+').next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What Go's `strconv.ParseBool` takes for true.
fn is_true(text: &str) -> bool {
    boolean(text) == Some(true)
}

/// Makes a definition something that can be mounted.
async fn reference(bridge: &Bridge, definition: Definition) -> Result<String, Failure> {
    let request = BridgeRequest {
        definition: Some(definition),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..BridgeRequest::default()
    };
    match bridge.solve(request).await?.result.and_then(|result| result.result) {
        Some(Refs::Ref(reference)) => Ok(reference.id),
        _ => Err(Failure::new(Code::Internal, "the frontend's image gives no files")),
    }
}

/// The image that was resolved to `digest`.
fn image_definition(source: &str, digest: &str) -> Result<Definition, Failure> {
    let reference = cache::oci::Reference::parse(source).map_err(|e| Failure::invalid(&e))?;
    let name = reference.with_default_tag().to_string();
    let name = name.split('@').next().unwrap_or_default();
    let identifier = format!("docker-image://{name}@{digest}");
    Ok(definition(pb::op::Op::Source(pb::SourceOp { identifier, ..pb::SourceOp::default() })))
}

/// A file and nothing else.
fn file(path: &str, data: Vec<u8>) -> Definition {
    let made = pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o444,
        data: data.into(),
        timestamp: 0,
        ..pb::FileActionMkFile::default()
    };
    let action = pb::FileAction {
        input: -1,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkfile(made)),
    };
    definition(pb::op::Op::File(pb::FileOp { actions: vec![action] }))
}

/// The definition of one operation without inputs.
fn definition(op: pb::op::Op) -> Definition {
    let op = pb::Op { op: Some(op), ..pb::Op::default() }.encode_to_vec();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&op)));
    let head = pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..pb::Op::default() };
    Definition { def: vec![op.into(), head.encode_to_vec().into()], ..Definition::default() }
}

/// What a frontend returned, as if it were built in.
fn outcome(returned: Returned) -> Result<Outcome, Failure> {
    if returned.parts.is_empty() {
        return Ok(Outcome::Answer(returned.metadata.texts()));
    }
    let part = |part: ReturnedPart| Planned {
        platform: part.platform,
        epoch: part.epoch,
        claims: part
            .claims
            .iter()
            .map(|claim| claim.with(claim.files.as_ref().map(|reference| reference.graph.clone())))
            .collect(),
        scans: part.reference.as_ref().map(|reference| reference.scans.clone()).unwrap_or_default(),
        origin: part.reference.as_ref().map(|reference| reference.origin.clone()).unwrap_or_default(),
        graph: part.reference.map(|reference| reference.graph.clone()).unwrap_or_default(),
        config: part.config,
        inherited: part.inherited,
    };
    let parts = returned.parts.into_iter().map(part).collect();
    let Returned { multi_platform, metadata, .. } = returned;
    Ok(Outcome::Plan(Plan { parts, multi_platform, metadata }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errdetails::Refusal;

    #[test]
    fn capabilities() {
        let image = |label: &str| {
            let json = format!(r#"{{"config":{{"Labels":{{"{LABEL_CAPS}":"{label}"}}}}}}"#);
            serde_json::from_str::<ImageMetadata>(&json).unwrap()
        };
        let attrs = |caps: &str| BTreeMap::from([("frontend.caps".to_owned(), caps.to_owned())]);
        let inputs = BTreeMap::from([("a".to_owned(), Definition::default())]);
        let missing = |label: &str, wanted: &str, inputs: &BTreeMap<_, _>| {
            check_caps(&image(label), &attrs(wanted), inputs).err().map(|e| {
                assert_eq!(e.code, Code::Unimplemented);
                match *e.details.refusal.unwrap() {
                    Refusal::Cap(name) => name,
                    other => panic!("{other:?}"),
                }
            })
        };
        let none = BTreeMap::new();
        assert_eq!(missing("", "", &none), None);
        assert_eq!(missing("a,b+forward", "b,a+x", &none), None);
        assert_eq!(missing("a", "b", &none), Some("b".to_owned()));
        assert_eq!(missing("a", "", &inputs), Some(CAP_INPUTS.to_owned()));
        assert_eq!(missing(&format!("{CAP_INPUTS}+x"), "", &inputs), None);
    }

    #[test]
    fn definitions_are_what_is_meant() {
        let graph = crate::llb::from_definition(&file("/frontend.bin", b"x".to_vec())).unwrap();
        assert_eq!(graph.vertices().len(), 1);
        let image = image_definition("busybox", &format!("sha256:{}", "0".repeat(64))).unwrap();
        let graph = crate::llb::from_definition(&image).unwrap();
        let name = crate::llb::vertex_name(&graph.vertices()[0]);
        assert_eq!(
            name,
            format!("docker-image://docker.io/library/busybox:latest@sha256:{}", "0".repeat(64))
        );
    }
}
