//! The verbs.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt};
use opendal::layers::RetryLayer;
use opendal::{ErrorKind, HttpTransporter, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::OnceCell;

use super::{ObjectError, Place, http_client};

/// How large a part of an object is, in bytes: stores want 5 MiB at least, and what is smaller goes in one request.
const PART: usize = 8 << 20;
/// How many parts an object has at most; S3 takes 10,000.
const MAX_PARTS: u64 = 9_000;
/// How many parts of one object are on their way at a time.
const PARTS_AT_ONCE: usize = 2;
/// The wait before the second attempt; doubled for each further one.
const BACKOFF: Duration = Duration::from_millis(300);
/// What follows an object's name in the name of its copy.
const BESIDE: &str = ".young";
/// The longest wait between attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(20);

/// A store of objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    operator: Operator,
    http: reqwest::Client,
    place: Place,
    name: String,
    /// What it is written into is there.
    prepared: Arc<OnceCell<()>>,
}

/// What a store tells of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectStat {
    /// In bytes.
    pub size: u64,
    /// When it was last written; none where the store does not tell.
    pub modified: Option<SystemTime>,
}

impl Objects {
    /// Opens a store. Nothing is asked of it.
    ///
    /// # Errors
    /// A configuration that cannot be.
    pub fn open(place: &Place) -> Result<Self, ObjectError> {
        let name = place.name();
        let http = http_client(place.url())
            .map_err(|e| ObjectError::Config { store: name.clone(), reason: e.to_string() })?;
        let operator = place.operator()?;
        let transport = HttpTransporter::new(ReqwestTransport::new(http.clone()));
        let context = operator.context().with_http_transport(transport);
        let retry = RetryLayer::new()
            .with_min_delay(BACKOFF)
            .with_max_delay(MAX_BACKOFF)
            .with_max_times(place.attempts().saturating_sub(1) as usize)
            .with_jitter()
            .with_notify(|event: opendal::layers::RetryEvent<'_>| {
                tracing::debug!(attempt = event.attempt, kind = %event.err.kind(), "object store is asked again");
            });
        let operator = operator.with_context(context).layer(retry);
        Ok(Self { operator, http, place: place.clone(), name, prepared: Arc::default() })
    }

    /// Makes the store where it is not there and can be made: a container, but no bucket. Asks once.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub async fn prepare(&self) -> Result<(), ObjectError> {
        let make = || async {
            match &self.place {
                Place::S3(_) | Place::Google(_) => Ok(()),
                Place::Azure(container) => container.create(&self.http, &self.name).await,
            }
        };
        self.prepared.get_or_try_init(make).await.copied()
    }

    /// What the store tells of an object; `None` where there is none.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn stat(&self, object: &str) -> Result<Option<ObjectStat>, ObjectError> {
        self.check(object)?;
        match self.operator.stat(object).await {
            Ok(told) => {
                let modified = told.last_modified().map(SystemTime::from);
                Ok(Some(ObjectStat { size: told.content_length(), modified }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(object, &error)),
        }
    }

    /// An object's bytes; `None` where there is none.
    ///
    /// # Errors
    /// [`ObjectError::TooLarge`] for more than `limit` bytes; why it could not be had.
    pub async fn get(&self, object: &str, limit: u64) -> Result<Option<Vec<u8>>, ObjectError> {
        let mut bytes = Vec::new();
        let mut stream = std::pin::pin!(self.stream(object, None).await?);
        loop {
            match stream.try_next().await {
                Ok(Some(chunk)) if bytes.len() as u64 + chunk.len() as u64 > limit => {
                    return Err(ObjectError::TooLarge {
                        store: self.name.clone(),
                        object: object.to_owned(),
                        limit,
                    });
                }
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(Some(bytes)),
                Err(ObjectError::Missing { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes of an object as they come, all or those of a range. A broken connection is opened again where it broke.
    ///
    /// # Errors
    /// A name that cannot be; what the store says comes with the stream.
    pub async fn stream(
        &self,
        object: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<impl Stream<Item = Result<Bytes, ObjectError>> + Send + 'static, ObjectError> {
        self.check(object)?;
        let opened = self.operator.reader(object).await.map_err(|e| self.failed(object, &e))?;
        let stream = match range {
            Some(range) => opened.into_stream(range).await,
            None => opened.into_stream(..).await,
        };
        let stream = stream.map_err(|e| self.failed(object, &e))?;
        let (store, object) = (self.clone(), object.to_owned());
        Ok(stream.map_ok(|buffer| buffer.to_bytes()).map_err(move |e| store.failed(&object, &e)))
    }

    /// Writes an object, in the place of one that is there.
    ///
    /// # Errors
    /// Why the store did not take it.
    pub async fn put(&self, object: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.check(object)?;
        let written = self.operator.write(object, bytes).await;
        written.map(drop).map_err(|error| self.failed(object, &error))
    }

    /// Writes an object of `size` bytes that are read from `from`, unless one is there; whether it was written.
    ///
    /// # Errors
    /// What cannot be read; why the store did not take it.
    pub async fn put_if_absent(
        &self,
        object: &str,
        size: u64,
        from: impl AsyncRead + Send + Unpin,
    ) -> Result<bool, ObjectError> {
        let written = self.write(object, size, true, |mut writer| async move {
            let fed = self.feed(object, &mut writer, size, from).await;
            (writer, fed)
        });
        written.await
    }

    /// Writes an object of `size` bytes that are read from `from`, in the place of one that is there.
    ///
    /// # Errors
    /// As [`Self::put_if_absent`].
    pub async fn put_from(
        &self,
        object: &str,
        size: u64,
        from: impl AsyncRead + Send + Unpin,
    ) -> Result<(), ObjectError> {
        let written = self.write(object, size, false, |mut writer| async move {
            let fed = self.feed(object, &mut writer, size, from).await;
            (writer, fed)
        });
        written.await.map(drop)
    }

    /// Makes an object of `size` bytes as young as if it had been written now, within the store.
    ///
    /// # Errors
    /// Why the store did not do it.
    pub async fn touch(&self, object: &str, size: u64) -> Result<(), ObjectError> {
        match &self.place {
            Place::S3(_) => {}
            Place::Azure(container) => return container.touch(&self.http, &self.name, object).await,
            Place::Google(_) => {
                self.check(object)?;
                return self.copy_back(object).await.map_err(|error| self.failed(object, &error));
            }
        }
        let written = self.write(object, size, false, |mut writer| async move {
            let copied = writer.copy_from(object, 0..size).await;
            (writer, copied.map_err(|error| self.failed(object, &error)))
        });
        written.await.map(drop)
    }

    /// Copies an object to one beside it and back, unless it is written meanwhile: no object can be copied onto itself.
    async fn copy_back(&self, object: &str) -> Result<(), opendal::Error> {
        let beside = format!("{object}{BESIDE}");
        let told = self.operator.stat(object).await?;
        self.operator.copy(object, &beside).await?;
        let back = self.operator.copy_with(&beside, object);
        let copied = match told.version() {
            Some(version) => back.if_version_match(version).await,
            None => back.await,
        };
        // Somebody else may have been at the same.
        let _ = self.operator.delete(&beside).await;
        match copied {
            Err(error) if error.kind() != ErrorKind::ConditionNotMatch => Err(error),
            _ => Ok(()),
        }
    }

    /// The objects whose names begin with `prefix`, with what the store tells of them, as they come.
    ///
    /// # Errors
    /// Why the store could not be asked.
    pub async fn list(
        &self,
        prefix: &str,
    ) -> Result<impl Stream<Item = Result<(String, ObjectStat), ObjectError>> + Send + use<>, ObjectError>
    {
        let listed = self.operator.lister_with(prefix).recursive(true).await;
        let listed = listed.map_err(|error| self.failed(prefix, &error))?;
        let (store, prefix) = (self.clone(), prefix.to_owned());
        let file = |entry: opendal::Entry| {
            let told = entry.metadata();
            let modified = told.last_modified().map(SystemTime::from);
            let stat = ObjectStat { size: told.content_length(), modified };
            told.is_file().then(|| (entry.path().to_owned(), stat))
        };
        Ok(listed
            .try_filter_map(move |entry| std::future::ready(Ok(file(entry))))
            .map_err(move |error| store.failed(&prefix, &error)))
    }

    /// Removes an object. That there is none is no failure.
    ///
    /// # Errors
    /// Why the store did not do it.
    pub async fn remove(&self, object: &str) -> Result<(), ObjectError> {
        self.check(object)?;
        match self.operator.delete(object).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.failed(object, &error)),
        }
    }

    /// Writes an object by whatever `fill` does; whether it was written.
    async fn write<F>(
        &self,
        object: &str,
        size: u64,
        only_new: bool,
        fill: impl FnOnce(opendal::Writer) -> F,
    ) -> Result<bool, ObjectError>
    where
        F: Future<Output = (opendal::Writer, Result<(), ObjectError>)>,
    {
        self.check(object)?;
        let part = PART.max(usize::try_from(size / MAX_PARTS).unwrap_or(PART));
        let opened = self.operator.writer_with(object).chunk(part).concurrent(PARTS_AT_ONCE);
        let writer = opened.if_not_exists(only_new).await.map_err(|e| self.failed(object, &e))?;
        let (mut writer, filled) = fill(writer).await;
        let written = match filled {
            Ok(()) => writer.close().await,
            Err(error) => {
                // What is left of it costs until somebody tidies the store up; the failure is told whether this works or not.
                let _ = writer.abort().await;
                return Err(error);
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if only_new && is_there(error.kind()) => Ok(false),
            Err(error) => Err(self.failed(object, &error)),
        }
    }

    async fn feed(
        &self,
        object: &str,
        writer: &mut opendal::Writer,
        size: u64,
        mut from: impl AsyncRead + Send + Unpin,
    ) -> Result<(), ObjectError> {
        let unread =
            |source| ObjectError::Source { store: self.name.clone(), object: object.to_owned(), source };
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(PART).min(PART);
            let mut piece = BytesMut::zeroed(wanted);
            from.read_exact(&mut piece).await.map_err(unread)?;
            left -= wanted as u64;
            writer.write(piece.freeze()).await.map_err(|error| self.failed(object, &error))?;
        }
        Ok(())
    }

    /// Refuses names that would become others on their way: requests are made of normalised ones.
    fn check(&self, object: &str) -> Result<(), ObjectError> {
        let bad = |segment: &str| matches!(segment, "" | "." | "..");
        if object.split('/').any(bad) || object.trim() != object {
            let reason = format!(
                "`{object}` cannot be an object's name: it has empty parts, `.`, `..`, or spaces at an end"
            );
            return Err(ObjectError::Config { store: self.name.clone(), reason });
        }
        Ok(())
    }

    fn failed(&self, object: &str, error: &opendal::Error) -> ObjectError {
        ObjectError::of(&self.name, object, error)
    }
}

/// Whether a conditional write found something in its place.
fn is_there(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::S3Bucket;

    #[test]
    fn names_that_would_become_others() {
        let place = S3Bucket {
            bucket: "b".into(),
            region: "r".into(),
            endpoint: Some("http://127.0.0.1:1".into()),
            path_style: true,
            access_key: None,
            attempts: 1,
        };
        let store = Objects::open(&Place::S3(place)).unwrap();
        for (name, fits) in [
            ("a/b", true),
            ("cacheblobs/sha256:00", true),
            ("/a", false),
            ("a//b", false),
            ("a/", false),
            ("../a", false),
            ("", false),
            (" a", false),
        ] {
            assert_eq!(store.check(name).is_ok(), fits, "{name}");
        }
        assert!(store.check("/a").unwrap_err().to_string().starts_with("S3 bucket `b`: `/a` cannot be"));
    }
}
