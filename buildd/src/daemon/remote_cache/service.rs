//! Services that keep caches without a registry's protocol: a config that describes its layers itself, and blobs by digest.

mod actions;
mod attrs;
mod objects;

use std::pin::Pin;

use cache::objects::ObjectError;
use cache::oci::Descriptor;
use cache::remote::{CacheConfig, ConfigError};
use tokio::io::AsyncRead;

pub(in crate::daemon) use actions::{ActionsCache, ActionsEntries, ActionsError, ActionsStore};
pub(in crate::daemon) use attrs::{Attrs, WrongAttr};
pub(in crate::daemon) use objects::{ObjectCache, ObjectStore, azure_container, google_bucket, s3_bucket};

/// A cache at a service, as it was asked for. Two are equal where all that was asked is, secrets too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum CacheService {
    /// In an object store.
    Objects(ObjectCache),
    /// At GitHub's cache service.
    Actions(ActionsCache),
}

/// A service whose cache is read or written.
#[derive(Debug)]
pub(in crate::daemon) enum ServiceStore {
    /// An object store.
    Objects(ObjectStore),
    /// GitHub's cache service.
    Actions(ActionsStore),
}

/// A service does not do what is asked of it.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum ServiceError {
    /// An object store.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// GitHub's cache service.
    #[error(transparent)]
    Actions(#[from] ActionsError),
    /// A config that means nothing.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A blob on its way; its digest is for the reader to verify.
pub(in crate::daemon) type Blob = Pin<Box<dyn AsyncRead + Send>>;

impl CacheService {
    /// The service that a type's name stands for; `None` for one that is none. What `attrs` do not say, `env` may, which is the
    /// daemon's environment.
    ///
    /// # Errors
    /// What is missing or malformed.
    pub(super) fn read(
        kind: &str,
        attrs: &std::collections::BTreeMap<String, String>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Result<Self, WrongAttr>> {
        let attrs = Attrs { attrs, env };
        match kind {
            "s3" => Some(ObjectCache::s3(&attrs).map(Self::Objects)),
            "azblob" => Some(ObjectCache::azblob(&attrs).map(Self::Objects)),
            "gha" => Some(ActionsCache::read(&attrs).map(Self::Actions)),
            _ => None,
        }
    }

    /// What it is called where its cache is read.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Objects(cache) => cache.name(),
            Self::Actions(cache) => cache.name(),
        }
    }

    /// What the step of an export is called, in BuildKit's words.
    pub(super) fn export_name(&self) -> &'static str {
        match self {
            Self::Objects(cache) => cache.export_name(),
            Self::Actions(_) => "exporting to GitHub Actions Cache",
        }
    }

    /// How many layers are written at a time.
    pub(super) fn parallel(&self) -> usize {
        match self {
            Self::Objects(cache) => cache.parallel,
            Self::Actions(_) => actions::PARALLEL,
        }
    }

    /// Gets ready to talk to it.
    ///
    /// # Errors
    /// A configuration that cannot be.
    pub(super) fn open(&self) -> Result<ServiceStore, ServiceError> {
        match self {
            Self::Objects(cache) => Ok(ServiceStore::Objects(cache.open()?)),
            Self::Actions(cache) => Ok(ServiceStore::Actions(cache.open()?)),
        }
    }
}

impl ServiceStore {
    /// The configs of the caches that are there.
    ///
    /// # Errors
    /// Why they cannot be had; a config that means nothing.
    pub(super) async fn configs(&self) -> Result<Vec<CacheConfig>, ServiceError> {
        match self {
            Self::Objects(store) => store.configs().await,
            Self::Actions(store) => store.configs().await,
        }
    }

    /// Makes what a cache is written into, where that is not there; what must not be written fails here.
    ///
    /// # Errors
    /// Why it cannot be made or written.
    pub(super) async fn prepare(&self) -> Result<(), ServiceError> {
        match self {
            Self::Objects(store) => store.prepare().await,
            Self::Actions(store) => store.prepare(),
        }
    }

    /// Whether a blob is there; then it stays for a while.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(super) async fn has(&self, blob: &Descriptor) -> Result<bool, ServiceError> {
        match self {
            Self::Objects(store) => store.has(blob).await,
            Self::Actions(store) => store.has(blob).await,
        }
    }

    /// Writes a blob that was not there.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) async fn put(&self, blob: &Descriptor, file: tokio::fs::File) -> Result<(), ServiceError> {
        match self {
            Self::Objects(store) => store.put(blob, file).await,
            Self::Actions(store) => store.put(blob, file).await,
        }
    }

    /// Writes the config, after all the blobs that it names.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) async fn finish(&self, config: &CacheConfig) -> Result<(), ServiceError> {
        let json = serde_json::to_vec(config).map_err(ConfigError::from)?;
        match self {
            Self::Objects(store) => store.finish(&json).await,
            Self::Actions(store) => store.finish(&json).await,
        }
    }

    /// Starts to read a blob.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(in crate::daemon) async fn blob(&self, blob: &Descriptor) -> Result<Blob, ServiceError> {
        match self {
            Self::Objects(store) => store.blob(blob).await,
            Self::Actions(store) => store.blob(blob).await,
        }
    }
}

/// A config as it came.
fn config(json: &[u8]) -> Result<CacheConfig, ServiceError> {
    Ok(serde_json::from_slice(json).map_err(ConfigError::from)?)
}
