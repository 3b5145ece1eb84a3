//! One file of a vendor, in JSON or YAML.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpecFile {
    pub(super) cdi_version: String,
    /// `vendor/class`.
    pub(super) kind: String,
    #[serde(default, deserialize_with = "texts")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<DeviceEntry>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceEntry {
    pub(super) name: String,
    #[serde(default, deserialize_with = "texts")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) container_edits: Edits,
}

/// What a step has to get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Edits {
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<Node>,
    pub(super) mounts: Vec<Bind>,
    /// Programs of the host that a container engine would run.
    pub(super) hooks: Vec<serde_json::Value>,
    pub(super) intel_rdt: Option<serde_json::Value>,
    pub(super) net_devices: Vec<serde_json::Value>,
    #[serde(rename = "additionalGids")]
    pub(super) additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub(super) path: PathBuf,
    pub(super) host_path: Option<PathBuf>,
    /// Some of `r`, `w` and `m`; all where it is missing.
    pub(super) permissions: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bind {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

/// A file that says nothing of use.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum FileError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Yaml(#[from] Box<serde_saphyr::Error>),
    #[error("invalid {what} `{value}`")]
    Invalid { what: &'static str, value: String },
}

/// Reads a file.
///
/// # Errors
/// One that cannot be read or is not what the interface says.
pub(super) fn parse(path: &Path, largest: u64) -> Result<SpecFile, FileError> {
    let mut text = String::new();
    fs_err::File::open(path)?.take(largest + 1).read_to_string(&mut text)?;
    if text.len() as u64 > largest {
        return Err(FileError::TooLarge(largest));
    }
    let file: SpecFile = match path.extension().is_some_and(|kind| kind == "json") {
        true => serde_json::from_str(&text)?,
        false => serde_saphyr::from_str(&text).map_err(Box::new)?,
    };
    let invalid = |what, value: &str| Err(FileError::Invalid { what, value: value.to_owned() });
    if !file.cdi_version.starts_with(|c: char| c.is_ascii_digit()) {
        return invalid("cdiVersion", &file.cdi_version);
    }
    if !is_kind(&file.kind) {
        return invalid("kind", &file.kind);
    }
    match file.devices.iter().find(|device| !is_name(&device.name, "_-.:")) {
        Some(device) => invalid("device name", &device.name),
        None => Ok(file),
    }
}

/// Whether a text is `vendor/class`.
pub(super) fn is_kind(text: &str) -> bool {
    text.split_once('/').is_some_and(|(vendor, class)| is_name(vendor, "_-.") && is_name(class, "_-."))
}

/// Letters, digits and what `between` has, but at the ends only letters and digits.
fn is_name(text: &str, between: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || between.contains(c);
    ends(text.chars().next()) && ends(text.chars().next_back()) && text.chars().all(inner)
}

/// Texts; `true` and numbers are read as texts, as in BuildKit.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Bool(bool),
        Integer(i64),
        Text(String),
    }
    let all = BTreeMap::<String, Scalar>::deserialize(from)?;
    let text = |scalar| match scalar {
        Scalar::Bool(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Text(value) => value,
    };
    Ok(all.into_iter().map(|(name, value)| (name, text(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_say_nothing_of_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.yaml");
        for (text, reason) in [
            ("kind: a/b\ndevices: []\n", "cdiVersion"),
            ("cdiVersion: v1\nkind: a/b\ndevices: []\n", "invalid cdiVersion"),
            ("cdiVersion: '1'\nkind: ab\ndevices: []\n", "invalid kind `ab`"),
            ("cdiVersion: '1'\nkind: a/-b\ndevices: []\n", "invalid kind"),
            (
                "cdiVersion: '1'\nkind: a/b\ndevices: [{name: 'x=y', containerEdits: {}}]\n",
                "invalid device name",
            ),
            ("cdiVersion: '1'\nkind: a/b\ndevices: 7\n", "devices"),
            ("[", ""),
            (&format!("# {}", "x".repeat(200)), "larger than 150 bytes"),
        ] {
            fs_err::write(&path, text).unwrap();
            let error = parse(&path, 150).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(parse(Path::new("/nonexistent.json"), 150).is_err());
    }
}
