//! Limits: ulimits and the resources of a sandbox.

use std::collections::BTreeMap;
use std::str::FromStr;

use solver::graph::LinuxResources;
use solver::op::Ulimit;

use super::OptionError;

/// The resources that `ulimit` may name.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
pub(super) fn ulimit(text: &str) -> Result<Ulimit, OptionError> {
    let invalid = || OptionError::Ulimit(text.to_owned());
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    if !ULIMITS.contains(&name) {
        return Err(OptionError::UlimitType(name.to_owned()));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(OptionError::UlimitOrder { soft, hard });
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// The attributes `memory`, `memswap`, `cpushares`, …; `None` where none is set.
pub(super) fn resources(attrs: &BTreeMap<String, String>) -> Result<Option<LinuxResources>, OptionError> {
    let positive = ": must be > 0";
    let resources = LinuxResources {
        memory: number(attrs, "memory", |n: &i64| *n > 0, positive)?,
        memory_swap: number(
            attrs,
            "memswap",
            |n: &i64| *n > 0 || *n == -1,
            ": must be -1 (unlimited) or > 0",
        )?,
        cpu_shares: number(attrs, "cpushares", |n: &u64| *n > 0, positive)?,
        cpu_period: number(attrs, "cpuperiod", |n: &u64| *n > 0, positive)?,
        cpu_quota: number(attrs, "cpuquota", |n: &i64| *n > 0, positive)?,
        cpuset_cpus: cpuset(attrs, "cpusetcpus")?,
        cpuset_mems: cpuset(attrs, "cpusetmems")?,
    };
    Ok((resources != LinuxResources::default()).then_some(resources))
}

fn number<T: FromStr + Default>(
    attrs: &BTreeMap<String, String>,
    key: &'static str,
    fits: fn(&T) -> bool,
    rule: &'static str,
) -> Result<T, OptionError> {
    let Some(value) = attrs.get(key).filter(|value| !value.is_empty()) else { return Ok(T::default()) };
    let error = |rule| OptionError::Number { key, value: value.clone(), rule };
    let number = value.parse().map_err(|_| error(""))?;
    if fits(&number) { Ok(number) } else { Err(error(rule)) }
}

/// A list such as `0-3,7`.
fn cpuset(attrs: &BTreeMap<String, String>, key: &'static str) -> Result<String, OptionError> {
    let Some(value) = attrs.get(key).filter(|value| !value.is_empty()) else { return Ok(String::new()) };
    let is_range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        match (low.trim().parse::<u32>(), high.trim().parse::<u32>()) {
            (Ok(low), Ok(high)) => low <= high,
            _ => false,
        }
    };
    if value.split(',').all(is_range) {
        Ok(value.clone())
    } else {
        Err(OptionError::Number { key, value: value.clone(), rule: "" })
    }
}
