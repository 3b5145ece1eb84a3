//! What is written of a build's result.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::client::{BuildOutcome, ClientError};

/// The image id: the config's digest, or the manifest's where that is all that is known.
pub(super) fn image_id(response: &BTreeMap<String, String>) -> Option<&str> {
    let known = |key| response.get(key).map(String::as_str);
    known("containerimage.config.digest").or_else(|| known("containerimage.digest"))
}

/// Writes the response as JSON. Values that hold JSON in base64 are unwrapped, as buildx does.
pub(super) fn write(path: &Path, outcome: &BuildOutcome) -> Result<(), ClientError> {
    let mut object: Map<String, Value> =
        outcome.response.iter().map(|(key, value)| (key.clone(), unwrap(value))).collect();
    object.insert("buildx.build.ref".to_owned(), outcome.reference.as_str().into());
    let mut text = serde_json::to_string_pretty(&object).expect("strings and JSON always serialize");
    text.push('\n');
    fs_err::write(path, text).map_err(|e| ClientError::io(path, e))
}

fn unwrap(value: &str) -> Value {
    let decoded = STANDARD.decode(value).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    decoded.filter(|value| value.is_object() || value.is_array()).unwrap_or_else(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_json_is_unwrapped() {
        assert_eq!(unwrap("eyJhIjoxfQ=="), serde_json::json!({"a": 1}));
        assert_eq!(unwrap("sha256:ab"), Value::from("sha256:ab"));
        // `MTIz` is base64 of a number, but may as well be a name.
        assert_eq!(unwrap("MTIz"), Value::from("MTIz"));
    }
}
