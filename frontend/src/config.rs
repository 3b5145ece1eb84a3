//! The image config: what an image says about itself and how it is run (OCI image spec, "config"; Docker's additions).
//!
//! Fields that are not known here are kept as they are, so nothing of a base image's config is lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use solver::op::Platform;

/// An image config.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When it was made, as RFC 3339; never taken over from a base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// GOARCH.
    #[serde(default)]
    pub architecture: String,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// GOOS.
    #[serde(default)]
    pub os: String,
    /// Windows build number.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Operating-system features.
    #[serde(
        default,
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "or_default"
    )]
    pub os_features: Vec<String>,
    /// The layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// How each layer came to be, the empty ones too.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub history: Vec<History>,
    /// How it is run.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ContainerConfig,
    /// Fields of others.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests of the uncompressed layers, lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<String>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// As RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// Which builder wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Fields of others.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How an image is run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// USER.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub user: String,
    /// EXPOSE: `80/tcp` and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// ENV: `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// CMD.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// VOLUME.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, Empty>,
    /// WORKDIR.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub working_dir: String,
    /// LABEL.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// STOPSIGNAL.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub stop_signal: String,
    /// Whether CMD's words are escaped already; set by CMD.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "or_default")]
    pub args_escaped: bool,
    /// HEALTHCHECK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// ONBUILD: the triggers.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub on_build: Vec<String>,
    /// SHELL.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub shell: Vec<String>,
    /// Fields of others.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ContainerConfig {
    /// A variable's value.
    pub fn env(&self, key: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|entry| match entry.split_once('=') {
            Some((name, value)) => (name == key).then_some(value),
            None => (entry == key).then_some(""),
        })
    }
}

/// JSON's `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// A health check; times in nanoseconds, 0 is "as usual".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`, `CMD` and words, or `CMD-SHELL` and one string; empty inherits.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Time one check may take.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Time to start in which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Time between checks while starting.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Go writes `null` for empty lists and maps.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// PATH where neither the base image nor the Dockerfile sets one; Windows has its own.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl ImageConfig {
    /// The config of `FROM scratch`.
    pub fn scratch(platform: &Platform) -> Self {
        let mut image = Self::default();
        image.set_platform(platform);
        image.config.working_dir = "/".to_owned();
        image.ensure_path();
        image
    }

    /// Sets PATH to its default if it is not set and the operating system has one.
    pub fn ensure_path(&mut self) {
        if self.os != "windows" && self.config.env("PATH").is_none() {
            self.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
    }

    /// The platform that the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
        }
    }

    /// Says that the image is for another platform.
    pub fn set_platform(&mut self, platform: &Platform) {
        self.architecture.clone_from(&platform.architecture);
        self.os.clone_from(&platform.os);
        self.variant.clone_from(&platform.variant);
        self.os_version.clone_from(&platform.os_version);
    }

    /// Whether the image has no layer at all, which makes it as good as scratch.
    pub fn is_empty(&self) -> bool {
        self.rootfs.diff_ids.is_empty() && self.history.iter().all(|entry| entry.empty_layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_does_not_know() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:1"]},
            "history":[{"created_by":"x","who":1}],"docker_version":"20",
            "config":{"Cmd":["sh"],"Image":"sha256:2","Healthcheck":{"Test":["NONE"],"Interval":5}}}"#;
        let image: ImageConfig = serde_json::from_str(text).unwrap();
        let (before, after): (Value, Value) =
            (serde_json::from_str(text).unwrap(), serde_json::to_value(&image).unwrap());
        assert_eq!(before, after);
    }

    #[test]
    fn null_is_empty() {
        let text =
            r#"{"history":null,"config":{"Env":null,"Cmd":null,"Labels":null,"Volumes":null,"User":null}}"#;
        let image: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(image, ImageConfig { ..ImageConfig::default() });
    }
}
