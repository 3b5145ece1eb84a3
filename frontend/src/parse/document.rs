//! The whole file, from bytes to stages.

use crate::ast::{Command, Directives, Document, Heredoc, Instruction, Stage};
use crate::diagnostic::{Diagnostic, NO_STAGE, Phase};
use crate::lint::CheckOptions;
use crate::parse::arguments::Statement;
use crate::parse::directive;
use crate::parse::lines::{LineReader, LogicalLine, MAX_LINE};
use crate::parse::problem::Problem;
use crate::parse::typed::{self, Request};
use crate::span::{Lines, SourceFile, Span};

/// Parses a Dockerfile; `name` is what diagnostics call it.
///
/// The document is there whatever the errors. A file with errors must not be lowered.
pub fn parse(name: &str, bytes: &[u8]) -> (Document, Vec<Diagnostic>) {
    let source = SourceFile::new(name, bytes);
    let mut reader = LineReader::new(&source);
    let mut file = FileParser::default();
    while let Some(line) = reader.next_logical() {
        file.statement(&mut reader, line);
    }
    let FileParser { instructions, stages, empty_continuations, mut diagnostics, .. } = file;
    diagnostics.append(&mut reader.directives.errors);
    diagnostics.extend(end_of_file(&reader, instructions.is_empty()));
    let (list, error) = directive::list(source.text());
    let directives = Directives {
        escape: reader.escape(),
        syntax: directive::syntax(source.text()),
        check: directive::check(source.text()),
        list,
        error,
    };
    drop(reader);
    (Document { source, directives, instructions, stages, empty_continuations }, in_order(diagnostics))
}

/// Parses the text of an ONBUILD trigger from an image's config, as one instruction.
///
/// # Errors
/// The first error, placed at `lines`: those of the FROM whose image has the trigger.
pub fn parse_trigger(expression: &str, lines: Lines) -> Result<Instruction, Diagnostic> {
    let (mut document, mut diagnostics) = parse("ONBUILD", expression.as_bytes());
    // A trigger is not in a stage of its own text.
    diagnostics.retain(|diagnostic| diagnostic.message != NO_STAGE);
    if !diagnostics.is_empty() {
        let mut first = diagnostics.swap_remove(0);
        first.lines = Some(lines);
        first.spans.clear();
        return Err(first);
    }
    match document.instructions.pop() {
        Some(instruction) if matches!(instruction.command, Command::From(_)) => {
            let message = "FROM isn't allowed as an ONBUILD trigger";
            Err(Diagnostic::error(Phase::Convert, message).at(lines))
        }
        Some(mut instruction) if document.instructions.is_empty() => {
            instruction.lines = lines;
            Ok(instruction)
        }
        _ => {
            let message = "onbuild trigger should be a single expression";
            Err(Diagnostic::error(Phase::Convert, message).at(lines))
        }
    }
}

/// Collects instructions and errors.
#[derive(Debug, Default)]
struct FileParser {
    instructions: Vec<Instruction>,
    stages: Vec<Stage>,
    empty_continuations: Vec<u32>,
    diagnostics: Vec<Diagnostic>,
    /// Whether there was a FROM, be it with an error.
    seen_from: bool,
}

impl FileParser {
    fn statement(&mut self, reader: &mut LineReader<'_>, line: LogicalLine) {
        if line.empty_continuation {
            self.empty_continuations.push(line.last);
        }
        let statement = Statement::new(&line.text, reader.escape());
        let (statement, heredocs, problem) = match statement.and_then(|statement| {
            let markers = statement.markers()?;
            Ok((statement, markers))
        }) {
            Ok((statement, markers)) => {
                let (heredocs, problem) = read_bodies(reader, markers);
                (Some(statement), heredocs, problem)
            }
            Err(problem) => (None, Vec::new(), Some(problem)),
        };
        let lines = Lines::new(line.first, reader.line.max(line.last));
        if let Some(problem) = problem {
            self.diagnostics.push(problem.at(Phase::Parser, lines, &line.text, &line.map));
        }
        if let Some(statement) = statement {
            let end = if heredocs.is_empty() { line.end } else { reader.position() };
            self.instruction(statement, heredocs, line, lines, end);
        }
    }

    fn instruction(
        &mut self,
        statement: Statement,
        heredocs: Vec<Heredoc>,
        line: LogicalLine,
        lines: Lines,
        end: usize,
    ) {
        let request = Request { statement: &statement, heredocs: &heredocs, comments: &line.comments };
        let command = typed::command(request).unwrap_or_else(|problems| {
            let place = |problem: Problem| problem.at(Phase::Instructions, lines, &line.text, &line.map);
            self.diagnostics.extend(problems.into_iter().map(place));
            Command::Invalid
        });
        let span = Span::new(line.map.offset(0), end);
        let mut instruction = untyped(statement, &line.map, lines, span);
        instruction.command = command;
        instruction.heredocs = heredocs;
        instruction.check = line.comments.iter().find_map(|comment| check_options(comment)).flatten();
        instruction.comments = line.comments;
        self.stage(&instruction);
        self.instructions.push(instruction);
    }

    /// Opens a stage, or adds to the last one.
    fn stage(&mut self, instruction: &Instruction) {
        let at = self.instructions.len();
        self.seen_from |= instruction.keyword.eq_ignore_ascii_case("from");
        if let Command::From(from) = &instruction.command {
            let doc = from.name.as_ref().and_then(|name| {
                instruction
                    .comments
                    .iter()
                    .find_map(|line| line.strip_prefix(name.as_str())?.strip_prefix(' '))
            });
            self.stages.push(Stage {
                index: self.stages.len(),
                name: from.name.clone(),
                base: from.base.clone(),
                platform: from.platform.clone(),
                doc: doc.map(str::to_owned),
                lines: instruction.lines,
                from: at,
                commands: at + 1..at + 1,
            });
            return;
        }
        match self.stages.last_mut() {
            Some(stage) => stage.commands.end = at + 1,
            // A FROM with an error was reported; what follows it is not without a stage.
            None if matches!(instruction.command, Command::Arg(_) | Command::Invalid) || self.seen_from => {}
            None => self.diagnostics.push(
                Diagnostic::error(Phase::Instructions, NO_STAGE)
                    .at(instruction.lines)
                    .mark(instruction.find(&instruction.keyword))
                    .hint("only ARG may stand before the first FROM"),
            ),
        }
    }
}

/// Reads the bodies that follow a line. One without a terminator takes the rest of the file.
fn read_bodies(reader: &mut LineReader<'_>, markers: Vec<Heredoc>) -> (Vec<Heredoc>, Option<Problem>) {
    let mut heredocs = Vec::with_capacity(markers.len());
    for mut marker in markers {
        let body = reader.body(&marker.name, marker.chomp);
        if !body.terminated {
            let problem = Problem::new("unterminated heredoc")
                .about(&marker.name)
                .hint(format!("end it with a line that holds only `{}`", marker.name));
            return (heredocs, Some(problem));
        }
        marker.content = body.content;
        heredocs.push(marker);
    }
    (heredocs, None)
}

/// An instruction from a statement, with its trigger; the command is still missing.
fn untyped(statement: Statement, map: &crate::ast::SourceMap, lines: Lines, span: Span) -> Instruction {
    let trigger = statement.trigger.map(|(offset, trigger)| {
        let map = map.tail(offset);
        let span = Span::new(map.offset(0), span.end);
        Box::new(untyped(*trigger, &map, lines, span))
    });
    Instruction {
        keyword: statement.keyword,
        command: Command::Invalid,
        lines,
        span,
        flags: statement.flags,
        args: statement.args,
        json: statement.json,
        heredocs: Vec::new(),
        original: statement.original,
        map: map.clone(),
        comments: Vec::new(),
        check: None,
        trigger,
    }
}

/// The options of a `check=` comment: the first such comment decides, even if it is malformed.
fn check_options(comment: &str) -> Option<Option<CheckOptions>> {
    let directive = directive::in_comment(comment).filter(|directive| directive.name == "check")?;
    Some(CheckOptions::parse(directive.first_word()).ok())
}

/// What can be wrong with the file as a whole.
fn end_of_file(reader: &LineReader<'_>, empty: bool) -> Option<Diagnostic> {
    let lines = Lines::single(reader.line);
    if empty && reader.directives.errors.is_empty() {
        let error = Diagnostic::error(Phase::Parser, "file with no instructions").at(lines);
        return Some(error.hint("a Dockerfile starts with `FROM image`"));
    }
    if !reader.too_long {
        return None;
    }
    let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
    let error = Diagnostic::error(Phase::Parser, message).at(lines);
    Some(error.hint(format!("line {} is too long: break it with continuations", reader.line + 1)))
}

/// Puts the error that BuildKit reports first: the parser's first, or else the first of the instructions.
fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let line = |diagnostic: &Diagnostic| diagnostic.lines.map_or(0, |lines| lines.start);
    diagnostics.sort_by_key(line);
    if let Some(first) = diagnostics.iter().position(|diagnostic| diagnostic.phase == Phase::Parser) {
        diagnostics[..=first].rotate_right(1);
    }
    diagnostics
}
