//! Builds whose failed step can be looked into: what a step leaves is there until its build is told to end, so this client takes the
//! part of the build's frontend (`docker buildx debug build` does it the same way).

use std::time::Duration;

use proto::control::{SolveRequest, StatusResponse};
use proto::fsutil::Stat;
use proto::gateway::{
    ExecMessage, FileRange, NewContainerRequest, ReadDirRequest, ReadFileRequest, StatFileRequest,
};
use proto::pb;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::build::{Begun, BuildOutcome, BuildRequest, conduct, of_build, watched_solve};
use super::{Client, ClientError};
use crate::errdetails;

/// The container over what a failed step left, one for each build; BuildKit wants letters and digits only.
const CONTAINER: &str = "failedstep";
/// What was told before a failure comes by a stream of its own; it is shown before anything else.
const SETTLE: Duration = Duration::from_millis(300);
/// Messages on their way to the display.
const BACKLOG: usize = 16;
/// How much of a file is read at once, in bytes.
const CHUNK: i64 = 4 << 20;

/// A build that failed, and has not ended yet.
#[derive(Debug)]
pub struct Broken<'a> {
    client: &'a Client,
    /// The build's name at the daemon.
    pub build: &'a str,
    /// Why it failed.
    pub status: &'a Status,
    solve: Option<proto::errdefs::Solve>,
}

/// Runs a build as [`super::build()`] does; when it fails, `look` may look into the failed step before the build ends. By then all progress
/// was shown, and `display` has ended.
///
/// # Errors
/// As [`super::build()`].
pub async fn build_or_look(
    client: &Client,
    request: BuildRequest,
    display: (mpsc::Sender<StatusResponse>, JoinHandle<()>),
    look: impl AsyncFnOnce(&Broken<'_>),
) -> Result<BuildOutcome, ClientError> {
    let begun = Begun::new(client, request)?;
    let question = begun.question(true);
    let solve = SolveRequest { frontend_attrs: begun.attrs, ..begun.solve };
    let reference = solve.r#ref.clone();
    let (progress, messages) = mpsc::channel(BACKLOG);
    let (sender, shown) = display;
    let curtain = CancellationToken::new();
    tokio::spawn(forward(messages, sender, curtain.clone()));
    let mut shown = Some(shown);
    let failed = async |status: &Status| {
        tokio::time::sleep(SETTLE).await;
        curtain.cancel();
        if let Some(shown) = shown.take() {
            let _ended = shown.await;
        }
        let solve = errdetails::details(status).solve();
        look(&Broken { client, build: &reference, status, solve }).await;
    };
    let conducted = async { Ok(conduct(client, &reference, question, failed).await) };
    let ended = tokio::try_join!(watched_solve(client, solve, begun.explain, progress), conducted);
    // Errors come after all progress.
    curtain.cancel();
    if let Some(shown) = shown.take() {
        let _ended = shown.await;
    }
    let (response, conducted) = ended?;
    conducted.map_err(|status| ClientError::Build(Box::new(status)))?;
    for target in begun.targets.0.iter().flatten() {
        target.commit()?;
    }
    Ok(BuildOutcome { reference, response })
}

/// Shows messages until `curtain`, and from then on takes them only: who tells must not wait for nobody.
async fn forward(
    mut messages: mpsc::Receiver<StatusResponse>,
    display: mpsc::Sender<StatusResponse>,
    curtain: CancellationToken,
) {
    let mut display = Some(display);
    loop {
        tokio::select! {
            biased;
            message = messages.recv() => match (message, &display) {
                (None, _) => return,
                (Some(message), Some(display)) => drop(display.send(message).await),
                (Some(_), None) => {}
            },
            () = curtain.cancelled(), if display.is_some() => display = None,
        }
    }
}

impl Broken<'_> {
    /// The command that failed, if it was one.
    pub fn exec(&self) -> Option<&pb::ExecOp> {
        match &self.solve.as_ref()?.op.as_ref()?.op {
            Some(pb::op::Op::Exec(exec)) => Some(exec),
            _ => None,
        }
    }

    /// What the step is called.
    pub fn name(&self) -> Option<&str> {
        self.solve.as_ref()?.description.get("llb.customname").map(String::as_str)
    }

    /// Makes a container of what the command saw, with its changes.
    ///
    /// # Errors
    /// The daemon refuses it.
    pub async fn open(&self, exec: &pb::ExecOp) -> Result<Inside<'_>, Status> {
        let op = self.solve.as_ref().and_then(|solve| solve.op.as_ref());
        let results = self.solve.as_ref().map_or(&[][..], |solve| &solve.mount_i_ds);
        let mount = |(mount, result): (&pb::Mount, &String)| pb::Mount {
            result_id: result.clone(),
            input: -1,
            output: -1,
            ..mount.clone()
        };
        let meta = exec.meta.clone().unwrap_or_default();
        let request = NewContainerRequest {
            container_id: CONTAINER.to_owned(),
            mounts: exec.mounts.iter().zip(results).map(mount).collect(),
            network: exec.network,
            platform: op.and_then(|op| op.platform.clone()),
            constraints: op.and_then(|op| op.constraints.clone()),
            extra_hosts: meta.extra_hosts,
            hostname: meta.hostname,
        };
        self.client.bridge().new_container(of_build(self.build, request)?).await?;
        Ok(Inside { client: self.client, build: self.build })
    }
}

/// The container over what a failed step left, while the step's build has not ended.
#[derive(Debug)]
pub struct Inside<'a> {
    client: &'a Client,
    build: &'a str,
}

impl<'a> Inside<'a> {
    /// Of a build that a client on whatever machine has opened it for.
    pub const fn of(client: &'a Client, build: &'a str) -> Self {
        Self { client, build }
    }

    /// The container's id.
    pub const fn id(&self) -> &'static str {
        CONTAINER
    }

    /// A stream for processes in it.
    ///
    /// # Errors
    /// The daemon refuses it.
    pub async fn processes(
        &self,
        messages: ReceiverStream<ExecMessage>,
    ) -> Result<Streaming<ExecMessage>, Status> {
        Ok(self.client.bridge().exec_process(of_build(self.build, messages)?).await?.into_inner())
    }

    /// What lies at a path.
    ///
    /// # Errors
    /// Nothing lies there, or nothing can be looked into.
    pub async fn stat(&self, path: &str) -> Result<Stat, Status> {
        let request = StatFileRequest {
            r#ref: CONTAINER.to_owned(),
            path: path.to_owned(),
            ..StatFileRequest::default()
        };
        let answer = self.client.bridge().stat_file_container(of_build(self.build, request)?).await?;
        Ok(answer.into_inner().stat.unwrap_or_default())
    }

    /// What lies in a directory, by names.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub async fn list(&self, path: &str) -> Result<Vec<Stat>, Status> {
        let request = ReadDirRequest {
            r#ref: CONTAINER.to_owned(),
            dir_path: path.to_owned(),
            ..ReadDirRequest::default()
        };
        let answer = self.client.bridge().read_dir_container(of_build(self.build, request)?).await?;
        Ok(answer.into_inner().entries)
    }

    /// A part of a file from `offset` on, in bytes; empty at its end.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub async fn read(&self, path: &str, offset: i64) -> Result<bytes::Bytes, Status> {
        let request = ReadFileRequest {
            r#ref: CONTAINER.to_owned(),
            file_path: path.to_owned(),
            range: Some(FileRange { offset, length: CHUNK }),
            ..ReadFileRequest::default()
        };
        let answer = self.client.bridge().read_file_container(of_build(self.build, request)?).await?;
        Ok(answer.into_inner().data)
    }
}
