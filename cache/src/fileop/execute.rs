//! Which actions run, in which order, over which layers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use solver::op::{ActionInput, FileAction, FileActionKind, FileOp};

use super::actions;
use super::copy::copy;
use super::env::{FileInput, FileOpEnv, FileOutput};
use super::error::{ActionError, FileOpError};
use super::owner::resolve_owner;
use super::source::Source;
use super::state::Target;
use super::tree_copy::copy_whole;
use crate::layer::{Base, LayerBuilder, RunWindow};

/// Runs the actions that the outputs need and returns each output's layer by its index.
///
/// Blocking. Files of a context are opened in threads that took on its client's identity.
///
/// # Errors
/// [`FileOpError::Invalid`] for indexes that lead nowhere, [`FileOpError::Action`] for an action that fails. With
/// [`FileOpError::is_context_changed`] the caller walks the context again and keys the operation anew.
pub fn execute(
    op: &FileOp,
    inputs: &[FileInput],
    env: &FileOpEnv<'_>,
) -> Result<BTreeMap<usize, FileOutput>, FileOpError> {
    let mut run = Run::plan(op, inputs, env)?;
    for index in 0..op.actions.len() {
        if run.uses[index] > 0 {
            let target = run.target_of(op.actions[index].input)?;
            run.apply(index, &target)?;
            run.targets[index] = Some(target);
        }
    }
    let mut outputs = BTreeMap::new();
    for (index, action) in op.actions.iter().enumerate() {
        let Some(output) = action.output else { continue };
        let target = run.targets[index].take().ok_or(FileOpError::Invalid("an output's layer is gone"))?;
        let layer = target.layer.finish(RunWindow::at(env.now))?;
        outputs.insert(output, FileOutput { layer, dir: target.dir });
    }
    Ok(outputs)
}

struct Run<'a> {
    op: &'a FileOp,
    inputs: &'a [FileInput],
    env: &'a FileOpEnv<'a>,
    /// How often the result of each action is wanted; 0: it need not run.
    uses: Vec<usize>,
    /// Results; moved on where the next action is the only one that wants them.
    targets: Vec<Option<Target>>,
    /// Layers started.
    layers: usize,
}

impl<'a> Run<'a> {
    fn plan(op: &'a FileOp, inputs: &'a [FileInput], env: &'a FileOpEnv<'a>) -> Result<Self, FileOpError> {
        let mut uses = vec![0; op.actions.len()];
        let mut outputs = Vec::new();
        for (index, action) in op.actions.iter().enumerate().rev() {
            if let Some(output) = action.output {
                if outputs.contains(&output) {
                    return Err(FileOpError::Invalid("two actions give the same output"));
                }
                outputs.push(output);
                uses[index] += 1;
            }
            for input in inputs_of(action) {
                match input {
                    ActionInput::Action(earlier) if earlier >= index => {
                        return Err(FileOpError::Invalid("an action works on a later one"));
                    }
                    ActionInput::Vertex(input) if input >= inputs.len() => {
                        return Err(FileOpError::Invalid("an action works on an input that does not exist"));
                    }
                    ActionInput::Action(earlier) if uses[index] > 0 => uses[earlier] += 1,
                    _ => {}
                }
            }
        }
        if outputs.is_empty() {
            return Err(FileOpError::Invalid("no outputs"));
        }
        let targets = std::iter::repeat_with(|| None).take(op.actions.len()).collect();
        Ok(Self { op, inputs, env, uses, targets, layers: 0 })
    }

    /// A layer in the state that `input` describes, ready to be changed.
    fn target_of(&mut self, input: ActionInput) -> Result<Target, FileOpError> {
        let ActionInput::Action(earlier) = input else { return self.new_target(input) };
        if self.uses[earlier] == 1
            && let Some(target) = self.targets[earlier].take()
        {
            return Ok(target);
        }
        // Others want that state as well: make it once more.
        let target = self.target_of_fork(self.op.actions[earlier].input)?;
        self.apply(earlier, &target)?;
        Ok(target)
    }

    fn target_of_fork(&mut self, input: ActionInput) -> Result<Target, FileOpError> {
        let ActionInput::Action(earlier) = input else { return self.new_target(input) };
        let target = self.target_of_fork(self.op.actions[earlier].input)?;
        self.apply(earlier, &target)?;
        Ok(target)
    }

    fn new_target(&mut self, input: ActionInput) -> Result<Target, FileOpError> {
        let dir: PathBuf = self.env.dir.join(self.layers.to_string());
        self.layers += 1;
        let scratch = || Base::scratch(Arc::clone(&self.env.trees));
        let (base, whole) = match input {
            ActionInput::Vertex(index) => match &self.inputs[index] {
                FileInput::Chain(base) => (base.clone(), None),
                FileInput::Context(context) => (scratch(), Some(context)),
            },
            _ => (scratch(), None),
        };
        let layer = LayerBuilder::create(&dir, base)?.thin_over(self.env.backing.clone());
        let target = Target::new(layer, dir);
        if let Some(context) = whole {
            copy_whole(Source::Context(context), &target, self.env)
                .map_err(|source| FileOpError::Action { action: 0, source })?;
        }
        Ok(target)
    }

    fn apply(&self, index: usize, target: &Target) -> Result<(), FileOpError> {
        self.act(&self.op.actions[index], target)
            .map_err(|source| FileOpError::Action { action: index, source })
    }

    fn act(&self, action: &FileAction, target: &Target) -> Result<(), ActionError> {
        let owner = |owner| resolve_owner(owner, &|input| self.source(input));
        match &action.kind {
            FileActionKind::Copy(copy_action) => {
                let owner = owner(copy_action.owner.as_ref())?;
                copy(copy_action, self.source(action.secondary)?, target, owner, self.env)
            }
            FileActionKind::MkFile(mkfile) => {
                actions::mkfile(mkfile, target, owner(mkfile.owner.as_ref())?, self.env)
            }
            FileActionKind::MkDir(mkdir) => {
                actions::mkdir(mkdir, target, owner(mkdir.owner.as_ref())?, self.env)
            }
            FileActionKind::Rm(rm) => actions::rm(rm, target),
            FileActionKind::Symlink(link) => {
                actions::symlink(link, target, owner(link.owner.as_ref())?, self.env)
            }
        }
    }

    fn source(&self, input: ActionInput) -> Result<Source<'_>, ActionError> {
        Ok(match input {
            ActionInput::Scratch => Source::Scratch,
            ActionInput::Vertex(index) => match &self.inputs[index] {
                FileInput::Chain(base) => Source::Chain(base),
                FileInput::Context(context) => Source::Context(context),
            },
            ActionInput::Action(index) => match &self.targets[index] {
                Some(target) => Source::Built(&target.layer),
                None => Source::Scratch,
            },
        })
    }
}

/// All inputs of an action: what it changes, what it copies from, where it looks names up.
fn inputs_of(action: &FileAction) -> Vec<ActionInput> {
    let owner = match &action.kind {
        FileActionKind::Copy(a) => a.owner.as_ref(),
        FileActionKind::MkFile(a) => a.owner.as_ref(),
        FileActionKind::MkDir(a) => a.owner.as_ref(),
        FileActionKind::Symlink(a) => a.owner.as_ref(),
        FileActionKind::Rm(_) => None,
    };
    let mut inputs = vec![action.input, action.secondary];
    for option in owner.into_iter().flat_map(|o| [&o.user, &o.group]).flatten() {
        if let solver::op::UserOpt::Name { input, .. } = option {
            inputs.push(*input);
        }
    }
    inputs
}
