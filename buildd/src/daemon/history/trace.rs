//! The spans of past builds. Those of the client go on coming for a while after its build has ended.

use std::sync::Arc;
use std::time::Duration;

use cache::store::{BlobPurpose, BuildBlob, StoreError};
use tokio_util::sync::CancellationToken;

use super::{Histories, event};
use crate::daemon::blocking::blocking;
use crate::daemon::traces::Listening;

/// How long a client's spans are waited for if it does not say that it has sent them (BuildKit's time).
const LATE: Duration = Duration::from_secs(3);

/// A trace that is not kept yet. Whoever waits for it waits until this is dropped.
#[derive(Debug)]
pub(in crate::daemon) struct Pending {
    histories: Arc<Histories>,
    reference: String,
    listening: Listening,
    waiting: Waiting,
}

/// How a trace that is not kept yet is spoken to.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    /// There is nothing more to wait for.
    hurry: CancellationToken,
    /// It is kept.
    kept: CancellationToken,
}

impl Histories {
    /// Says that a build's trace is going to be kept.
    pub(in crate::daemon) fn expect_trace(
        self: &Arc<Self>,
        reference: &str,
        listening: Listening,
    ) -> Pending {
        let waiting = Waiting::default();
        self.traces().insert(reference.to_owned(), waiting.clone());
        Pending { histories: self.clone(), reference: reference.to_owned(), listening, waiting }
    }

    /// Has a build's trace kept now, and waits for that.
    pub(in crate::daemon) async fn finalize(&self, reference: &str) {
        let waiting = self.traces().get(reference).cloned();
        if let Some(Waiting { hurry, kept }) = waiting {
            hurry.cancel();
            kept.cancelled().await;
        }
    }

    /// Writes the spans into a blob that goes with the build. Blocking.
    fn add_trace(&self, reference: &str, text: &str) -> Result<(), StoreError> {
        let purpose = BlobPurpose { description: event::TRACE.to_owned(), ..BlobPurpose::default() };
        // The build's own would keep all that it made until now.
        let lease = self.store.lease();
        let blob = self.store.blobs().put(&lease, text.as_bytes(), purpose)?;
        let _alone = self.lock();
        let Some(mut record) = self.store.history().get(reference)? else { return Ok(()) };
        record.trace = Some(BuildBlob { blob, size: text.len() as u64 });
        self.store.history().put(&record)
    }
}

impl Pending {
    /// Keeps the trace in the background: soon, or after its client has had time to send spans of its own.
    pub(in crate::daemon) fn keep(self, client_sends: bool) {
        tokio::spawn(async move {
            if client_sends {
                tokio::select! {
                    () = tokio::time::sleep(LATE) => {}
                    () = self.waiting.hurry.cancelled() => {}
                }
            }
            let Some(text) = self.listening.text() else { return };
            let (histories, reference) = (self.histories.clone(), self.reference.clone());
            let kept = blocking(move || histories.add_trace(&reference, &text)).await;
            if let Err(e) = kept {
                tracing::warn!(build = self.reference, "cannot keep the trace of a build: {e}");
            }
        });
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.histories.traces().remove(&self.reference);
        self.waiting.kept.cancel();
    }
}
