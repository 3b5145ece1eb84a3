//! The local worker: executes vertices on this machine.

mod exec;
mod file;
mod limits;
mod merge;
mod mounts;
mod output;
mod remains;

use std::sync::Arc;

use async_trait::async_trait;
use cache::fileop::ActionError;
use cache::fileop::selection::selection_digest;
use solver::{Digest, ExecError, ExecFailure, Job, LayerId, Op, Output, OutputRecord, Selection, Worker};

pub(super) use file::{SetOnDrop, UNPACK_LIMITS};
pub(super) use limits::StepLimits;
pub(super) use mounts::{Mounts, Shown};
pub(super) use remains::StepRemains;

use super::blocking::blocking;
use super::chains::{Chains, content, from_store};
use super::devices::Devices;
use super::diffids::DiffIds;
use super::failure::Unselected;
use super::keyed_cache::Travels;
use super::leases::Leases;
use super::locals::Locals;
use super::mounting::Mounting;
use super::sandboxes::Sandboxes;
use super::traces::Traces;
use crate::session::SessionManager;

/// Executes vertices in sandboxes and on layer directories.
#[derive(Debug)]
pub(super) struct LocalWorker {
    /// Layers and trees.
    pub chains: Chains,
    /// Walked directories of sessions.
    pub locals: Arc<Locals>,
    /// Who provides secrets and agents.
    pub sessions: Arc<SessionManager>,
    /// What keeps layers alive, by build.
    pub leases: Arc<Leases>,
    /// Runs commands.
    pub sandboxes: Arc<Sandboxes>,
    /// How the files of steps come together.
    pub mounting: Mounting,
    /// Hashes what steps made.
    pub diff_ids: Arc<DiffIds>,
    /// What this machine offers to steps.
    pub devices: Arc<Devices>,
    /// Name servers of sandboxes; empty is the host's.
    pub dns: runner::Dns,
    /// What a step may use.
    pub limits: StepLimits,
    /// Where the spans of steps go.
    pub traces: Arc<Traces>,
    /// Where cache mounts come from and go to.
    pub travels: Arc<Travels>,
}

#[async_trait]
impl Worker for LocalWorker {
    async fn execute(&self, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecFailure> {
        // Whoever began it may have left, and its lease with it.
        let lease = self.leases.of(&job.cx.build);
        for layer in job.inputs.iter().flat_map(|input| input.chain.iter()) {
            if !self.chains.store.layers().hold_present(&lease, layer).map_err(from_store)? {
                return Err(ExecError::Changed { path: layer.to_string() }.into());
            }
        }
        let made = self.run_op(job).await?;
        if job.in_result {
            self.diff_ids.made(&job.cx.build, made.iter().filter_map(|(_, record)| record.layer));
        }
        Ok(made)
    }

    async fn selection_digest(&self, output: &Output, selections: &[Selection]) -> Result<Digest, ExecError> {
        let (trees, root) = match output.local.and_then(|l| self.locals.get(l)) {
            Some(context) => (context.trees.clone(), context.root),
            None => (self.chains.trees.clone(), content(output)?),
        };
        let input = root.digest().to_string();
        // As in BuildKit nothing has nothing that could be missing: whoever looks for it says so.
        let nothing = output.local.is_none() && output.chain.is_empty();
        let selections = selections.to_vec();
        blocking(move || match selection_digest(&trees, &root, &selections) {
            Err(ActionError::SourceNotFound { .. }) if nothing => Ok(*root.digest()),
            digest => digest.map_err(|cause| ExecError::failed(Unselected { input, cause })),
        })
        .await
    }

    async fn available(&self, layer: LayerId, build: &str) -> bool {
        self.chains.store.layers().hold_present(&self.leases.of(build), &layer).unwrap_or(false)
    }
}

impl LocalWorker {
    async fn run_op(&self, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecFailure> {
        match &job.vertex.op {
            Op::Exec(op) => self.exec(op, job).await,
            Op::File(op) => Ok(self.file(op, job).await?),
            Op::Merge(op) => Ok(self.merge(op, job).await?),
            Op::Diff(op) => Ok(self.diff(op, job).await?),
            Op::Passthrough(op) => {
                let output = |(i, input): (usize, &usize)| {
                    let content = *content(&job.inputs[*input])?.digest();
                    Ok((i as u32, OutputRecord { content, layer: None }))
                };
                op.outputs.iter().enumerate().map(output).collect()
            }
            Op::Build(_) | Op::Source(_) => Err(ExecError::failed(NotExecutable).into()),
        }
    }
}

/// An op that the solver should have resolved itself.
#[derive(Debug, thiserror::Error)]
#[error("internal error: the operation cannot be executed by a worker")]
struct NotExecutable;
