//! From the solver's events to BuildKit's status messages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use solver::{Digest, Event, EventSink, ExecError, Graph, Op, Progress, Status, Update, VertexId, redacted};

use super::failure;
use super::journal::Journal;
use super::timestamp::from_system;

/// Tells the journal of one build what happens to the vertices of its graphs.
///
/// A vertex is known by its LLB digest, so one that occurs in several graphs, or several times in one, is told once.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    journal: Arc<Journal>,
    known: Arc<Mutex<HashMap<Digest, Known>>>,
}

#[derive(Debug, Default)]
struct Known {
    started: Option<SystemTime>,
    cached: bool,
    /// The graph's vertex that speaks for the digest while it is under way.
    speaker: Option<(u64, VertexId)>,
}

/// A graph's vertices as the client knows them.
struct GraphTeller {
    teller: Teller,
    /// Tells the graphs of a build apart.
    serial: u64,
    graph: Arc<Graph>,
    vertices: Vec<Vertex>,
    digests: Vec<Digest>,
}

impl Teller {
    /// Tells `journal`.
    pub(super) fn new(journal: Arc<Journal>) -> Self {
        Self { journal, known: Arc::default() }
    }

    /// A sink for the events of `graph`, whose vertices are known by `digests`.
    pub(super) fn graph(&self, graph: &Arc<Graph>, serial: u64, digests: Vec<Digest>) -> Arc<dyn EventSink> {
        let vertex = |(i, v): (usize, &solver::Vertex)| Vertex {
            digest: digests[i].to_string(),
            inputs: v.inputs.iter().map(|e| digests[e.vertex.index()].to_string()).collect(),
            name: redacted(&crate::llb::vertex_name(v)).into_owned(),
            progress_group: v.meta.progress_group.as_ref().map(crate::llb::progress_group),
            ..Vertex::default()
        };
        let vertices = graph.vertices().iter().enumerate().map(vertex).collect();
        Arc::new(GraphTeller { teller: self.clone(), serial, graph: graph.clone(), vertices, digests })
    }

    /// Begins a step that is no vertex of a graph, such as loading the Dockerfile.
    pub(super) fn step(&self, name: &str) -> Step {
        let started = SystemTime::now();
        let nanos = started.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let digest = Digest::of(format!("{name}\0{nanos}").as_bytes());
        let vertex = Vertex {
            digest: digest.to_string(),
            name: redacted(name).into_owned(),
            started: Some(from_system(started)),
            ..Vertex::default()
        };
        self.send_vertex(vertex.clone());
        Step { teller: self.clone(), vertex, ended: false }
    }

    fn send_vertex(&self, vertex: Vertex) {
        self.journal.push(&StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() });
    }

    fn update(&self, digest: &str, update: Update) {
        let mut message = StatusResponse::default();
        match update {
            Update::Log { stream, data, at } => message.logs.push(VertexLog {
                vertex: digest.to_owned(),
                timestamp: Some(from_system(at)),
                stream: stream as i64,
                msg: bytes::Bytes::copy_from_slice(&data),
            }),
            Update::Status(s) => message.statuses.push(status(digest, s)),
        }
        self.journal.push(&message);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(vertex: &str, s: Status) -> VertexStatus {
    // Clients tell what is transferred by the id, and that it is by the name.
    let name = if s.id.starts_with(TRANSFERRING) { TRANSFERRING } else { &s.id };
    VertexStatus {
        vertex: vertex.to_owned(),
        name: name.to_owned(),
        id: s.id,
        current: s.current as i64,
        total: s.total as i64,
        timestamp: Some(from_system(SystemTime::now())),
        started: Some(from_system(s.started)),
        completed: s.completed.map(from_system),
    }
}

impl EventSink for GraphTeller {
    fn event(&self, id: VertexId, event: Event) {
        let mut vertex = self.vertices[id.index()].clone();
        let speaker = Some((self.serial, id));
        let mut map = self.teller.lock();
        let known = map.entry(self.digests[id.index()]).or_default();
        match event {
            Event::Started(at) => {
                if known.speaker.is_some_and(|s| Some(s) != speaker) {
                    return;
                }
                known.speaker = speaker;
                known.started = Some(at);
                vertex.started = Some(from_system(at));
            }
            Event::Cached(at) => {
                if known.cached || known.speaker.is_some_and(|s| Some(s) != speaker) {
                    return;
                }
                known.cached = true;
                known.speaker = None;
                vertex.cached = true;
                vertex.started = known.started.or(Some(at)).map(from_system);
                vertex.completed = Some(from_system(at));
            }
            Event::Update(u) => {
                if known.speaker == speaker {
                    drop(map);
                    self.teller.update(&vertex.digest, u);
                }
                return;
            }
            Event::Completed(at, error) => {
                if known.speaker != speaker {
                    return;
                }
                known.speaker = None;
                vertex.started = known.started.map(from_system);
                vertex.completed = Some(from_system(at));
                vertex.error = error.map(|e| redacted(&self.error(id, e)).into_owned()).unwrap_or_default();
            }
        }
        drop(map);
        self.teller.send_vertex(vertex);
    }
}

impl GraphTeller {
    /// What is said of a vertex that failed.
    fn error(&self, id: VertexId, error: String) -> String {
        match &self.graph.vertex(id).op {
            Op::Exec(op) if error.starts_with(EXIT) => failure::process_text(op, &error),
            _ => error,
        }
    }
}

/// How the error of a command begins that was run and failed ([`ExecError::Exit`]).
/// What happens to a client's directory, in BuildKit's word.
const TRANSFERRING: &str = "transferring";

const EXIT: &str = "exit code: ";

/// A step that is under way; it fails when it is dropped without an end.
#[derive(Debug)]
pub(super) struct Step {
    teller: Teller,
    vertex: Vertex,
    ended: bool,
}

impl Step {
    /// Takes output and progress of the step.
    pub(super) fn progress(&self) -> Progress {
        let (teller, digest) = (self.teller.clone(), self.vertex.digest.clone());
        Progress::new(move |u| teller.update(&digest, u))
    }

    /// Runs a part of the step that shows as `id` until it is done, failed, or given up.
    pub(super) async fn part<T, E>(
        &self,
        id: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let _shown = Part::begin(self, id);
        work.await
    }

    /// Tells warnings.
    pub(super) fn warn(&self, warnings: &[String]) {
        if warnings.is_empty() {
            return;
        }
        let warning = |short: &String| VertexWarning {
            vertex: self.vertex.digest.clone(),
            short: short.clone().into(),
            ..VertexWarning::default()
        };
        let warnings = warnings.iter().map(warning).collect();
        self.teller.journal.push(&StatusResponse { warnings, ..StatusResponse::default() });
    }

    /// Ends the step with a result, which is handed on.
    pub(super) fn end<T, E: std::fmt::Display>(mut self, result: Result<T, E>) -> Result<T, E> {
        self.complete(result.as_ref().err().map(ToString::to_string).unwrap_or_default());
        result
    }

    fn complete(&mut self, error: String) {
        self.ended = true;
        let completed = Some(from_system(SystemTime::now()));
        let error = redacted(&error).into_owned();
        self.teller.send_vertex(Vertex { completed, error, ..self.vertex.clone() });
    }
}

/// A part of a step that is under way until it is dropped. Displays keep a step open as long as one of its parts is.
struct Part<'a> {
    step: &'a Step,
    status: Status,
}

impl<'a> Part<'a> {
    fn begin(step: &'a Step, id: &str) -> Self {
        let id = id.to_owned();
        let status = Status { id, current: 0, total: 0, started: SystemTime::now(), completed: None };
        step.teller.update(&step.vertex.digest, Update::Status(status.clone()));
        Self { step, status }
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let status = Status { completed: Some(SystemTime::now()), ..self.status.clone() };
        self.step.teller.update(&self.step.vertex.digest, Update::Status(status));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.complete(ExecError::Canceled.to_string());
        }
    }
}
