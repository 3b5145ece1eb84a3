//! The rules about variables and about FROM, which need what lowering knows.

use std::collections::BTreeSet;

use crate::ast::{Instruction, Place};
use crate::lint::{Linter, Rule};
use crate::quote::quote;
use crate::suggest;
use crate::words::Expansion;

/// UndefinedVar, for each unset variable of an instruction.
///
/// `known` are the names that are set there, for the suggestion. The caller leaves out those that
/// BuildKit does not report: declared ARGs without a value and the proxy variables.
pub fn undefined_variables<'a>(
    linter: &mut Linter,
    instruction: &Instruction,
    unset: impl IntoIterator<Item = &'a str>,
    known: &[&str],
) {
    for name in unset {
        let near = suggest::nearest(name, known.iter().copied());
        let hint = near.map_or(String::new(), |near| format!(" (did you mean ${near}?)"));
        linter.report_at(
            instruction.place(),
            Rule::UndefinedVar,
            format!("Usage of undefined variable '${name}'{hint}"),
            Some(instruction.find(&format!("${name}"))),
        );
    }
}

/// UndefinedArgInFrom, for each unset variable of a FROM that no ARG before it declares.
pub fn undefined_from_args(
    linter: &mut Linter,
    place: Place<'_>,
    unset: &BTreeSet<String>,
    declared: &BTreeSet<String>,
) {
    for name in unset.difference(declared) {
        let near = suggest::nearest(name, declared.iter().map(String::as_str));
        let message = format!("FROM argument '{name}' is not declared{}", suggest::did_you_mean(near));
        linter.report(place, Rule::UndefinedArgInFrom, message);
    }
}

/// RedundantTargetPlatform: a `--platform` that is nothing but `$TARGETPLATFORM`.
///
/// `written` is the flag's value in the file, `target_platform` the variable's value.
pub fn redundant_target_platform(
    linter: &mut Linter,
    place: Place<'_>,
    written: &str,
    expansion: &Expansion,
    target_platform: &str,
) {
    let only = expansion.unmatched.is_empty()
        && expansion.matched.len() == 1
        && expansion.matched.contains("TARGETPLATFORM")
        && expansion.text == target_platform;
    if only {
        let message = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        linter.report(place, Rule::RedundantTargetPlatform, message);
    }
}

/// FromPlatformFlagConstDisallowed: a `--platform` without variables.
///
/// Quiet when the stage's name contains the platform's OS or architecture, as normalised by the caller.
pub fn constant_platform(
    linter: &mut Linter,
    place: Place<'_>,
    stage: Option<&str>,
    expansion: &Expansion,
    os: &str,
    architecture: &str,
) {
    let constant = expansion.matched.is_empty() && expansion.unmatched.is_empty();
    let name = stage.unwrap_or("");
    if constant && !name.contains(os) && !name.contains(architecture) {
        let message =
            format!("FROM --platform flag should not use constant value {}", quote(&expansion.text));
        linter.report(place, Rule::FromPlatformFlagConstDisallowed, message);
    }
}

/// InvalidBaseImagePlatform: a base image that is not of the platform asked for; both as normalised text.
pub fn base_image_platform(linter: &mut Linter, place: Place<'_>, image: &str, expected: &str, actual: &str) {
    let message = format!(
        "Base image {image} was pulled with platform {}, expected {} for current build",
        quote(actual),
        quote(expected)
    );
    linter.report(Place::bare(place.lines), Rule::InvalidBaseImagePlatform, message);
}

/// InvalidDefaultArgInFrom: a base that is no image name when all ARGs have their defaults; `base` as written.
pub fn invalid_default_base(linter: &mut Linter, place: Place<'_>, base: &str) {
    let message = format!("Default value for ARG {base} results in empty or invalid base image name");
    linter.report(Place::bare(place.lines), Rule::InvalidDefaultArgInFrom, message);
}
