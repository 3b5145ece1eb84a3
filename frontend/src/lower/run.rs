//! RUN.

use solver::graph::VertexMeta;
use solver::op::{
    ActionInput, CdiDevice, ExecMeta, ExecOp, FileAction, FileActionKind, FileOp, MkFileAction, NetMode, Op,
    ProxyEnv, SecurityMode,
};

use crate::ast::{Heredoc, Instruction, Network, RunCommand, Security};
use crate::lower::arena::{Arena, NewOp, Output};
use crate::lower::base::described;
use crate::lower::build::Context;
use crate::lower::configure::{commit, with_shell};
use crate::lower::dispatch::Source;
use crate::lower::env::EnvList;
use crate::lower::error::{Fault, Result};
use crate::lower::mounts::{Bind, MountSet};
use crate::lower::name::step_text;
use crate::lower::stage::Stage;
use crate::lower::variables::Noted;
use crate::lower::{mounts, path};
use crate::words::{Env, Lexer};

/// Where a heredoc that is a script is mounted.
const SCRIPTS: &str = "/dev/pipes/";

pub(super) fn run(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    command: &RunCommand,
    sources: &[Source],
) -> Result<()> {
    stage.paths.borrow_mut().insert("/".to_owned());
    let mut set = MountSet::default();
    let parsed = mounts::parse(context, stage, instruction, command)?;
    let (mut args, summary) = arguments(context, command, instruction, stage, &mut set)?;
    if command.line.shell {
        args = with_shell(stage, &args);
    }
    // BuildKit notices when it writes the graph down, which a check does not.
    if args.is_empty() && !context.options.all_stages {
        return Err(Fault::NoArguments.into());
    }
    mounts::add(context, stage, instruction, &parsed, sources, &mut set)?;
    if !command.devices.is_empty() && !context.options.devices {
        return Err(Fault::Devices.into());
    }
    if context.options.shm_size > 0 {
        set.add_shm(context.options.shm_size);
    }
    let masked = parsed.iter().filter_map(|mount| mount.env.clone()).collect();
    let name = step_name(context, stage, &format!("{}{summary}", instruction.code()), masked);
    let meta = VertexMeta {
        description: described(&name, Some(instruction.code())),
        ignore_cache: stage.ignore_cache,
        resources: context.options.resources.clone(),
        locations: Context::location(instruction.lines),
        variables: stage.state.variables.all(),
        ..VertexMeta::default()
    };
    let message = format!("RUN {} # buildkit", history_text(stage, &args));
    let output = add_exec(context, stage, command, args, set, meta);
    stage.state.output = Some(output);
    commit(context, stage, message, true);
    Ok(())
}

fn add_exec(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    command: &RunCommand,
    args: Vec<String>,
    mut set: MountSet,
    meta: VertexMeta,
) -> Output {
    let options = context.options;
    let mut env = stage.state.env.entries();
    if let Some(socket) = set.ssh_socket()
        && stage.state.env.get("SSH_AUTH_SOCK").is_none()
    {
        let socket = format!("SSH_AUTH_SOCK={socket}").into();
        env = env.iter().cloned().chain([socket]).collect();
    }
    let exec = ExecMeta {
        args,
        env,
        cwd: stage.state.dir.clone(),
        user: stage.state.user.clone(),
        proxy_env: proxies(options.build_args.iter()),
        extra_hosts: options.extra_hosts.clone(),
        hostname: stage.state.hostname.clone(),
        ulimits: options.ulimits.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        remove_mount_stubs_recursive: true,
        valid_exit_codes: Vec::new(),
    };
    let network = match command.network {
        Network::Default => stage.state.network,
        Network::None => NetMode::None,
        Network::Host => NetMode::Host,
    };
    let security = match command.security {
        Security::Sandbox => SecurityMode::Sandbox,
        Security::Insecure => SecurityMode::Insecure,
    };
    let devices = command.devices.iter();
    let cdi_devices =
        devices.map(|device| CdiDevice { name: device.name.clone(), optional: !device.required }).collect();
    let secret_env = set.take_secret_env();
    let (mounts, inputs) = set.finish(&context.arena, stage.state.output);
    let op = Op::Exec(Box::new(ExecOp { meta: exec, mounts, network, security, secret_env, cdi_devices }));
    let platform = stage.state.platform.clone().unwrap_or_else(|| context.target_platform.clone());
    context.arena.add(NewOp { op, inputs, platform: Some(platform), meta })
}

/// The command's words before any shell, and what the step's name says of a heredoc.
fn arguments(
    context: &mut Context<'_>,
    command: &RunCommand,
    instruction: &Instruction,
    stage: &Stage<'_>,
    set: &mut MountSet,
) -> Result<(Vec<String>, String)> {
    let words = &command.line.words;
    let Some(first) = instruction.heredocs.first() else { return Ok((words.clone(), String::new())) };
    let [line] = &words[..] else { return Err(Fault::RunCommand(words.clone()).into()) };
    if !command.line.shell {
        return Err(Fault::RunCommand(words.clone()).into());
    }
    if !is_lone_heredoc(line) {
        return Ok((vec![with_heredocs(line, &instruction.heredocs)], String::new()));
    }
    let summary = format!(" ({})", summarize(&first.content));
    let data = first.chomped();
    if stage.image.os == "windows" || !data.starts_with("#!") {
        return Ok((vec![data], summary));
    }
    let script = add_inline_file(&mut context.arena, &first.name, 0o755, data.into_bytes(), Noted::default());
    set.add_bind(Bind {
        dest: SCRIPTS.to_owned(),
        input: Some(script),
        selector: "/".to_owned(),
        readonly: true,
    });
    Ok((vec![path::join(SCRIPTS, &first.name)], summary))
}

/// A file of the Dockerfile as files of their own.
pub(super) fn add_inline_file(
    arena: &mut Arena,
    name: &str,
    mode: u32,
    data: Vec<u8>,
    variables: Noted,
) -> Output {
    let file = MkFileAction {
        path: path::action_path("/", name, false),
        mode: Some(mode),
        data,
        owner: None,
        timestamp: None,
    };
    let action = FileAction {
        input: ActionInput::Scratch,
        secondary: ActionInput::Scratch,
        output: Some(0),
        kind: FileActionKind::MkFile(file),
    };
    let op = Op::File(FileOp { actions: vec![action] });
    let name = "[internal] preparing inline document";
    let meta = VertexMeta { description: described(name, None), variables, ..VertexMeta::default() };
    arena.add(NewOp { op, inputs: crate::lower::arena::Inputs::default(), platform: None, meta })
}

/// Whether a command is nothing but one heredoc's marker.
fn is_lone_heredoc(line: &str) -> bool {
    let rest = line.trim_start_matches(|ch: char| ch.is_ascii_digit());
    let Some(rest) = rest.strip_prefix("<<") else { return false };
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    let lexer = Lexer { skip_unset: true, ..Lexer::new('\\') };
    !rest.is_empty() && !rest.contains('<') && lexer.split(rest, &()).is_ok_and(|words| words.len() == 1)
}

/// The command with its heredocs below it, for the shell to read.
fn with_heredocs(line: &str, heredocs: &[Heredoc]) -> String {
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text += &heredoc.content;
        text += &heredoc.name;
    }
    text
}

/// A heredoc's first line, with dots when there are more.
fn summarize(content: &str) -> String {
    let content = content.trim().replace("\r\n", "\n");
    match content.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => content,
    }
}

fn step_name(context: &Context<'_>, stage: &mut Stage<'_>, code: &str, masked: Vec<String>) -> String {
    let lexer = Lexer { raw_quotes: true, skip_unset: true, ..context.lexer };
    let text = step_text(&lexer, code, &Masked { env: &stage.state.env, masked });
    context.step_name(stage, &text, |stage| stage.state.platform.as_ref())
}

/// The environment with secrets shown as stars.
struct Masked<'a> {
    env: &'a EnvList,
    masked: Vec<String>,
}

impl Env for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.masked.iter().any(|masked| masked == name) { Some("****") } else { self.env.get(name) }
    }
}

/// The command with the ARGs that it sees, as the history has it: `|2 A=1 B=2 /bin/sh -c …`.
fn history_text(stage: &Stage<'_>, args: &[String]) -> String {
    let mut seen: Vec<(&str, String)> = Vec::new();
    for arg in &stage.build_args {
        let value = stage.state.env.get(&arg.key).or(arg.value.as_deref()).unwrap_or("");
        let entry = format!("{}={value}", arg.key);
        match seen.iter_mut().find(|(key, _)| *key == arg.key) {
            Some((_, old)) => *old = entry,
            None => seen.push((&arg.key, entry)),
        }
    }
    let count = (!seen.is_empty()).then(|| format!("|{}", seen.len()));
    let seen = seen.iter().map(|(_, entry)| entry);
    let words: Vec<&str> = count.iter().chain(seen).chain(args).map(String::as_str).collect();
    words.join(" ")
}

/// The proxies among the build arguments, whatever the case of their names; the last of a name wins.
fn proxies<'a>(args: impl Iterator<Item = (&'a String, &'a String)>) -> Option<ProxyEnv> {
    let mut proxies = None::<ProxyEnv>;
    for (key, value) in args {
        let slot: fn(&mut ProxyEnv) -> &mut String = match key.to_lowercase().as_str() {
            "http_proxy" => |proxies| &mut proxies.http_proxy,
            "https_proxy" => |proxies| &mut proxies.https_proxy,
            "ftp_proxy" => |proxies| &mut proxies.ftp_proxy,
            "no_proxy" => |proxies| &mut proxies.no_proxy,
            "all_proxy" => |proxies| &mut proxies.all_proxy,
            _ => continue,
        };
        value.clone_into(slot(proxies.get_or_insert_default()));
    }
    proxies
}
