//! `--check`, which is `--call lint`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use crate::diagnostic::Diagnostic;
use crate::excerpt::excerpt;
use crate::lint::Finding;
use crate::span::SourceFile;
use crate::subrequest::answer::{Answer, json};
use crate::subrequest::location::Location;

/// The JSON form.
#[derive(Serialize)]
struct Record<'a> {
    /// Go writes `null` where there are none.
    warnings: Option<Vec<Warning<'a>>>,
    sources: [Source<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError<'a>>,
}

#[derive(Serialize)]
struct Warning<'a> {
    #[serde(rename = "ruleName")]
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'static str,
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Source<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct BuildError<'a> {
    message: Cow<'a, str>,
    location: Location,
}

/// Prints findings; the error that ended the search for more, if any, is in the JSON only.
///
/// The text is sorted by line, the JSON has the findings as they come. The status is 1 when there is anything.
pub fn lint(findings: &[Finding], error: Option<&Diagnostic>, source: &SourceFile) -> Answer {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.lines.start);
    let text = sorted.iter().map(|finding| finding_text(finding, source)).collect();
    let record = Record {
        warnings: (!findings.is_empty()).then(|| findings.iter().map(Warning::new).collect()),
        sources: [Source {
            filename: source.name(),
            data: BASE64_STANDARD.encode(source.text()),
            language: "Dockerfile",
        }],
        build_error: error.map(|error| BuildError {
            message: error.told(),
            location: error.lines.map_or_else(Location::default, Location::new),
        }),
    };
    let status = u8::from(!findings.is_empty() || error.is_some());
    Answer { text, json: json(&record), version: "1.0.0", status: Some(status) }
}

fn finding_text(finding: &Finding, source: &SourceFile) -> String {
    let rule = finding.rule;
    let page = if rule.url().is_empty() { String::new() } else { format!(" - {}", rule.url()) };
    let shown = excerpt(source, &[finding.lines], &[]).unwrap_or_default();
    format!("\nWARNING: {}{page}\n{}\n{shown}", rule.name(), finding.message)
}

impl<'a> Warning<'a> {
    fn new(finding: &'a Finding) -> Self {
        Self {
            rule_name: finding.rule.name(),
            description: finding.rule.description(),
            url: finding.rule.url(),
            detail: &finding.message,
            location: Location::new(finding.lines),
        }
    }
}
