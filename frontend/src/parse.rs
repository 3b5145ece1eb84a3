//! Text to syntax tree.
//!
//! [`parse`] reads all of a file and reports all of its errors. The first diagnostic is the one that BuildKit stops at;
//! the others follow in file order.

pub mod csv;

use crate::ast::{Document, Instruction};
use crate::diagnostic::Diagnostic;
use crate::span::Lines;

/// Parses a Dockerfile; `name` is what diagnostics call it.
///
/// The document is there whatever the errors. A file with errors must not be lowered.
pub fn parse(name: &str, bytes: &[u8]) -> (Document, Vec<Diagnostic>) {
    unimplemented!("{name} {bytes:?}")
}

/// Parses the text of an ONBUILD trigger from an image's config, as one instruction.
///
/// # Errors
/// The first error, placed at `lines`: those of the FROM whose image has the trigger.
pub fn parse_trigger(expression: &str, lines: Lines) -> Result<Instruction, Diagnostic> {
    unimplemented!("{expression} {lines:?}")
}
