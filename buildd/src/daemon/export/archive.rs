//! `type=oci` and `type=docker`: an archive that goes to the client.

use std::collections::BTreeMap;
use std::io::{self, Read};

use cache::oci::{ArchiveFormat, ArchiveImage, BlobSource, Descriptor, write_archive};
use cache::store::Store;
use solver::{ExecError, VertexContext};

use super::layers::Form;
use super::{ExportKind, ExportRequest, Exporter, Results};
use crate::daemon::progress::Step;

/// The store's blobs.
#[derive(Debug)]
pub(crate) struct StoreBlobs(pub Store);

impl BlobSource for StoreBlobs {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.0.blobs().open(&descriptor.digest).map_err(io::Error::other)?))
    }
}

impl Exporter {
    pub(super) async fn archive(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let lease = self.images.lease(&cx.build);
        let form = Form::Blobs { compression: request.compression, force: request.force_compression };
        let made = self.assemble(request, results, form, step, &lease, cx).await?;
        let created = made.main().map(|i| i.created_ms).unwrap_or_default();
        let image = ArchiveImage {
            target: made.target.clone(),
            names: request.names.clone(),
            created: Some(jiff::Timestamp::from_millisecond(created as i64).unwrap_or_default().to_string()),
        };
        let format = match request.kind {
            ExportKind::Docker => ArchiveFormat::Docker,
            _ => ArchiveFormat::Oci,
        };
        let store = self.chains.store.clone();
        let write = self.stream(request.id, cx, move |out| {
            write_archive(out, format, &[image], &StoreBlobs(store)).map(drop).map_err(ExecError::failed)
        });
        step.part("sending tarball", write).await?;
        Ok(made.response(request))
    }
}
