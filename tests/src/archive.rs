//! Reading what a build made.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// An image read from an OCI archive.
#[derive(Debug)]
pub struct Image {
    /// The image config.
    pub config: Value,
    /// Per layer, lowest first: path and content of each regular file; other entries have none.
    pub layers: Vec<BTreeMap<String, Option<Vec<u8>>>>,
    /// Per layer, lowest first: path, type, mode, owner, link target and size of each entry, sorted; no times.
    pub listing: Vec<Vec<String>>,
}

impl Image {
    /// Reads the first image of an OCI archive.
    ///
    /// # Panics
    /// When the archive is none.
    pub fn open(path: &Path) -> Self {
        let blobs = entries(path);
        let json = |name: &str| -> Value { serde_json::from_slice(&blobs[name]).expect("JSON") };
        let blob = |d: &Value| format!("blobs/sha256/{}", &d["digest"].as_str().expect("a digest")[7..]);
        let mut manifest = json(&blob(&json("index.json")["manifests"][0]));
        while manifest.get("manifests").is_some() {
            manifest = json(&blob(&manifest["manifests"][0]));
        }
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        Self {
            config: json(&blob(&manifest["config"])),
            layers: layers.iter().map(|l| files(&blobs[&blob(l)])).collect(),
            listing: layers.iter().map(|l| listing(&blobs[&blob(l)])).collect(),
        }
    }

    /// The content of a file, from the highest layer that has it.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.layers.iter().rev().find_map(|l| l.get(path)).and_then(|f| f.as_deref())
    }
}

/// The files of a tar archive by name.
///
/// # Panics
/// When it is none.
pub fn entries(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(fs_err::File::open(path).expect("an archive"));
    let read = |entry: std::io::Result<tar::Entry<'_, fs_err::File>>| {
        let mut entry = entry.expect("an entry");
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("content");
        (entry.path().expect("a name").display().to_string(), data)
    };
    tar.entries().expect("a tar").map(read).collect()
}

/// The JSON blob of an OCI archive that a descriptor names.
///
/// # Panics
/// When there is none.
pub fn blob(entries: &BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().expect("a digest").trim_start_matches("sha256:");
    serde_json::from_slice(&entries[&format!("blobs/sha256/{digest}")]).expect("JSON")
}

/// The index or manifest that an OCI archive holds first.
///
/// # Panics
/// When it is none.
pub fn target(entries: &BTreeMap<String, Vec<u8>>) -> Value {
    let index: Value = serde_json::from_slice(&entries["index.json"]).expect("JSON");
    blob(entries, &index["manifests"][0])
}

fn listing(gzip: &[u8]) -> Vec<String> {
    let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(gzip));
    let entries = tar.entries().expect("a tar").map(|entry| {
        let entry = entry.expect("an entry");
        let header = entry.header();
        let link = entry.link_name().expect("a link name").unwrap_or_default();
        format!(
            "{} {:?} {:o} {}:{} -> {} {}",
            entry.path().expect("a name").display(),
            header.entry_type(),
            header.mode().expect("a mode"),
            header.uid().expect("an owner"),
            header.gid().expect("a group"),
            link.display(),
            entry.size(),
        )
    });
    let mut all: Vec<String> = entries.collect();
    all.sort();
    all
}

fn files(gzip: &[u8]) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(gzip));
    for entry in tar.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().trim_end_matches('/').to_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("content");
        all.insert(name, entry.header().entry_type().is_file().then_some(data));
    }
    all
}
