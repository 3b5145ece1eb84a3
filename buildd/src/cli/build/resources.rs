//! What steps may use of the machine: `--resource`, and docker's older flags for the same.

use std::collections::BTreeMap;

use super::flags::{bytes, invalid};
use crate::client::ClientError;

/// Names, as docker's flags have them, and the attributes of the frontend that they become.
const NAMES: [(&str, &str); 7] = [
    ("memory", "memory"),
    ("memory-swap", "memswap"),
    ("cpu-shares", "cpushares"),
    ("cpu-period", "cpuperiod"),
    ("cpu-quota", "cpuquota"),
    ("cpuset-cpus", "cpusetcpus"),
    ("cpuset-mems", "cpusetmems"),
];

/// The flags of `docker build` that `--resource` stands for.
#[derive(Debug, Default, clap::Args)]
pub(super) struct OldResources {
    /// Memory limit
    #[arg(short = 'm', long, value_name = "SIZE", hide = true)]
    memory: Option<String>,
    /// Memory and swap together, -1 for any
    #[arg(long, value_name = "SIZE", hide = true, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Relative weight
    #[arg(short = 'c', long, value_name = "N", hide = true)]
    cpu_shares: Option<String>,
    /// Accounting period, microseconds
    #[arg(long, value_name = "N", hide = true)]
    cpu_period: Option<String>,
    /// Microseconds in each period
    #[arg(long, value_name = "N", hide = true)]
    cpu_quota: Option<String>,
    /// Processors
    #[arg(long, value_name = "LIST", hide = true)]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST", hide = true)]
    cpuset_mems: Option<String>,
}

impl OldResources {
    fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { memory, memory_swap, cpu_shares, cpu_period, cpu_quota, cpuset_cpus, cpuset_mems } = self;
        let values = [memory, memory_swap, cpu_shares, cpu_period, cpu_quota, cpuset_cpus, cpuset_mems];
        NAMES.iter().zip(values).filter_map(|((name, _), value)| Some((*name, value.as_deref()?)))
    }
}

/// The attributes for a frontend; the last of several values counts.
pub(super) fn attrs(
    old: &OldResources,
    resources: &[String],
) -> Result<BTreeMap<&'static str, String>, ClientError> {
    let mut attrs = BTreeMap::new();
    let split = |text: &'_ String| {
        text.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
    };
    let mut given: Vec<(String, String)> =
        old.given().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for text in resources {
        given.push(split(text).ok_or_else(|| invalid("--resource", text, "NAME=VALUE"))?);
    }
    for (name, value) in given {
        let Some((_, attr)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(invalid("--resource", &name, &format!("one of {}", known.join(", "))));
        };
        let value = match *attr {
            "memory" => bytes(&format!("{name} of --resource"), &value)?.to_string(),
            "memswap" if value != "-1" => bytes(&format!("{name} of --resource"), &value)?.to_string(),
            _ => value,
        };
        // Like docker's, zero and nothing are no wishes; the first processor has the number zero.
        let is_list = name.starts_with("cpuset-");
        if !value.is_empty() && (is_list || value != "0") {
            attrs.insert(*attr, value);
        }
    }
    Ok(attrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(old: &OldResources, resources: &[&str]) -> Result<String, String> {
        let resources: Vec<String> = resources.iter().map(|&text| text.to_owned()).collect();
        let attrs = attrs(old, &resources).map_err(|error| error.to_string())?;
        Ok(attrs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn resources_of_steps() {
        let old = OldResources {
            memory: Some("64m".into()),
            cpuset_cpus: Some("0-1".into()),
            ..OldResources::default()
        };
        assert_eq!(read(&old, &[]).unwrap(), "cpusetcpus=0-1 memory=67108864");
        let given = ["memory=1g", "memory-swap=-1", "cpu-quota = 5000", "cpu-period=0", "cpuset-cpus=0"];
        assert_eq!(read(&old, &given).unwrap(), "cpuquota=5000 cpusetcpus=0 memory=1073741824 memswap=-1");
        for (bad, part) in [("memory", "NAME=VALUE"), ("disk=1", "one of memory"), ("memory=x", "a size")] {
            let error = read(&OldResources::default(), &[bad]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
