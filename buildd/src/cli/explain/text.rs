//! An explanation for people: stages, their steps, and below each step why it ran.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use cache::fileop::difference::DifferentBy;
use jiff::Timestamp;

use crate::explanation::{Cause, Explanation, Outcome, Step};
use crate::progress::printable;

/// Spaces for each stage that a stage stands on.
const INDENT: usize = 2;

/// All of it.
pub(super) fn render(explanation: &Explanation) -> String {
    let mut text = String::new();
    // A string takes whatever is written to it.
    let _ = write(&mut text, explanation);
    text
}

fn write(out: &mut String, explanation: &Explanation) -> std::fmt::Result {
    let shown = shown(explanation);
    match &explanation.against {
        Some(against) => writeln!(out, "Build {}, compared with {against}:", explanation.build)?,
        None => writeln!(out, "Build {}:", explanation.build)?,
    }
    let depths = depths(explanation);
    let mut stages: Vec<&str> = Vec::new();
    for &i in &shown {
        let stage = explanation.steps[i].stage.as_str();
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    for stage in stages {
        let depth = depths.get(stage).copied().unwrap_or_default() * INDENT;
        if !stage.is_empty() {
            writeln!(out, "{:depth$}  {stage}", "")?;
        }
        for &i in shown.iter().filter(|&&i| explanation.steps[i].stage == stage) {
            step(out, explanation, &explanation.steps[i], depth)?;
        }
    }
    if shown.iter().all(|&i| !explanation.steps[i].outcome.is_execution()) {
        writeln!(out, "Nothing ran.")?;
    }
    for change in &explanation.changes {
        let name = plain(&explanation.steps[change.step].name);
        let count = match change.steps.len() {
            1 => "1 step".to_owned(),
            count => format!("{count} steps"),
        };
        writeln!(out, "{name}: what set it off cost {:.1}s in {count}", change.seconds)?;
    }
    let digest = |cause: &Cause| match cause {
        Cause::File { old, new, .. } => {
            [old, new].into_iter().flatten().any(|text| text.starts_with("blake3:"))
        }
        _ => false,
    };
    if explanation.steps.iter().flat_map(|step| &step.causes).any(digest) {
        writeln!(out, "Digests of files are BLAKE3, shortened; --format json has them whole.")?;
    }
    Ok(())
}

/// The steps, and the sources that have a place among them.
fn shown(explanation: &Explanation) -> Vec<usize> {
    let steps = explanation.steps.iter().enumerate();
    let shown = steps.filter(|(_, step)| step.outcome != Outcome::Source || !step.stage.contains("internal"));
    shown
        .filter(|(_, step)| step.outcome != Outcome::Source || step.name.contains("] FROM "))
        .map(|(i, _)| i)
        .collect()
}

/// By stage: on how many others, one upon the other, it stands.
fn depths(explanation: &Explanation) -> BTreeMap<&str, usize> {
    let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
    for step in &explanation.steps {
        let below = step.inputs.iter().map(|&input| &explanation.steps[input]);
        let below = below.filter(|input| input.stage != step.stage && input.outcome != Outcome::Source);
        let depth = below.map(|input| depths.get(input.stage.as_str()).map_or(0, |depth| depth + 1)).max();
        let known = depths.entry(&step.stage).or_default();
        *known = (*known).max(depth.unwrap_or_default());
    }
    depths
}

fn step(out: &mut String, explanation: &Explanation, step: &Step, depth: usize) -> std::fmt::Result {
    let mark = if step.first { '>' } else { ' ' };
    let time = step.seconds.map_or(String::new(), |seconds| format!("{seconds:.1}s"));
    let outcome = match step.outcome {
        Outcome::Source => String::new(),
        Outcome::Cached => "CACHED".to_owned(),
        Outcome::Imported => "IMPORTED".to_owned(),
        Outcome::Ran => time,
        Outcome::Failed => format!("{time} FAILED"),
        Outcome::Canceled => format!("{time} CANCELED"),
        Outcome::NotReached => "-".to_owned(),
    };
    writeln!(out, "{:depth$}{mark} {outcome:<8} {}", "", plain(&step.name))?;
    let mut told = BTreeSet::new();
    for cause in &step.causes {
        let line = plain(&self::cause(explanation, cause));
        if told.insert(line.clone()) {
            writeln!(out, "{:depth$}             {line}", "")?;
        }
    }
    Ok(())
}

/// One line without control characters: names of files are anybody's.
fn plain(text: &str) -> String {
    printable(text.replace('\n', " ").as_bytes())
}

fn cause(explanation: &Explanation, cause: &Cause) -> String {
    let lines = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    match cause {
        Cause::FirstBuild => "first build of this directory, file and target".to_owned(),
        Cause::NewStep => "new step".to_owned(),
        Cause::NoCache => "asked to run again (--no-cache, --no-cache-filter)".to_owned(),
        Cause::Unfinished => "the build before did not finish it".to_owned(),
        Cause::Instruction { old, new } => {
            format!("instruction changed: `{}` → `{}`", lines(old), lines(new))
        }
        Cause::Arg { name } => format!("ARG {name} changed"),
        Cause::Env { name } => format!("ENV {name} changed"),
        Cause::Flag { name } => format!("{name} changed"),
        Cause::Setting { name } => format!("{name} changed"),
        Cause::File { path, change, old, new } => file(path, *change, old.as_deref(), new.as_deref()),
        Cause::MoreFiles { count } => format!("and {count} more files"),
        Cause::Files { name } => format!("files of {name} changed; what they were is not known any more"),
        Cause::BaseImage { name, old, new } => format!("base image {name} changed ({old} → {new})"),
        Cause::Source { name, old, new } => format!("{name} changed ({old} → {new})"),
        Cause::Evicted { at_ms, rule } => {
            let seconds = i64::try_from(at_ms / 1000).unwrap_or_default();
            let at = Timestamp::from_second(seconds).unwrap_or_default();
            format!("removed from the cache at {at} by {rule}")
        }
        Cause::Lost => "its result is not in the cache any more".to_owned(),
        Cause::Absent { cache, error: None } => format!("not in the cache {cache}"),
        Cause::Absent { cache, error: Some(error) } => {
            format!("the cache {cache} could not be read: {error}")
        }
        Cause::Follows { step } => {
            let name = explanation.steps.get(*step).map_or("", |step| step.name.as_str());
            format!("follows from {name}")
        }
    }
}

fn file(path: &str, change: DifferentBy, old: Option<&str>, new: Option<&str>) -> String {
    let what = match change {
        DifferentBy::Content => "content changed",
        DifferentBy::Mode => "mode changed",
        DifferentBy::Owner => "owner changed",
        DifferentBy::Attributes => "attributes changed",
        DifferentBy::Type => "is something else now",
        DifferentBy::Added => "added",
        DifferentBy::Removed => "removed",
    };
    let short = |text: &str| match text.strip_prefix("blake3:") {
        Some(hex) => hex.chars().take(12).collect(),
        None => text.to_owned(),
    };
    match (old.map(short), new.map(short)) {
        (Some(old), Some(new)) => format!("{path}: {what} ({old} → {new})"),
        (Some(one), None) | (None, Some(one)) => format!("{path}: {what} ({one})"),
        (None, None) => format!("{path}: {what}"),
    }
}

#[cfg(test)]
mod tests;
