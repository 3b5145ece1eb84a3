//! `type=image`: names in the image store, and pushes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use cache::oci::Reference;
use cache::store::{BlobRef, ImageRecord, Lease};
use solver::{ExecError, VertexContext};

use super::assemble::Assembled;
use super::layers::Form;
use super::{ExportRequest, Exporter, Results};
use crate::daemon::chains::from_store;
use crate::daemon::progress::Step;

/// Rewritten layers are for elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("`rewrite-timestamp` needs `push=true`, or an archive: layers of the image store keep their times")]
struct NotPushed;

impl Exporter {
    pub(super) async fn image(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let form = match request.push {
            true => Form::Blobs(request.packing()),
            // A name alone costs no compression.
            false => Form::AsIs,
        };
        let layers = self.layer_blobs(form, &cx.build);
        // The store names layers by their files, and these keep their times.
        let rewritten = results.built.iter().any(|built| request.rewritten(built).is_some());
        if rewritten && !request.push {
            return Err(ExecError::failed(NotPushed));
        }
        let made = self.assemble(request, results, &layers, step, cx).await?;
        for name in request.names.iter().filter(|_| !rewritten) {
            step.part(&format!("naming to {name}"), async { self.name(name, &made, &layers.lease) }).await?;
        }
        if request.push {
            self.push_names(&request.names, &made, step, cx).await?;
        }
        Ok(made.response(request))
    }

    fn name(&self, name: &Reference, made: &Assembled, lease: &Lease) -> Result<(), ExecError> {
        let store = &self.chains.store;
        let Some(main) = made.main() else { return Ok(()) };
        let mut size = 0;
        for id in made.layer_ids() {
            let info = store.layers().hold(lease, &id).map_err(from_store)?;
            size += info.map_or(0, |l| l.size);
        }
        let record = ImageRecord {
            target: BlobRef {
                media_type: made.target.media_type.clone(),
                digest: made.target.digest,
                size: made.target.size,
            },
            manifest: main.manifest.digest,
            config: main.config.digest,
            layers: main.layers.iter().map(|l| l.id).collect(),
            diff_ids: main.layers.iter().map(|l| l.diff_id).collect(),
            blobs: made.other_documents(),
            platform: main.platform.clone(),
            created_ms: main.created_ms,
            tagged_ms: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |d| d.as_millis() as u64),
            size,
        };
        store.images().put(&name.to_string(), &record).map_err(from_store)
    }
}
