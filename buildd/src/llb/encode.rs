//! Ops to their wire form.

use proto::pb;
use solver::Op;
use solver::op::Platform;

use super::definition::to_definition;
use super::exec::encode_exec;
use super::file::encode_file;

/// The wire form of an op with that many inputs.
pub(super) fn encode_op(op: &Op, inputs: usize) -> pb::op::Op {
    match op {
        Op::Source(source) => pb::op::Op::Source(pb::SourceOp {
            identifier: source.identifier.clone(),
            attrs: source.attrs.clone(),
        }),
        Op::Exec(exec) => pb::op::Op::Exec(encode_exec(exec)),
        Op::File(file) => pb::op::Op::File(encode_file(file, inputs)),
        Op::Merge(merge) => {
            let inputs = merge.inputs.iter().map(|&input| pb::MergeInput { input: number(input) });
            pb::op::Op::Merge(pb::MergeOp { inputs: inputs.collect() })
        }
        Op::Diff(diff) => pb::op::Op::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: number(diff.lower) }),
            upper: Some(pb::UpperDiffInput { input: number(diff.upper) }),
        }),
        Op::Build(build) => {
            let input =
                |(name, &index): (&String, &usize)| (name.clone(), pb::BuildInput { input: index as i64 });
            pb::op::Op::Build(pb::BuildOp {
                builder: number(build.builder),
                inputs: build.inputs.iter().map(input).collect(),
                def: build.definition.as_deref().map(to_definition),
                attrs: build.attrs.clone(),
            })
        }
        Op::Passthrough(pass) => pb::op::Op::Passthrough(pb::PassthroughOp {
            id: pass.id.clone(),
            outputs: pass.outputs.iter().map(|&output| output as i64).collect(),
        }),
    }
}

/// A platform on the wire.
pub fn platform(p: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: p.architecture.clone(),
        os: p.os.clone(),
        variant: p.variant.clone(),
        os_version: p.os_version.clone(),
        os_features: Vec::new(),
    }
}

/// An index; -1 for none.
pub(super) fn number(index: Option<usize>) -> i64 {
    index.map_or(-1, |index| index as i64)
}
