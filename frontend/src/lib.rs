//! From Dockerfile text to a build graph: grammar, AST, words, stages, lint, lowering.
//!
//! Nothing here does I/O. [`parse`] turns bytes into an [`ast::Document`] and all its errors;
//! [`words`] expands variables; [`lint`] holds BuildKit's rules; [`dockerignore`] matches context paths.

pub mod ast;
pub mod config;
pub mod diagnostic;
pub mod dockerignore;
pub mod excerpt;
pub mod inspect;
pub mod lint;
pub mod lower;
pub mod mount;
pub mod number;
pub mod options;
pub mod parse;
pub mod platform;
pub mod quote;
pub mod reference;
pub mod span;
pub mod subrequest;
pub mod suggest;
pub mod words;
