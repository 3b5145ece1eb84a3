//! Where shared records and blobs are.

mod sealed;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache::keyed::SharedBlob;
use cache::objects::{ObjectError, ObjectStat, Objects};
use cache::oci::{Descriptor, Document, Manifest, Reference};
use cache::registry::{self, PushSource};
use futures_util::TryStreamExt as _;
use solver::Digest;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::OnceCell;
use tokio_util::io::StreamReader;

use super::directory::{Directory, DirectoryError};
use crate::daemon::remote_cache::{ActionsEntries, ActionsError, Blob};

pub(super) use sealed::{How, account_name, record_name, snapshot_name};
pub(super) use upkeep::{Listed, NOTE, is_old, limit_name};

/// Before the names of all that lies in an object store or a directory.
pub(super) const FORMAT: &str = "rbuild-1";
/// The type of a record's manifest at a registry.
const ARTIFACT: &str = "application/vnd.rbuild.record.v1+json";
/// The annotation that holds the record there.
const ANNOTATION: &str = "dev.rbuild.record";
/// The config of an artifact that has none (OCI image spec, "Guidance for an Empty Descriptor").
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");

/// A store that is talked to.
#[derive(Debug)]
pub(super) enum Home {
    /// A bucket or container, and what precedes the names there: empty, or something with a slash at its end.
    Objects(Objects, String),
    /// A repository.
    Registry(Repository),
    /// A directory of the client.
    Directory(Directory),
    /// Entries at GitHub's cache service, under the same names. Nothing there can be replaced, made young or removed.
    Actions(ActionsEntries),
}

/// A repository at a registry.
#[derive(Debug)]
pub(super) struct Repository {
    client: registry::Client,
    reference: Reference,
    /// The config that all records have is there.
    config: OnceCell<()>,
}

impl Repository {
    pub(super) fn new(client: registry::Client, reference: Reference) -> Self {
        Self { client, reference, config: OnceCell::new() }
    }

    /// Writes something sealed, as a manifest that names its blobs, so that the registry keeps them.
    async fn put<'a>(
        &self,
        tag: &Reference,
        blobs: impl IntoIterator<Item = &'a SharedBlob>,
        sealed: Vec<u8>,
    ) -> Result<(), HomeError> {
        let config = Descriptor::of(EMPTY.0, EMPTY.1);
        let empty = Arc::new(Bytes::from_static(EMPTY.1));
        let push = || async {
            let pushed = self.client.push_blob(&self.reference, &config, None, empty).await;
            pushed.map(drop)
        };
        self.config.get_or_try_init(push).await?;
        let mut layers: Vec<Descriptor> = blobs.into_iter().map(descriptor).collect();
        // An artifact has at least one layer.
        if layers.is_empty() {
            layers.push(config.clone());
        }
        let mut manifest = Manifest::new(config, layers);
        manifest.artifact_type = Some(ARTIFACT.to_owned());
        let text = String::from_utf8(sealed).unwrap_or_default();
        manifest.annotations.insert(ANNOTATION.to_owned(), text);
        let kind = manifest.media_type.clone().unwrap_or_default();
        self.client.push_manifest(tag, &kind, &manifest.to_json()).await?;
        Ok(())
    }

    /// What lies sealed under a tag; `None` where there is none, nothing where it is something else.
    async fn get(&self, tag: &Reference) -> Result<Option<Vec<u8>>, HomeError> {
        let document = self.client.manifest_of(tag).await?;
        Ok(document.map(|document| match document {
            Document::Manifest(mut manifest) => {
                manifest.annotations.remove(ANNOTATION).unwrap_or_default().into_bytes()
            }
            Document::Index(_) => Vec::new(),
        }))
    }
}

/// A store does not do what is asked of it.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::daemon) enum HomeError {
    /// An object store.
    #[error(transparent)]
    Objects(Arc<ObjectError>),
    /// A registry.
    #[error(transparent)]
    Registry(Arc<registry::Error>),
    /// A directory of the client.
    #[error(transparent)]
    Directory(Arc<DirectoryError>),
    /// GitHub's cache service.
    #[error(transparent)]
    Actions(Arc<ActionsError>),
    /// A name that cannot be.
    #[error(transparent)]
    Name(Arc<cache::oci::Error>),
    /// It did not answer.
    #[error("no answer for {} s", .0.as_secs())]
    Silent(Duration),
    /// The client whose directory it is has gone.
    #[error("the client that has the directory is gone")]
    NoClient,
    /// The client is another program.
    #[error("a directory (file://) is a cache for rbuild's own client only: this one does not offer it")]
    ForeignClient,
}

impl HomeError {
    /// Whether it may be one thing in the store that cannot be had, and not the store.
    pub(super) fn is_of_one(&self) -> bool {
        match self {
            Self::Objects(error) => matches!(**error, ObjectError::Denied { .. }),
            Self::Registry(error) => matches!(
                **error,
                registry::Error::Document { .. }
                    | registry::Error::Protocol { .. }
                    | registry::Error::DigestMismatch { .. }
                    | registry::Error::TooLarge { .. }
            ),
            Self::Directory(error) => error.is_of_one(),
            Self::Actions(_) | Self::Name(_) | Self::Silent(_) | Self::NoClient | Self::ForeignClient => {
                false
            }
        }
    }
}

impl From<ObjectError> for HomeError {
    fn from(error: ObjectError) -> Self {
        Self::Objects(Arc::new(error))
    }
}

impl From<registry::Error> for HomeError {
    fn from(error: registry::Error) -> Self {
        Self::Registry(Arc::new(error))
    }
}

impl From<DirectoryError> for HomeError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(Arc::new(error))
    }
}

impl From<ActionsError> for HomeError {
    fn from(error: ActionsError) -> Self {
        Self::Actions(Arc::new(error))
    }
}

impl From<cache::oci::Error> for HomeError {
    fn from(error: cache::oci::Error) -> Self {
        Self::Name(Arc::new(error))
    }
}

/// The name of a blob.
pub(super) fn blob_name(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{FORMAT}/blobs/sha256/{}/{hex}", &hex[..2])
}

impl Home {
    /// Gets ready to be written.
    pub(super) async fn prepare(&self) -> Result<(), HomeError> {
        match self {
            Self::Objects(objects, _) => Ok(objects.prepare().await?),
            Self::Actions(entries) => Ok(entries.writable()?),
            Self::Registry(..) | Self::Directory(..) => Ok(()),
        }
    }

    /// Whether a blob is there in its whole length, and then when it was last written, where the store tells.
    pub(super) async fn stat(&self, blob: &SharedBlob) -> Result<Option<ObjectStat>, HomeError> {
        let found = match self {
            Self::Objects(objects, prefix) => {
                objects.stat(&format!("{prefix}{}", blob_name(&blob.digest))).await?
            }
            Self::Registry(repository) => {
                let there = repository.client.blob_exists(&repository.reference, &blob.digest).await?;
                there.then_some(ObjectStat { size: blob.size, modified: None })
            }
            Self::Directory(directory) => directory.stat(&blob_name(&blob.digest)).await?,
            Self::Actions(entries) => {
                let there = entries.has(&blob_name(&blob.digest)).await?;
                there.then_some(ObjectStat { size: blob.size, modified: None })
            }
        };
        Ok(found.filter(|stat| stat.size == blob.size))
    }

    /// Writes a blob, in the place of what is there: whole, that is the same.
    pub(super) async fn put(&self, blob: &SharedBlob, source: Arc<dyn PushSource>) -> Result<(), HomeError> {
        let name = blob_name(&blob.digest);
        match self {
            Self::Objects(objects, prefix) => {
                let name = format!("{prefix}{name}");
                Ok(objects.put_from(&name, blob.size, Opened::of(&*source).await).await?)
            }
            Self::Registry(Repository { client, reference, .. }) => {
                client.push_blob(reference, &descriptor(blob), None, source).await?;
                Ok(())
            }
            Self::Directory(directory) => {
                directory.put(&name, How::Replace, blob.size, Opened::of(&*source).await).await?;
                Ok(())
            }
            // What is damaged there stays so.
            Self::Actions(entries) => {
                entries.put(&name, blob.size, Opened::of(&*source).await).await?;
                Ok(())
            }
        }
    }

    /// Starts to read a blob; its digest is for the reader to verify.
    pub(super) async fn blob(&self, blob: &SharedBlob) -> Result<Blob, HomeError> {
        let bytes: Blob = match self {
            Self::Objects(objects, prefix) => {
                let name = format!("{prefix}{}", blob_name(&blob.digest));
                let stream = objects.stream(&name, Some(0..blob.size)).await?;
                Box::pin(StreamReader::new(stream.map_err(std::io::Error::other)))
            }
            Self::Registry(Repository { client, reference, .. }) => {
                let (reader, _) = client.fetch_blob(reference, &descriptor(blob))?.into_reader();
                Box::pin(reader)
            }
            Self::Directory(directory) => Box::pin(directory.read(&blob_name(&blob.digest)).await?),
            Self::Actions(entries) => entries.read(&blob_name(&blob.digest), blob.size).await?,
        };
        // A byte too many is enough for the digest to be another one.
        Ok(Box::pin(bytes.take(blob.size.saturating_add(1))))
    }

    /// All of a small blob, also of one that was written since the build began; its digest is for the reader to verify.
    pub(super) async fn whole_new(&self, blob: &SharedBlob) -> Result<Vec<u8>, HomeError> {
        if let Self::Actions(entries) = self {
            let found = entries.get_new(&blob_name(&blob.digest), blob.size).await?;
            return Ok(found.unwrap_or_default());
        }
        let mut bytes = Vec::new();
        // What broke off is not what its digest says.
        let _ = self.blob(blob).await?.read_to_end(&mut bytes).await;
        Ok(bytes)
    }
}

fn descriptor(blob: &SharedBlob) -> Descriptor {
    Descriptor::new(blob.media_type.clone(), blob.digest, blob.size)
}

/// What a source gives; its failure to open comes with the first read.
enum Opened {
    Open(std::pin::Pin<Box<dyn AsyncRead + Send>>),
    Failed(Option<std::io::Error>),
}

impl Opened {
    async fn of(source: &dyn PushSource) -> Self {
        match source.open().await {
            Ok(open) => Self::Open(open),
            Err(error) => Self::Failed(Some(error)),
        }
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Open(open) => open.as_mut().poll_read(cx, buf),
            Self::Failed(error) => {
                let error = error.take().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
                std::task::Poll::Ready(Err(error))
            }
        }
    }
}
