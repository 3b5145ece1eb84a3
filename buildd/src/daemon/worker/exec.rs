//! RUN: a command in a sandbox over its inputs, and what it wrote as layers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use cache::layer::{Base, RunWindow};
use cache::store::Lease;
use runner::{Exit, Limits, NetworkMode, ProcessSpec, Rlimit, SandboxSpec, SecurityMode, Stdio, User};
use solver::op::{ExecMeta, ExecOp, HostIp, NetMode, SecurityMode as LlbSecurity};
use solver::{ExecError, ExecFailure, Job, OutputRecord, Progress, Remains, Stream};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::mounts::{Mounts, Written};
use super::remains::StepRemains;
use super::{LocalWorker, output};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::{Chains, from_store};
use crate::daemon::sandboxes::{self, output_pipe};
use crate::daemon::secrets::secret;
use crate::daemon::traces;

impl LocalWorker {
    pub(super) async fn exec(&self, op: &ExecOp, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecFailure> {
        let lease = self.leases.of(&job.cx.build);
        let staging = self.chains.store.layers().staging().map_err(from_store)?;
        let mut mounts = self.mounts(op, job, staging.path()).await?;
        let begun = SystemTime::now();
        let performed = self.perform(op, job, &mounts).await;
        let written = std::mem::take(&mut mounts.written);
        let name = job.vertex.meta.custom_name().unwrap_or_default().to_owned();
        let window = match performed {
            Ok(window) => window,
            Err(error) => {
                let window = RunWindow::new(begun, SystemTime::now());
                let keep = matches!(error, ExecError::Exit { .. } | ExecError::Failed(_));
                let keep = keep.then(|| StepRemains::new(staging, written, window, name));
                return Err(ExecFailure { error, remains: keep.map(Remains::new) });
            }
        };
        mounts.ended_well();
        let chains = self.chains.clone();
        let records = blocking(move || commit(&chains, &lease, written, window, &name)).await;
        drop((mounts, staging));
        Ok(records?)
    }

    /// Runs the command of an op, and gives the time in which it ran.
    async fn perform(&self, op: &ExecOp, job: &Job, mounts: &Mounts) -> Result<RunWindow, ExecError> {
        let spec = self.spec(op, job, mounts).await?;
        let started = SystemTime::now();
        let (exit, stderr) = self.run(&spec, job).await?;
        let ended = SystemTime::now();
        for warning in &exit.warnings {
            job.cx.progress.log(Stream::Stderr, format!("{warning}\n").as_bytes());
        }
        check(op, &exit, &stderr, spec.limits, job)?;
        Ok(RunWindow::new(started, ended))
    }

    /// Runs a command, and returns with its exit the end of what it wrote to standard error.
    async fn run(&self, spec: &SandboxSpec, job: &Job) -> Result<(Exit, Vec<u8>), ExecError> {
        let (out, out_end) = output_pipe().map_err(ExecError::failed)?;
        let (err, err_end) = output_pipe().map_err(ExecError::failed)?;
        let stdio = || {
            Ok(Stdio { stdin: None, stdout: Some(out_end.try_clone()?), stderr: Some(err_end.try_clone()?) })
        };
        let handle = self.sandboxes.spawn(spec, stdio).map_err(ExecError::failed)?;
        drop((out_end, err_end));
        let (exit, _, stderr) = tokio::join!(
            sandboxes::wait(Arc::new(handle), &job.cx.cancel),
            forward(out, Stream::Stdout, &job.cx.progress),
            forward(err, Stream::Stderr, &job.cx.progress),
        );
        if job.cx.cancel.is_cancelled() {
            return Err(ExecError::Canceled);
        }
        Ok((exit.map_err(ExecError::failed)?, stderr))
    }

    /// The command of an op, to be run over its mounts.
    ///
    /// # Errors
    /// An unknown user, a secret that nobody has.
    pub(in crate::daemon) async fn process(
        &self,
        op: &ExecOp,
        job: &Job,
        mounts: &Mounts,
    ) -> Result<ProcessSpec, ExecError> {
        let base: Base = mounts.root_base.clone().ok_or_else(|| ExecError::failed(NoRoot))?;
        let who = op.meta.user.clone();
        let (user, home) = blocking(move || resolve_user(&base, &who)).await?;
        let env = self.environment(op, &home, job).await?;
        let cwd = PathBuf::from(if op.meta.cwd.is_empty() { "/" } else { &op.meta.cwd });
        Ok(ProcessSpec { args: op.meta.args.clone(), env, cwd, user, tty: None })
    }

    /// A sandbox with the command of an op as its first process.
    ///
    /// # Errors
    /// As [`Self::process`]; an address of a host that is none.
    pub(in crate::daemon) async fn spec(
        &self,
        op: &ExecOp,
        job: &Job,
        mounts: &Mounts,
    ) -> Result<SandboxSpec, ExecError> {
        let root = mounts.root.clone().ok_or_else(|| ExecError::failed(NoRoot))?;
        let ProcessSpec { args, env, cwd, user, tty } = self.process(op, job, mounts).await?;
        let mut spec = SandboxSpec { env, cwd, user, tty, ..SandboxSpec::new(root, args) };
        self.mounting.apply(&mut spec);
        spec.read_only_root = mounts.root_read_only;
        if !op.meta.hostname.is_empty() {
            spec.hostname.clone_from(&op.meta.hostname);
        }
        spec.mounts = mounts.list.clone();
        spec.network = match op.network {
            NetMode::Unset => NetworkMode::Isolated,
            NetMode::Host => NetworkMode::Host,
            NetMode::None => NetworkMode::None,
        };
        spec.security = match op.security {
            LlbSecurity::Sandbox => SecurityMode::Sandbox,
            LlbSecurity::Insecure => SecurityMode::Insecure,
        };
        spec.rlimits = op.meta.ulimits.iter().map(rlimit).collect();
        spec.limits = self.limits.of(job);
        spec.share = self.limits.share(job);
        spec.cgroup_parent = self.limits.cgroup_parent(&op.meta.cgroup_parent);
        spec.oom_score_adj = Some(self.limits.badness());
        spec.extra_hosts = op.meta.extra_hosts.iter().map(host).collect::<Result<_, _>>()?;
        spec.dns = self.dns.clone();
        if let Some(size) = mounts.shm_size {
            spec.shm_size = size;
        }
        if op.cdi_devices.is_empty() {
            return Ok(spec);
        }
        let (devices, wanted) = (self.devices.clone(), op.cdi_devices.clone());
        blocking(move || devices.inject(&wanted, &mut spec).map(|()| spec)).await.map_err(ExecError::failed)
    }

    async fn environment(&self, op: &ExecOp, home: &str, job: &Job) -> Result<Vec<String>, ExecError> {
        let ExecMeta { env, proxy_env, .. } = &op.meta;
        let mut all: Vec<String> = env.iter().map(ToString::to_string).collect();
        let mut default = |name: &str, value: &str| {
            let prefix = format!("{name}=");
            if !all.iter().any(|e| e.starts_with(&prefix)) {
                all.push(prefix + value);
            }
        };
        if let Some(p) = proxy_env {
            let pairs = [
                ("HTTP_PROXY", &p.http_proxy),
                ("HTTPS_PROXY", &p.https_proxy),
                ("FTP_PROXY", &p.ftp_proxy),
                ("NO_PROXY", &p.no_proxy),
                ("ALL_PROXY", &p.all_proxy),
            ];
            for (name, value) in pairs.into_iter().filter(|(_, v)| !v.is_empty()) {
                default(name, value);
                default(&name.to_lowercase(), value);
            }
        }
        let windows = job.vertex.platform.as_ref().is_some_and(|platform| platform.os == "windows");
        default("PATH", if windows { WINDOWS_PATH } else { runner::DEFAULT_PATH });
        default("HOME", home);
        if let Some(context) = self.traces.of_steps(&job.cx.build) {
            traces::environment(&context).iter().for_each(|(name, value)| default(name, value));
        }
        for wanted in &op.secret_env {
            let data =
                secret(&self.sessions, &wanted.id, wanted.optional, &job.cx).await?.unwrap_or_default();
            all.push(format!("{}={}", wanted.name, String::from_utf8_lossy(&data)));
        }
        Ok(all)
    }
}

/// Where programs are on Windows, as BuildKit says it.
const WINDOWS_PATH: &str = r"c:\Windows\System32;c:\Windows;C:\Windows\System32\WindowsPowerShell\v1.0";

fn resolve_user(base: &Base, who: &str) -> Result<(User, String), ExecError> {
    use crate::daemon::users;
    let resolved = users::resolve(&base.view, who).map_err(ExecError::failed)?;
    Ok((User { uid: resolved.uid, gid: resolved.gid, groups: resolved.groups }, resolved.home))
}

fn rlimit(u: &solver::op::Ulimit) -> Rlimit {
    let limit = |n: i64| u64::try_from(n).ok();
    Rlimit { name: u.name.clone(), soft: limit(u.soft), hard: limit(u.hard) }
}

fn host(h: &HostIp) -> Result<(String, IpAddr), ExecError> {
    let ip = h
        .ip
        .parse()
        .map_err(|source| ExecError::failed(BadAddress { host: h.host.clone(), ip: h.ip.clone(), source }))?;
    Ok((h.host.clone(), ip))
}

fn check(op: &ExecOp, exit: &Exit, stderr: &[u8], limits: Limits, job: &Job) -> Result<(), ExecError> {
    let code = exit.status.code();
    let good = if op.meta.valid_exit_codes.is_empty() {
        code == 0
    } else {
        op.meta.valid_exit_codes.contains(&code)
    };
    if good {
        return Ok(());
    }
    let say = |text: String| job.cx.progress.log(Stream::Stderr, text.as_bytes());
    if let (true, Some(bytes)) = (exit.oom_killed, limits.memory) {
        say(format!("killed: the step's memory limit of {} MiB was reached\n", bytes >> 20));
    }
    if let (true, Some(n)) = (exit.forks_refused, limits.pids) {
        say(format!("the step's limit of {n} processes was reached\n"));
    }
    Err(ExecError::Exit { code, stderr: String::from_utf8_lossy(stderr).into() })
}

/// How many bytes at the end of the output may say why a command failed.
const TAIL: usize = 16 << 10;

/// Hands output on as it comes, until the sandbox and all its processes have closed the pipe; returns the end of it.
async fn forward(mut from: Receiver, stream: Stream, to: &Progress) -> Vec<u8> {
    let (mut buf, mut tail) = (vec![0; 16 << 10], Vec::new());
    loop {
        match from.read(&mut buf).await {
            Ok(0) | Err(_) => return tail,
            Ok(n) => {
                to.log(stream, &buf[..n]);
                tail.extend_from_slice(&buf[n.saturating_sub(TAIL)..n]);
                tail.drain(..tail.len().saturating_sub(TAIL));
            }
        }
    }
}

fn commit(
    chains: &Chains,
    lease: &Lease,
    written: Vec<Written>,
    window: RunWindow,
    name: &str,
) -> Result<Vec<(u32, OutputRecord)>, ExecError> {
    let outputs = written.into_iter().filter_map(|written| Some((written.output?, written)));
    let one = |(output, written)| Ok((output, output::commit(&chains.store, lease, written, window, name)?));
    outputs.map(one).collect()
}

/// An exec without a root mount.
#[derive(Debug, thiserror::Error)]
#[error("the operation has no mount at `/`")]
struct NoRoot;

/// `--add-host` with something that is no address.
#[derive(Debug, thiserror::Error)]
#[error("invalid address `{ip}` for host `{host}`")]
struct BadAddress {
    host: String,
    ip: String,
    #[source]
    source: std::net::AddrParseError,
}
