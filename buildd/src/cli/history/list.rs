//! `rbuild history ls`.

use std::process::ExitCode;

use serde_json::{Map, Value};

use super::super::Context;
use super::super::table::{ago, cut, print, row, stdout};
use super::inspect::record_json;
use super::record::{Build, all, shown};
use crate::client::ClientError;

/// Lists builds, the latest first
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only builds that match, such as status=error or startedAt>1h
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// table, or json: one object on a line for each build
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Prints whole names
    #[arg(long)]
    no_trunc: bool,
}

/// Characters of a name that are shown.
const SHOWN: usize = 36;

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        // Docker's filters have one equals sign, the daemon's two.
        let filters: Vec<String> = self.filters.iter().map(|filter| doubled(filter)).collect();
        let builds = all(&client, &filters).await?;
        if self.format == "json" {
            let lines = builds.iter().map(|build| format!("{}\n", Value::Object(brief(build))));
            stdout(&lines.collect::<String>())?;
        } else {
            let mut rows = vec![row(["BUILD ID", "NAME", "STATUS", "CREATED", "DURATION"])];
            rows.extend(builds.iter().map(|build| self.cells(build)));
            print(&rows)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn cells(&self, build: &Build) -> Vec<String> {
        let name = cut(&build.name(), SHOWN, self.no_trunc);
        let (created, duration) = (ago(build.0.created_at.as_ref()), shown(build.duration()));
        row([&build.0.r#ref, &name, build.status(), &created, &duration])
    }
}

/// What a list says of a build, by the names that buildx has.
fn brief(build: &Build) -> Map<String, Value> {
    let mut all = record_json(build);
    all.retain(|name, _| name != "attachments" && name != "attributes");
    all
}

fn doubled(filter: &str) -> String {
    let parts = filter.split(',').map(|part| match part.split_once('=') {
        Some((name, value)) if !value.starts_with('=') && name.chars().all(char::is_alphanumeric) => {
            format!("{name}=={value}")
        }
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::doubled;

    #[test]
    fn filters_of_docker() {
        for (given, wanted) in [
            ("status=error", "status==error"),
            ("status==error,ref=a", "status==error,ref==a"),
            ("startedAt>=1h", "startedAt>=1h"),
            ("ref~=x", "ref~=x"),
            ("ref!=x", "ref!=x"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(doubled(given), wanted);
        }
    }
}
