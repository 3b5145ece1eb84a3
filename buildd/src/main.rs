//! The `rbuild` program.

use std::process::ExitCode;

use buildd::cli;
use buildd::daemon::{self, DaemonArgs};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    runner::launcher_main();
    cli::main(serve)
}

/// The verb `daemon`.
fn serve(args: cli::DaemonArgs) -> ExitCode {
    let level = if args.debug { "debug" } else { "info" };
    let filter = EnvFilter::try_from_env("RBUILD_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = DaemonArgs {
        root: args.root.unwrap_or_else(cli::DaemonArgs::default_root),
        addr: args.addr,
        config: args.config,
        idle_timeout: args.idle_timeout,
    };
    let done = runner::rootless::enter().map_err(daemon::DaemonError::from).and_then(|()| daemon::run(&args));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!("{}", cli::causes(&err));
            ExitCode::FAILURE
        }
    }
}
