//! What an exporter is asked to do: BuildKit's exporter attributes, read.

use std::collections::BTreeMap;

use cache::oci::{Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, Reference};

use super::annotations::Annotations;
use super::layers::Packing;
use crate::daemon::metadata::Metadata;

/// Where a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportKind {
    /// Into the image store, and from there to a registry.
    Image,
    /// An OCI archive.
    Oci,
    /// An archive that `docker load` reads.
    Docker,
    /// A directory of the client.
    Local,
    /// A tar of the files.
    Tar,
}

impl ExportKind {
    /// What the step is called, in BuildKit's words.
    pub(crate) fn step_name(self) -> &'static str {
        match self {
            Self::Image => "exporting to image",
            Self::Oci => "exporting to oci image format",
            Self::Docker => "exporting to docker image format",
            Self::Local => "exporting to client directory",
            Self::Tar => "exporting to client tarball",
        }
    }
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportRequest {
    /// Where the result goes.
    pub kind: ExportKind,
    /// The number by which the client knows it.
    pub id: usize,
    /// Names for the image.
    pub names: Vec<Reference>,
    /// The build's frontend names the image.
    pub named_by_frontend: bool,
    /// What the attributes say of the result; it wins over what the frontend says.
    pub metadata: Metadata,
    /// Push them.
    pub push: bool,
    /// Keep the image under its names; where nothing is said, if it is not pushed (as with BuildKit's own worker).
    pub store: bool,
    /// It may be kept without the layers that registries have.
    pub store_incomplete: bool,
    /// Under no tag: only its digest names it, there and here.
    pub push_by_digest: bool,
    /// How layers are stored.
    pub compression: Compression,
    /// Also layers that exist in another form.
    pub force_compression: bool,
    /// OCI's media types rather than Docker's.
    pub oci_types: bool,
    /// An archive rather than a directory.
    pub tar: bool,
    /// The build has no other exports.
    pub alone: bool,
    /// Each platform's files in a directory of their own; where nothing is said, if there are several.
    pub platform_split: Option<bool>,
    /// What the names of files with statements begin with.
    pub attestation_prefix: String,
    /// The time that files get which leave.
    pub epoch: EpochChoice,
    /// Layers above the base image hold no later time than that.
    pub rewrite_timestamp: bool,
    /// What is set in manifests and the index.
    pub annotations: Annotations,
    /// What is told of an image is an artifact that names the image, rather than an image of its own.
    pub oci_artifact: bool,
    /// Also statements that are for images only go with the image.
    pub attestation_inline: bool,
}

/// Which time an exporter gives to what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EpochChoice {
    /// What the build says.
    #[default]
    OfBuild,
    /// None, whatever the build says.
    None,
    /// This one, in seconds since 1970.
    Given(i64),
}

impl EpochChoice {
    /// The time that the exporter was given.
    pub(crate) fn given(self) -> Option<i64> {
        match self {
            Self::Given(seconds) => Some(seconds),
            Self::OfBuild | Self::None => None,
        }
    }

    /// The time, where the build says `built`.
    pub(crate) fn apply(self, built: Option<i64>) -> Option<i64> {
        match self {
            Self::OfBuild => built,
            Self::None => None,
            Self::Given(seconds) => Some(seconds),
        }
    }
}

/// An attribute that cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttrError {
    /// An annotation for something that is none.
    #[error(
        "invalid annotation `{0}`: want annotation[-manifest|-manifest-descriptor|-index|-index-descriptor][[PLATFORM]].KEY"
    )]
    Annotation(String),
    /// No such exporter.
    #[error("exporter `{0}` could not be found")]
    Kind(String),
    /// A value that cannot be.
    #[error("invalid value `{value}` of exporter attribute `{name}`")]
    Value {
        /// Which attribute.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// Two attributes that exclude each other.
    #[error("exporter option \"{0}\" conflicts with \"{1}\"")]
    Conflict(&'static str, &'static str),
    /// A malformed image name.
    #[error("invalid image name")]
    Name(#[from] cache::oci::Error),
}

impl ExportRequest {
    /// How layers become blobs.
    pub(super) fn packing(&self) -> Packing {
        Packing { compression: self.compression, force: self.force_compression }
    }

    /// How this export makes blobs of the layers that a build makes; `None` where it makes none that are those layers.
    pub(crate) fn layer_form(&self) -> Option<Packing> {
        let makes_blobs = match self.kind {
            ExportKind::Image => self.push,
            ExportKind::Oci | ExportKind::Docker => true,
            ExportKind::Local | ExportKind::Tar => false,
        };
        let packing = self.packing();
        (makes_blobs && !self.rewrite_timestamp && !packing.compression.is_indexed()).then_some(packing)
    }

    /// Whether layers that all repositories have that are pushed to need not be here.
    pub(crate) fn only_needs_blobs(&self) -> bool {
        let only_pushed = self.kind == ExportKind::Image && self.push && !self.names.is_empty();
        only_pushed && !self.named_by_frontend && self.layer_form().is_some()
    }

    /// Reads the exporter numbered `id`.
    ///
    /// # Errors
    /// An unknown exporter, a value that cannot be.
    pub(crate) fn new(id: usize, kind: &str, attrs: &BTreeMap<String, String>) -> Result<Self, AttrError> {
        let kind = match kind {
            "image" => ExportKind::Image,
            "oci" => ExportKind::Oci,
            "docker" => ExportKind::Docker,
            "local" => ExportKind::Local,
            "tar" => ExportKind::Tar,
            other => return Err(AttrError::Kind(other.to_owned())),
        };
        let flag = |name: &'static str, otherwise| match attrs.get(name).map(String::as_str) {
            None => Ok(otherwise),
            Some("" | "true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(value) => Err(AttrError::Value { name, value: value.to_owned() }),
        };
        let push = flag("push", false)?;
        let names = attrs.get("name").map(String::as_str).unwrap_or_default();
        let annotations = Annotations::new(attrs)?;
        let compression = compression_of(attrs)?;
        // Docker's types have no place for annotations and indexes; BuildKit turns to the others, too.
        let oci_types = flag("oci-mediatypes", true)? || !annotations.is_empty() || compression.is_indexed();
        let oci_artifact = flag("oci-artifact", oci_types)?;
        if oci_artifact && !oci_types {
            return Err(AttrError::Conflict("oci-artifact=true", "oci-mediatypes=false"));
        }
        let named_by_frontend = names == "*";
        Ok(Self {
            kind,
            id,
            names: if named_by_frontend { Vec::new() } else { image_names(names)? },
            named_by_frontend,
            metadata: Metadata::of_attrs(attrs),
            push,
            store: flag("store", !push)?,
            store_incomplete: flag("store-allow-incomplete", false)?,
            push_by_digest: flag("push-by-digest", false)?,
            compression,
            force_compression: flag("force-compression", false)?,
            oci_types,
            oci_artifact,
            attestation_inline: flag("attestation-inline", kind == ExportKind::Image)?,
            tar: flag("tar", true)?,
            alone: true,
            platform_split: attrs
                .contains_key("platform-split")
                .then(|| flag("platform-split", false))
                .transpose()?,
            attestation_prefix: attrs.get("attestation-prefix").cloned().unwrap_or_default(),
            epoch: epoch(attrs)?,
            rewrite_timestamp: flag("rewrite-timestamp", false)?,
            annotations,
        })
    }
}

/// Reads names that commas separate.
///
/// # Errors
/// A malformed one.
pub(super) fn image_names(names: &str) -> Result<Vec<Reference>, AttrError> {
    let parse = |name: &str| Ok(Reference::parse(name)?.with_default_tag());
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(parse).collect()
}

/// `source-date-epoch`; an empty one takes the build's away.
fn epoch(attrs: &BTreeMap<String, String>) -> Result<EpochChoice, AttrError> {
    match attrs.get("source-date-epoch").map(String::as_str) {
        None => Ok(EpochChoice::OfBuild),
        Some("") => Ok(EpochChoice::None),
        Some(value) => value
            .parse()
            .map(EpochChoice::Given)
            .map_err(|_| AttrError::Value { name: "source-date-epoch", value: value.to_owned() }),
    }
}

/// How layers are stored, by the attributes `compression` and `compression-level`.
///
/// # Errors
/// A kind or level that does not exist.
pub(crate) fn compression_of(attrs: &BTreeMap<String, String>) -> Result<Compression, AttrError> {
    let level = |default: u8, most: u8| match attrs.get("compression-level") {
        None => Ok(default),
        Some(v) => match v.parse::<u8>() {
            Ok(n) if n <= most => Ok(n),
            _ => Err(AttrError::Value { name: "compression-level", value: v.clone() }),
        },
    };
    match attrs.get("compression").map(String::as_str) {
        Some("estargz") => Ok(Compression::Estargz { level: level(DEFAULT_GZIP_LEVEL, 9)? }),
        None | Some("gzip") => Ok(Compression::Gzip { level: level(DEFAULT_GZIP_LEVEL, 9)? }),
        Some("zstd") => Ok(Compression::Zstd { level: level(DEFAULT_ZSTD_LEVEL, 22)? }),
        Some("uncompressed") => Ok(Compression::Uncompressed),
        Some(other) => Err(AttrError::Value { name: "compression", value: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, attrs: &[(&str, &str)]) -> Result<ExportRequest, AttrError> {
        ExportRequest::new(0, kind, &attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn reads() {
        let r = of(
            "image",
            &[("name", "a,b:1"), ("push", "true"), ("compression", "zstd"), ("compression-level", "9")],
        )
        .unwrap();
        assert_eq!(
            r.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["docker.io/library/a:latest", "docker.io/library/b:1"]
        );
        assert!(r.push && r.oci_types);
        assert_eq!(r.compression, Compression::Zstd { level: 9 });
    }

    #[test]
    fn times() {
        let epoch = |attrs: &[(&str, &str)]| of("oci", attrs).unwrap().epoch;
        assert_eq!(epoch(&[]).apply(Some(1)), Some(1));
        assert_eq!(epoch(&[("source-date-epoch", "")]).apply(Some(1)), None);
        assert_eq!(epoch(&[("source-date-epoch", "2")]).apply(Some(1)), Some(2));
        assert!(of("oci", &[("source-date-epoch", "today")]).is_err());
    }

    #[test]
    fn rejects() {
        let conflict = of("oci", &[("oci-mediatypes", "false"), ("oci-artifact", "true")]);
        assert!(matches!(conflict, Err(AttrError::Conflict(..))));
        assert!(matches!(of("floppy", &[]), Err(AttrError::Kind(_))));
        for attrs in
            [("push", "maybe"), ("compression", "lzma"), ("compression-level", "99"), ("name", "UPPER")]
        {
            assert!(of("image", &[attrs]).is_err(), "{attrs:?}");
        }
    }
}
