//! Processes in the containers of a build, as a stock client runs them: one stream carries all.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proto::gateway::exec_message::Input;
use proto::gateway::{ExecMessage, ExitMessage, FdMessage, InitMessage, ResizeMessage, SignalMessage};
use proto::pb::Meta;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use crate::api::{Api, Gateway};

/// How long any message may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One stream of processes.
#[derive(Debug)]
pub struct Processes<'a> {
    api: &'a Api,
    to: UnboundedSender<ExecMessage>,
    from: Streaming<ExecMessage>,
    /// What was heard, by process.
    pub heard: BTreeMap<String, Heard>,
}

/// What was heard of one process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    /// It was told that it runs.
    pub started: bool,
    /// Its output so far.
    pub stdout: String,
    /// Its other output so far.
    pub stderr: String,
    /// Outputs that have ended.
    pub ended: Vec<u32>,
    /// How it ended.
    pub exit: Option<ExitMessage>,
    /// There will be no more of it.
    pub done: bool,
}

impl Heard {
    /// The exit code of a process that has ended.
    ///
    /// # Panics
    /// When it has not.
    pub fn code(&self) -> u32 {
        self.exit.as_ref().expect("an end").code
    }

    /// What is said of its end.
    pub fn error(&self) -> String {
        self.exit.as_ref().and_then(|exit| exit.error.clone()).unwrap_or_default().message
    }
}

/// A shell command with both outputs.
pub fn shell(container: &str, script: &str) -> InitMessage {
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    InitMessage {
        container_id: container.to_owned(),
        meta: Some(Meta { args, cwd: "/".to_owned(), ..Meta::default() }),
        fds: vec![1, 2],
        ..InitMessage::default()
    }
}

impl<'a> Processes<'a> {
    /// Opens a stream.
    ///
    /// # Panics
    /// When the daemon refuses it.
    pub fn open(api: &'a Api, gateway: &Gateway<'_>) -> Self {
        let (to, messages) = unbounded_channel();
        let messages = UnboundedReceiverStream::new(messages);
        let (mut bridge, request) = (api.bridge(), gateway.request(messages));
        let from = api.runtime.block_on(async move { bridge.exec_process(request).await });
        Self { api, to, from: from.expect("a stream").into_inner(), heard: BTreeMap::new() }
    }

    /// Sends a message of a process.
    pub fn send(&self, process: &str, input: Input) {
        let _ = self.to.send(ExecMessage { process_id: process.to_owned(), input: Some(input) });
    }

    /// Starts a process.
    pub fn start(&self, process: &str, init: InitMessage) {
        self.send(process, Input::Init(init));
    }

    /// Writes to a process; nothing ends its input.
    pub fn write(&self, process: &str, text: &str) {
        let data = Bytes::copy_from_slice(text.as_bytes());
        self.send(process, Input::File(FdMessage { fd: 0, eof: text.is_empty(), data }));
    }

    /// Sends a signal.
    pub fn signal(&self, process: &str, name: &str) {
        self.send(process, Input::Signal(SignalMessage { name: name.to_owned() }));
    }

    /// Changes a terminal's size.
    pub fn resize(&self, process: &str, rows: u32, cols: u32) {
        self.send(process, Input::Resize(ResizeMessage { rows, cols }));
    }

    /// Listens until a process is as wanted.
    ///
    /// # Errors
    /// What ends the stream.
    ///
    /// # Panics
    /// When that takes too long, or messages come in a wrong order.
    pub fn until(&mut self, process: &str, wanted: impl Fn(&Heard) -> bool) -> Result<Heard, Status> {
        loop {
            let heard = self.heard.entry(process.to_owned()).or_default();
            if wanted(heard) {
                return Ok(heard.clone());
            }
            let next = self
                .api
                .runtime
                .block_on(async { tokio::time::timeout(PATIENCE, self.from.message()).await });
            let message = next.expect("a message in time")?;
            let Some(message) = message else { return Err(Status::ok("the stream has ended")) };
            self.take(message);
        }
    }

    /// Starts a process and waits for its end.
    ///
    /// # Errors
    /// What ends the stream.
    pub fn run(&mut self, process: &str, init: InitMessage) -> Result<Heard, Status> {
        self.start(process, init);
        self.until(process, |heard| heard.done)
    }

    fn take(&mut self, message: ExecMessage) {
        let heard = self.heard.entry(message.process_id).or_default();
        assert!(!heard.done, "a message after the last one");
        match message.input.expect("an input") {
            Input::Started(_) => heard.started = true,
            Input::File(FdMessage { fd, eof, data }) => {
                assert!(heard.started || eof, "output before the start");
                let text = String::from_utf8_lossy(&data);
                if fd == 1 {
                    heard.stdout.push_str(&text)
                } else {
                    heard.stderr.push_str(&text)
                }
                heard.ended.extend(eof.then_some(fd));
            }
            Input::Exit(exit) => heard.exit = Some(exit),
            Input::Done(_) => heard.done = true,
            other => panic!("no message for a client: {other:?}"),
        }
    }
}
