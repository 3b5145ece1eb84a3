//! Caches in object stores.

use std::time::{Duration, SystemTime};

use cache::objects::{AccessKey, AzureContainer, GoogleBucket, GoogleCredential, Objects, Place, S3Bucket};
use cache::oci::Descriptor;
use cache::registry::Secret;
use cache::remote::CacheConfig;
use futures_util::TryStreamExt;
use solver::Digest;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use super::attrs::{Attrs, WrongAttr};
use super::{Blob, ServiceError, config};

/// How large a cache's config may be, in bytes: some ten thousand records.
const CONFIG_LIMIT: u64 = 64 << 20;
/// After how long an object that is used again is made young (BuildKit's default).
const TOUCH_REFRESH: Duration = Duration::from_hours(24);
/// How many layers are uploaded at a time (BuildKit's default).
const PARALLEL: u32 = 4;
/// How often Amazon's own libraries make a request at most.
const ATTEMPTS: u32 = 3;

/// A cache in an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct ObjectCache {
    place: Place,
    /// Before the names of configs.
    manifests: String,
    /// Before the digests of blobs.
    blobs: String,
    /// The cache's names: all are written.
    names: Vec<String>,
    /// How many of them are read.
    reads: usize,
    /// After how long a blob that is used again is made young, so that no rule of the bucket removes it.
    touch_refresh: Option<Duration>,
    /// How many layers are written at a time.
    pub(super) parallel: usize,
}

/// An object store that is talked to.
#[derive(Debug)]
pub(in crate::daemon) struct ObjectStore {
    cache: ObjectCache,
    objects: Objects,
}

impl ObjectCache {
    /// A cache in a bucket (`cache/remotecache/s3/s3.go` of BuildKit for names and defaults).
    pub(super) fn s3(attrs: &Attrs<'_>) -> Result<Self, WrongAttr> {
        let place = s3_bucket(attrs)?;
        let prefix = attrs.or("prefix", "");
        Ok(Self {
            place: Place::S3(place),
            manifests: prefix.clone() + &attrs.or("manifests_prefix", "manifests/"),
            blobs: prefix + &attrs.or("blobs_prefix", "blobs/"),
            names: attrs.names(),
            reads: 1,
            touch_refresh: Some(attrs.duration("touch_refresh").unwrap_or(TOUCH_REFRESH)),
            parallel: attrs.positive("upload_parallelism")?.unwrap_or(PARALLEL) as usize,
        })
    }

    /// A cache in a container (`cache/remotecache/azblob` of BuildKit for names and defaults).
    pub(super) fn azblob(attrs: &Attrs<'_>) -> Result<Self, WrongAttr> {
        let prefix = attrs.or_env("prefix", "BUILDKIT_AZURE_STORAGE_PREFIX").unwrap_or_default();
        let names = attrs.names();
        Ok(Self {
            place: Place::Azure(azure_container(attrs)?),
            manifests: joined(&[&prefix, &attrs.or("manifests_prefix", "manifests"), ""]),
            blobs: joined(&[&prefix, &attrs.or("blobs_prefix", "blobs"), ""]),
            reads: names.len(),
            names,
            touch_refresh: None,
            parallel: PARALLEL as usize,
        })
    }

    pub(super) fn name(&self) -> String {
        let name = self.manifest(self.names.first().map_or("", String::as_str));
        match &self.place {
            Place::S3(s3) => format!("s3:{}/{name}", s3.bucket),
            Place::Azure(azure) => format!("azblob:{}/{name}", azure.container),
            Place::Google(google) => format!("gcs:{}/{name}", google.bucket),
        }
    }

    pub(super) fn export_name(&self) -> &'static str {
        match &self.place {
            Place::S3(_) => "exporting cache to Amazon S3",
            Place::Azure(_) => "exporting cache to Azure Blob Storage",
            Place::Google(_) => "exporting cache to Google Cloud Storage",
        }
    }

    pub(super) fn open(&self) -> Result<ObjectStore, ServiceError> {
        Ok(ObjectStore { cache: self.clone(), objects: Objects::open(&self.place)? })
    }

    fn manifest(&self, name: &str) -> String {
        format!("{}{name}", self.manifests)
    }

    fn object(&self, blob: &Digest) -> String {
        format!("{}{blob}", self.blobs)
    }
}

/// The bucket that attributes name (`cache/remotecache/s3/s3.go` of BuildKit for names and defaults).
///
/// # Errors
/// What is missing or malformed.
pub(in crate::daemon) fn s3_bucket(attrs: &Attrs<'_>) -> Result<S3Bucket, WrongAttr> {
    let needed = |name, variable: &str| {
        let missing = || WrongAttr(format!("{name} (${variable}) not set for s3 cache"));
        attrs.or_env(name, variable).ok_or_else(missing)
    };
    let key = attrs.get("access_key_id").zip(attrs.get("secret_access_key"));
    let key = key.map(|(id, secret)| AccessKey {
        id,
        secret: Secret::new(secret),
        session: attrs.get("session_token").map(Secret::new),
    });
    // Amazon's two ways to wait differ in how they spread requests of one process, which here are few.
    if !matches!(attrs.attrs.get("retry_mode").map(String::as_str), None | Some("standard" | "adaptive")) {
        return Err(WrongAttr("retry_mode must be \"standard\" or \"adaptive\"".to_owned()));
    }
    let endpoint = attrs.get("endpoint_url");
    Ok(S3Bucket {
        bucket: needed("bucket", "AWS_BUCKET")?,
        region: needed("region", "AWS_REGION")?,
        // As in BuildKit it counts only with an endpoint of one's own.
        path_style: endpoint.is_some() && attrs.flag("use_path_style"),
        endpoint,
        access_key: key,
        attempts: attrs.positive("retry_max_attempts")?.unwrap_or(ATTEMPTS),
    })
}

/// The container that attributes name (`cache/remotecache/azblob` of BuildKit for names and defaults).
///
/// # Errors
/// What is missing or malformed.
pub(in crate::daemon) fn azure_container(attrs: &Attrs<'_>) -> Result<AzureContainer, WrongAttr> {
    let account_url = attrs.or_env("account_url", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL").ok_or_else(|| {
        WrongAttr(
            "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache"
                .to_owned(),
        )
    })?;
    let url = url::Url::parse(&account_url)
        .map_err(|_| WrongAttr("azure storage account url provided is not a valid url".to_owned()))?;
    let account = attrs.or_env("account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME").unwrap_or_else(|| {
        url.host_str().and_then(|host| host.split('.').next()).unwrap_or_default().to_owned()
    });
    if account.is_empty() {
        return Err(WrongAttr(
            "unable to retrieve account name from account url or ${BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME} or account_name attribute for azblob cache"
                .to_owned(),
        ));
    }
    Ok(AzureContainer {
        account_url,
        account,
        container: attrs
            .or_env("container", "BUILDKIT_AZURE_STORAGE_CONTAINER")
            .unwrap_or_else(|| "buildkit-cache".to_owned()),
        key: attrs.get("secret_access_key").map(Secret::new),
    })
}

/// The bucket of Google Cloud Storage that attributes name. Who we are may say the client; no file of this machine is read for it.
///
/// # Errors
/// What is missing or malformed.
pub(in crate::daemon) fn google_bucket(attrs: &Attrs<'_>, bucket: &str) -> Result<GoogleBucket, WrongAttr> {
    if attrs.get("credential_path").is_some() {
        return Err(WrongAttr("credential_path is for rbuild's own client, which reads the file".to_owned()));
    }
    let credential = match (attrs.get("token"), attrs.get("credential")) {
        _ if attrs.flag("anonymous") => GoogleCredential::Anonymous,
        (Some(token), _) => GoogleCredential::Token(Secret::new(token)),
        (None, Some(text)) => {
            GoogleCredential::from_json(&text).map_err(|e| WrongAttr(format!("credential: {e}")))?
        }
        (None, None) => GoogleCredential::Environment,
    };
    Ok(GoogleBucket { bucket: bucket.to_owned(), endpoint: attrs.get("endpoint"), credential })
}

impl ObjectStore {
    /// Makes the container that is not there.
    pub(super) async fn prepare(&self) -> Result<(), ServiceError> {
        Ok(self.objects.prepare().await?)
    }

    /// The configs under the names that are read. One that is not there yet is no failure: the first build of all has none.
    pub(super) async fn configs(&self) -> Result<Vec<CacheConfig>, ServiceError> {
        let mut configs = Vec::new();
        for name in self.cache.names.iter().take(self.cache.reads) {
            if let Some(json) = self.objects.get(&self.cache.manifest(name), CONFIG_LIMIT).await? {
                configs.push(config(&json)?);
            }
        }
        Ok(configs)
    }

    pub(super) async fn has(&self, blob: &Descriptor) -> Result<bool, ServiceError> {
        let object = self.cache.object(&blob.digest);
        let Some(told) = self.objects.stat(&object).await? else { return Ok(false) };
        let age = told.modified.and_then(|at| SystemTime::now().duration_since(at).ok());
        if self.cache.touch_refresh.zip(age).is_some_and(|(limit, age)| age > limit) {
            self.objects.touch(&object, told.size).await?;
        }
        Ok(true)
    }

    pub(super) async fn put(&self, blob: &Descriptor, file: tokio::fs::File) -> Result<(), ServiceError> {
        let object = self.cache.object(&blob.digest);
        match &self.cache.place {
            // Not all that speak S3 know conditions.
            Place::S3(_) => Ok(self.objects.put_from(&object, blob.size, file).await?),
            Place::Azure(_) | Place::Google(_) => {
                Ok(self.objects.put_if_absent(&object, blob.size, file).await.map(drop)?)
            }
        }
    }

    pub(super) async fn finish(&self, json: &[u8]) -> Result<(), ServiceError> {
        for name in &self.cache.names {
            self.objects.put(&self.cache.manifest(name), json.to_vec()).await?;
        }
        Ok(())
    }

    pub(super) async fn blob(&self, blob: &Descriptor) -> Result<Blob, ServiceError> {
        let stream = self.objects.stream(&self.cache.object(&blob.digest), Some(0..blob.size)).await?;
        // A byte too many is enough for the digest to be another one.
        let bytes = StreamReader::new(stream.map_err(std::io::Error::other)).take(blob.size + 1);
        Ok(Box::pin(bytes))
    }
}

/// Parts of a path put together as Go's `filepath.Join` does, for what follows them.
fn joined(parts: &[&str]) -> String {
    let mut clean: Vec<&str> = Vec::new();
    for part in parts.iter().flat_map(|part| part.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean.iter().map(|part| format!("{part}/")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers() {
        let read = |attrs: &[(&str, &str)], env: &[(&str, &str)]| {
            let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let env = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
            ObjectCache::azblob(&Attrs { attrs: &attrs, env: &env }).map_err(|e| e.to_string())
        };
        let env = [("BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", "https://acc.blob.example")];
        let cache = read(&[("prefix", "x//y/"), ("name", "a;b")], &env).unwrap();
        assert_eq!(cache.name(), "azblob:buildkit-cache/x/y/manifests/a");
        assert_eq!((cache.object(&Digest::of(b"")).starts_with("x/y/blobs/sha256:"), cache.reads), (true, 2));
        let Place::Azure(azure) = &cache.place else { panic!("{cache:?}") };
        assert_eq!(azure.account, "acc");
        assert!(read(&[], &[]).unwrap_err().contains("account_url attribute is required"));
        assert!(read(&[("account_url", "acc")], &[]).unwrap_err().contains("not a valid url"));
    }

    fn read(attrs: &[(&str, &str)], env: &[(&str, &str)]) -> Result<ObjectCache, String> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let env = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        ObjectCache::s3(&Attrs { attrs: &attrs, env: &env }).map_err(|e| e.to_string())
    }

    #[test]
    fn names_of_objects() {
        let named = |attrs: &[(&str, &str)]| {
            let attrs = [&[("bucket", "b"), ("region", "r")], attrs].concat();
            let cache = read(&attrs, &[]).unwrap();
            let blob = cache.object(&Digest::of(b""));
            (cache.manifest(&cache.names[0]), blob.replace(&Digest::of(b"").to_string(), "D"))
        };
        assert_eq!(named(&[]), ("manifests/buildkit".into(), "blobs/D".into()));
        // A prefix is put before as it is.
        assert_eq!(
            named(&[("prefix", "x"), ("name", "a;b"), ("manifests_prefix", "m-"), ("blobs_prefix", "")]),
            ("xm-a".into(), "xD".into())
        );
    }

    #[test]
    fn what_the_environment_says() {
        let env = [("AWS_BUCKET", "b"), ("AWS_REGION", "r")];
        assert_eq!(read(&[], &env).unwrap().name(), "s3:b/manifests/buildkit");
        for (attrs, env, want) in [
            (&[("region", "r")][..], &[][..], "bucket ($AWS_BUCKET) not set for s3 cache"),
            (&[("bucket", "b")], &[], "region ($AWS_REGION) not set for s3 cache"),
            (&[("upload_parallelism", "0")], &env, "upload_parallelism must be a positive integer"),
            (&[("retry_max_attempts", "-1")], &env, "retry_max_attempts must be a positive integer"),
            (&[("retry_mode", "eager")], &env, "retry_mode must be \"standard\" or \"adaptive\""),
        ] {
            let error = read(attrs, env).unwrap_err();
            assert_eq!(error, want);
        }
    }

    #[test]
    fn keys_do_not_show() {
        let attrs = [
            ("bucket", "b"),
            ("region", "r"),
            ("access_key_id", "id"),
            ("secret_access_key", "geheim"),
            ("session_token", "geheim"),
        ];
        let cache = read(&attrs, &[]).unwrap();
        assert!(!format!("{cache:?} {:?}", cache.open()).contains("geheim"));
        assert_ne!(cache, read(&attrs[..4], &[]).unwrap());
    }
}
