//! `index.json` of an OCI layout that a build writes: a cache, or an image (`tar=false`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cache::oci::ANNOTATION_REF_NAME as TAG;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{ClientError, Destination, Output};

/// The tag where none is given.
pub(super) const LATEST: &str = "latest";

/// The annotation that holds an image's whole name, as containerd has it.
const IMAGE_NAME: &str = "io.containerd.image.name";

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
    #[serde(default)]
    manifests: Vec<Value>,
}

/// What a manifest is called in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    image: Option<String>,
    tag: String,
}

impl Entry {
    /// A mere tag.
    pub(super) fn tag(tag: &str) -> Self {
        Self { image: None, tag: tag.to_owned() }
    }

    /// An image's name, `host/repository[:tag]`.
    fn image(name: &str) -> Self {
        let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
        Self { image: Some(name.to_owned()), tag: tag.unwrap_or(LATEST).to_owned() }
    }

    fn is_of(&self, manifest: &Value) -> bool {
        let says = |key: &str, value: &str| manifest["annotations"][key].as_str() == Some(value);
        match &self.image {
            Some(image) => says(IMAGE_NAME, image),
            None => says(TAG, &self.tag),
        }
    }
}

/// The digest of what has a tag in the layout at `dir`.
pub(super) fn digest_of(dir: &Path, tag: &str) -> Option<String> {
    let index: Index = serde_json::from_slice(&fs_err::read(dir.join("index.json")).ok()?).ok()?;
    let entry = Entry::tag(tag);
    let tagged = index.manifests.iter().find(|m| entry.is_of(m))?;
    tagged["digest"].as_str().map(str::to_owned)
}

/// Names a manifest in the index of the layout at `dir`, in place of the one that was called so.
///
/// # Errors
/// The directory cannot be written.
pub(super) fn put(dir: &Path, entry: &Entry, mut manifest: Value) -> Result<(), ClientError> {
    let path = dir.join("index.json");
    let read = fs_err::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut index = read.unwrap_or_else(|| Index {
        rest: serde_json::Map::from_iter([("schemaVersion".to_owned(), 2.into())]),
        manifests: Vec::new(),
    });
    index.manifests.retain(|m| !entry.is_of(m));
    manifest["annotations"][TAG] = entry.tag.clone().into();
    if let Some(image) = &entry.image {
        manifest["annotations"][IMAGE_NAME] = image.clone().into();
    }
    index.manifests.push(manifest);
    let json = serde_json::to_vec(&index).map_err(|e| ClientError::Usage(e.to_string()))?;
    let version = br#"{"imageLayoutVersion":"1.0.0"}"#;
    fs_err::write(dir.join("oci-layout"), version).map_err(|e| ClientError::io(dir, e))?;
    let next = dir.join(".index.json.next");
    fs_err::write(&next, json).map_err(|e| ClientError::io(&next, e))?;
    fs_err::rename(&next, &path).map_err(|e| ClientError::io(&path, e))
}

/// The directory among a build's outputs that its image's blobs go into.
///
/// # Errors
/// Several: the daemon names no exporter when it writes blobs. A directory that cannot be made.
pub(super) fn layout(outputs: &[Output]) -> Result<Option<PathBuf>, ClientError> {
    let mut dirs = outputs.iter().filter_map(|output| match &output.destination {
        Destination::Layout(dir) => Some(dir.clone()),
        _ => None,
    });
    let dir = dirs.next();
    if dirs.next().is_some() {
        return Err(ClientError::Usage("only one output can have `tar=false`".to_owned()));
    }
    if let Some(dir) = &dir {
        fs_err::create_dir_all(dir).map_err(|e| ClientError::io(dir, e))?;
    }
    Ok(dir)
}

/// Names the image that a build wrote into the layout at `dir`.
///
/// # Errors
/// An answer without the image's descriptor; the directory cannot be written.
pub(super) fn finish(dir: &Path, response: &BTreeMap<String, String>) -> Result<(), ClientError> {
    let descriptor = response.get("containerimage.descriptor").and_then(|text| STANDARD.decode(text).ok());
    let descriptor = descriptor.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    let descriptor =
        descriptor.ok_or_else(|| ClientError::Usage("the daemon did not say what it wrote".to_owned()))?;
    let entries = match response.get("image.name").filter(|names| !names.is_empty()) {
        Some(names) => names.split(',').map(Entry::image).collect(),
        None => vec![Entry::tag(LATEST)],
    };
    entries.iter().try_for_each(|entry| put(dir, entry, descriptor.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tag_moves() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(digest_of(dir.path(), LATEST), None);
        for digest in ["sha256:a", "sha256:b"] {
            put(dir.path(), &Entry::tag(LATEST), json!({ "digest": digest })).unwrap();
            put(dir.path(), &Entry::tag("other"), json!({ "digest": "sha256:c" })).unwrap();
        }
        assert_eq!(digest_of(dir.path(), LATEST).as_deref(), Some("sha256:b"));
        assert_eq!(digest_of(dir.path(), "other").as_deref(), Some("sha256:c"));
        assert!(dir.path().join("oci-layout").exists());
    }

    #[test]
    fn images_are_told_apart_by_their_whole_names() {
        let dir = tempfile::tempdir().unwrap();
        let descriptor = |digest: &str| STANDARD.encode(json!({ "digest": digest }).to_string());
        let response = |digest: &str, names: &str| {
            BTreeMap::from([
                ("containerimage.descriptor".to_owned(), descriptor(digest)),
                ("image.name".to_owned(), names.to_owned()),
            ])
        };
        finish(dir.path(), &response("sha256:a", "h:5/a:1,h:5/b")).unwrap();
        finish(dir.path(), &response("sha256:b", "h:5/a:1")).unwrap();
        let index = fs_err::read_to_string(dir.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        let told = |m: &Value| {
            let a = &m["annotations"];
            format!("{} {} {}", m["digest"], a[IMAGE_NAME], a[TAG]).replace('"', "")
        };
        let told: Vec<String> = index["manifests"].as_array().unwrap().iter().map(told).collect();
        assert_eq!(told, ["sha256:a h:5/b latest", "sha256:b h:5/a:1 1"]);
        assert!(finish(dir.path(), &BTreeMap::new()).is_err());
    }
}
