//! What frontends, and the attributes of exporters, say of a result, under BuildKit's names
//! (`exporter/containerimage/exptypes`).

use std::collections::BTreeMap;

use bytes::Bytes;
use frontend::config::ImageConfig;
use serde::{Deserialize, Serialize};
use solver::op::Platform;
use tonic::Code;

use super::failure::Failure;
use super::sources::image::{host_platform, oci_platform};

/// The image's config; with `/ID` that of one platform.
const CONFIG: &str = "containerimage.config";
/// The config of the image that it is built on; with `/ID` that of one platform.
const BASE_CONFIG: &str = "containerimage.base.config";
/// The platforms of the result, as JSON.
const PLATFORMS: &str = "refs.platforms";
/// `SOURCE_DATE_EPOCH`, in seconds since 1970; with `/ID` that of one platform.
const EPOCH: &str = "source.date.epoch";
/// The image's names, for exporters that leave it to the frontend.
const NAME: &str = "image.name";
/// What begins so is for the client that asked for the build.
const FOR_CLIENT: &str = "frontend.";

/// What is said of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Metadata(BTreeMap<String, Bytes>);

/// [`PLATFORMS`].
#[derive(Debug, Default, Serialize, Deserialize)]
struct Platforms {
    #[serde(rename = "Platforms", default)]
    platforms: Vec<NamedPlatform>,
}

/// A platform and the name of its result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NamedPlatform {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "Platform")]
    pub(super) platform: Platform,
}

impl NamedPlatform {
    /// A platform under its own name.
    pub(super) fn new(platform: Platform) -> Self {
        Self { id: oci_platform(&platform).full(), platform }
    }
}

impl From<BTreeMap<String, Bytes>> for Metadata {
    fn from(metadata: BTreeMap<String, Bytes>) -> Self {
        Self(metadata)
    }
}

impl Metadata {
    /// All of it.
    pub(super) fn into_inner(self) -> BTreeMap<String, Bytes> {
        self.0
    }

    /// What an exporter's attributes say of the result.
    pub(super) fn of_attrs(attrs: &BTreeMap<String, String>) -> Self {
        let known = |key: &str| {
            let name = key.split_once('/').map_or(key, |(name, _)| name);
            [CONFIG, BASE_CONFIG, PLATFORMS, EPOCH, NAME].contains(&name)
        };
        let attrs = attrs.iter().filter(|(key, _)| known(key));
        Self(attrs.map(|(key, value)| (key.clone(), Bytes::from(value.clone()))).collect())
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what another says, which wins.
    pub(super) fn overlay(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(key, value)| (key.clone(), value.clone())));
    }

    /// Its texts, for whoever reads no bytes; what is none is left out.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        let text = |(key, value): (&String, &Bytes)| {
            Some((key.clone(), std::str::from_utf8(value).ok()?.to_owned()))
        };
        self.0.iter().filter_map(text).collect()
    }

    /// The annotations that it asks for, as exporters' attributes do.
    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        let mut texts = self.texts();
        texts.retain(|key, _| {
            key.strip_prefix("annotation").is_some_and(|rest| rest.starts_with(['.', '-', '[']))
        });
        texts
    }

    /// What the client that asked for the build is told.
    pub(super) fn for_client(&self) -> BTreeMap<String, String> {
        let mut texts = self.texts();
        texts.retain(|key, _| key.starts_with(FOR_CLIENT));
        texts
    }

    /// The image's names, separated by commas.
    pub(super) fn names(&self) -> Option<&str> {
        self.0.get(NAME).and_then(|names| std::str::from_utf8(names).ok())
    }

    /// Whether it says for which platforms the result is.
    pub(super) fn names_platforms(&self) -> bool {
        self.0.contains_key(PLATFORMS)
    }

    /// The platforms that it names; without them the config's, else this machine's.
    ///
    /// # Errors
    /// No platform, or an incomplete one.
    pub(super) fn platforms(&self) -> Result<Vec<NamedPlatform>, Failure> {
        if let Some(json) = self.0.get(PLATFORMS) {
            let listed: Option<Platforms> = match json.is_empty() {
                true => None,
                false => serde_json::from_slice(json)
                    .map_err(|e| invalid(format!("invalid `{PLATFORMS}`: {e}")))?,
            };
            let listed = listed.unwrap_or_default().platforms;
            if listed.is_empty() {
                return Err(invalid("invalid empty platforms index for exporter"));
            }
            if listed.iter().any(|named| named.id.is_empty()) {
                return Err(invalid("invalid empty platform key for exporter"));
            }
            let incomplete =
                |n: &&NamedPlatform| n.platform.os.is_empty() || n.platform.architecture.is_empty();
            return match listed.iter().find(incomplete) {
                Some(NamedPlatform { id, platform: p }) => Err(invalid(format!(
                    "invalid platform value `{}/{}` of `{id}` for exporter",
                    p.os, p.architecture
                ))),
                None => Ok(listed),
            };
        }
        let of_config = self.config("")?.map(|config| config.platform());
        let platform = match of_config {
            Some(p) if p.os.is_empty() != p.architecture.is_empty() => {
                return Err(invalid("invalid image config: os and architecture must be specified together"));
            }
            Some(p) if !p.os.is_empty() => p,
            _ => host_platform(),
        };
        Ok(vec![NamedPlatform::new(platform)])
    }

    /// The time of a platform's result, in seconds since 1970, else that of all.
    ///
    /// # Errors
    /// What is no number.
    pub(super) fn epoch(&self, id: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.of(EPOCH, id).filter(|text| !text.is_empty()) else { return Ok(None) };
        let seconds = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        seconds.map(Some).ok_or_else(|| invalid(format!("invalid `{EPOCH}`")))
    }

    /// The config of a platform, else that of all.
    ///
    /// # Errors
    /// What is none.
    pub(super) fn config(&self, id: &str) -> Result<Option<ImageConfig>, Failure> {
        let Some(json) = self.of(CONFIG, id).filter(|json| !json.is_empty()) else { return Ok(None) };
        let config: Option<ImageConfig> = serde_json::from_slice(json)
            .map_err(|e| invalid(format!("invalid image config for export: {e}")))?;
        config.map(Some).ok_or_else(|| invalid("invalid null image config for export"))
    }

    /// How many entries of a platform's config are those of the image that it is built on, where that is told.
    ///
    /// # Errors
    /// What is no config.
    pub(super) fn inherited(&self, id: &str, config: &ImageConfig) -> Result<Option<usize>, Failure> {
        let Some(json) = self.of(BASE_CONFIG, id).filter(|json| !json.is_empty()) else { return Ok(None) };
        let base: ImageConfig = serde_json::from_slice(json)
            .map_err(|e| invalid(format!("invalid config of the base image: {e}")))?;
        let pairs = config.history.iter().zip(&base.history);
        Ok(Some(pairs.take_while(|(own, of_base)| own == of_base).count()))
    }

    /// Says what a frontend found out of a platform's result; `None` for the only one.
    ///
    /// # Errors
    /// A config that JSON cannot express.
    pub(super) fn set(
        &mut self,
        id: Option<&str>,
        config: Option<&ImageConfig>,
        epoch: Option<i64>,
    ) -> Result<(), Failure> {
        let key = |name: &str| id.map_or_else(|| name.to_owned(), |id| format!("{name}/{id}"));
        if let Some(epoch) = epoch {
            self.0.insert(key(EPOCH), epoch.to_string().into());
        }
        if let Some(config) = config {
            let json = serde_json::to_vec(config).map_err(|e| Failure::invalid(&e))?;
            self.0.insert(key(CONFIG), json.into());
        }
        Ok(())
    }

    /// Says for which platforms the result is.
    ///
    /// # Errors
    /// Platforms that JSON cannot express.
    pub(super) fn set_platforms(&mut self, platforms: Vec<NamedPlatform>) -> Result<(), Failure> {
        let json = serde_json::to_vec(&Platforms { platforms }).map_err(|e| Failure::invalid(&e))?;
        self.0.insert(PLATFORMS.to_owned(), json.into());
        Ok(())
    }

    fn of(&self, key: &str, id: &str) -> Option<&Bytes> {
        self.0.get(&format!("{key}/{id}")).or_else(|| self.0.get(key))
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        Metadata(pairs.iter().map(|(k, v)| ((*k).to_owned(), Bytes::copy_from_slice(v.as_bytes()))).collect())
    }

    #[test]
    fn the_platform_is_the_one_that_is_named() {
        let named = |pairs: &[(&str, &str)]| {
            metadata(pairs).platforms().map(|all| all[0].platform.architecture.clone())
        };
        let listed = r#"{"Platforms":[{"ID":"x","Platform":{"architecture":"arm64","os":"linux"}}]}"#;
        let config = r#"{"architecture":"s390x","os":"linux"}"#;
        assert_eq!(named(&[(PLATFORMS, listed), (CONFIG, config)]).unwrap(), "arm64");
        assert_eq!(named(&[(CONFIG, config)]).unwrap(), "s390x");
        assert_eq!(named(&[]).unwrap(), host_platform().architecture);
        for (bad, why) in [
            ("", "empty platforms index"),
            ("null", "empty platforms index"),
            ("{", "invalid `refs.platforms`"),
            ("{}", "empty platforms index"),
            (r#"{"Platforms":[{"ID":"","Platform":{"architecture":"a","os":"b"}}]}"#, "empty platform key"),
            (
                r#"{"Platforms":[{"ID":"x","Platform":{"architecture":"a","os":""}}]}"#,
                "invalid platform value",
            ),
        ] {
            let failure = named(&[(PLATFORMS, bad)]).unwrap_err();
            assert_eq!(failure.code, Code::InvalidArgument, "{bad}");
            assert!(failure.message.contains(why), "{bad}: {failure}");
        }
        let half = named(&[(CONFIG, r#"{"architecture":"amd64"}"#)]).unwrap_err();
        assert!(half.message.contains("os and architecture must be specified together"), "{half}");
    }

    #[test]
    fn a_platform_has_its_own_time() {
        let all = metadata(&[(EPOCH, "7"), ("source.date.epoch/a", "8"), ("source.date.epoch/b", "x")]);
        assert_eq!(all.epoch("a").unwrap(), Some(8));
        assert_eq!(all.epoch("c").unwrap(), Some(7));
        assert_eq!(all.epoch("b").unwrap_err().code, Code::InvalidArgument);
        assert_eq!(metadata(&[(EPOCH, "")]).epoch("").unwrap(), None);
    }

    #[test]
    fn a_platform_has_its_own_config() {
        let all = metadata(&[
            (CONFIG, r#"{"os":"linux","author":"all"}"#),
            ("containerimage.config/a", r#"{"os":"linux","author":"a","own":1}"#),
        ]);
        assert_eq!(all.config("a").unwrap().unwrap().author, "a");
        assert_eq!(all.config("a").unwrap().unwrap().extra["own"], 1);
        assert_eq!(all.config("b").unwrap().unwrap().author, "all");
        assert_eq!(metadata(&[(CONFIG, "[")]).config("").unwrap_err().code, Code::InvalidArgument);
        let null = metadata(&[(CONFIG, "null")]).config("").unwrap_err();
        assert!(null.message.contains("null image config"), "{null}");
    }

    #[test]
    fn the_client_is_told_what_is_for_it() {
        let mut all = metadata(&[("frontend.x", "1"), ("frontendy", "2"), ("x.frontend.", "3"), (NAME, "a")]);
        assert_eq!(
            all.for_client().into_iter().collect::<Vec<_>>(),
            [("frontend.x".to_owned(), "1".to_owned())]
        );
        let attrs = [(NAME.to_owned(), "b".to_owned()), ("frontend.x".to_owned(), "2".to_owned())].into();
        all.overlay(&Metadata::of_attrs(&attrs));
        assert_eq!((all.names(), &all.texts()["frontend.x"][..]), (Some("b"), "1"));
    }
}
