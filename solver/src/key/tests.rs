//! Golden digests, and what does and does not change a key.

use super::*;
use crate::graph::{Edge, VertexId, VertexMeta};
use crate::op::*;

fn vertex(op: Op, inputs: usize) -> Vertex {
    let inputs = (0..inputs).map(|i| Edge { vertex: VertexId(i as u32), output: 0 }).collect();
    Vertex { op, inputs, platform: None, constraints: vec![], meta: VertexMeta::default() }
}

fn op_digest(v: &Vertex) -> Digest {
    super::op_digest(v, &input_uses(v))
}

fn bind(input: Option<usize>, dest: &str) -> Mount {
    Mount {
        input,
        selector: String::new(),
        dest: dest.into(),
        output: (dest == "/").then_some(0),
        readonly: false,
        kind: MountKind::Bind,
        result_id: String::new(),
        content_cache: MountContentCache::Default,
    }
}

fn run(edit: impl FnOnce(&mut ExecOp)) -> Vertex {
    let mut e = ExecOp {
        meta: ExecMeta {
            args: vec!["sh".into(), "-c".into(), "make".into()],
            cwd: "/".into(),
            ..ExecMeta::default()
        },
        mounts: vec![bind(Some(0), "/")],
        network: NetMode::Unset,
        security: SecurityMode::Sandbox,
        secret_env: vec![],
        cdi_devices: vec![],
    };
    edit(&mut e);
    vertex(Op::Exec(Box::new(e)), 2)
}

fn copy(edit: impl FnOnce(&mut CopyAction)) -> Vertex {
    let mut c = CopyAction { src: "/a/b".into(), dest: "/x/".into(), ..CopyAction::default() };
    edit(&mut c);
    let action = FileAction {
        input: ActionInput::Vertex(0),
        secondary: ActionInput::Vertex(1),
        output: Some(0),
        kind: FileActionKind::Copy(Box::new(c)),
    };
    vertex(Op::File(FileOp { actions: vec![action] }), 2)
}

fn cache(id: &str, sharing: CacheSharing) -> Mount {
    Mount { kind: MountKind::Cache(CacheMount { id: id.into(), sharing }), ..bind(None, "/c") }
}

#[test]
fn golden() {
    let d = Digest::of(b"in");
    let keys = [
        op_digest(&run(|_| ())),
        op_digest(&copy(|_| ())),
        definition_key(&d, &[d, d]).0,
        content_key(&d, &[d, d]).0,
    ];
    let want = [
        "1adc95df4b44223c12854541a2212f35028d72899aa61a624636ac404d0c00c7",
        "fdabfd24b1fdbdc050632077c3a9c2a57f76dd8f4b7cbb5643dd53f7986ec15a",
        "980e2de60a6ea4f7aca5871fd75db10ce51f106c918b5e365e2312d8ba7cd23f",
        "2cd9b94cfe127dcc1f6c40030ea7b86832d23db741bbc448692a761485b35bcf",
    ];
    // A change here empties every cache on disk: raise the domain's version instead of the digest where that is meant.
    assert_eq!(keys.map(|k| k.hex()), want);
}

#[test]
fn what_a_sandbox_can_see_counts() {
    let base = op_digest(&run(|_| ()));
    let edits: [fn(&mut ExecOp); 9] = [
        |e| e.meta.args.push("x".into()),
        |e| e.meta.env = ["A=1".into()].into(),
        |e| e.meta.cwd = "/w".into(),
        |e| e.meta.user = "1".into(),
        |e| e.meta.hostname = "h".into(),
        |e| e.meta.extra_hosts.push(HostIp { host: "h".into(), ip: "1.2.3.4".into() }),
        |e| e.network = NetMode::None,
        |e| e.security = SecurityMode::Insecure,
        |e| e.mounts.push(cache("a", CacheSharing::Shared)),
    ];
    for (i, edit) in edits.into_iter().enumerate() {
        assert_ne!(op_digest(&run(edit)), base, "edit {i}");
    }
}

#[test]
fn what_must_not_change_a_result_does_not_count() {
    let with = |m: Mount| op_digest(&run(|e| e.mounts.push(m)));
    assert_eq!(with(cache("a", CacheSharing::Shared)), with(cache("b", CacheSharing::Locked)));
    let base = op_digest(&run(|_| ()));
    assert_eq!(op_digest(&run(|e| e.meta.proxy_env = Some(ProxyEnv::default()))), base);
    let host =
        |ip: &str| op_digest(&run(|e| e.meta.extra_hosts.push(HostIp { host: "h".into(), ip: ip.into() })));
    assert_eq!(host("1.1.1.1"), host("2.2.2.2"));
    let order = |a: &str, b: &str| op_digest(&run(|e| e.mounts.extend([bind(Some(1), a), bind(Some(1), b)])));
    assert_eq!(order("/m", "/n"), order("/n", "/m"));
}

#[test]
fn a_copy_counts_the_last_name_of_its_source_only() {
    assert_eq!(op_digest(&copy(|c| c.src = "/z/b".into())), op_digest(&copy(|_| ())));
    assert_ne!(op_digest(&copy(|c| c.src = "/a/c".into())), op_digest(&copy(|_| ())));
}

#[test]
fn uses() {
    let [base, from] = &input_uses(&copy(|c| c.allow_wildcard = true))[..] else { panic!("two inputs") };
    assert_eq!(*base, Use::Rootfs);
    assert_eq!(
        *from,
        Use::Selected(vec![Selection { path: "/a/b".into(), wildcard: true, ..Selection::default() }])
    );

    let ro = Mount { readonly: true, selector: "/src".into(), ..bind(Some(1), "/m") };
    let v = run(|e| e.mounts.push(ro));
    assert_eq!(
        input_uses(&v)[1],
        Use::Selected(vec![Selection { path: "/src".into(), follow_symlink: true, ..Selection::default() }])
    );

    let kept = Mount { output: Some(1), ..bind(Some(1), "/m") };
    assert_eq!(input_uses(&run(|e| e.mounts.push(kept)))[1], Use::Rootfs);
}

/// RUN with read-only binds of `(input, source, target)`.
fn binds(list: &[(usize, &str, &str)]) -> Vertex {
    let mount = |&(input, source, dest): &(usize, &str, &str)| Mount {
        selector: source.into(),
        readonly: true,
        ..bind(Some(input), dest)
    };
    run(|e| e.mounts.extend(list.iter().map(mount)))
}

#[test]
fn each_mount_counts_with_what_it_shows() {
    let digest = |list: &[(usize, &str, &str)]| op_digest(&binds(list));
    // The content key holds what `/a` and `/b` of input 1 contain, in this order; the op says which is where.
    let third = |source| digest(&[(1, "/a", "/m"), (1, "/b", "/n"), (1, source, "/o")]);
    assert_ne!(third("/a"), third("/b"));
    // Other paths of equal content show the same.
    assert_eq!(digest(&[(1, "/a", "/m")]), digest(&[(1, "/b", "/m")]));
    // Input 0 is the root, so it counts whole, and the path with it.
    assert_ne!(digest(&[(0, "/a", "/m")]), digest(&[(0, "/b", "/m")]));
    // Not the order in which they are given.
    let swapped = [binds(&[(1, "/a", "/m"), (1, "/b", "/n")]), binds(&[(1, "/b", "/n"), (1, "/a", "/m")])];
    assert_eq!(op_digest(&swapped[0]), op_digest(&swapped[1]));
    assert_eq!(input_uses(&swapped[0]), input_uses(&swapped[1]));

    let kept = |source: &str| {
        run(|e| {
            e.mounts.push(Mount { output: Some(1), selector: source.into(), ..bind(Some(1), "/m") });
        })
    };
    assert_ne!(op_digest(&kept("/a")), op_digest(&kept("/b")), "changes live on, so the input counts whole");
}

#[test]
fn each_copy_counts_with_what_it_takes() {
    let copies = |sources: &[(usize, &str)]| {
        let action = |(i, (input, src)): (usize, &(usize, &str))| FileAction {
            input: if i == 0 { ActionInput::Vertex(0) } else { ActionInput::Action(i - 1) },
            secondary: ActionInput::Vertex(*input),
            output: (i + 1 == sources.len()).then_some(0),
            kind: FileActionKind::Copy(Box::new(CopyAction {
                src: (*src).into(),
                dest: "/d".into(),
                ..CopyAction::default()
            })),
        };
        let actions = sources.iter().enumerate().map(action).collect();
        op_digest(&vertex(Op::File(FileOp { actions }), 2))
    };
    // The last one wins.
    assert_ne!(
        copies(&[(1, "/a/f"), (1, "/b/f"), (1, "/a/f")]),
        copies(&[(1, "/a/f"), (1, "/b/f"), (1, "/b/f")])
    );
    assert_eq!(copies(&[(1, "/a/f")]), copies(&[(1, "/b/f")]));
    assert_ne!(copies(&[(0, "/a/f")]), copies(&[(0, "/b/f")]), "from its own base, which counts whole");
}

#[test]
fn a_definition_counts_with_what_is_used_of_it() {
    let stage = Key(Digest::of(b"stage"));
    let edges = |v: &Vertex| edge_digest(&stage, 0, &input_uses(v)[1]);
    assert_ne!(edges(&binds(&[(1, "/a", "/m")])), edges(&binds(&[(1, "/b", "/m")])));
    assert_ne!(edges(&copy(|_| ())), edges(&copy(|c| c.src = "/z/b".into())));
    assert_ne!(edges(&copy(|_| ())), edges(&copy(|c| c.required_paths.push("x".into()))));
    assert_eq!(
        edges(&copy(|_| ())),
        edges(&copy(|c| c.dest = "/y".into())),
        "the op's own part is in the op"
    );
}

#[test]
fn layers_count_where_they_are_stacked() {
    let merge = vertex(Op::Merge(MergeOp { inputs: vec![None, Some(0), Some(1)] }), 2);
    assert_eq!(input_uses(&merge), [Use::Rootfs, Use::Layers], "nothing lies below the first");
    let diff = vertex(Op::Diff(DiffOp { lower: Some(0), upper: Some(1) }), 2);
    assert_eq!(input_uses(&diff), [Use::Layers, Use::Layers]);
    let (empty, layer) = (Digest::of(b""), |n: &[u8]| LayerId(Digest::of(n)));
    // Both hold no file; one hides `f` of what it is stacked on, the other `g`.
    assert_ne!(layers_digest(&empty, &[layer(b"no f")]), layers_digest(&empty, &[layer(b"no g")]));
}

#[test]
fn a_nested_build_counts_with_its_graph() {
    let nested = |args: &str| {
        let mut g = crate::graph::GraphBuilder::new();
        let v = vertex(run(|e| e.meta.args.push(args.into())).op, 0);
        let id = g.add(v).unwrap();
        let graph = g.finish(Some(Edge { vertex: id, output: 0 }));
        let build = BuildOp {
            builder: None,
            inputs: BTreeMap::new(),
            definition: Some(Box::new(graph)),
            attrs: BTreeMap::new(),
        };
        op_digest(&vertex(Op::Build(build), 0))
    };
    assert_eq!(nested("a"), nested("a"));
    assert_ne!(nested("a"), nested("b"));
}

#[test]
fn each_field_counts_for_itself() {
    let fields = |v: &Vertex| op_fields(v, &input_uses(v));
    let differing = |a: &Vertex, b: &Vertex| -> Vec<String> {
        let (a, b) = (fields(a), fields(b));
        let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        names.into_iter().filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
    };
    let env = |list: &[&str]| run(|e| e.meta.env = list.iter().map(|&e| e.into()).collect());
    let plain = run(|_| {});
    assert_eq!(differing(&plain, &run(|e| e.meta.args[2] = "other".into())), ["command"]);
    assert_eq!(differing(&plain, &run(|e| e.meta.cwd = "/x".into())), ["workdir"]);
    assert_eq!(differing(&plain, &run(|e| e.network = NetMode::None)), ["network"]);
    assert_eq!(differing(&plain, &run(|e| e.mounts.push(cache("c", CacheSharing::Shared)))), ["mount./c"]);
    assert_eq!(differing(&env(&["A=1", "B=1"]), &env(&["A=2", "C=1", "B=1"])), ["env.A", "env.C"]);
    // In another order each is what it was, and the whole is not.
    let (one, other) = (env(&["A=1", "B=1"]), env(&["B=1", "A=1"]));
    assert_eq!(differing(&one, &other), [""; 0]);
    assert_ne!(op_digest(&one), op_digest(&other));
    assert_eq!(differing(&copy(|_| {}), &copy(|c| c.dest = "/y/".into())), ["0.path"]);
    assert_eq!(differing(&copy(|_| {}), &copy(|c| c.mode = Some(0o644))), ["0.chmod"]);
}
