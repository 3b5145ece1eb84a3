//! `--call outline`: what a target can be given.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use crate::span::{Lines, SourceFile};
use crate::subrequest::answer::{Answer, json};
use crate::subrequest::location::Location;
use crate::subrequest::table::table;

/// The arguments, secrets and agents that a target and the stages below it use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The target's name, empty if it has none.
    pub name: String,
    /// The description in the comment above its FROM, empty if there is none.
    pub description: String,
    /// Build arguments.
    pub args: Vec<OutlineArg>,
    /// Secret mounts.
    pub secrets: Vec<OutlineMount>,
    /// SSH mounts.
    pub ssh: Vec<OutlineMount>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its description, empty if there is none.
    pub description: String,
    /// Its value in this build, empty if it has none.
    pub value: String,
    /// The lines of its ARG.
    pub lines: Lines,
}

/// A secret or an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// The lines of its RUN.
    pub lines: Lines,
}

/// The JSON form.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgRecord<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<MountRecord<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<MountRecord<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct ArgRecord<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct MountRecord<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

impl Outline {
    /// Answers, with everything in the order of the file.
    pub fn answer(mut self, source: &SourceFile) -> Answer {
        self.args.sort_by_key(|arg| arg.lines.start);
        self.secrets.sort_by_key(|mount| mount.lines.start);
        self.ssh.sort_by_key(|mount| mount.lines.start);
        Answer { text: self.text(), json: json(&self.record(source)), version: "1.0.0", status: None }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = vec![["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(["DESCRIPTION:", &self.description]);
            }
            text.push_str(&table(&rows, 1));
            text.push('\n');
        }
        if !self.args.is_empty() {
            let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"]];
            rows.extend(self.args.iter().map(|arg| [arg.name.as_str(), &arg.value, &arg.description]));
            text.push_str(&table(&rows, 3));
            text.push('\n');
        }
        for (title, mounts) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if !mounts.is_empty() {
                let mut rows = vec![[title, "REQUIRED"]];
                let required = |mount: &OutlineMount| if mount.required { "true" } else { "" };
                rows.extend(mounts.iter().map(|mount| [mount.name.as_str(), required(mount)]));
                text.push_str(&table(&rows, 3));
                text.push('\n');
            }
        }
        text
    }

    fn record(&self, source: &SourceFile) -> Record<'_> {
        Record {
            name: &self.name,
            description: &self.description,
            args: self.args.iter().map(ArgRecord::new).collect(),
            secrets: self.secrets.iter().map(MountRecord::new).collect(),
            ssh: self.ssh.iter().map(MountRecord::new).collect(),
            sources: [BASE64_STANDARD.encode(source.text())],
        }
    }
}

impl<'a> ArgRecord<'a> {
    fn new(arg: &'a OutlineArg) -> Self {
        Self {
            name: &arg.name,
            description: &arg.description,
            value: &arg.value,
            location: Location::new(arg.lines),
        }
    }
}

impl<'a> MountRecord<'a> {
    fn new(mount: &'a OutlineMount) -> Self {
        Self { name: &mount.name, required: mount.required, location: Location::new(mount.lines) }
    }
}
