//! `rbuild run`.

mod terminal;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use proto::rbuild::run_request::Request;
use proto::rbuild::run_response::Response;
use proto::rbuild::{RunRequest, RunStart};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::terminal::{RawMode, forward};
use super::Context;
use super::context::show;
use crate::client::{ClientError, ClientSession, Services};
use crate::progress::Mode;

/// Requests that wait for the transport before stdin is read further.
const BACKLOG: usize = 16;

/// Runs a command in a new container and exits as it does
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Keeps stdin open
    #[arg(short, long)]
    interactive: bool,
    /// Gives the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Removes the container when it ends
    #[arg(long)]
    rm: bool,
    /// Sets a variable, NAME=VALUE; NAME alone takes the environment's value
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Mounts a directory or volume, `SOURCE:TARGET[:ro]`
    #[arg(short, long = "volume", value_name = "SOURCE:TARGET")]
    volumes: Vec<String>,
    /// The working directory
    #[arg(short, long, value_name = "DIR", default_value = "", hide_default_value = true)]
    workdir: String,
    /// The user, NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER", default_value = "", hide_default_value = true)]
    user: String,
    /// Replaces the image's entrypoint; an empty one removes it
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The network: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default", value_parser = ["default", "none", "host"])]
    network: String,
    /// Names the container
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// The image; it is pulled when the image store does not have it
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The command, in place of the image's
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        if self.tty && self.interactive && !io::stdin().is_terminal() {
            return Err(ClientError::Usage("`-it` needs a terminal on stdin".into()));
        }
        let client = context.connect().await?;
        let session = ClientSession::open(&client, Services::default())?;
        let (tx, rx) = mpsc::channel(BACKLOG);
        let start = RunRequest { request: Some(Request::Start(self.start(session.id())?)) };
        // The receiver is alive: it is held here.
        let _ = tx.send(start).await;
        let mut responses = client.containers().run(ReceiverStream::new(rx)).await?.into_inner();
        let raw = if self.tty { RawMode::enter()? } else { None };
        let _forwarding = forward(tx, self.interactive, self.tty);
        let mut progress = None;
        while let Some(response) = responses.message().await? {
            match response.response {
                Some(Response::Stdout(data)) => write(&mut io::stdout(), &data)?,
                Some(Response::Stderr(data)) => write(&mut io::stderr(), &data)?,
                Some(Response::Status(status)) => {
                    let (sender, _) = match &mut progress {
                        Some(shown) => shown,
                        none => none.insert(show(Mode::Auto)?),
                    };
                    // A display that ended is no reason to stop.
                    let _ = sender.send(status).await;
                }
                Some(Response::Started(_)) => {
                    if let Some((sender, shown)) = progress.take() {
                        drop(sender);
                        let _ = shown.await;
                    }
                }
                Some(Response::Exit(code)) => {
                    drop(raw);
                    return Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)));
                }
                None => {}
            }
        }
        drop(raw);
        Err(ClientError::Usage("the daemon went away while the container ran".into()))
    }

    fn start(&self, session: &str) -> Result<RunStart, ClientError> {
        Ok(RunStart {
            image: self.image.clone(),
            args: self.command.clone(),
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
            size: self.tty.then(terminal::size).flatten(),
            session: session.to_owned(),
        })
    }

    fn environment(&self) -> Vec<String> {
        let value = |text: &String| match text.contains('=') {
            true => Some(text.clone()),
            false => std::env::var(text).ok().map(|value| format!("{text}={value}")),
        };
        self.env.iter().filter_map(value).collect()
    }
}

/// Makes the source absolute when it is a path rather than a volume's name.
fn volume(text: &str) -> Result<String, ClientError> {
    let bad =
        || ClientError::Usage(format!("invalid value `{text}` for `--volume`: want SOURCE:TARGET[:ro]"));
    let (source, rest) =
        text.split_once(':').filter(|(s, rest)| !s.is_empty() && rest.starts_with('/')).ok_or_else(bad)?;
    match source.starts_with(['.', '/', '~']) {
        true => Ok(format!("{}:{rest}", super::context::absolute(source.as_ref())?.display())),
        false => Ok(text.to_owned()),
    }
}

fn write(out: &mut impl io::Write, data: &[u8]) -> io::Result<()> {
    out.write_all(data)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        assert_eq!(volume("/a:/b:ro").unwrap(), "/a:/b:ro");
        assert_eq!(volume("data:/b").unwrap(), "data:/b");
        assert!(volume("./x:/b").unwrap().starts_with('/'));
        for bad in ["", "/a", "/a:b", ":/b"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }
}
