//! The image store's service.

use std::collections::BTreeSet;
use std::sync::Arc;

use cache::oci::Reference;
use cache::store::{ImageRecord, Store};
use proto::rbuild::images_server::Images;
use proto::rbuild::*;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{image_json, load, transfer};
use crate::daemon::blocking::blocking;
use crate::daemon::builds::Builds;
use crate::daemon::control::store_status;
use crate::daemon::parts::Parts;
use crate::daemon::timestamp;

/// Lists, names, moves and describes images.
#[derive(Debug, Clone)]
pub(crate) struct ImagesService {
    /// What the daemon is made of.
    pub parts: Arc<Parts>,
    /// Where transfers are listed, so that a daemon does not leave during one.
    pub builds: Arc<Builds>,
}

/// How an image without a name is listed, as docker does.
const NAMELESS: &str = "<none>";

/// The name in the store of an image that has none: its id.
pub(super) fn nameless(record: &ImageRecord) -> String {
    record.config.to_string()
}

/// The name as users gave it; `None` for [`nameless`] images.
pub(super) fn given_name(name: &str) -> Option<Reference> {
    if name.starts_with("sha256:") { None } else { Reference::parse(name).ok() }
}

/// The image that a name, a digest or a prefix of an id stands for.
///
/// # Errors
/// No such image, or several.
pub(super) fn find(store: &Store, text: &str) -> Result<(String, ImageRecord), Status> {
    let images = store.images();
    if let Ok(reference) = Reference::parse(text) {
        let name = reference.with_default_tag().to_string();
        if let Some(record) = images.get(&name).map_err(store_status)? {
            return Ok((name, record));
        }
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let by_id = prefix.len() >= 3 && prefix.bytes().all(|b| b.is_ascii_hexdigit());
    let mut found = if by_id { images.list().map_err(store_status)? } else { Vec::new() };
    found.retain(|(_, r)| r.config.hex().starts_with(&prefix));
    let ids: BTreeSet<_> = found.iter().map(|(_, r)| r.config).collect();
    match ids.len() {
        0 => Err(Status::not_found(format!("no such image: {text}"))),
        1 => Ok(found.swap_remove(0)),
        _ => Err(Status::invalid_argument(format!("`{text}` stands for several images"))),
    }
}

#[tonic::async_trait]
impl Images for ImagesService {
    type PullStream = ReceiverStream<Result<TransferEvent, Status>>;
    type PushStream = ReceiverStream<Result<TransferEvent, Status>>;
    type SaveStream = ReceiverStream<Result<SaveImageResponse, Status>>;

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let (store, filter) = (self.parts.store.clone(), request.into_inner().filter);
        let mut images = blocking(move || store.images().list()).await.map_err(store_status)?;
        images.retain(|(name, _)| name.contains(&filter));
        images.sort_by(|a, b| b.1.tagged_ms.cmp(&a.1.tagged_ms).then_with(|| a.0.cmp(&b.0)));
        let image = |(name, r): (String, ImageRecord)| Image {
            name: if given_name(&name).is_some() { name } else { NAMELESS.to_owned() },
            id: r.config.to_string(),
            digest: r.target.digest.to_string(),
            created: Some(timestamp::from_millis(r.created_ms)),
            size: r.size as i64,
            platforms: vec![r.platform],
        };
        Ok(Response::new(ListImagesResponse { images: images.into_iter().map(image).collect() }))
    }

    async fn remove(
        &self,
        request: Request<RemoveImagesRequest>,
    ) -> Result<Response<RemoveImagesResponse>, Status> {
        let (store, names) = (self.parts.store.clone(), request.into_inner().references);
        blocking(move || remove(&store, &names)).await.map(Response::new)
    }

    async fn tag(&self, request: Request<TagImageRequest>) -> Result<Response<TagImageResponse>, Status> {
        let (store, r) = (self.parts.store.clone(), request.into_inner());
        blocking(move || {
            let (from, _) = find(&store, &r.source)?;
            let to = Reference::parse(&r.target).map_err(|e| Status::invalid_argument(e.to_string()))?;
            store.images().tag(&from, &to.with_default_tag().to_string()).map_err(store_status)
        })
        .await?;
        Ok(Response::new(TagImageResponse {}))
    }

    async fn pull(&self, request: Request<PullImageRequest>) -> Result<Response<Self::PullStream>, Status> {
        self.builds.admit()?;
        Ok(Response::new(transfer::pull(self, request.into_inner())))
    }

    async fn push(&self, request: Request<PushImageRequest>) -> Result<Response<Self::PushStream>, Status> {
        self.builds.admit()?;
        Ok(Response::new(transfer::push(self, request.into_inner())))
    }

    async fn load(
        &self,
        request: Request<Streaming<LoadImageRequest>>,
    ) -> Result<Response<LoadImageResponse>, Status> {
        self.builds.admit()?;
        let loaded = load::load(self, request.into_inner()).await?;
        Ok(Response::new(LoadImageResponse { loaded }))
    }

    async fn save(&self, request: Request<SaveImageRequest>) -> Result<Response<Self::SaveStream>, Status> {
        self.builds.admit()?;
        Ok(Response::new(transfer::save(self, request.into_inner())?))
    }

    async fn inspect(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        let (store, r) = (self.parts.store.clone(), request.into_inner());
        let json = blocking(move || image_json::inspect(&store, &r.reference)).await?;
        Ok(Response::new(InspectImageResponse { json }))
    }

    async fn history(
        &self,
        request: Request<ImageHistoryRequest>,
    ) -> Result<Response<ImageHistoryResponse>, Status> {
        let (store, r) = (self.parts.store.clone(), request.into_inner());
        let entries = blocking(move || image_json::history(&store, &r.reference)).await?;
        Ok(Response::new(ImageHistoryResponse { entries }))
    }
}

fn remove(store: &Store, names: &[String]) -> Result<RemoveImagesResponse, Status> {
    let mut response = RemoveImagesResponse::default();
    for text in names {
        let (name, record) = find(store, text)?;
        let same = |store: &Store| {
            let all = store.images().list().map_err(store_status)?;
            Ok::<_, Status>(all.into_iter().filter(|(_, r)| r.config == record.config).count())
        };
        let by_name = Reference::parse(text).is_ok_and(|r| r.with_default_tag().to_string() == name);
        if !by_name && same(store)? > 1 {
            return Err(Status::failed_precondition(format!(
                "image `{text}` has several names; remove them by name"
            )));
        }
        store.images().remove(&name).map_err(store_status)?;
        if given_name(&name).is_some() {
            response.untagged.push(name);
        }
        if same(store)? == 0 {
            response.deleted.push(record.config.to_string());
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use cache::store::{BlobPurpose, BlobRef, StoreOptions};

    use super::*;

    /// Names an image without layers whose config is `config`.
    fn put(store: &Store, name: &str, config: &str) -> ImageRecord {
        let lease = store.lease();
        let blob = |text: &str| store.blobs().put(&lease, text.as_bytes(), BlobPurpose::default()).unwrap();
        let (manifest, config) = (blob(&format!("manifest of {config}")), blob(config));
        let record = ImageRecord {
            target: BlobRef { digest: manifest, size: 0, media_type: String::new() },
            manifest,
            config,
            layers: Vec::new(),
            diff_ids: Vec::new(),
            blobs: Vec::new(),
            platform: String::new(),
            created_ms: 0,
            tagged_ms: 0,
            size: 0,
        };
        store.images().put(name, &record).unwrap();
        record
    }

    #[test]
    fn images_are_found_and_removed_by_name_and_id() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        let one = put(&store, "docker.io/library/a:latest", "one");
        put(&store, "docker.io/library/b:1", "one");
        let two = put(&store, &two_id(), "two");
        assert_eq!(nameless(&two), two_id());

        let found = |text: &str| find(&store, text).map(|(_, r)| r.config).map_err(|e| e.code());
        let id = one.config.hex();
        for text in ["a", "a:latest", "docker.io/a", "b:1", &id, &id[..3], &one.config.to_string()] {
            assert_eq!(found(text), Ok(one.config), "{text}");
        }
        assert_eq!(found(&two.config.hex()[..12]), Ok(two.config));
        for text in ["b", "nope", "", &id[..2], "sha256:"] {
            assert_eq!(found(text), Err(tonic::Code::NotFound), "{text}");
        }

        let remove = |text: &str| {
            remove(&store, &[text.to_owned()]).map(|r| (r.untagged, r.deleted)).map_err(|e| e.code())
        };
        assert_eq!(remove(&id), Err(tonic::Code::FailedPrecondition), "it has two names");
        assert_eq!(remove("a"), Ok((vec!["docker.io/library/a:latest".to_owned()], vec![])));
        assert_eq!(remove(&id), Ok((vec!["docker.io/library/b:1".to_owned()], vec![one.config.to_string()])));
        assert_eq!(remove(&two_id()), Ok((vec![], vec![two_id()])), "it never had a name");
        assert!(store.images().list().unwrap().is_empty());
    }

    fn two_id() -> String {
        solver::Digest::of(b"two").to_string()
    }
}
