//! What an exporter is asked to do: BuildKit's exporter attributes, read.

use std::collections::BTreeMap;

use cache::oci::{Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, Reference};

use super::layers::Packing;

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
    /// Push them.
    pub push: bool,
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
}

/// An attribute that cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttrError {
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
    /// A malformed image name.
    #[error("invalid image name")]
    Name(#[from] cache::oci::Error),
}

impl ExportRequest {
    /// How layers become blobs.
    pub(super) fn packing(&self) -> Packing {
        Packing { compression: self.compression, force: self.force_compression }
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
        let names = attrs.get("name").map(String::as_str).unwrap_or_default();
        let parse = |n: &str| Ok::<_, AttrError>(Reference::parse(n)?.with_default_tag());
        Ok(Self {
            kind,
            id,
            names: names
                .split(',')
                .map(str::trim)
                .filter(|n| !n.is_empty())
                .map(parse)
                .collect::<Result<_, _>>()?,
            push: flag("push", false)?,
            compression: compression(attrs)?,
            force_compression: flag("force-compression", false)?,
            oci_types: flag("oci-mediatypes", kind != ExportKind::Docker)?,
            tar: flag("tar", true)?,
            alone: true,
        })
    }
}

fn compression(attrs: &BTreeMap<String, String>) -> Result<Compression, AttrError> {
    let level = |default: u8, most: u8| match attrs.get("compression-level") {
        None => Ok(default),
        Some(v) => match v.parse::<u8>() {
            Ok(n) if n <= most => Ok(n),
            _ => Err(AttrError::Value { name: "compression-level", value: v.clone() }),
        },
    };
    match attrs.get("compression").map(String::as_str) {
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
    fn rejects() {
        assert!(matches!(of("floppy", &[]), Err(AttrError::Kind(_))));
        for attrs in
            [("push", "maybe"), ("compression", "lzma"), ("compression-level", "99"), ("name", "UPPER")]
        {
            assert!(of("image", &[attrs]).is_err(), "{attrs:?}");
        }
    }
}
