//! Filters of the history: fields in containerd's syntax, and times.
//!
//! `status==error,duration>1m` means both; of several filters one has to match; none matches everything
//! (BuildKit `llbsolver/history/filter.go`).

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use cache::store::{BuildRecord, BuildStatus, Filtered, Filters};
use frontend::number;
use tonic::Status;

use crate::daemon::timestamp::to_millis;

/// Several filters, of which one has to match.
#[derive(Debug)]
pub(super) struct Filter(Vec<(Filters, Vec<Bound>)>);

/// A comparison of times or lengths, in seconds or nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    what: What,
    comparison: Comparison,
    value: i128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Started,
    Completed,
    Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// A build as filters see it.
struct Fields<'a>(&'a BuildRecord);

impl Filter {
    /// Parses each of `filters`.
    pub(super) fn parse(filters: &[String]) -> Result<Self, Status> {
        filters.iter().map(|filter| parse(filter)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a build passes.
    pub(super) fn matches(&self, build: &BuildRecord) -> bool {
        let passes = |(fields, bounds): &(Filters, Vec<Bound>)| {
            fields.matches(&Fields(build)) && bounds.iter().all(|bound| bound.holds(build))
        };
        self.0.is_empty() || self.0.iter().any(passes)
    }
}

fn parse(filter: &str) -> Result<(Filters, Vec<Bound>), Status> {
    let (mut fields, mut bounds) = (Vec::new(), Vec::new());
    for part in filter.split(',') {
        match Bound::parse(part)? {
            Some(bound) => bounds.push(bound),
            None => fields.push(part),
        }
    }
    let fields = Filters::parse::<Fields<'_>>(&[fields.join(",")]);
    Ok((fields.map_err(|e| Status::invalid_argument(e.to_string()))?, bounds))
}

impl Bound {
    /// `None` when it compares something else.
    fn parse(part: &str) -> Result<Option<Self>, Status> {
        const COMPARISONS: [(&str, Comparison); 4] = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        let split = COMPARISONS.iter().find_map(|(sign, c)| Some((part.split_once(sign)?, *c)));
        let Some(((name, value), comparison)) = split else { return Ok(None) };
        let what = match name {
            "startedAt" => What::Started,
            "completedAt" => What::Completed,
            "duration" => What::Duration,
            _ => return Ok(None),
        };
        let length = number::duration(value);
        let value = match (what, length) {
            (What::Duration, Some(length)) => length.as_nanos() as i128,
            (What::Duration, None) => {
                return Err(Status::invalid_argument(format!("invalid duration {value}")));
            }
            // So long ago.
            (_, Some(length)) => {
                let then = SystemTime::now().checked_sub(length).unwrap_or(SystemTime::UNIX_EPOCH);
                i128::from(to_millis(then) / 1000)
            }
            (_, None) => {
                let at: Result<jiff::Timestamp, _> = value.parse();
                i128::from(
                    at.map_err(|_| Status::invalid_argument(format!("invalid time {value}")))?.as_second(),
                )
            }
        };
        Ok(Some(Self { what, comparison, value }))
    }

    fn holds(self, build: &BuildRecord) -> bool {
        let seconds = |ms: u64| i128::from(ms / 1000);
        let value = match self.what {
            What::Started => seconds(build.started_ms),
            What::Completed => build.finished_ms.map_or(0, seconds),
            What::Duration => {
                let ms = build.finished_ms.map_or(0, |end| end.saturating_sub(build.started_ms));
                Duration::from_millis(ms).as_nanos() as i128
            }
        };
        match self.comparison {
            Comparison::AtLeast => value >= self.value,
            Comparison::AtMost => value <= self.value,
            Comparison::Above => value > self.value,
            Comparison::Below => value < self.value,
        }
    }
}

impl Filtered for Fields<'_> {
    const FIELDS: &'static [&'static str] = &["ref", "status", "repository"];

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        let attr = |name| self.0.attrs.get(name).map(|value| Cow::Borrowed(value.as_str()));
        match name {
            "ref" => Some(Cow::Borrowed(&self.0.reference)),
            "status" => Some(Cow::Borrowed(match self.0.status {
                BuildStatus::Running => "running",
                BuildStatus::Done => "completed",
                BuildStatus::Cancelled => "canceled",
                BuildStatus::Failed { .. } => "error",
            })),
            "repository" => attr("vcs:source").or_else(|| {
                let remote = |url: &Cow<'_, str>| url.contains("://") || url.starts_with("git@");
                attr("context").filter(remote)
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cache::store::StepCounts;

    use super::*;

    #[test]
    fn matching() {
        let build = BuildRecord {
            reference: "abc".into(),
            started_ms: 1_700_000_000_000,
            finished_ms: Some(1_700_000_090_000),
            status: BuildStatus::Failed { code: 2, message: "x".into() },
            frontend: String::new(),
            attrs: BTreeMap::from([("vcs:source".into(), "https://example.com/r.git".into())]),
            destinations: Vec::new(),
            response: BTreeMap::new(),
            steps: StepCounts::default(),
            log: None,
            error: None,
            trace: None,
            statements: Vec::new(),
            results: BTreeMap::new(),
            listed: Vec::new(),
            pinned: false,
        };
        for (filters, expected) in [
            (&[][..], true),
            (&["status==error"], true),
            (&["status==completed"], false),
            (&["status==completed", "ref~=b"], true),
            (&["status==error,duration>1m"], true),
            (&["duration>=1m30s"], true),
            (&["duration>1m30s"], false),
            (&["repository~=example.com"], true),
            (&["startedAt<1h"], true),
            (&["startedAt>1h"], false),
            (&["completedAt<=2023-11-14T22:14:50Z"], true),
            (&["completedAt<2023-11-14T22:14:50Z"], false),
        ] {
            let filters: Vec<String> = filters.iter().map(|&f| f.to_owned()).collect();
            let filter = Filter::parse(&filters).map_err(|e| e.message().to_owned());
            assert_eq!(filter.map(|f| f.matches(&build)), Ok(expected), "{filters:?}");
        }
        for bad in ["color==red", "duration>long", "startedAt>then"] {
            assert!(Filter::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
