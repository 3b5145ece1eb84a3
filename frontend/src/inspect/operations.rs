//! The part of an inspection record about the graph: its operations in LLB's order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use solver::graph::{Graph, Vertex};
use solver::op::{
    ActionInput, CacheSharing, ChownOpt, CopyAction, ExecOp, FileAction, FileActionKind, Mount, MountKind,
    NetMode, Op, SecurityMode, SourceOp, UserOpt,
};

use crate::platform;

/// What a local source without a session is told apart by; BuildKit's is random, the records' is this.
const UNIQUE: &str = "dfref";

/// The record of a graph.
pub(super) fn operations(graph: &Graph) -> Value {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let ops: Vec<Value> = graph
        .vertices()
        .iter()
        .enumerate()
        .map(|(i, vertex)| {
            *counts.entry(kind(&vertex.op)).or_default() += 1;
            operation(i, vertex)
        })
        .collect();
    let head = graph.head.map(|head| json!({"op": head.vertex.index(), "index": head.output}));
    json!({"counts": counts, "head": head, "ops": ops})
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Source(_) => "source",
        Op::Exec(_) => "exec",
        Op::File(_) => "file",
        Op::Merge(_) => "merge",
        Op::Diff(_) | Op::Build(_) | Op::Passthrough(_) => "other",
    }
}

fn operation(i: usize, vertex: &Vertex) -> Value {
    let mut record = Map::new();
    record.insert("i".to_owned(), json!(i));
    record.insert("kind".to_owned(), json!(kind(&vertex.op)));
    let mut text = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            record.insert(key.to_owned(), json!(value));
        }
    };
    text("name", vertex.meta.custom_name());
    text("desc", vertex.meta.description.get("com.docker.dockerfile.v1.command").map(String::as_str));
    text("platform", vertex.platform.as_ref().map(platform::format_all).as_deref());
    text("progress_group", vertex.meta.progress_group.as_ref().map(|group| group.name.as_str()));
    let ranges = vertex.meta.locations.iter().flat_map(|location| &location.ranges);
    let lines: BTreeSet<u32> = ranges.flat_map(|range| range.start_line..=range.end_line).collect();
    if !lines.is_empty() {
        record.insert("lines".to_owned(), json!(lines));
    }
    let inputs = vertex.inputs.iter().map(|edge| json!({"op": edge.vertex.index(), "index": edge.output}));
    record.insert("inputs".to_owned(), inputs.collect());
    if vertex.meta.ignore_cache {
        record.insert("ignore_cache".to_owned(), json!(true));
    }
    let detail = match &vertex.op {
        Op::Source(source) => self::source(source),
        Op::Exec(exec) => self::exec(exec),
        Op::File(file) => {
            file.actions.iter().map(|action| self::action(action, vertex.inputs.len())).collect()
        }
        Op::Merge(merge) => merge.inputs.iter().map(|input| json!(index(*input))).collect(),
        Op::Diff(_) | Op::Build(_) | Op::Passthrough(_) => Value::Null,
    };
    record.insert(kind(&vertex.op).to_owned(), detail);
    Value::Object(record)
}

/// LLB's index: -1 is none.
fn index(input: Option<usize>) -> i64 {
    input.and_then(|input| i64::try_from(input).ok()).unwrap_or(-1)
}

fn source(source: &SourceOp) -> Value {
    let mut attrs = source.attrs.clone();
    if source.identifier.starts_with("local://") && !attrs.contains_key(solver::op::attr::LOCAL_SESSION_ID) {
        attrs.insert(solver::op::attr::LOCAL_UNIQUE_ID.to_owned(), UNIQUE.to_owned());
    }
    json!({"identifier": source.identifier, "attrs": attrs})
}

fn exec(exec: &ExecOp) -> Value {
    let mut env: Vec<&str> = exec.meta.env.iter().map(|entry| &**entry).collect();
    env.sort_unstable();
    let order: Vec<&str> = exec.meta.env.iter().map(|entry| entry.split('=').next().unwrap_or("")).collect();
    let mut record = json!({
        "args": exec.meta.args,
        "env": env,
        "env_order": order,
        "cwd": exec.meta.cwd,
        "user": exec.meta.user,
        "network": match exec.network {
            NetMode::Unset => "UNSET",
            NetMode::Host => "HOST",
            NetMode::None => "NONE",
        },
        "security": match exec.security {
            SecurityMode::Sandbox => "SANDBOX",
            SecurityMode::Insecure => "INSECURE",
        },
        "mounts": exec.mounts.iter().map(mount).collect::<Vec<_>>(),
    });
    if !exec.meta.hostname.is_empty() {
        record["hostname"] = json!(exec.meta.hostname);
    }
    if !exec.secret_env.is_empty() {
        let secrets = exec.secret_env.iter();
        record["secretenv"] =
            secrets.map(|s| json!({"id": s.id, "name": s.name, "optional": s.optional})).collect();
    }
    if !exec.cdi_devices.is_empty() {
        let devices = exec.cdi_devices.iter();
        record["devices"] = devices.map(|d| json!({"name": d.name, "optional": d.optional})).collect();
    }
    record
}

fn mount(mount: &Mount) -> Value {
    let (kind, output) = match &mount.kind {
        MountKind::Bind => ("BIND", index(mount.output)),
        MountKind::Cache(_) => ("CACHE", index(mount.output)),
        MountKind::Tmpfs { .. } => ("TMPFS", index(mount.output)),
        // LLB leaves the output of these at its default.
        MountKind::Secret(_) => ("SECRET", 0),
        MountKind::Ssh(_) => ("SSH", 0),
    };
    let mut record = json!({
        "dest": mount.dest,
        "type": kind,
        "input": index(mount.input),
        "output": output,
        "readonly": mount.readonly,
    });
    if !mount.selector.is_empty() {
        record["selector"] = json!(mount.selector);
    }
    match &mount.kind {
        MountKind::Bind => {}
        MountKind::Cache(cache) => {
            record["cache_id"] = json!(cache.id);
            record["cache_sharing"] = json!(match cache.sharing {
                CacheSharing::Shared => "SHARED",
                CacheSharing::Private => "PRIVATE",
                CacheSharing::Locked => "LOCKED",
            });
        }
        MountKind::Tmpfs { size } => record["tmpfs_size"] = json!(size),
        MountKind::Secret(s) => record["secret"] = special(&s.id, s.uid, s.gid, s.mode, s.optional),
        MountKind::Ssh(s) => record["ssh"] = special(&s.id, s.uid, s.gid, s.mode, s.optional),
    }
    record
}

fn special(id: &str, uid: u32, gid: u32, mode: u32, optional: bool) -> Value {
    json!({"id": id, "uid": uid, "gid": gid, "mode": format!("0{mode:o}"), "optional": optional})
}

fn action(action: &FileAction, inputs: usize) -> Value {
    let input = |input: ActionInput| match input {
        ActionInput::Scratch => -1,
        ActionInput::Vertex(i) => index(Some(i)),
        ActionInput::Action(i) => index(Some(inputs + i)),
    };
    let mut record = json!({
        "input": input(action.input),
        "secondary_input": input(action.secondary),
        "output": index(action.output),
        "opts": [],
    });
    let detail = match &action.kind {
        FileActionKind::Copy(copy) => self::copy(copy),
        FileActionKind::MkFile(file) => json!({
            "type": "mkfile", "dest": file.path, "mode": mode(file.mode), "owner": owner(file.owner.as_ref()),
            "timestamp": time(file.timestamp), "data": String::from_utf8_lossy(&file.data),
        }),
        FileActionKind::MkDir(dir) => json!({
            "type": "mkdir", "dest": dir.path, "mode": mode(dir.mode), "owner": owner(dir.owner.as_ref()),
            "timestamp": time(dir.timestamp), "opts": options(&[("makeParents", dir.make_parents)]),
        }),
        FileActionKind::Rm(rm) => json!({
            "type": "rm", "dest": rm.path, "timestamp": -1,
            "opts": options(&[("allowWildcard", rm.allow_wildcard), ("allowNotFound", rm.allow_not_found)]),
        }),
        FileActionKind::Symlink(link) => json!({
            "type": "symlink", "src": link.oldpath, "dest": link.newpath, "owner": owner(link.owner.as_ref()),
            "timestamp": time(link.timestamp),
        }),
    };
    if let (Value::Object(record), Value::Object(detail)) = (&mut record, detail) {
        record.extend(detail.into_iter().filter(|(_, value)| !value.is_null()));
    }
    record
}

fn copy(copy: &CopyAction) -> Value {
    let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    json!({
        "type": "copy",
        "src": copy.src,
        "dest": copy.dest,
        "mode": if copy.mode_str.is_empty() { mode(copy.mode) } else { json!("0000") },
        "mode_str": if copy.mode_str.is_empty() { Value::Null } else { json!(copy.mode_str) },
        "owner": owner(copy.owner.as_ref()),
        "opts": options(&[
            ("followSymlink", copy.follow_symlink),
            ("dirCopyContents", copy.dir_copy_contents),
            ("attemptUnpack", copy.attempt_unpack),
            ("createDestPath", copy.create_dest_path),
            ("allowWildcard", copy.allow_wildcard),
            ("allowEmptyWildcard", copy.allow_empty_wildcard),
            ("alwaysReplaceExistingDestPaths", copy.always_replace_existing_dest_paths),
        ]),
        "include": list(&copy.include_patterns),
        "exclude": list(&copy.exclude_patterns),
        "required": list(&copy.required_paths),
        "timestamp": time(copy.timestamp),
    })
}

fn options(options: &[(&str, bool)]) -> Value {
    options.iter().filter(|(_, on)| *on).map(|(name, _)| json!(name)).collect()
}

fn mode(mode: Option<u32>) -> Value {
    mode.map_or_else(|| json!("-1"), |mode| json!(format!("0{mode:o}")))
}

fn time(time: Option<i64>) -> i64 {
    time.unwrap_or(-1)
}

fn owner(owner: Option<&ChownOpt>) -> Value {
    let one = |user: &Option<UserOpt>| match user {
        None => String::new(),
        Some(UserOpt::Id(id)) => format!("id:{id}"),
        Some(UserOpt::Name { name, input }) => {
            let input = match input {
                ActionInput::Vertex(i) => index(Some(*i)),
                ActionInput::Scratch | ActionInput::Action(_) => -1,
            };
            format!("name:{name}@{input}")
        }
    };
    owner.map_or(Value::Null, |owner| json!({"user": one(&owner.user), "group": one(&owner.group)}))
}
