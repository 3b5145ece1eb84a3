//! The OCI and Docker image formats: names, documents, platforms, archives and layer compression.
//!
//! Everything here is synchronous and knows no network. Documents that a registry or an archive
//! gave are only ever named by the digest of the bytes received; what these types write out again
//! keeps every field that they do not know.

mod ahead;
mod archive;
#[cfg(test)]
mod archive_tests;
mod compress;
mod config;
mod decompress;
mod descriptor;
mod docker_archive;
mod document;
mod error;
mod layout;
mod lossless;
mod manifest;
pub mod media_type;
mod platform;
mod platform_match;
mod reference;
mod resolved;
mod search;
mod tar_index;
mod verify;

pub use archive::{
    ANNOTATION_CREATED, ANNOTATION_REF_NAME, Amend, ArchiveFormat, ArchiveImage, ArchiveWriter, BlobSource,
};
pub use compress::{
    BLOCK_SIZE, Compression, Compressor, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, Estargz, EstargzWriter,
    TOC_DIGEST, UNCOMPRESSED_SIZE,
};
pub use config::{Healthcheck, History, ImageConfig, ImageMetadata, RootFs};
pub use decompress::{Decompressor, sniff};
pub use descriptor::Descriptor;
pub use docker_archive::{DockerArchive, DockerImage, DockerLayer, ImageArchive};
pub use document::{CONFIG_LIMIT, Document, MANIFEST_LIMIT};
pub use error::Error;
pub use layout::Layout;
pub use manifest::{Index, Manifest};
pub use platform::Platform;
pub use platform_match::PlatformMatcher;
pub use reference::Reference;
pub use resolved::ResolvedImage;
pub use search::{Part, Search, Wanted};
pub use verify::VerifiedReader;
