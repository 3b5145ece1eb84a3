//! `type=oci` and `type=docker`: an archive that goes to the client.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use cache::oci::{ArchiveFormat, ArchiveImage, BlobSource, Descriptor, write_archive};
use cache::store::{Store, StoreError};
use cache::stream::StreamReader;
use solver::{Digest, ExecError, VertexContext};

use super::layers::Form;
use super::{ExportKind, ExportRequest, Exporter, Results};
use crate::daemon::chains::from_store;
use crate::daemon::progress::Step;

/// The store's blobs, and which of them was opened last.
#[derive(Debug)]
struct StoreBlobs<'a> {
    store: &'a Store,
    last: Mutex<Option<Digest>>,
}

impl BlobSource for StoreBlobs<'_> {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(descriptor.digest);
        let file = self.store.blobs().open(&descriptor.digest).map_err(io::Error::other)?;
        Ok(Box::new(StreamReader::new(file)))
    }
}

/// Writes images of the store into an archive. Blocking.
///
/// # Errors
/// A reader that went away, a full disk, a blob that is missing or damaged: the latter is then gone, so that the next
/// attempt makes or fetches it again.
pub(crate) fn write_stored<W: Write>(
    store: &Store,
    out: W,
    format: ArchiveFormat,
    images: &[ArchiveImage],
) -> Result<W, ExecError> {
    let blobs = StoreBlobs { store, last: Mutex::default() };
    write_archive(out, format, images, &blobs).map_err(|error| {
        let last = *blobs.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.map(|digest| store.blobs().check(&digest)) {
            Some(Err(damaged @ StoreError::BlobDamaged { .. })) => from_store(damaged),
            _ => ExecError::failed(error),
        }
    })
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
        let write =
            self.stream(request.id, cx, move |out| write_stored(&store, out, format, &[image]).map(drop));
        step.part("sending tarball", write).await?;
        Ok(made.response(request))
    }
}
