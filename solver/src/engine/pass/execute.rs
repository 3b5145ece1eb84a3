//! Executing a vertex that no record answers, at most once for all who want it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{Pass, Stop};
use crate::engine::{Inner, Need};
use crate::graph::{Vertex, VertexId};
use crate::key::Use;
use crate::op::Op;
use crate::record::{Key, Put, Record};
use crate::session::SessionGroup;
use crate::traits::{Event, ExecError, Job, Output, Progress, VertexContext};

/// What a flight needs, apart from the pass that began it.
struct Task {
    engine: Arc<Inner>,
    build: String,
    vertex: Vertex,
    inputs: Vec<Output>,
    in_result: bool,
    keys: Vec<Key>,
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
        let forced = vertex.meta.ignore_cache;
        let task = Task {
            engine: self.engine.clone(),
            build: self.build.id.clone(),
            vertex: vertex.clone(),
            inputs,
            in_result: self.in_result[id.index()],
            keys: definition.into_iter().chain([key]).collect(),
            forced,
            stale,
        };
        self.mark_told(id);
        self.tell(id, Event::Started(SystemTime::now()));
        let (events, not_before) = (self.events.clone(), if forced { self.build.begun } else { 0 });
        let listener = Arc::new(move |u| events.event(id, Event::Update(u)));
        let seat = self.engine.flights.board(
            key,
            not_before,
            &self.build.session,
            listener,
            |sessions, progress, cancel| async move { task.run(sessions, progress, cancel).await }.boxed(),
        );
        let outcome = seat.outcome().await;
        self.tell(id, Event::Completed(SystemTime::now(), outcome.as_ref().err().map(ToString::to_string)));
        let record = outcome.map_err(|e| Stop::from_exec(id, e))?;
        if let Some(definition) = definition {
            self.build.pin(definition, record.clone());
        }
        Ok(record)
    }

    /// Input `i`, present, but for a directory that a file op copies from: that is read in place.
    async fn input(self: &Arc<Self>, id: VertexId, i: usize) -> Result<Output, Stop> {
        let vertex = self.graph.vertex(id);
        let edge = vertex.inputs[i];
        if matches!((&vertex.op, &self.node(id).uses[i]), (Op::File(_), Use::Selected(_))) {
            let known = self.output(edge, Need::Known).await?;
            if known.local.is_some() {
                return Ok(known);
            }
        }
        self.output(edge, Need::Present).await
    }
}

impl Task {
    async fn run(
        self,
        sessions: SessionGroup,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Arc<Record>, ExecError> {
        let _slot = tokio::select! {
            slot = self.engine.slots.acquire() => slot.map_err(|_| ExecError::Canceled)?,
            () = cancel.cancelled() => return Err(ExecError::Canceled),
        };
        if let Some(record) = self.meanwhile().await? {
            return Ok(record);
        }
        let begun = Instant::now();
        let cx = VertexContext { build: self.build.clone(), sessions, progress, cancel };
        let (vertex, inputs) = (self.vertex.clone(), self.inputs.clone());
        let job = Job { vertex, inputs, in_result: self.in_result, cx };
        let outputs = self.attempts(&job).await?;
        let name = job.vertex.meta.custom_name().unwrap_or_default().to_owned();
        let created_ms =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let took_ms = begun.elapsed().as_millis() as u64;
        let record = Record { outputs: outputs.into_iter().collect(), created_ms, took_ms, name };
        let put = match &self.stale {
            Some(old) => Put::Replace(Some(old.as_ref().clone())),
            None if self.forced => Put::Replace(self.current().await?),
            None => Put::IfAbsent,
        };
        Ok(Arc::new(self.engine.records.put(&self.keys, record, put).await.map_err(ExecError::failed)?))
    }

    /// Executes under whichever session lives: when the one that gave a secret dies, the step starts again under another.
    async fn attempts(&self, job: &Job) -> Result<Vec<(u32, crate::record::OutputRecord)>, ExecError> {
        loop {
            match self.engine.worker.execute(job).await {
                Err(ExecError::SessionLost { session })
                    if job.cx.sessions.ids().iter().any(|s| *s != session) =>
                {
                    tracing::debug!(%session, "session lost; the step starts again under another");
                    job.cx.sessions.leave(&session);
                }
                other => return other,
            }
        }
    }

    /// A record that an earlier flight left between this one's look-up and its start.
    async fn meanwhile(&self) -> Result<Option<Arc<Record>>, ExecError> {
        if self.forced {
            return Ok(None);
        }
        let found = self.current().await?;
        Ok(found.filter(|r| self.stale.as_deref() != Some(r)).map(Arc::new))
    }

    async fn current(&self) -> Result<Option<Record>, ExecError> {
        let key = self.keys.last().copied().into_iter().collect::<Vec<_>>();
        let found = self.engine.records.lookup(&key).await.map_err(ExecError::failed)?;
        Ok(found.into_iter().next().flatten())
    }
}
