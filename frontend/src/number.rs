//! Numbers, booleans, sizes and durations as Go's libraries read them.

use std::time::Duration;

/// Go's `strconv.ParseBool`; `None` for what is no boolean.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `strconv.ParseUint` with 32 bits: digits only, no sign.
pub(crate) fn unsigned(text: &str, radix: u32) -> Option<u32> {
    if text.is_empty() || !text.chars().all(|ch| ch.is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

/// A size in bytes with an optional unit of 1024 (`k`, `MiB`, `1.5g`), as `units.RAMInBytes` of Docker.
pub(crate) fn bytes(text: &str) -> Option<i64> {
    let digits = text.rfind(|ch: char| ch.is_ascii_digit() || ch == '.')? + 1;
    let (number, unit) = text.split_at(digits);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let value: f64 = number.parse().ok().filter(|value: &f64| *value >= 0.0 && value.is_finite())?;
    // Truncation is what Docker does with fractions of a byte.
    Some((value * (1_i64 << shift) as f64) as i64)
}

/// Go's `time.ParseDuration` for durations that are not negative: `1h2m3.5s`, in ns, us, ms, s, m, h.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let len = rest.find(|ch: char| !ch.is_ascii_digit() && ch != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(len);
        let unit_len = after.find(|ch: char| ch.is_ascii_digit() || ch == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, scale)?)?;
        rest = after;
    }
    // Go counts nanoseconds in 63 bits.
    let nanos = u64::try_from(total).ok().filter(|&nanos| i64::try_from(nanos).is_ok())?;
    Some(Duration::from_nanos(nanos))
}

/// A decimal number times a scale, fractions cut off.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // More digits than a nanosecond of an hour has cannot count.
    let digits = &fraction[..fraction.len().min(18)];
    let fraction = if digits.is_empty() {
        0
    } else {
        digits.parse::<u128>().ok()? * scale / 10_u128.pow(u32::try_from(digits.len()).ok()?)
    };
    Some(u128::from(whole) * scale + fraction)
}
