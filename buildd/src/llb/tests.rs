//! Round trips and malformed input.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use proto::pb;
use solver::graph::{SourceInfo, SourceLocation, SourceRange, VertexMeta};
use solver::op::*;
use solver::{Digest, Edge, Graph, GraphBuilder, Op, Vertex, VertexId};

use super::*;

fn vertex(op: Op, inputs: &[(u32, u32)]) -> Vertex {
    let inputs = inputs.iter().map(|&(vertex, output)| Edge { vertex: VertexId(vertex), output }).collect();
    Vertex { op, inputs, platform: None, constraints: Vec::new(), meta: VertexMeta::default() }
}

fn source(identifier: &str) -> Op {
    Op::Source(SourceOp { identifier: identifier.into(), attrs: [("k".to_owned(), "v".to_owned())].into() })
}

fn mount(dest: &str, input: Option<usize>, output: Option<usize>, kind: MountKind) -> Mount {
    Mount {
        input,
        selector: String::new(),
        dest: dest.into(),
        output,
        readonly: false,
        kind,
        result_id: String::new(),
        content_cache: MountContentCache::Default,
    }
}

fn exec() -> Op {
    let secret = SecretMount { id: "s".into(), uid: 1, gid: 2, mode: 0o400, optional: true };
    let ssh = SshMount { id: "default".into(), uid: 0, gid: 0, mode: 0o600, optional: false };
    let cache = CacheMount { id: "c".into(), sharing: CacheSharing::Locked };
    Op::Exec(Box::new(ExecOp {
        meta: ExecMeta {
            args: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            env: ["A=b".into()].into(),
            cwd: "/src".into(),
            user: "me:us".into(),
            proxy_env: Some(ProxyEnv { http_proxy: "p".into(), ..ProxyEnv::default() }),
            extra_hosts: vec![HostIp { host: "h".into(), ip: "::1".into() }],
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: -1 }],
            valid_exit_codes: vec![0, 3],
            ..ExecMeta::default()
        },
        mounts: vec![
            mount("/", Some(0), Some(0), MountKind::Bind),
            mount("/out", None, Some(1), MountKind::Bind),
            mount("/cache", None, None, MountKind::Cache(cache)),
            mount("/tmp", None, None, MountKind::Tmpfs { size: 5 }),
            mount("/run/s", None, None, MountKind::Secret(secret)),
            mount("/run/ssh", None, None, MountKind::Ssh(ssh)),
        ],
        network: NetMode::None,
        security: SecurityMode::Insecure,
        secret_env: vec![SecretEnv { id: "e".into(), name: "E".into(), optional: false }],
        cdi_devices: vec![CdiDevice { name: "v/d=1".into(), optional: true }],
    }))
}

fn file() -> Op {
    let named = UserOpt::Name { name: "me".into(), input: ActionInput::Vertex(0) };
    let copy = CopyAction {
        src: "/a*".into(),
        dest: "/b/".into(),
        owner: Some(ChownOpt { user: Some(named), group: Some(UserOpt::Id(7)) }),
        mode: Some(0o644),
        exclude_patterns: vec!["*.o".into()],
        timestamp: Some(0),
        ..CopyAction::default()
    };
    let mkdir =
        MkDirAction { path: "/d".into(), mode: None, make_parents: true, owner: None, timestamp: None };
    let link = SymlinkAction { oldpath: "x".into(), newpath: "/y".into(), owner: None, timestamp: Some(5) };
    let mkfile =
        MkFileAction { path: "/f".into(), mode: Some(0), data: vec![0, 255], owner: None, timestamp: None };
    let rm = RmAction { path: "/r".into(), allow_not_found: true, allow_wildcard: false };
    let action = |input, secondary, output, kind| FileAction { input, secondary, output, kind };
    use ActionInput::{Action, Scratch, Vertex};
    Op::File(FileOp {
        actions: vec![
            action(Scratch, Scratch, None, FileActionKind::MkDir(mkdir)),
            action(Action(0), Vertex(1), None, FileActionKind::Copy(Box::new(copy))),
            action(Action(1), Scratch, None, FileActionKind::MkFile(mkfile)),
            action(Action(2), Scratch, Some(1), FileActionKind::Rm(rm)),
            action(Action(3), Scratch, Some(0), FileActionKind::Symlink(link)),
        ],
    })
}

/// A graph with every kind of op.
fn everything() -> Graph {
    let mut builder = GraphBuilder::new();
    let info = SourceInfo {
        filename: "Dockerfile".into(),
        language: "Dockerfile".into(),
        data: b"FROM x".to_vec(),
        definition: vec![b"op".to_vec()],
    };
    builder.add_source(info);
    let mut nested = GraphBuilder::new();
    nested.add(vertex(source("local://n"), &[])).unwrap();
    let nested = nested.finish(Some(Edge { vertex: VertexId(0), output: 0 }));
    let mut base = vertex(source("docker-image://docker.io/library/x:latest"), &[]);
    base.platform = Some(Platform {
        architecture: "arm".into(),
        os: "linux".into(),
        variant: "v7".into(),
        os_version: String::new(),
    });
    base.constraints = vec!["a==b".into()];
    base.meta.description.insert("llb.customname".into(), "[1/2] FROM x".into());
    base.meta.export_cache = Some(false);
    base.meta.ignore_cache = true;
    let range = SourceRange { start_line: 1, start_character: 0, end_line: 1, end_character: 6 };
    base.meta.locations = vec![SourceLocation { source: 0, ranges: vec![range] }];
    let build = BuildOp {
        builder: None,
        inputs: [("i".to_owned(), 0)].into(),
        definition: Some(Box::new(nested)),
        attrs: Default::default(),
    };
    for v in [
        base,
        vertex(source("local://context"), &[]),
        vertex(exec(), &[(0, 0)]),
        vertex(file(), &[(2, 1), (1, 0)]),
        vertex(Op::Merge(MergeOp { inputs: vec![Some(0), None, Some(1)] }), &[(2, 0), (3, 1)]),
        vertex(Op::Diff(DiffOp { lower: None, upper: Some(0) }), &[(4, 0)]),
        vertex(Op::Build(build), &[(5, 0)]),
        vertex(Op::Passthrough(PassthroughOp { id: "p".into(), outputs: vec![1, 0] }), &[(6, 0), (3, 0)]),
    ] {
        builder.add(v).unwrap();
    }
    builder.finish(Some(Edge { vertex: VertexId(7), output: 1 }))
}

/// The graph without the digests that LLB gave it, and with vertices in a fixed order.
fn bare(graph: &Graph) -> Graph {
    let mut builder = GraphBuilder::new();
    for v in graph.vertices() {
        let mut v = v.clone();
        v.meta.llb_digest = None;
        if let Op::Build(build) = &mut v.op {
            build.definition = build.definition.take().map(|g| Box::new(bare(&g)));
        }
        builder.add(v).unwrap();
    }
    for info in &graph.sources {
        builder.add_source(info.clone());
    }
    builder.finish(graph.head)
}

#[test]
fn every_op_survives_the_round_trip() {
    let graph = everything();
    let definition = to_definition(&graph);
    let back = from_definition(&definition).unwrap();
    // Vertices come back in the order in which the head needs them.
    let sorted = |mut definition: pb::Definition| {
        definition.def.sort();
        definition
    };
    assert_eq!(sorted(to_definition(&back)), sorted(definition));
    assert_eq!(back.vertices().len(), graph.vertices().len());
    let digests = vertex_digests(&graph);
    assert_eq!(digests.len(), graph.vertices().len());
    for v in back.vertices() {
        let at = digests.iter().position(|d| Some(*d) == v.meta.llb_digest).unwrap();
        assert_eq!(bare_op(&v.op), graph.vertices()[at].op);
        assert_eq!(v.platform, graph.vertices()[at].platform);
        assert_eq!(v.meta.locations, graph.vertices()[at].meta.locations);
        assert_eq!(v.meta.description, graph.vertices()[at].meta.description);
    }
    assert_eq!(back.sources, graph.sources);
    assert_eq!(vertex_digests(&back).len(), digests.len());
}

fn bare_op(op: &Op) -> Op {
    let mut builder = GraphBuilder::new();
    let mut v = vertex(op.clone(), &[]);
    v.inputs.clear();
    builder.add(v).unwrap();
    bare(&builder.finish(None)).vertices()[0].op.clone()
}

#[test]
fn names_of_vertices() {
    let graph = everything();
    let names: Vec<_> = graph.vertices().iter().map(vertex_name).collect();
    assert_eq!(names[0], "[1/2] FROM x");
    assert_eq!(names[1], "local://context");
    assert_eq!(names[2], "/bin/sh -c make");
    assert_eq!(names[3], "mkdir /d, copy /a* /b/, mkfile /f, rm /r, symlink /y -> x");
}

/// A digest that BuildKit gives for the same op: `llb.Image("alpine").Marshal`'s first op.
#[test]
fn digests_are_of_the_canonical_bytes() {
    let mut builder = GraphBuilder::new();
    let op = Op::Source(SourceOp { identifier: "docker-image://a".into(), attrs: Default::default() });
    builder.add(vertex(op, &[])).unwrap();
    let graph = builder.finish(Some(Edge { vertex: VertexId(0), output: 0 }));
    // Field 3 (source) with field 1 (identifier), by hand from the protobuf encoding.
    let bytes = [&[0x1a, 18, 0x0a, 16][..], b"docker-image://a"].concat();
    assert_eq!(vertex_digests(&graph), [Digest::of(&bytes)]);
    assert_eq!(to_definition(&graph).def[0], bytes);
}

#[test]
fn scratch_is_the_empty_definition() {
    let empty = to_definition(&Graph::default());
    assert_eq!(empty, pb::Definition::default());
    assert_eq!(from_definition(&empty), Err(LlbError::Empty));
}

fn definition(ops: Vec<pb::Op>) -> pb::Definition {
    let mut def: Vec<Bytes> = Vec::new();
    let mut last = None;
    for mut op in ops {
        // An input without digest means the op before.
        for input in op.inputs.iter_mut().filter(|i| i.digest.is_empty()) {
            input.digest = last.map(|d: Digest| d.to_string()).unwrap_or_default();
        }
        let bytes: Bytes = op.encode_to_vec().into();
        last = Some(Digest::of(&bytes));
        def.push(bytes);
    }
    pb::Definition { def, ..pb::Definition::default() }
}

fn previous(index: i64) -> pb::Input {
    pb::Input { digest: String::new(), index }
}

/// A source, an op that takes it, and the terminal op.
fn with(op: pb::op::Op) -> pb::Definition {
    let source = pb::SourceOp { identifier: "local://x".into(), ..Default::default() };
    definition(vec![
        pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() },
        pb::Op { inputs: vec![previous(0)], op: Some(op), ..Default::default() },
        pb::Op { inputs: vec![previous(0)], ..Default::default() },
    ])
}

fn exec_with(change: impl FnOnce(&mut pb::ExecOp)) -> pb::Definition {
    let root = pb::Mount { dest: "/".into(), ..Default::default() };
    let meta = pb::Meta { args: vec!["x".into()], cwd: "/".into(), ..Default::default() };
    let mut exec = pb::ExecOp { meta: Some(meta), mounts: vec![root], ..Default::default() };
    change(&mut exec);
    with(pb::op::Op::Exec(exec))
}

fn file_with(change: impl FnOnce(&mut pb::FileAction)) -> pb::Definition {
    let rm = pb::FileActionRm { path: "/x".into(), ..Default::default() };
    let action = pb::file_action::Action::Rm(rm);
    let mut action = pb::FileAction { action: Some(action), secondary_input: -1, ..Default::default() };
    change(&mut action);
    with(pb::op::Op::File(pb::FileOp { actions: vec![action] }))
}

#[test]
fn the_samples_below_are_well_formed() {
    assert!(from_definition(&exec_with(|_| {})).is_ok());
    assert!(from_definition(&file_with(|_| {})).is_ok());
}

#[test]
fn locations_that_say_nothing() {
    let full = || pb::Locations { locations: vec![pb::Location::default()] };
    let source = |infos| pb::Source {
        locations: [("full".to_owned(), full()), ("empty".to_owned(), pb::Locations::default())].into(),
        infos,
    };
    let nested = pb::Definition { source: Some(source(vec![])), ..Default::default() };
    let info = pb::SourceInfo { definition: Some(nested), ..Default::default() };
    let cleaned =
        without_empty_locations(pb::Definition { source: Some(source(vec![info])), ..Default::default() });
    let names = |source: &pb::Source| source.locations.keys().cloned().collect::<Vec<_>>();
    let source = cleaned.source.unwrap();
    assert_eq!(names(&source), ["full"]);
    assert_eq!(names(source.infos[0].definition.as_ref().unwrap().source.as_ref().unwrap()), ["full"]);
}

#[test]
fn malformed_definitions() {
    let garbage = pb::Definition { def: vec![Bytes::from_static(b"\xff\xff\xff")], ..Default::default() };
    let no_result = definition(vec![pb::Op::default()]);
    let missing = definition(vec![pb::Op {
        inputs: vec![pb::Input { digest: "sha256:00".into(), index: 0 }],
        ..Default::default()
    }]);
    let no_op =
        definition(vec![pb::Op::default(), pb::Op { inputs: vec![previous(0)], ..Default::default() }]);
    let mut location = exec_with(|_| {});
    let digest = Digest::of(&location.def[1]).to_string();
    let locations = pb::Locations { locations: vec![pb::Location { source_index: 3, ranges: vec![] }] };
    location.source = Some(pb::Source { locations: [(digest, locations)].into(), infos: vec![] });
    let mut errors = String::new();
    for bad in [garbage, no_result, missing, no_op, location] {
        errors.push_str(&from_definition(&bad).unwrap_err().to_string());
        errors.push('\n');
    }
    assert_eq!(errors.lines().count(), 5, "{errors}");
    for part in
        ["cannot be decoded", "no inputs", "missing input digest `sha256:00`", "no op", "does not exist"]
    {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn secrets_have_no_output() {
    // BuildKit's own client leaves the number of the output at zero, which is the root's.
    let mounts = |exec: &mut pb::ExecOp| {
        let secret = pb::Mount {
            dest: "/run/secrets/x".into(),
            input: -1,
            mount_type: pb::MountType::Secret.into(),
            secret_opt: Some(pb::SecretOpt { id: "x".into(), ..Default::default() }),
            ..Default::default()
        };
        let ssh = pb::Mount {
            dest: "/run/agent".into(),
            mount_type: pb::MountType::Ssh.into(),
            ssh_opt: Some(pb::SshOpt::default()),
            ..secret.clone()
        };
        exec.mounts.extend([secret, ssh]);
    };
    let graph = from_definition(&exec_with(mounts)).unwrap();
    let exec = graph.vertices().iter().find_map(|vertex| match &vertex.op {
        Op::Exec(exec) => Some(exec),
        _ => None,
    });
    let outputs: Vec<_> = exec.unwrap().mounts.iter().map(|mount| mount.output).collect();
    assert_eq!(outputs, [Some(0), None, None]);
}

#[test]
fn steps_as_provenance_tells_them() {
    let graph = from_definition(&exec_with(|_| {})).unwrap();
    let told = super::steps(&graph);
    let last = told.steps.len() - 1;
    let run = &told.steps[last - 1];
    assert_eq!(run["id"], format!("step{}", last - 1));
    assert_eq!(run["op"]["Op"]["exec"]["meta"]["args"], serde_json::json!(["x"]));
    assert_eq!(run["op"]["Op"]["exec"]["mounts"], serde_json::json!([{ "dest": "/" }]), "no zeros");
    assert_eq!(told.steps[last]["inputs"], serde_json::json!([format!("step{}:0", last - 1)]));
    assert_eq!(told.names.len(), told.steps.len());
    assert!(super::steps(&Default::default()).steps.is_empty());
}

#[test]
fn malformed_ops() {
    type Change = fn(&mut pb::ExecOp);
    let execs: [(Change, &str); 16] = [
        (|e| e.meta = None, "no meta"),
        (|e| e.meta.as_mut().unwrap().args.clear(), "no args"),
        (|e| e.meta.as_mut().unwrap().args[0].push('\0'), "argument holds a NUL byte"),
        (|e| e.meta.as_mut().unwrap().cwd = "x".into(), "working directory `x` is not absolute"),
        (|e| e.mounts.clear(), "no root mount"),
        (|e| e.mounts[0].dest = "/x".into(), "no root mount"),
        (|e| e.mounts[0].dest.clear(), "no mount destination"),
        (|e| e.mounts[0].input = 1, "input 1 does not exist"),
        (|e| e.mounts[0].input = -2, "input -2 does not exist"),
        (|e| e.mounts[0].output = i64::MAX, "output 9223372036854775807 does not exist"),
        (|e| e.mounts.push(e.mounts[0].clone()), "output 0 is made twice"),
        (|e| e.mounts[0].mount_type = 9, "invalid mount type 9"),
        (|e| e.mounts[0].mount_type = 3, "no cache mount options"),
        (|e| e.network = -1, "invalid network mode -1"),
        (|e| e.security = 2, "invalid security mode 2"),
        (
            |e| {
                e.mounts[0].mount_type = pb::MountType::Secret.into();
                e.mounts[0].secret_opt = Some(pb::SecretOpt::default());
            },
            "the root mount cannot be a secret or an ssh agent",
        ),
    ];
    for (change, message) in execs {
        let err = from_definition(&exec_with(change)).unwrap_err().to_string();
        assert!(err.ends_with(message), "{message}: {err}");
    }
    type FileChange = fn(&mut pb::FileAction);
    let files: [(FileChange, &str); 4] = [
        (|a| a.action = None, "no action"),
        (|a| a.input = 1, "input 1 does not exist"),
        (|a| a.output = -7, "output -7 does not exist"),
        (
            |a| {
                let dir = pb::FileActionMkDir { mode: -5, ..Default::default() };
                a.action = Some(pb::file_action::Action::Mkdir(dir));
            },
            "mode -5 is out of range",
        ),
    ];
    for (change, message) in files {
        let err = from_definition(&file_with(change)).unwrap_err().to_string();
        assert!(err.ends_with(message), "{message}: {err}");
    }
    let pass = |outputs| pb::op::Op::Passthrough(pb::PassthroughOp { id: "x".into(), outputs });
    let others = [
        (pb::op::Op::Source(pb::SourceOp::default()), "no source identifier"),
        (pb::op::Op::File(pb::FileOp::default()), "no actions"),
        (pb::op::Op::Merge(pb::MergeOp::default()), "no inputs"),
        (pb::op::Op::Diff(pb::DiffOp::default()), "no lower input"),
        (pass(vec![]), "no outputs"),
        (pass(vec![-1]), "input -1 does not exist"),
    ];
    for (op, message) in others {
        let err = from_definition(&with(op)).unwrap_err().to_string();
        assert!(err.ends_with(message), "{message}: {err}");
    }
}

#[test]
fn outputs_that_are_not_made() {
    let source = pb::SourceOp { identifier: "local://x".into(), ..Default::default() };
    for index in [1, -1, i64::MAX] {
        let bad = definition(vec![
            pb::Op { op: Some(pb::op::Op::Source(source.clone())), ..Default::default() },
            pb::Op { inputs: vec![previous(index)], ..Default::default() },
        ]);
        let err = from_definition(&bad).unwrap_err().to_string();
        assert!(err.ends_with(&format!("output {index} does not exist")), "{err}");
    }
}

#[test]
fn parts_are_bounded() {
    let too_many = decode::MAX_PARTS + 1;
    let mounts = exec_with(|e| {
        let mount = |i: usize| pb::Mount { dest: "/".into(), output: i as i64, ..Default::default() };
        e.mounts = (0..too_many).map(mount).collect();
    });
    let action = pb::FileActionRm { path: "/x".into(), ..Default::default() };
    let action = |i: usize| pb::FileAction {
        action: Some(pb::file_action::Action::Rm(action.clone())),
        input: 0,
        secondary_input: -1,
        output: i as i64,
    };
    let file = pb::FileOp { actions: (0..too_many).map(action).collect() };
    let actions = with(pb::op::Op::File(file));
    for (bad, what) in [(mounts, "mounts"), (actions, "actions")] {
        let err = from_definition(&bad).unwrap_err().to_string();
        assert!(err.contains(&format!("{too_many} {what}, more than")), "{err}");
    }
}

#[test]
fn nesting_is_bounded() {
    let source = pb::SourceOp { identifier: "local://x".into(), ..Default::default() };
    let mut inner = with(pb::op::Op::Source(source));
    for _ in 0..9 {
        let build = pb::BuildOp { builder: -1, def: Some(inner), ..Default::default() };
        inner = with(pb::op::Op::Build(build));
    }
    assert_eq!(from_definition(&inner), Err(LlbError::TooDeep(8)));
}

#[test]
fn long_chains_do_not_recurse() {
    let source = pb::SourceOp { identifier: "local://x".into(), ..Default::default() };
    let mut ops = vec![pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }];
    for _ in 0..20_000 {
        let merge = pb::MergeOp { inputs: vec![pb::MergeInput { input: 0 }] };
        ops.push(pb::Op {
            inputs: vec![previous(0)],
            op: Some(pb::op::Op::Merge(merge)),
            ..Default::default()
        });
    }
    ops.push(pb::Op { inputs: vec![previous(0)], ..Default::default() });
    assert_eq!(from_definition(&definition(ops)).unwrap().vertices().len(), 20_001);
}

proptest! {
    /// Whatever bytes come, and whichever byte of a good op is changed: an answer, no panic.
    #[test]
    fn damage_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), op in any::<prop::sample::Index>()) {
        let mut definition = to_definition(&everything());
        let index = op.index(definition.def.len());
        let mut bytes = definition.def[index].to_vec();
        let position = at.index(bytes.len());
        bytes[position] = byte;
        // The damaged op as the one that the result is taken from, as its digest has changed.
        let bytes: Bytes = bytes.into();
        let input = pb::Input { digest: Digest::of(&bytes).to_string(), index: 0 };
        definition.def.push(bytes);
        definition.def.push(pb::Op { inputs: vec![input], ..Default::default() }.encode_to_vec().into());
        if let Ok(graph) = from_definition(&definition) {
            // What is accepted can be written and read again.
            let again = from_definition(&to_definition(&graph)).unwrap();
            prop_assert_eq!(again.vertices().len(), graph.vertices().len());
        }
    }

    #[test]
    fn garbage_never_panics(def in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..4)) {
        let definition = pb::Definition { def: def.into_iter().map(Bytes::from).collect(), ..Default::default() };
        let _ = from_definition(&definition);
    }
}
