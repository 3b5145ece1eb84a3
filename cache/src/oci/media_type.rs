//! Media types of the OCI image specification 1.1 and of Docker's image manifest version 2, schema 2.

/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An OCI layer: a plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// An OCI layer: a gzipped tar.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// An OCI layer: a tar compressed with zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The empty JSON object that artifacts use for a config.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// An in-toto statement, the layer of an attestation manifest.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Bytes of which nothing else is known (RFC 2046).
pub const OCTET_STREAM: &str = "application/octet-stream";

/// A Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A Docker manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A Docker layer: a gzipped tar.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A Docker layer: a plain tar.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A Docker layer: a tar compressed with zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// What a client offers to understand when it asks for a manifest, the value of `Accept`.
pub const MANIFEST_ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, */*;q=0.1";

/// Whether `media_type` names a list of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

/// Whether `media_type` names the manifest of one image.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Whether `media_type` names an image config.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether `media_type` names a file system layer, compressed or not, distributable or not.
pub fn is_layer(media_type: &str) -> bool {
    let base = media_type.split('+').next().unwrap_or(media_type);
    matches!(base, OCI_LAYER | "application/vnd.oci.image.layer.nondistributable.v1.tar")
        || media_type.starts_with(DOCKER_LAYER)
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
}

/// Whether a blob of this type is a statement about an image, signed or not.
pub fn is_statement(media_type: &str) -> bool {
    media_type == IN_TOTO || is_signed_statement(media_type)
}

/// Whether a blob of this type is an in-toto statement in an envelope with signatures (DSSE), such as
/// `application/vnd.in-toto.provenance+dsse`.
pub fn is_signed_statement(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.in-toto.") && media_type.ends_with("+dsse")
}

/// Whether a layer of this type is not kept in registries but fetched from the URLs of its descriptor.
pub fn is_foreign_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
        || media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
}

/// The type of a layer of this type that is kept in registries as others are.
pub fn distributable(media_type: &str) -> String {
    media_type
        .replace("rootfs.foreign.diff.tar", "rootfs.diff.tar")
        .replace(".layer.nondistributable.", ".layer.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_from_elsewhere_become_ordinary_ones() {
        for (foreign, own) in [
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", DOCKER_LAYER_GZIP),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", OCI_LAYER_ZSTD),
            (OCI_LAYER_GZIP, OCI_LAYER_GZIP),
        ] {
            assert_eq!(distributable(foreign), own);
            assert!(is_layer(foreign));
        }
    }

    #[test]
    fn statements_are_told_from_other_types() {
        let signed = "application/vnd.in-toto.spdx+dsse";
        assert!(is_statement(IN_TOTO) && !is_signed_statement(IN_TOTO));
        assert!(is_statement(signed) && is_signed_statement(signed));
        for other in [OCI_LAYER_GZIP, OCI_CONFIG, OCI_EMPTY, "application/vnd.in-toto.spdx+json"] {
            assert!(!is_statement(other), "{other}");
        }
    }

    #[test]
    fn layers_are_told_from_other_types() {
        for layer in [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP] {
            assert!(is_layer(layer), "{layer}");
            assert!(!is_foreign_layer(layer), "{layer}");
        }
        for foreign in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        ] {
            assert!(is_layer(foreign) && is_foreign_layer(foreign), "{foreign}");
        }
        for other in [OCI_CONFIG, OCI_MANIFEST, IN_TOTO, OCI_EMPTY, "application/json"] {
            assert!(!is_layer(other), "{other}");
        }
    }
}
