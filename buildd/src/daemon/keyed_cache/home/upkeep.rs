//! Keeping what is used, and removing what is not.

use std::time::{Duration, SystemTime};

use cache::keyed::Scope;
use cache::objects::ObjectStat;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{FORMAT, Home, HomeError, How};
use crate::daemon::keyed_cache::directory::DirectoryError;
use crate::session::SessionError;

/// Something that lies in a store, by its name without what precedes all names.
#[derive(Debug)]
pub(in crate::daemon::keyed_cache) struct Listed {
    pub(in crate::daemon::keyed_cache) name: String,
    pub(in crate::daemon::keyed_cache) stat: ObjectStat,
}

/// What sweeps leave behind: registries and GitHub remove by rules of their own.
pub(in crate::daemon::keyed_cache) const NOTE: &str = "rbuild-1/sweep.json";

/// The name of what a scope's writers say of it.
pub(in crate::daemon::keyed_cache) fn limit_name(scope: &Scope) -> String {
    format!("{FORMAT}/limits/{scope}")
}

impl Home {
    /// Makes a blob or a record young, if it is older than `limit`, so that it does not expire. Registries have rules of their own.
    /// Whether it is there.
    pub(in crate::daemon::keyed_cache) async fn refresh(
        &self,
        name: &str,
        limit: Duration,
    ) -> Result<bool, HomeError> {
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

    /// Whether what lies there can be listed and removed.
    pub(in crate::daemon::keyed_cache) fn can_sweep(&self) -> bool {
        !matches!(self, Self::Registry(..) | Self::Actions(..))
    }

    /// Whether what lies there can be written over.
    pub(in crate::daemon::keyed_cache) fn can_replace(&self) -> bool {
        !matches!(self, Self::Actions(..))
    }

    /// Writes something small that is for sweeps, in the place of what is there.
    pub(in crate::daemon::keyed_cache) async fn put_whole(
        &self,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<(), HomeError> {
        match self {
            Self::Objects(objects, prefix) => objects.put(&format!("{prefix}{name}"), bytes).await?,
            Self::Registry(..) | Self::Actions(..) => {}
            Self::Directory(directory) => {
                directory.put(name, How::Replace, bytes.len() as u64, bytes.as_slice()).await?;
            }
        }
        Ok(())
    }

    /// The bytes of something small; `None` where there is no such thing.
    pub(in crate::daemon::keyed_cache) async fn read_whole(
        &self,
        name: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, HomeError> {
        match self {
            Self::Objects(objects, prefix) => Ok(objects.get(&format!("{prefix}{name}"), limit).await?),
            Self::Registry(..) => Ok(None),
            Self::Directory(directory) => Ok(directory.get(name, limit).await?),
            Self::Actions(entries) => Ok(entries.get(name, limit).await?),
        }
    }

    /// What the store tells of something.
    pub(in crate::daemon::keyed_cache) async fn stat_of(
        &self,
        name: &str,
    ) -> Result<Option<ObjectStat>, HomeError> {
        match self {
            Self::Objects(objects, prefix) => Ok(objects.stat(&format!("{prefix}{name}")).await?),
            Self::Registry(..) | Self::Actions(..) => Ok(None),
            Self::Directory(directory) => Ok(directory.stat(name).await?),
        }
    }

    /// All of one sort, `records`, `mounts`, `accounts`, `limits` or `blobs`, or what lies below something of it.
    pub(in crate::daemon::keyed_cache) async fn list(
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
    pub(in crate::daemon::keyed_cache) async fn remove(&self, name: &str) -> Result<(), HomeError> {
        match self {
            Self::Objects(objects, prefix) => objects.remove(&format!("{prefix}{name}")).await?,
            Self::Registry(..) | Self::Actions(..) => {}
            Self::Directory(directory) => directory.remove(name).await?,
        }
        Ok(())
    }
}

/// Whether something was last written longer than `limit` ago.
pub(in crate::daemon::keyed_cache) fn is_old(stat: &ObjectStat, limit: Duration) -> bool {
    let age = stat.modified.and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_some_and(|age| age > limit)
}
