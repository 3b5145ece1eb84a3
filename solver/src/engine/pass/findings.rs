//! What a pass found out, for who explains a build.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Pass;
use crate::graph::VertexId;
use crate::record::Key;
use crate::traits::{Ended, ExecError, Execution, Finding, Found, Reason};

/// What is noted of an execution.
#[derive(Debug)]
pub(super) struct Noted {
    execution: Execution,
    /// Since when, while it goes on.
    since: Option<Instant>,
}

impl Noted {
    /// As it is now; what goes on took the time until now.
    fn finding(&self) -> Execution {
        let took = self.execution.took + self.since.map_or(Duration::ZERO, |since| since.elapsed());
        Execution { took, ..self.execution.clone() }
    }
}

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
        let executed = self.execution(id).as_ref().map(Noted::finding);
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
        let execution = || Execution { key, reason, took: Duration::ZERO, ended: Ended::Canceled };
        let begun = || Noted { execution: execution(), since: None };
        self.execution(id).get_or_insert_with(begun).since = Some(Instant::now());
    }

    /// Notes how that ended.
    pub(super) fn note_end(&self, id: VertexId, took: Duration, error: Option<&ExecError>) {
        if let Some(Noted { execution, since }) = self.execution(id).as_mut() {
            *since = None;
            execution.took += took;
            execution.ended = match error {
                None => Ended::Well,
                Some(ExecError::Canceled) => Ended::Canceled,
                Some(_) => Ended::Failed,
            };
        }
    }

    fn execution(&self, id: VertexId) -> MutexGuard<'_, Option<Noted>> {
        self.node(id).executed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn what_goes_on_took_the_time_until_now() {
        let execution = Execution {
            key: Key(Digest::of(b"")),
            reason: Reason::Unknown,
            took: Duration::from_secs(1),
            ended: Ended::Canceled,
        };
        let mut noted = Noted { execution, since: Some(Instant::now()) };
        std::thread::sleep(Duration::from_millis(1));
        assert!(noted.finding().took > Duration::from_secs(1));
        noted.since = None;
        assert_eq!(noted.finding().took, Duration::from_secs(1));
    }
}
