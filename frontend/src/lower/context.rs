//! The main context, and the sources that a build reads before it can be lowered.

use std::collections::{BTreeMap, BTreeSet};

use solver::graph::{Graph, VertexMeta};
use solver::op::{ActionInput, CopyAction, FileAction, FileActionKind, FileOp, Op, SourceOp, attr};

use crate::lower::arena::{Arena, Inputs, NewOp, Output};
use crate::lower::base::described;
use crate::lower::build::Context;
use crate::lower::path;
use crate::lower::stage::Stages;
use crate::options::{BuildOptions, ContextSpec};

/// The file that says what a context leaves out.
const IGNORE_FILE: &str = ".dockerignore";
/// The name of the one file of an HTTP context.
const HTTP_FILE: &str = "context";

/// What the Dockerfile is read from: the graph, and the names to try in it, best first.
///
/// The ignore file beside it, if any, is the first name with `.dockerignore` added; it replaces the context's.
pub fn dockerfile_sources(options: &BuildOptions) -> (Graph, Vec<String>) {
    let mut names = vec![options.filename.clone()];
    let remote = options.context.spec.is_remote() && !options.dockerfile_is_local;
    let mut arena = Arena::default();
    if remote {
        if let ContextSpec::Http { archive: false, .. } = options.context.spec {
            names = vec![HTTP_FILE.to_owned()];
        }
        let output = remote_context(options, &mut arena);
        return (arena.graph(output, None), names);
    }
    let mut wanted = vec![options.filename.clone(), format!("{}{IGNORE_FILE}", options.filename)];
    if path::base(&options.filename) == "Dockerfile" {
        let dir = options.filename.rsplit_once('/').map_or("", |(dir, _)| dir);
        names.push(path::join(dir, "dockerfile"));
        wanted.extend(names.last().cloned());
    }
    let local = &options.dockerfile_local;
    let mut attrs = local_attrs(options, local, local);
    attrs.insert(attr::FOLLOW_PATHS.to_owned(), json_list(&wanted));
    attrs.insert(attr::LOCAL_DIFFER.to_owned(), "none".to_owned());
    let name = format!("[internal] load build definition from {}", options.filename);
    let op = SourceOp { identifier: format!("local://{local}"), attrs };
    let output = add_source(&mut arena, op, &name);
    (arena.graph(Some(output), None), names)
}

/// The file behind an HTTP context and its name, for the caller to look whether it is an archive; `None` for other
/// contexts.
pub fn http_context_file(options: &BuildOptions) -> Option<(Graph, &'static str)> {
    let ContextSpec::Http { url, .. } = &options.context.spec else { return None };
    let mut arena = Arena::default();
    let file = http_file(&mut arena, url);
    Some((arena.graph(Some(file), None), HTTP_FILE))
}

/// What the main context's `.dockerignore` is read from; `None` for contexts that have none.
pub fn dockerignore_source(options: &BuildOptions) -> Option<Graph> {
    let ContextSpec::Local(local) = &options.context.spec else { return None };
    let mut arena = Arena::default();
    let op = ignore_file_source(options, local, &format!("{local}-{IGNORE_FILE}"));
    let output = add_source(&mut arena, op, &format!("[internal] load {IGNORE_FILE}"));
    Some(arena.graph(Some(output), None))
}

/// The ignore file of a local context, and nothing else of it.
pub(super) fn ignore_file_source(options: &BuildOptions, local: &str, hint: &str) -> SourceOp {
    let mut attrs = local_attrs(options, local, hint);
    attrs.insert(attr::FOLLOW_PATHS.to_owned(), json_list(&[IGNORE_FILE.to_owned()]));
    attrs.insert(attr::LOCAL_DIFFER.to_owned(), "none".to_owned());
    SourceOp { identifier: format!("local://{local}"), attrs }
}

/// Makes room for the main context, or adds it where nothing more has to be known of it.
pub(super) fn begin(options: &BuildOptions, arena: &mut Arena, input: Option<&Graph>) -> Option<Output> {
    match &options.context.spec {
        ContextSpec::Local(_) => Some(arena.reserve()),
        ContextSpec::Git(_) | ContextSpec::Http { .. } => remote_context(options, arena),
        ContextSpec::Input => {
            let input = input.and_then(|graph| arena.import(graph));
            scoped(options, arena, input)
        }
    }
}

/// Says what the main context and the named local ones are, now that the paths used of them are known.
pub(super) fn fill(context: &mut Context<'_>, stages: &Stages<'_>) {
    let used = stages.ids().flat_map(|id| stages[id].context_paths.iter().cloned()).collect();
    let options = context.options;
    if let (ContextSpec::Local(local), Some(output)) = (&options.context.spec, context.context) {
        let op = local_context(options, local, local, &context.ignored, &used);
        let meta = VertexMeta {
            description: described("[internal] load build context", None),
            ..VertexMeta::default()
        };
        context.arena.fill(output, NewOp { op, inputs: Inputs::default(), platform: None, meta });
    }
    for pending in std::mem::take(&mut context.pending_locals) {
        let shared = options.shared_keys.get(&pending.full_name).map_or("", String::as_str);
        let hint = format!("context:{}-{shared}", pending.full_name);
        let op = local_context(options, &pending.local, &hint, &pending.excludes, &pending.paths.borrow());
        let name = format!("[context {}] load from client", pending.full_name);
        let meta = VertexMeta { description: described(&name, None), ..VertexMeta::default() };
        context.arena.fill(pending.output, NewOp { op, inputs: Inputs::default(), platform: None, meta });
    }
}

fn local_context(
    options: &BuildOptions,
    local: &str,
    hint: &str,
    excludes: &[String],
    used: &BTreeSet<String>,
) -> Op {
    let mut attrs = local_attrs(options, local, hint);
    if !excludes.is_empty() {
        attrs.insert(attr::EXCLUDE_PATTERNS.to_owned(), json_list(excludes));
    }
    if !used.is_empty() && !used.contains("/") {
        let mut relative: Vec<String> = used.iter().map(|used| path::join(".", used)).collect();
        relative.sort();
        attrs.insert(attr::FOLLOW_PATHS.to_owned(), json_list(&relative));
    }
    Op::Source(SourceOp { identifier: format!("local://{local}"), attrs })
}

fn local_attrs(options: &BuildOptions, local: &str, hint: &str) -> BTreeMap<String, String> {
    let mut attrs = BTreeMap::from([(attr::SHARED_KEY_HINT.to_owned(), hint.to_owned())]);
    if let Some(session) = options.session_of(local) {
        attrs.insert(attr::LOCAL_SESSION_ID.to_owned(), session.to_owned());
    }
    attrs
}

/// A list as Go's JSON writes it: `<`, `>` and `&` are escaped.
fn json_list(list: &[String]) -> String {
    let json = serde_json::to_string(list).expect("strings are JSON");
    let mut out = String::with_capacity(json.len());
    for ch in json.chars() {
        match ch {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out += &format!("\\u{:04x}", u32::from(ch)),
            other => out.push(other),
        }
    }
    out
}

fn remote_context(options: &BuildOptions, arena: &mut Arena) -> Option<Output> {
    let output = match &options.context.spec {
        ContextSpec::Git(git) => {
            add_source(arena, git.source(), &format!("[internal] load git source {}", git.written()))
        }
        ContextSpec::Http { url, archive } => {
            let file = http_file(arena, url);
            if *archive { copy(arena, file, &format!("/{HTTP_FILE}"), true) } else { file }
        }
        ContextSpec::Local(_) | ContextSpec::Input => return None,
    };
    scoped(options, arena, Some(output))
}

fn http_file(arena: &mut Arena, url: &str) -> Output {
    let attrs = BTreeMap::from([(attr::HTTP_FILENAME.to_owned(), HTTP_FILE.to_owned())]);
    let op = SourceOp { identifier: url.to_owned(), attrs };
    add_source(arena, op, "[internal] load remote build context")
}

/// A directory of a remote context in place of all of it.
fn scoped(options: &BuildOptions, arena: &mut Arena, output: Option<Output>) -> Option<Output> {
    match (&options.context.subdir, output) {
        (Some(subdir), Some(output)) => Some(copy(arena, output, subdir, false)),
        (_, output) => output,
    }
}

fn copy(arena: &mut Arena, from: Output, src: &str, unpack: bool) -> Output {
    let mut inputs = Inputs::default();
    let index = inputs.add(arena, from);
    let action = CopyAction {
        src: path::join("/", src),
        dest: "/".to_owned(),
        attempt_unpack: unpack,
        dir_copy_contents: !unpack,
        ..CopyAction::default()
    };
    let action = FileAction {
        input: ActionInput::Scratch,
        secondary: ActionInput::Vertex(index),
        output: Some(0),
        kind: FileActionKind::Copy(Box::new(action)),
    };
    let op = Op::File(FileOp { actions: vec![action] });
    arena.add(NewOp { op, inputs, platform: None, meta: VertexMeta::default() })
}

fn add_source(arena: &mut Arena, op: SourceOp, name: &str) -> Output {
    let meta = VertexMeta { description: described(name, None), ..VertexMeta::default() };
    arena.add(NewOp { op: Op::Source(op), inputs: Inputs::default(), platform: None, meta })
}
