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
use crate::session::ARRIVAL;

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
    /// Copies all blobs into the client's content store, what names others last.
    async fn hand_over(&self, made: &Assembled, cx: &VertexContext) -> Result<(), ExecError> {
        let id = cx.sessions.ids().first().cloned().unwrap_or_default();
        let session = self.sessions.get(&id, ARRIVAL).await.map_err(ExecError::failed)?;
        for blob in made.parcel().all() {
            let file = self.chains.store.blobs().open(&blob.digest).map_err(from_store)?;
            let file = tokio::fs::File::from_std(file);
            session.write_blob("export", &blob.digest, blob.size, file).await.map_err(ExecError::failed)?;
        }
        Ok(())
    }

    pub(super) async fn archive(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let packing = request.packing();
        let mut layers = self.layer_blobs(Form::Blobs(packing), &cx.build);
        if !request.tar {
            let made = self.assemble(request, results, &layers, step, cx).await?;
            step.part("copying blobs", self.hand_over(&made, cx)).await?;
            return Ok(made.response(request));
        }
        let large = match results.built.iter().any(|built| request.rewritten(built).is_some()) {
            // What is written is not the layer then.
            true => Vec::new(),
            false => layers.large(results.built.iter().map(|built| &built.output.chain[..]))?,
        };
        let format = match request.kind {
            ExportKind::Docker => ArchiveFormat::Docker,
            _ => ArchiveFormat::Oci,
        };
        let store = self.chains.store.clone();
        let image = |made: &Assembled| ArchiveImage {
            target: made.target.clone(),
            names: request.names.clone(),
            created: None,
        };
        let mut passed = self.passed_file(request.id, cx);
        let Some(file) = passed.take_if(|file| file.can_amend()) else {
            let made = self.assemble(request, results, &layers, step, cx).await?;
            let image = image(&made);
            let ahead: Vec<Descriptor> = large.iter().filter_map(|id| made.descriptor(id)).cloned().collect();
            let response = made.response(request);
            let write = self.stream(request.id, passed, &response, cx, move |out| {
                write_stored(&store, out, format, &[image], &ahead).map(drop)
            });
            step.part("sending tarball", write).await?;
            return Ok(response);
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
