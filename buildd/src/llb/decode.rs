//! Ops from their wire form.

use std::collections::HashSet;

use proto::pb;
use solver::op::{BuildOp, DiffOp, MergeOp, PassthroughOp, Platform, SourceOp};
use solver::{Digest, Op};

use super::definition::from_nested;
use super::exec::decode_exec;
use super::file::decode_file;
use super::{Invalid, LlbError};

/// Something wrong with an op, or with the definition inside it.
#[derive(Debug)]
pub(super) enum OpError {
    Invalid(Invalid),
    Nested(LlbError),
}

impl OpError {
    pub(super) fn at(self, digest: Digest) -> LlbError {
        match self {
            Self::Invalid(reason) => LlbError::Op { digest, reason },
            Self::Nested(err) => err,
        }
    }
}

impl From<Invalid> for OpError {
    fn from(err: Invalid) -> Self {
        Self::Invalid(err)
    }
}

/// Reads an op; `depth` counts the build ops around it.
pub(super) fn decode_op(op: &pb::Op, depth: usize) -> Result<Op, OpError> {
    let inputs = op.inputs.len();
    bounded("inputs", inputs)?;
    Ok(match op.op.as_ref().ok_or(Invalid::Missing("op"))? {
        pb::op::Op::Source(source) => Op::Source(decode_source(source)?),
        pb::op::Op::Exec(exec) => Op::Exec(Box::new(decode_exec(exec, inputs)?)),
        pb::op::Op::File(file) => Op::File(decode_file(file, inputs)?),
        pb::op::Op::Merge(merge) => {
            let list = merge
                .inputs
                .iter()
                .map(|i| optional_input(i.input, inputs))
                .collect::<Result<Vec<_>, _>>()?;
            bounded("merged inputs", list.len())?;
            match list.is_empty() {
                true => return Err(Invalid::Missing("inputs").into()),
                false => Op::Merge(MergeOp { inputs: list }),
            }
        }
        pb::op::Op::Diff(diff) => {
            let lower = diff.lower.as_ref().ok_or(Invalid::Missing("lower input"))?.input;
            let upper = diff.upper.as_ref().ok_or(Invalid::Missing("upper input"))?.input;
            Op::Diff(DiffOp { lower: optional_input(lower, inputs)?, upper: optional_input(upper, inputs)? })
        }
        pb::op::Op::Build(build) => Op::Build(decode_build(build, inputs, depth)?),
        pb::op::Op::Passthrough(pass) => Op::Passthrough(decode_passthrough(pass, inputs)?),
    })
}

/// The numbers of the outputs that an op makes.
#[derive(Debug)]
pub(super) enum Outputs {
    /// All below this.
    Below(usize),
    /// These.
    These(HashSet<usize>),
}

impl Outputs {
    pub(super) fn of(op: &Op) -> Self {
        match op {
            Op::Exec(exec) => Self::These(exec.mounts.iter().filter_map(|mount| mount.output).collect()),
            Op::File(file) => Self::These(file.actions.iter().filter_map(|action| action.output).collect()),
            Op::Passthrough(pass) => Self::Below(pass.outputs.len()),
            Op::Source(_) | Op::Merge(_) | Op::Diff(_) | Op::Build(_) => Self::Below(1),
        }
    }

    pub(super) fn contain(&self, output: u32) -> bool {
        match self {
            Self::Below(count) => (output as usize) < *count,
            Self::These(numbers) => numbers.contains(&(output as usize)),
        }
    }
}

/// The most inputs, mounts or actions that one op may have. Far more than anybody writes, and few enough that work
/// which looks at all of them for each of them stays short.
pub(super) const MAX_PARTS: usize = 10_000;

/// Refuses an op with too many of something.
pub(super) fn bounded(what: &'static str, count: usize) -> Result<(), Invalid> {
    if count > MAX_PARTS { Err(Invalid::TooMany { what, count, most: MAX_PARTS }) } else { Ok(()) }
}

/// A platform of the wire.
pub fn platform(p: &pb::Platform) -> Platform {
    Platform {
        architecture: p.architecture.clone(),
        os: p.os.clone(),
        variant: p.variant.clone(),
        os_version: p.os_version.clone(),
    }
}

fn decode_source(source: &pb::SourceOp) -> Result<SourceOp, Invalid> {
    if source.identifier.is_empty() {
        return Err(Invalid::Missing("source identifier"));
    }
    Ok(SourceOp { identifier: text("source identifier", &source.identifier)?, attrs: source.attrs.clone() })
}

fn decode_build(build: &pb::BuildOp, inputs: usize, depth: usize) -> Result<BuildOp, OpError> {
    let mut named = std::collections::BTreeMap::new();
    for (name, input) in &build.inputs {
        named.insert(name.clone(), input_index(input.input, inputs)?);
    }
    let definition = build.def.as_ref().map(|def| from_nested(def, depth + 1)).transpose();
    Ok(BuildOp {
        builder: optional_input(build.builder, inputs)?,
        inputs: named,
        definition: definition.map_err(OpError::Nested)?.map(Box::new),
        attrs: build.attrs.clone(),
    })
}

fn decode_passthrough(pass: &pb::PassthroughOp, inputs: usize) -> Result<PassthroughOp, Invalid> {
    if pass.id.is_empty() {
        return Err(Invalid::Missing("passthrough id"));
    }
    if pass.outputs.is_empty() {
        return Err(Invalid::Missing("outputs"));
    }
    bounded("outputs", pass.outputs.len())?;
    let outputs = pass.outputs.iter().map(|&index| input_index(index, inputs)).collect::<Result<_, _>>()?;
    Ok(PassthroughOp { id: pass.id.clone(), outputs })
}

/// An index into the op's inputs.
pub(super) fn input_index(index: i64, inputs: usize) -> Result<usize, Invalid> {
    let known = usize::try_from(index).ok().filter(|&index| index < inputs);
    known.ok_or(Invalid::Index { what: "input", index })
}

/// An index into the op's inputs, or -1 for scratch.
pub(super) fn optional_input(index: i64, inputs: usize) -> Result<Option<usize>, Invalid> {
    if index == -1 { Ok(None) } else { input_index(index, inputs).map(Some) }
}

/// An output number, or -1 for none; each may be claimed once.
pub(super) fn output_index(index: i64, claimed: &mut HashSet<usize>) -> Result<Option<usize>, Invalid> {
    if index == -1 {
        return Ok(None);
    }
    let output = u32::try_from(index).map_err(|_| Invalid::Index { what: "output", index })? as usize;
    if claimed.insert(output) { Ok(Some(output)) } else { Err(Invalid::DuplicateOutput(index)) }
}

/// A text that may be given to the kernel.
pub(super) fn text(what: &'static str, text: &str) -> Result<String, Invalid> {
    if text.contains('\0') { Err(Invalid::Nul(what)) } else { Ok(text.to_owned()) }
}
