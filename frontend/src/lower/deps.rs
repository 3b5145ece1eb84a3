//! Which stages each stage needs besides its base.

use crate::ast::{Command, CopyCommand, RunCommand};
use crate::lower::build::Context;
use crate::lower::error::{At, Failures, Fault, LowerError, Result};
use crate::lower::from::SCRATCH;
use crate::lower::stage::{Stage, StageId, Stages, Step, Written};
use crate::parse::csv;
use crate::span::Lines;
use crate::words::Lexer;

/// Finds what `--from` and the mounts of RUN name, and refuses circles.
pub(super) fn connect<'a>(
    context: &mut Context<'a>,
    stages: &mut Stages<'a>,
    failures: &mut Failures,
) -> Result<()> {
    for id in stages.ids() {
        let Some(ast) = stages[id].ast else { continue };
        for instruction in context.document.commands(ast) {
            let step = step(Written::File(instruction), stages, &context.lexer);
            let added = step.map(|step| add_step(stages, id, step));
            failures.note(added, &mut context.linter)?;
        }
    }
    failures.pass(refuse_circles(stages), &mut context.linter)?;
    if stages.len() == 1 {
        stages[0].label.clear();
    }
    Ok(())
}

/// Adds a step at the end of a stage.
fn add_step<'a>(stages: &mut Stages<'a>, id: StageId, step: Step<'a>) {
    depend(stages, id, &step);
    stages[id].steps.push(step);
}

/// Notes the stages that a step needs.
pub(super) fn depend(stages: &mut Stages<'_>, id: StageId, step: &Step<'_>) {
    for &source in &step.sources {
        stages[id].depend_on(source, step.instruction.lines);
    }
}

/// Finds the sources of an instruction; what is no stage is added as one.
pub(super) fn step<'a>(instruction: Written<'a>, stages: &mut Stages<'a>, lexer: &Lexer) -> Result<Step<'a>> {
    let sources = match &instruction.command {
        Command::Copy(copy) => copy_source(copy, instruction.lines, stages, lexer)?.into_iter().collect(),
        Command::Run(run) => mount_sources(run, stages).at(instruction.lines)?,
        _ => Vec::new(),
    };
    Ok(Step { instruction, sources, onbuild: false })
}

fn copy_source(
    copy: &CopyCommand,
    lines: Lines,
    stages: &mut Stages<'_>,
    lexer: &Lexer,
) -> Result<Option<StageId>> {
    let Some(from) = &copy.from else { return Ok(None) };
    if lexer.expand(from, &())?.text != *from {
        return Err(LowerError::word(Fault::VariableInFrom, from));
    }
    if let Some(index) = integer(from) {
        let found = usize::try_from(index).ok().filter(|&index| index < stages.len());
        return Ok(Some(found.ok_or(Fault::StageIndex(index))?));
    }
    Ok(Some(stages.by_name(from).unwrap_or_else(|| stages.add(Stage::unregistered(from, Some(lines))))))
}

/// Go's `strconv.Atoi`.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let fits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// One source for each mount, also for those that need none.
fn mount_sources(run: &RunCommand, stages: &mut Stages<'_>) -> Result<Vec<StageId>> {
    let mut sources = Vec::new();
    for mount in &run.mounts {
        let fields = csv::fields(mount).map_err(crate::mount::MountError::from)?;
        let mut pairs = fields.iter().filter_map(|field| field.split_once('='));
        let from = pairs.rfind(|(key, _)| key.eq_ignore_ascii_case("from"));
        let name = from.map_or("", |(_, value)| value);
        let name = if name.is_empty() { SCRATCH } else { name };
        sources.push(stages.by_name(name).unwrap_or_else(|| stages.add(Stage::unregistered(name, None))));
    }
    Ok(sources)
}

/// Depth first over `--from` and mounts; bases cannot make circles.
fn refuse_circles(stages: &Stages<'_>) -> Result<()> {
    const NEW: u8 = 0;
    const OPEN: u8 = 1;
    const DONE: u8 = 2;
    let mut mark = vec![NEW; stages.len()];
    for start in stages.ids() {
        if mark[start] != NEW {
            continue;
        }
        mark[start] = OPEN;
        let mut path = vec![(start, 0)];
        while let Some((id, next)) = path.pop() {
            let Some(&(dep, lines)) = stages[id].deps.get(next) else {
                mark[id] = DONE;
                continue;
            };
            path.push((id, next + 1));
            match mark[dep] {
                OPEN => {
                    // The instruction of the first stage that leads into the circle.
                    let taken = path.first().and_then(|(id, next)| stages[*id].deps.get(next - 1));
                    let lines = taken.map_or(lines, |(_, first)| *first);
                    return Err(LowerError::from(Fault::Circular(stages[start].label.clone())).at(lines));
                }
                NEW => {
                    mark[dep] = OPEN;
                    path.push((dep, 0));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
