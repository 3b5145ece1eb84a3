//! Any bytes as a Dockerfile: parse, lint, render.

#![no_main]

use frontend::lint::{Linter, check_syntax};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (document, diagnostics) = frontend::parse::parse("Dockerfile", bytes);
    let text = document.source.text();
    for instruction in &document.instructions {
        assert!(text.get(instruction.span.start..instruction.span.end).is_some());
        assert!(instruction.lines.end <= document.source.line_count());
    }
    for diagnostic in &diagnostics {
        diagnostic.render(&document.source);
    }
    check_syntax(&document, &mut Linter::default());
});
