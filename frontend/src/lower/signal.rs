//! Signal names and numbers that STOPSIGNAL takes (`moby/sys/signal`).

/// Linux signals by name, without `SIG`; `RTMIN+n` and `RTMAX-n` are handled apart.
const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether it is a number other than 0, or a signal's name with or without `SIG`, in any case.
pub(super) fn is_known(signal: &str) -> bool {
    if let Ok(number) = signal.parse::<i64>() {
        return number != 0;
    }
    let upper = signal.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix, most: u32| {
        let rest: Option<&str> = name.strip_prefix(prefix);
        rest.is_some_and(|rest| {
            !rest.starts_with(['0', '+'])
                && rest.parse().is_ok_and(|number: u32| (1..=most).contains(&number))
        })
    };
    NAMES.contains(&name) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

#[cfg(test)]
mod tests {
    #[test]
    fn known() {
        for signal in ["9", "-9", "99", "TERM", "SIGTERM", "sigint", "RTMIN+3", "SIGRTMAX-14"] {
            assert!(super::is_known(signal), "{signal}");
        }
        for signal in ["0", "", "SIG", "NOPE", "RTMIN+16", "RTMAX+1", "RTMIN-1"] {
            assert!(!super::is_known(signal), "{signal}");
        }
    }
}
