//! containerd's content store, read-only: the blobs of past builds, their logs and what is told of their results, and what is
//! said of images of the store. Clients learn the digests from the history and from `Images.Inspect`.

use std::io::{Read as _, Seek as _, SeekFrom};

use bytes::Bytes;
use cache::store::{Store, StoreError};
use proto::content::content_server::Content;
use proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteContentRequest, WriteContentResponse,
};
use solver::Digest;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::statements;
use crate::daemon::blocking::blocking;
use crate::daemon::control::store_status;

/// How much of a blob one message holds, in bytes.
const CHUNK: usize = 1 << 20;

/// Serves the blobs of past builds, and statements about images.
#[derive(Debug, Clone)]
pub(crate) struct ContentService {
    /// Where they are.
    pub store: Store,
}

fn read_only() -> Status {
    Status::unimplemented("this content store is read-only")
}

impl ContentService {
    /// The blob's digest and length in bytes, if a past build names it or it is said of an image. Blocking.
    fn find(&self, digest: &str) -> Result<(Digest, u64), Status> {
        let unknown = || Status::not_found(format!("content {digest}: not found"));
        let parsed: Digest =
            digest.parse().map_err(|_| Status::invalid_argument(format!("invalid digest `{digest}`")))?;
        let of_build = self.store.history().blobs().map_err(store_status)?.contains(&parsed);
        if !of_build && !statements::contain(&self.store, &parsed)? {
            return Err(unknown());
        }
        let size = self.store.blobs().size(&parsed).map_err(store_status)?;
        Ok((parsed, size.ok_or_else(unknown)?))
    }
}

fn info(digest: &Digest, size: u64) -> Info {
    Info { digest: digest.to_string(), size: size as i64, ..Info::default() }
}

/// A part of a blob.
struct Part {
    file: std::fs::File,
    offset: u64,
    left: u64,
}

impl Part {
    /// The part that a request means; a length of zero is the rest. Blocking.
    fn open(service: &ContentService, request: &ReadContentRequest) -> Result<Self, Status> {
        let (digest, size) = service.find(&request.digest)?;
        let outside =
            || Status::out_of_range(format!("{} bytes from {} of {size}", request.size, request.offset));
        let offset = u64::try_from(request.offset).map_err(|_| outside())?;
        let rest = size.checked_sub(offset).ok_or_else(outside)?;
        let left = match u64::try_from(request.size).map_err(|_| outside())? {
            0 => rest,
            wanted if wanted <= rest => wanted,
            _ => return Err(outside()),
        };
        let unreadable =
            |source| store_status(StoreError::Io { action: "read", path: digest.to_string().into(), source });
        let mut file = service.store.blobs().open(&digest).map_err(store_status)?;
        file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        Ok(Self { file, offset, left })
    }

    /// What comes next; `None` at the end. Blocking.
    fn next(&mut self) -> Option<Result<ReadContentResponse, Status>> {
        if self.left == 0 {
            return None;
        }
        let mut data = vec![0; CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK))];
        if let Err(e) = self.file.read_exact(&mut data) {
            self.left = 0;
            return Some(Err(Status::data_loss(format!("a blob ends early: {e}"))));
        }
        let response = ReadContentResponse { offset: self.offset as i64, data: Bytes::from(data) };
        self.offset += response.data.len() as u64;
        self.left -= response.data.len() as u64;
        Some(Ok(response))
    }
}

#[tonic::async_trait]
impl Content for ContentService {
    type ListStream = tokio_stream::Iter<std::vec::IntoIter<Result<ListContentResponse, Status>>>;
    type ReadStream = ReceiverStream<Result<ReadContentResponse, Status>>;
    type WriteStream = tokio_stream::Empty<Result<WriteContentResponse, Status>>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let service = self.clone();
        let (digest, size) = blocking(move || service.find(&request.into_inner().digest)).await?;
        Ok(Response::new(InfoResponse { info: Some(info(&digest, size)) }))
    }

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        if !request.into_inner().filters.is_empty() {
            return Err(Status::unimplemented("this content store knows no filters"));
        }
        let store = self.store.clone();
        let all = blocking(move || {
            let mut all = Vec::new();
            for digest in store.history().blobs()? {
                all.extend(store.blobs().size(&digest)?.map(|size| info(&digest, size)));
            }
            Ok(all)
        });
        let all = all.await.map_err(store_status)?;
        let response = (!all.is_empty()).then_some(Ok(ListContentResponse { info: all }));
        Ok(Response::new(tokio_stream::iter(response.into_iter().collect::<Vec<_>>())))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let service = self.clone();
        let mut part = blocking(move || Part::open(&service, &request.into_inner())).await?;
        let (to, messages) = tokio::sync::mpsc::channel(2);
        tokio::spawn(blocking(move || {
            while let Some(message) = part.next() {
                // The client has gone.
                if to.blocking_send(message).is_err() {
                    return;
                }
            }
        }));
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Err(Status::not_found(format!("no write of `{}` is under way", request.into_inner().r#ref)))
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Ok(Response::new(ListStatusesResponse::default()))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        Err(read_only())
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        Err(read_only())
    }

    async fn write(
        &self,
        _: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Err(read_only())
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Err(read_only())
    }
}
