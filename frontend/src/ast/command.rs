//! The typed instructions. Words are as written: expansion is lowering's part.

use std::time::Duration;

/// What an instruction means.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// `FROM`
    From(FromCommand),
    /// `ARG`
    Arg(ArgCommand),
    /// `ENV`
    Env(EnvCommand),
    /// `LABEL`
    Label(LabelCommand),
    /// `RUN`
    Run(RunCommand),
    /// `COPY`
    Copy(CopyCommand),
    /// `ADD`
    Add(AddCommand),
    /// `CMD`
    Cmd(CommandLine),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `WORKDIR`, with its path.
    Workdir(String),
    /// `USER`, with its user or `user:group`.
    User(String),
    /// `EXPOSE`
    Expose(ExposeCommand),
    /// `VOLUME`, with its paths.
    Volume(Vec<String>),
    /// `SHELL`, with its words; at least one.
    Shell(Vec<String>),
    /// `STOPSIGNAL`, with its signal.
    StopSignal(String),
    /// `HEALTHCHECK`
    Healthcheck(HealthcheckCommand),
    /// `ONBUILD`
    Onbuild(OnbuildCommand),
    /// `MAINTAINER`, with its author.
    Maintainer(String),
    /// An instruction with an error, which was reported.
    Invalid,
}

/// `FROM [--platform=P] BASE [AS NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromCommand {
    /// The base image or stage, not expanded.
    pub base: String,
    /// The stage's name in lower case.
    pub name: Option<String>,
    /// `--platform`, not expanded; absent when empty.
    pub platform: Option<String>,
}

/// `ARG KEY[=VALUE]...`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgCommand {
    /// The definitions in order; at least one.
    pub args: Vec<ArgDefinition>,
}

/// One definition of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDefinition {
    /// The name.
    pub key: String,
    /// The default; `Some("")` for `KEY=`.
    pub value: Option<String>,
    /// The description in the comment above, without the name.
    pub doc: Option<String>,
}

/// A key and its value in ENV and LABEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, not expanded.
    pub key: String,
    /// The value, not expanded.
    pub value: String,
    /// Whether it is in the old form `KEY VALUE`, without `=`.
    pub legacy: bool,
}

/// `ENV KEY=VALUE...` or `ENV KEY VALUE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvCommand {
    /// The variables in order; at least one.
    pub env: Vec<KeyValue>,
}

/// `LABEL KEY=VALUE...` or `LABEL KEY VALUE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelCommand {
    /// The labels in order; at least one.
    pub labels: Vec<KeyValue>,
}

/// A command in exec form or shell form: RUN, CMD and ENTRYPOINT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The exec form's words, or one string for the shell; none for an empty instruction.
    pub words: Vec<String>,
    /// Whether the stage's shell goes before the words.
    pub shell: bool,
}

/// The network of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// What the build says.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// The confinement of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// The usual sandbox.
    #[default]
    Sandbox,
    /// All capabilities.
    Insecure,
}

/// `RUN [--mount=…]... [--network=…] [--security=…] [--device=…]... COMMAND`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCommand {
    /// The command; its heredocs are the instruction's.
    pub line: CommandLine,
    /// The values of `--mount` as written; [`crate::mount::Mount::parse`] reads them once variables are known.
    pub mounts: Vec<String>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`, parsed.
    pub devices: Vec<crate::mount::Device>,
    /// The names of the flags that were given, sorted.
    pub flags_used: Vec<String>,
}

/// A file written in the Dockerfile: a heredoc source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// The file's name: the heredoc's delimiter.
    pub name: String,
    /// The content, with leading tabs already gone for `<<-`.
    pub data: String,
    /// Whether variables in the content count.
    pub expand: bool,
}

/// The sources and the destination of COPY and ADD, not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcesAndDest {
    /// The sources that are paths, patterns or URLs, in order.
    pub paths: Vec<String>,
    /// The sources that are heredocs, in order.
    pub files: Vec<InlineFile>,
    /// The destination.
    pub dest: String,
}

/// `COPY [FLAGS] SOURCE... DEST`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyCommand {
    /// Sources and destination.
    pub files: SourcesAndDest,
    /// `--from`, absent when empty.
    pub from: Option<String>,
    /// `--chown`, absent when empty.
    pub chown: Option<String>,
    /// `--chmod`, absent when empty.
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, in order.
    pub excludes: Vec<String>,
}

/// `ADD [FLAGS] SOURCE... DEST`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCommand {
    /// Sources and destination.
    pub files: SourcesAndDest,
    /// `--chown`, absent when empty.
    pub chown: Option<String>,
    /// `--chmod`, absent when empty.
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--keep-git-dir`, when given.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, absent when empty.
    pub checksum: Option<String>,
    /// `--unpack`, when given.
    pub unpack: Option<bool>,
    /// `--exclude`, in order.
    pub excludes: Vec<String>,
}

/// `EXPOSE PORT...`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposeCommand {
    /// The words, sorted by their bytes before any expansion, as BuildKit does.
    pub ports: Vec<String>,
}

/// `HEALTHCHECK NONE` or `HEALTHCHECK [OPTIONS] CMD …`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthcheckCommand {
    /// The image config's `Test`: `NONE`, `CMD` and words, or `CMD-SHELL` and one string.
    pub test: Vec<String>,
    /// `--interval`, zero when not given.
    pub interval: Duration,
    /// `--timeout`, zero when not given.
    pub timeout: Duration,
    /// `--start-period`, zero when not given.
    pub start_period: Duration,
    /// `--start-interval`, zero when not given.
    pub start_interval: Duration,
    /// `--retries`, zero when not given.
    pub retries: u32,
}

/// `ONBUILD INSTRUCTION`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnbuildCommand {
    /// The instruction's text with its heredocs: what the image config stores and [`crate::parse::parse_trigger`] reads.
    pub expression: String,
}
