//! Byte counts as BuildKit prints them.

const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

/// A count with two decimals in decimal units; whole bytes below 1 kB.
pub(crate) fn bytes(count: i64) -> String {
    let (mut value, mut unit) = (count as f64, 0);
    while value.abs() >= 1000.0 {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count}B"),
        _ => format!("{value:.2}{}", UNITS[unit]),
    }
}

/// What a status says of its size, with a leading space; empty when it says nothing.
pub(super) fn progress(current: i64, total: i64) -> String {
    match (current, total) {
        (0, 0) => String::new(),
        (current, 0) => format!(" {}", bytes(current)),
        (current, total) => format!(" {} / {}", bytes(current), bytes(total)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (count, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (1234, "1.23kB"),
            (5_242_880, "5.24MB"),
            (-1500, "-1.50kB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(i64::MAX), "9.22EB");
        assert_eq!(progress(0, 0), "");
        assert_eq!(progress(12, 0), " 12B");
        assert_eq!(progress(0, 2000), " 0B / 2.00kB");
    }
}
