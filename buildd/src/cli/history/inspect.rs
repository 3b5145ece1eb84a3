//! `rbuild history inspect`.

use std::io::Write as _;
use std::process::ExitCode;

use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use super::super::Context;
use super::super::table::{ago, print, row, stdout};
use super::attachments::{self, Attachment};
use super::record::{Build, find, shown};
use crate::client::{Client, ClientError};

/// Shows what is known of a build
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// pretty or json
    #[arg(long, value_name = "FORMAT", default_value = "pretty", value_parser = ["pretty", "json"])]
    format: String,
    /// Prints this attachment instead: a digest, a type such as `https://slsa.dev/provenance/v1`, or `provenance`
    #[arg(long, value_name = "WHICH", conflicts_with = "format")]
    attachment: Option<String>,
    /// An id or its beginning, or ^N, the one N before the latest [default: the latest]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let build = find(&client, self.build.as_deref()).await?;
        match &self.attachment {
            Some(wanted) => print_attachment(&client, &build, wanted).await?,
            None if self.format == "json" => stdout(&format!("{:#}\n", Value::Object(record_json(&build))))?,
            None => pretty(&client, &build).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn print_attachment(client: &Client, build: &Build, wanted: &str) -> Result<(), ClientError> {
    let all = attachments::of(&build.0);
    let is_wanted = |a: &&Attachment<'_>| {
        let provenance = wanted == "provenance" && a.kind().starts_with("https://slsa.dev/provenance/");
        a.descriptor.digest == wanted || a.kind() == wanted || provenance
    };
    let Some(found) = all.iter().find(is_wanted) else {
        let reference = &build.0.r#ref;
        return Err(ClientError::Usage(format!("build `{reference}` has no attachment `{wanted}`")));
    };
    let bytes = attachments::read(client, &found.descriptor.digest).await?;
    match std::io::stdout().write_all(&bytes) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

async fn pretty(client: &Client, build: &Build) -> Result<(), ClientError> {
    let record = &build.0;
    let mut rows = vec![
        row(["Name:", &build.name()]),
        row(["Build:", &record.r#ref]),
        row(["Status:", build.status()]),
        row(["Started:", &ago(record.created_at.as_ref())]),
        row(["Duration:", &shown(build.duration())]),
        row(["Steps:", &steps(build)]),
    ];
    if record.num_warnings > 0 {
        rows.push(row(["Warnings:", &record.num_warnings.to_string()]));
    }
    if record.pinned {
        rows.push(row(["Pinned:", "yes"]));
    }
    rows.extend(record.frontend_attrs.iter().map(|(name, value)| row([&format!("{name}:"), value])));
    rows.extend(record.exporters.iter().map(|exporter| {
        let attrs = exporter.attrs.iter().map(|(name, value)| format!(",{name}={value}"));
        row(["Output:", &format!("type={}{}", exporter.r#type, attrs.collect::<String>())])
    }));
    print(&rows)?;
    if let Some(error) = &record.error {
        stdout(&format!("\nError: {}\n", error.message))?;
    }
    let materials = materials(client, build).await?;
    if !materials.is_empty() {
        stdout("\n")?;
        let mut rows = vec![row(["MATERIAL", "DIGEST"])];
        rows.extend(materials);
        print(&rows)?;
    }
    let attachments = attachments::of(record);
    if !attachments.is_empty() {
        stdout("\n")?;
        let mut rows = vec![row(["ATTACHMENT", "PLATFORM", "TYPE"])];
        rows.extend(
            attachments.iter().map(|a| row([&a.descriptor.digest, a.platform.unwrap_or("-"), a.kind()])),
        );
        print(&rows)?;
    }
    Ok(())
}

fn steps(build: &Build) -> String {
    let record = &build.0;
    let (done, all, cached) = (record.num_completed_steps, record.num_total_steps, record.num_cached_steps);
    let share = if all > 0 { 100 * cached / all } else { 0 };
    format!("{done}/{all} ({share}% cached)")
}

/// What went into the build, by its provenance, with digests.
async fn materials(client: &Client, build: &Build) -> Result<Vec<Vec<String>>, ClientError> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for attachment in attachments::of(&build.0) {
        if !attachment.kind().starts_with("https://slsa.dev/provenance/") {
            continue;
        }
        let bytes = attachments::read(client, &attachment.descriptor.digest).await?;
        let Ok(told) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let listed = [&told["buildDefinition"]["resolvedDependencies"], &told["materials"]];
        for material in listed.into_iter().filter_map(Value::as_array).flatten() {
            let digests = material["digest"].as_object();
            let digest =
                digests.and_then(|all| all.iter().find_map(|(k, v)| Some(format!("{k}:{}", v.as_str()?))));
            let row = row([material["uri"].as_str().unwrap_or_default(), &digest.unwrap_or_default()]);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// A build as JSON.
pub(super) fn record_json(build: &Build) -> Map<String, Value> {
    let record = &build.0;
    let attachments: Vec<Value> = attachments::of(record)
        .iter()
        .map(|a| json!({"digest": a.descriptor.digest, "platform": a.platform, "type": a.kind()}))
        .collect();
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    put("ref", record.r#ref.clone().into());
    put("name", build.name().into());
    put("status", build.status().into());
    put("created_at", time(record.created_at.as_ref()));
    put("completed_at", time(record.completed_at.as_ref()));
    put("duration_ms", u64::try_from(build.duration().as_millis()).unwrap_or(u64::MAX).into());
    put("total_steps", record.num_total_steps.into());
    put("completed_steps", record.num_completed_steps.into());
    put("cached_steps", record.num_cached_steps.into());
    put("warnings", record.num_warnings.into());
    put("pinned", record.pinned.into());
    put("error", record.error.as_ref().map_or(Value::Null, |error| error.message.clone().into()));
    put("frontend", record.frontend.clone().into());
    put("attributes", json!(record.frontend_attrs));
    put("attachments", attachments.into());
    all
}

fn time(time: Option<&Timestamp>) -> Value {
    let time = time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok());
    time.map_or(Value::Null, |time| time.to_string().into())
}
