//! What a client asks for: `--cache-from` and `--cache-to` in BuildKit's attributes.

use std::collections::BTreeMap;

use cache::oci::{Compression, Reference};
use frontend::number::boolean;
use proto::control::CacheOptionsEntry;
use serde::Deserialize;

use super::service::{Attrs, CacheService, WrongAttr};
use crate::daemon::export::{Packing, compression_of};
use crate::daemon::keyed_cache::{KEYED, KeyedSource, KeyedTarget, MERGEABLE, MOUNTS};

/// A cache to look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum CacheImport {
    /// At a registry, as a cache or within an image.
    Registry(Reference),
    /// In a directory of the client.
    Local {
        /// The client's name for the directory's content store.
        store: String,
        /// The digest of the cache's manifest.
        digest: solver::Digest,
    },
    /// At a service.
    Service(CacheService),
    /// Something that cannot be; the build goes on without it.
    Unusable {
        /// What the client calls it.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// A cache to look into, in whichever format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum Wanted {
    /// In BuildKit's.
    Graph(CacheImport),
    /// Records under the solver's keys.
    Keyed(KeyedSource),
}

/// The caches that a request wants written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct CacheExports {
    /// In BuildKit's format.
    pub graphs: Vec<CacheExport>,
    /// Records under the solver's keys.
    pub keyed: Vec<KeyedTarget>,
}

/// A cache to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct CacheExport {
    /// Where to.
    pub place: CachePlace,
    /// Also the results of steps whose layers are not part of the result.
    pub all: bool,
    /// How layers are stored.
    pub packing: Packing,
    /// OCI's media types rather than Docker's.
    pub oci: bool,
    /// As an image's manifest rather than as an index.
    pub image: bool,
    /// A failure to write it does not fail the build.
    pub ignore_error: bool,
}

/// Where a cache goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum CachePlace {
    /// Into the images that are exported.
    Inline,
    /// To a registry.
    Registry(Reference),
    /// Into a directory of the client: the name of its content store.
    Local(String),
    /// To a service.
    Service(CacheService),
}

/// A cache export that cannot be.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum CacheRequestError {
    /// No such kind of cache.
    #[error("unknown cache exporter: {0:?}")]
    Kind(String),
    /// An attribute is missing.
    #[error("failed to configure {kind} cache exporter: {what}")]
    Missing {
        /// Which kind of cache.
        kind: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// A service's attribute is missing or malformed.
    #[error("failed to configure {kind} cache exporter: {what}")]
    Service {
        /// Which kind of cache.
        kind: String,
        /// What is wrong.
        what: WrongAttr,
    },
    /// A value that cannot be.
    #[error("failed to parse {name}: invalid value `{value}`")]
    Value {
        /// Which attribute.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// An image's manifest has OCI's media types only.
    #[error(
        "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format"
    )]
    NoOci,
    /// A malformed name.
    #[error(transparent)]
    Name(#[from] cache::oci::Error),
    /// A kind or level of compression that cannot be.
    #[error(transparent)]
    Compression(#[from] crate::daemon::export::AttrError),
}

impl Wanted {
    fn read(entry: &CacheOptionsEntry) -> Self {
        if entry.r#type != KEYED {
            return Self::Graph(CacheImport::read(entry));
        }
        match KeyedSource::read(&Attrs { attrs: &entry.attrs, env: &environment }) {
            Ok(source) => Self::Keyed(source),
            Err(error) => Self::Graph(CacheImport::Unusable {
                name: format!(
                    "{KEYED}:{}",
                    solver::redacted(entry.attrs.get("url").map_or("", String::as_str))
                ),
                reason: format!("failed to configure {KEYED} cache importer: {error}"),
            }),
        }
    }
}

impl CacheImport {
    fn read(entry: &CacheOptionsEntry) -> Self {
        let get = |name: &str| entry.attrs.get(name).map_or("", String::as_str);
        let unusable =
            |reason: String| Self::Unusable { name: format!("{}:{}", entry.r#type, get("ref")), reason };
        match entry.r#type.as_str() {
            "registry" => match Reference::parse(get("ref")) {
                Ok(reference) => Self::Registry(reference.with_default_tag()),
                Err(error) => unusable(format!("failed to configure registry cache importer: {error}")),
            },
            "local" => match (get("src"), get("digest").parse()) {
                ("", _) => unusable("local cache importer requires src".to_owned()),
                (src, Ok(digest)) => Self::Local { store: format!("local:{src}"), digest },
                (_, Err(_)) => unusable("local cache importer requires explicit digest".to_owned()),
            },
            other => match CacheService::read(other, &entry.attrs, &environment) {
                Some(Ok(service)) => Self::Service(service),
                Some(Err(error)) => unusable(format!("failed to configure {other} cache importer: {error}")),
                None => unusable(format!("unknown cache importer: {other}")),
            },
        }
    }
}

/// The caches that a frontend's attributes name.
pub(in crate::daemon) fn told_imports(attrs: &BTreeMap<String, String>) -> Vec<CacheOptionsEntry> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        r#type: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
    }
    let json = attrs.get("cache-imports").map_or("", String::as_str);
    let told: Vec<Entry> = serde_json::from_str(json).unwrap_or_default();
    let told = told.into_iter().map(|e| CacheOptionsEntry { r#type: e.r#type, attrs: e.attrs });
    let old = attrs.get("cache-from").map_or("", String::as_str);
    let old = old.split(',').filter(|name| !name.is_empty()).map(|name| CacheOptionsEntry {
        r#type: "registry".to_owned(),
        attrs: BTreeMap::from([("ref".to_owned(), name.to_owned())]),
    });
    told.chain(old).collect()
}

/// The caches that a frontend's attributes and a request name, each once.
pub(in crate::daemon) fn imports_of(
    attrs: &BTreeMap<String, String>,
    entries: &[CacheOptionsEntry],
) -> Vec<Wanted> {
    told_imports(attrs).iter().chain(entries).map(Wanted::read).collect()
}

/// The caches that a request wants written.
///
/// # Errors
/// Unknown kinds, missing or malformed attributes.
pub(in crate::daemon) fn exports(entries: &[CacheOptionsEntry]) -> Result<CacheExports, CacheRequestError> {
    let mut exports = CacheExports::default();
    for entry in entries {
        if entry.r#type != KEYED {
            exports.graphs.push(export(entry)?);
            continue;
        }
        let target = KeyedTarget::read(&Attrs { attrs: &entry.attrs, env: &environment });
        let what = |what| CacheRequestError::Service { kind: KEYED.to_owned(), what };
        exports.keyed.push(target.map_err(what)?);
    }
    Ok(exports)
}

/// What of the caches that a frontend's attributes and a request name can have no effect. Other attributes that a cache knows nothing of
/// are left alone, as BuildKit leaves them.
pub(in crate::daemon) fn idle_attributes(
    attrs: &BTreeMap<String, String>,
    imports: &[CacheOptionsEntry],
    exports: &[CacheOptionsEntry],
) -> Vec<String> {
    let told = told_imports(attrs);
    let mut idle: Vec<String> = Vec::new();
    for entry in told.iter().chain(imports).chain(exports).filter(|entry| entry.r#type != KEYED) {
        for name in [MOUNTS, MERGEABLE] {
            let text = format!(
                "`{name}=` has no effect on a cache of type `{}`: cache mounts travel by those of type `{KEYED}` only",
                entry.r#type
            );
            if entry.attrs.get(name).is_some_and(|value| !value.is_empty()) && !idle.contains(&text) {
                idle.push(text);
            }
        }
    }
    idle
}

/// A variable of the daemon's environment.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn export(entry: &CacheOptionsEntry) -> Result<CacheExport, CacheRequestError> {
    let get = |name: &str| entry.attrs.get(name).map_or("", String::as_str);
    let flag = |name: &'static str| match get(name) {
        "" => Ok(None),
        value => {
            boolean(value).map(Some).ok_or_else(|| CacheRequestError::Value { name, value: value.to_owned() })
        }
    };
    let place = match entry.r#type.as_str() {
        "inline" => CachePlace::Inline,
        "registry" if get("ref").is_empty() => {
            return Err(CacheRequestError::Missing { kind: "registry", what: "missing ref" });
        }
        "registry" => CachePlace::Registry(Reference::parse(get("ref"))?.with_default_tag()),
        "local" if get("dest").is_empty() => {
            return Err(CacheRequestError::Missing {
                kind: "local",
                what: "local cache exporter requires dest",
            });
        }
        "local" => CachePlace::Local(format!("local:{}", get("dest"))),
        other => match CacheService::read(other, &entry.attrs, &environment) {
            Some(Ok(service)) => CachePlace::Service(service),
            Some(Err(what)) => return Err(CacheRequestError::Service { kind: other.to_owned(), what }),
            None => return Err(CacheRequestError::Kind(other.to_owned())),
        },
    };
    let oci = flag("oci-mediatypes")?.unwrap_or(true);
    let image = flag("image-manifest")?.unwrap_or(oci);
    if image && !oci {
        return Err(CacheRequestError::NoOci);
    }
    let (compression, force) = match place {
        CachePlace::Inline => (Compression::default(), false),
        _ => (compression_of(&entry.attrs)?, flag("force-compression")?.unwrap_or(false)),
    };
    Ok(CacheExport {
        place,
        all: get("mode") == "max",
        packing: Packing { compression, force },
        oci,
        image,
        ignore_error: flag("ignore-error")?.unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_keyed_caches_know() {
        let entry = |kind: &str, attrs: &[(&str, &str)]| CacheOptionsEntry {
            r#type: kind.to_owned(),
            attrs: attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let mounts = ("cache-mounts", "all");
        let imports = r#"[{"Type":"registry","Attrs":{"ref":"h/r","cache-mounts":"all"}}]"#;
        let attrs = BTreeMap::from([("cache-imports".to_owned(), imports.to_owned())]);
        let told = idle_attributes(
            &attrs,
            &[entry("registry", &[mounts]), entry("keyed", &[mounts]), entry("gha", &[("cache-mounts", "")])],
            &[entry("s3", &[mounts, ("mergeable", "go"), ("whatever", "else")])],
        );
        let says = |name: &str, kind: &str| {
            format!(
                "`{name}=` has no effect on a cache of type `{kind}`: cache mounts travel by those of type `keyed` only"
            )
        };
        assert_eq!(
            told,
            [says("cache-mounts", "registry"), says("cache-mounts", "s3"), says("mergeable", "s3")]
        );
    }
}
