//! The `rbuild` program.

use std::process::ExitCode;

use buildd::causes::causes;
use buildd::daemon::{
    self, Config, ConfigError, DaemonArgs, DaemonError, Defaults, LogFormat, LogLevel, Size,
};
use buildd::{cli, client};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    runner::launcher_main();
    cli::main(serve)
}

/// The verb `daemon`.
fn serve(args: cli::DaemonArgs) -> ExitCode {
    let debug = args.debug;
    let (flags, tls) = (args.stock, args.tls);
    let rootless = !rustix::process::geteuid().is_root();
    let args = DaemonArgs {
        root: args.root,
        addr: args.addr,
        config: args.config,
        idle_timeout: args.idle_timeout,
        background: args.background,
        defaults: Defaults {
            root: cli::DaemonArgs::default_root(),
            socket: client::own_socket(),
            config: cli::DaemonArgs::default_config(),
            rootless,
        },
    };
    let config = Config::find(args.config.as_deref(), args.defaults.config.as_deref())
        .map(|(config, unknown)| (with_flags(config, &flags, tls, rootless), unknown));
    log(config.as_ref().ok().map(|(config, _)| config), debug);
    for flag in &flags.without_effect {
        tracing::warn!("`--{flag}` has no effect here");
    }
    match start(&args, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!("{}", causes(&err));
            ExitCode::FAILURE
        }
    }
}

/// Begins to log.
fn log(config: Option<&Config>, debug: bool) {
    let level = match config {
        _ if debug => LogLevel::Debug,
        Some(config) => {
            config.log.level.unwrap_or(if config.debug { LogLevel::Debug } else { LogLevel::Info })
        }
        None => LogLevel::Info,
    };
    let filter = EnvFilter::try_from_env("RBUILD_LOG").unwrap_or_else(|_| EnvFilter::new(level.name()));
    // Of what cannot be logged nothing is said: that would go to stderr again, and panic where its disk is full.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.log_internal_errors(false);
    match config.map(|config| config.log.format).unwrap_or_default() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The configuration, where buildkitd's flags say no other.
fn with_flags(mut config: Config, flags: &cli::StockFlags, tls: cli::TlsFlags, rootless: bool) -> Config {
    if !flags.entitlements.is_empty() {
        let granted = [config.entitlements(rootless), flags.entitlements.clone()].concat();
        config.insecure_entitlements = Some(granted);
    }
    let files = &mut config.grpc.tls;
    for (key, flag) in
        [(&mut files.ca, tls.tlscacert), (&mut files.cert, tls.tlscert), (&mut files.key, tls.tlskey)]
    {
        *key = flag.or(key.take());
    }
    config.grpc.debug_address = flags.debug_address.clone().or(config.grpc.debug_address);
    match flags.log_format.as_deref() {
        Some("json") => config.log.format = LogFormat::Json,
        Some(_) => config.log.format = LogFormat::Text,
        None => {}
    }
    config.log.level = flags.log_level.as_deref().and_then(LogLevel::named).or(config.log.level);
    config.cdi.disabled = flags.cdi_disabled.unwrap_or(config.cdi.disabled);
    if !flags.cdi_spec_dirs.is_empty() {
        config.cdi.spec_dirs.clone_from(&flags.cdi_spec_dirs);
    }
    config.grpc.gid = flags.group.or(config.grpc.gid);
    config.proxy_network = flags.proxy_network.unwrap_or(config.proxy_network);
    let worker = &mut config.worker.oci;
    if !flags.platforms.is_empty() {
        worker.platforms.clone_from(&flags.platforms);
    }
    if flags.keep_storage.iter().any(Option::is_some) {
        [worker.reserved_space, worker.min_free_space, worker.max_used_space] =
            flags.keep_storage.map(|bytes| bytes.map(Size::Bytes));
    }
    worker.selinux = flags.selinux.unwrap_or(worker.selinux);
    if let Some(profile) = &flags.apparmor_profile {
        worker.apparmor_profile.clone_from(profile);
    }
    worker.labels.extend(flags.labels.clone());
    worker.gc = flags.gc.unwrap_or(worker.gc);
    worker.max_parallelism = flags.max_parallelism.unwrap_or(worker.max_parallelism);
    config
}

fn start(args: &DaemonArgs, config: Result<(Config, Vec<String>), ConfigError>) -> Result<(), DaemonError> {
    let (config, unknown) = config?;
    config.check()?;
    for key in unknown {
        tracing::warn!("unknown key `{key}` in the configuration");
    }
    runner::rootless::enter()?;
    daemon::run(args, config)
}
