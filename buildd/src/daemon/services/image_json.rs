//! Images described: `inspect` and `history`.

use cache::oci::ImageMetadata;
use cache::store::{ImageRecord, Store};
use proto::rbuild::HistoryEntry;
use serde_json::{Value, json};
use tonic::Status;

use super::images::{find, given_name};
use super::statements::{self, Statement};
use crate::daemon::claims::{PROVENANCE, SPDX};
use crate::daemon::control::store_status;
use crate::daemon::provenance::PREDICATE_TYPE;

const CONFIG_LIMIT: u64 = 16 << 20;

/// One element of what `docker image inspect` prints.
///
/// # Errors
/// No such image.
pub(super) fn inspect(store: &Store, text: &str) -> Result<String, Status> {
    let (_, record) = find(store, text)?;
    let config = config(store, &record)?;
    let same = store.images().list().map_err(store_status)?;
    let same = same.iter().filter(|(_, r)| r.config == record.config);
    let tags: Vec<String> = same.filter_map(|(name, _)| Some(given_name(name)?.familiar())).collect();
    let value = json!({
        "Id": record.config.to_string(),
        "RepoTags": tags,
        "Digest": record.target.digest.to_string(),
        "Manifest": record.manifest.to_string(),
        "Created": config.created,
        "Author": config.author.as_deref().unwrap_or_default(),
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant.as_deref().unwrap_or_default(),
        "Os": config.platform.os,
        "Size": record.size,
        "Config": config.config,
        "RootFS": { "Type": "layers", "Layers": record.diff_ids },
        "Attestations": attestations(store, &record, &config)?,
    });
    serde_json::to_string_pretty(&value).map_err(|e| Status::internal(e.to_string()))
}

/// What is said of an image, and of those of other platforms under the same name.
fn attestations(store: &Store, record: &ImageRecord, config: &ImageMetadata) -> Result<Vec<Value>, Status> {
    let said = |Statement { descriptor, image, platform }: Statement| {
        // An index need not say which machine its only image is for.
        let platform = platform.or_else(|| (image == record.manifest).then(|| config.platform.full()));
        let kind = descriptor.annotations.get(PREDICATE_TYPE).map_or("", String::as_str);
        json!({
            "Kind": named_kind(kind),
            "PredicateType": kind,
            "MediaType": descriptor.media_type,
            "Digest": descriptor.digest.to_string(),
            "Size": descriptor.size,
            "Image": image.to_string(),
            "Platform": platform,
        })
    };
    Ok(statements::of_image(store, record)?.into_iter().map(said).collect())
}

/// What people call statements of a type.
fn named_kind(predicate_type: &str) -> &'static str {
    match predicate_type {
        SPDX => "sbom",
        kind if kind.starts_with(PROVENANCE) => "provenance",
        _ => "other",
    }
}

/// How an image came to be, newest first.
///
/// # Errors
/// No such image.
pub(super) fn history(store: &Store, text: &str) -> Result<Vec<HistoryEntry>, Status> {
    let (_, record) = find(store, text)?;
    let config = config(store, &record)?;
    let mut layers = record.layers.iter().zip(&record.diff_ids);
    let mut entries = Vec::new();
    for h in &config.history {
        let mut entry = HistoryEntry {
            created: h.created.as_deref().and_then(|t| t.parse::<prost_types::Timestamp>().ok()),
            created_by: h.created_by.clone().unwrap_or_default(),
            comment: h.comment.clone().unwrap_or_default(),
            ..HistoryEntry::default()
        };
        if !h.empty_layer
            && let Some((id, diff_id)) = layers.next()
        {
            entry.diff_id = diff_id.to_string();
            entry.size = store.layers().get(id).map_err(store_status)?.map_or(0, |l| l.size as i64);
        }
        entries.push(entry);
    }
    entries.reverse();
    Ok(entries)
}

/// The image's config.
pub(super) fn config(store: &Store, record: &ImageRecord) -> Result<ImageMetadata, Status> {
    let bytes = store.blobs().read(&record.config, CONFIG_LIMIT).map_err(store_status)?;
    ImageMetadata::parse(&bytes).map_err(|e| Status::internal(e.to_string()))
}
