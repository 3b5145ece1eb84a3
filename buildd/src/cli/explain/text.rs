//! An explanation for people: stages, their steps, and below each step why it ran.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::explanation::{Cause, Explanation, Outcome, Step};
use crate::progress::{cut, plural, printable};

/// Spaces for each stage that a stage stands on.
const INDENT: usize = 2;

/// All of it, for a terminal of so many columns; as long as the lines are for what is none.
pub(super) fn render(explanation: &Explanation, width: Option<usize>) -> String {
    let mut text = String::new();
    // A string takes whatever is written to it.
    let _ = write(&mut text, explanation, width.unwrap_or(usize::MAX));
    text
}

fn write(out: &mut String, explanation: &Explanation, width: usize) -> std::fmt::Result {
    let build = plain(&explanation.build);
    let shown = shown(explanation);
    match &explanation.against {
        Some(against) => {
            let against = printable(against.as_bytes());
            let whose = if explanation.elsewhere { " of another machine" } else { "" };
            writeln!(out, "Build {build}, compared with {against}{whose}:")?;
        }
        None => writeln!(out, "Build {build}:")?,
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
            writeln!(out, "{}", cut(&format!("{:depth$}  {}", "", plain(stage)), width))?;
        }
        for &i in shown.iter().filter(|&&i| explanation.steps[i].stage == stage) {
            step(out, explanation, &explanation.steps[i], (depth, width))?;
        }
    }
    match &explanation.error {
        Some(error) if *error == solver::ExecError::Canceled.to_string() => {
            writeln!(out, "The build was canceled.")?;
        }
        Some(error) if explanation.steps.iter().all(|step| step.error.as_ref() != Some(error)) => {
            writeln!(out, "The build failed: {}", plain(error))?;
        }
        Some(_) => writeln!(out, "The build failed.")?,
        None if shown.iter().all(|&i| !explanation.steps[i].ran()) => writeln!(out, "Nothing ran.")?,
        None => {}
    }
    for change in &explanation.changes {
        let name = plain(&explanation.steps[change.step].name);
        let count = plural(change.steps.len() as u64, "step");
        let cost = format!(": what set it off cost {:.1}s in {count}", change.seconds);
        writeln!(out, "{}{cost}", cut(&name, width.saturating_sub(cost.len())))?;
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

/// A step of a stage that is indented so far, on a terminal of so many columns.
fn step(
    out: &mut String,
    explanation: &Explanation,
    step: &Step,
    (depth, width): (usize, usize),
) -> std::fmt::Result {
    let mark = if step.first { '>' } else { ' ' };
    let time = step.seconds.map_or(String::new(), |seconds| format!("{seconds:.1}s"));
    let outcome = match step.outcome {
        Outcome::Source => String::new(),
        Outcome::Cached => "CACHED".to_owned(),
        Outcome::Imported => "IMPORTED".to_owned(),
        Outcome::Ran => time,
        Outcome::Failed => format!("{time} FAILED").trim_start().to_owned(),
        Outcome::Canceled => format!("{time} CANCELED"),
        Outcome::NotReached => "-".to_owned(),
    };
    let line = format!("{:depth$}{mark} {outcome:<8} {}", "", plain(&step.name));
    writeln!(out, "{}", cut(&line, width))?;
    let mut told = BTreeSet::new();
    for cause in &step.causes {
        let line = cause.words(&|step| explanation.steps.get(step).map_or("", |step| &step.name));
        if !told.insert(line.clone()) {
            continue;
        }
        match cause {
            // The whole name is with its own step.
            Cause::Follows { .. } => {
                writeln!(out, "{}", cut(&format!("{:1$}{line}", "", depth + BELOW), width))?
            }
            _ => below(out, &line, depth + BELOW, width)?,
        }
    }
    match &step.error {
        Some(error) => below(out, &format!("error: {}", plain(error)), depth + BELOW, width),
        None => Ok(()),
    }
}

/// Columns before what is told of a step, besides those of its stage.
const BELOW: usize = 13;
/// So many columns at least are left for that.
const NARROWEST: usize = 20;

/// A line that is indented, in as many as it takes.
fn below(out: &mut String, line: &str, indent: usize, width: usize) -> std::fmt::Result {
    let (mut rest, room) = (line, width.saturating_sub(indent).max(NARROWEST));
    while !rest.is_empty() {
        let part = cut(rest, room);
        writeln!(out, "{:indent$}{part}", "")?;
        rest = &rest[part.len()..];
    }
    Ok(())
}

/// One line without control characters: names of files are anybody's.
fn plain(text: &str) -> String {
    printable(text.replace('\n', " ").as_bytes())
}

#[cfg(test)]
mod tests;
