//! Past builds, as BuildKit's clients ask for them.

use proto::content::ReadContentRequest;
use proto::content::content_client::ContentClient;
use proto::control::control_client::ControlClient;
use proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, SolveRequest,
    StatusRequest, UpdateBuildHistoryRequest,
};
use proto::gateway;
use tests::llb::Llb;
use tests::{Api, Daemon, Scene, ready};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A client of the history.
struct Client {
    runtime: Runtime,
    control: ControlClient<Channel>,
    content: ContentClient<Channel>,
}

impl Client {
    fn connect(daemon: &Daemon) -> Self {
        let runtime = Runtime::new().unwrap();
        let endpoint = Endpoint::from_shared(daemon.addr()).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        let (control, content) = (ControlClient::new(channel.clone()), ContentClient::new(channel));
        Self { runtime, control, content }
    }

    fn events(&self, request: BuildHistoryRequest) -> Result<Vec<BuildHistoryEvent>, Status> {
        let request = BuildHistoryRequest { early_exit: true, ..request };
        let mut control = self.control.clone();
        self.runtime.block_on(async move {
            let mut stream = control.listen_build_history(request).await?.into_inner();
            let mut events = Vec::new();
            while let Some(event) = stream.message().await? {
                events.push(event);
            }
            Ok(events)
        })
    }

    /// Past builds, the newest first.
    fn records(&self) -> Vec<BuildHistoryRecord> {
        let newest_first = BuildHistoryRequest { limit: 100, ..BuildHistoryRequest::default() };
        self.events(newest_first).unwrap().into_iter().filter_map(|e| e.record).collect()
    }

    /// What a build printed.
    fn log(&self, reference: &str) -> Result<Vec<u8>, Status> {
        let (mut control, request) = (self.control.clone(), StatusRequest { r#ref: reference.to_owned() });
        self.runtime.block_on(async move {
            let mut stream = control.status(request).await?.into_inner();
            let mut log = Vec::new();
            while let Some(message) = stream.message().await? {
                message.logs.iter().for_each(|l| log.extend_from_slice(&l.msg));
            }
            Ok(log)
        })
    }

    /// A part of a blob; a size of zero is the rest.
    fn content(&self, digest: &str, offset: i64, size: i64) -> Result<Vec<u8>, Status> {
        let mut content = self.content.clone();
        let request = ReadContentRequest { digest: digest.to_owned(), offset, size };
        self.runtime.block_on(async move {
            let mut stream = content.read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(message) = stream.message().await? {
                assert_eq!(message.offset, offset + bytes.len() as i64);
                bytes.extend_from_slice(&message.data);
            }
            Ok(bytes)
        })
    }

    fn update(&self, request: UpdateBuildHistoryRequest) -> Result<(), Status> {
        let mut control = self.control.clone();
        self.runtime.block_on(async move { control.update_build_history(request).await }).map(drop)
    }
}

#[test]
fn builds_are_counted_and_their_logs_kept() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let text = "FROM base\nRUN echo first\nRUN yes 0123456789 | head -c 3000000; echo the end\n";
    scene.dockerfile(text, &["-t", "x"]).ok();
    scene.dockerfile(text, &["-t", "x"]).ok();
    scene.dockerfile("FROM base as b\nRUN echo about to fail; exit 3\n", &[]).fails();
    // From the disk, not from memory.
    scene.daemon.stop();
    scene.daemon.again();
    let client = Client::connect(&scene.daemon);
    let records = client.records();
    let [failed, cached, first, _base] = &records[..] else { panic!("{records:#?}") };
    assert!(first.error.is_none() && first.created_at.is_some() && first.completed_at.is_some());
    // The base image may count as cached.
    assert!(first.num_cached_steps <= 1, "{first:?}");
    assert!(first.num_total_steps >= 3 && first.num_completed_steps == first.num_total_steps, "{first:?}");
    assert!(cached.num_cached_steps >= 2, "{cached:?}");
    assert_eq!(cached.num_total_steps, first.num_total_steps, "{cached:?}");
    assert_eq!(failed.num_warnings, 1, "{failed:?}");
    let error = failed.error.as_ref().expect("it failed");
    assert!(error.message.contains("exit code: 3") && error.code == Code::Unknown as i32, "{error:?}");
    let details = failed.external_error.as_ref().expect("its details");
    assert_eq!(details.media_type, "application/vnd.googeapis.google.rpc.status+proto");
    let kept = client.content(&details.digest, 0, details.size).unwrap();
    let status = <proto::rpc::Status as prost::Message>::decode(&kept[..]).unwrap();
    assert_eq!((&status.message, status.code), (&error.message, error.code));
    assert!(status.details.iter().any(|any| any.type_url.ends_with("errdefs.Source+json")), "{status:?}");
    assert!(error.details.is_empty() && first.external_error.is_none());
    let log = first.logs.as_ref().expect("a log");
    assert_eq!(log.media_type, "application/vnd.buildkit.status.v0");
    assert!(log.size > 3_000_000, "{log:?}");
    let printed = client.log(&first.r#ref).unwrap();
    let sample: Vec<u8> = b"0123456789\n".iter().copied().cycle().take(3_000_000).collect();
    assert_eq!(printed, [&b"first\n"[..], &sample, b"the end\n"].concat());
    assert_eq!(client.log(&failed.r#ref).unwrap(), b"about to fail\n");
    let kept = scene.run(&["prune", "--all", "--force"]).ok();
    assert!(!kept.stdout.contains(&log.digest), "{}", kept.stdout);
    assert_eq!(client.log(&failed.r#ref).unwrap(), b"about to fail\n", "a log is no cache");
}

#[test]
fn the_history_is_filtered_pinned_and_removed() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let client = Client::connect(&scene.daemon);
    scene.dockerfile("FROM base\nRUN exit 1\n", &[]).fails();
    let filtered = |filter: &str| {
        let request =
            BuildHistoryRequest { filter: vec![filter.to_owned()], ..BuildHistoryRequest::default() };
        client.events(request).map(|events| events.len())
    };
    assert_eq!(filtered("status==error").unwrap(), 1);
    assert_eq!(filtered("status==completed").unwrap(), 1, "the base image");
    assert_eq!(filtered("status==completed,startedAt<1h").unwrap(), 0);
    assert_eq!(filtered("color==red").unwrap_err().code(), Code::InvalidArgument);
    let failed = client.records().swap_remove(0);
    let update = |change: fn(&mut UpdateBuildHistoryRequest)| {
        let mut request =
            UpdateBuildHistoryRequest { r#ref: failed.r#ref.clone(), ..UpdateBuildHistoryRequest::default() };
        change(&mut request);
        client.update(request).unwrap();
    };
    update(|r| r.pinned = true);
    update(|r| r.finalize = true);
    assert!(client.records()[0].pinned, "a finalised build stays pinned");
    update(|r| r.delete = true);
    assert_eq!(client.records().len(), 1);
    let gone = UpdateBuildHistoryRequest { r#ref: failed.r#ref.clone(), delete: true, ..Default::default() };
    assert_eq!(client.update(gone).unwrap_err().code(), Code::NotFound);
    let log = failed.logs.unwrap().digest;
    let hex = log.trim_start_matches("sha256:");
    let path = scene.daemon.root().join("blobs/sha256").join(&hex[..2]).join(hex);
    assert!(!path.exists(), "its log went along");
}

/// What `docker buildx` reads after a build: how its results came about, and nothing else of the store.
#[test]
fn statements_are_read_through_the_content_store() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let client = Client::connect(&scene.daemon);
    let text = "FROM base\nARG PASSWORD\nRUN true\n";
    scene
        .dockerfile(text, &["-t", "x", "--build-arg", "PASSWORD=hunter2", "--metadata-file", "../m.json"])
        .ok();
    let record = client.records().swap_remove(0);
    let result = record.result.expect("of the only platform");
    let made = &result.results[&0];
    assert_eq!((&result.result_deprecated, result.results.len()), (&Some(made.clone()), 1));
    assert_eq!(made.digest, record.exporter_response["containerimage.digest"]);
    assert_eq!(client.content(&made.digest, 0, 0).unwrap().len() as i64, made.size);
    let statement = result.attestations[0].clone();
    assert_eq!(statement.media_type, "application/vnd.in-toto+json");
    assert_eq!(statement.annotations["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v1");
    let told = client.content(&statement.digest, 0, 0).unwrap();
    assert_eq!(told.len() as i64, statement.size);
    assert_eq!(client.content(&statement.digest, 2, 5).unwrap(), told[2..7]);
    assert!(!String::from_utf8(told.clone()).unwrap().contains("hunter2"));
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["runDetails"]["metadata"]["invocationId"], record.r#ref);
    assert_eq!(told["buildDefinition"]["externalParameters"]["request"]["frontend"], "dockerfile.v0");
    assert!(!client.content(&record.logs.unwrap().digest, 0, 0).unwrap().is_empty());

    let refused = |digest: &str, offset, size| client.content(digest, offset, size).unwrap_err().code();
    for (offset, size) in [(-1, 0), (0, -1), (statement.size + 1, 0), (1, statement.size), (0, i64::MAX)] {
        assert_eq!(refused(&statement.digest, offset, size), Code::OutOfRange, "{size} from {offset}");
    }
    assert_eq!(refused("sha256:../../etc/passwd", 0, 0), Code::InvalidArgument);
    let image = fs_err::read_to_string(scene.path("m.json")).unwrap();
    let image: serde_json::Value = serde_json::from_str(&image).unwrap();
    let config = image["containerimage.config.digest"].as_str().unwrap();
    assert_eq!(refused(config, 0, 0), Code::NotFound, "an image's config is no past build's");

    // The images of an index, as `docker buildx history inspect` lists them.
    scene.dockerfile(text, &["--provenance=true", "-o", "type=image,name=y"]).ok();
    let index = &client.records().swap_remove(0).result.expect("of the only platform").results[&0];
    let list: serde_json::Value =
        serde_json::from_slice(&client.content(&index.digest, 0, 0).unwrap()).unwrap();
    let manifests = list["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2, "an image and its attestations");
    for manifest in manifests {
        let bytes = client.content(manifest["digest"].as_str().unwrap(), 0, 0).unwrap();
        assert_eq!(bytes.len() as i64, manifest["size"].as_i64().unwrap());
    }

    let both = ["--platform", "linux/amd64,linux/arm64", "-o", "type=local,dest=../l"];
    scene.dockerfile("FROM scratch\nCOPY Dockerfile /\n", &both).ok();
    let platforms: Vec<_> = client.records().swap_remove(0).results.into_keys().collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    client
        .update(UpdateBuildHistoryRequest { r#ref: record.r#ref, delete: true, ..Default::default() })
        .unwrap();
    assert_eq!(refused(&statement.digest, 0, 0), Code::NotFound);
}

/// `rbuild history` shows builds to a client of any daemon.
#[test]
fn the_command_line_shows_builds() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.run(&["history", "rm", "--all"]).ok();
    let empty = scene.run(&["history", "inspect"]).fails();
    assert!(empty.stderr.contains("history is empty"), "{}", empty.stderr);
    scene.dockerfile("FROM base\nRUN echo first\n", &["-t", "app:1"]).ok();
    scene.dockerfile("FROM base AS made\nRUN echo second; false\n", &["--target", "made"]).fails();

    let list = scene.run(&["history", "ls"]).ok().stdout;
    let rows: Vec<Vec<&str>> = list
        .lines()
        .skip(1)
        .map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    assert_eq!(rows.iter().map(|row| row[1]).collect::<Vec<_>>(), ["Dockerfile (made)", "app:1"], "{list}");
    assert_eq!(rows.iter().map(|row| row[2]).collect::<Vec<_>>(), ["Error", "Completed"], "{list}");
    let (failed, done) = (rows[0][0].to_owned(), rows[1][0].to_owned());
    let lines = scene.run(&["history", "ls", "--filter", "status=error", "--format", "json"]).ok().stdout;
    let only: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!((&only["ref"], &only["status"]), (&failed.clone().into(), &"Error".into()), "{lines}");

    let log = scene.run(&["history", "logs"]).ok();
    assert!(log.stdout.contains(" second\n") && log.stdout.contains("ERROR"), "the latest: {}", log.stdout);
    assert!(log.stderr.is_empty(), "{}", log.stderr);
    let log = scene.run(&["history", "logs", "--progress", "rawjson", &done[..9]]).ok().stdout;
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");

    let told = scene.run(&["history", "inspect", "^1"]).ok().stdout;
    for part in ["app:1", &done, "Completed", "pkg:docker/base", "https://slsa.dev/provenance/v1"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = scene.run(&["history", "inspect", "--attachment", "provenance", &done]).ok().stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["runDetails"]["metadata"]["invocationId"], *done);
    let told = scene.run(&["history", "inspect", &failed, "--format", "json"]).ok().stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["error"].as_str().unwrap().contains("exit code: 1"), "{told}");

    for (args, error) in [
        (&["history", "logs", "nosuch"][..], "no build `nosuch`"),
        (&["history", "logs", "^x"], "`^x`"),
        (&["history", "logs", "^2"], "no build `^2`"),
        (&["history", "inspect", &done, "--attachment", "sbom"], "no attachment `sbom`"),
        (&["history", "rm"], "BUILD"),
        (&["history"], "IMAGE"),
    ] {
        let out = scene.run(args).fails();
        assert!(out.stderr.contains(error), "{args:?}: {}", out.stderr);
    }
    assert_eq!(scene.run(&["history", "pin", &done]).ok().stdout.trim(), done);
    assert!(scene.run(&["history", "inspect", &done]).ok().stdout.contains("Pinned:"));
    scene.run(&["history", "unpin", "^1"]).ok();
    assert!(!scene.run(&["history", "inspect", &done]).ok().stdout.contains("Pinned:"));
    assert_eq!(scene.run(&["history", "rm", &failed]).ok().stdout.trim(), failed);
    assert_eq!(scene.run(&["history", "rm", "--all"]).ok().stdout.trim(), done);
    assert_eq!(scene.run(&["history", "ls"]).ok().stdout.lines().count(), 1);
    // The steps of an image, as before.
    assert!(scene.run(&["history", "app:1"]).ok().stdout.contains("echo first"));
}

/// A graph that a frontend made for one build may be the input of another: which request made it is told as long as both run.
#[test]
fn where_inputs_come_from() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (client, api) = (Client::connect(&scene.daemon), Api::connect(&scene.daemon));
    let mut llb = Llb::new();
    let dockerfile = llb.file(
        None,
        "/Dockerfile",
        "FROM scratch AS a\nCOPY Dockerfile /f\nFROM made\nCOPY Dockerfile /g\n",
    );
    let (dockerfile, context) = (llb.definition(&dockerfile), llb.definition(&dockerfile));
    let own = [("dockerfile".to_owned(), dockerfile), ("context".to_owned(), context)];
    let producer = api.gateway("producer");
    let made = producer.solve(gateway::SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_opt: [("target".to_owned(), "a".to_owned())].into(),
        frontend_inputs: own.clone().into(),
        ..gateway::SolveRequest::default()
    });
    let Some(gateway::result::Result::Ref(made)) = made.unwrap().result else { panic!("no reference") };
    let consume = |reference: &str| {
        let inputs = own.clone().into_iter().chain([("made".to_owned(), made.def.clone().unwrap())]);
        let attrs = [("context:made".to_owned(), "input:made".to_owned())];
        api.solve(SolveRequest {
            r#ref: reference.to_owned(),
            frontend: "dockerfile.v0".to_owned(),
            frontend_attrs: attrs.into(),
            frontend_inputs: inputs.collect(),
            ..SolveRequest::default()
        })
        .unwrap();
        let request = BuildHistoryRequest { r#ref: reference.to_owned(), ..BuildHistoryRequest::default() };
        let record = client.events(request).unwrap().swap_remove(0).record.unwrap();
        let digest = record.result.unwrap().attestations.swap_remove(0).digest;
        serde_json::from_slice::<serde_json::Value>(&client.content(&digest, 0, 0).unwrap()).unwrap()
    };
    let told = consume("beside");
    let input = &told["buildDefinition"]["externalParameters"]["request"]["inputs"]["made"]["request"];
    assert_eq!(input["args"]["target"], "a", "{told:#}");
    let files = &told["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"];
    assert_eq!(files.as_array().unwrap().len(), 1, "both read the same file: {files:#}");
    producer.end();
    let told = consume("after");
    assert_eq!(told["buildDefinition"]["externalParameters"]["request"].get("inputs"), None, "{told:#}");
}

#[test]
fn a_listener_is_told_of_builds() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let client = Client::connect(&scene.daemon);
    let mut control = client.control.clone();
    let listening = BuildHistoryRequest { active_only: true, ..BuildHistoryRequest::default() };
    let mut stream = client
        .runtime
        .block_on(async move { control.listen_build_history(listening).await.unwrap() })
        .into_inner();
    scene.dockerfile("FROM base\nRUN true\n", &["-t", "x"]).ok();
    let mut next = || client.runtime.block_on(stream.message()).unwrap().unwrap();
    let (started, ended) = (next(), next());
    assert_eq!(started.r#type, BuildHistoryEventType::Started as i32);
    assert_eq!(ended.r#type, BuildHistoryEventType::Complete as i32);
    let (started, ended) = (started.record.unwrap(), ended.record.unwrap());
    assert_eq!(started.r#ref, ended.r#ref);
    assert!(started.completed_at.is_none() && ended.completed_at.is_some());
    assert_eq!(ended.exporters[0].r#type, "image");
    assert!(ended.exporter_response.contains_key("containerimage.digest"), "{ended:?}");
}

#[test]
fn a_damaged_log_is_named() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    scene.daemon.stop();
    scene.daemon.again();
    let client = Client::connect(&scene.daemon);
    let record = client.records().swap_remove(0);
    let digest = record.logs.unwrap().digest;
    let hex = digest.trim_start_matches("sha256:");
    let path = scene.daemon.root().join("blobs/sha256").join(&hex[..2]).join(hex);
    let mut bytes = fs_err::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs_err::write(&path, bytes).unwrap();
    let error = client.log(&record.r#ref).unwrap_err();
    assert_eq!(error.code(), Code::DataLoss);
    assert!(error.message().contains(&digest) && error.message().contains(&record.r#ref), "{error}");
    scene.dockerfile("FROM base\nRUN true\n", &["-t", "x"]).ok();
}
