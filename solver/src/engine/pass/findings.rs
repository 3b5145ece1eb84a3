//! What a pass found out, for who explains a build.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::Pass;
use crate::graph::VertexId;
use crate::record::Key;
use crate::traits::{Ended, ExecError, Execution, Finding, Found, Reason};

impl Pass {
    /// What is known of all that is wanted, and of what that stands on.
    pub(in crate::engine) fn findings(&self) -> Vec<(VertexId, Finding)> {
        let reachable = self.graph.reachable(self.wanted.iter().copied());
        let needed = self.graph.ids().filter(|id| reachable[id.index()]);
        needed.map(|id| (id, self.finding(id))).collect()
    }

    fn finding(&self, id: VertexId) -> Finding {
        let node = self.node(id);
        let mut finding = Finding {
            definition: node.definition.get().copied(),
            source: node.answer.get().cloned(),
            ..Finding::default()
        };
        let outputs = node.answers.iter().rev().filter_map(|answer| answer.get()?.peek()?.as_ref().ok());
        if let Some(record) = node.record.get() {
            finding.contents = super::contents(record).collect();
        } else if let Some(outputs) = outputs.into_iter().next() {
            let known = outputs.iter().filter_map(|(index, output)| Some((*index, output.content?)));
            finding.contents = known.collect();
        }
        let executed = self.execution(id).clone();
        finding.how = match executed {
            Some(execution) => Found::Executed(execution),
            None if node.found.get().is_some() || node.lent.get().is_some() => Found::Elsewhere,
            None if node.record.get().is_some() => Found::Known,
            None => Found::NotReached,
        };
        finding
    }

    /// Notes that the vertex is being executed; made again, it counts as once.
    pub(super) fn note_execution(&self, id: VertexId, key: Key, reason: Reason) {
        let begun = || Execution { key, reason, took: Duration::ZERO, ended: Ended::Canceled };
        self.execution(id).get_or_insert_with(begun);
    }

    /// Notes how that ended.
    pub(super) fn note_end(&self, id: VertexId, took: Duration, error: Option<&ExecError>) {
        if let Some(execution) = self.execution(id).as_mut() {
            execution.took += took;
            execution.ended = match error {
                None => Ended::Well,
                Some(ExecError::Canceled) => Ended::Canceled,
                Some(_) => Ended::Failed,
            };
        }
    }

    fn execution(&self, id: VertexId) -> MutexGuard<'_, Option<Execution>> {
        self.node(id).executed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
