//! A directory of the client, through its session.

use std::time::{Duration, UNIX_EPOCH};

use cache::objects::ObjectStat;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use proto::rbuild::{CacheObjectStat, WriteCacheObject};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::StreamReader;
use tonic::{Code, Status};

use super::home::How;
use crate::session::{Session, SessionError};

/// Bytes sent in one message.
const CHUNK: u64 = 256 << 10;
/// How long a client may send nothing of an object that it has begun to send.
const STALL: Duration = Duration::from_secs(120);
/// Messages that are made before the transport takes them.
const BACKLOG: usize = 4;

/// A directory.
#[derive(Debug)]
pub(super) struct Directory {
    /// The client that has it.
    pub(super) session: Session,
    /// What the client calls it.
    pub(super) store: String,
}

/// The client does not do what is asked of it.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum DirectoryError {
    /// It said why not.
    #[error(transparent)]
    Client(#[from] SessionError),
    /// A file here could not be read.
    #[error("cannot read what is to be written")]
    Source(#[source] std::io::Error),
    /// An object could not be read to its end.
    #[error("cannot read `{object}`")]
    Object {
        /// Which.
        object: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl DirectoryError {
    /// Whether it may be one object that cannot be had, and not the directory.
    pub(super) fn is_of_one(&self) -> bool {
        let denied = |code| matches!(code, Code::PermissionDenied | Code::InvalidArgument | Code::DataLoss);
        match self {
            Self::Client(SessionError::Client(status)) => denied(status.code()),
            Self::Client(_) | Self::Source(_) | Self::Object { .. } => false,
        }
    }
}

impl Directory {
    pub(super) async fn stat(&self, name: &str) -> Result<Option<ObjectStat>, DirectoryError> {
        Ok(found(self.session.stat_cache_object(&self.store, name).await)?.map(|found| told(&found)))
    }

    /// An object's bytes, if there is one; none at all of one that is too large.
    pub(super) async fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, DirectoryError> {
        let Some(stream) = found(self.session.read_cache_object(&self.store, name).await)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let mut reader = StreamReader::new(unstalled(stream)).take(limit + 1);
        let unread = |source| DirectoryError::Object { object: name.to_owned(), source };
        reader.read_to_end(&mut bytes).await.map_err(unread)?;
        if bytes.len() as u64 > limit {
            bytes.clear();
        }
        Ok(Some(bytes))
    }

    pub(super) async fn read(&self, name: &str) -> Result<impl AsyncRead + Send + use<>, DirectoryError> {
        let stream = self.session.read_cache_object(&self.store, name).await?;
        Ok(StreamReader::new(unstalled(stream)))
    }

    pub(super) async fn put(
        &self,
        name: &str,
        how: How,
        size: u64,
        from: impl AsyncRead + Send + Unpin,
    ) -> Result<bool, DirectoryError> {
        let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
        let (store, replace) = (self.store.clone(), how == How::Replace);
        let feed = async move {
            let mut from = from;
            let object = proto::rbuild::CacheObject { store, name: name.to_owned() };
            let mut head = Some(object);
            loop {
                let mut data = Vec::new();
                (&mut from).take(CHUNK).read_to_end(&mut data).await.map_err(DirectoryError::Source)?;
                if data.is_empty() && head.is_none() {
                    return Ok(());
                }
                let message = WriteCacheObject { object: head.take(), replace, data: data.into(), size };
                // A client that takes no more says why in its answer.
                if tx.send(message).await.is_err() {
                    return Ok(());
                }
            }
        };
        let written = self.session.write_cache_object(rx);
        let (fed, written): (Result<(), DirectoryError>, _) = tokio::join!(feed, written);
        // What ends early is not written: why it did is what is told.
        fed?;
        Ok(written?)
    }

    pub(super) async fn touch(&self, name: &str) -> Result<(), DirectoryError> {
        found(self.session.touch_cache_object(&self.store, name).await)?;
        Ok(())
    }

    pub(super) async fn list(
        &self,
        prefix: &str,
    ) -> Result<impl Stream<Item = Result<(String, ObjectStat), Status>> + Send + use<>, DirectoryError> {
        let listed = self.session.list_cache_objects(&self.store, prefix.trim_end_matches('/')).await?;
        Ok(listed.map_ok(|entry| (entry.name, told(&entry.stat.unwrap_or_default()))))
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), DirectoryError> {
        Ok(self.session.remove_cache_object(&self.store, name).await?)
    }
}

/// What comes, until nothing comes for too long: the disk may be at the other end of a network.
fn unstalled<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl Stream<Item = std::io::Result<T>> + Send {
    futures_util::stream::unfold(Some(Box::pin(stream)), |stream| async {
        let mut stream = stream?;
        match tokio::time::timeout(STALL, stream.next()).await {
            Ok(next) => next.map(|next| (next.map_err(std::io::Error::other), Some(stream))),
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
        }
    })
    .boxed()
}

fn told(stat: &CacheObjectStat) -> ObjectStat {
    ObjectStat { size: stat.size, modified: Some(UNIX_EPOCH + Duration::from_millis(stat.modified_ms)) }
}

/// What was found, if anything was.
fn found<T>(answer: Result<T, SessionError>) -> Result<Option<T>, SessionError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(SessionError::Client(status)) if status.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
