//! Causes for people.

use cache::fileop::difference::DifferentBy;
use jiff::Timestamp;

use super::Cause;
use super::change::Changed;
use crate::progress::printable;

impl Cause {
    /// On one line, without control characters: names of files are anybody's. `name` gives what a step is called.
    pub fn words<'a>(&self, name: &dyn Fn(usize) -> &'a str) -> String {
        printable(self.text(name).replace('\n', " ").as_bytes())
    }

    fn text<'a>(&self, name: &dyn Fn(usize) -> &'a str) -> String {
        match self {
            Self::FirstBuild => "first build of this directory, file and target".to_owned(),
            Self::Platform { old, new } => {
                format!("first build for {new}; the build before was for {old}")
            }
            Self::NewStep => "new step".to_owned(),
            Self::NoCache { flag: Some(flag) } => format!("asked to run again ({flag})"),
            Self::NoCache { flag: None } => "asked to run again".to_owned(),
            Self::Unfinished => "the build before did not finish it".to_owned(),
            Self::Instruction { old, new } => {
                format!("instruction changed: {}", Changed::between(old, new))
            }
            Self::Document { name } => format!("document {name} changed"),
            Self::Arg { name } => format!("ARG {name} changed"),
            Self::Env { name } => format!("ENV {name} changed"),
            Self::Flag { name } => format!("{name} changed"),
            Self::Setting { name } => format!("{name} changed"),
            Self::File { path, change, old, new } => file(path, *change, old.as_deref(), new.as_deref()),
            Self::MoreFiles { count } => format!("and {count} more files"),
            Self::Files { name } => format!("files of {name} changed; what they were is not known any more"),
            Self::BaseImage { name, old, new } => format!("base image {name} changed ({old} → {new})"),
            Self::Source { name, old, new } => format!("{name} changed ({old} → {new})"),
            Self::Evicted { at_ms, rule } => {
                let seconds = i64::try_from(at_ms / 1000).unwrap_or_default();
                let at = Timestamp::from_second(seconds).unwrap_or_default();
                format!("removed from the cache at {at} by {rule}")
            }
            Self::Lost => "its result is not in the cache any more".to_owned(),
            Self::NotAsked => {
                "its result came from a shared cache, and this build looks into none".to_owned()
            }
            Self::Absent { cache, error: None } => format!("not in the cache {cache}"),
            Self::Absent { cache, error: Some(error) } => {
                format!("the cache {cache} could not be read: {error}")
            }
            Self::Refused { cache, reason } => format!("of no use in the cache {cache}: {reason}"),
            Self::Follows { step } => {
                format!("follows from {}", name(*step))
            }
        }
    }
}

fn file(path: &str, change: DifferentBy, old: Option<&str>, new: Option<&str>) -> String {
    let what = match change {
        DifferentBy::Content => "content changed",
        DifferentBy::Mode => "mode changed",
        DifferentBy::Owner => "owner changed",
        DifferentBy::Attributes => "attributes changed",
        DifferentBy::Type => "is something else now",
        DifferentBy::Added => "added",
        DifferentBy::Removed => "removed",
    };
    let short = |text: &str| match text.strip_prefix("blake3:") {
        Some(hex) => hex.chars().take(12).collect(),
        None => text.to_owned(),
    };
    match (old.map(short), new.map(short)) {
        (Some(old), Some(new)) => format!("{path}: {what} ({old} → {new})"),
        (Some(one), None) | (None, Some(one)) => format!("{path}: {what} ({one})"),
        (None, None) => format!("{path}: {what}"),
    }
}
