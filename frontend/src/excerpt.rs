//! The rendered form of diagnostics.

use crate::diagnostic::Diagnostic;
use crate::span::SourceFile;

/// The message with the excerpt; see [`Diagnostic::render`].
pub(crate) fn render(diagnostic: &Diagnostic, source: &SourceFile) -> String {
    let line = diagnostic.lines.map_or(0, |lines| lines.start);
    format!("{}:{line}\n{}", source.name(), diagnostic.message)
}
