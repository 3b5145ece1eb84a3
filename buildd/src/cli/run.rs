//! `rbuild run`.

mod offered;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use proto::rbuild::run_request::Request;
use proto::rbuild::run_response::Response;
use proto::rbuild::{RunRequest, RunResponse, RunStart};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use self::offered::Offered;
use super::Context;
use super::console::{self, Console};
use super::context::show;
use crate::client::{ClientError, ClientSession, Services};
use crate::progress::Mode;

/// What `rbuild run` exits with when it failed, rather than its container.
pub(super) const FAILED: u8 = 125;

/// What a program exits with whose output nobody reads any more: 128 and SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Requests that wait for the transport.
const BACKLOG: usize = 16;

/// What a container's relay tells, be it the daemon's or this client's own.
type Responses = BoxStream<'static, Result<RunResponse, Status>>;

/// Runs a command in a new container and exits as it does
///
/// Exits 125 when it fails itself, 126 when the command cannot be run, 127 when there is no such command, and 128 + N when
/// signal N ended it.
#[derive(Debug, clap::Args)]
#[command(override_usage = "rbuild run [OPTIONS] IMAGE [COMMAND]...")]
pub(super) struct Args {
    /// Keeps stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Gives the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Removes the container when it ends, which happens in any case
    #[arg(long)]
    rm: bool,
    /// Sets a variable; NAME alone takes the environment's value, or removes the image's
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Mounts at TARGET a path (/PATH, ./PATH), which is made when missing, or the volume called SOURCE
    #[arg(short, long = "volume", value_name = "[SOURCE:]TARGET[:ro]")]
    volumes: Vec<String>,
    /// The working directory, which is made when missing
    #[arg(short, long, value_name = "DIR", default_value = "", hide_default_value = true)]
    workdir: String,
    /// The user, NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER", default_value = "", hide_default_value = true)]
    user: String,
    /// Replaces the image's entrypoint; an empty one removes it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The network: one of its own (default, bridge), none, or the host's (host)
    #[arg(long, alias = "net", value_name = "MODE", default_value = "default", hide_possible_values = true,
        value_parser = ["default", "bridge", "none", "host"])]
    network: String,
    /// Names the container
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// The image, pulled when the image store does not have it, and a command in place of the image's
    // One argument: whatever follows the image is the command's, `--help` too.
    #[arg(value_name = "IMAGE [COMMAND]", required = true, trailing_var_arg = true)]
    image_and_command: Vec<String>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        if self.tty && self.interactive && !io::stdin().is_terminal() {
            return Err(ClientError::Usage("`-it` needs a terminal on stdin".into()));
        }
        let client = context.connect().await?;
        let session = ClientSession::open(&client, Services::default())?;
        let mut offered = Offered::make(client.address(), session.id(), self.tty, self.interactive);
        let (tx, rx) = mpsc::channel(BACKLOG);
        let start = RunRequest { request: Some(Request::Start(self.start(session.id())?)) };
        // The receiver is alive: it is held here.
        let _ = tx.send(start).await;
        let mut session = Some(session);
        let mut responses: Responses =
            Box::pin(client.containers().run(ReceiverStream::new(rx)).await?.into_inner());
        let mut daemon: Option<Responses> = None;
        // Written on other threads: signals pass on while nobody reads.
        let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
        let mut console = Console::new(self.tty, self.interactive);
        let mut progress = None;
        while let Some(response) = console.unless_hung_up(responses.next()).await? {
            match response?.response {
                Some(Response::Stdout(data)) => match print(&mut stdout, &data).await {
                    // Whoever read it has had enough: no news, as for any program.
                    Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                        return Ok(ExitCode::from(BROKEN_PIPE));
                    }
                    printed => printed?,
                },
                Some(Response::Stderr(data)) => print(&mut stderr, &data).await?,
                Some(Response::Status(status)) => {
                    let (sender, _) = match &mut progress {
                        Some(shown) => shown,
                        none => none.insert(show(Mode::Auto)?),
                    };
                    // A display that ended is no reason to stop.
                    let _ = sender.send(status).await;
                }
                Some(Response::Started(id)) => {
                    if let Some((sender, shown)) = progress.take() {
                        drop(sender);
                        let _ = shown.await;
                    }
                    match offered.take() {
                        Some(offered) => {
                            // From here on the daemon is not needed.
                            session = None;
                            let (tx, requests) = mpsc::channel(BACKLOG);
                            let stdin = console.connect(&tx);
                            let relayed = offered.relay(id, requests, stdin);
                            daemon = Some(std::mem::replace(&mut responses, Box::pin(relayed)));
                        }
                        None if daemon.is_none() => {
                            let stdin = console.connect(&tx);
                            console.forward_stdin(stdin, tx.clone());
                            console.enter()?;
                        }
                        None => console.enter()?,
                    }
                }
                Some(Response::Exit(code)) => {
                    drop(console);
                    if let Some(daemon) = daemon {
                        until_cleaned_up(daemon).await;
                    }
                    return Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)));
                }
                None => {}
            }
        }
        drop(session);
        Err(ClientError::Usage("the daemon went away while the container ran".into()))
    }

    fn start(&self, session: &str) -> Result<RunStart, ClientError> {
        let (image, command) =
            self.image_and_command.split_first().unwrap_or((const { &String::new() }, &[]));
        Ok(RunStart {
            image: image.clone(),
            args: command.to_vec(),
            env: self.environment(),
            volumes: self.volumes.iter().map(|text| volume(text)).collect::<Result<_, _>>()?,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            entrypoint: self.entrypoint.clone(),
            network: self.network.clone(),
            name: self.name.clone(),
            tty: self.tty,
            interactive: self.interactive,
            remove: self.rm,
            size: self.tty.then(console::size).flatten(),
            session: session.to_owned(),
        })
    }

    fn environment(&self) -> Vec<String> {
        let value = |text: &String| match text.contains('=') {
            true => text.clone(),
            // The name alone takes it away from the image.
            false => std::env::var(text).map_or_else(|_| text.clone(), |value| format!("{text}={value}")),
        };
        self.env.iter().map(value).collect()
    }
}

/// Makes the source absolute when it is a path rather than a volume's name.
fn volume(text: &str) -> Result<String, ClientError> {
    match text.split_once(':') {
        Some((source, rest)) if source.starts_with(['.', '/']) => {
            Ok(format!("{}:{rest}", super::context::absolute(source.as_ref())?.display()))
        }
        // A volume's name, or a target alone; the daemon says what is wrong with the rest.
        _ => Ok(text.to_owned()),
    }
}

/// Waits until the daemon has removed what the container left: its name is free then. A daemon that has gone leaves that
/// to the next one; a user who is tired of waiting, to this one.
async fn until_cleaned_up(mut daemon: Responses) {
    let ended = async { while let Some(Ok(_)) = daemon.next().await {} };
    tokio::select! {
        () = ended => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Writes all of it before anything else is written: the order of stdout and stderr stays.
pub(super) async fn print(out: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> io::Result<()> {
    out.write_all(data).await?;
    out.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        assert_eq!(volume("/a:/b:ro").unwrap(), "/a:/b:ro");
        assert_eq!(volume("data:/b").unwrap(), "data:/b");
        assert!(volume("./x:/b").unwrap().starts_with('/'));
        assert_eq!(volume("/b").unwrap(), "/b");
    }
}
