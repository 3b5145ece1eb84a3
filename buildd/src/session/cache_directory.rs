//! Calls to a directory of the client that holds a shared cache.

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use proto::rbuild::cache_directory_client::CacheDirectoryClient;
use proto::rbuild::{CacheObject, CacheObjectStat, ListedCacheObject, WriteCacheObject};
use tokio::sync::mpsc::Receiver;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::call::MAX_MESSAGE;
use super::{Session, SessionError};

fn object(store: &str, name: &str) -> CacheObject {
    CacheObject { store: store.to_owned(), name: name.to_owned() }
}

impl Session {
    fn cache_directory(&self, method: &'static str) -> Result<CacheDirectoryClient<Channel>, SessionError> {
        self.require(method)?;
        Ok(CacheDirectoryClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE))
    }

    /// Whether the client offers directories that hold shared caches.
    pub fn has_cache_directories(&self) -> bool {
        self.supports("/rbuild.v1.CacheDirectory/Stat")
    }

    /// What the client tells of an object of its directory.
    ///
    /// # Errors
    /// There is none, or the client could not look, or went away.
    pub async fn stat_cache_object(&self, store: &str, name: &str) -> Result<CacheObjectStat, SessionError> {
        let mut client = self.cache_directory("/rbuild.v1.CacheDirectory/Stat")?;
        Ok(self.live(client.stat(object(store, name))).await?.into_inner())
    }

    /// The bytes of an object as they come.
    ///
    /// # Errors
    /// There is none, or the client could not open it, or went away.
    pub async fn read_cache_object(
        &self,
        store: &str,
        name: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, SessionError> {
        let mut client = self.cache_directory("/rbuild.v1.CacheDirectory/Read")?;
        let messages = self.live(client.read(object(store, name))).await?.into_inner();
        Ok(messages.map_ok(|message| message.data))
    }

    /// Writes an object; whether it was written.
    ///
    /// # Errors
    /// The client could not write it, or went away.
    pub async fn write_cache_object(
        &self,
        messages: Receiver<WriteCacheObject>,
    ) -> Result<bool, SessionError> {
        let mut client = self.cache_directory("/rbuild.v1.CacheDirectory/Write")?;
        Ok(self.live(client.write(ReceiverStream::new(messages))).await?.into_inner().written)
    }

    /// Makes an object young.
    ///
    /// # Errors
    /// There is none, or the client could not do it, or went away.
    pub async fn touch_cache_object(&self, store: &str, name: &str) -> Result<CacheObjectStat, SessionError> {
        let mut client = self.cache_directory("/rbuild.v1.CacheDirectory/Touch")?;
        Ok(self.live(client.touch(object(store, name))).await?.into_inner())
    }

    /// What is below a name.
    ///
    /// # Errors
    /// The client does not look, or went away.
    pub async fn list_cache_objects(
        &self,
        store: &str,
        prefix: &str,
    ) -> Result<impl Stream<Item = Result<ListedCacheObject, Status>> + Send + use<>, SessionError> {
        let mut client = self.cache_directory("/rbuild.v1.CacheDirectory/List")?;
        Ok(self.live(client.list(object(store, prefix))).await?.into_inner())
    }

    /// Removes an object, if there is one.
    ///
    /// # Errors
    /// The client could not do it, or went away.
    pub async fn remove_cache_object(&self, store: &str, name: &str) -> Result<(), SessionError> {
        let mut client = self.cache_directory("/rbuild.v1.CacheDirectory/Remove")?;
        self.live(client.remove(object(store, name))).await?;
        Ok(())
    }
}
