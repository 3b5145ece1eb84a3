//! Pulls and pushes: progress while they run, the digest at their end.

use std::process::ExitCode;

use proto::control::StatusResponse;
use proto::rbuild::TransferEvent;
use proto::rbuild::transfer_event::Event;
use tonic::Streaming;

use super::context::show;
use super::table::stdout;
use crate::client::ClientError;
use crate::progress::Mode;

/// Shows a transfer, unless `quiet`, and prints its digest.
pub(super) async fn print_digest(
    events: Streaming<TransferEvent>,
    quiet: bool,
) -> Result<ExitCode, ClientError> {
    let mode = if quiet { Mode::Quiet } else { Mode::Auto };
    if let Some(digest) = follow(events, mode).await? {
        stdout(&format!("{digest}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn follow(mut events: Streaming<TransferEvent>, mode: Mode) -> Result<Option<String>, ClientError> {
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
