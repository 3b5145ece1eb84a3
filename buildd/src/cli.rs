//! The command line: one file per verb.
//!
//! stdout is data, stderr is progress and errors. Every failure exits 1, wrong usage too; only `run` passes other codes on, and
//! exits [`run::FAILED`] when the failure is not the container's.

mod build;
mod completions;
mod console;
mod context;
mod csv;
mod daemon;
mod debug;
mod dockerfile;
mod du;
mod explain;
mod history;
mod images;
mod inspect;
mod json;
mod load;
mod prune;
mod pull;
mod push;
mod rmi;
mod run;
mod save;
mod table;
mod tag;
mod tls;
mod transfer;
mod version;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::client::{ClientError, render};

pub use self::context::Context;
pub use self::daemon::{DaemonArgs, StockFlags, TlsFlags};

/// Builds container images from Dockerfiles, and runs them
#[derive(Debug, Parser)]
#[command(name = "rbuild", version, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    /// The daemon's address: unix:///PATH or tcp://HOST:PORT [default: the user's own daemon, started when needed]
    #[arg(long, env = "RBUILD_HOST", value_name = "ADDRESS", hide_env_values = true)]
    addr: Option<String>,
    #[command(flatten)]
    tls: tls::Args,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Build(Box<build::Args>),
    Run(Box<run::Args>),
    Images(images::Args),
    Rmi(rmi::Args),
    Tag(tag::Args),
    Pull(pull::Args),
    Push(push::Args),
    Save(save::Args),
    Load(load::Args),
    History(history::Args),
    Inspect(inspect::Args),
    Du(du::Args),
    Explain(explain::Args),
    Prune(prune::Args),
    Daemon(Box<DaemonArgs>),
    Dockerfile(dockerfile::Args),
    Debug(debug::Args),
    Version(version::Args),
    Completions(completions::Args),
}

/// The whole program. `daemon` runs the verb of that name: this half does not know the daemon's.
pub fn main(daemon: impl FnOnce(DaemonArgs) -> ExitCode) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments()) {
        Ok(cli) => cli,
        Err(err) => {
            // Help and version go to stdout and are no failure; a closed pipe is no news.
            let _ = err.print();
            return match (err.use_stderr(), names_run(arguments())) {
                (false, _) => ExitCode::SUCCESS,
                (true, false) => ExitCode::FAILURE,
                (true, true) => run::FAILED.into(),
            };
        }
    };
    match cli.verb {
        Verb::Daemon(args) => match args.prepare() {
            Ok(()) => daemon(*args),
            Err(err) => fail(&err, ExitCode::FAILURE),
        },
        verb => client(verb, cli.addr, cli.tls),
    }
}

/// The arguments; the program under the names `buildd` and `buildkitd` is `rbuild daemon`.
fn arguments() -> impl Iterator<Item = OsString> {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let daemon = Path::new(&name).file_name().is_some_and(|file| file == "buildd" || file == "buildkitd");
    [OsString::from("rbuild")].into_iter().chain(daemon.then(|| "daemon".into())).chain(args)
}

/// Whether the verb is `run`, of arguments that cannot be parsed as a whole.
fn names_run(arguments: impl Iterator<Item = OsString>) -> bool {
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some(option) if option == "--addr" || tls::NAMES.contains(&option) => drop(arguments.next()),
            Some(option) if option.starts_with('-') => {}
            verb => return verb == Some("run"),
        }
    }
    false
}

fn client(verb: Verb, addr: Option<String>, tls: tls::Args) -> ExitCode {
    let failed = if matches!(verb, Verb::Run(_)) { run::FAILED.into() } else { ExitCode::FAILURE };
    // One thread: files are read on others, and those that only hand messages on would wake each other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(dispatch(verb, addr, tls));
            // A thread may be waiting for stdin; nothing waits for it.
            runtime.shutdown_background();
            done
        }
        Err(err) => Err(err.into()),
    };
    done.unwrap_or_else(|err| fail(&err, failed))
}

async fn dispatch(verb: Verb, addr: Option<String>, tls: tls::Args) -> Result<ExitCode, ClientError> {
    let context = Context::new(addr, tls.read()?)?;
    carry_out(verb, &context).await.map_err(|err| err.with_address(context.address()))
}

async fn carry_out(verb: Verb, context: &Context) -> Result<ExitCode, ClientError> {
    match verb {
        Verb::Build(args) => args.run(context).await,
        Verb::Run(args) => args.run(context).await,
        Verb::Images(args) => args.run(context).await,
        Verb::Rmi(args) => args.run(context).await,
        Verb::Tag(args) => args.run(context).await,
        Verb::Pull(args) => args.run(context).await,
        Verb::Push(args) => args.run(context).await,
        Verb::Save(args) => args.run(context).await,
        Verb::Load(args) => args.run(context).await,
        Verb::History(args) => args.run(context).await,
        Verb::Inspect(args) => args.run(context).await,
        Verb::Du(args) => args.run(context).await,
        Verb::Explain(args) => args.run(context).await,
        Verb::Prune(args) => args.run(context).await,
        Verb::Debug(args) => args.run(context).await,
        Verb::Version(args) => args.run(context).await,
        Verb::Dockerfile(args) => args.run(),
        Verb::Completions(args) => args.run(&mut Cli::command()),
        Verb::Daemon(_) => unreachable!("handled before the runtime was made"),
    }
}

fn fail(err: &ClientError, code: ExitCode) -> ExitCode {
    // Where stderr is gone, nobody is there to tell.
    let _ = std::io::stderr().write_all(render(err).as_bytes());
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_verb_of_a_wrong_line() {
        for (line, is_run) in [
            ("rbuild run --nonsense", true),
            ("rbuild --addr unix:///x run", true),
            ("rbuild --addr=unix:///x --nonsense run x", true),
            ("rbuild --addr run images", false),
            ("rbuild --tlscert run images", false),
            ("rbuild build run", false),
            ("rbuild", false),
        ] {
            assert_eq!(names_run(line.split(' ').map(OsString::from)), is_run, "{line}");
        }
    }

    #[test]
    fn every_verb_has_help() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            for arg in verb.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{} {}", verb.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn as_the_harnesses_call_it() {
        for line in [
            "rbuild --addr unix:///x/sock build --progress=plain --provenance=false -o type=oci,dest=/x/f --build-arg A=b .",
            "rbuild --addr unix:///x/sock build --progress=plain -t name:tag --no-cache --push dir",
            "rbuild daemon --root /x/rb --addr unix:///x/sock --config /x/buildd.toml",
            "rbuild prune --all --force",
            "rbuild dockerfile inspect --json Dockerfile",
            "rbuild run -it --rm -e A=b -v /x:/y:ro -w / -u 1 --entrypoint= --network none --name n image ls -l",
        ] {
            if let Err(err) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {err}");
            }
        }
        for line in ["rbuild build", "rbuild", "rbuild build --nonsense ."] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
