//! `docker-image+blob://…` and `oci-layout+blob://…`: one blob as a file.

use std::sync::Arc;

use cache::layer::Meta;
use solver::digest::Hasher;
use solver::op::SourceOp;
use solver::{Digest, ExecError, Output, SourceAnswer, SourceIdentity, VertexContext};

use super::file;
use super::image::ImageSource;
use super::image::blob::Locator;
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::provenance::{Pin, PinnedBlob};
use crate::daemon::snapshot::Maker;

/// Makes files of blobs.
#[derive(Debug)]
pub(super) struct BlobSource {
    pub(super) images: Arc<ImageSource>,
    pub(super) maker: Maker,
}

impl BlobSource {
    /// What it is follows from the name: nothing is fetched.
    pub(super) fn identify(&self, op: &SourceOp) -> Result<SourceAnswer, ExecError> {
        let (locator, name, meta) = parts(op)?;
        let mut h = Hasher::new("rbuild.source.blob.v1");
        h.digest(&locator.digest);
        file::identify(&mut h, &name, &meta);
        Ok(SourceAnswer { identity: SourceIdentity::Digest(h.finish()), revision: None, output: None })
    }

    pub(super) async fn fetch(&self, op: &SourceOp, cx: &VertexContext) -> Result<Output, ExecError> {
        let (locator, name, meta) = parts(op)?;
        self.images.fetch_blob(&locator, cx).await?;
        let (maker, build) = (self.maker.clone(), cx.build.clone());
        let description = format!("blob {}", locator.reference);
        blocking(move || {
            let body = maker.chains.store.blobs().open(&locator.digest).map_err(from_store)?;
            maker.of_file(&name, &meta, body, &build, &description)
        })
        .await
    }

    /// What BuildKit's caches know the blob by (`source/containerblob/pull.go`).
    pub(super) fn buildkit_key(op: &SourceOp) -> Result<String, ExecError> {
        let digest = Locator::of_source(op)?.digest.to_string();
        let mut fields = serde_json::Map::from_iter([("Digest".to_owned(), digest.into())]);
        fields.insert("Filename".to_owned(), file::own_name(op).unwrap_or_default().into());
        fields.extend(file::key_fields(op)?);
        Ok(Digest::of(&crate::llb::go_json(&fields.into())).to_string())
    }

    /// What provenance tells of the source.
    pub(super) fn told(&self, op: &SourceOp) -> Result<Pin, ExecError> {
        Locator::of_source(op).map(|locator| Pin::Blob(PinnedBlob::from(locator)))
    }
}

impl From<Locator> for PinnedBlob {
    fn from(Locator { reference, layout, .. }: Locator) -> Self {
        Self { reference, layout: layout.is_some() }
    }
}

/// Where the blob is, and how it lies in the image: under its digest where the source gives it no name.
fn parts(op: &SourceOp) -> Result<(Locator, String, Meta), ExecError> {
    let locator = Locator::of_source(op)?;
    let name = file::own_name(op).unwrap_or_else(|| locator.digest.hex());
    Ok((locator, name, file::meta(op, None)?))
}
