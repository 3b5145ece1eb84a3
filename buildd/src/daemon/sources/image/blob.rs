//! Single blobs of registries and of clients' OCI layouts, named by their digest: `NAME@sha256:…`.

use std::time::SystemTime;

use cache::oci::Reference;
use cache::store::{BlobPurpose, Lease};
use solver::op::{SourceOp, attr};
use solver::{Digest, ExecError, Status, VertexContext};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::{ImageError, ImageSource, LayoutStore};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;

/// The scheme of blobs at registries.
pub(in crate::daemon) const REGISTRY_BLOB: &str = "docker-image+blob";
/// The scheme of blobs in clients' layouts.
pub(in crate::daemon) const LAYOUT_BLOB: &str = "oci-layout+blob";

/// Where a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct Locator {
    /// The repository, and the blob's digest. In a layout only the digest counts.
    pub reference: Reference,
    /// What the bytes have to be.
    pub digest: Digest,
    /// The layout that it is in, if it is not at a registry.
    pub layout: Option<LayoutStore>,
}

/// A blob that cannot be found by its name.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum LocatorError {
    #[error("`{0}` is no blob of an image: `{REGISTRY_BLOB}://` or `{LAYOUT_BLOB}://` is missing")]
    Scheme(String),
    #[error(transparent)]
    Reference(#[from] cache::oci::Error),
    #[error("invalid reference digest: `{0}` names no blob")]
    NoDigest(String),
    #[error("oci-layout blob source requires store id: `{0}`")]
    NoLayout(String),
}

impl Locator {
    /// Takes a blob's name and the attributes of `op` that say which layout is meant; `store` stands in for the layout that
    /// they do not name.
    ///
    /// # Errors
    /// Another scheme, a malformed reference, one without a digest, a layout that is not named.
    pub(in crate::daemon) fn new(
        identifier: &str,
        op: &SourceOp,
        store: Option<&str>,
    ) -> Result<Self, LocatorError> {
        let (scheme, name) =
            identifier.split_once("://").ok_or_else(|| LocatorError::Scheme(identifier.to_owned()))?;
        let reference = Reference::parse(name)?;
        let digest = *reference.digest().ok_or_else(|| LocatorError::NoDigest(name.to_owned()))?;
        let layout = match scheme {
            REGISTRY_BLOB => None,
            LAYOUT_BLOB => {
                let given = |name| op.attrs.get(name).filter(|value| !value.is_empty()).cloned();
                let store = given(attr::OCI_LAYOUT_STORE_ID).or_else(|| store.map(str::to_owned));
                let store = store.ok_or_else(|| LocatorError::NoLayout(identifier.to_owned()))?;
                let session = given(attr::OCI_LAYOUT_SESSION_ID).unwrap_or_default();
                Some(LayoutStore { session, store: format!("oci:{store}") })
            }
            _ => return Err(LocatorError::Scheme(identifier.to_owned())),
        };
        Ok(Self { reference, digest, layout })
    }

    /// The blob that a source is.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(in crate::daemon) fn of_source(op: &SourceOp) -> Result<Self, ExecError> {
        Self::new(&op.identifier, op, None).map_err(ExecError::failed)
    }
}

impl ImageSource {
    /// Brings a blob into the store, where it stays for the build.
    ///
    /// # Errors
    /// A blob that is nowhere or has other bytes; cancellation.
    pub(in crate::daemon) async fn fetch_blob(
        &self,
        locator: &Locator,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let lease = self.leases.of(&cx.build);
        // One download at a time; whoever waited finds it done.
        let _turn = self.pulls.turn(locator.digest).await;
        if self.chains.store.blobs().hold(&lease, &locator.digest).map_err(from_store)?.is_some() {
            return Ok(());
        }
        let fetch = async {
            match &locator.layout {
                Some(layout) => self.take_from_layout(locator, layout, &lease, cx).await,
                None => self.take_from_registry(locator, &lease, cx).await,
            }
        };
        tokio::select! {
            fetched = fetch => fetched,
            () = cx.cancel.cancelled() => Err(ExecError::Canceled),
        }
    }

    async fn take_from_layout(
        &self,
        locator: &Locator,
        layout: &LayoutStore,
        lease: &Lease,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let started = SystemTime::now();
        let (blob, fault) = self.layout_blob(layout, &locator.digest, cx).await?;
        let kept = self.keep(blob, locator, lease).await;
        if let Some(error) = fault.take() {
            return Err(ExecError::failed(error));
        }
        let total = kept?;
        cx.progress.status(Status {
            id: locator.digest.to_string(),
            current: total,
            total,
            started,
            completed: Some(SystemTime::now()),
        });
        Ok(())
    }

    async fn take_from_registry(
        &self,
        locator: &Locator,
        lease: &Lease,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let failed = |error| ExecError::failed(ImageError::Registry(error));
        let client = self.client_showing(&cx.progress, cx);
        let described = client.describe_blob(&locator.reference, &locator.digest).await;
        let descriptor = described.map_err(failed)?;
        loop {
            let stream = client.fetch_blob(&locator.reference, &descriptor).map_err(failed)?;
            let (reader, fault) = stream.into_reader();
            let kept = self.keep(reader, locator, lease).await;
            match fault.take() {
                Some((error, true)) => tracing::warn!(%error, "a mirror sent wrong bytes; asking elsewhere"),
                Some((error, false)) => return Err(failed(error)),
                None => return kept.map(drop),
            }
        }
    }

    /// Writes a blob as it comes, and returns its length.
    async fn keep(
        &self,
        from: impl AsyncRead + Send + Unpin + 'static,
        locator: &Locator,
        lease: &Lease,
    ) -> Result<u64, ExecError> {
        let (store, lease, digest) = (self.chains.store.clone(), lease.clone(), locator.digest);
        let description = format!("blob {}", locator.reference);
        let mut from = SyncIoBridge::new(from);
        blocking(move || {
            let mut writer = store.blobs().writer().map_err(from_store)?;
            let length = std::io::copy(&mut from, &mut writer).map_err(ExecError::failed)?;
            let purpose = BlobPurpose { description, ..BlobPurpose::default() };
            writer.commit(&lease, Some(&digest), purpose).map_err(from_store)?;
            Ok(length)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator(identifier: &str, attrs: &[(&str, &str)]) -> Result<Locator, String> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let op = SourceOp { identifier: identifier.to_owned(), attrs };
        Locator::new(identifier, &op, None).map_err(|e| e.to_string())
    }

    #[test]
    fn blobs_are_named_by_their_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let found = locator(&format!("docker-image+blob://h:5000/a/b@{digest}"), &[]).unwrap();
        assert_eq!((found.reference.domain(), found.layout), ("h:5000", None));
        assert_eq!(found.digest.to_string(), digest);
        let named = [(attr::OCI_LAYOUT_STORE_ID, "s"), (attr::OCI_LAYOUT_SESSION_ID, "1")];
        let found = locator(&format!("oci-layout+blob://not/real@{digest}"), &named).unwrap();
        assert_eq!(found.layout, Some(LayoutStore { session: "1".into(), store: "oci:s".into() }));
    }

    #[test]
    fn names_that_name_no_blob() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (identifier, reason) in [
            ("docker-image+blob://h/a:1".to_owned(), "names no blob"),
            ("docker-image+blob://h/a@sha256:12".to_owned(), "digest"),
            (format!("docker-image://h/a@{digest}"), "is no blob"),
            (format!("h/a@{digest}"), "is no blob"),
            (format!("oci-layout+blob://a@{digest}"), "requires store id"),
        ] {
            let error = locator(&identifier, &[]).unwrap_err();
            assert!(error.contains(reason), "{identifier}: {error}");
        }
    }
}
