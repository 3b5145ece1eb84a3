//! A build of a daemon's history, and finding one.

use std::cmp::Reverse;
use std::time::Duration;

use cache::oci::Reference;
use proto::control::{BuildHistoryRecord, BuildHistoryRequest};
use tonic::Code;

use crate::client::{Client, ClientError};

/// One build.
pub(super) struct Build(pub(super) BuildHistoryRecord);

/// All builds that pass the filters, the latest first.
pub(super) async fn all(client: &Client, filters: &[String]) -> Result<Vec<Build>, ClientError> {
    let request =
        BuildHistoryRequest { early_exit: true, filter: filters.to_vec(), ..BuildHistoryRequest::default() };
    let mut events = client.control().listen_build_history(request).await?.into_inner();
    let mut builds = Vec::new();
    while let Some(event) = events.message().await? {
        builds.extend(event.record.map(Build));
    }
    builds.sort_by_key(|build| Reverse(build.started()));
    Ok(builds)
}

/// The build that `reference` means: its id or the beginning of one, or `^N`, the one N before the latest; without it the latest.
pub(super) async fn find(client: &Client, reference: Option<&str>) -> Result<Build, ClientError> {
    let wanted = reference.unwrap_or("^0");
    let mut builds = all(client, &[]).await?;
    let chosen = match wanted.strip_prefix('^') {
        Some(back) => {
            let back: usize = if back.is_empty() { Ok(0) } else { back.parse() }.map_err(|_| {
                ClientError::Usage(format!("`{wanted}` is no build: want `^N` with a number"))
            })?;
            (back < builds.len()).then_some(back)
        }
        None => match builds.iter().position(|build| build.0.r#ref == wanted) {
            Some(whole) => Some(whole),
            None => only(builds.iter().enumerate().filter(|(_, b)| b.0.r#ref.starts_with(wanted)), wanted)?,
        },
    };
    match (chosen, reference) {
        (Some(chosen), _) => Ok(builds.swap_remove(chosen)),
        (None, Some(wanted)) => {
            Err(ClientError::Usage(format!("no build `{wanted}` in the daemon's history")))
        }
        (None, None) => Err(ClientError::Usage("the daemon's history is empty".to_owned())),
    }
}

/// The id of the build that `reference` means, as [`find`] has it.
pub(in crate::cli) async fn named(client: &Client, reference: &str) -> Result<String, ClientError> {
    Ok(find(client, Some(reference)).await?.0.r#ref)
}

/// The id of the build that runs and that `wanted` means: its id or the beginning of one; without it the only one.
pub(in crate::cli) async fn running(client: &Client, wanted: Option<&str>) -> Result<String, ClientError> {
    let mut builds = all(client, &[]).await?;
    builds.retain(|build| {
        build.0.completed_at.is_none() && build.0.r#ref.starts_with(wanted.unwrap_or_default())
    });
    match (builds.as_slice(), wanted) {
        ([build], _) => Ok(build.0.r#ref.clone()),
        ([], Some(wanted)) => Err(ClientError::Usage(format!("no build `{wanted}` runs"))),
        ([], None) => Err(ClientError::Usage("no build runs".to_owned())),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|build| build.0.r#ref.as_str()).collect();
            Err(ClientError::Usage(format!("several builds run, say which: {}", names.join(", "))))
        }
    }
}

fn only<'a>(
    mut found: impl Iterator<Item = (usize, &'a Build)>,
    wanted: &str,
) -> Result<Option<usize>, ClientError> {
    match (found.next(), found.next()) {
        (Some((_, first)), Some((_, second))) => Err(ClientError::Usage(format!(
            "`{wanted}` may be `{}` or `{}`, say more of it",
            first.0.r#ref, second.0.r#ref
        ))),
        (first, _) => Ok(first.map(|(at, _)| at)),
    }
}

impl Build {
    /// When it began: seconds and nanoseconds since 1970.
    fn started(&self) -> (i64, i32) {
        self.0.created_at.as_ref().map_or((0, 0), |time| (time.seconds, time.nanos))
    }

    /// What it is called: by its first tag, or else by what was built.
    pub(super) fn name(&self) -> String {
        let attr = |name: &str| self.0.frontend_attrs.get(name).filter(|value| !value.is_empty());
        let names = self.0.exporters.iter().filter_map(|exporter| exporter.attrs.get("name"));
        let first = names.flat_map(|names| names.split(',')).find(|name| !name.is_empty());
        if let Some(name) = first {
            return Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar());
        }
        let context = attr("context").or_else(|| attr("vcs:source")).or_else(|| attr("vcs:localdir:context"));
        let file = attr("filename").map_or("Dockerfile", String::as_str);
        let what = context.map_or(file, String::as_str);
        match attr("target") {
            Some(target) => format!("{what} ({target})"),
            None => what.to_owned(),
        }
    }

    /// BuildKit's word for how it went.
    pub(super) fn status(&self) -> &'static str {
        match (&self.0.completed_at, &self.0.error) {
            (None, _) => "Running",
            (Some(_), None) => "Completed",
            (Some(_), Some(error)) if error.code == Code::Cancelled as i32 => "Canceled",
            (Some(_), Some(_)) => "Error",
        }
    }

    /// How long it took, or has taken until now.
    pub(super) fn duration(&self) -> Duration {
        let nanos = |seconds: i64, nanos: i32| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let end = self.0.completed_at.as_ref().map(|time| nanos(time.seconds, time.nanos));
        let end = end.unwrap_or_else(|| jiff::Timestamp::now().as_nanosecond());
        let (seconds, part) = self.started();
        Duration::from_nanos(u64::try_from(end - nanos(seconds, part)).unwrap_or(0))
    }
}

/// `0.3s`, `2m  5s`.
pub(super) fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        seconds => format!("{}m {:2}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::control::Exporter;

    use super::*;

    #[test]
    fn names() {
        let name = |tags: &str, attrs: &[(&str, &str)]| {
            let exporter = Exporter {
                r#type: "image".to_owned(),
                attrs: BTreeMap::from([("name".to_owned(), tags.to_owned())]),
            };
            let frontend_attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let exporters = vec![exporter];
            Build(BuildHistoryRecord { exporters, frontend_attrs, ..BuildHistoryRecord::default() }).name()
        };
        assert_eq!(name("docker.io/library/app:latest,other", &[("target", "t")]), "app:latest");
        assert_eq!(name("", &[("target", "t"), ("filename", "x.Dockerfile")]), "x.Dockerfile (t)");
        assert_eq!(name("", &[("context", "https://example.com/x.git")]), "https://example.com/x.git");
        assert_eq!(name("", &[]), "Dockerfile");
    }

    #[test]
    fn durations() {
        let shown = |ms| shown(Duration::from_millis(ms));
        assert_eq!(
            (shown(340), shown(59_940), shown(125_000)),
            ("0.3s".into(), "59.9s".into(), "2m  5s".into())
        );
    }
}
