//! Taking blobs: one stream for each, verified before it gets its name.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use cache::Hashing;
use futures_util::StreamExt as _;
use proto::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use solver::Digest;
use tempfile::NamedTempFile;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Messages;

/// A blob on its way.
struct Incoming {
    file: Hashing<NamedTempFile>,
    offset: u64,
    dir: PathBuf,
}

/// Answers each message of a stream that brings one blob for the layout at `store`.
pub(super) fn receive(
    store: PathBuf,
    mut messages: Streaming<WriteContentRequest>,
) -> Messages<WriteContentResponse> {
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut incoming = None;
        loop {
            let message = match messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) | Err(_) => return,
            };
            let store = store.clone();
            let taken = tokio::task::spawn_blocking(move || {
                let answer = take(&store, &mut incoming, &message);
                (incoming, answer)
            });
            let Ok((kept, answer)) = taken.await else { return };
            incoming = kept;
            let failed = answer.is_err();
            if tx.send(answer).await.is_err() || failed {
                return;
            }
        }
    });
    ReceiverStream::new(rx).boxed()
}

fn take(
    store: &Path,
    incoming: &mut Option<Incoming>,
    message: &WriteContentRequest,
) -> Result<WriteContentResponse, Status> {
    let io = |e: std::io::Error| Status::unknown(format!("{}: {e}", store.display()));
    let expected = match message.expected.as_str() {
        "" => None,
        text => {
            let bad = |_| Status::invalid_argument(format!("invalid digest {text:?}"));
            Some(text.parse::<Digest>().map_err(bad)?)
        }
    };
    if incoming.is_none() {
        let dir = store.join("blobs/sha256");
        if let Some(digest) = expected.filter(|digest| dir.join(digest.hex()).exists()) {
            return Err(Status::already_exists(format!("content {digest}: already exists")));
        }
        std::fs::create_dir_all(&dir).map_err(io)?;
        let file = NamedTempFile::with_prefix_in(".rbuild-", &dir).map_err(io)?;
        *incoming = Some(Incoming { file: Hashing::new(file), offset: 0, dir });
    }
    let Some(blob) = incoming else { return Err(Status::internal("no blob is under way")) };
    let action = WriteAction::try_from(message.action);
    if matches!(action, Ok(WriteAction::Write | WriteAction::Commit)) && !message.data.is_empty() {
        if u64::try_from(message.offset) != Ok(blob.offset) {
            return Err(Status::out_of_range(format!("got offset {}, want {}", message.offset, blob.offset)));
        }
        blob.file.write_all(&message.data).map_err(io)?;
        blob.offset += message.data.len() as u64;
    }
    let mut answer = WriteContentResponse {
        action: message.action,
        offset: blob.offset as i64,
        total: message.total,
        ..WriteContentResponse::default()
    };
    if action == Ok(WriteAction::Commit)
        && let Some(blob) = incoming.take()
    {
        let (file, digest, size) = blob.file.finish();
        if expected.is_some_and(|expected| expected != digest) {
            return Err(Status::failed_precondition(format!(
                "unexpected commit digest {digest}, expected {}",
                message.expected
            )));
        }
        if message.total > 0 && u64::try_from(message.total) != Ok(size) {
            return Err(Status::failed_precondition(format!(
                "unexpected commit size {size}, expected {}",
                message.total
            )));
        }
        use std::os::unix::fs::PermissionsExt as _;
        let readable = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(readable).map_err(io)?;
        file.persist(blob.dir.join(digest.hex())).map_err(|e| io(e.error))?;
        answer.digest = digest.to_string();
    }
    Ok(answer)
}
