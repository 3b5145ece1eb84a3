//! Merge and diff: trees only where layers are stacked or taken apart, else a layer of their own.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cache::layer::{Base, difference};
use cache::tree::{NodeId, Trees};
use solver::op::{DiffOp, MergeOp};
use solver::{ExecError, Job, LayerId, OutputRecord};

use super::file::{SetOnDrop, until_cancelled};
use super::{LocalWorker, output};
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
        match upper.strip_prefix(lower) {
            Some(rest) => self.stacked(Trees::empty(), rest.to_vec()).await,
            None => self.unrelated(op, job).await,
        }
    }

    /// What lies between two file systems of which the upper does not build on the lower, as a layer.
    async fn unrelated(&self, op: &DiffOp, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecError> {
        let base = |i: Option<usize>| match i {
            Some(i) => self.chains.base(&job.inputs[i]),
            None => Ok(Base::scratch(self.chains.trees.clone())),
        };
        let (lower, upper) = (base(op.lower)?, base(op.upper)?);
        let (store, lease) = (self.chains.store.clone(), self.leases.of(&job.cx.build));
        let stop = Arc::new(AtomicBool::new(false));
        let _stop_on_drop = SetOnDrop(stop.clone());
        let name = job.vertex.meta.custom_name().unwrap_or_default().to_owned();
        let work = blocking(move || {
            let staging = store.layers().staging().map_err(from_store)?;
            let dir = staging.path().join("fs");
            let made = difference(lower, &upper, &dir, &stop).map_err(ExecError::failed)?;
            let layer = made.ok_or(ExecError::Canceled)?;
            let record = output::keep(&store, &lease, &layer, &dir, &name)?;
            // On nothing, as nothing lies below a difference.
            let content = upper.trees.apply(Trees::empty(), &layer.entries).map_err(ExecError::failed)?;
            Ok(vec![(0, OutputRecord { content: *content.digest(), ..record })])
        });
        until_cancelled(job, work).await
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
