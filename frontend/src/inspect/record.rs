//! The whole record of one file: parsed, lowered over a stub base image, linted.

use serde_json::{Value, json};
use solver::Digest;
use solver::graph::Graph;
use solver::op::Platform;

use crate::ast::Document;
use crate::config::ImageConfig;
use crate::diagnostic::{Diagnostic, Phase};
use crate::inspect::operations::operations;
use crate::inspect::parse::{ErrorRecord, ParseRecord};
use crate::lint::{self, CheckOptions, Finding};
use crate::lower::{
    Failure, Fault, ImageRequest, LocalRequest, LowerError, Lowered, Resolved, ResolvedImage, TimeRequest,
    build,
};
use crate::options::BuildOptions;
use crate::platform;

/// The record of a Dockerfile under the terms of `shared/corpus/README.md`.
///
/// `name` is what the record calls the file. Nothing is read or resolved: every image is a stub of one layer.
pub fn inspect(name: &str, bytes: &[u8]) -> Value {
    let (document, diagnostics) = crate::parse::parse("Dockerfile", bytes);
    let parsed = serde_json::to_value(ParseRecord::new(&document, &diagnostics)).expect("records are JSON");
    let stub = Stub::new();
    let build = Outcome::of(&document, &diagnostics, &stub, false);
    let lint = Outcome::of(&document, &diagnostics, &stub, true);
    let mut record = json!({
        "file": name,
        "sha256": Digest::of(bytes).hex(),
        "size": bytes.len(),
        "non_utf8": std::str::from_utf8(bytes).is_err(),
    });
    let rest = json!({
        "warnings": findings(&build.findings),
        "convert_ok": build.lowered.is_some(),
        "convert_error": build.error,
        "resolved": resolved(&build.images),
        "image": build.lowered.as_ref().map(|lowered| image(&lowered.image)),
        "llb": build.lowered.as_ref().map(|lowered| operations(&lowered.graph)),
        "lint": lint.as_lint(),
    });
    if let (Value::Object(record), Value::Object(parsed), Value::Object(rest)) = (&mut record, parsed, rest) {
        record.extend(parsed);
        record.extend(rest);
    }
    record
}

/// The image config; Go writes `null` for an empty list of layers.
fn image(image: &ImageConfig) -> Value {
    let mut record = serde_json::to_value(image).expect("configs are JSON");
    if image.rootfs.diff_ids.is_empty() {
        record["rootfs"]["diff_ids"] = Value::Null;
    }
    record
}

/// The record of an error that lowering reports, be it the parser's or a trigger's.
fn converting(error: &Diagnostic) -> ErrorRecord {
    ErrorRecord { phase: Phase::Convert.as_str(), ..ErrorRecord::new(error) }
}

/// The file's options for lint; what is wrong there, or that the file is empty, is told before it is parsed.
fn check_options(document: &Document) -> Result<CheckOptions, Fault> {
    if document.source.text().is_empty() {
        return Err(Fault::Empty);
    }
    match &document.directives.check {
        Some(check) => Ok(CheckOptions::parse(check.first_word())?),
        None => Ok(CheckOptions::default()),
    }
}

/// What came of lowering once.
struct Outcome {
    lowered: Option<Lowered>,
    error: Option<ErrorRecord>,
    findings: Vec<Finding>,
    images: Vec<ImageRequest>,
}

impl Outcome {
    fn of(document: &Document, diagnostics: &[Diagnostic], stub: &Stub, all_stages: bool) -> Self {
        if let Some(first) = diagnostics.first() {
            let failed = |error: &Diagnostic, findings| Self {
                lowered: None,
                error: Some(converting(error)),
                findings,
                images: Vec::new(),
            };
            return match check_options(document) {
                Ok(check) => failed(first, lint::findings_before(document, check, first)),
                Err(fault) => failed(&Failure::new(fault).diagnostic(), Vec::new()),
            };
        }
        let options = BuildOptions { all_stages, ..BuildOptions::new(stub.platform.clone()) };
        let (result, findings, images) = build::run(document, &options, None, stub);
        let (lowered, error) = match result {
            Ok(lowered) => (Some(lowered), None),
            Err(LowerError::Failed(failure)) => (None, Some(converting(&failure.diagnostic()))),
            Err(error @ LowerError::Needs(_)) => {
                (None, Some(converting(&Diagnostic::error(Phase::Convert, error.to_string()))))
            }
        };
        Self { lowered, error, findings, images }
    }

    fn as_lint(&self) -> Value {
        let mut record = json!({"warnings": findings(&self.findings)});
        if let Some(error) = &self.error {
            record["error"] = json!(error.message);
        }
        record["resolved"] = resolved(&self.images);
        record
    }
}

/// The findings, sorted by line, rule and message.
fn findings(findings: &[Finding]) -> Value {
    let mut findings: Vec<&Finding> = findings.iter().collect();
    findings.sort_by_key(|finding| (finding.lines.start, finding.rule.name(), &finding.message));
    let one = |finding: &&Finding| {
        let lines: Vec<u32> = finding.lines.iter().collect();
        json!({"rule": finding.rule.name(), "line": finding.lines.start, "lines": lines, "msg": finding.message})
    };
    findings.iter().map(one).collect()
}

/// The images asked for, each once, sorted.
fn resolved(images: &[ImageRequest]) -> Value {
    let pairs: std::collections::BTreeSet<(&str, String)> = images
        .iter()
        .map(|image| (image.reference.as_str(), platform::format_all(&image.platform)))
        .collect();
    pairs.into_iter().map(|(reference, platform)| json!({"ref": reference, "platform": platform})).collect()
}

/// A world in which every image exists and is the same.
struct Stub {
    platform: Platform,
    image: ResolvedImage,
}

impl Stub {
    fn new() -> Self {
        let platform =
            Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), ..Platform::default() };
        Self { platform, image: ResolvedImage::plain() }
    }
}

impl Resolved for Stub {
    fn image(&self, _request: &ImageRequest) -> Option<&ResolvedImage> {
        Some(&self.image)
    }

    fn dockerignore(&self) -> &[u8] {
        b""
    }

    fn context_dockerignore(&self, _request: &LocalRequest) -> Option<&[u8]> {
        Some(b"")
    }

    fn input(&self, _name: &str) -> Option<&Graph> {
        None
    }

    fn source_time(&self, _request: &TimeRequest) -> Option<Option<i64>> {
        Some(None)
    }
}
