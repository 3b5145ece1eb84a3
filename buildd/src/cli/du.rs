//! `rbuild du`.

use std::process::ExitCode;

use proto::control::{DiskUsageRequest, UsageRecord};

use super::Context;
use super::table::{ago, print, row, size, stdout};
use crate::client::ClientError;

/// Shows what the build cache holds
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only records that match, such as type==regular
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Shows descriptions, types and counts
    #[arg(short, long)]
    verbose: bool,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let client = context.connect().await?;
        let request = DiskUsageRequest { filter: self.filters.clone(), age_limit: 0 };
        let records = client.control().disk_usage(request).await?.into_inner().record;
        let mut rows = vec![header(self.verbose)];
        rows.extend(records.iter().map(|record| cells(record, self.verbose)));
        print(&rows)?;
        stdout(&totals(&records))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The column titles of a list of records.
pub(super) fn header(verbose: bool) -> Vec<String> {
    let mut cells = row(["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"]);
    if verbose {
        cells.extend(row(["TYPE", "USES", "DESCRIPTION"]));
    }
    cells
}

/// One record's cells; `*` marks what may still change and what others share.
pub(super) fn cells(record: &UsageRecord, verbose: bool) -> Vec<String> {
    let star = |set: bool| if set { "*" } else { "" };
    let mut cells = vec![
        format!("{}{}", record.id, star(record.mutable)),
        (!record.in_use).to_string(),
        format!("{}{}", size(record.size), star(record.shared)),
        ago(record.last_used_at.as_ref()),
    ];
    if verbose {
        cells.extend([
            record.record_type.clone(),
            record.usage_count.to_string(),
            record.description.clone(),
        ]);
    }
    cells
}

fn totals(records: &[UsageRecord]) -> String {
    let sum = |wanted: fn(&UsageRecord) -> bool| -> i64 {
        records.iter().filter(|r| wanted(r)).map(|r| r.size.max(0)).sum()
    };
    let (total, shared) = (sum(|_| true), sum(|r| r.shared));
    let mut text = String::new();
    if shared > 0 {
        text.push_str(&format!("Shared:\t\t{}\nPrivate:\t{}\n", size(shared), size(total - shared)));
    }
    text.push_str(&format!("Reclaimable:\t{}\nTotal:\t\t{}\n", size(sum(|r| !r.in_use)), size(total)));
    text
}
