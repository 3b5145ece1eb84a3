//! Statements about an image: which of them are wanted, and their bytes.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use cache::oci::{Platform, media_type};
use serde_json::Value;

use super::super::history::read_content;
use crate::client::{Client, ClientError};

/// Which statements somebody asks for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// `provenance` or `sbom`; `None` for all kinds.
    pub(super) kind: Option<&'static str>,
    /// Of which platforms' images.
    pub(super) platforms: Platforms,
}

/// Platforms of an image that is for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Platforms {
    /// The one that the name stands for when it is run.
    Own,
    /// Each that something is said of.
    All,
    /// These.
    Of(Vec<Platform>),
}

impl Platforms {
    /// What `--platform` says; `default` where it was not given.
    ///
    /// # Errors
    /// What is no platform.
    pub(super) fn parse(given: &[String], default: Self) -> Result<Self, ClientError> {
        if given.is_empty() {
            return Ok(default);
        }
        if given.iter().any(|name| name == "all") {
            return Ok(Self::All);
        }
        let parse = |name: &String| {
            name.parse::<Platform>().map_err(|e| ClientError::Usage(format!("`--platform`: {e}")))
        };
        given.iter().map(parse).collect::<Result<_, _>>().map(Self::Of)
    }
}

impl Wanted {
    /// Those of an image, as `inspect` describes it, in the order of its index.
    ///
    /// # Errors
    /// Where there is none of a kind that was named.
    pub(super) fn of<'a>(&self, name: &str, image: &'a Value) -> Result<Vec<&'a Value>, ClientError> {
        let all = image["Attestations"].as_array().map_or(&[][..], Vec::as_slice);
        let all: Vec<&Value> =
            all.iter().filter(|said| self.kind.is_none_or(|kind| said["Kind"] == kind)).collect();
        let is_wanted = |said: &&&Value| match &self.platforms {
            Platforms::All => true,
            Platforms::Own => said["Image"] == image["Manifest"],
            Platforms::Of(platforms) => platforms.iter().any(|platform| is_for(said, platform)),
        };
        let found: Vec<&Value> = all.iter().filter(is_wanted).copied().collect();
        let Some(kind) = self.kind else { return Ok(found) };
        let missing = match &self.platforms {
            Platforms::Of(platforms) => {
                platforms.iter().find(|one| !found.iter().any(|said| is_for(said, one)))
            }
            Platforms::Own | Platforms::All => None,
        };
        match missing {
            Some(platform) => Err(nothing(name, kind, &format!(" for `{}`", platform.full()), &all)),
            None if found.is_empty() => Err(nothing(name, kind, "", &all)),
            None => Ok(found),
        }
    }
}

/// Says what there is instead.
fn nothing(name: &str, kind: &str, which: &str, others: &[&Value]) -> ClientError {
    let mut platforms: Vec<String> = others.iter().map(|said| about(said)).collect();
    platforms.dedup();
    let others = match platforms.join(", ") {
        others if others.is_empty() => others,
        others => format!("; there is one for {others} (see `--platform`)"),
    };
    ClientError::Usage(format!("image `{name}` has no {kind}{which}{others}"))
}

/// Whether a statement is about the image for a platform. Versions and features of systems count where they were asked for.
fn is_for(said: &Value, wanted: &Platform) -> bool {
    let Ok(platform) = said["Platform"].as_str().unwrap_or_default().parse::<Platform>() else {
        return false;
    };
    let (mut platform, wanted) = (platform.normalized(), wanted.normalized());
    if wanted.os_version.is_none() {
        platform.os_version = None;
    }
    if wanted.os_features.is_empty() {
        platform.os_features.clear();
    }
    platform == wanted
}

/// For which platform the image is that a statement is about, fit for a terminal.
pub(super) fn about(said: &Value) -> String {
    said["Platform"].as_str().unwrap_or_default().escape_debug().to_string()
}

/// A statement as a whole; what is signed comes without its signatures.
///
/// # Errors
/// When the daemon does not hand it out.
pub(super) async fn read(client: &Client, said: &Value) -> Result<Value, ClientError> {
    let bytes = read_content(client, said["Digest"].as_str().unwrap_or_default()).await?;
    let signed = media_type::is_signed_statement(said["MediaType"].as_str().unwrap_or_default());
    Ok(parsed(&bytes, signed))
}

/// The JSON in a statement's bytes, else the text.
fn parsed(bytes: &[u8], signed: bool) -> Value {
    let value: Value =
        serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into());
    if !signed {
        return value;
    }
    // The envelope of DSSE: its payload is base64.
    let decoded =
        |payload: &str| BASE64_STANDARD.decode(payload).or_else(|_| BASE64_URL_SAFE.decode(payload)).ok();
    let payload = value["payload"].as_str().and_then(decoded);
    payload.map_or(value, |payload| parsed(&payload, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An image for amd64 and arm64, with two SBOMs each; `Size` tells them apart.
    fn image() -> Value {
        let said = |kind: &str, image: &str, platform: &str, size: u64| json!({"Kind": kind, "Image": image, "Platform": platform, "Size": size});
        json!({"Manifest": "sha256:1", "Attestations": [
            said("provenance", "sha256:1", "linux/amd64", 1),
            said("sbom", "sha256:1", "linux/amd64", 2),
            said("sbom", "sha256:1", "linux/amd64", 3),
            said("sbom", "sha256:2", "linux/arm64", 4),
            said("sbom", "sha256:2", "linux/arm64", 5),
            said("sbom", "sha256:3", "windows(10.0.17763)/amd64", 6),
        ]})
    }

    fn found(kind: Option<&'static str>, platforms: &[&str]) -> Result<Vec<u64>, String> {
        let given: Vec<String> = platforms.iter().map(|&name| name.to_owned()).collect();
        let platforms = Platforms::parse(&given, Platforms::Own).map_err(|e| e.to_string())?;
        let image = image();
        let found = Wanted { kind, platforms }.of("app", &image).map_err(|e| e.to_string())?;
        Ok(found.iter().map(|said| said["Size"].as_u64().unwrap()).collect())
    }

    #[test]
    fn statements_of_platforms() {
        let sbom = |platforms: &[&str]| found(Some("sbom"), platforms);
        assert_eq!(sbom(&[]), Ok(vec![2, 3]));
        assert_eq!(sbom(&["arm64"]), Ok(vec![4, 5]));
        assert_eq!(sbom(&["linux/arm64/v8", "linux/x86_64", "linux/amd64"]), Ok(vec![2, 3, 4, 5]));
        assert_eq!(sbom(&["windows/amd64"]), Ok(vec![6]));
        assert_eq!(sbom(&["windows(10.0.17763)/amd64"]), Ok(vec![6]));
        assert_eq!(sbom(&["all"]), Ok(vec![2, 3, 4, 5, 6]));
        assert_eq!(found(Some("provenance"), &["all"]), Ok(vec![1]));
        assert_eq!(found(None, &["amd64"]), Ok(vec![1, 2, 3]));
        assert_eq!(found(None, &["riscv64"]), Ok(vec![]), "nothing was promised");
    }

    #[test]
    fn what_is_missing_is_told_with_what_there_is() {
        let error = |platforms: &[&str]| found(Some("provenance"), platforms).unwrap_err();
        assert_eq!(
            error(&["linux/arm64"]),
            "image `app` has no provenance for `linux/arm64`; there is one for linux/amd64 (see `--platform`)"
        );
        assert!(error(&["windows(1)/amd64"]).contains("no provenance for `windows(1)/amd64`;"));
        assert!(error(&["no platform"]).contains("no platform"));
        let none = Wanted { kind: Some("sbom"), platforms: Platforms::Own };
        let error = none.of("app", &json!({"Manifest": "sha256:1", "Attestations": []})).unwrap_err();
        assert_eq!(error.to_string(), "image `app` has no sbom");
    }

    #[test]
    fn signatures_are_taken_off() {
        let envelope = json!({"payloadType": "application/vnd.in-toto+json", "payload": BASE64_STANDARD.encode(r#"{"a":1}"#)});
        let bytes = envelope.to_string().into_bytes();
        assert_eq!(parsed(&bytes, true), json!({"a": 1}));
        assert_eq!(parsed(&bytes, false), envelope);
        assert_eq!(parsed(br#"{"payload":"!"}"#, true), json!({"payload": "!"}));
        assert_eq!(parsed(b"text", true), json!("text"));
    }
}
