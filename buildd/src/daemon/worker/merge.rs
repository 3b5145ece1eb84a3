//! Merge and diff: trees only, no layer of their own.

use cache::tree::{NodeId, Trees};
use solver::op::{DiffOp, MergeOp};
use solver::{ExecError, Job, LayerId, OutputRecord};

use super::LocalWorker;
use crate::daemon::blocking::blocking;
use crate::daemon::chains::{Chains, content, from_store};

impl LocalWorker {
    /// Stacks the inputs' layers, later over earlier.
    pub(super) async fn merge(&self, op: &MergeOp, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecError> {
        let mut inputs = op.inputs.iter().flatten().map(|i| &job.inputs[*i]);
        let lowest = match inputs.next() {
            Some(first) => content(first)?,
            None => Trees::empty(),
        };
        let above: Vec<LayerId> = inputs.flat_map(|o| o.chain.iter().copied()).collect();
        self.stacked(lowest, above).await
    }

    /// What lies in `upper` above `lower`.
    pub(super) async fn diff(&self, op: &DiffOp, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecError> {
        let chain = |i: Option<usize>| i.map_or(&[][..], |i| &*job.inputs[i].chain);
        let (lower, upper) = (chain(op.lower), chain(op.upper));
        let Some(rest) = upper.strip_prefix(lower) else { return Err(ExecError::failed(Unrelated)) };
        self.stacked(Trees::empty(), rest.to_vec()).await
    }

    async fn stacked(
        &self,
        lowest: NodeId,
        layers: Vec<LayerId>,
    ) -> Result<Vec<(u32, OutputRecord)>, ExecError> {
        let Chains { store, trees } = self.chains.clone();
        let root = blocking(move || {
            let mut root = lowest;
            for id in layers {
                let entries = store.layers().entries(&id).map_err(from_store)?;
                root = trees.apply(root, &entries).map_err(ExecError::failed)?;
            }
            Ok::<_, ExecError>(root)
        })
        .await?;
        Ok(vec![(0, OutputRecord { content: *root.digest(), layer: None })])
    }
}

/// A diff of two file systems of which one is not the beginning of the other.
#[derive(Debug, thiserror::Error)]
#[error("cannot take the difference of two file systems of which the upper does not build on the lower")]
struct Unrelated;
