//! The `rbuild` program.

use std::process::ExitCode;

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
            rootless: !rustix::process::geteuid().is_root(),
        },
    };
    let config = Config::find(args.config.as_deref(), args.defaults.config.as_deref());
    let debug = debug || config.as_ref().is_ok_and(|(config, _)| config.debug);
    let filter = EnvFilter::try_from_env("RBUILD_LOG")
        .unwrap_or_else(|_| EnvFilter::new(if debug { "debug" } else { "info" }));
    // Of what cannot be logged nothing is said: that would go to stderr again, and panic where its disk is full.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.log_internal_errors(false).init();
    match start(&args, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!("{}", cli::causes(&err));
            ExitCode::FAILURE
        }
    }
}

fn start(args: &DaemonArgs, config: Result<(Config, Vec<String>), ConfigError>) -> Result<(), DaemonError> {
    let (config, unknown) = config?;
    for key in unknown {
        tracing::warn!("unknown key `{key}` in the configuration");
    }
    runner::rootless::enter()?;
    daemon::run(args, config)
}
