//! The mounts of a RUN: from LLB to what the runner mounts.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cache::layer::{Base, copy_out};
use cache::store::{CacheMountLease, CacheMountRequest, Seed, Sharing};
use cache::tree::{Follow, TreePath};
use runner::overlay::{Overlay, Upper};
use runner::{Mount as RunnerMount, MountSource, RootFs};
use solver::op::{CacheMount, CacheSharing, ExecOp, Mount, MountKind};
use solver::{ExecError, Job, LayerId, Output};

use super::LocalWorker;
use crate::daemon::agent::AgentSocket;
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::keyed_cache::MountUse;
use crate::daemon::mounting::{Copied, Mounting};
use crate::daemon::secrets::secret;
use crate::daemon::traces::{SOCKET, SpanSocket};

/// What a sandbox sees, and what has to live as long as it runs.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Mounts {
    pub(super) root: Option<RootFs>,
    pub(super) root_base: Option<Base>,
    pub(super) root_read_only: bool,
    pub(super) list: Vec<RunnerMount>,
    pub(super) written: Vec<Written>,
    pub(super) shm_size: Option<u64>,
    caches: Vec<CacheMountLease>,
    uses: Vec<MountUse>,
    agents: Vec<AgentSocket>,
    spans: Option<SpanSocket>,
}

/// What a step writes at one of its mounts.
#[derive(Debug)]
pub(super) struct Written {
    /// Which mount of the op this is.
    pub(super) mount: usize,
    /// Which output it becomes, if the step ends well.
    pub(super) output: Option<u32>,
    /// The layers below.
    pub(super) below: Vec<LayerId>,
    pub(super) upper: PathBuf,
    pub(super) base: Base,
    /// Where the step wrote instead, if overlays cannot be mounted.
    pub(super) copied: Option<Copied>,
}

impl Mounts {
    /// What was done with them was well done.
    pub(super) fn ended_well(&mut self) {
        self.uses.drain(..).for_each(MountUse::ended_well);
    }

    /// Makes a working directory, if there is none; where nothing can be written, what the sandbox says is enough. Blocking.
    ///
    /// # Errors
    /// When a directory on the way cannot be made.
    pub(in crate::daemon) fn make_working_dir(&self, cwd: &str) -> std::io::Result<()> {
        let Some(base) = &self.root_base else { return Ok(()) };
        match &self.root {
            Some(RootFs::Directory(dir)) => working_dir(dir, base, cwd),
            Some(RootFs::Overlay(Overlay { upper: Some(upper), .. })) => working_dir(&upper.dir, base, cwd),
            _ => Ok(()),
        }
    }

    /// What the mount at `dest` shows now, as layers or as a directory; `None` for a mount of another kind.
    pub(in crate::daemon) fn shown(&self, dest: &str) -> Option<Shown> {
        if dest == "/" {
            return self.root.as_ref().map(|root| match root {
                RootFs::Directory(dir) => Shown::Directory(dir.clone()),
                RootFs::Overlay(overlay) => Shown::layers(overlay),
            });
        }
        let mount = self.list.iter().rev().find(|mount| mount.target == Path::new(dest))?;
        match &mount.source {
            MountSource::Directory { path, .. } => Some(Shown::Directory(path.clone())),
            MountSource::Layers { overlay, .. } => Some(Shown::layers(overlay)),
            MountSource::Volume { .. }
            | MountSource::File { .. }
            | MountSource::Tmpfs { .. }
            | MountSource::Secret { .. } => None,
        }
    }
}

/// What a mount shows, for looking at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum Shown {
    /// A directory.
    Directory(PathBuf),
    /// Layers, what was written on top of them.
    Layers(Overlay),
}

impl Shown {
    fn layers(overlay: &Overlay) -> Self {
        let written = overlay.upper.iter().map(|upper| upper.dir.clone());
        Self::Layers(Overlay { lower: overlay.lower.iter().cloned().chain(written).collect(), upper: None })
    }
}

impl LocalWorker {
    /// Gets everything that an op's mounts show, with scratch space in `dir`.
    ///
    /// # Errors
    /// A secret or agent that nobody has; a layer that is not here; cancellation while another holds a cache.
    pub(in crate::daemon) async fn mounts(
        &self,
        op: &ExecOp,
        job: &Job,
        dir: &Path,
    ) -> Result<Mounts, ExecError> {
        let mut all = Mounts::default();
        // Outside in, so that a mount lies on the one that it is nested in.
        let mut order: Vec<(usize, &Mount)> = op.mounts.iter().enumerate().collect();
        order.sort_by_key(|(_, m)| m.dest.split('/').filter(|c| !c.is_empty()).count());
        let mut caches = Vec::new();
        for (serial, mount) in order {
            if let MountKind::Cache(cache) = &mount.kind {
                caches.push((all.list.len(), mount, cache));
            }
            self.mount(&mut all, mount, &op.meta.cwd, serial, job, dir).await?;
        }
        self.caches(&mut all, caches, &op.meta.args, job).await?;
        if self.traces.of_steps(&job.cx.build).is_some() {
            let socket = SpanSocket::open(&self.traces, dir.join("spans")).map_err(ExecError::failed)?;
            let source = MountSource::File { path: socket.path().to_owned() };
            all.list.push(RunnerMount { target: SOCKET.into(), source, read_only: false });
            all.spans = Some(socket);
        }
        Ok(all)
    }

    async fn mount(
        &self,
        all: &mut Mounts,
        m: &Mount,
        cwd: &str,
        serial: usize,
        job: &Job,
        dir: &Path,
    ) -> Result<(), ExecError> {
        let source = match &m.kind {
            MountKind::Bind => match self.bind(all, m, cwd, serial, job, dir).await? {
                Some(source) => source,
                None => return Ok(()),
            },
            // The directory is filled in once all caches are taken.
            MountKind::Cache(_) => MountSource::Directory { path: PathBuf::new(), subpath: PathBuf::new() },
            MountKind::Tmpfs { size } => {
                let size = u64::try_from(*size).ok().filter(|n| *n > 0);
                if m.dest == "/dev/shm" {
                    all.shm_size = size;
                    return Ok(());
                }
                MountSource::Tmpfs { size, mode: None }
            }
            MountKind::Secret(s) => match secret(&self.sessions, &s.id, s.optional, &job.cx).await? {
                Some(data) => MountSource::Secret { data, uid: s.uid, gid: s.gid, mode: s.mode },
                None => return Ok(()),
            },
            MountKind::Ssh(ssh) => {
                let path = dir.join(format!("agent.{serial}"));
                let Some(socket) = AgentSocket::open(&self.sessions, ssh, path, &job.cx).await? else {
                    return Ok(());
                };
                let source = MountSource::File { path: socket.path().to_owned() };
                all.agents.push(socket);
                source
            }
        };
        // As in BuildKit a relative target lies below the working directory.
        let target = Path::new("/").join(cwd).join(&m.dest);
        all.list.push(RunnerMount { target, source, read_only: m.readonly });
        Ok(())
    }

    /// An input's files; `None` for the root, which is no mount of its own.
    async fn bind(
        &self,
        all: &mut Mounts,
        m: &Mount,
        cwd: &str,
        serial: usize,
        job: &Job,
        dir: &Path,
    ) -> Result<Option<MountSource>, ExecError> {
        let (base, lower) = match m.input {
            Some(i) => (self.chains.base(&job.inputs[i])?, self.chains.dirs(&job.inputs[i].chain)?),
            None => (Base::scratch(self.chains.trees.clone()), Vec::new()),
        };
        let is_root = m.dest == "/";
        // A read-only mount of nothing still needs something to show, and the root a place for mount points that it lacks.
        let writable = !m.readonly || lower.is_empty();
        let upper = match writable || is_root {
            true => Some(upper(dir, serial, &base).map_err(ExecError::failed)?),
            false => None,
        };
        let copied = match self.mounting {
            Mounting::Overlay(_) => None,
            Mounting::Copy => {
                let (base, tree) = (base.clone(), dir.join(format!("tree.{serial}")));
                Some(blocking(move || Copied::make(&base, tree)).await.map_err(ExecError::failed)?)
            }
        };
        let tree = copied.as_ref().map(|c| c.dir.clone());
        if let (true, Some(upper)) = (is_root, &upper) {
            working_dir(tree.as_ref().unwrap_or(&upper.dir), &base, cwd).map_err(ExecError::failed)?;
        }
        if let (Some(upper), true) = (&upper, writable) {
            let (upper, base) = (upper.dir.clone(), base.clone());
            let below = m.input.map_or_else(Vec::new, |i| job.inputs[i].chain.to_vec());
            let output = m.output.map(|output| output as u32);
            all.written.push(Written { mount: serial, output, below, upper, base, copied });
        }
        let overlay = Overlay { lower, upper };
        if is_root {
            all.root = Some(tree.map_or(RootFs::Overlay(overlay), RootFs::Directory));
            all.root_base = Some(base);
            all.root_read_only = m.readonly;
            return Ok(None);
        }
        let subpath = PathBuf::from(&m.selector);
        Ok(Some(match tree {
            Some(path) => MountSource::Directory { path, subpath },
            None => MountSource::Layers { overlay, subpath },
        }))
    }

    /// All cache mounts at once: taken one by one, two steps could wait for each other.
    async fn caches(
        &self,
        all: &mut Mounts,
        wanted: Vec<(usize, &Mount, &CacheMount)>,
        args: &[String],
        job: &Job,
    ) -> Result<(), ExecError> {
        let travels = self.travels.of(&job.cx.build);
        let (mut requests, mut wishes) = (Vec::new(), Vec::new());
        for (_, m, cache) in &wanted {
            let input = m.input.map(|i| &job.inputs[i]);
            let request = request(m, cache, input, args, job);
            let mut seed = input.map(|o| self.seed(o, &m.selector)).transpose()?;
            if let Some(travels) = &travels {
                let (wish, filled) = travels.wish(&request, seed, &job.cx);
                wishes.push(wish);
                seed = filled;
            }
            requests.push((request, seed));
        }
        let mounts = self.chains.store.cache_mounts();
        let leases = tokio::select! {
            leases = mounts.acquire_all(requests) => leases.map_err(from_store)?,
            () = job.cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let mut wishes = wishes.into_iter();
        for ((at, _, _), lease) in wanted.into_iter().zip(leases) {
            all.uses.extend(wishes.next().map(|wish| wish.granted(&lease)));
            if let MountSource::Directory { path, .. } = &mut all.list[at].source {
                lease.dir().clone_into(path);
            }
            all.caches.push(lease);
        }
        Ok(())
    }

    /// What fills a new cache: its input's files.
    fn seed(&self, input: &Output, selector: &str) -> Result<Seed, ExecError> {
        let (base, selector) = (self.chains.base(input)?, selector.to_owned());
        Ok(Box::new(move |dir| copy_out(&base.view, selector.as_bytes(), dir).map_err(std::io::Error::other)))
    }
}

fn request(
    m: &Mount,
    cache: &CacheMount,
    seed: Option<&Output>,
    args: &[String],
    job: &Job,
) -> CacheMountRequest {
    // Owner and mode are set on an input made for the purpose, so another input is another cache.
    let base = seed.and_then(|o| o.content).map(|content| {
        let mut h = solver::digest::Hasher::new("rbuild.cache-mount.seed.v1");
        h.digest(&content).str(&m.selector);
        h.finish()
    });
    CacheMountRequest {
        id: cache.id.clone(),
        sharing: match cache.sharing {
            CacheSharing::Shared => Sharing::Shared,
            CacheSharing::Private => Sharing::Private,
            CacheSharing::Locked => Sharing::Locked,
        },
        owner: None,
        base,
        step: format!("{:p}", std::ptr::from_ref(job)),
        clear_for: job.vertex.meta.ignore_cache.then(|| job.cx.build.clone()),
        description: described(m, cache, args),
    }
}

/// What `du` tells of a cache, in BuildKit's words.
fn described(m: &Mount, cache: &CacheMount, args: &[String]) -> String {
    let step = args.join(" ");
    let mut text = format!("cached mount {} from exec {}", m.dest, solver::redacted(&step));
    if cache.id != m.dest {
        let _infallible = write!(text, " with id {:?}", cache.id);
    }
    text
}

fn upper(dir: &Path, serial: usize, base: &Base) -> std::io::Result<Upper> {
    let upper = Upper { dir: dir.join(format!("upper.{serial}")), work: dir.join(format!("work.{serial}")) };
    fs_err::create_dir(&upper.dir)?;
    fs_err::create_dir(&upper.work)?;
    let root = base.view.get(&TreePath::root()).ok().flatten();
    let (mode, uid, gid) = root.map_or((0o755, 0, 0), |r| (r.stat.mode & 0o7777, r.stat.uid, r.stat.gid));
    std::os::unix::fs::chown(&upper.dir, Some(uid), Some(gid))?;
    fs_err::set_permissions(&upper.dir, std::fs::Permissions::from_mode(mode))?;
    Ok(upper)
}

/// Makes the working directory where the base has none, as BuildKit does: a step may have removed it.
///
/// Existing directories on the way are made in the upper directory as they are below, so that they merge.
fn working_dir(upper: &Path, base: &Base, cwd: &str) -> std::io::Result<()> {
    if cwd.is_empty() || matches!(base.view.resolve(cwd.as_bytes(), Follow::Last), Ok(Some(_))) {
        return Ok(());
    }
    let mut real = TreePath::root();
    let mut missing = false;
    for name in cwd.split('/').filter(|n| !n.is_empty() && *n != ".") {
        let Ok(next) = real.join(name.as_bytes()) else { return Ok(()) };
        // A link on the way, or a path that leads nowhere: the sandbox says what is wrong.
        let found =
            if missing { None } else { base.view.resolve(next.as_bytes(), Follow::Last).unwrap_or(None) };
        missing = found.is_none();
        real = found.as_ref().map_or(next, |f| f.path.clone());
        let here = upper.join(real.as_path());
        if !here.exists() {
            fs_err::create_dir_all(&here)?;
            let (mode, uid, gid) =
                found.map_or((0o755, 0, 0), |f| (f.stat.mode & 0o7777, f.stat.uid, f.stat.gid));
            std::os::unix::fs::chown(&here, Some(uid), Some(gid))?;
            fs_err::set_permissions(&here, std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}
