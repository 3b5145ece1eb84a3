//! The syntax tree of a Dockerfile.
//!
//! A [`Document`] is a flat list of [`Instruction`]s plus [`Stage`]s that are ranges of it. Each instruction
//! keeps both what was written (flags, arguments, heredocs, the joined line) and the typed [`Command`].
//! Nothing is expanded yet: words still hold their quotes, escapes and variables, see [`crate::words`].

mod command;
mod document;
mod instruction;
mod map;

pub use command::{
    AddCommand, ArgCommand, ArgDefinition, Command, CommandLine, CopyCommand, EnvCommand, ExposeCommand,
    FromCommand, HealthcheckCommand, InlineFile, KeyValue, LabelCommand, Network, OnbuildCommand, RunCommand,
    Security, SourcesAndDest,
};
pub use document::{Directive, Directives, Document, Stage};
pub use instruction::{Heredoc, Instruction, Place};
pub use map::SourceMap;
