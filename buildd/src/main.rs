//! The `rbuild` program.

use std::process::ExitCode;

use buildd::causes::causes;
use buildd::daemon::{self, Config, ConfigError, DaemonArgs, DaemonError, Defaults};
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
    let debug = debug || config.as_ref().is_ok_and(|(config, _)| config.debug);
    let filter = EnvFilter::try_from_env("RBUILD_LOG")
        .unwrap_or_else(|_| EnvFilter::new(if debug { "debug" } else { "info" }));
    // Of what cannot be logged nothing is said: that would go to stderr again, and panic where its disk is full.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.log_internal_errors(false).init();
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
    config.cdi.disabled = flags.cdi_disabled.unwrap_or(config.cdi.disabled);
    if !flags.cdi_spec_dirs.is_empty() {
        config.cdi.spec_dirs.clone_from(&flags.cdi_spec_dirs);
    }
    let worker = &mut config.worker.oci;
    worker.labels.extend(flags.labels.clone());
    worker.gc = flags.gc.unwrap_or(worker.gc);
    worker.max_parallelism = flags.max_parallelism.unwrap_or(worker.max_parallelism);
    config
}

fn start(args: &DaemonArgs, config: Result<(Config, Vec<String>), ConfigError>) -> Result<(), DaemonError> {
    let (config, unknown) = config?;
    for key in unknown {
        tracing::warn!("unknown key `{key}` in the configuration");
    }
    runner::rootless::enter()?;
    daemon::run(args, config)
}
