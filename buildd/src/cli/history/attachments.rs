//! What a daemon keeps beside a build: its results' manifests, and what is told of them.

use proto::content::ReadContentRequest;
use proto::control::{BuildHistoryRecord, BuildResultInfo, Descriptor};

use crate::client::{Client, ClientError};

/// The annotation that names a statement's type (in-toto attestation framework).
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// One blob.
pub(super) struct Attachment<'a> {
    /// For which platform, if for several.
    pub(super) platform: Option<&'a str>,
    pub(super) descriptor: &'a Descriptor,
}

impl Attachment<'_> {
    /// The type of a statement's predicate, else the media type.
    pub(super) fn kind(&self) -> &str {
        self.descriptor.annotations.get(PREDICATE_TYPE).unwrap_or(&self.descriptor.media_type)
    }
}

/// All of a build.
pub(super) fn of(record: &BuildHistoryRecord) -> Vec<Attachment<'_>> {
    fn blobs(info: &BuildResultInfo) -> impl Iterator<Item = &Descriptor> {
        info.results.values().chain(&info.attestations)
    }
    let only = record.result.iter().flat_map(blobs);
    let only = only.map(|descriptor| Attachment { platform: None, descriptor });
    let several = record.results.iter().flat_map(|(platform, info)| {
        blobs(info).map(move |descriptor| Attachment { platform: Some(platform), descriptor })
    });
    only.chain(several).collect()
}

/// The bytes of a blob.
pub(in crate::cli) async fn read(client: &Client, digest: &str) -> Result<Vec<u8>, ClientError> {
    let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
    let mut parts = client.content().read(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await? {
        bytes.extend_from_slice(&part.data);
    }
    Ok(bytes)
}
