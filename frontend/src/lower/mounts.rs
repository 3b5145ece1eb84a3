//! The mounts of a RUN.

use std::rc::Rc;

use solver::graph::VertexMeta;
use solver::op::{
    ActionInput, CacheMount, CacheSharing, ChownOpt, FileAction, FileActionKind, FileOp, MkDirAction, Mount,
    MountContentCache, MountKind, Op, SecretEnv, SecretMount, SshMount, UserOpt,
};

use crate::ast::{Instruction, RunCommand};
use crate::lower::arena::{Arena, Inputs, NewOp, Output};
use crate::lower::base::described;
use crate::lower::build::Context;
use crate::lower::dispatch::{Source, report_unset};
use crate::lower::error::{Fault, LowerError, Result};
use crate::lower::path;
use crate::lower::stage::Stage;
use crate::mount::{self, MountType, Sharing};

/// Files that are shown somewhere.
#[derive(Debug)]
pub(super) struct Bind {
    pub(super) dest: String,
    pub(super) input: Option<Output>,
    pub(super) selector: String,
    pub(super) readonly: bool,
}

/// A mount whose input is not yet an index.
#[derive(Debug)]
struct Pending {
    bind: Bind,
    kind: MountKind,
}

/// The mounts of a command.
#[derive(Debug, Default)]
pub(super) struct MountSet {
    files: Vec<Pending>,
    secrets: Vec<Mount>,
    secret_env: Vec<SecretEnv>,
    agents: Vec<Mount>,
}

/// Reads the mounts, their variables expanded.
pub(super) fn parse(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    instruction: &Instruction,
    command: &RunCommand,
) -> Result<Vec<mount::Mount>> {
    let mut expansions = Vec::new();
    let lexer = context.lexer;
    let mut expand = |word: &str| {
        let expansion = lexer.expand(word, &stage.state.env)?;
        let text = expansion.text.clone();
        expansions.push(expansion);
        Ok(text)
    };
    let mut parse = |written: &String| {
        mount::Mount::parse(written, &mut expand).map_err(|error| {
            let word = error.word().filter(|word| instruction.original.contains(*word)).unwrap_or(written);
            let word = word.to_owned();
            LowerError::word(error, &word)
        })
    };
    let mounts: Result<_> = command.mounts.iter().map(&mut parse).collect();
    for expansion in &expansions {
        report_unset(context, stage, instruction, expansion);
    }
    mounts
}

/// Adds the mounts of a RUN to a set; `sources` has one for each.
pub(super) fn add(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    mounts: &[mount::Mount],
    sources: &[Source],
    set: &mut MountSet,
) -> Result<()> {
    for (mount, source) in mounts.iter().zip(sources) {
        // A cache starts from `scratch`, which a stage may be called.
        let named = !mount.from.is_empty() || mount.kind == MountType::Cache;
        if named && !source.dispatched {
            return Err(
                Fault::MountFromLater { from: mount.from.clone(), target: mount.target.clone() }.into()
            );
        }
        match mount.kind {
            MountType::Secret => secret(stage, instruction, mount, set)?,
            MountType::Ssh => ssh(stage, instruction, mount, set)?,
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                files(context, stage, mount, source, set)?;
                let used = path::join("/", &mount.source);
                if named {
                    Rc::clone(&source.paths).borrow_mut().insert(used);
                } else {
                    stage.context_paths.insert(used);
                }
            }
        }
    }
    Ok(())
}

fn files(
    context: &mut Context<'_>,
    stage: &Stage<'_>,
    mount: &mount::Mount,
    source: &Source,
    set: &mut MountSet,
) -> Result<()> {
    let mut input = match (mount.kind, mount.from.is_empty()) {
        (MountType::Tmpfs, _) => None,
        (MountType::Bind, true) => context.context,
        _ => source.output,
    };
    let dest = if path::clean(&mount.target).starts_with('/') {
        mount.target.clone()
    } else {
        path::join(&path::join("/", &stage.state.dir), &mount.target)
    };
    if dest == "/" {
        return Err(Fault::MountTarget(dest).into());
    }
    let from = path::join("/", &mount.source);
    let selector = if from != "/" {
        from
    } else if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
        input = Some(owned_cache(&mut context.arena, mount, input));
        "/cache".to_owned()
    } else {
        String::new()
    };
    let kind = match mount.kind {
        MountType::Cache => MountKind::Cache(cache(context, mount)),
        MountType::Tmpfs => MountKind::Tmpfs { size: mount.size },
        _ => MountKind::Bind,
    };
    set.files.push(Pending { bind: Bind { dest, input, selector, readonly: mount.readonly }, kind });
    Ok(())
}

fn cache(context: &Context<'_>, mount: &mount::Mount) -> CacheMount {
    let id = if mount.id.is_empty() { path::clean(&mount.target) } else { mount.id.clone() };
    CacheMount {
        id: format!("{}/{id}", context.options.cache_mount_namespace),
        sharing: match mount.sharing {
            None | Some(Sharing::Shared) => CacheSharing::Shared,
            Some(Sharing::Private) => CacheSharing::Private,
            Some(Sharing::Locked) => CacheSharing::Locked,
        },
    }
}

/// The directory that a new cache with an owner or a mode starts from.
fn owned_cache(arena: &mut Arena, mount: &mount::Mount, base: Option<Output>) -> Output {
    let mut inputs = Inputs::default();
    let input = base.map_or(ActionInput::Scratch, |output| ActionInput::Vertex(inputs.add(arena, output)));
    let dir = MkDirAction {
        path: "/cache".to_owned(),
        mode: Some(mount.mode.unwrap_or(0o755) & 0o777),
        make_parents: false,
        owner: Some(ChownOpt {
            user: Some(UserOpt::Id(mount.uid.unwrap_or(0))),
            group: Some(UserOpt::Id(mount.gid.unwrap_or(0))),
        }),
        timestamp: None,
    };
    let action = FileAction {
        input,
        secondary: ActionInput::Scratch,
        output: Some(0),
        kind: FileActionKind::MkDir(dir),
    };
    let op = Op::File(FileOp { actions: vec![action] });
    let description = described("[internal] setting cache mount permissions", None);
    arena.add(NewOp { op, inputs, platform: None, meta: VertexMeta { description, ..VertexMeta::default() } })
}

fn secret(
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    mount: &mount::Mount,
    set: &mut MountSet,
) -> Result<()> {
    let mut id = if mount.source.is_empty() { mount.id.clone() } else { mount.source.clone() };
    if id.is_empty() {
        if mount.target.is_empty() {
            return Err(Fault::SecretUnnamed.into());
        }
        path::base(&mount.target).clone_into(&mut id);
    }
    stage.outline.note_secret(&id, mount.required, instruction.lines);
    let dest = match (&mount.env, mount.target.is_empty()) {
        (_, false) => Some(mount.target.clone()),
        (None, true) => Some(format!("/run/secrets/{}", path::base(&id))),
        (Some(_), true) => None,
    };
    let optional = !mount.required;
    if let Some(name) = &mount.env {
        set.secret_env.push(SecretEnv { id: id.clone(), name: name.clone(), optional });
    }
    if let Some(dest) = dest {
        let secret = SecretMount {
            id,
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            mode: mount.mode.unwrap_or(0o400),
            optional,
        };
        set.secrets.push(special(dest, MountKind::Secret(secret)));
    }
    Ok(())
}

fn ssh(
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    mount: &mount::Mount,
    set: &mut MountSet,
) -> Result<()> {
    if !mount.source.is_empty() {
        return Err(Fault::SshSource.into());
    }
    let shown = if mount.id.is_empty() { "default" } else { &mount.id };
    stage.outline.note_ssh(shown, mount.required, instruction.lines);
    let dest = if mount.target.is_empty() {
        format!("/run/buildkit/ssh_agent.{}", set.agents.len())
    } else {
        mount.target.clone()
    };
    let ssh = SshMount {
        id: mount.id.clone(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(0o600),
        optional: !mount.required,
    };
    set.agents.push(special(dest, MountKind::Ssh(ssh)));
    Ok(())
}

/// A mount without files of a vertex.
fn special(dest: String, kind: MountKind) -> Mount {
    Mount {
        input: None,
        selector: String::new(),
        dest,
        output: None,
        readonly: false,
        kind,
        result_id: String::new(),
        content_cache: MountContentCache::Default,
    }
}

impl MountSet {
    /// Shows files somewhere.
    pub(super) fn add_bind(&mut self, bind: Bind) {
        self.files.push(Pending { bind, kind: MountKind::Bind });
    }

    /// A /dev/shm of its own size, in bytes.
    pub(super) fn add_shm(&mut self, size: i64) {
        let bind =
            Bind { dest: "/dev/shm".to_owned(), input: None, selector: String::new(), readonly: false };
        self.files.push(Pending { bind, kind: MountKind::Tmpfs { size } });
    }

    /// The socket that commands are told of: that of the first agent.
    pub(super) fn ssh_socket(&self) -> Option<&str> {
        self.agents.first().map(|mount| mount.dest.as_str())
    }

    /// The secrets that become variables.
    pub(super) fn take_secret_env(&mut self) -> Vec<SecretEnv> {
        std::mem::take(&mut self.secret_env)
    }

    /// All mounts, the root and those with files by their target, and the inputs that they show.
    pub(super) fn finish(mut self, arena: &Arena, root: Option<Output>) -> (Vec<Mount>, Inputs) {
        let bind = Bind { dest: "/".to_owned(), input: root, selector: String::new(), readonly: false };
        self.files.insert(0, Pending { bind, kind: MountKind::Bind });
        self.files.sort_by(|a, b| a.bind.dest.cmp(&b.bind.dest));
        let mut inputs = Inputs::default();
        let mut mounts = Vec::with_capacity(self.files.len());
        for Pending { bind, kind } in self.files {
            // Only the root's changes go on; other mounts are written to in vain.
            let output = (bind.dest == "/").then_some(0);
            let input = bind.input.map(|output| inputs.add(arena, output));
            let mount = special(bind.dest, kind);
            mounts.push(Mount { input, selector: bind.selector, output, readonly: bind.readonly, ..mount });
        }
        mounts.extend(self.secrets);
        mounts.extend(self.agents);
        (mounts, inputs)
    }
}
