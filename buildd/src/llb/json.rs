//! Graphs as provenance attestations hold them: LLB's ops in the JSON that BuildKit writes (`solver/pb/json.go` and Go's
//! rules for the generated structs: names as in the `.proto` file, nothing that is zero, enums as numbers, bytes in base64).

use std::collections::BTreeMap;

use base64::Engine as _;
use proto::pb;
use serde_json::{Map, Value, json};
use solver::op::attr;
use solver::{Digest, Graph};

use super::definition::{location, wire_op};
use super::vertex_digests;

/// A graph's steps under the names `step0`, `step1`, … in the order in which a walk from the head leaves them.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    /// One JSON object per step; the last one is the head itself.
    pub steps: Vec<Value>,
    /// The steps' names by LLB digest.
    pub names: BTreeMap<String, String>,
    /// The lines of the source files that steps come from, by step.
    pub locations: Map<String, Value>,
}

/// What a graph is made of; nothing for scratch.
pub fn steps(graph: &Graph) -> Steps {
    let mut made = Steps::default();
    let Some(head) = graph.head else { return made };
    let digests = vertex_digests(graph);
    let mut numbers: Vec<Option<usize>> = vec![None; graph.vertices().len()];
    // Depth first, inputs before users, without recursion: a graph may be as deep as a message is long.
    let mut order = Vec::new();
    let mut todo = vec![(head.vertex, false)];
    while let Some((id, inputs_done)) = todo.pop() {
        if numbers[id.index()].is_some() {
            continue;
        }
        if inputs_done {
            numbers[id.index()] = Some(order.len());
            order.push(id);
            continue;
        }
        todo.push((id, true));
        todo.extend(graph.vertex(id).inputs.iter().rev().map(|edge| (edge.vertex, false)));
    }
    let name = |number: usize| format!("step{number}");
    for (number, id) in order.iter().enumerate() {
        let vertex = graph.vertex(*id);
        let inputs = vertex
            .inputs
            .iter()
            .filter_map(|edge| Some(format!("{}:{}", name(numbers[edge.vertex.index()]?), edge.output)));
        let inputs: Vec<String> = inputs.collect();
        let mut step = object([("id", name(number).into()), ("op", op(wire_op(vertex)))]);
        if !inputs.is_empty() {
            step.insert("inputs".to_owned(), inputs.into());
        }
        made.steps.push(Value::Object(step));
        made.names.insert(digests[id.index()].to_string(), name(number));
        let all: Vec<Value> = vertex.meta.locations.iter().map(|l| of_location(&location(l))).collect();
        made.locations.insert(name(number), some([("locations", all.into())]));
    }
    let terminal = json!({
        "id": name(order.len()),
        "op": { "Op": {} },
        "inputs": [format!("{}:{}", name(order.len() - 1), head.output)],
    });
    made.steps.push(terminal);
    made.names.insert(terminal_digest(graph, &digests).to_string(), name(order.len()));
    made
}

/// The digest of the op without content that ends a definition.
fn terminal_digest(graph: &Graph, digests: &[Digest]) -> Digest {
    use prost::Message as _;
    let input = graph.head.map(|head| pb::Input {
        digest: digests[head.vertex.index()].to_string(),
        index: head.output.into(),
    });
    Digest::of(&pb::Op { inputs: input.into_iter().collect(), ..pb::Op::default() }.encode_to_vec())
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().filter(|(_, value)| !is_zero(value)).map(|(k, v)| (k.to_owned(), v)).collect()
}

/// An object without the fields that are zero.
pub(super) fn some<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(object(fields))
}

/// What Go's `omitempty` leaves out; an object stays, as a pointer to a struct does.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(_) => false,
    }
}

fn op(mut given: pb::Op) -> Value {
    use pb::op::Op;
    let inner = match given.op.take() {
        Some(Op::Exec(op)) => ("exec", exec(op)),
        Some(Op::Source(op)) => ("source", source(op)),
        Some(Op::File(op)) => ("file", some([("actions", list(op.actions, action))])),
        Some(Op::Merge(op)) => ("merge", merge(op)),
        Some(Op::Diff(op)) => ("diff", diff(&op)),
        Some(Op::Build(op)) => ("build", some([("builder", op.builder.into()), ("attrs", texts(op.attrs))])),
        Some(Op::Passthrough(op)) => ("passthrough", passthrough(op)),
        None => ("", Value::Null),
    };
    some([
        ("Op", some([inner])),
        ("platform", given.platform.map_or(Value::Null, platform)),
        ("constraints", given.constraints.map_or(Value::Null, |c| some([("filter", c.filter.into())]))),
    ])
}

fn list<T>(items: Vec<T>, one: impl Fn(T) -> Value) -> Value {
    items.into_iter().map(one).collect::<Vec<_>>().into()
}

fn texts(map: BTreeMap<String, String>) -> Value {
    match map.is_empty() {
        true => Value::Null,
        false => map.into_iter().map(|(k, v)| (k, Value::from(v))).collect::<Map<_, _>>().into(),
    }
}

fn platform(p: pb::Platform) -> Value {
    some([
        ("Architecture", p.architecture.into()),
        ("OS", p.os.into()),
        ("Variant", p.variant.into()),
        ("OSVersion", p.os_version.into()),
        ("OSFeatures", p.os_features.into()),
    ])
}

/// Without what differs from session to session, and without the credentials of URLs: it becomes part of images.
fn source(mut op: pb::SourceOp) -> Value {
    op.attrs.remove(attr::LOCAL_SESSION_ID);
    op.attrs.remove(attr::LOCAL_UNIQUE_ID);
    op.attrs.values_mut().for_each(|value| *value = solver::redacted(value).into_owned());
    some([("identifier", solver::redacted(&op.identifier).into()), ("attrs", texts(op.attrs))])
}

pub(super) fn exec(op: pb::ExecOp) -> Value {
    let secret = |s: pb::SecretEnv| {
        some([("ID", s.id.into()), ("name", s.name.into()), ("optional", s.optional.into())])
    };
    let device = |d: pb::CdiDevice| some([("name", d.name.into()), ("optional", d.optional.into())]);
    some([
        ("meta", op.meta.map_or(Value::Null, meta)),
        ("mounts", list(op.mounts, mount)),
        ("network", op.network.into()),
        ("security", op.security.into()),
        ("secretenv", list(op.secretenv, secret)),
        ("cdiDevices", list(op.cdi_devices, device)),
    ])
}

fn meta(m: pb::Meta) -> Value {
    let host = |h: pb::HostIp| some([("Host", h.host.into()), ("IP", h.ip.into())]);
    let limit =
        |u: pb::Ulimit| some([("Name", u.name.into()), ("Soft", u.soft.into()), ("Hard", u.hard.into())]);
    some([
        ("args", m.args.into()),
        ("env", m.env.into()),
        ("cwd", m.cwd.into()),
        ("user", m.user.into()),
        ("extraHosts", list(m.extra_hosts, host)),
        ("hostname", m.hostname.into()),
        ("ulimit", list(m.ulimit, limit)),
        ("cgroupParent", m.cgroup_parent.into()),
        ("removeMountStubsRecursive", m.remove_mount_stubs_recursive.into()),
        ("validExitCodes", m.valid_exit_codes.into()),
    ])
}

fn mount(m: pb::Mount) -> Value {
    let secret = |s: pb::SecretOpt| {
        some([
            ("ID", s.id.into()),
            ("uid", s.uid.into()),
            ("gid", s.gid.into()),
            ("mode", s.mode.into()),
            ("optional", s.optional.into()),
        ])
    };
    let ssh = |s: pb::SshOpt| {
        some([
            ("ID", s.id.into()),
            ("uid", s.uid.into()),
            ("gid", s.gid.into()),
            ("mode", s.mode.into()),
            ("optional", s.optional.into()),
        ])
    };
    let cache = |c: pb::CacheOpt| some([("ID", c.id.into()), ("sharing", c.sharing.into())]);
    let tmpfs = |t: pb::TmpfsOpt| some([("size", t.size.into())]);
    some([
        ("input", m.input.into()),
        ("selector", m.selector.into()),
        ("dest", m.dest.into()),
        ("output", m.output.into()),
        ("readonly", m.readonly.into()),
        ("mountType", m.mount_type.into()),
        ("TmpfsOpt", m.tmpfs_opt.map_or(Value::Null, tmpfs)),
        ("cacheOpt", m.cache_opt.map_or(Value::Null, cache)),
        ("secretOpt", m.secret_opt.map_or(Value::Null, secret)),
        ("SSHOpt", m.ssh_opt.map_or(Value::Null, ssh)),
        ("resultID", m.result_id.into()),
        ("contentCache", m.content_cache.into()),
    ])
}

fn action(a: pb::FileAction) -> Value {
    let (input, secondary, output) = (a.input, a.secondary_input, a.output);
    json!({
        "input": input,
        "secondaryInput": secondary,
        "output": output,
        "Action": some([of_action(a)]),
    })
}

/// An action by itself, and what it is called.
pub(super) fn of_action(a: pb::FileAction) -> (&'static str, Value) {
    use pb::file_action::Action;
    match a.action {
        Some(Action::Copy(c)) => ("copy", copy(c)),
        Some(Action::Mkfile(f)) => {
            let data = base64::engine::general_purpose::STANDARD.encode(&f.data);
            let fields = [
                ("path", f.path.into()),
                ("mode", f.mode.into()),
                ("data", data.into()),
                ("owner", owner(f.owner)),
                ("timestamp", f.timestamp.into()),
            ];
            ("mkfile", some(fields))
        }
        Some(Action::Mkdir(d)) => {
            let fields = [
                ("path", d.path.into()),
                ("mode", d.mode.into()),
                ("makeParents", d.make_parents.into()),
                ("owner", owner(d.owner)),
                ("timestamp", d.timestamp.into()),
            ];
            ("mkdir", some(fields))
        }
        Some(Action::Rm(r)) => {
            let fields = [
                ("path", r.path.into()),
                ("allowNotFound", r.allow_not_found.into()),
                ("allowWildcard", r.allow_wildcard.into()),
            ];
            ("rm", some(fields))
        }
        Some(Action::Symlink(s)) => {
            let fields = [
                ("oldpath", s.oldpath.into()),
                ("newpath", s.newpath.into()),
                ("owner", owner(s.owner)),
                ("timestamp", s.timestamp.into()),
            ];
            ("symlink", some(fields))
        }
        None => ("", Value::Null),
    }
}

pub(super) fn merge(op: pb::MergeOp) -> Value {
    some([("inputs", list(op.inputs, |i| some([("input", i.input.into())])))])
}

pub(super) fn diff(op: &pb::DiffOp) -> Value {
    let input = |n: Option<i64>| some([("input", n.unwrap_or_default().into())]);
    let (lower, upper) = (op.lower.as_ref().map(|l| l.input), op.upper.as_ref().map(|u| u.input));
    some([("lower", input(lower)), ("upper", input(upper))])
}

pub(super) fn passthrough(op: pb::PassthroughOp) -> Value {
    some([("id", op.id.into()), ("outputs", op.outputs.into())])
}

fn copy(c: pb::FileActionCopy) -> Value {
    some([
        ("src", c.src.into()),
        ("dest", c.dest.into()),
        ("owner", owner(c.owner)),
        ("mode", c.mode.into()),
        ("followSymlink", c.follow_symlink.into()),
        ("dirCopyContents", c.dir_copy_contents.into()),
        ("attemptUnpackDockerCompatibility", c.attempt_unpack_docker_compatibility.into()),
        ("createDestPath", c.create_dest_path.into()),
        ("allowWildcard", c.allow_wildcard.into()),
        ("allowEmptyWildcard", c.allow_empty_wildcard.into()),
        ("timestamp", c.timestamp.into()),
        ("include_patterns", c.include_patterns.into()),
        ("exclude_patterns", c.exclude_patterns.into()),
        ("alwaysReplaceExistingDestPaths", c.always_replace_existing_dest_paths.into()),
        ("modeStr", c.mode_str.into()),
        ("required_paths", c.required_paths.into()),
    ])
}

fn owner(o: Option<pb::ChownOpt>) -> Value {
    let user = |u: Option<pb::UserOpt>| match u.and_then(|u| u.user) {
        Some(pb::user_opt::User::ByName(n)) => {
            json!({ "User": { "byName": some([("name", n.name.into()), ("input", n.input.into())]) } })
        }
        Some(pb::user_opt::User::ById(id)) => json!({ "User": some([("byId", id.into())]) }),
        None => Value::Null,
    };
    o.map_or(Value::Null, |o| some([("user", user(o.user)), ("group", user(o.group))]))
}

fn of_location(l: &pb::Location) -> Value {
    let at = |p: Option<pb::Position>| {
        let p = p.unwrap_or_default();
        some([("line", p.line.into()), ("character", p.character.into())])
    };
    let range = |r: &pb::Range| some([("start", at(r.start)), ("end", at(r.end))]);
    some([
        ("sourceIndex", l.source_index.into()),
        ("ranges", l.ranges.iter().map(range).collect::<Vec<_>>().into()),
    ])
}
