//! A world for the tests: three images, an ignore file, and graphs as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use frontend::ast::Document;
use frontend::lower::{
    ImageRequest, LocalRequest, LowerError, Lowered, Resolved, ResolvedImage, TimeRequest, lower,
};
use frontend::options::BuildOptions;
use serde_json::json;
use solver::Graph;
use solver::op::{ActionInput, FileActionKind, MountKind, Op, Platform};

/// Answers for `base` (a plain image), `triggers` (one with ONBUILD) and `empty` (one without layers).
#[derive(Default)]
pub(crate) struct World {
    pub(crate) images: BTreeMap<&'static str, ResolvedImage>,
    pub(crate) ignore: &'static str,
    pub(crate) inputs: BTreeMap<String, Graph>,
    pub(crate) time: Option<Option<i64>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let image = |more: serde_json::Value, layers: &[&str]| {
            let mut config = json!({"Env": ["PATH=/bin", "LANG=C"], "Cmd": ["sh"]});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let image = json!({
                "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z", "config": config,
                "rootfs": {"type": "layers", "diff_ids": layers},
            });
            let digest = Some(format!("sha256:{}", "d".repeat(64)));
            ResolvedImage { config: image.to_string().into_bytes(), digest, ..ResolvedImage::default() }
        };
        let triggers =
            json!({"OnBuild": ["ENV T=1", "COPY --from=base /x /y"], "User": "app", "WorkingDir": "/w"});
        let images = BTreeMap::from([
            ("docker.io/library/base:latest", image(json!({}), &["sha256:1"])),
            ("docker.io/library/triggers:latest", image(triggers, &["sha256:1"])),
            ("docker.io/library/empty:latest", image(json!({}), &[])),
        ]);
        Self { images, ..Self::default() }
    }
}

impl Resolved for World {
    fn image(&self, request: &ImageRequest) -> Option<&ResolvedImage> {
        self.images.get(request.reference.as_str())
    }

    fn dockerignore(&self) -> &[u8] {
        self.ignore.as_bytes()
    }

    fn context_dockerignore(&self, request: &LocalRequest) -> Option<&[u8]> {
        (request.local != "unread").then_some(b"*.log")
    }

    fn input(&self, name: &str) -> Option<&Graph> {
        self.inputs.get(name)
    }

    fn source_time(&self, _request: &TimeRequest) -> Option<Option<i64>> {
        self.time
    }
}

pub(crate) fn amd64() -> Platform {
    Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() }
}

/// Options from frontend attributes.
pub(crate) fn options(attrs: &[(&str, &str)]) -> BuildOptions {
    let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    BuildOptions::from_attrs(&attrs, amd64()).unwrap()
}

pub(crate) fn parse(text: &str) -> Document {
    let (document, diagnostics) = frontend::parse::parse("Dockerfile", text.as_bytes());
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    document
}

pub(crate) fn lowered_in(world: &World, text: &str, options: &BuildOptions) -> Result<Lowered, LowerError> {
    lower(&parse(text), options, options.platforms.first(), world)
}

pub(crate) fn lowered(text: &str, attrs: &[(&str, &str)]) -> Lowered {
    lowered_in(&World::new(), text, &options(attrs)).unwrap()
}

/// The graph of a Dockerfile, one vertex a line.
pub(crate) fn graph(text: &str, attrs: &[(&str, &str)]) -> String {
    render(&lowered(text, attrs).graph)
}

pub(crate) fn render(graph: &Graph) -> String {
    let mut out = String::new();
    for (index, vertex) in graph.vertices().iter().enumerate() {
        let inputs: Vec<String> = vertex.inputs.iter().map(|edge| edge.vertex.0.to_string()).collect();
        write!(out, "{index}({}) {}", inputs.join(" "), operation(&vertex.op)).unwrap();
        if let Some(platform) = vertex.platform.as_ref().filter(|platform| platform.architecture != "amd64") {
            write!(out, " on {}", frontend::platform::format_all(platform)).unwrap();
        }
        if vertex.meta.ignore_cache {
            out += " no-cache";
        }
        if let Some(group) = &vertex.meta.progress_group {
            write!(out, " group{}", if group.weak { " weak" } else { "" }).unwrap();
        }
        writeln!(out, " # {}", vertex.meta.custom_name().unwrap_or("-")).unwrap();
    }
    let head = graph.head.map_or("scratch".to_owned(), |head| format!("{}.{}", head.vertex.0, head.output));
    out.replace(&"d".repeat(64), "dd") + "head " + &head
}

fn operation(op: &Op) -> String {
    match op {
        Op::Source(source) => {
            let attrs: Vec<String> =
                source.attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            [vec![source.identifier.clone()], attrs].concat().join(" ")
        }
        Op::Exec(exec) => {
            let mounts: Vec<String> = exec.mounts.iter().map(mount).collect();
            let secrets: Vec<String> =
                exec.secret_env.iter().map(|s| format!("${}={}", s.name, s.id)).collect();
            format!(
                "exec {:?} env {:?} in {} {}",
                exec.meta.args,
                exec.meta.env[1..].join(" "),
                exec.meta.cwd,
                [mounts, secrets].concat().join(" ")
            )
        }
        Op::File(file) => {
            let actions: Vec<String> = file
                .actions
                .iter()
                .map(|action| {
                    format!(
                        "{}<-{} {}",
                        input(action.input),
                        input(action.secondary),
                        action_text(&action.kind)
                    )
                })
                .collect();
            format!("file {}", actions.join(" ; "))
        }
        Op::Merge(merge) => {
            format!("merge {:?}", merge.inputs.iter().map(|i| i.unwrap()).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

fn mount(mount: &solver::op::Mount) -> String {
    let kind = match &mount.kind {
        MountKind::Bind => "bind".to_owned(),
        MountKind::Cache(cache) => format!("cache {} {:?}", cache.id, cache.sharing),
        MountKind::Tmpfs { size } => format!("tmpfs {size}"),
        MountKind::Secret(s) => format!("secret {} {:o} {}:{}", s.id, s.mode, s.uid, s.gid),
        MountKind::Ssh(s) => format!("ssh {:?} {:o}", s.id, s.mode),
    };
    let input = mount.input.map_or("-".to_owned(), |input| input.to_string());
    let mode = if mount.readonly { " ro" } else { "" };
    format!("[{} {kind} {input}{}{mode}]", mount.dest, mount.selector)
}

fn input(input: ActionInput) -> String {
    match input {
        ActionInput::Scratch => "-".to_owned(),
        ActionInput::Vertex(i) => i.to_string(),
        ActionInput::Action(i) => format!("a{i}"),
    }
}

fn action_text(kind: &FileActionKind) -> String {
    match kind {
        FileActionKind::Copy(copy) => {
            let mode = copy.mode.map_or(String::new(), |mode| format!(" {mode:o}"));
            let owner = copy.owner.as_ref().map_or(String::new(), |owner| format!(" {owner:?}"));
            let lists = [&copy.include_patterns, &copy.exclude_patterns, &copy.required_paths];
            let lists: Vec<String> =
                lists.iter().filter(|l| !l.is_empty()).map(|l| format!(" {l:?}")).collect();
            let unpack = if copy.attempt_unpack { " unpack" } else { "" };
            format!("copy {} {}{mode}{}{owner}{}{unpack}", copy.src, copy.dest, copy.mode_str, lists.concat())
        }
        FileActionKind::MkFile(file) => {
            format!("mkfile {} {:o} {:?}", file.path, file.mode.unwrap(), String::from_utf8_lossy(&file.data))
        }
        FileActionKind::MkDir(dir) => {
            let time = dir.timestamp.map_or(String::new(), |time| format!(" @{time}"));
            let owner = dir.owner.as_ref().map_or(String::new(), |owner| format!(" {owner:?}"));
            format!("mkdir {} {:o}{owner}{time}", dir.path, dir.mode.unwrap())
        }
        other => format!("{other:?}"),
    }
}
