//! LLB written by hand.

use bytes::Bytes;
use prost::Message as _;
use proto::pb;
use sha2::{Digest as _, Sha256};

/// A graph under construction.
#[derive(Debug, Clone, Default)]
pub struct Llb {
    def: Vec<Bytes>,
}

/// One output of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    digest: String,
    index: i64,
}

impl Edge {
    /// The digest of the operation.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Another output of the same operation.
    pub fn output(&self, index: i64) -> Self {
        Self { index, ..self.clone() }
    }
}

impl Llb {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation.
    pub fn op(&mut self, inputs: &[&Edge], op: pb::op::Op) -> Edge {
        let inputs = inputs.iter().map(|e| pb::Input { digest: e.digest.clone(), index: e.index }).collect();
        self.add(&pb::Op { inputs, op: Some(op), ..pb::Op::default() })
    }

    fn add(&mut self, op: &pb::Op) -> Edge {
        let bytes: Bytes = op.encode_to_vec().into();
        let digest = digest(&bytes);
        self.def.push(bytes);
        Edge { digest, index: 0 }
    }

    /// The definition of one output.
    pub fn definition(&self, result: &Edge) -> pb::Definition {
        let mut all = self.clone();
        let input = pb::Input { digest: result.digest.clone(), index: result.index };
        all.add(&pb::Op { inputs: vec![input], ..pb::Op::default() });
        pb::Definition { def: all.def, ..pb::Definition::default() }
    }

    /// An image.
    pub fn image(&mut self, name: &str) -> Edge {
        let source = pb::SourceOp { identifier: format!("docker-image://{name}"), ..pb::SourceOp::default() };
        self.op(&[], pb::op::Op::Source(source))
    }

    /// A file with this text, over `base` or over nothing.
    pub fn file(&mut self, base: Option<&Edge>, path: &str, text: &str) -> Edge {
        let file = pb::FileActionMkFile {
            path: path.to_owned(),
            mode: 0o644,
            data: Bytes::copy_from_slice(text.as_bytes()),
            timestamp: 1_000_000_000,
            ..pb::FileActionMkFile::default()
        };
        self.actions(base, vec![pb::file_action::Action::Mkfile(file)])
    }

    /// File actions, one after the other, over `base` or over nothing.
    pub fn actions(&mut self, base: Option<&Edge>, actions: Vec<pb::file_action::Action>) -> Edge {
        let (inputs, last) = (i64::from(base.is_some()), actions.len() - 1);
        let action = |(i, action): (usize, _)| pb::FileAction {
            input: if i > 0 { inputs + i as i64 - 1 } else { inputs - 1 },
            secondary_input: -1,
            output: if i == last { 0 } else { -1 },
            action: Some(action),
        };
        let actions = actions.into_iter().enumerate().map(action).collect();
        self.op(&base.into_iter().collect::<Vec<_>>(), pb::op::Op::File(pb::FileOp { actions }))
    }

    /// A shell command over `root`, whose changes are output 0; `change` may add what it likes.
    pub fn run(&mut self, root: &Edge, script: &str, change: impl FnOnce(&mut pb::ExecOp)) -> Edge {
        self.run_with(&[root], script, change)
    }

    /// As [`Self::run`], with further inputs for further mounts.
    pub fn run_with(&mut self, inputs: &[&Edge], script: &str, change: impl FnOnce(&mut pb::ExecOp)) -> Edge {
        let args = ["/bin/sh", "-ec", script].map(str::to_owned).to_vec();
        let mut exec = pb::ExecOp {
            meta: Some(pb::Meta { args, cwd: "/".to_owned(), ..pb::Meta::default() }),
            mounts: vec![pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() }],
            network: pb::NetMode::None.into(),
            ..pb::ExecOp::default()
        };
        change(&mut exec);
        self.op(inputs, pb::op::Op::Exec(exec))
    }

    /// The same operation for a platform.
    ///
    /// # Panics
    /// When there is none such.
    pub fn on(&mut self, edge: &Edge, platform: pb::Platform) -> Edge {
        let bytes = self.def.iter().find(|bytes| digest(bytes) == edge.digest);
        let op = pb::Op::decode(bytes.expect("an operation of this graph").clone()).expect("an operation");
        self.add(&pb::Op { platform: Some(platform), ..op })
    }

    /// One over the other.
    pub fn merge(&mut self, inputs: &[&Edge]) -> Edge {
        let merged = (0..inputs.len()).map(|i| pb::MergeInput { input: i as i64 }).collect();
        self.op(inputs, pb::op::Op::Merge(pb::MergeOp { inputs: merged }))
    }

    /// What `upper` has beyond `lower`.
    pub fn diff(&mut self, lower: &Edge, upper: &Edge) -> Edge {
        let diff = pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: 0 }),
            upper: Some(pb::UpperDiffInput { input: 1 }),
        };
        self.op(&[lower, upper], pb::op::Op::Diff(diff))
    }

    /// What the definition in the file `buildkit.llb.definition` of `input` gives.
    pub fn build(&mut self, input: &Edge) -> Edge {
        let inputs = [("buildkit.llb.definition".to_owned(), pb::BuildInput { input: 0 })].into();
        let build = pb::BuildOp { builder: -1, inputs, ..pb::BuildOp::default() };
        self.op(&[input], pb::op::Op::Build(build))
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
