//! Golden digests, and what does and does not change a key.

use super::*;
use crate::graph::{Edge, VertexId, VertexMeta};
use crate::op::*;

fn vertex(op: Op, inputs: usize) -> Vertex {
    let inputs = (0..inputs).map(|i| Edge { vertex: VertexId(i as u32), output: 0 }).collect();
    Vertex { op, inputs, platform: None, constraints: vec![], meta: VertexMeta::default() }
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
        "726821225928c1ae302df7410b59239aa29a08583751e4180b6ac1c43239231f",
        "2082236a1ea0389388bc04cef1d1d3342b7377eae2c7ad6fcc8f0262751cb21b",
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
        |e| e.meta.env.push("A=1".into()),
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
