//! HEALTHCHECK.

use std::time::Duration;

use crate::ast::{HealthcheckCommand, Instruction};
use crate::config::Healthcheck;
use crate::lower::build::Context;
use crate::lower::configure::commit;
use crate::lower::stage::Stage;

pub(super) fn healthcheck(
    context: &mut Context<'_>,
    stage: &mut Stage<'_>,
    instruction: &Instruction,
    command: &HealthcheckCommand,
) {
    stage.healthchecks.note(&mut context.linter, instruction);
    let message = format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        command.test.join(" "),
        go_duration(command.interval),
        go_duration(command.timeout),
        go_duration(command.start_period),
        go_duration(command.start_interval),
        command.retries
    );
    stage.image.config.healthcheck = Some(Healthcheck {
        test: command.test.clone(),
        interval: nanos(command.interval),
        timeout: nanos(command.timeout),
        start_period: nanos(command.start_period),
        start_interval: nanos(command.start_interval),
        retries: command.retries.into(),
    });
    commit(context, stage, message, false);
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A duration as Go prints it: `1h0m0.5s`, `150ms`, `2µs`, `3ns`, `0s`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let with_fraction = |whole: u128, rest: u128, digits: usize| {
        let fraction = format!("{rest:0digits$}");
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", with_fraction(nanos / 1_000, nanos % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", with_fraction(nanos / 1_000_000, nanos % 1_000_000, 6)),
        _ => {
            let seconds = duration.as_secs();
            let last = with_fraction(u128::from(seconds % 60), nanos % 1_000_000_000, 9);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{last}s"),
                (0, minutes) => format!("{minutes}m{last}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{last}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (3, "3ns"),
            (1_500, "1.5µs"),
            (150_000_000, "150ms"),
            (1_000_000_000, "1s"),
            (300_000_000_000, "5m0s"),
            (3_600_500_000_000, "1h0m0.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
