//! The seams of the scheduler: where sources come from, who executes, who listens.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::graph::{Graph, Vertex, VertexId};
use crate::key::Selection;
use crate::op::{Platform, SourceOp};
use crate::record::{Kept, Key, LayerId, Name, OutputRecord, Record};
use crate::session::SessionGroup;

/// One output of a vertex, as this build chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Layers, lowest first; empty is scratch. They need not be present on this machine.
    pub chain: Arc<[LayerId]>,
    /// Rootfs digest; `None` while a source has not been fetched.
    pub content: Option<Digest>,
    /// Set where the content is a session's directory that no layer holds yet; `chain` is empty then.
    pub local: Option<LocalRef>,
}

impl Output {
    /// A file system with nothing in it.
    pub fn scratch(content: Digest) -> Self {
        Self { chain: Arc::new([]), content: Some(content), local: None }
    }
}

/// A walked directory that the worker's process holds for a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalRef(pub u64);

/// What a source turned out to be, before anything large is fetched.
#[derive(Debug, Clone)]
pub struct SourceAnswer {
    /// What the source counts as in a definition key.
    pub identity: SourceIdentity,
    /// What people know it by, where that is not its identity: the commit of a repository, the digest of a file's bytes.
    pub revision: Option<String>,
    /// The output where it is known already: an image's chain follows from its config, without pulling.
    pub output: Option<Output>,
}

/// What a source counts as in a definition key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceIdentity {
    /// A digest that stands for all of it: of a manifest, a commit, an HTTP body.
    Digest(Digest),
    /// Nothing but its content, as far as each user selects it: a local directory.
    Content,
}

/// Brings things in from outside the graph.
#[async_trait]
pub trait Source: Send + Sync {
    /// Tells what the source is now. Called for every vertex before keys are computed, and again by each pass of a build:
    /// what must not move within a build, such as a tag, the implementation pins.
    async fn identify(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<SourceAnswer, ExecError>;

    /// Makes the pinned source's layers present and its content known.
    async fn fetch(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        answer: &SourceAnswer,
        cx: &VertexContext,
    ) -> Result<Output, ExecError>;
}

/// Executes ops and answers questions about what they gave. Works on layer ids: no paths, no descriptors.
#[async_trait]
pub trait Worker: Send + Sync {
    /// Executes a vertex whose inputs are present, and returns what each of its outputs is.
    ///
    /// The result must satisfy the invariant of [`crate::Record`]. A dropped future or a cancelled
    /// context ends the execution and leaves nothing behind; one that failed, at most its [`Remains`].
    async fn execute(&self, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecFailure>;

    /// The copy digest of what is selected from an output whose content is known.
    async fn selection_digest(&self, output: &Output, selections: &[Selection]) -> Result<Digest, ExecError>;

    /// Whether a layer made here is on this machine (or can be brought in without executing). If it is, it stays until
    /// the build is over.
    async fn available(&self, layer: LayerId, build: &str) -> bool;
}

/// Results that others have: chains of layers with an unknown content, found by keys of their own, like those of an image that was
/// not pulled; and records under the solver's keys.
#[async_trait]
pub trait Elsewhere: Send + Sync {
    /// What others know the outputs in `question.outputs` to be, all of them or none.
    async fn find(&self, question: &Question<'_>, cx: &VertexContext) -> Option<BTreeMap<u32, Output>>;

    /// Makes the layers of something found present and its content known. After a failure the same result is not found again.
    async fn fetch(&self, found: &Output, cx: &VertexContext) -> Result<Output, ExecError>;

    /// The records that others have under `keys`, in that order; fewer where the rest has none. Only this build goes by them.
    async fn lend(&self, keys: &[Key], cx: &VertexContext) -> Vec<Option<Kept>>;

    /// Whether the layers of a lent record are here or can be brought in.
    async fn offers(&self, record: &Record, cx: &VertexContext) -> bool;

    /// Brings in the layers of a lent record, `outputs` being what it gives on the chains of this build, of which what is below is
    /// here; and makes sure of the contents. Whether that worked: after a failure they are not offered again.
    async fn bring(&self, record: &Record, outputs: &BTreeMap<u32, Output>, cx: &VertexContext) -> bool;

    /// Takes note of what an execution gave.
    fn made(&self, made: &Made, cx: &VertexContext);
}

/// What an execution gave, of this build or an earlier one.
#[derive(Debug, Clone)]
pub struct Made {
    /// Where the contents of the inputs count.
    pub content: Option<Key>,
    /// Where what they are made of counts.
    pub definition: Option<Name>,
    /// What it gave.
    pub record: Arc<Record>,
    /// Its layers are part of what was asked for.
    pub in_result: bool,
    /// It was to run in any case: what others have is to be replaced.
    pub forced: bool,
    /// Others lent it.
    pub lent: bool,
}

/// What is asked of [`Elsewhere`].
#[derive(Debug)]
pub struct Question<'a> {
    /// The graph.
    pub graph: &'a Arc<Graph>,
    /// What its sources are, by vertex.
    pub sources: &'a [Option<SourceAnswer>],
    /// The vertex that is wanted.
    pub vertex: VertexId,
    /// Which of its outputs are used.
    pub outputs: &'a BTreeSet<u32>,
    /// Its inputs, once they are present: then what they contain counts, too.
    pub inputs: Option<&'a [Output]>,
}

/// A vertex to execute.
#[derive(Debug)]
pub struct Job {
    /// What to do.
    pub vertex: Vertex,
    /// The vertex's inputs, in order; all present.
    pub inputs: Vec<Output>,
    /// Its layers are part of what was asked for, and not only of what that is made from.
    pub in_result: bool,
    /// Who wants it, and where output goes.
    pub cx: VertexContext,
}

/// For whom a vertex is evaluated, and how to tell them.
#[derive(Debug, Clone)]
pub struct VertexContext {
    /// The build that began it; several may wait.
    pub build: String,
    /// Sessions that want it; any live one serves for authentication.
    pub sessions: SessionGroup,
    /// Takes progress and output.
    pub progress: Progress,
    /// Cancelled when no build wants the vertex any more.
    pub cancel: CancellationToken,
}

/// Where a vertex's progress goes.
#[derive(Clone)]
pub struct Progress(pub(crate) Arc<dyn Fn(Update) + Send + Sync>);

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

impl Progress {
    /// Hands every update to `f`.
    pub fn new(f: impl Fn(Update) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// Reports output of the vertex.
    pub fn log(&self, stream: Stream, data: &[u8]) {
        (self.0)(Update::Log { stream, data: data.into(), at: SystemTime::now() });
    }

    /// Reports how far a part of the work is.
    pub fn status(&self, status: Status) {
        (self.0)(Update::Status(status));
    }
}

/// Which stream output came from; the numbers are those of the file descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1.
    Stdout = 1,
    /// Descriptor 2.
    Stderr = 2,
}

/// How far a part of a vertex's work is, such as one layer's download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Names the part within its vertex; shown.
    pub id: String,
    /// Bytes or items done.
    pub current: u64,
    /// Bytes or items in all; 0 when unknown.
    pub total: u64,
    /// When the part began.
    pub started: SystemTime,
    /// When it ended, once it has.
    pub completed: Option<SystemTime>,
}

/// Something that happens within a vertex while it is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Output.
    Log {
        /// Which stream.
        stream: Stream,
        /// Bytes as they came; lines may be split.
        data: Arc<[u8]>,
        /// When.
        at: SystemTime,
    },
    /// Progress of a part.
    Status(Status),
}

/// What a build's listener learns about its vertices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Work on the vertex began.
    Started(SystemTime),
    /// Its result was known.
    Cached(SystemTime),
    /// Something happened within it.
    Update(Update),
    /// It ended, with an error's text if it failed.
    Completed(SystemTime, Option<String>),
}

/// Listens to one build. Called from many tasks; must not block.
pub trait EventSink: Send + Sync {
    /// Something happened to a vertex of the graph that was handed to [`crate::Build::solve`].
    fn event(&self, vertex: VertexId, event: Event);

    /// A vertex that was told to have started is being executed; `known` gives what the evaluation knows by now of all vertices that are
    /// wanted.
    fn executing(&self, _vertex: VertexId, _known: &dyn Fn() -> Vec<(VertexId, Finding)>) {}

    /// What an evaluation of the graph came to know of the vertices that were wanted, when it has ended, in whatever way. One that
    /// begins anew tells again.
    fn found(&self, _findings: Vec<(VertexId, Finding)>) {}
}

/// What an evaluation came to know of a vertex.
#[derive(Debug, Clone, Default)]
pub struct Finding {
    /// Its definition key, where it has one.
    pub definition: Option<Key>,
    /// What a source is.
    pub source: Option<SourceAnswer>,
    /// The contents of its outputs, as far as they are known.
    pub contents: BTreeMap<u32, Digest>,
    /// How it came to its result.
    pub how: Found,
}

/// How a vertex came to its result.
#[derive(Debug, Clone, Default)]
pub enum Found {
    /// Nobody needed it, or nobody came that far.
    #[default]
    NotReached,
    /// A record had it.
    Known,
    /// [`Elsewhere`] had it.
    Elsewhere,
    /// It was executed.
    Executed(Execution),
}

/// An execution, as one build saw it.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The content key that no record was under.
    pub key: Key,
    /// Why it was executed.
    pub reason: Reason,
    /// How long the build waited for it.
    pub took: Duration,
    /// How it ended.
    pub ended: Ended,
}

/// Why a vertex was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It ignores the cache, or stands on what does.
    Forced,
    /// No record answered it.
    Unknown,
    /// A record did, but these layers of it were gone.
    Lost(Vec<LayerId>),
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It gave a result.
    Well,
    /// It failed.
    Failed,
    /// It was given up.
    Canceled,
}

/// Why a vertex gave no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecError {
    /// The command ended with this code.
    #[error("exit code: {code}")]
    Exit {
        /// Exit status, or 128 and the signal's number.
        code: i32,
        /// The end of what it wrote to standard error, for who explains the failure; 16 KiB at most.
        stderr: Arc<str>,
    },
    /// Nobody wants the result any more.
    #[error("context canceled")]
    Canceled,
    /// The session that a secret or an agent came from is gone; another may serve.
    #[error("session `{session}` is gone")]
    SessionLost {
        /// Its id.
        session: String,
    },
    /// What was keyed is no longer what is there: the build has to look again.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// What changed.
        path: String,
    },
    /// Anything else, named by who executed it.
    #[error("{0}")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl ExecError {
    /// Wraps an error of the worker or a source.
    pub fn failed(err: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(Arc::new(err))
    }
}

/// An execution that failed, and what is left of it.
#[derive(Debug, Clone)]
pub struct ExecFailure {
    /// Why.
    pub error: ExecError,
    /// What whoever looks into it may see.
    pub remains: Option<Remains>,
}

impl From<ExecError> for ExecFailure {
    fn from(error: ExecError) -> Self {
        Self { error, remains: None }
    }
}

/// What a worker keeps of an execution that failed, in a form that only the worker knows. It is there as long as somebody holds it.
#[derive(Clone)]
pub struct Remains(Arc<dyn Any + Send + Sync>);

impl Remains {
    /// Holds `kept`.
    pub fn new(kept: impl Any + Send + Sync) -> Self {
        Self(Arc::new(kept))
    }

    /// What is held, if it is a `T`.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl std::fmt::Debug for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remains")
    }
}
