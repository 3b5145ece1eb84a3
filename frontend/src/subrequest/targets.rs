//! `--call targets`: the stages that can be built.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use crate::ast::Document;
use crate::subrequest::answer::{Answer, json};
use crate::subrequest::location::Location;
use crate::subrequest::table::table;

/// The JSON form.
#[derive(Serialize)]
struct Record<'a> {
    targets: Vec<Target<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    base: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: &'a str,
    location: Location,
}

impl Target<'_> {
    fn title(&self) -> String {
        match (self.name, self.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        }
    }
}

/// Lists all stages of a file without errors; the last one is the default.
pub fn targets(document: &Document) -> Answer {
    let targets: Vec<Target<'_>> = document
        .stages
        .iter()
        .map(|stage| Target {
            name: stage.name.as_deref().unwrap_or(""),
            default: stage.index + 1 == document.stages.len(),
            description: stage.doc.as_deref().unwrap_or(""),
            base: &stage.base,
            platform: stage.platform.as_deref().unwrap_or(""),
            location: Location::new(stage.lines),
        })
        .collect();
    let titles: Vec<String> = targets.iter().map(Target::title).collect();
    let mut rows = vec![["TARGET", "DESCRIPTION"]];
    rows.extend(titles.iter().zip(&targets).map(|(title, target)| [title.as_str(), target.description]));
    let text = table(&rows, 1);
    let sources = [BASE64_STANDARD.encode(document.source.text())];
    Answer { text, json: json(&Record { targets, sources }), version: "1.0.0", status: None }
}
