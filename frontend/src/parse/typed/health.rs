//! HEALTHCHECK.

use std::time::Duration;

use crate::ast::{Command, HealthcheckCommand};
use crate::number;
use crate::parse::flags::{Flags, Kind};
use crate::parse::problem::Problem;
use crate::parse::typed::{Request, at_least_one};
use crate::quote::quote;

pub(super) fn healthcheck(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    let Some((kind, command)) = request.args().split_first() else { return Err(at_least_one("HEALTHCHECK")) };
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        return none(command);
    }
    let flags = request.flags(&[
        ("interval", Kind::Text),
        ("timeout", Kind::Text),
        ("start-period", Kind::Text),
        ("start-interval", Kind::Text),
        ("retries", Kind::Text),
    ])?;
    if kind != "CMD" {
        let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind));
        return Err(vec![Problem::new(message).about(&request.args()[0])]);
    }
    if command.is_empty() {
        return Err(vec![Problem::new("Missing command after HEALTHCHECK CMD")]);
    }
    let form = if request.statement.json { "CMD" } else { "CMD-SHELL" };
    Ok(Command::Healthcheck(HealthcheckCommand {
        test: std::iter::once(form.to_owned()).chain(command.iter().cloned()).collect(),
        interval: duration(&flags, "interval")?,
        timeout: duration(&flags, "timeout")?,
        start_period: duration(&flags, "start-period")?,
        start_interval: duration(&flags, "start-interval")?,
        retries: retries(&flags)?,
    }))
}

/// HEALTHCHECK NONE, whose flags nobody looks at.
fn none(command: &[String]) -> Result<Command, Vec<Problem>> {
    if !command.is_empty() {
        return Err(vec![Problem::new("HEALTHCHECK NONE takes no arguments")]);
    }
    Ok(Command::Healthcheck(HealthcheckCommand {
        test: vec!["NONE".to_owned()],
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        start_period: Duration::ZERO,
        start_interval: Duration::ZERO,
        retries: 0,
    }))
}

/// A duration of a millisecond at least; zero when the flag is absent, empty or zero.
fn duration(flags: &Flags, name: &str) -> Result<Duration, Vec<Problem>> {
    let Some(text) = flags.text(name) else { return Ok(Duration::ZERO) };
    let short = |text: &str| {
        let message = format!("Interval {} cannot be less than 1ms", quote(name));
        vec![Problem::new(message).about(text)]
    };
    if text.strip_prefix('-').is_some_and(|rest| number::duration(rest).is_some_and(|value| !value.is_zero()))
    {
        return Err(short(&text));
    }
    let value = number::duration(text.strip_prefix('-').unwrap_or(&text)).ok_or_else(|| {
        vec![
            Problem::new(format!("time: invalid duration {}", quote(&text)))
                .about(&text)
                .hint("a duration looks like `30s` or `1m30s`"),
        ]
    })?;
    if !value.is_zero() && value < Duration::from_millis(1) {
        return Err(short(&text));
    }
    Ok(value)
}

fn retries(flags: &Flags) -> Result<u32, Vec<Problem>> {
    let Some(text) = flags.text("retries") else { return Ok(0) };
    let invalid = || {
        vec![Problem::new(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(&text))).about(&text)]
    };
    let value: i32 = text.parse().map_err(|_| invalid())?;
    u32::try_from(value)
        .map_err(|_| vec![Problem::new(format!("--retries cannot be negative ({value})")).about(&text)])
}
