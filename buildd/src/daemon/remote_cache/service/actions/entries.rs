//! Entries at GitHub's cache service under names of their owner's choice.

use std::collections::HashSet;

use tokio::io::AsyncRead;
use tokio::sync::OnceCell;

use super::api::{Api, Entry};
use super::token::Token;
use super::{ActionsCache, ActionsError};
use crate::daemon::remote_cache::service::Blob;

/// Entries by name: written once, never changed and never removed by anybody but GitHub.
#[derive(Debug)]
pub(in crate::daemon) struct ActionsEntries {
    cache: ActionsCache,
    token: Token,
    api: Api,
    /// What precedes all names.
    prefix: &'static str,
    /// The names of all entries when the build began, where they can be listed.
    known: OnceCell<Option<HashSet<String>>>,
}

impl ActionsEntries {
    /// The entries whose names begin with `prefix`.
    ///
    /// # Errors
    /// A token that cannot be.
    pub(in crate::daemon) fn open(cache: &ActionsCache, prefix: &'static str) -> Result<Self, ActionsError> {
        let (token, api) = cache.enter()?;
        Ok(Self { cache: cache.clone(), token, api, prefix, known: OnceCell::new() })
    }

    /// Whether entries may be written.
    ///
    /// # Errors
    /// They may not.
    pub(in crate::daemon) fn writable(&self) -> Result<(), ActionsError> {
        self.token.writable().map(drop)
    }

    /// Whether an entry is there.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(in crate::daemon) async fn has(&self, name: &str) -> Result<bool, ActionsError> {
        Ok(self.find(name).await?.is_some())
    }

    /// An entry's bytes; `None` where there is none.
    ///
    /// # Errors
    /// [`ActionsError::TooLarge`] for more than `limit` bytes; why it cannot be had.
    pub(in crate::daemon) async fn get(
        &self,
        name: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, ActionsError> {
        match self.find(name).await? {
            Some(entry) => self.api.bytes(entry, limit).await.map(Some),
            None => Ok(None),
        }
    }

    /// The name of the newest entry whose name begins so, also one that was written since the build began.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(in crate::daemon) async fn newest(&self, beginning: &str) -> Result<Option<String>, ActionsError> {
        let found = self.api.find(beginning).await?;
        Ok(found.map(|entry| entry.key().to_owned()).filter(|key| key.starts_with(beginning)))
    }

    /// As [`Self::get`], of an entry that may have been written since the build began.
    ///
    /// # Errors
    /// As of [`Self::get`].
    pub(in crate::daemon) async fn get_new(
        &self,
        name: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, ActionsError> {
        match self.api.find(name).await?.filter(|entry| entry.is(name)) {
            Some(entry) => self.api.bytes(entry, limit).await.map(Some),
            None => Ok(None),
        }
    }

    /// Starts to read an entry of `size` bytes.
    ///
    /// # Errors
    /// There is none, or why it cannot be had.
    pub(in crate::daemon) async fn read(&self, name: &str, size: u64) -> Result<Blob, ActionsError> {
        let found = self.find(name).await?;
        self.api.read(found.ok_or_else(|| ActionsError::Missing(name.to_owned()))?, size).await
    }

    /// Writes an entry; whether it was written, or one is there or is being written.
    ///
    /// # Errors
    /// What cannot be read; why the service does not take it.
    pub(in crate::daemon) async fn put(
        &self,
        name: &str,
        size: u64,
        mut from: impl AsyncRead + Send + Unpin,
    ) -> Result<bool, ActionsError> {
        self.api.put(name, size, &mut from).await
    }

    async fn find(&self, name: &str) -> Result<Option<Entry>, ActionsError> {
        let list = || self.cache.list(&self.api, &self.token, self.prefix);
        if let Some(known) = self.known.get_or_init(list).await
            && !known.contains(name)
        {
            return Ok(None);
        }
        // The service looks for what begins so.
        Ok(self.api.find(name).await?.filter(|entry| entry.is(name)))
    }
}
