//! Text to syntax tree.
//!
//! [`parse`] reads all of a file and reports all of its errors. The first diagnostic is the one that BuildKit stops at;
//! the others follow in file order. Within, a file passes through `lines` (logical lines), `arguments` (statements, by the
//! pest grammar in `dockerfile.pest`) and `typed` (instructions).

mod arguments;
pub mod csv;
mod directive;
mod document;
mod flags;
mod grammar;
mod keyword;
mod lines;
mod problem;
mod typed;

pub use document::{parse, parse_trigger};
