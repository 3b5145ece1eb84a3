//! What lies sealed in a store: records, snapshots of mounts, accounts of projects.

use cache::keyed::{MountSnapshot, RECORD_LIMIT, Scope, SharedAccount, SharedRecord, SnapshotName};
use cache::objects::ObjectError;
use cache::oci::Reference;
use futures_util::TryStreamExt as _;
use solver::{Digest, Key};

use super::{FORMAT, Home, HomeError, Listed};
use crate::daemon::remote_cache::ActionsError;
use crate::daemon::traces::random;

/// How something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon::keyed_cache) enum How {
    /// What is there already stays.
    IfAbsent,
    /// In the place of what is there, which is no good.
    Replace,
}

/// The name of a record.
pub(in crate::daemon::keyed_cache) fn record_name(scope: &Scope, key: &Key) -> String {
    let hex = key.0.hex();
    format!("{FORMAT}/records/{scope}/{}/{hex}", &hex[..2])
}

/// Where the snapshots of a mount are, below what precedes all names.
fn mount_place(scope: &Scope, mount: &Digest) -> String {
    let hex = mount.hex();
    format!("mounts/{scope}/{}/{hex}", &hex[..2])
}

/// The name of a snapshot.
pub(in crate::daemon::keyed_cache) fn snapshot_name(
    scope: &Scope,
    mount: &Digest,
    name: &SnapshotName,
) -> String {
    format!("{FORMAT}/{}/{name}", mount_place(scope, mount))
}

/// The name of a project's account.
pub(in crate::daemon::keyed_cache) fn account_name(scope: &Scope, project: &Digest) -> String {
    let hex = project.hex();
    format!("{FORMAT}/accounts/{scope}/{}/{hex}", &hex[..2])
}

impl Home {
    /// The bytes of a record; `None` where there is none.
    pub(in crate::daemon::keyed_cache) async fn record(
        &self,
        scope: &Scope,
        key: &Key,
    ) -> Result<Option<Vec<u8>>, HomeError> {
        match self {
            Self::Registry(repository) => repository.get(&tag(&repository.reference, scope, key)?).await,
            _ => self.sealed(&record_name(scope, key)).await,
        }
    }

    /// Writes a record, after the blobs that it names; whether it was written.
    pub(in crate::daemon::keyed_cache) async fn put_record(
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
    pub(in crate::daemon::keyed_cache) async fn snapshots(
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
    pub(in crate::daemon::keyed_cache) async fn snapshot(
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
    pub(in crate::daemon::keyed_cache) async fn put_snapshot(
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
    pub(in crate::daemon::keyed_cache) async fn account(
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
    pub(in crate::daemon::keyed_cache) async fn put_account(
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
                        let put = objects.put_if_absent(&name, sealed.len() as u64, sealed.as_slice()).await;
                        match put {
                            // Not all that speak S3 know conditions. A record is as good as another.
                            Err(ObjectError::Failed { .. }) if objects.stat(&name).await?.is_none() => {
                                Ok(objects.put(&name, sealed).await.map(|()| true)?)
                            }
                            put => Ok(put?),
                        }
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
