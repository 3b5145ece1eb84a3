//! The whole file: directives, instructions, stages.

use std::ops::Range;

use crate::ast::{Command, Instruction, Place};
use crate::span::{Lines, SourceFile};

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The text, for excerpts.
    pub source: SourceFile,
    /// The parser directives at the top.
    pub directives: Directives,
    /// Every instruction in file order, those with errors too.
    pub instructions: Vec<Instruction>,
    /// The stages in file order.
    pub stages: Vec<Stage>,
    /// The last line of each instruction that has an empty continuation line (lint rule NoEmptyContinuation).
    pub empty_continuations: Vec<u32>,
}

impl Document {
    /// The ARG instructions before the first FROM.
    pub fn global_args(&self) -> impl Iterator<Item = &Instruction> {
        let end = self.stages.first().map_or(self.instructions.len(), |stage| stage.from);
        self.instructions[..end].iter().filter(|i| matches!(i.command, Command::Arg(_)))
    }

    /// A stage's instructions after its FROM.
    pub fn commands(&self, stage: &Stage) -> &[Instruction] {
        &self.instructions[stage.commands.clone()]
    }

    /// A stage's FROM.
    pub fn from(&self, stage: &Stage) -> &Instruction {
        &self.instructions[stage.from]
    }

    /// Where findings about a stage's FROM are reported.
    pub fn stage_place(&self, stage: &Stage) -> Place<'_> {
        self.from(stage).place()
    }
}

/// The parser directives of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The escape token: a backslash or a backtick.
    pub escape: char,
    /// `# syntax=`, in any of its spellings (also `//` and JSON, also after a shebang).
    pub syntax: Option<Directive>,
    /// `# check=`, also after a shebang.
    pub check: Option<Directive>,
    /// The `#` directives at the very top, in file order.
    pub list: Vec<Directive>,
    /// What ended that list, where it is an error.
    pub error: Option<String>,
}

/// One parser directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The name in lower case.
    pub name: String,
    /// The value as written, trimmed.
    pub value: String,
    /// Its line, from 1 (0 for the JSON form of `syntax` without a shebang).
    pub line: u32,
}

impl Directive {
    /// The value up to the first blank: what `syntax` and `check` go by.
    pub fn first_word(&self) -> &str {
        self.value.split(' ').next().unwrap_or("")
    }
}

/// A build stage: a FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The stage's number in the file, from 0.
    pub index: usize,
    /// The name after AS, in lower case.
    pub name: Option<String>,
    /// The base as written, not expanded.
    pub base: String,
    /// The value of `--platform`, not expanded; absent when empty.
    pub platform: Option<String>,
    /// The description in the comment above, without the stage's name.
    pub doc: Option<String>,
    /// The FROM's lines.
    pub lines: Lines,
    /// The index of the FROM in [`Document::instructions`].
    pub from: usize,
    /// The indexes of the instructions after the FROM.
    pub commands: Range<usize>,
}
