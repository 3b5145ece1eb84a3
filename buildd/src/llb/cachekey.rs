//! BuildKit's own cache keys (`CacheMap` of each op in `solver/llbsolver/ops`, `solver/cachekey.go`), for caches that it
//! shares with us. The JSON that is hashed is that of Go for the generated structs (see `json`).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use cache::fileop::content_hash::ContentSelector;
use cache::pattern::has_wildcards;
use cache::tree::TreePath;
use frontend::lower::base;
use frontend::quote::escape_html;
use prost::Message as _;
use proto::pb;
use serde_json::{Map, Value};
use solver::op::Platform;
use solver::{Digest, Vertex};

use super::definition::wire_op;
use super::json;

/// The output number of keys by content.
const CONTENT: i64 = -1;

/// What BuildKit keys a vertex on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpKey {
    /// Of the operation by itself.
    pub digest: Digest,
    /// How each input counts.
    pub inputs: Vec<InputKey>,
}

/// How an input counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputKey {
    /// Names the part that is used, where the input counts by its own key; empty is all.
    pub selector: String,
    /// Where the input may count by what it contains: what of it.
    pub content: Option<Vec<ContentSelector>>,
}

/// The key of a vertex that is no source; `None` for those that BuildKit does not share.
pub fn op_key(vertex: &Vertex, host: &Platform) -> Option<OpKey> {
    let count = vertex.inputs.len();
    let given = vertex.meta.wire.as_deref().and_then(|bytes| pb::Op::decode(bytes).ok());
    let given = given.unwrap_or_else(|| wire_op(vertex));
    match given.op? {
        pb::op::Op::Exec(op) => {
            let features = given.platform.map(|platform| platform.os_features).unwrap_or_default();
            Some(exec(op, count, vertex.platform.as_ref().unwrap_or(host), features))
        }
        pb::op::Op::File(op) => Some(file(op, count)),
        pb::op::Op::Merge(op) => {
            let fields = [("Type", "buildkit.merge.v0".into()), ("Merge", json::merge(op))];
            Some(plain(fields, count))
        }
        pb::op::Op::Diff(op) => {
            Some(plain([("Type", "buildkit.diff.v0".into()), ("Diff", json::diff(&op))], count))
        }
        pb::op::Op::Passthrough(op) => {
            let fields = [("Type", "buildkit.passthrough.v0".into()), ("Passthrough", json::passthrough(op))];
            Some(plain(fields, count))
        }
        // What a build op builds has taken its place before anything is keyed.
        pb::op::Op::Source(_) | pb::op::Op::Build(_) => None,
    }
}

/// The key of a source that counts as `key`.
pub fn source_key(key: &str) -> Digest {
    Digest::of(format!("buildkit.source.v0:{key}").as_bytes())
}

/// The key of an output of an operation.
pub fn output_key(digest: &Digest, output: u32) -> Digest {
    numbered(digest, output.into())
}

/// The key of what an input contains.
pub fn content_key(digest: &Digest) -> Digest {
    numbered(digest, CONTENT)
}

/// The key of an image by its manifest and the platform it is taken for (`source/containerimage/pull.go`). With `limit` only
/// so many of its layers count.
pub fn image_key(manifest: &Digest, platform: &Platform, limit: Option<u64>) -> Digest {
    let mut map = Map::from_iter([("Digest".to_owned(), manifest.to_string().into())]);
    add_platform(&mut map, platform);
    map.extend(limit.map(|limit| ("Limit".to_owned(), limit.into())));
    of_map(map)
}

fn add_platform(map: &mut Map<String, Value>, platform: &Platform) {
    let Platform { os, architecture, variant, os_version } = platform;
    map.insert("OS".to_owned(), os.as_str().into());
    map.insert("Arch".to_owned(), architecture.as_str().into());
    for (name, value) in [("Variant", variant), ("OSVersion", os_version)] {
        if !value.is_empty() {
            map.insert(name.to_owned(), value.as_str().into());
        }
    }
}

/// JSON as Go's `json.Marshal` writes it.
pub fn go_json(value: &Value) -> Vec<u8> {
    escape_html(&value.to_string()).into_bytes()
}

fn numbered(digest: &Digest, output: i64) -> Digest {
    Digest::of(format!("{digest}@{output}").as_bytes())
}

fn plain<const N: usize>(fields: [(&str, Value); N], inputs: usize) -> OpKey {
    OpKey { digest: of_fields(fields), inputs: vec![InputKey::default(); inputs] }
}

fn of_fields<const N: usize>(fields: [(&str, Value); N]) -> Digest {
    of_map(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn of_map(map: Map<String, Value>) -> Digest {
    Digest::of(&go_json(&Value::Object(map)))
}

fn exec(mut op: pb::ExecOp, count: usize, platform: &Platform, features: Vec<String>) -> OpKey {
    let inputs = mounts(&op.mounts, count);
    if let Some(meta) = &mut op.meta {
        meta.proxy_env = None;
        meta.extra_hosts.iter_mut().for_each(|host| host.ip.clear());
    }
    for mount in &mut op.mounts {
        mount.selector.clear();
        let dest = mount.dest.clone();
        if let Some(cache) = mount.cache_opt.as_mut().filter(|cache| !is_default_cache(cache, &dest)) {
            cache.id.clear();
            cache.sharing = 0;
        }
    }
    if let [only] = op.mounts.as_slice()
        && is_plain_root(only)
    {
        op.mounts.clear();
    }
    let mut map = Map::new();
    map.insert("Type".to_owned(), "buildkit.exec.v0".into());
    map.insert("Exec".to_owned(), json::exec(op));
    add_platform(&mut map, platform);
    if !features.is_empty() {
        map.insert("OSFeatures".to_owned(), features.into());
    }
    OpKey { digest: of_map(map), inputs }
}

/// A cache mount as a Dockerfile has it without options; its id counts then.
fn is_default_cache(cache: &pb::CacheOpt, dest: &str) -> bool {
    let by_dest = cache.id == dest;
    let in_namespace = cache.id.split_once('/').is_some_and(|(_, id)| id == dest);
    (by_dest || in_namespace) && cache.sharing == 0
}

fn is_plain_root(mount: &pb::Mount) -> bool {
    mount.dest == "/"
        && !mount.readonly
        && mount.mount_type == pb::MountType::Bind as i32
        && mount.cache_opt.is_none()
        && mount.ssh_opt.is_none()
        && mount.secret_opt.is_none()
        && mount.result_id.is_empty()
}

fn mounts(mounts: &[pb::Mount], count: usize) -> Vec<InputKey> {
    let mut selectors: Vec<Vec<String>> = vec![Vec::new(); count];
    let mut by_content = vec![false; count];
    for mount in mounts {
        let kind = pb::MountType::try_from(mount.mount_type);
        if matches!(kind, Ok(pb::MountType::Secret | pb::MountType::Ssh | pb::MountType::Tmpfs)) {
            continue;
        }
        let Some(input) = usize::try_from(mount.input).ok().filter(|i| *i < count) else { continue };
        let selector = absolute(&mount.selector);
        let safe = mount.output == -1 || mount.readonly || selector == "/";
        by_content[input] = match pb::MountContentCache::try_from(mount.content_cache) {
            Ok(pb::MountContentCache::Off) => false,
            Ok(pb::MountContentCache::On) => safe,
            _ => safe && mount.dest != "/",
        };
        selectors[input].push(selector);
    }
    let key = |(paths, by_content): (Vec<String>, bool)| InputKey {
        selector: match paths.is_empty() {
            true => String::new(),
            false => Digest::of(paths.join("\0").as_bytes()).to_string(),
        },
        content: by_content.then(|| {
            let select = |path| ContentSelector { path, follow_links: true, ..ContentSelector::default() };
            outermost(paths).into_iter().map(select).collect()
        }),
    };
    selectors.into_iter().zip(by_content).map(key).collect()
}

fn file(op: pb::FileOp, count: usize) -> OpKey {
    let mut selected: BTreeMap<usize, Vec<ContentSelector>> = BTreeMap::new();
    let mut whole: BTreeSet<usize> = BTreeSet::new();
    let (mut actions, mut indexes) = (Vec::new(), Vec::new());
    for mut action in op.actions {
        whole.extend(usize::try_from(action.input));
        indexes.push([action.input, action.secondary_input, action.output]);
        for (user, file) in owners(&action) {
            if let Some(input) = user.filter(|input| *input < count) {
                let path = file.to_owned();
                let selector = ContentSelector { path, follow_links: true, ..ContentSelector::default() };
                selected.entry(input).or_default().push(selector);
            }
        }
        let secondary = usize::try_from(action.secondary_input).ok().filter(|input| *input < count);
        if let (Some(pb::file_action::Action::Copy(copy)), Some(input)) = (&mut action.action, secondary) {
            selected.entry(input).or_default().push(ContentSelector {
                path: copy.src.clone(),
                wildcard: copy.allow_wildcard && has_wildcards(copy.src.as_bytes()),
                follow_links: copy.follow_symlink,
                include_patterns: copy.include_patterns.clone(),
                exclude_patterns: copy.exclude_patterns.clone(),
            });
            copy.src = base(&copy.src).to_owned();
        }
        let bytes = match json::of_action(action) {
            (_, Value::Null) => Vec::new(),
            (_, json) => go_json(&json),
        };
        actions.push(Value::from(base64::engine::general_purpose::STANDARD.encode(bytes)));
    }
    let mut fields = Map::new();
    fields.insert("Type".to_owned(), "buildkit.file.v0".into());
    fields.insert("Actions".to_owned(), actions.into());
    if !indexes.is_empty() && !are_usual(&indexes) {
        fields
            .insert("indexes".to_owned(), indexes.iter().map(|three| Value::from(three.to_vec())).collect());
    }
    let key = |input: usize| {
        let Some(selectors) = selected.remove(&input).filter(|_| !whole.contains(&input)) else {
            return InputKey::default();
        };
        let mut paths: Vec<&str> = selectors.iter().map(|s| s.path.as_str()).collect();
        paths.sort_unstable_by(|a, b| b.cmp(a));
        let selector = Digest::of(paths.join("\0").as_bytes()).to_string();
        InputKey { selector, content: Some(united(selectors)) }
    };
    let inputs = (0..count).map(key).collect();
    OpKey { digest: of_map(fields), inputs }
}

/// The inputs in which the names of an action's owner are looked up, and in which file.
fn owners(action: &pb::FileAction) -> Vec<(Option<usize>, &'static str)> {
    use pb::file_action::Action;
    let owner = match &action.action {
        Some(Action::Copy(a)) => a.owner.as_ref(),
        Some(Action::Mkfile(a)) => a.owner.as_ref(),
        Some(Action::Mkdir(a)) => a.owner.as_ref(),
        _ => None,
    };
    let Some(owner) = owner else { return Vec::new() };
    let named = |user: &Option<pb::UserOpt>| match user.as_ref().and_then(|u| u.user.as_ref()) {
        Some(pb::user_opt::User::ByName(name)) => usize::try_from(name.input).ok(),
        _ => None,
    };
    vec![(named(&owner.user), "/etc/passwd"), (named(&owner.group), "/etc/group")]
}

/// Each action on the result of the one before, the first on input 0, the last one giving output 0: older versions left
/// that out of the key.
fn are_usual(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len() as i64;
    let usual = |(i, [input, secondary, output]): (usize, &[i64; 3])| {
        let (i, last) = (i as i64, i + 1 == indexes.len());
        let first = if i == 0 { 0 } else { count + i - 1 };
        *input == first && matches!(secondary, -1 | 1) && *output == if last { 0 } else { -1 }
    };
    indexes.iter().enumerate().all(usual)
}

/// Selectors with those left out that lie within others, in the order of their paths.
fn united(selectors: Vec<ContentSelector>) -> Vec<ContentSelector> {
    let (filtered, plain): (Vec<_>, Vec<_>) = selectors.into_iter().partition(ContentSelector::is_filtered);
    let (follow, stay): (Vec<_>, Vec<_>) = plain.into_iter().partition(|s| s.follow_links);
    let paths = |list: Vec<ContentSelector>| outermost(list.into_iter().map(|s| s.path).collect());
    let with = |path, follow_links| ContentSelector { path, follow_links, ..ContentSelector::default() };
    let mut all: Vec<ContentSelector> = paths(stay).into_iter().map(|path| with(path, false)).collect();
    all.extend(paths(follow).into_iter().map(|path| with(path, true)));
    all.extend(filtered);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// Each path once, without those below others, sorted; one alone stays as it is.
fn outermost(paths: Vec<String>) -> Vec<String> {
    if paths.len() <= 1 {
        return paths;
    }
    let all: BTreeSet<String> = paths.into_iter().collect();
    let below = |path: &String, other: &String| {
        let dir = if other.ends_with('/') { other.clone() } else { format!("{other}/") };
        path != other && path.starts_with(&dir)
    };
    all.iter().filter(|path| !all.iter().any(|other| below(path, other))).cloned().collect()
}

/// Go's `path.Join("/", path)`.
fn absolute(path: &str) -> String {
    let clean = TreePath::clean(path.as_bytes()).unwrap_or_default();
    format!("/{}", String::from_utf8_lossy(clean.as_bytes()))
}
