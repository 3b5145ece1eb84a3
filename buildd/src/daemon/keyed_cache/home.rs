//! Where shared records and blobs are.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cache::keyed::{
    MountSnapshot, RECORD_LIMIT, Scope, SharedAccount, SharedBlob, SharedRecord, SnapshotName,
};
use cache::objects::{ObjectError, ObjectStat, Objects};
use cache::oci::{Descriptor, Document, Manifest, Reference};
use cache::registry::{self, PushSource};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use solver::{Digest, Key};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::OnceCell;
use tokio_util::io::StreamReader;

use super::directory::{Directory, DirectoryError};
use crate::daemon::remote_cache::{ActionsEntries, ActionsError, Blob};
use crate::daemon::traces::random;
use crate::session::SessionError;

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
    /// The client whose directory it is has gone.
    #[error("the client that has the directory is gone")]
    NoClient,
    /// The client is another program.
    #[error("a directory (file://) is a cache for rbuild's own client only: this one does not offer it")]
    ForeignClient,
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

/// Something that lies in a store, by its name without what precedes all names.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) stat: ObjectStat,
}

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// What is there already stays.
    IfAbsent,
    /// In the place of what is there, which is no good.
    Replace,
}

/// The name of a record.
pub(super) fn record_name(scope: &Scope, key: &Key) -> String {
    let hex = key.0.hex();
    format!("{FORMAT}/records/{scope}/{}/{hex}", &hex[..2])
}

/// Where the snapshots of a mount are, below what precedes all names.
fn mount_place(scope: &Scope, mount: &Digest) -> String {
    let hex = mount.hex();
    format!("mounts/{scope}/{}/{hex}", &hex[..2])
}

/// The name of a snapshot.
pub(super) fn snapshot_name(scope: &Scope, mount: &Digest, name: &SnapshotName) -> String {
    format!("{FORMAT}/{}/{name}", mount_place(scope, mount))
}

/// The name of a project's account.
pub(super) fn account_name(scope: &Scope, project: &Digest) -> String {
    let hex = project.hex();
    format!("{FORMAT}/accounts/{scope}/{}/{hex}", &hex[..2])
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

    /// The bytes of a record; `None` where there is none.
    pub(super) async fn record(&self, scope: &Scope, key: &Key) -> Result<Option<Vec<u8>>, HomeError> {
        match self {
            Self::Registry(repository) => repository.get(&tag(&repository.reference, scope, key)?).await,
            _ => self.sealed(&record_name(scope, key)).await,
        }
    }

    /// Writes a record, after the blobs that it names; whether it was written.
    pub(super) async fn put_record(
        &self,
        scope: &Scope,
        record: &SharedRecord,
        sealed: Vec<u8>,
        how: How,
    ) -> Result<bool, HomeError> {
        match self {
            // A registry cannot be asked to keep what is there. Whoever is first or last: a record is as good as another.
            Self::Registry(repository) => {
                let tag = tag(&repository.reference, scope, &record.key)?;
                repository.put(&tag, record.blobs(), sealed).await.map(|()| true)
            }
            _ => self.put_sealed(&record_name(scope, &record.key), sealed, how).await,
        }
    }

    /// The names of the snapshots of a mount, in no order; at GitHub only the newest one.
    pub(super) async fn snapshots(
        &self,
        scope: &Scope,
        mount: &Digest,
    ) -> Result<Vec<SnapshotName>, HomeError> {
        let names: Vec<String> = match self {
            Self::Registry(repository) => {
                let prefix = snapshot_tag(scope, mount, "");
                let tags = repository.client.tags(&repository.reference, &prefix).await?;
                tags.into_iter().map(|tag| tag[prefix.len()..].to_owned()).collect()
            }
            // Of entries whose names begin alike the service tells the newest.
            Self::Actions(entries) => {
                let below = format!("{FORMAT}/{}/", mount_place(scope, mount));
                let newest = entries.newest(&below).await?;
                newest.and_then(|name| Some(name.strip_prefix(&below)?.to_owned())).into_iter().collect()
            }
            _ => {
                let listed = self.list(&mount_place(scope, mount)).await?;
                let name = |listed: Listed| listed.name.rsplit('/').next().map(str::to_owned);
                listed.try_filter_map(async |listed| Ok(name(listed))).try_collect().await?
            }
        };
        // What is called otherwise is somebody else's.
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The bytes of a snapshot; `None` where there is none.
    pub(super) async fn snapshot(
        &self,
        scope: &Scope,
        mount: &Digest,
        name: &SnapshotName,
    ) -> Result<Option<Vec<u8>>, HomeError> {
        match self {
            Self::Registry(repository) => {
                let tag = repository.reference.with_tag(&snapshot_tag(scope, mount, name.as_str()))?;
                repository.get(&tag).await
            }
            Self::Actions(entries) => {
                Ok(entries.get_new(&snapshot_name(scope, mount, name), RECORD_LIMIT).await?)
            }
            _ => self.sealed(&snapshot_name(scope, mount, name)).await,
        }
    }

    /// Writes a snapshot, after the blobs that it names.
    pub(super) async fn put_snapshot(
        &self,
        scope: &Scope,
        snapshot: &MountSnapshot,
        sealed: Vec<u8>,
    ) -> Result<(), HomeError> {
        let MountSnapshot { mount, name, .. } = snapshot;
        match self {
            Self::Registry(repository) => {
                let tag = repository.reference.with_tag(&snapshot_tag(scope, mount, name.as_str()))?;
                repository.put(&tag, snapshot.blobs(), sealed).await
            }
            // Nobody else has this name.
            _ => self.put_sealed(&snapshot_name(scope, mount, name), sealed, How::IfAbsent).await.map(drop),
        }
    }

    /// The bytes of a project's account; `None` where there is none.
    pub(super) async fn account(
        &self,
        scope: &Scope,
        project: &Digest,
    ) -> Result<Option<Vec<u8>>, HomeError> {
        let name = account_name(scope, project);
        match self {
            Self::Registry(repository) => {
                repository.get(&account_tag(&repository.reference, scope, project)?).await
            }
            Self::Actions(entries) => match entries.newest(&format!("{name}/")).await? {
                Some(newest) => Ok(entries.get_new(&newest, RECORD_LIMIT).await?),
                None => Ok(None),
            },
            _ => self.sealed(&name).await,
        }
    }

    /// Writes an account in the place of the one before, after the blob that it names.
    pub(super) async fn put_account(
        &self,
        scope: &Scope,
        account: &SharedAccount,
        sealed: Vec<u8>,
    ) -> Result<(), HomeError> {
        let name = account_name(scope, &account.project);
        match self {
            Self::Registry(repository) => {
                let tag = account_tag(&repository.reference, scope, &account.project)?;
                repository.put(&tag, [&account.body], sealed).await
            }
            // Nothing there can be replaced: of entries whose names begin alike the newest counts.
            Self::Actions(_) => {
                let own = SnapshotName::new(account.written_ms, None, u32::from_ne_bytes(random()));
                self.put_sealed(&format!("{name}/{own}"), sealed, How::IfAbsent).await.map(drop)
            }
            _ => self.put_sealed(&name, sealed, How::Replace).await.map(drop),
        }
    }

    /// Something sealed; nothing where it is too large to be that.
    async fn sealed(&self, name: &str) -> Result<Option<Vec<u8>>, HomeError> {
        match self.read_whole(name, RECORD_LIMIT).await {
            // Nobody wrote that sealed.
            Err(HomeError::Objects(error)) if matches!(*error, ObjectError::TooLarge { .. }) => {
                Ok(Some(Vec::new()))
            }
            Err(HomeError::Actions(error)) if matches!(*error, ActionsError::TooLarge { .. }) => {
                Ok(Some(Vec::new()))
            }
            read => read,
        }
    }

    async fn put_sealed(&self, name: &str, sealed: Vec<u8>, how: How) -> Result<bool, HomeError> {
        match self {
            Self::Objects(objects, prefix) => {
                let name = format!("{prefix}{name}");
                match how {
                    How::IfAbsent => {
                        Ok(objects.put_if_absent(&name, sealed.len() as u64, sealed.as_slice()).await?)
                    }
                    How::Replace => Ok(objects.put(&name, sealed).await.map(|()| true)?),
                }
            }
            Self::Registry(..) => Ok(false),
            Self::Directory(directory) => {
                Ok(directory.put(name, how, sealed.len() as u64, sealed.as_slice()).await?)
            }
            // How it is written makes no difference: nothing there can be replaced.
            Self::Actions(entries) => Ok(entries.put(name, sealed.len() as u64, sealed.as_slice()).await?),
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

    /// Makes a blob or a record young, if it is older than `limit`, so that it does not expire. Registries have rules of their own.
    /// Whether it is there.
    pub(super) async fn refresh(&self, name: &str, limit: Duration) -> Result<bool, HomeError> {
        if !self.can_sweep() {
            return Ok(true);
        }
        let Some(stat) = self.stat_of(name).await? else { return Ok(false) };
        if is_old(&stat, limit) {
            match self {
                Self::Objects(objects, prefix) => {
                    objects.touch(&format!("{prefix}{name}"), stat.size).await?
                }
                Self::Registry(..) | Self::Actions(..) => {}
                Self::Directory(directory) => directory.touch(name).await?,
            }
        }
        Ok(true)
    }
}

/// What sweeps leave behind: registries and GitHub remove by rules of their own.
const NOTE: &str = "sweep.json";

impl Home {
    /// Whether what lies there can be listed and removed.
    pub(super) fn can_sweep(&self) -> bool {
        !matches!(self, Self::Registry(..) | Self::Actions(..))
    }

    /// Whether what lies there can be written over.
    pub(super) fn can_replace(&self) -> bool {
        !matches!(self, Self::Actions(..))
    }

    /// What the last sweep left.
    pub(super) async fn note(&self, limit: u64) -> Result<Option<Vec<u8>>, HomeError> {
        if !self.can_sweep() {
            return Ok(None);
        }
        self.read_whole(&format!("{FORMAT}/{NOTE}"), limit).await
    }

    /// Leaves something for the next sweep.
    pub(super) async fn leave_note(&self, note: Vec<u8>) -> Result<(), HomeError> {
        let name = format!("{FORMAT}/{NOTE}");
        match self {
            Self::Objects(objects, prefix) => objects.put(&format!("{prefix}{name}"), note).await?,
            Self::Registry(..) | Self::Actions(..) => {}
            Self::Directory(directory) => {
                directory.put(&name, How::Replace, note.len() as u64, note.as_slice()).await?;
            }
        }
        Ok(())
    }

    /// The bytes of something small; `None` where there is no such thing.
    pub(super) async fn read_whole(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, HomeError> {
        match self {
            Self::Objects(objects, prefix) => Ok(objects.get(&format!("{prefix}{name}"), limit).await?),
            Self::Registry(..) => Ok(None),
            Self::Directory(directory) => Ok(directory.get(name, limit).await?),
            Self::Actions(entries) => Ok(entries.get(name, limit).await?),
        }
    }

    /// What the store tells of something.
    pub(super) async fn stat_of(&self, name: &str) -> Result<Option<ObjectStat>, HomeError> {
        match self {
            Self::Objects(objects, prefix) => Ok(objects.stat(&format!("{prefix}{name}")).await?),
            Self::Registry(..) | Self::Actions(..) => Ok(None),
            Self::Directory(directory) => Ok(directory.stat(name).await?),
        }
    }

    /// All of one sort, `records`, `mounts`, `accounts` or `blobs`, or what lies below something of it.
    pub(super) async fn list(
        &self,
        sort: &str,
    ) -> Result<BoxStream<'static, Result<Listed, HomeError>>, HomeError> {
        let below = format!("{FORMAT}/{sort}/");
        Ok(match self {
            Self::Objects(objects, prefix) => {
                let listed = objects.list(&format!("{prefix}{below}")).await?;
                let prefix = prefix.clone();
                listed
                    .map_ok(move |(name, stat)| Listed {
                        name: name.strip_prefix(&prefix).unwrap_or(&name).to_owned(),
                        stat,
                    })
                    .map_err(HomeError::from)
                    .boxed()
            }
            Self::Registry(..) | Self::Actions(..) => futures_util::stream::empty().boxed(),
            Self::Directory(directory) => {
                let listed = directory.list(&below).await?;
                let listed = listed.map_ok(|(name, stat)| Listed { name, stat });
                listed.map_err(|e| DirectoryError::from(SessionError::from(e)).into()).boxed()
            }
        })
    }

    /// Removes something.
    pub(super) async fn remove(&self, name: &str) -> Result<(), HomeError> {
        match self {
            Self::Objects(objects, prefix) => objects.remove(&format!("{prefix}{name}")).await?,
            Self::Registry(..) | Self::Actions(..) => {}
            Self::Directory(directory) => directory.remove(name).await?,
        }
        Ok(())
    }
}

/// Whether something was last written longer than `limit` ago.
pub(super) fn is_old(stat: &ObjectStat, limit: Duration) -> bool {
    let age = stat.modified.and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age > limit)
}

fn descriptor(blob: &SharedBlob) -> Descriptor {
    Descriptor::new(blob.media_type.clone(), blob.digest, blob.size)
}

/// The tag of a record.
fn tag(repository: &Reference, scope: &Scope, key: &Key) -> Result<Reference, HomeError> {
    Ok(repository.with_tag(&format!("{FORMAT}-{scope}-{}", key.0.hex()))?)
}

/// The tag of an account. A tag has room for half a digest beside a long scope.
fn account_tag(repository: &Reference, scope: &Scope, project: &Digest) -> Result<Reference, HomeError> {
    Ok(repository.with_tag(&format!("{FORMAT}a-{scope}-{}", &project.hex()[..32]))?)
}

/// The tag of a snapshot, or what precedes its name. A tag has room for half a digest.
fn snapshot_tag(scope: &Scope, mount: &Digest, name: &str) -> String {
    format!("{FORMAT}m-{scope}-{}-{name}", &mount.hex()[..32])
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
