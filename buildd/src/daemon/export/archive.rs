//! `type=oci` and `type=docker`: an archive that goes to the client.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use cache::oci::{ArchiveFormat, ArchiveImage, ArchiveWriter, BlobSource, Descriptor};
use cache::store::{Store, StoreError};
use cache::stream::StreamReader;
use solver::{Digest, ExecError, VertexContext};

use super::assemble::Assembled;
use super::layers::Form;
use super::{ExportKind, ExportRequest, Exporter, Results};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::progress::Step;

/// The store's blobs, and which of them was opened last.
#[derive(Debug)]
pub(super) struct StoreBlobs<'a> {
    store: &'a Store,
    last: Mutex<Option<Digest>>,
}

impl<'a> StoreBlobs<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, last: Mutex::default() }
    }

    /// Why an archive could not be written. A blob that is damaged is then gone, so that the next attempt makes or
    /// fetches it again.
    pub(super) fn explain(&self, error: cache::oci::Error) -> ExecError {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.map(|digest| self.store.blobs().check(&digest)) {
            Some(Err(damaged @ StoreError::BlobDamaged { .. })) => from_store(damaged),
            _ => ExecError::failed(error),
        }
    }
}

impl BlobSource for StoreBlobs<'_> {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(descriptor.digest);
        let file = self.store.blobs().open(&descriptor.digest).map_err(io::Error::other)?;
        Ok(Box::new(StreamReader::new(file)))
    }
}

/// Writes images of the store into an archive, the blobs of `ahead` first. Blocking.
///
/// # Errors
/// A reader that went away, a full disk, a blob that is missing or damaged.
pub(crate) fn write_stored<W: Write>(
    store: &Store,
    out: W,
    format: ArchiveFormat,
    images: &[ArchiveImage],
    ahead: &[Descriptor],
) -> Result<W, ExecError> {
    let blobs = StoreBlobs::new(store);
    let write = || {
        let mut archive = ArchiveWriter::new(out)?;
        ahead.iter().try_for_each(|blob| archive.blob(blob, &blobs))?;
        archive.finish(format, images, &blobs)
    };
    write().map_err(|error| blobs.explain(error))
}

impl Exporter {
    pub(super) async fn archive(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let packing = request.packing();
        let mut layers = self.layer_blobs(Form::Blobs(packing), &cx.build);
        let large = layers.large(results.built.iter().map(|built| &built.output.chain[..]))?;
        let format = match request.kind {
            ExportKind::Docker => ArchiveFormat::Docker,
            _ => ArchiveFormat::Oci,
        };
        let store = self.chains.store.clone();
        let image = |made: &Assembled| {
            let created = made.main().map(|i| i.created_ms).unwrap_or_default();
            ArchiveImage {
                target: made.target.clone(),
                names: request.names.clone(),
                created: Some(
                    jiff::Timestamp::from_millisecond(created as i64).unwrap_or_default().to_string(),
                ),
            }
        };
        let mut passed = self.passed_file(request.id, cx);
        let Some(file) = passed.take_if(|file| file.can_amend()) else {
            let made = self.assemble(request, results, &layers, step, cx).await?;
            let image = image(&made);
            let ahead: Vec<Descriptor> = large.iter().filter_map(|id| made.descriptor(id)).cloned().collect();
            let write = self.stream(request.id, passed, cx, move |out| {
                write_stored(&store, out, format, &[image], &ahead).map(drop)
            });
            step.part("sending tarball", write).await?;
            return Ok(made.response(request));
        };
        let mut archive = ArchiveWriter::new(file).map_err(ExecError::failed)?;
        for id in large {
            // Whoever exports in several ways needs the blob.
            let seen = self.seen.again(id) || !request.alone;
            let placing = layers.place(id, archive, packing, seen, cx);
            let (more, blob) = step.part("exporting layers", placing).await?;
            archive = more;
            layers.placed.insert(id, blob);
        }
        let made = self.assemble(request, results, &layers, step, cx).await?;
        let image = image(&made);
        let write = blocking(move || {
            let blobs = StoreBlobs::new(&store);
            let mut file = archive.finish(format, &[image], &blobs).map_err(|error| blobs.explain(error))?;
            file.flush().map_err(ExecError::failed)
        });
        step.part("sending tarball", write).await?;
        Ok(made.response(request))
    }
}
