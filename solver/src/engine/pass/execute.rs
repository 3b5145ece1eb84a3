//! Executing a vertex that no record answers, at most once for all who want it.

use std::slice;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{Pass, Stop};
use crate::digest::Digest;
use crate::engine::{BuildState, Inner, Need};
use crate::graph::{Vertex, VertexId};
use crate::key::Use;
use crate::op::Op;
use crate::record::{Key, Name, Put, Record};
use crate::redact::redacted;
use crate::session::SessionGroup;
use crate::traits::{Event, ExecError, ExecFailure, Job, Made, Output, Progress, Reason, VertexContext};

/// What a flight needs, apart from the pass that began it.
struct Task {
    engine: Arc<Inner>,
    build: Arc<BuildState>,
    epoch: u64,
    vertex: Vertex,
    inputs: Vec<Output>,
    in_result: bool,
    /// The content key: what a record and a flight are found by.
    key: Key,
    definition: Option<Key>,
    /// What its record is to be found by besides.
    name: Option<Name>,
    /// What it is found by among those who hold it.
    shape: Digest,
    forced: bool,
    stale: Option<Arc<Record>>,
}

impl Pass {
    /// Executes a vertex and pins the record; `stale` is the record that proved unusable.
    pub(super) async fn execute(
        self: &Arc<Self>,
        id: VertexId,
        key: Key,
        stale: Option<Arc<Record>>,
    ) -> Result<Arc<Record>, Stop> {
        let vertex = self.graph.vertex(id);
        let inputs = try_join_all((0..vertex.inputs.len()).map(|i| self.input(id, i))).await?;
        let definition = self.node(id).definition.get().copied();
        let (name, forced) = (self.own_name(id).await?, self.is_forced(id));
        self.mark_told(id);
        let reason = match &stale {
            _ if forced => Reason::Forced,
            None => Reason::Unknown,
            Some(record) => Reason::Lost(record.outputs.values().filter_map(|output| output.layer).collect()),
        };
        self.note_execution(id, key, reason);
        let (shown, begun) = (self.begin(id), Instant::now());
        self.events.executing(id, &|| self.findings());
        let outcome = loop {
            let task = Task {
                engine: self.engine.clone(),
                build: self.build.clone(),
                epoch: self.epoch,
                vertex: vertex.clone(),
                inputs: inputs.clone(),
                in_result: self.in_result[id.index()],
                key,
                definition,
                name: name.clone(),
                shape: self.shapes[id.index()],
                forced,
                stale: stale.clone(),
            };
            match self.fly(id, task).await {
                // It ended for the others that waited just when this build joined: that is not this build's failure.
                Err(ExecFailure { error: ExecError::SessionLost { session }, .. })
                    if session != self.build.session => {}
                outcome => break outcome,
            }
        };
        shown.end(outcome.as_ref().err().map(|failure| &failure.error));
        self.note_end(id, begun.elapsed(), outcome.as_ref().err().map(|failure| &failure.error));
        let record = outcome.map_err(|failure| Stop::from_failure(id, failure))?;
        if let Some(elsewhere) = self.build.elsewhere.as_ref().filter(|_| self.is_for_others(id)) {
            let stood_on = self.stands_on(id).await?;
            let made = Made {
                content: Some(key),
                definition: definition.zip(stood_on).map(|(key, stands_on)| Name { key, stands_on }),
                record: record.clone(),
                in_result: self.in_result[id.index()],
                forced,
                lent: false,
            };
            // Who takes it may be at it when the pass is over.
            let cx = VertexContext { cancel: self.build.cancel.clone(), ..self.context(id) };
            elsewhere.made(&made, &cx);
        }
        match definition {
            Some(key) if stale.is_some() => self.build.pin_again(self.epoch, key, &record),
            Some(key) => return Ok(self.build.pin(self.epoch, key, &record)),
            None => {}
        }
        Ok(record)
    }

    /// Waits for an execution equal to `task`, which begins where none is under way.
    async fn fly(&self, id: VertexId, task: Task) -> Result<Arc<Record>, ExecFailure> {
        let (events, forced_since) = (self.events.clone(), task.forced.then_some(self.build.begun));
        let (key, name) = (task.key, task.name.clone());
        let listener = Arc::new(move |u| events.event(id, Event::Update(u)));
        let seat = self.engine.flights.board(
            task.key,
            forced_since,
            &self.build.session,
            listener,
            |sessions, progress, cancel| async move { task.run(sessions, progress, cancel).await }.boxed(),
        );
        let record = seat.outcome().await?;
        if let (true, Some(name)) = (seat.joined(), name) {
            // Who began it may have come to the same contents in another way.
            self.engine.records.alias(name, key).await.map_err(ExecError::failed)?;
        }
        Ok(record)
    }

    /// Input `i`, present, but for a directory that a file op copies from: that is read in place.
    pub(super) async fn input(self: &Arc<Self>, id: VertexId, i: usize) -> Result<Output, Stop> {
        let vertex = self.graph.vertex(id);
        let edge = vertex.inputs[i];
        if matches!((&vertex.op, &self.node(id).uses[i]), (Op::File(_), Use::Selected(_))) {
            let known = self.output(edge, Need::Known).await?;
            if known.local.is_some() {
                return Ok(known);
            }
        }
        self.used(edge, Need::Present).await
    }
}

impl Task {
    async fn run(
        self,
        sessions: SessionGroup,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Arc<Record>, ExecFailure> {
        let _slot = tokio::select! {
            slot = self.engine.slots.acquire() => slot.map_err(|_| ExecError::Canceled)?,
            () = cancel.cancelled() => return Err(ExecError::Canceled.into()),
        };
        if let Some(record) = self.meanwhile().await? {
            return Ok(record);
        }
        sessions.stand_by(self.engine.holders.of(&self.shape));
        let begun = Instant::now();
        let cx = VertexContext { build: self.build.id.clone(), sessions, progress, cancel };
        let (vertex, inputs) = (self.vertex.clone(), self.inputs.clone());
        let job = Job { vertex, inputs, in_result: self.in_result, cx };
        let outputs = self.attempts(&job).await?;
        let name = redacted(job.vertex.meta.custom_name().unwrap_or_default()).into_owned();
        let created_ms =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let took_ms = begun.elapsed().as_millis() as u64;
        let record = Record { outputs: outputs.into_iter().collect(), created_ms, took_ms, name };
        let put = match &self.stale {
            Some(old) => Put::Replace(Some(old.as_ref().clone())),
            None if self.forced => Put::Replace(self.current().await?),
            None => Put::IfAbsent,
        };
        let put = self.engine.records.put(self.key, self.name.as_slice(), record, put);
        let record = Arc::new(put.await.map_err(ExecError::failed)?);
        if let (true, None, Some(key)) = (self.forced, &self.stale, self.definition) {
            // While nobody else of this build can begin another execution, which no record would keep from it.
            return Ok(self.build.pin(self.epoch, key, &record));
        }
        Ok(record)
    }

    /// Executes under whichever session lives: when the one that gave a secret dies, the step starts again under another.
    async fn attempts(&self, job: &Job) -> Result<Vec<(u32, crate::record::OutputRecord)>, ExecFailure> {
        loop {
            match self.engine.worker.execute(job).await {
                Err(ExecFailure { error: ExecError::SessionLost { session }, .. }) => {
                    let sessions = &job.cx.sessions;
                    let left = sessions.leave(&session) && !sessions.ids().is_empty();
                    if !left && !sessions.dismiss(&session) {
                        return Err(ExecError::SessionLost { session }.into());
                    }
                    tracing::debug!(%session, "session lost; the step starts again under another");
                }
                other => return other,
            }
        }
    }

    /// A record that an earlier flight left between this one's look-up and its start.
    async fn meanwhile(&self) -> Result<Option<Arc<Record>>, ExecError> {
        if self.forced {
            let key = self.definition.filter(|_| self.stale.is_none());
            return Ok(key.and_then(|key| self.build.pinned_in(self.epoch, &key)).map(|pin| pin.record));
        }
        let found = self.current().await?.filter(|r| self.stale.as_deref() != Some(r));
        if let (Some(_), Some(name)) = (&found, self.name.clone()) {
            self.engine.records.alias(name, self.key).await.map_err(ExecError::failed)?;
        }
        Ok(found.map(Arc::new))
    }

    async fn current(&self) -> Result<Option<Record>, ExecError> {
        let found =
            self.engine.records.lookup(slice::from_ref(&self.key)).await.map_err(ExecError::failed)?;
        Ok(found.into_iter().next().flatten().map(|kept| kept.record))
    }
}
