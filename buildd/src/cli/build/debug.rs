//! `--debug` and `--debug-cp`: a shell in what a failed step left, and files out of it.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use proto::control::StatusResponse;
use proto::gateway::exec_message::Input;
use proto::gateway::{ExecMessage, FdMessage, InitMessage, ResizeMessage, SignalMessage};
use proto::pb;
use proto::rbuild::RunRequest;
use proto::rbuild::run_request::Request;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::super::console::Console;
use super::super::debug::copy;
use super::super::run::print;
use super::warn;
use crate::client::{Broken, BuildOutcome, BuildRequest, Client, ClientError, Inside, build_or_look, render};

/// Messages that wait for the transport.
const BACKLOG: usize = 16;
/// The only process here.
const PROCESS: &str = "shell";

/// What is done with a step that fails.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Flags {
    /// Opens a shell, or COMMAND, in what a failed RUN left, before the build ends; quotes in it are a shell's, as in
    /// `--debug='sh -c "cat /log | tail"'`
    #[arg(long, value_name = "COMMAND", num_args = 0..=1, require_equals = true, default_missing_value = "/bin/sh")]
    debug: Option<String>,
    /// Copies PATH out of what a failed RUN left, such as the report of a test: into a directory that exists or under
    /// that name, else into the current directory
    #[arg(long, value_name = "PATH[:DESTINATION]")]
    debug_cp: Vec<String>,
}

impl Flags {
    /// What to do, if anything; `reads_stdin` says that the build itself reads it.
    ///
    /// # Errors
    /// Flags that are wrong, or do not go together.
    pub(super) fn plan(&self, reads_stdin: bool) -> Result<Option<Plan>, ClientError> {
        if self.debug.is_some() && reads_stdin {
            return Err(ClientError::Usage("`--debug` needs stdin, which the build reads".to_owned()));
        }
        let command = self.debug.as_deref().map(words).transpose()?;
        let copies = self.debug_cp.iter().map(|copy| out_of(copy)).collect::<Result<Vec<_>, _>>()?;
        let nothing = command.is_none() && copies.is_empty();
        Ok((!nothing).then_some(Plan { command, copies }))
    }
}

/// What to do with a step that fails: first the copies, then the command.
#[derive(Debug)]
pub(super) struct Plan {
    command: Option<Vec<String>>,
    /// Paths there and here.
    copies: Vec<(String, PathBuf)>,
}

/// A path in the step's root, and where it is to go.
fn out_of(flag: &str) -> Result<(String, PathBuf), ClientError> {
    let (path, to) = flag.split_once(':').unwrap_or((flag, "."));
    let wrong = |what: &str| ClientError::Usage(format!("invalid value `{flag}` for `--debug-cp`: {what}"));
    if !path.starts_with('/') {
        return Err(wrong("it begins with no path from the root, `/…`"));
    }
    if to.is_empty() {
        return Err(wrong("it names no destination"));
    }
    Ok((path.to_owned(), to.into()))
}

/// The words of the command that the flag names, as a shell takes them apart; nothing in them is expanded.
///
/// # Errors
/// A quote that does not end, or no command.
fn words(command: &str) -> Result<Vec<String>, ClientError> {
    let wrong = |what: &str| ClientError::Usage(format!("invalid value `{command}` for `--debug`: {what}"));
    let words = shlex::split(command).ok_or_else(|| wrong("a quote or an escape does not end"))?;
    if words.is_empty() { Err(wrong("it names no command")) } else { Ok(words) }
}

/// Builds; `None` when that failed, which the user knows then, and has looked into if there was something to look into.
pub(super) async fn build(
    client: &Client,
    request: BuildRequest,
    display: (mpsc::Sender<StatusResponse>, JoinHandle<()>),
    plan: Plan,
) -> Result<Option<BuildOutcome>, ClientError> {
    let mut told = false;
    let look = async |broken: &Broken<'_>| {
        told = true;
        say(&render(&ClientError::Build(Box::new(broken.status.clone()))));
        let Some(exec) = broken.exec() else {
            return say("Only a command that fails leaves something to look into.\n");
        };
        if let Err(error) = open(broken, exec, plan).await {
            say(&format!("cannot look into the step: {error}\n"));
        }
    };
    match build_or_look(client, request, display, look).await {
        Ok(outcome) => Ok(Some(outcome)),
        Err(ClientError::Build(_)) if told => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where stderr is gone, nobody is there to tell.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Does what is to be done in what the step left.
async fn open(broken: &Broken<'_>, exec: &pb::ExecOp, plan: Plan) -> Result<(), ClientError> {
    let inside = broken.open(exec).await?;
    for (path, to) in plan.copies {
        match copy(&inside, &path, &to).await {
            Ok(()) => say(&format!("copied `{path}` of what the step left to `{}`\n", to.display())),
            Err(error) => warn(&format!("cannot copy `{path}` out of what the step left: {error}")),
        }
    }
    match plan.command {
        Some(args) => run(broken, exec, &inside, args).await,
        None => Ok(()),
    }
}

/// Runs a program in what the step left, until it ends.
async fn run(
    broken: &Broken<'_>,
    exec: &pb::ExecOp,
    inside: &Inside<'_>,
    args: Vec<String>,
) -> Result<(), ClientError> {
    let tty = io::stdin().is_terminal();
    say(&format!(
        "\n{} runs in what `{}` left; the build ends with it.\nTo get files out: rbuild debug cp {}:/PATH DESTINATION\n\n",
        args.join(" "),
        broken.name().unwrap_or("the step"),
        broken.build,
    ));
    let (messages, outgoing) = mpsc::channel(BACKLOG);
    let init = InitMessage {
        container_id: inside.id().to_owned(),
        meta: Some(pb::Meta { args, ..exec.meta.clone().unwrap_or_default() }),
        fds: if tty { vec![0, 1] } else { vec![0, 1, 2] },
        tty,
        security: exec.security,
        secretenv: exec.secretenv.clone(),
    };
    // The receiver is alive: it is held here.
    let _ = messages.send(message(Input::Init(init))).await;
    let mut answers = inside.processes(ReceiverStream::new(outgoing)).await?;
    let (requests, incoming) = mpsc::channel(BACKLOG);
    let forwarding = tokio::spawn(forward(incoming, messages));
    let mut console = Console::new(tty, true);
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some(answer) = console.unless_hung_up(answers.next()).await? {
        match answer?.input {
            Some(Input::Started(_)) => {
                let stdin = console.connect(&requests);
                console.forward_stdin(stdin, requests.clone());
                console.enter()?;
            }
            Some(Input::File(FdMessage { fd: 2, data, .. })) => print(&mut stderr, &data).await?,
            Some(Input::File(FdMessage { data, .. })) => print(&mut stdout, &data).await?,
            Some(Input::Exit(exit)) => {
                if let Some(error) = exit.error.filter(|_| exit.code >= 125) {
                    say(&format!("{}\n", error.message));
                }
            }
            Some(Input::Done(_)) => break,
            _ => {}
        }
    }
    forwarding.abort();
    Ok(())
}

fn message(input: Input) -> ExecMessage {
    ExecMessage { process_id: PROCESS.to_owned(), input: Some(input) }
}

/// What the console says, in the words of gateway containers.
async fn forward(mut requests: mpsc::Receiver<RunRequest>, messages: mpsc::Sender<ExecMessage>) {
    while let Some(RunRequest { request: Some(request) }) = requests.recv().await {
        let input = match request {
            Request::Stdin(data) => Input::File(FdMessage { fd: 0, eof: data.is_empty(), data }),
            Request::Resize(size) => Input::Resize(ResizeMessage { rows: size.rows, cols: size.columns }),
            Request::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => Input::Signal(SignalMessage {
                    name: signal.as_str().trim_start_matches("SIG").to_owned(),
                }),
                Err(_) => continue,
            },
            Request::Start(_) => continue,
        };
        if messages.send(message(input)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_apart_as_a_shell_does() {
        for (text, want) in [
            ("/bin/sh", &["/bin/sh"][..]),
            ("  ls  -l\t/left ", &["ls", "-l", "/left"]),
            (r#"sh -c 'echo "$V" > /x'"#, &["sh", "-c", r#"echo "$V" > /x"#]),
            (r#"a "b c" d\ e '' f"g"'h'"#, &["a", "b c", "d e", "", "fgh"]),
        ] {
            assert_eq!(words(text).unwrap(), want, "{text}");
        }
        for (text, says) in [
            ("sh -c 'x", "does not end"),
            ("a \\", "does not end"),
            ("", "names no command"),
            (" ", "names no command"),
        ] {
            let error = words(text).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("`--debug`"), "{error}");
        }
    }

    #[test]
    fn copies_name_a_path_there_and_one_here() {
        for (flag, path, to) in
            [("/a", "/a", "."), ("/a/b:out", "/a/b", "out"), ("/a:/out:1", "/a", "/out:1")]
        {
            assert_eq!(out_of(flag).unwrap(), (path.to_owned(), to.into()), "{flag}");
        }
        for (flag, says) in [("a:out", "no path from the root"), ("/a:", "no destination"), ("", "no path")] {
            let error = out_of(flag).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("`--debug-cp`"), "{error}");
        }
    }
}
