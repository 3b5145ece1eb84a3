//! The rules about instructions of a stage, called where lowering passes them.

use solver::pattern::{PatternMatcher, clean};

use crate::ast::{Instruction, KeyValue, Place};
use crate::lint::{Linter, Rule};
use crate::quote::quote;
use crate::span::Lines;

/// Words that make a variable's name look like a secret's.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// Words that say that it is none.
const NOT_SECRET: [&str; 3] = ["public", "file", "version"];

/// LegacyKeyValueFormat: a key and value of ENV or LABEL in the old form.
pub fn legacy_key_value(linter: &mut Linter, instruction: &Instruction, pair: &KeyValue) {
    if pair.legacy {
        let keyword = &instruction.keyword;
        linter.report(
            instruction.place(),
            Rule::LegacyKeyValueFormat,
            format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            ),
        );
    }
}

/// SecretsUsedInArgOrEnv: `keyword` is `ARG` or `ENV`, `key` the name after expansion.
pub fn secret_key(linter: &mut Linter, instruction: &Instruction, keyword: &str, key: &str) {
    if has_word(key, &SECRET) && !has_word(key, &NOT_SECRET) {
        linter.report_at(
            instruction.place(),
            Rule::SecretsUsedInArgOrEnv,
            format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {})", quote(key)),
            Some(instruction.find(key)),
        );
    }
}

/// Whether a part of the name between underscores is one of the words.
fn has_word(key: &str, words: &[&str]) -> bool {
    key.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
}

/// JSONArgsRecommended: a CMD or ENTRYPOINT in shell form where the stage sets no SHELL.
pub fn shell_form(linter: &mut Linter, instruction: &Instruction) {
    linter.report(
        instruction.place(),
        Rule::JSONArgsRecommended,
        format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            instruction.keyword
        ),
    );
}

/// MultipleInstructionsDisallowed for one kind of instruction in one stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsedOnce(Option<Lines>);

impl UsedOnce {
    /// Notes an instruction; the one before it, which no longer counts, is reported.
    pub fn note(&mut self, linter: &mut Linter, instruction: &Instruction) {
        if let Some(lines) = self.0.replace(instruction.lines) {
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                instruction.keyword
            );
            linter.report(
                Place { lines, ..instruction.place() },
                Rule::MultipleInstructionsDisallowed,
                message,
            );
        }
    }
}

/// WorkdirRelativePath: a relative path before any absolute one.
pub fn relative_workdir(linter: &mut Linter, instruction: &Instruction, path: &str) {
    linter.report(
        instruction.place(),
        Rule::WorkdirRelativePath,
        format!("Relative workdir {} can have unexpected results if the base image changes", quote(path)),
    );
}

/// CopyIgnoredFile: a source of COPY (`Copy`) or ADD (`Add`) that the ignore file leaves out.
///
/// Says nothing when the ignore file has exceptions: what is below an ignored directory may be back.
pub fn ignored_source(
    linter: &mut Linter,
    instruction: &Instruction,
    verb: &str,
    source: &str,
    matcher: &PatternMatcher,
) {
    if matcher.is_empty() || matcher.has_exceptions() {
        return;
    }
    let path = clean(source);
    let root = path == "." || path == "/";
    if root && !matcher.patterns().any(|(pattern, _)| matches!(pattern, "*" | "**" | "**/*")) {
        return;
    }
    if matcher.matches(path.as_bytes()) {
        linter.report_at(
            instruction.place(),
            Rule::CopyIgnoredFile,
            format!("Attempting to {verb} file {} that is excluded by .dockerignore", quote(&path)),
            Some(instruction.find(source)),
        );
    }
}

/// ExposeProtoCasing: `port` is the word after expansion.
pub fn expose_proto_casing(linter: &mut Linter, instruction: &Instruction, port: &str) {
    let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
    linter.report_at(instruction.place(), Rule::ExposeProtoCasing, message, Some(instruction.find(port)));
}

/// ExposeInvalidFormat: `port` is the word after expansion, with an address or a host port.
pub fn expose_invalid_format(linter: &mut Linter, instruction: &Instruction, port: &str) {
    let message =
        format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
    linter.report_at(instruction.place(), Rule::ExposeInvalidFormat, message, Some(instruction.find(port)));
}
