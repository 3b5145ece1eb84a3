//! What lowering has to be told about the world outside the Dockerfile.

use solver::graph::Graph;
use solver::op::{Platform, SourceOp};

use crate::ast::{Command, Document};
use crate::diagnostic::{Diagnostic, Phase};
use crate::span::Lines;
use crate::suggest::did_you_mean;

/// Answers of the caller, who does the I/O. An answer that is not there yet is asked for in [`Need`]s.
pub trait Resolved {
    /// The image behind a request; `None` is not known yet.
    fn image(&self, request: &ImageRequest) -> Option<&ResolvedImage>;

    /// The main context's ignore file, empty where there is none. Asked only for local contexts.
    ///
    /// It is `DOCKERFILE.dockerignore` beside the Dockerfile if that exists, even empty, else `.dockerignore`.
    fn dockerignore(&self) -> &[u8];

    /// The ignore file of a named local context, empty where there is none; `None` is not known yet.
    fn context_dockerignore(&self, request: &LocalRequest) -> Option<&[u8]>;

    /// What another frontend handed in under a name; `None` is nothing.
    fn input(&self, name: &str) -> Option<&Graph>;

    /// The time of a source, in seconds since 1970; `None` is not known yet, `Some(None)` that it has none.
    fn source_time(&self, request: &TimeRequest) -> Option<Option<i64>>;
}

/// Something that lowering cannot go on without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// An image's config.
    Image(ImageRequest),
    /// The `.dockerignore` of a named local context.
    ContextIgnore(LocalRequest),
    /// When a source was made.
    SourceTime(TimeRequest),
}

/// An image whose config is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// The full reference: registry, repository, tag or digest.
    pub reference: String,
    /// For which platform.
    pub platform: Platform,
    /// What the step is called in progress, such as `[internal] load metadata for docker.io/library/alpine:latest`.
    pub log_name: String,
    /// The OCI layout of the client that holds it, in place of a registry.
    pub oci_store: Option<String>,
    /// The image as the Dockerfile names it.
    pub written: String,
    /// The lines to blame when there is no such image.
    pub lines: Option<Lines>,
    /// A stage or a common image whose name is near, for the error when there is no such image.
    pub suggestion: Option<String>,
}

impl ImageRequest {
    /// What tells requests apart.
    pub fn key(&self) -> (&str, &Platform, Option<&str>) {
        (&self.reference, &self.platform, self.oci_store.as_deref())
    }

    /// The error of a build whose image could not be found, in BuildKit's form; `cause` says why.
    pub fn failure(&self, document: &Document, cause: &str) -> Diagnostic {
        let hint = did_you_mean(self.suggestion.as_deref());
        let diagnostic = Diagnostic::error(Phase::Convert, format!("{}: {cause}{hint}", self.written));
        let Some(lines) = self.lines else { return diagnostic };
        let diagnostic = diagnostic.at(lines);
        let instruction = document.instructions.iter().find(|instruction| instruction.lines == lines);
        let Some(instruction) = instruction else { return diagnostic };
        let word = match &instruction.command {
            Command::From(from) => &from.base,
            _ => &self.written,
        };
        diagnostic.mark(instruction.find(word))
    }
}

/// An image as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedImage {
    /// Another reference that a policy put in place of the one asked for.
    pub reference: Option<String>,
    /// Another source, no image, that a policy put in place of the image: its LLB identifier, such as `local://context`. Then
    /// the rest is empty.
    pub elsewhere: Option<String>,
    /// The digest to pin, with its algorithm.
    pub digest: Option<String>,
    /// The image config, JSON.
    pub config: Vec<u8>,
}

impl ResolvedImage {
    /// An image for linux/amd64 of one layer, with nothing but a `PATH`.
    pub(crate) fn plain() -> Self {
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", "1".repeat(64))]},
            "config": {"Env": [format!("PATH={}", crate::config::DEFAULT_PATH)]},
        });
        Self { config: config.to_string().into_bytes(), ..Self::default() }
    }
}

/// A directory of the client that is a named context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRequest {
    /// The name of the local source.
    pub local: String,
    /// The context's name, with `::PLATFORM` where it was given so.
    pub context: String,
    /// The source operation that brings the ignore file alone.
    pub source: SourceOp,
    /// What the step is called in progress.
    pub log_name: String,
}

/// A source whose time is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeRequest {
    /// The source: git (the commit's time) or HTTP (`Last-Modified`, or the newest file of an archive).
    pub source: SourceOp,
    /// What the step is called in progress.
    pub log_name: String,
}
