//! OCI layouts that the daemon reads, and caches that it writes, too: blobs by digest, over containerd's content service.

mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::content::content_server::Content;
use proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteContentRequest, WriteContentResponse,
};
use rustix::fs::{FileType, Mode, OFlags};
use solver::Digest;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of a blob sent in one message; a Go peer refuses more than 4 MiB.
const CHUNK: usize = 1 << 20;
/// Messages that are made before the transport takes them.
const BACKLOG: usize = 4;

/// The id of the layout that an image is exported into.
const EXPORT: &str = "export";

/// Layout directories.
#[derive(Debug)]
pub(super) struct Stores {
    /// Images, by the id in `oci-layout://ID@DIGEST`. They can only be read.
    pub(super) layouts: BTreeMap<String, PathBuf>,
    /// Caches, and whether they may be written.
    pub(super) caches: BTreeMap<PathBuf, bool>,
    /// Where an exported image goes.
    pub(super) export: Option<PathBuf>,
}

/// A blob and its size in bytes.
struct Blob {
    file: File,
    size: u64,
}

type Messages<M> = BoxStream<'static, Result<M, Status>>;

impl Stores {
    /// The directory that a call means, and whether it may be written.
    fn store(&self, metadata: &MetadataMap) -> Result<(&Path, bool), Status> {
        let id = metadata.get("buildkit-attachable-store-id").and_then(|v| v.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument("the request names no content store"))?;
        let layout = id.strip_prefix("oci:").and_then(|name| self.layouts.get(name));
        let cache = || id.strip_prefix("local:").and_then(|path| self.caches.get_key_value(Path::new(path)));
        let export = self.export.as_deref().filter(|_| id == EXPORT);
        layout
            .map(|dir| (dir.as_path(), false))
            .or_else(|| Some((export?, true)))
            .or_else(|| cache().map(|(dir, writable)| (dir.as_path(), *writable)))
            .ok_or_else(|| Status::not_found(format!("unknown store {id}")))
    }

    /// Opens a blob; no link leads out of the layout.
    fn open(&self, metadata: &MetadataMap, digest: &str) -> Result<Blob, Status> {
        let (store, _) = self.store(metadata)?;
        let digest: Digest =
            digest.parse().map_err(|_| Status::invalid_argument(format!("invalid digest {digest:?}")))?;
        let path = store.join("blobs/sha256").join(digest.hex());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        let file = File::from(opened.map_err(|e| match e {
            rustix::io::Errno::NOENT => Status::not_found(format!("content {digest}: not found")),
            other => Status::unknown(format!("{}: {other}", path.display())),
        })?);
        let stat = rustix::fs::fstat(&file).map_err(|e| Status::unknown(e.to_string()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Blob { file, size: stat.st_size.try_into().unwrap_or(0) }),
            _ => Err(Status::unknown(format!("`{}` is no regular file", path.display()))),
        }
    }
}

impl Blob {
    /// Sends `size` bytes from `offset` on; a size of 0 means the rest.
    fn send(mut self, offset: u64, size: u64) -> Messages<ReadContentResponse> {
        let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
        let rest = self.size.saturating_sub(offset);
        let mut left = if size == 0 { rest } else { size.min(rest) };
        tokio::task::spawn_blocking(move || {
            let mut at = offset;
            let mut next = || -> std::io::Result<Option<ReadContentResponse>> {
                if at == offset {
                    self.file.seek(SeekFrom::Start(offset))?;
                }
                let mut data = Vec::new();
                self.file.by_ref().take(left.min(CHUNK as u64)).read_to_end(&mut data)?;
                if data.is_empty() {
                    return Ok(None);
                }
                let message = ReadContentResponse { offset: at as i64, data: data.into() };
                at += message.data.len() as u64;
                left -= message.data.len() as u64;
                Ok(Some(message))
            };
            loop {
                let message = match next() {
                    Ok(Some(message)) => Ok(message),
                    Ok(None) => return,
                    Err(e) => Err(Status::unknown(e.to_string())),
                };
                let failed = message.is_err();
                // Nobody takes more when the daemon has hung up.
                if tx.blocking_send(message).is_err() || failed {
                    return;
                }
            }
        });
        ReceiverStream::new(rx).boxed()
    }
}

fn read_only<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("an OCI layout can only be read"))
}

#[tonic::async_trait]
impl Content for Stores {
    type ListStream = Messages<ListContentResponse>;
    type ReadStream = Messages<ReadContentResponse>;
    type WriteStream = Messages<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let blob = self.open(request.metadata(), &request.get_ref().digest)?;
        let digest = request.into_inner().digest;
        let info = Info { digest, size: blob.size as i64, ..Info::default() };
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let ReadContentRequest { digest, offset, size } = request.get_ref();
        let negative = |_| Status::invalid_argument("offset and size cannot be negative");
        let offset = u64::try_from(*offset).map_err(negative)?;
        let size = u64::try_from(*size).map_err(negative)?;
        Ok(Response::new(self.open(request.metadata(), digest)?.send(offset, size)))
    }

    async fn list(&self, _: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        read_only()
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        read_only()
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        read_only()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        read_only()
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        read_only()
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        match self.store(request.metadata())? {
            (store, true) => Ok(Response::new(write::receive(store.to_owned(), request.into_inner()))),
            (_, false) => read_only(),
        }
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        read_only()
    }
}
