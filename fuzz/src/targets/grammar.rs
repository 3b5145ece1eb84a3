//! Any bytes as a Dockerfile: parse, lint, render.

use frontend::lint::{Linter, check_syntax};

pub(super) fn run(bytes: &[u8]) {
    let (document, diagnostics) = frontend::parse::parse("Dockerfile", bytes);
    let text = document.source.text();
    for instruction in &document.instructions {
        assert!(
            text.get(instruction.span.start..instruction.span.end).is_some(),
            "a span outside of the file"
        );
        assert!(instruction.lines.end <= document.source.line_count(), "a line outside of the file");
    }
    for diagnostic in &diagnostics {
        diagnostic.render(&document.source);
    }
    check_syntax(&document, &mut Linter::default());
}
