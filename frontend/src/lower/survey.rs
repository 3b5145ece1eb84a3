//! What else is wrong with a Dockerfile that cannot be built anyway.
//!
//! Errors stop the passes: a typo keeps lowering from being tried, an unknown image keeps its stage from being looked at.
//! The survey lowers all the same, with stand-ins for what is not known, and tells only what does not depend on it.

use solver::graph::Graph;
use solver::op::Platform;

use crate::ast::{Command, Document, Instruction};
use crate::diagnostic::{Diagnostic, Phase};
use crate::lower::{
    Failure, ImageRequest, LocalRequest, LowerError, Resolved, ResolvedImage, TimeRequest, build,
};
use crate::options::BuildOptions;
use crate::suggest;

/// Adds to the errors that a build ends with those that it has not come to; the first stays the first, the others are
/// sorted by line.
pub fn survey(
    document: &Document,
    mut errors: Vec<Diagnostic>,
    options: &BuildOptions,
    platform: Option<&Platform>,
    resolved: &dyn Resolved,
) -> Vec<Diagnostic> {
    if !errors.is_empty() && is_clear(document) {
        let world = StandIns { resolved, image: ResolvedImage::plain() };
        // A stage may seem unused because its name is mistyped.
        let options = BuildOptions { all_stages: options.target.is_none(), ..options.clone() };
        let (result, _, images) = build::run(document, &options, platform, &world);
        if let Err(LowerError::Failed(failure)) = result {
            let sure = failure.all().filter(|failure| is_sure(failure, document)).map(Failure::diagnostic);
            add(&mut errors, sure);
        }
        let unknown = images.iter().filter(|request| resolved.image(request).is_none());
        add(&mut errors, unknown.filter_map(|request| doubtful(document, request)));
    }
    if let Some((_, others)) = errors.split_first_mut() {
        others.sort_by_key(|error| error.line(&document.source));
    }
    errors
}

/// Adds errors of lines that have none yet.
fn add(errors: &mut Vec<Diagnostic>, more: impl Iterator<Item = Diagnostic>) {
    for error in more {
        if errors.iter().all(|known| known.lines != error.lines) {
            errors.push(error);
        }
    }
}

/// Whether the stages are those that were meant: a FROM or a global ARG with an error changes what all others mean.
fn is_clear(document: &Document) -> bool {
    let first = document.stages.first().map_or(usize::MAX, |stage| stage.from);
    let unclear = |(at, instruction): (usize, &Instruction)| {
        matches!(instruction.command, Command::Invalid)
            && (at < first || suggest::distance(&instruction.name(), "from", 2).is_some())
    };
    !document.instructions.iter().enumerate().any(unclear)
}

/// Whether an error is there whatever the variables are: those of an image are not known, nor those of a line that was
/// not understood.
fn is_sure(failure: &Failure, document: &Document) -> bool {
    let Some(lines) = failure.lines else { return false };
    let Some(instruction) = document.instructions.iter().find(|instruction| instruction.lines == lines)
    else {
        return false;
    };
    let stands_there = !failure.spans.is_empty() && !failure.word.contains('$');
    stands_there || !instruction.original.contains('$')
}

/// A name after `--from` or `from=` that is taken for an image's, though it is nearly a stage's.
fn doubtful(document: &Document, request: &ImageRequest) -> Option<Diagnostic> {
    let lines = request.lines?;
    let instruction = document.instructions.iter().find(|instruction| instruction.lines == lines)?;
    if matches!(instruction.command, Command::From(_)) {
        return None;
    }
    let near = suggest::nearest(&request.written, document.stages.iter().filter_map(|s| s.name.as_deref()))?;
    let message =
        format!("{} is no stage, so it is taken for an image (did you mean {near}?)", request.written);
    Some(Diagnostic::error(Phase::Convert, message).at(lines).mark(instruction.find(&request.written)))
}

/// What is known, and for the rest a world in which everything exists.
struct StandIns<'a> {
    resolved: &'a dyn Resolved,
    image: ResolvedImage,
}

impl Resolved for StandIns<'_> {
    fn image(&self, request: &ImageRequest) -> Option<&ResolvedImage> {
        self.resolved.image(request).or(Some(&self.image))
    }

    fn dockerignore(&self) -> &[u8] {
        self.resolved.dockerignore()
    }

    fn context_dockerignore(&self, request: &LocalRequest) -> Option<&[u8]> {
        self.resolved.context_dockerignore(request).or(Some(b""))
    }

    fn input(&self, name: &str) -> Option<&Graph> {
        self.resolved.input(name)
    }

    fn source_time(&self, request: &TimeRequest) -> Option<Option<i64>> {
        self.resolved.source_time(request).or(Some(None))
    }
}
