//! A build that failed, as the client is told: BuildKit's message, and where in which file.

use cache::fileop::ActionError;
use frontend::diagnostic::Diagnostic;
use frontend::span::{SourceFile, Span};
use prost::Message as _;
use solver::graph::{SourceInfo, SourceLocation, SourceRange};
use solver::op::{ExecOp, attr};
use solver::pattern::PatternMatcher;
use solver::{ExecError, Graph, Op, SolveError, VertexId, redacted};
use tonic::{Code, Status};

use super::blame::{Blamed, failed_line};
use crate::errdetails::{self, ErrorDetails};

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
}

impl Failure {
    /// A failure without a place.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { message: shown(&message.into()), code, details: ErrorDetails::default() }
    }

    /// The caller asked for something that cannot be.
    pub(super) fn invalid(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Code::InvalidArgument, chain(error))
    }

    /// A request that names two ways to its graph.
    pub(super) fn two_ways() -> Self {
        Self::new(Code::InvalidArgument, "cannot solve with both Definition and Frontend specified")
    }

    /// A request that brings rules about sources: to build without them would be to break them.
    pub(super) fn no_policies() -> Self {
        Self::new(Code::Unimplemented, "this daemon applies no source policies")
    }

    /// What a client that is its own frontend says of its failure.
    pub(super) fn told(error: &proto::rpc::Status) -> Self {
        let code = Code::from_i32(error.code);
        let status = Status::with_details(code, &error.message, error.encode_to_vec().into());
        Self { message: error.message.clone(), code, details: errdetails::details(&status) }
    }

    /// A result could not be handed on.
    pub(super) fn of_export(error: &ExecError) -> Self {
        Self::new(code(error), text(error))
    }

    /// A vertex of a graph failed.
    pub(super) fn of_graph(graph: &Graph, error: &SolveError) -> Self {
        let code = code(&error.error);
        let Some(id) = error.vertex else { return Self::new(code, text(&error.error)) };
        let details = ErrorDetails {
            vertex: Some(crate::llb::vertex_digests(graph)[id.index()].to_string()),
            sources: sources(graph, id, blamed(graph, id, &error.error).as_ref()),
        };
        Self { message: shown(&of_vertex(graph, id, &error.error)), code, details }
    }

    /// Errors of a Dockerfile.
    pub(super) fn of_diagnostics(file: &SourceFile, bytes: &[u8], diagnostics: &[Diagnostic]) -> Self {
        let info = SourceInfo {
            filename: file.name().to_owned(),
            language: "Dockerfile".to_owned(),
            data: bytes.to_vec(),
        };
        let source = |d: &Diagnostic| {
            let lines = d
                .lines
                .map(|l| (l.start, l.end))
                .filter(|(s, _)| *s > 0)
                .or_else(|| d.line(file).map(|l| (l, l)))?;
            let whole = SourceRange { start_line: lines.0, end_line: lines.1, ..SourceRange::default() };
            let words = d.spans.iter().map(|span| words(file, *span));
            Some(place(&info, &std::iter::once(whole).chain(words).collect::<Vec<_>>()))
        };
        let mut message = diagnostics.first().map_or_else(String::new, |d| d.message.clone());
        for hint in diagnostics.iter().flat_map(|d| &d.hints) {
            message.push_str("\nhint: ");
            message.push_str(hint);
        }
        for other in diagnostics.iter().skip(1).take(OTHERS) {
            let line = other.line(file).map_or_else(String::new, |l| format!(" (line {l})"));
            message.push_str(&format!("\nalso: {}{line}", other.message));
        }
        let sources = diagnostics.iter().take(EXCERPTS).filter_map(source).collect();
        Self {
            message: shown(&message),
            code: Code::Unknown,
            details: ErrorDetails { vertex: None, sources },
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
        _ => Code::Unknown,
    }
}

/// How many further errors of a Dockerfile are listed.
const OTHERS: usize = 20;

/// How many errors of a Dockerfile are shown in their place.
const EXCERPTS: usize = 4;

/// A larger file is sent only as far as excerpts show it: details of an error travel in HTTP trailers.
const LARGE: usize = 64 << 10;

/// Lines around those of an error that excerpts may show.
const AROUND: u32 = 8;

/// An error and its causes, each said once. An error that says its innermost cause itself says enough.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let mut text = error.to_string();
    let innermost = causes.last().cloned().unwrap_or_default();
    for said in causes {
        if text.ends_with(&innermost) {
            break;
        }
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
    }
    text
}

/// What an error of the solver says, with its causes.
pub(super) fn text(error: &ExecError) -> String {
    match error {
        ExecError::Failed(inner) => chain(inner.as_ref()),
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
        (Op::File(_), ExecError::Failed(inner)) => {
            let missing = match inner.downcast_ref::<ActionError>() {
                Some(ActionError::SourceNotFound { path }) => ignored(graph, id, path),
                _ => None,
            };
            text(error) + &missing.map_or_else(String::new, |hint| format!("\nhint: {hint}"))
        }
        _ => text(error),
    }
}

/// What is said of a command that failed, in BuildKit's words.
pub(super) fn process_text(op: &ExecOp, error: &str) -> String {
    format!("process {:?} did not complete successfully: {error}", op.meta.args.join(" "))
}

/// The line of a RUN of several lines that its shell complained of.
fn blamed(graph: &Graph, id: VertexId, error: &ExecError) -> Option<Blamed> {
    let (Op::Exec(exec), ExecError::Exit { stderr, .. }) = (&graph.vertex(id).op, error) else { return None };
    let location = graph.vertex(id).meta.locations.first()?;
    let range = location.ranges.first().filter(|r| r.start_line < r.end_line)?;
    let text = String::from_utf8_lossy(&graph.sources.get(location.source as usize)?.data);
    failed_line(&exec.meta.args, stderr, &text, range.start_line..=range.end_line)
}

/// Says whether an ignore file keeps `path` out of the context that a copy takes it from.
fn ignored(graph: &Graph, id: VertexId, path: &str) -> Option<String> {
    let lists = graph.vertex(id).inputs.iter().filter_map(|e| match &graph.vertex(e.vertex).op {
        Op::Source(source) => source.attrs.get(attr::EXCLUDE_PATTERNS),
        _ => None,
    });
    let path = path.trim_start_matches('/');
    let ignores =
        |patterns: &[String]| PatternMatcher::new(patterns).is_ok_and(|m| m.matches(path.as_bytes()));
    lists.filter_map(|json| serde_json::from_str::<Vec<String>>(json).ok()).find_map(|patterns| {
        if !ignores(&patterns) {
            return None;
        }
        let pattern = patterns.iter().rfind(|p| ignores(std::slice::from_ref(p)))?;
        Some(format!("`.dockerignore` keeps `{path}` out of the context, by its pattern `{pattern}`"))
    })
}

fn sources(graph: &Graph, id: VertexId, blamed: Option<&Blamed>) -> Vec<proto::errdefs::Source> {
    let source = |l: &SourceLocation| {
        let info = graph.sources.get(l.source as usize)?;
        let mut ranges = l.ranges.clone();
        if let Some(blamed) = blamed {
            let file = SourceFile::new(&info.filename, &info.data);
            let line = file.line_span(blamed.line);
            let text = file.line(blamed.line);
            let start = line.start + text.len() - text.trim_start().len();
            ranges.push(words(&file, Span::new(start, line.start + text.trim_end().len())));
        }
        Some(place(info, &ranges))
    };
    graph.vertex(id).meta.locations.iter().filter_map(source).collect()
}

/// The range of a span, with its columns.
fn words(file: &SourceFile, span: Span) -> SourceRange {
    let (start, end) = (file.locate(span.start), file.locate(span.end));
    SourceRange {
        start_line: start.line,
        start_character: start.column - 1,
        end_line: end.line,
        end_character: end.column - 1,
    }
}

/// A file's bytes; of a large one, only the lines near the ranges, the others empty.
fn near(data: &[u8], ranges: &[SourceRange]) -> Vec<u8> {
    if data.len() <= LARGE {
        return data.to_vec();
    }
    let is_near = |line: u32| {
        ranges.iter().any(|r| {
            (r.start_line.saturating_sub(AROUND)..=r.end_line.saturating_add(AROUND)).contains(&line)
        })
    };
    let lines = (1..).zip(data.split(|b| *b == b'\n'));
    let lines: Vec<&[u8]> = lines.map(|(number, line)| if is_near(number) { line } else { &[] }).collect();
    lines.join(&b'\n')
}

fn place(info: &SourceInfo, ranges: &[SourceRange]) -> proto::errdefs::Source {
    let position = |line: u32, character: u32| {
        Some(proto::pb::Position { line: line as i32, character: character as i32 })
    };
    proto::errdefs::Source {
        info: Some(proto::pb::SourceInfo {
            filename: info.filename.clone(),
            data: near(&info.data, ranges).into(),
            definition: None,
            language: info.language.clone(),
        }),
        ranges: ranges
            .iter()
            .map(|r| proto::pb::Range {
                start: position(r.start_line, r.start_character),
                end: position(r.end_line, r.end_character),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Self>>);

    fn said(texts: &[&'static str]) -> String {
        let nest = |below, text: &&'static str| Some(Box::new(Layer(text, below)));
        texts.iter().rev().fold(None, nest).map(|outermost| chain(&*outermost)).unwrap_or_default()
    }

    #[test]
    fn causes_are_said_once() {
        assert_eq!(said(&["a"]), "a");
        assert_eq!(said(&["a", "b", "c"]), "a: b: c");
        assert_eq!(said(&["a: b", "b", "c"]), "a: b: c");
        assert_eq!(
            said(&["`x` cannot be reached: refused", "sending", "tcp connect", "refused"]),
            "`x` cannot be reached: refused"
        );
        assert_eq!(said(&["a", "b: c", "between", "c"]), "a: b: c");
    }
}
