//! Starting and leaving.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache::registry::{HostConfig, Registries, Tuning};
use cache::store::{RootLock, Store, StoreError, StoreOptions};
use cache::tree::Trees;
use runner::{Launcher, LauncherConfig, RunnerError};
use solver::{Digest, Engine};
use tokio_util::sync::CancellationToken;

use super::builds::Builds;
use super::chains::Chains;
use super::config::{CdiConfig, Config, ConfigError};
use super::devices::{DEVICE, Devices};
use super::diffids::DiffIds;
use super::explain::Explainer;
use super::export::Exporter;
use super::gateway::Gateways;
use super::gc;
use super::history::Histories;
use super::leases::Leases;
use super::listen::{self, Address, Leaving, ListenError};
use super::locals::Locals;
use super::metrics::{self, Metrics};
use super::mounting::{Mounting, MountingError};
use super::parts::Parts;
use super::provenance::Requests;
use super::sandboxes::Sandboxes;
use super::side::Passed;
use super::sources::Sources;
use super::sources::image::ImageSource;
use super::tls::Certificates;
use super::traces::{Collector, CollectorError, Target, Traces};
use super::worker::{LocalWorker, StepLimits};
use crate::private_dir::private_dir;
use crate::session::SessionManager;
use crate::tls::{TlsError, TlsFiles};

/// How a daemon is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonArgs {
    /// Where state is kept; none: the configuration says, or the default.
    pub root: Option<PathBuf>,
    /// Where to listen: `unix://PATH`, `tcp://HOST:PORT`; none: the configuration says, or the default.
    pub addr: Vec<String>,
    /// The configuration file; none: the default one, if it exists.
    pub config: Option<PathBuf>,
    /// Leave after this long without a client.
    pub idle_timeout: Option<Duration>,
    /// It was started by a client: it waits for one that is leaving, and leaves for a client of another version.
    pub background: bool,
    /// What holds where neither the arguments nor the configuration say.
    pub defaults: Defaults,
}

/// The user's own places, found before [`runner::rootless::enter`] makes the user root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Where state is kept.
    pub root: PathBuf,
    /// The socket that clients of the same user try.
    pub socket: PathBuf,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Whether the user is not root.
    pub rootless: bool,
}

/// Why a daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The root cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Files of steps cannot be put together as asked for.
    #[error(transparent)]
    Mounting(#[from] MountingError),
    /// No sandboxes can be had.
    #[error("cannot start the launcher")]
    Launcher(#[from] RunnerError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificates give no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The environment asks for traces in a way that is not known.
    #[error(transparent)]
    Traces(#[from] CollectorError),
    /// No runtime.
    #[error("cannot start the async runtime")]
    Runtime(#[source] std::io::Error),
}

/// Threads of the runtime; what blocks goes to threads of its own.
const RUNTIME_THREADS: usize = 2;
/// Threads for blocking work are ended when they were idle this long, which keeps the idle daemon small.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long builds that outlive their calls are waited for: with what listening takes, SIGTERM promises 10 s.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// How long a daemon that a client has started waits for one that is leaving: a little longer than that may take.
const PREDECESSOR: Duration = Duration::from_secs(12);
/// How often it looks.
const POLL: Duration = Duration::from_millis(10);

/// Runs a daemon until it is told to leave. To be called before there are threads.
///
/// # Errors
/// See [`DaemonError`].
pub fn run(args: &DaemonArgs, config: Config) -> Result<(), DaemonError> {
    runner::share_heaps();
    let root = args.root.as_ref().or(config.root.as_ref()).unwrap_or(&args.defaults.root).clone();
    // First of all: the launcher removes what an earlier one of the same root has left behind.
    let patience = PREDECESSOR + config.shutdown_grace.map_or(Duration::ZERO, |grace| grace.0);
    let lock = take_lock(&root, if args.background { patience } else { Duration::ZERO })?;
    // Only limits are lost where there is none; the daemon warns of that.
    if let Err(error) = runner::make_room() {
        tracing::warn!("cannot leave the cgroup for steps: {error}");
    }
    let launching = LauncherConfig { id: launcher_id(&root), program: None };
    let launcher = Launcher::start(launching.clone())?;
    let sandboxes = Arc::new(Sandboxes::new(launching, launcher));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let done = runtime.block_on(serve(args, config, lock, sandboxes.clone()));
    runtime.shutdown_timeout(Duration::from_millis(500));
    sandboxes.shutdown();
    done
}

/// Takes the root's lock from a daemon that leaves within `patience`.
fn take_lock(root: &Path, patience: Duration) -> Result<RootLock, StoreError> {
    let begun = Instant::now();
    loop {
        match RootLock::take(root) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < patience => std::thread::sleep(POLL),
            other => return other,
        }
    }
}

/// Lets a test play a power cut: the store takes the value for the id of this boot of the machine, and so checks all
/// that was not yet safely on disk. Not for users, hence in no help text.
const BOOT_ID: &str = "RBUILD_BOOT_ID";

/// How the store is opened.
fn store_options() -> StoreOptions {
    let boot_id = std::env::var(BOOT_ID).ok().filter(|id| !id.is_empty());
    StoreOptions { boot_id, ..StoreOptions::default() }
}

/// Eight letters and digits that stay the same for a root.
fn launcher_id(root: &Path) -> String {
    let path = fs_err::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    Digest::of(path.as_os_str().as_encoded_bytes()).hex()[..8].to_owned()
}

async fn serve(
    args: &DaemonArgs,
    config: Config,
    lock: RootLock,
    sandboxes: Arc<Sandboxes>,
) -> Result<(), DaemonError> {
    let addresses = addresses(args, &config)?;
    let certificates = certificates(&config)?;
    let debug_address = config.grpc.debug_address.clone().filter(|address| !address.is_empty());
    let parts = Arc::new(put_together(args, config, lock, sandboxes)?);
    let builds = Arc::new(Builds::new(parts.store.tmp()));
    let leaving = Leaving::default();
    let stop = &leaving.stop;
    tokio::spawn(wait_for_signals(stop.clone(), leaving.hurry.clone()));
    if let Some(certificates) = &certificates {
        tokio::spawn(read_again(certificates.clone()));
    }
    tokio::spawn(gc::serve(parts.clone(), parts.garbage.clone(), stop.clone()));
    if let Some(idle) = args.idle_timeout {
        tokio::spawn(leave_when_idle(idle, parts.clone(), builds.clone(), stop.clone()));
    }
    if let Some(address) = debug_address {
        metrics::serve(&address, &parts.config.grpc, parts.metrics.clone(), builds.clone(), stop.clone())
            .await?;
    }
    let served = listen::serve(&addresses, certificates, &parts, &builds, &leaving, args.background).await;
    let deadline = tokio::time::Instant::now() + STRAGGLERS;
    builds.cancel_all();
    if !builds.ended(deadline).await {
        tracing::warn!("builds did not end in time");
    }
    parts.traces.shutdown().await;
    parts.diff_ids.close();
    if let Err(e) = parts.store.checkpoint() {
        tracing::warn!("cannot make the last builds durable: {e}");
    }
    Ok(served?)
}

fn addresses(args: &DaemonArgs, config: &Config) -> Result<Vec<Address>, ListenError> {
    let given = if args.addr.is_empty() { &config.grpc.address } else { &args.addr };
    if !given.is_empty() {
        return given.iter().map(|a| Address::parse(a)).collect();
    }
    let socket = args.defaults.socket.clone();
    let dir = socket.parent().unwrap_or(Path::new("/"));
    private_dir(dir).map_err(|source| ListenError::Bind { address: socket.display().to_string(), source })?;
    Ok(vec![Address::Unix(socket)])
}

/// What tcp addresses are encrypted with, if anything.
fn certificates(config: &Config) -> Result<Option<Arc<Certificates>>, TlsError> {
    let given = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let tls = &config.grpc.tls;
    let files = TlsFiles { ca: given(&tls.ca), cert: given(&tls.cert), key: given(&tls.key) };
    if files.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Certificates::read(files)?)))
}

fn put_together(
    args: &DaemonArgs,
    config: Config,
    lock: RootLock,
    sandboxes: Arc<Sandboxes>,
) -> Result<Parts, DaemonError> {
    let store = Store::open_locked(lock, store_options())?;
    let mounting = Mounting::probe(&store)?;
    let trees = Arc::new(Trees::new(Arc::new(store.nodes())));
    let chains = Chains { store: store.clone(), trees: trees.clone() };
    let sessions = Arc::new(SessionManager::new());
    let passed = Arc::<Passed>::default();
    let leases = Arc::new(Leases::new(store.clone()));
    let locals = Arc::new(Locals::new(store.clone(), trees, passed.clone(), sessions.clone()));
    let registries = Registries::new(registry_hosts(&config), Tuning::default());
    let images = Arc::new(ImageSource::new(chains.clone(), leases.clone(), sessions.clone(), registries));
    let sources = Arc::new(Sources::new(images.clone(), &chains, sessions.clone(), locals.clone(), &leases));
    let diff_ids = Arc::new(DiffIds::new(store.clone()));
    let collector =
        Target::of_environment(|name| std::env::var(name).ok())?.map(Collector::start).transpose()?;
    let traces = Arc::new(Traces::new(collector));
    let worker = Arc::new(LocalWorker {
        chains: chains.clone(),
        locals: locals.clone(),
        sessions: sessions.clone(),
        leases: leases.clone(),
        sandboxes: sandboxes.clone(),
        mounting,
        diff_ids: diff_ids.clone(),
        devices: devices(&config.cdi),
        dns: dns(&config),
        limits: StepLimits::new(&config.worker.oci),
        traces: traces.clone(),
        travels: Arc::default(),
    });
    let engine =
        Engine::new(Arc::new(store.records()), sources.clone(), worker.clone(), parallelism(&config));
    let exporter = Exporter {
        chains: chains.clone(),
        images: images.clone(),
        sessions: sessions.clone(),
        passed: passed.clone(),
        diff_ids: diff_ids.clone(),
        seen: Arc::default(),
    };
    let metrics = Arc::new(Metrics::new());
    Ok(Parts {
        provenance_environment: Arc::new(config.provenance_environment()?),
        histories: Arc::new(Histories::new(store.clone(), metrics.clone())),
        explainer: Arc::new(Explainer::new(store.clone(), chains.trees.clone())),
        traces,
        metrics,
        entitlements: entitlements(&config, args.defaults.rootless),
        garbage: Arc::default(),
        config,
        store,
        chains,
        engine,
        sessions,
        passed,
        locals,
        leases,
        images,
        sources,
        exporter,
        mounting,
        diff_ids,
        sandboxes,
        worker,
        gateways: Gateways::default(),
        requests: Requests::default(),
        checkpointing: Arc::default(),
    })
}

fn parallelism(config: &Config) -> usize {
    match config.worker.oci.max_parallelism {
        0 => cache::cores() * 2,
        n => n,
    }
}

/// What builds may ask for. To ask for devices is always fine where there may be any: which ones is another question.
fn entitlements(config: &Config, rootless: bool) -> Vec<String> {
    let mut granted = config.entitlements(rootless);
    if !config.cdi.disabled {
        granted.push(DEVICE.to_owned());
    }
    granted
}

fn devices(config: &CdiConfig) -> Arc<Devices> {
    Arc::new(match config.disabled {
        true => Devices::none(),
        false => Devices::new(&config.spec_dirs, &config.auto_allowed),
    })
}

fn dns(config: &Config) -> runner::Dns {
    let given = config.dns.clone().unwrap_or_default();
    runner::Dns { nameservers: given.nameservers, search: given.search_domains, options: given.options }
}

fn registry_hosts(config: &Config) -> BTreeMap<String, HostConfig> {
    let host = |r: &super::config::Registry| HostConfig {
        mirrors: r.mirrors.clone(),
        http: r.http,
        insecure: r.insecure.unwrap_or(false),
        ca: r.ca.clone(),
        keypair: r.keypair.iter().map(|pair| (pair.cert.clone(), pair.key.clone())).collect(),
        ..HostConfig::default()
    };
    config.registry.iter().map(|(name, r)| (name.clone(), host(r))).collect()
}

/// The first signal lets builds that run go on for a while, the second ends them.
async fn wait_for_signals(stop: CancellationToken, hurry: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals");
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        // It may leave already, of its own accord.
        if stop.is_cancelled() { hurry.cancel() } else { stop.cancel() }
    }
}

/// Reads the certificates again at each SIGHUP.
async fn read_again(certificates: Arc<Certificates>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        certificates.latest().await;
    }
}

async fn leave_when_idle(idle: Duration, parts: Arc<Parts>, builds: Arc<Builds>, stop: CancellationToken) {
    let mut quiet_since = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(idle.min(Duration::from_secs(5)) / 2).await;
        if builds.running() > 0 || parts.sessions.is_used() {
            quiet_since = tokio::time::Instant::now();
        } else if quiet_since.elapsed() >= idle {
            tracing::info!("idle: leaving");
            stop.cancel();
            return;
        }
    }
}
