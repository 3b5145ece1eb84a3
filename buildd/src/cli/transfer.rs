//! Pulls and pushes: progress while they run, the digest at their end.

use proto::control::StatusResponse;
use proto::rbuild::TransferEvent;
use proto::rbuild::transfer_event::Event;
use tonic::Streaming;

use super::context::show;
use crate::client::ClientError;
use crate::progress::Mode;

/// Shows a transfer and returns its digest.
pub(super) async fn follow(
    mut events: Streaming<TransferEvent>,
    mode: Mode,
) -> Result<Option<String>, ClientError> {
    let (progress, shown) = show(mode)?;
    let mut digest = None;
    let done = loop {
        match events.message().await {
            Ok(Some(TransferEvent { event: Some(Event::Status(status)) })) => {
                // The display ends only after us.
                let _: Result<(), tokio::sync::mpsc::error::SendError<StatusResponse>> =
                    progress.send(status).await;
            }
            Ok(Some(TransferEvent { event: Some(Event::Digest(found)) })) => digest = Some(found),
            Ok(Some(TransferEvent { event: None })) => {}
            Ok(None) => break Ok(digest.take()),
            Err(status) => break Err(status),
        }
    };
    drop(progress);
    // Errors come after all progress.
    let _ = shown.await;
    Ok(done?)
}
