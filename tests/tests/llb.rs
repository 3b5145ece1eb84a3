//! LLB definitions played straight into the API.

use base64::Engine as _;
use prost::Message as _;
use proto::control::{CacheOptions, CacheOptionsEntry, Exporter, SolveRequest, SolveResponse};
use proto::gateway::{self, ReturnRequest};
use proto::pb;
use serde_json::Value;
use tests::llb::{Edge, Llb};
use tests::{Api, Scene, ready};
use tonic::Code;

/// The base image of a scene, as LLB.
fn base(llb: &mut Llb) -> Edge {
    llb.image("docker.io/library/base:latest")
}

fn mount(dest: &str, kind: pb::MountType) -> pb::Mount {
    pb::Mount {
        input: -1,
        output: -1,
        dest: dest.to_owned(),
        mount_type: kind.into(),
        ..pb::Mount::default()
    }
}

#[test]
fn steps_see_what_their_meta_says() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("meta");
    let mut llb = Llb::new();
    let base = base(&mut llb);
    let script = "{ hostname; ulimit -n; grep -h host.example /etc/hosts; echo $http_proxy $HTTP_PROXY; pwd; id -u; \
                  echo [$ABSENT]; } > /out/seen";
    let mut out = mount("/out", pb::MountType::Bind);
    out.output = 1;
    let run = llb.run(&base, &format!("{script}; exit 3"), |exec| {
        exec.mounts.push(out);
        exec.secretenv = vec![pb::SecretEnv { id: "no".into(), name: "ABSENT".into(), optional: true }];
        let meta = exec.meta.as_mut().unwrap();
        meta.hostname = "inner".into();
        meta.user = "0".into();
        meta.cwd = "/made/here".into();
        meta.ulimit = vec![pb::Ulimit { name: "nofile".into(), soft: 321, hard: 321 }];
        meta.extra_hosts = vec![pb::HostIp { host: "host.example".into(), ip: "192.0.2.7".into() }];
        meta.proxy_env = Some(pb::ProxyEnv { http_proxy: "http://p".into(), ..pb::ProxyEnv::default() });
        meta.valid_exit_codes = vec![0, 3];
    });
    let seen = gateway.read(llb.definition(&run.output(1)), "/seen").unwrap();
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["inner", "321", "192.0.2.7", "host.example", "http://p", "http://p", "/made/here", "0", "[]"]
    );
    gateway.end();
}

#[test]
fn mounts_of_every_kind() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("mounts");
    let mut llb = Llb::new();
    let base = base(&mut llb);
    let files = llb.file(None, "/inner", "from the bind\n");
    let script = "cat /bind/inner > /seen; touch /bind/lost; mount | grep -c ' /tmpfs ' >> /seen; \
                  echo kept >> /cache/log; wc -l < /cache/log >> /seen; test ! -e /secret; \
                  ! touch /bind-ro/x 2>/dev/null; touch /seen-too";
    let mounts = || {
        let mut bind = mount("/bind", pb::MountType::Bind);
        bind.input = 1;
        let mut read_only = mount("/bind-ro", pb::MountType::Bind);
        (read_only.input, read_only.readonly) = (1, true);
        let mut tmpfs = mount("/tmpfs", pb::MountType::Tmpfs);
        tmpfs.tmpfs_opt = Some(pb::TmpfsOpt { size: 1 << 20 });
        let mut cache = mount("/cache", pb::MountType::Cache);
        cache.cache_opt = Some(pb::CacheOpt { id: "llb".into(), sharing: 0 });
        let mut secret = mount("/secret", pb::MountType::Secret);
        secret.secret_opt =
            Some(pb::SecretOpt { id: "no".into(), optional: true, ..pb::SecretOpt::default() });
        let mut ssh = mount("/agent", pb::MountType::Ssh);
        ssh.ssh_opt = Some(pb::SshOpt { id: "no".into(), optional: true, ..pb::SshOpt::default() });
        [bind, read_only, tmpfs, cache, secret, ssh]
    };
    for (turn, lines) in [(1, "1"), (2, "2")] {
        let run =
            llb.run_with(&[&base, &files], &format!("{script}; : {turn}"), |e| e.mounts.extend(mounts()));
        let seen = gateway.read(llb.definition(&run), "/seen").unwrap();
        assert_eq!(seen.lines().map(str::trim).collect::<Vec<_>>(), ["from the bind", "1", lines]);
        let names = gateway.list(llb.definition(&run), "/").unwrap();
        assert!(names.contains(&"seen-too".to_owned()), "{names:?}");
        assert!(!names.iter().any(|n| ["bind", "tmpfs", "cache"].contains(&n.as_str())), "{names:?}");
    }
    // A required secret, a required agent, a required device: named in the error.
    let mut secret = mount("/s", pb::MountType::Secret);
    secret.secret_opt = Some(pb::SecretOpt { id: "nosecret".into(), ..pb::SecretOpt::default() });
    let mut ssh = mount("/a", pb::MountType::Ssh);
    ssh.ssh_opt = Some(pb::SshOpt { id: "noagent".into(), ..pb::SshOpt::default() });
    for (wanted, name) in [(secret, "nosecret"), (ssh, "noagent")] {
        let run = llb.run(&base, "true", |exec| exec.mounts.push(wanted));
        let err = gateway.read(llb.definition(&run), "/").unwrap_err();
        assert!(err.message().contains(name), "{err}");
    }
    let run = llb.run(&base, "true", |exec| {
        exec.cdi_devices = vec![pb::CdiDevice { name: "vendor.example/d=1".into(), optional: false }];
    });
    let err = gateway.read(llb.definition(&run), "/").unwrap_err();
    assert!(err.message().contains("vendor.example/d=1"), "{err}");
    gateway.end();
}

#[test]
fn file_actions() {
    use pb::file_action::Action;
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("files");
    let mut llb = Llb::new();
    let mkdir = pb::FileActionMkDir {
        path: "/a/b".into(),
        mode: 0o755,
        make_parents: true,
        timestamp: -1,
        ..pb::FileActionMkDir::default()
    };
    let mkfile = |path: &str, text: &'static str| {
        Action::Mkfile(pb::FileActionMkFile {
            path: path.into(),
            mode: 0o600,
            data: text.into(),
            timestamp: -1,
            ..pb::FileActionMkFile::default()
        })
    };
    let link = pb::FileActionSymlink {
        oldpath: "b/one".into(),
        newpath: "/a/link".into(),
        timestamp: -1,
        ..pb::FileActionSymlink::default()
    };
    let rm = pb::FileActionRm { path: "/a/b/t*".into(), allow_wildcard: true, ..pb::FileActionRm::default() };
    let made = llb.actions(
        None,
        vec![
            Action::Mkdir(mkdir),
            mkfile("/a/b/one", "1"),
            mkfile("/a/b/two", "2"),
            Action::Symlink(link),
            Action::Rm(rm),
        ],
    );
    assert_eq!(gateway.read(llb.definition(&made), "/a/link").unwrap(), "1");
    assert_eq!(gateway.list(llb.definition(&made), "/a").unwrap(), ["b", "link"]);
    assert_eq!(gateway.list(llb.definition(&made), "/a/b").unwrap(), ["one"]);
    gateway.end();
}

#[test]
fn merges_and_differences() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("diff");
    let mut llb = Llb::new();
    let (a, b) = (llb.file(None, "/a", "a"), llb.file(None, "/b", "b"));
    let merged = llb.merge(&[&a, &b]);
    assert_eq!(gateway.list(llb.definition(&merged), "/").unwrap(), ["a", "b"]);

    // The upper builds on the lower.
    let both = llb.file(Some(&a), "/b", "b");
    let related = llb.diff(&a, &both);
    assert_eq!(gateway.list(llb.definition(&related), "/").unwrap(), ["b"]);

    // The same contents, but the upper was made at once: what is on record for the first does not fit here.
    let mkfile = |name: &str| {
        pb::file_action::Action::Mkfile(pb::FileActionMkFile {
            path: format!("/{name}"),
            mode: 0o644,
            data: name.to_owned().into(),
            timestamp: 1_000_000_000,
            ..pb::FileActionMkFile::default()
        })
    };
    let at_once = llb.actions(None, vec![mkfile("a"), mkfile("b")]);
    let unrelated = llb.diff(&a, &at_once);
    assert_eq!(gateway.list(llb.definition(&unrelated), "/").unwrap(), ["b"]);

    // What is gone is gone from what the difference is put on, too.
    let c = llb.file(None, "/c", "c");
    let swap = llb.diff(&a, &c);
    let swapped = llb.merge(&[&both, &swap]);
    assert_eq!(gateway.list(llb.definition(&swapped), "/").unwrap(), ["b", "c"]);

    // Links, attributes and types survive, and a step runs on it.
    let base = base(&mut llb);
    let script = "mkdir -p /d/sub; echo x > /d/f; ln /d/f /d/hard; ln -s f /d/soft; chmod 4751 /d/f; mkfifo /d/p; \
                  rm -rf /home; echo file > /home";
    let upper = llb.run(&base, script, |_| {});
    let difference = llb.diff(&merged, &upper);
    let on_base = llb.merge(&[&base, &difference]);
    let check = llb.run(
        &on_base,
        "cd /d; stat -c '%a %h' f hard > /seen; readlink soft >> /seen; test -p p; cat /home >> /seen; ls -A sub",
        |_| {},
    );
    let seen = gateway.read(llb.definition(&check), "/seen").unwrap();
    assert_eq!(seen, "4751 2\n4751 2\nf\nfile\n");
    gateway.end();
}

#[test]
fn definitions_that_steps_make() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("nested");
    let mut inner = Llb::new();
    let made = inner.file(None, "/made", "inside");
    let mut text = inner.definition(&made);
    // Three levels.
    for _ in 0..2 {
        let mut level = Llb::new();
        let file = definition_file(&mut level, &text);
        let built = level.build(&file);
        text = level.definition(&built);
    }
    assert_eq!(gateway.read(text, "/made").unwrap(), "inside");

    let mut llb = Llb::new();
    let empty = llb.file(None, "/other", "");
    let built = llb.build(&empty);
    let err = gateway.definition(llb.definition(&built)).unwrap_err();
    assert_eq!(err.code(), Code::InvalidArgument);
    assert!(err.message().contains("buildkit.llb.definition"), "{err}");
    gateway.end();
}

fn definition_file(llb: &mut Llb, definition: &pb::Definition) -> Edge {
    let file = pb::FileActionMkFile {
        path: "/buildkit.llb.definition".into(),
        mode: 0o644,
        data: definition.encode_to_vec().into(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    };
    llb.actions(None, vec![pb::file_action::Action::Mkfile(file)])
}

#[test]
fn what_a_client_returns_is_exported() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let exporter =
        Exporter { r#type: "image".into(), attrs: [("name".to_owned(), "returned".to_owned())].into() };
    let request =
        || SolveRequest { r#ref: "r".into(), exporters: vec![exporter.clone()], ..SolveRequest::default() };
    let mut gateway = api.gateway_for(request());
    let mut llb = Llb::new();
    let base = base(&mut llb);
    let run = llb.run(&base, "echo hello > /greeting", |_| {});
    let id = gateway.definition(llb.definition(&run)).unwrap();
    let config =
        r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/cat","/greeting"],"Own":"kept"}}"#;
    let result = gateway::Result {
        result: Some(gateway::result::Result::Ref(gateway::Ref { id, def: None })),
        metadata: [("containerimage.config".to_owned(), config.into())].into(),
        ..gateway::Result::default()
    };
    let response = gateway.returns(ReturnRequest { result: Some(result), error: None }).unwrap();
    assert!(response.exporter_response["containerimage.digest"].starts_with("sha256:"));
    assert_eq!(scene.run(&["run", "--network=none", "returned"]).ok().stdout, "hello\n");

    // Its error is the build's, with code and details.
    let mut gateway = api.gateway_for(request());
    let own = prost_types::Any { type_url: "example.com/own".into(), value: b"kept".to_vec() };
    let details = vec![own.clone()];
    let error = proto::rpc::Status { code: Code::DataLoss as i32, message: "mine".into(), details };
    let err = gateway.returns(ReturnRequest { result: None, error: Some(error) }).unwrap_err();
    assert_eq!((err.code(), err.message()), (Code::DataLoss, "mine"));
    let told = proto::rpc::Status::decode(err.details()).unwrap();
    assert_eq!(told.details, [own]);
}

#[test]
fn parts_of_images_and_certain_images() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM base\nRUN echo 1 > /first\nRUN echo 2 > /second\n").write("f", "f");
    scene.build(&["-t", "layered", "--metadata-file", "../m.json"]).ok();
    let told: Value = serde_json::from_slice(&fs_err::read(scene.path("m.json")).unwrap()).unwrap();
    let digest = told["containerimage.digest"].as_str().unwrap();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("parts");
    let wanted = |attrs: &[(&str, &str)]| {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let identifier = "docker-image://docker.io/library/layered:latest".to_owned();
        let mut llb = Llb::new();
        let source = llb.op(&[], pb::op::Op::Source(pb::SourceOp { identifier, attrs }));
        // Over something else too, so that the files are put together.
        let copied = llb.file(Some(&source), "/mine", "");
        let names = gateway.list(llb.definition(&copied), "/")?;
        Ok::<_, tonic::Status>(["first", "second"].map(|name| names.iter().any(|n| n == name)))
    };
    let layers = |n: usize| n.to_string();
    let all = wanted(&[]).unwrap();
    assert_eq!(all, [true, true]);
    let base = (1..20).find(|n| wanted(&[("image.layerlimit", &layers(*n))]).unwrap() == [true, false]);
    let base = base.expect("a limit between the two layers");
    assert_eq!(wanted(&[("image.layerlimit", &layers(base + 1))]).unwrap(), [true, true]);
    assert_eq!(wanted(&[("image.layerlimit", &layers(base + 9))]).unwrap(), [true, true]);
    assert_eq!(wanted(&[("image.checksum", digest)]).unwrap(), [true, true]);
    let other = format!("sha256:{}", "a".repeat(64));
    for (attr, why) in [
        (("image.layerlimit", "0"), "invalid layer limit 0".to_owned()),
        (("image.checksum", "x"), "invalid image checksum x".to_owned()),
        (("image.checksum", other.as_str()), format!("does not match expected checksum {other}")),
    ] {
        let err = wanted(&[attr]).unwrap_err();
        assert!(err.message().contains(&why), "{attr:?}: {}", err.message());
    }
    gateway.end();
}

/// The mount points of the sandbox's own file systems are made where the root lacks them, and yet it is read-only.
#[test]
fn a_read_only_root_without_mount_points() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("read-only");
    let mut llb = Llb::new();
    let base = base(&mut llb);
    let remove = |path: &str| {
        let rm =
            pb::FileActionRm { path: path.to_owned(), allow_not_found: true, ..pb::FileActionRm::default() };
        pb::file_action::Action::Rm(rm)
    };
    let bare = llb.actions(Some(&base), ["/proc", "/sys", "/dev"].map(remove).to_vec());
    let script = "test -e /proc/self/stat; ! touch /x 2>/dev/null; echo ok > /out/told";
    let run = llb.run(&bare, script, |exec| {
        exec.mounts[0].readonly = true;
        exec.mounts[0].output = -1;
        exec.mounts.push(pb::Mount { output: 0, ..mount("/out", pb::MountType::Bind) });
    });
    assert_eq!(gateway.read(llb.definition(&run), "/told").unwrap(), "ok\n");
    gateway.end();
}

/// What an export's answer says of the image, and the descriptor in it.
fn exported(response: &SolveResponse) -> (&std::collections::BTreeMap<String, String>, Value) {
    let answer = &response.exporter_response;
    let json =
        base64::engine::general_purpose::STANDARD.decode(&answer["containerimage.descriptor"]).unwrap();
    (answer, serde_json::from_slice(&json).unwrap())
}

/// An image exporter.
fn image(attrs: &[(&str, &str)]) -> Exporter {
    let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Exporter { r#type: "image".into(), attrs }
}

#[test]
fn caches_of_unknown_services_and_names() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let mut llb = Llb::new();
    let file = llb.file(None, "/f", "f");
    let solve = |kind: &str, attrs: &[(&str, &str)]| {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let export = CacheOptionsEntry { r#type: kind.to_owned(), attrs };
        let cache = Some(CacheOptions { exports: vec![export], ..CacheOptions::default() });
        let definition = Some(llb.definition(&file));
        api.solve(SolveRequest { r#ref: "cached".into(), definition, cache, ..SolveRequest::default() })
    };
    // What is asked for wrongly is told, whether the client would do without or not.
    for ignore in ["false", "true"] {
        let err = solve("nonsense", &[("bucket", "b"), ("ignore-error", ignore)]).unwrap_err();
        assert_eq!(err.message(), "unknown cache exporter: \"nonsense\"");
        let err = solve("gha", &[("url", "http://127.0.0.1:1"), ("ignore-error", ignore)]).unwrap_err();
        let said = "failed to configure gha cache exporter: token not set for github actions cache";
        assert_eq!(err.message(), said);
    }
    let err = solve("registry", &[("ref", "no-such-host.invalid:5000/cache")]).unwrap_err();
    let said = "registry `no-such-host.invalid:5000` cannot be reached: dial tcp: lookup no-such-host.invalid: no such host (";
    assert!(err.message().starts_with(said), "{err}");
}

#[test]
fn nothing_has_no_files_to_miss() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.dockerfile("FROM scratch\nLABEL a=b\n", &["-t", "nothing"]).ok();
    let api = Api::connect(&scene.daemon);
    let gateway = api.gateway("nothing");
    let mut llb = Llb::new();
    let nothing = llb.image("docker.io/library/nothing:latest");
    let copy = pb::FileActionCopy { src: "/foo".into(), dest: "/".into(), ..Default::default() };
    let action = pb::FileAction {
        input: -1,
        secondary_input: 0,
        output: 0,
        action: Some(pb::file_action::Action::Copy(copy)),
    };
    let copied = llb.op(&[&nothing], pb::op::Op::File(pb::FileOp { actions: vec![action] }));
    let err = gateway.read(llb.definition(&copied), "/foo").unwrap_err();
    assert!(err.message().ends_with("/foo: no such file or directory"), "{err}");
    gateway.end();
}

#[test]
fn what_is_said_of_a_result_reaches_exporters_and_clients() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let builds = std::cell::Cell::new(0);
    let returned = |exporters: Vec<Exporter>, metadata: &[(&str, &str)]| {
        builds.set(builds.get() + 1);
        let build = format!("said{}", builds.get());
        let request = SolveRequest { r#ref: build, exporters, ..SolveRequest::default() };
        let mut gateway = api.gateway_for(request);
        let said = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned().into())).collect();
        let result = gateway::Result { metadata: said, ..gateway::Result::default() };
        gateway.returns(ReturnRequest { result: Some(result), error: None })
    };
    // Nothing is an image, too. Its frontend names it where the exporter leaves that to it, annotates it, and talks to the client.
    let said = [
        ("image.name", "a:1,b"),
        ("annotation-manifest-descriptor.k", "v"),
        ("frontend.told", "yes"),
        ("frontendnot.told", "no"),
    ];
    let response = returned(vec![image(&[("name", "*")])], &said).unwrap();
    let (answer, descriptor) = exported(&response);
    assert_eq!(answer["image.name"], "docker.io/library/a:1,docker.io/library/b:latest");
    assert_eq!(descriptor["annotations"]["k"], "v");
    assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!((answer["frontend.told"].as_str(), answer.get("frontendnot.told")), ("yes", None));
    let response = returned(vec![image(&[("name", "own")])], &said).unwrap();
    assert_eq!(response.exporter_response["image.name"], "docker.io/library/own:latest");
    for (key, value, why) in [
        ("containerimage.config", "null", "invalid null image config"),
        ("containerimage.config", r#"{"os":"linux"}"#, "os and architecture must be specified together"),
        ("refs.platforms", "null", "invalid empty platforms index"),
        ("image.name", "UPPER", "invalid image name"),
        ("annotation-blob.k", "v", "invalid annotation"),
    ] {
        let err = returned(vec![image(&[("name", "*")])], &[(key, value)]).unwrap_err();
        assert_eq!(err.code(), Code::InvalidArgument, "{key}");
        assert!(err.message().contains(why), "{key}: {}", err.message());
    }

    // Exporters' own attributes, and the time that a build argument sets.
    let mut llb = Llb::new();
    let file = llb.file(None, "/f", "f");
    let config = r#"{"architecture":"s390x","os":"linux","created":"2020-01-01T00:00:00Z","config":{}}"#;
    let solve = |epoch: &str, more: &[(&str, &str)]| {
        let exporters = vec![image(&[&[("name", "x"), ("containerimage.config", config)], more].concat())];
        let frontend_attrs = [("build-arg:SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned())].into();
        let definition = Some(llb.definition(&file));
        let request = SolveRequest {
            r#ref: "s".into(),
            exporters,
            definition,
            frontend_attrs,
            ..SolveRequest::default()
        };
        exported(&api.solve(request).unwrap()).1
    };
    let created = |descriptor: &Value| descriptor["annotations"]["org.opencontainers.image.created"].clone();
    let early = solve("1445412480", &[]);
    assert_eq!(created(&early), "2015-10-21T07:28:00Z");
    assert_eq!(early["platform"]["architecture"], "s390x");
    assert_eq!(early["digest"], solve("1445412480", &[])["digest"]);
    assert_eq!(created(&solve("1445412480", &[("source-date-epoch", "1")])), "1970-01-01T00:00:01Z");
    assert_ne!(created(&solve("context", &[])), "2015-10-21T07:28:00Z");
    assert_ne!(created(&solve("1445412480", &[("source-date-epoch", "")])), "2015-10-21T07:28:00Z");
}

#[test]
fn malformed_calls_are_refused_and_nothing_else_is_hurt() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let pid = scene.daemon.pid();
    scene.write("Dockerfile", "FROM base\nRUN sleep 3\n");
    let mut beside = scene.command(&["build", "--progress=plain", "."]).spawn().unwrap();
    let api = Api::connect(&scene.daemon);
    let mut llb = Llb::new();
    let base = base(&mut llb);
    let bad = |change: fn(&mut pb::ExecOp)| {
        let mut llb = llb.clone();
        let run = llb.run(&base, "true", change);
        llb.definition(&run)
    };
    let diff = {
        let mut llb = llb.clone();
        let half = pb::DiffOp { lower: Some(pb::LowerDiffInput { input: 0 }), upper: None };
        let diff = llb.op(&[&base], pb::op::Op::Diff(half));
        llb.definition(&diff)
    };
    let definitions = [
        bad(|e| e.meta = None),
        bad(|e| e.mounts.clear()),
        bad(|e| e.mounts[0].input = i64::MAX),
        bad(|e| e.mounts[0].input = -2),
        bad(|e| e.mounts[0].output = -7),
        bad(|e| e.security = 2),
        bad(|e| e.network = 9),
        bad(|e| e.mounts[0].mount_type = 77),
        diff,
        llb.definition(&base.output(3)),
        pb::Definition { def: vec![b"\xff\xff".as_slice().into()], ..pb::Definition::default() },
        pb::Definition { def: vec![bytes::Bytes::new()], ..pb::Definition::default() },
    ];
    let gateway = api.gateway("bad");
    for (i, definition) in definitions.into_iter().enumerate() {
        let direct = SolveRequest {
            r#ref: format!("bad-{i}"),
            definition: Some(definition.clone()),
            ..SolveRequest::default()
        };
        assert_eq!(api.solve(direct).unwrap_err().code(), Code::InvalidArgument, "{i}");
        assert_eq!(gateway.definition(definition).unwrap_err().code(), Code::InvalidArgument, "{i}");
    }
    let two_ways = SolveRequest {
        r#ref: "two".into(),
        definition: Some(llb.definition(&base)),
        frontend: "dockerfile.v0".into(),
        ..SolveRequest::default()
    };
    assert_eq!(api.solve(two_ways).unwrap_err().code(), Code::InvalidArgument);
    let privileged = bad(|e| e.security = 1);
    assert_eq!(gateway.definition(privileged).unwrap_err().code(), Code::PermissionDenied);

    // Nor within a definition that stands for another.
    let nested = |definition: pb::Definition| {
        let mut llb = Llb::new();
        let build = pb::BuildOp { builder: -1, def: Some(definition), ..pb::BuildOp::default() };
        let build = llb.op(&[], pb::op::Op::Build(build));
        llb.definition(&build)
    };
    let privileged = nested(nested(bad(|e| e.security = 1)));
    assert_eq!(gateway.definition(privileged.clone()).unwrap_err().code(), Code::PermissionDenied);
    let direct =
        SolveRequest { r#ref: "nested".into(), definition: Some(privileged), ..SolveRequest::default() };
    assert_eq!(api.solve(direct).unwrap_err().code(), Code::PermissionDenied);
    let host = nested(bad(|e| e.network = pb::NetMode::Host as i32));
    assert_eq!(gateway.definition(host).unwrap_err().code(), Code::PermissionDenied);

    // Calls that name nothing that exists.
    let mut bridge = api.bridge();
    let no_build = api.runtime.block_on(async { bridge.ping(gateway::PingRequest {}).await });
    assert_eq!(no_build.unwrap_err().code(), Code::InvalidArgument);
    let mut bridge = api.bridge();
    let read = gateway.request(gateway::ReadFileRequest { r#ref: "nope".into(), ..Default::default() });
    assert_eq!(
        api.runtime.block_on(async { bridge.read_file(read).await }).unwrap_err().code(),
        Code::NotFound
    );
    let mut bridge = api.bridge();
    let meta = gateway.request(gateway::ResolveSourceMetaRequest::default());
    assert!(api.runtime.block_on(async { bridge.resolve_source_meta(meta).await }).is_err());
    let mut bridge = api.bridge();
    let nothing = gateway.request(ReturnRequest::default());
    assert_eq!(
        api.runtime.block_on(async { bridge.r#return(nothing).await }).unwrap_err().code(),
        Code::InvalidArgument
    );
    gateway.end();

    assert!(beside.wait().unwrap().success(), "a build beside it finishes");
    assert!(scene.daemon.alive() && scene.daemon.pid() == pid);
}

#[test]
fn a_client_that_hangs_up_cancels_its_build() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let mut llb = Llb::new();
    let base = base(&mut llb);
    let run = llb.run(&base, "sleep 1000", |_| {});
    let request = SolveRequest {
        r#ref: "gone".into(),
        definition: Some(llb.definition(&run)),
        ..SolveRequest::default()
    };
    let mut control = api.control();
    let solve = api.runtime.spawn(async move { control.solve(request).await });
    let status = proto::control::StatusRequest { r#ref: "gone".into() };
    let mut control = api.control();
    let ended = api.runtime.block_on(async move {
        let mut messages = control.status(status).await.unwrap().into_inner();
        let mut aborted = false;
        while let Some(message) = messages.message().await.unwrap() {
            let started = message.vertexes.iter().any(|v| v.name.contains("sleep") && v.started.is_some());
            if started && !aborted {
                solve.abort();
                aborted = true;
            }
        }
        aborted
    });
    // The status ends with the build, and then no sandbox is left.
    assert!(ended);
    scene.check_sandboxes();
}
