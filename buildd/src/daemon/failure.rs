//! A build that failed, as the client is told: BuildKit's message, and where in which file.

mod blame;
mod missing;
mod place;

use frontend::diagnostic::Diagnostic;
use frontend::span::SourceFile;
use prost::Message as _;
use proto::errdefs::Source;
use runner::RunnerError;
use solver::graph::SourceInfo;
use solver::op::ExecOp;
use solver::{ExecError, Graph, Op, VertexId, redacted};
use tonic::{Code, Status};

use self::blame::{Blamed, blamed};
pub(super) use self::missing::{Missing, Unselected};
use super::broken::BrokenStep;
use crate::causes::causes;
use crate::errdetails::{self, CACHE_KEY, ErrorDetails, Refusal, without_checksum};
use crate::session::SessionError;

/// A failed build.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    /// What the user reads.
    pub message: String,
    /// gRPC's class of it.
    pub code: Code,
    /// Vertex and places.
    pub details: ErrorDetails,
    /// The step that failed, for whom it is open to look into.
    pub step: Option<Box<BrokenStep>>,
}

impl Failure {
    /// A failure without a place.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { message: shown(&message.into()), code, details: ErrorDetails::default(), step: None }
    }

    /// The caller asked for something that cannot be.
    pub(super) fn invalid(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Code::InvalidArgument, causes(error))
    }

    /// A request that names two ways to its graph.
    pub(super) fn two_ways() -> Self {
        Self::new(Code::InvalidArgument, "cannot solve with both Definition and Frontend specified")
    }

    /// A frontend is to do something that it does not know.
    pub(super) fn no_cap(name: &str) -> Self {
        let mut failure = Self::new(Code::Unimplemented, format!("unsupported frontend capability {name}"));
        failure.details.refusal = Some(Box::new(Refusal::Cap(name.to_owned())));
        failure
    }

    /// What a client that is its own frontend says of its failure.
    pub(super) fn told(error: &proto::rpc::Status) -> Self {
        let code = Code::from_i32(error.code);
        let status = Status::with_details(code, &error.message, error.encode_to_vec().into());
        Self { message: error.message.clone(), code, details: errdetails::details(&status), step: None }
    }

    /// A result could not be handed on.
    pub(super) fn of_export(error: &ExecError) -> Self {
        Self::new(code(error), text(error))
    }

    /// The client's session did not do what it was asked for.
    pub(super) fn of_session(error: &SessionError) -> Self {
        Self::new(if error.is_missing() { Code::NotFound } else { Code::Unknown }, causes(error))
    }

    /// A vertex of a graph failed, or the whole.
    pub(super) fn of_graph(graph: &Graph, vertex: Option<VertexId>, error: &ExecError) -> Self {
        let code = code(error);
        let Some(id) = vertex else { return Self::new(code, text(error)) };
        let details = ErrorDetails {
            vertex: Some(crate::llb::vertex_digests(graph)[id.index()].to_string()),
            sources: place::of_vertex(graph, id, |file, lines| match Missing::of(graph, id, error) {
                Some(missing) => missing.word(file, lines),
                None => place::of_line(file, blamed(graph, id, error)?.line),
            }),
            ..ErrorDetails::default()
        };
        Self { message: shown(&of_vertex(graph, id, error)), code, details, step: None }
    }

    /// With places in a file that is loaded by `definition`, unless it is said already how theirs is.
    pub(super) fn in_file_of(mut self, definition: &proto::pb::Definition) -> Self {
        for info in self.details.sources.iter_mut().filter_map(|source| source.info.as_mut()) {
            info.definition.get_or_insert_with(|| definition.clone());
        }
        self
    }

    /// With further failures of the same graph, each in its place.
    pub(super) fn with_others(mut self, others: Vec<Self>) -> Self {
        if others.is_empty() {
            return self;
        }
        let sources = others.iter().map(|other| &other.details.sources);
        let sources = std::iter::once(&self.details.sources).chain(sources).map(|list| list.first().cloned());
        let Some(sources) = sources.collect::<Option<Vec<_>>>() else { return self };
        let with_line = |message: &str, source: &Source| {
            let says = without_checksum(message);
            let (first, hints) =
                says.split_once('\n').map_or((says, None), |(first, rest)| (first, Some(rest)));
            let start = source.ranges.first().and_then(|range| range.start).unwrap_or_default();
            let hints = hints.map_or_else(String::new, |hints| format!("\n{hints}"));
            format!("{first} (line {}){hints}", start.line)
        };
        let messages = std::iter::once(&self).chain(&others).map(|failure| &failure.message);
        let messages: Vec<String> = messages.zip(&sources).map(|(m, s)| with_line(m, s)).collect();
        for says in messages.iter().skip(1) {
            self.message.push_str(&format!("\nalso: {says}"));
        }
        self.details.sources = sources;
        self.details.messages = messages.into();
        self
    }

    /// With something else to say.
    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.message.push_str(&shown(&format!("\nhint: {hint}")));
        self
    }

    /// Errors of a Dockerfile.
    pub(super) fn of_diagnostics(file: &SourceFile, bytes: &[u8], diagnostics: &[Diagnostic]) -> Self {
        let info = SourceInfo {
            filename: file.name().to_owned(),
            language: "Dockerfile".to_owned(),
            data: bytes.to_vec(),
            definition: Vec::new(),
        };
        let says = |d: &Diagnostic, text: &str| {
            let hints: String = d.hints.iter().map(|hint| format!("\nhint: {hint}")).collect();
            shown(&format!("{text}{hints}"))
        };
        let with_line = |d: &Diagnostic| match d.line(file) {
            Some(line) => says(d, &format!("{} (line {line})", d.message)),
            None => says(d, &d.message),
        };
        let mut message = diagnostics.first().map_or_else(String::new, |d| says(d, &d.told()));
        for other in diagnostics.iter().skip(1).take(OTHERS) {
            message.push_str(&format!("\nalso: {}", with_line(other)));
        }
        let in_place = diagnostics.iter().take(EXCERPTS);
        let (sources, mut messages): (Vec<_>, Vec<_>) =
            in_place.filter_map(|d| Some((place::of_diagnostic(&info, file, d)?, with_line(d)))).unzip();
        if messages.len() < 2 {
            messages.clear();
        }
        Self {
            message,
            code: Code::Unknown,
            details: ErrorDetails { sources, messages: messages.into(), ..ErrorDetails::default() },
            step: None,
        }
    }

    /// The gRPC status.
    pub(super) fn status(&self) -> Status {
        errdetails::status(self.code, &self.message, &self.details)
    }
}

/// Messages are kept in the history, so they must not hold the credentials of a URL.
fn shown(message: &str) -> String {
    redacted(message).into_owned()
}

fn code(error: &ExecError) -> Code {
    match error {
        ExecError::Canceled => Code::Cancelled,
        ExecError::Failed(inner) if inner.downcast_ref().is_some_and(SessionError::is_missing) => {
            Code::NotFound
        }
        _ => Code::Unknown,
    }
}

/// How many further errors of a Dockerfile are listed.
const OTHERS: usize = 20;

/// How many errors of a Dockerfile are shown in their place.
pub(super) const EXCERPTS: usize = 10;

/// What an error of the solver says, with its causes.
pub(super) fn text(error: &ExecError) -> String {
    match error {
        ExecError::Failed(inner) => causes(inner.as_ref()),
        other => other.to_string(),
    }
}

fn of_vertex(graph: &Graph, id: VertexId, error: &ExecError) -> String {
    let vertex = graph.vertex(id);
    match (&vertex.op, error) {
        (Op::Exec(op), ExecError::Exit { .. }) => {
            let message = process_text(op, &error.to_string());
            match blamed(graph, id, error) {
                Some(Blamed { line, message: said }) => format!("{message}\nhint: line {line}: {said}"),
                None => message,
            }
        }
        (Op::Exec(op), ExecError::Failed(inner)) if inner.is::<RunnerError>() => {
            process_text(op, &text(error))
        }
        (_, ExecError::Failed(inner)) if inner.is::<Unselected>() => {
            format!("{CACHE_KEY}{}", text(error))
        }
        _ => text(error),
    }
}

/// What is said of a command that failed, in BuildKit's words.
pub(super) fn process_text(op: &ExecOp, error: &str) -> String {
    format!("process {:?} did not complete successfully: {error}", op.meta.args.join(" "))
}
