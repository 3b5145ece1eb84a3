//! Processes in a client's containers: one stream carries any number of them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use proto::gateway::exec_message::Input;
use proto::gateway::{
    DoneMessage, ExecMessage, ExitMessage, FdMessage, InitMessage, ResizeMessage, StartedMessage,
};
use runner::SandboxHandle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::Bridge;
use super::container::Container;
use crate::causes::causes;
use crate::container::{Source, Streams, UNREAD, feed, forward, report, resize};
use crate::daemon::blocking::blocking;
use crate::daemon::failure::Failure;
use crate::daemon::sandboxes;

/// Messages that wait for the client, and orders that wait for a process.
pub(super) const BACKLOG: usize = 64;
/// What is told of a process that could not be started or followed (BuildKit's `UnknownExitStatus`).
const UNKNOWN: u32 = 255;

/// What goes to the client.
type Answers = Sender<Result<ExecMessage, Status>>;

/// A process as the stream knows it.
#[derive(Debug)]
struct Running {
    stdin: Sender<Bytes>,
    orders: Sender<Order>,
}

/// What the client wants of a process.
#[derive(Debug)]
enum Order {
    Resize(ResizeMessage),
    Signal(i32),
}

/// Serves one stream until the client has gone; what it started and still runs is killed then.
pub(super) async fn serve(bridge: Arc<Bridge>, mut messages: Streaming<ExecMessage>, answers: Answers) {
    let gone = CancellationToken::new();
    let _kill = gone.clone().drop_guard();
    let mut processes = Processes { bridge, gone, answers: answers.clone(), running: HashMap::new() };
    let mut ends = Vec::new();
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = answers.closed() => return,
        };
        match message {
            Ok(Some(message)) => match processes.take(message).await {
                Ok(started) => ends.extend(started),
                Err(failure) => {
                    let _ = answers.send(Err(failure.status())).await;
                    return;
                }
            },
            Ok(None) => break,
            Err(broken) => {
                // A client that has gone does not hear it; one that sent what is no message does.
                let _ = answers.send(Err(broken)).await;
                return;
            }
        }
    }
    // The client has said all: its processes read no more, and go on until they end.
    drop(processes);
    tokio::select! {
        _ = join_all(ends) => {}
        () = answers.closed() => {}
    }
}

/// The processes of one stream.
struct Processes {
    bridge: Arc<Bridge>,
    gone: CancellationToken,
    answers: Answers,
    running: HashMap<String, Running>,
}

impl Processes {
    /// Does what a message asks for; gives the task of a process that it started.
    async fn take(&mut self, message: ExecMessage) -> Result<Option<JoinHandle<()>>, Failure> {
        let id = message.process_id;
        if id.is_empty() {
            return Err(Failure::new(Code::InvalidArgument, "ProcessID required"));
        }
        if let Some(Input::Init(init)) = message.input {
            return self.begin(id, init).map(Some);
        }
        let missing = || Failure::new(Code::NotFound, format!("IO for process \"{id}\" not found"));
        let process = self.running.get(&id).ok_or_else(missing)?;
        // A process that has ended takes nothing more, which is no error of the client's.
        match message.input {
            Some(Input::File(FdMessage { fd: 0, eof, data })) => {
                if !data.is_empty() {
                    let _ = process.stdin.send(data).await;
                }
                if eof {
                    let _ = process.stdin.send(Bytes::new()).await;
                }
            }
            Some(Input::Resize(size)) => drop(process.orders.send(Order::Resize(size)).await),
            Some(Input::Signal(signal)) => {
                let number = number(&signal.name)?;
                let _ = process.orders.send(Order::Signal(number)).await;
            }
            _ => return Err(Failure::new(Code::InvalidArgument, "unexpected message of a process")),
        }
        Ok(None)
    }

    fn begin(&mut self, id: String, init: InitMessage) -> Result<JoinHandle<()>, Failure> {
        if self.running.contains_key(&id) {
            return Err(Failure::new(Code::AlreadyExists, format!("Process {id} already exists")));
        }
        let name = &init.container_id;
        let container = self.bridge.containers.get(name).ok_or_else(|| {
            Failure::new(Code::NotFound, format!("container \"{name}\" previously released or not created"))
        })?;
        let (stdin, unread) = mpsc::channel(UNREAD);
        let (orders, unheard) = mpsc::channel(BACKLOG);
        let given = Given { stdin: unread, orders: unheard };
        let teller = Teller { process: id.clone(), answers: self.answers.clone() };
        let process = Process { bridge: self.bridge.clone(), container, init, teller };
        let task = tokio::spawn(process.run(given, self.gone.clone()));
        self.running.insert(id, Running { stdin, orders });
        Ok(task)
    }
}

/// A signal's number by its name, with or without `SIG`.
fn number(name: &str) -> Result<i32, Failure> {
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    let known = full.parse::<nix::sys::signal::Signal>().map(|signal| signal as i32);
    known.map_err(|_| Failure::new(Code::InvalidArgument, format!("Unknown signal {name}")))
}

/// What the client sends to one process.
#[derive(Debug)]
struct Given {
    stdin: Receiver<Bytes>,
    orders: Receiver<Order>,
}

/// Tells the client of one process.
#[derive(Debug)]
struct Teller {
    process: String,
    answers: Answers,
}

impl Teller {
    fn message(&self, input: Input) -> ExecMessage {
        ExecMessage { process_id: self.process.clone(), input: Some(input) }
    }

    /// A client that has gone needs not be told.
    async fn tell(&self, input: Input) {
        let _ = self.answers.send(Ok(self.message(input))).await;
    }
}

/// One process from its start to its end.
struct Process {
    bridge: Arc<Bridge>,
    container: Arc<Container>,
    init: InitMessage,
    teller: Teller,
}

impl Process {
    async fn run(self, given: Given, gone: CancellationToken) {
        // BuildKit's client expects it first, whatever happened. It hands the messages of all processes on in their order:
        // one whose output is another's input could not go on while the client waits for that other to start.
        let joins = self.container.has_begun();
        if joins {
            self.teller.tell(Input::Started(StartedMessage {})).await;
        }
        let started = self.start().await;
        if !joins {
            self.teller.tell(Input::Started(StartedMessage {})).await;
        }
        match started {
            Ok((handle, streams)) => self.follow(&handle, streams, given, &gone).await,
            Err(failure) => {
                self.exit(UNKNOWN, Some(failure)).await;
            }
        }
        self.teller.tell(Input::Done(DoneMessage {})).await;
    }

    /// Starts the process and waits until it runs, or has failed.
    async fn start(&self) -> Result<(Arc<SandboxHandle>, Streams), Failure> {
        let internal =
            |e: &std::io::Error| Failure::new(Code::Internal, format!("cannot connect to the process: {e}"));
        let interactive = self.init.fds.contains(&0);
        let streams = Streams::new(self.init.tty, interactive, false).map_err(|e| internal(&e))?;
        let (mut streams, sandbox) = streams;
        let handle = self.bridge.start(&self.container, &self.init, &sandbox).await?;
        drop(sandbox);
        if self.init.tty {
            let waiting = handle.clone();
            if let Some(master) = blocking(move || waiting.terminal()).await {
                streams = Streams::of_terminal(master).map_err(|e| internal(&e))?;
            }
        }
        Ok((handle, streams))
    }

    /// Relays until the process has ended and its output is told.
    async fn follow(
        &self,
        handle: &Arc<SandboxHandle>,
        streams: Streams,
        given: Given,
        gone: &CancellationToken,
    ) {
        let Streams { stdin, outputs, terminal } = streams;
        let output = join_all(outputs.into_iter().map(|(source, from)| self.output(source, from)));
        let stop = CancellationToken::new();
        let ending = async {
            let outcome = sandboxes::wait(handle.clone(), &stop).await;
            if stop.is_cancelled() {
                let canceled = Failure::of_export(&solver::ExecError::Canceled);
                return self.exit(UNKNOWN, Some(canceled)).await;
            }
            match report(outcome) {
                Ok((0, _)) => self.exit(0, None).await,
                Ok((code, lines)) => {
                    let said = lines.iter().map(|line| format!(": {line}")).collect::<String>();
                    let failure = Failure::new(Code::Unknown, format!("exit code: {code}{said}"));
                    self.exit(u32::try_from(code).unwrap_or(UNKNOWN), Some(failure)).await;
                }
                Err(e) => self.exit(UNKNOWN, Some(Failure::new(Code::Unknown, causes(&e)))).await,
            }
        };
        let killing = async {
            tokio::select! {
                () = gone.cancelled() => {}
                () = self.container.released.cancelled() => {}
            }
            stop.cancel();
            std::future::pending::<()>().await;
        };
        let steering = async {
            tokio::join!(feed(given.stdin, stdin), steer(given.orders, handle, terminal.as_ref()));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = async { tokio::join!(ending, output) } => {}
            () = killing => {}
            () = steering => {}
        }
    }

    /// Tells output until all processes have closed it. What the client did not ask for is read all the same.
    async fn output(&self, source: Source, from: tokio::net::unix::pipe::Receiver) {
        let fd = match source {
            Source::Stdout => 1,
            Source::Stderr => 2,
        };
        if !self.init.fds.contains(&fd) {
            let mut from = from;
            // Whatever ends it, there is no more.
            let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
            return;
        }
        let message = |data| self.teller.message(Input::File(FdMessage { fd, eof: false, data }));
        forward(from, &self.teller.answers, message).await;
        self.teller.tell(Input::File(FdMessage { fd, eof: true, data: Bytes::new() })).await;
    }

    async fn exit(&self, code: u32, failure: Option<Failure>) {
        let error = failure.map(|failure| {
            let (code, message) = (failure.code as i32, failure.message);
            proto::rpc::Status { code, message, details: Vec::new() }
        });
        self.teller.tell(Input::Exit(ExitMessage { code, error })).await;
    }
}

/// Passes signals and sizes on.
async fn steer(mut orders: Receiver<Order>, handle: &SandboxHandle, terminal: Option<&OwnedFd>) {
    while let Some(order) = orders.recv().await {
        match (order, terminal) {
            (Order::Signal(number), _) => handle.signal(number),
            (Order::Resize(size), Some(terminal)) => resize(terminal, size.rows, size.cols),
            (Order::Resize(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name() {
        assert_eq!((number("INT").unwrap(), number("SIGKILL").unwrap()), (2, 9));
        assert_eq!(number("NOPE").unwrap_err().code, Code::InvalidArgument);
        assert!(number("").is_err());
    }
}
