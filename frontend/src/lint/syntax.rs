//! The rules that need no more than the syntax tree.

use std::collections::HashSet;

use crate::ast::{ArgCommand, Command, Document, FromCommand, Instruction, Place, Stage};
use crate::diagnostic::{Diagnostic, Phase};
use crate::lint::{CheckOptions, Finding, Linter, Rule};
use crate::quote::quote;
use crate::span::Lines;

/// Stage names that mean something else in `--from`.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Runs the rules of casing, names, comments and continuations over a whole file.
pub fn check_syntax(document: &Document, linter: &mut Linter) {
    check_continuations(document, linter);
    for instruction in &document.instructions {
        check_instruction(instruction, linter);
    }
    check_stage_names(document, linter);
    check_casing(document, linter);
}

/// What there is to find before the error of a file that does not parse: BuildKit reads instruction by instruction.
pub fn findings_before(document: &Document, options: CheckOptions, error: &Diagnostic) -> Vec<Finding> {
    if error.phase != Phase::Instructions {
        return Vec::new();
    }
    let line = error.lines.map_or(0, |lines| lines.start);
    let mut linter = Linter::new(options);
    check_continuations(document, &mut linter);
    for instruction in document.instructions.iter().filter(|instruction| instruction.lines.start <= line) {
        check_instruction(instruction, &mut linter);
    }
    linter.into_findings()
}

fn check_continuations(document: &Document, linter: &mut Linter) {
    for &line in &document.empty_continuations {
        linter.report(Place::bare(Lines::single(line)), Rule::NoEmptyContinuation, "Empty continuation line");
    }
}

/// The rules of keywords count also where the rest of the instruction is wrong, those of comments do not.
fn check_instruction(instruction: &Instruction, linter: &mut Linter) {
    if instruction.keyword.eq_ignore_ascii_case("from") {
        check_from_casing(instruction, linter);
    } else if instruction.keyword.eq_ignore_ascii_case("maintainer") {
        linter.report(
            instruction.place(),
            Rule::MaintainerDeprecated,
            "Maintainer instruction is deprecated in favor of using label",
        );
    }
    match &instruction.command {
        Command::From(FromCommand { name: Some(name), .. }) => {
            check_description(instruction, "FROM", &[name], linter);
        }
        Command::Arg(ArgCommand { args }) => {
            let keys: Vec<&str> = args.iter().map(|arg| arg.key.as_str()).collect();
            check_description(instruction, "ARG", &keys, linter);
        }
        _ => {}
    }
}

fn check_from_casing(instruction: &Instruction, linter: &mut Linter) {
    let [_, keyword, name, ..] = instruction.args.as_slice() else { return };
    if instruction.args.len() == 3 && !is_lower(name) {
        linter.report_at(
            instruction.place(),
            Rule::StageNameCasing,
            format!("Stage name '{name}' should be lowercase"),
            Some(instruction.find(name)),
        );
    }
    let from = &instruction.keyword;
    // A keyword of mixed case is ConsistentInstructionCasing's.
    let matches = if is_lower(from) { is_lower(keyword) } else { !is_upper(from) || is_upper(keyword) };
    if !matches {
        linter.report_at(
            instruction.place(),
            Rule::FromAsCasing,
            format!("'{keyword}' and '{from}' keywords' casing do not match"),
            Some(instruction.find(&format!(" {keyword} "))),
        );
    }
}

/// Whether nothing changes in lower case; keywords are ASCII and need no copy for that.
fn is_lower(text: &str) -> bool {
    if text.is_ascii() { !text.bytes().any(|b| b.is_ascii_uppercase()) } else { text == text.to_lowercase() }
}

/// As [`is_lower`], for upper case.
fn is_upper(text: &str) -> bool {
    if text.is_ascii() { !text.bytes().any(|b| b.is_ascii_lowercase()) } else { text == text.to_uppercase() }
}

fn check_description(instruction: &Instruction, keyword: &str, names: &[&str], linter: &mut Linter) {
    let Some(comment) = instruction.comments.last() else { return };
    if names.contains(&comment.split(' ').next().unwrap_or("")) {
        return;
    }
    let example = if let [name] = names { name } else { "<arg_key>" };
    linter.report(
        instruction.place(),
        Rule::InvalidDefinitionDescription,
        format!("Comment for {keyword} should follow the format: `# {example} <description>`"),
    );
}

fn check_stage_names(document: &Document, linter: &mut Linter) {
    let mut seen = HashSet::new();
    for stage in &document.stages {
        let Some(name) = &stage.name else { continue };
        if RESERVED.contains(&name.as_str()) {
            let message =
                format!("Stage name should not use the same name as reserved stage {}", quote(name));
            linter.report(Place::bare(stage.lines), Rule::ReservedStageName, message);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate stage name {}, stage names should be unique", quote(name));
            linter.report(Place::bare(stage.lines), Rule::DuplicateStageName, message);
        }
    }
}

/// Each keyword against the case of the majority; ARGs before the first FROM do not count.
fn check_casing(document: &Document, linter: &mut Linter) {
    let start = document.stages.first().map_or(document.instructions.len(), |stage: &Stage| stage.from);
    let instructions = &document.instructions[start..];
    let (mut lower, mut upper) = (0, 0);
    for instruction in instructions {
        let keyword = &instruction.keyword;
        if is_lower(keyword) {
            lower += 1;
        } else if is_upper(keyword) {
            upper += 1;
        }
    }
    for instruction in instructions {
        let keyword = &instruction.keyword;
        let (fits, majority) =
            if lower > upper { (is_lower(keyword), "lowercase") } else { (is_upper(keyword), "uppercase") };
        if !fits {
            linter.report_at(
                Place::bare(instruction.lines),
                Rule::ConsistentInstructionCasing,
                format!("Command '{keyword}' should match the case of the command majority ({majority})"),
                Some(instruction.find(keyword)),
            );
        }
    }
}
