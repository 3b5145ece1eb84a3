//! The part of an inspection record that the parser answers for.

use serde::Serialize;

use crate::ast::{self, Document};
use crate::diagnostic::{Diagnostic, Phase};

/// Directives, stages and instructions of a file, or its first error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParseRecord {
    /// Whether the file has no errors.
    pub parse_ok: bool,
    /// The error that BuildKit reports.
    pub error: Option<ErrorRecord>,
    /// The directives at the top.
    pub directives: DirectivesRecord,
    /// The stages; empty unless the file parses.
    pub stages: Vec<StageRecord>,
    /// The instructions; empty when lines could not be taken apart.
    pub instructions: Vec<InstructionRecord>,
}

/// An error with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorRecord {
    /// `parser`, `instructions` or `convert`.
    pub phase: &'static str,
    /// The message.
    pub message: String,
    /// The first line, 0 if none.
    pub line: u32,
    /// All lines.
    pub lines: Vec<u32>,
}

/// The directives of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectivesRecord {
    /// The escape token.
    pub escape: char,
    /// `syntax` in any form.
    pub syntax: Option<DirectiveRecord>,
    /// `check`
    pub check: Option<DirectiveRecord>,
    /// Those at the very top, in order.
    pub list: Vec<DirectiveRecord>,
    /// What ended that list, where it is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectiveRecord {
    /// The name in lower case.
    pub name: String,
    /// The value.
    pub value: String,
    /// The line.
    pub line: u32,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageRecord {
    /// Its number.
    pub index: usize,
    /// Its name in lower case, empty if it has none.
    pub name: String,
    /// The base as written.
    pub base: String,
    /// The platform as written.
    pub platform: String,
    /// The first line of the FROM.
    pub line: u32,
    /// The last line of the FROM.
    pub line_end: u32,
    /// The description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
}

/// One instruction as the parser sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstructionRecord {
    /// The first line.
    pub line_start: u32,
    /// The last line.
    pub line_end: u32,
    /// The stage's number, -1 before the first FROM.
    pub stage: i64,
    /// The keyword in lower case.
    pub cmd: String,
    /// The keyword as written, if not in upper case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd_raw: Option<String>,
    /// The flags as written.
    pub flags: Vec<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// Whether they were a JSON array.
    pub json: bool,
    /// The here-documents.
    pub heredocs: Vec<HeredocRecord>,
    /// The logical line.
    pub original: String,
    /// ONBUILD's instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<Box<Self>>,
}

/// One here-document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeredocRecord {
    /// The delimiter.
    pub name: String,
    /// The file descriptor.
    pub fd: u64,
    /// Whether variables count.
    pub expand: bool,
    /// Whether leading tabs go.
    pub chomp: bool,
    /// The lines.
    pub content: String,
}

impl ParseRecord {
    /// Records what [`crate::parse::parse`] gave.
    pub fn new(document: &Document, diagnostics: &[Diagnostic]) -> Self {
        let first = diagnostics.first();
        let taken_apart = first.is_none_or(|diagnostic| diagnostic.phase != Phase::Parser);
        Self {
            parse_ok: first.is_none(),
            error: first.map(ErrorRecord::new),
            directives: DirectivesRecord::new(&document.directives, taken_apart),
            stages: if first.is_none() {
                document.stages.iter().map(StageRecord::new).collect()
            } else {
                Vec::new()
            },
            instructions: if taken_apart { instructions(document) } else { Vec::new() },
        }
    }
}

fn instructions(document: &Document) -> Vec<InstructionRecord> {
    let mut stage = -1;
    document
        .instructions
        .iter()
        .map(|instruction| {
            stage += i64::from(instruction.keyword.eq_ignore_ascii_case("from"));
            InstructionRecord::new(instruction, stage)
        })
        .collect()
}

impl ErrorRecord {
    /// Records an error.
    pub fn new(diagnostic: &Diagnostic) -> Self {
        let lines: Vec<u32> = diagnostic.lines.map_or_else(Vec::new, |lines| lines.iter().collect());
        Self {
            phase: diagnostic.phase.as_str(),
            message: diagnostic.message.clone(),
            line: lines.first().copied().unwrap_or(0),
            lines,
        }
    }
}

impl DirectivesRecord {
    /// BuildKit tells the escape token only of files that its parser takes apart.
    fn new(directives: &ast::Directives, taken_apart: bool) -> Self {
        Self {
            escape: if taken_apart { directives.escape } else { '\\' },
            syntax: directives.syntax.as_ref().map(DirectiveRecord::new),
            check: directives.check.as_ref().map(DirectiveRecord::new),
            list: directives.list.iter().map(DirectiveRecord::new).collect(),
            error: directives.error.clone(),
        }
    }
}

impl DirectiveRecord {
    fn new(directive: &ast::Directive) -> Self {
        Self { name: directive.name.clone(), value: directive.value.clone(), line: directive.line }
    }
}

impl StageRecord {
    fn new(stage: &ast::Stage) -> Self {
        Self {
            index: stage.index,
            name: stage.name.clone().unwrap_or_default(),
            base: stage.base.clone(),
            platform: stage.platform.clone().unwrap_or_default(),
            line: stage.lines.start,
            line_end: stage.lines.end,
            doc: stage.doc.clone(),
        }
    }
}

impl InstructionRecord {
    fn new(instruction: &ast::Instruction, stage: i64) -> Self {
        let raw = &instruction.keyword;
        Self {
            line_start: instruction.lines.start,
            line_end: instruction.lines.end,
            stage,
            cmd: raw.to_lowercase(),
            cmd_raw: (*raw != raw.to_uppercase()).then(|| raw.clone()),
            flags: instruction.flags.clone(),
            args: instruction.args.clone(),
            json: instruction.json,
            heredocs: instruction.heredocs.iter().map(HeredocRecord::new).collect(),
            original: instruction.original.clone(),
            sub: instruction.trigger.as_ref().map(|trigger| Box::new(Self::new(trigger, stage))),
        }
    }
}

impl HeredocRecord {
    fn new(heredoc: &ast::Heredoc) -> Self {
        Self {
            name: heredoc.name.clone(),
            fd: heredoc.fd,
            expand: heredoc.expand,
            chomp: heredoc.chomp,
            content: heredoc.content.clone(),
        }
    }
}
