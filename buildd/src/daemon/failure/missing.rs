//! A source that a COPY, an ADD or a bind mount does not find.

use cache::fileop::ActionError;
use cache::tree::TreePath;
use frontend::span::{Lines, SourceFile, Span};
use solver::op::{ActionInput, FileActionKind};
use solver::{Edge, ExecError, Graph, Op, VertexId};

/// What an op selects of an input cannot be told, in the words that tools look for.
#[derive(Debug, thiserror::Error)]
#[error("failed to calculate checksum of ref {input}: {cause}")]
pub(in crate::daemon) struct Unselected {
    /// The input, in one word.
    pub input: String,
    /// Why.
    #[source]
    pub cause: ActionError,
}

/// What is missing, and where.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Missing {
    /// The path in the output.
    pub path: TreePath,
    /// The output that was to have it.
    pub input: Edge,
}

impl Missing {
    /// What an error is about, if it is about that.
    pub(in crate::daemon) fn of(graph: &Graph, vertex: VertexId, error: &ExecError) -> Option<Self> {
        let ExecError::Failed(inner) = error else { return None };
        let cause = inner.downcast_ref::<Unselected>().map(|unselected| &unselected.cause);
        let Some(ActionError::SourceNotFound { path }) = cause.or_else(|| inner.downcast_ref()) else {
            return None;
        };
        let path = TreePath::clean(path.as_bytes()).ok()?;
        let vertex = graph.vertex(vertex);
        let is_it = |source: &str| TreePath::clean(source.as_bytes()).is_ok_and(|source| source == path);
        let input = match &vertex.op {
            Op::File(op) => op.actions.iter().find_map(|action| match (&action.kind, action.secondary) {
                (FileActionKind::Copy(copy), ActionInput::Vertex(input))
                    if is_it(&copy.src) || copy.required_paths.iter().any(|path| is_it(path)) =>
                {
                    Some(input)
                }
                _ => None,
            }),
            Op::Exec(op) => op.mounts.iter().find(|mount| is_it(&mount.selector)).and_then(|m| m.input),
            _ => None,
        }?;
        Some(Self { path, input: *vertex.inputs.get(input)? })
    }

    /// The first word that means the path, in some lines of the Dockerfile; not the instruction's own.
    pub(super) fn word(&self, file: &SourceFile, lines: Lines) -> Option<Span> {
        let is_end = |ch: char| ch.is_whitespace() || matches!(ch, '=' | ',' | '"' | '[' | ']');
        let mut words = lines.iter().flat_map(|line| {
            let (start, text) = (file.line_span(line).start, file.line(line));
            let word = move |word: &'_ str| start + (word.as_ptr().addr() - text.as_ptr().addr());
            text.split(is_end).filter(|word| !word.is_empty()).map(move |w| (word(w), w))
        });
        words.next();
        let means_it = |word: &str| TreePath::clean(word.as_bytes()).is_ok_and(|path| path == self.path);
        words.find(|(_, word)| means_it(word)).map(|(start, word)| Span::new(start, start + word.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found() {
        let word = |text: &str, path: &str| {
            let file = SourceFile::new("Dockerfile", text.as_bytes());
            let path = TreePath::clean(path.as_bytes()).expect("a path");
            let missing = Missing { path, input: Edge { vertex: VertexId(0), output: 0 } };
            let span = missing.word(&file, Lines::new(1, file.line_count()))?;
            Some((file.locate(span.start).line, file.text()[span.start..span.end].to_owned()))
        };
        let found = |line, text: &str| Some((line, text.to_owned()));
        assert_eq!(word("COPY a ./b/ \\\n  c /\n", "/b"), found(1, "./b/"));
        assert_eq!(word("COPY a b \\\n  c /\n", "/c"), found(2, "c"));
        assert_eq!(word("COPY [\"a b\", \"c\", \"/\"]\n", "/c"), found(1, "c"));
        assert_eq!(word("RUN --mount=source=x/y,target=/t ls\n", "x/y"), found(1, "x/y"));
        assert_eq!(word("COPY COPY /\n", "COPY"), found(1, "COPY"));
        assert_eq!(word("COPY $A /\n", "a"), None);
    }
}
