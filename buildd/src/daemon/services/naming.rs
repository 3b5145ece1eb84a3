//! Images that were pulled or loaded, as the image store names them.

use cache::oci::ResolvedImage;
use cache::store::{BlobRef, ImageRecord, Lease, Store};
use solver::{ExecError, LayerId};

use crate::daemon::chains::from_store;
use crate::daemon::sources::image::attestations::Vouched;

/// What a name will stand for: the image, or the index with what is said of it. The layers are in the store and become
/// held.
pub(super) fn record(
    store: &Store,
    image: &ResolvedImage,
    layers: &[LayerId],
    vouched: Option<Vouched>,
    lease: &Lease,
) -> Result<ImageRecord, ExecError> {
    let mut size = 0;
    for id in layers {
        size += store.layers().hold(lease, id).map_err(from_store)?.map_or(0, |l| l.size);
    }
    let manifest = || BlobRef {
        media_type: image.manifest_descriptor.media_type.clone(),
        digest: image.manifest_digest(),
        size: image.manifest_bytes.len() as u64,
    };
    let (target, blobs) = match vouched {
        Some(vouched) => (vouched.index, vouched.blobs),
        None => (manifest(), Vec::new()),
    };
    let created = image.config.created.as_deref().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    Ok(ImageRecord {
        target,
        manifest: image.manifest_digest(),
        config: image.config_digest(),
        layers: layers.to_vec(),
        diff_ids: image.config.rootfs.diff_ids.clone(),
        blobs,
        platform: image.config.platform.to_string(),
        created_ms: created.map_or(0, millis),
        tagged_ms: millis(jiff::Timestamp::now()),
        size,
    })
}

fn millis(t: jiff::Timestamp) -> u64 {
    u64::try_from(t.as_millisecond()).unwrap_or(0)
}
