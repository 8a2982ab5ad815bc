//! Durations as Istio writes them: `2s`, `1h30m`, `100ms`.
//!
//! Istio's API uses protobuf durations, whose JSON form in Kubernetes objects is Go's `time.ParseDuration` text.
//! Source: <https://pkg.go.dev/time#ParseDuration>

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("\"{0}\" is not a valid duration: expected a number with a unit, such as 2s, 500ms or 1h30m")]
    Malformed(String),
    /// The nanoseconds do not fit in 64 bits: longer than about 584 years.
    #[error("\"{0}\" is too large for a duration")]
    TooLarge(String),
}

/// Parses Go's duration text, such as `1m30s` or `1.5s`. A number needs a unit, except `0`. Negative durations are rejected: no
/// field of Istio's API accepts one.
///
/// # Errors
/// [`DurationError::Malformed`] for a missing number, a missing or unknown unit, or a minus sign;
/// [`DurationError::TooLarge`] beyond 64 bits of nanoseconds.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed(text.to_owned());
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(malformed());
        }
        let (unit, after) = unit(after).ok_or_else(malformed)?;
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| malformed())? };
        nanos = whole
            .checked_mul(unit)
            .and_then(|n| n.checked_add(nanos))
            .ok_or_else(|| DurationError::TooLarge(text.to_owned()))?;
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            nanos += u128::from(digit - b'0') * scale;
        }
        rest = after;
    }
    let nanos = u64::try_from(nanos).map_err(|_| DurationError::TooLarge(text.to_owned()))?;
    Ok(Duration::from_nanos(nanos))
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Nanoseconds of the unit at the start of `text`, and the rest of `text`.
fn unit(text: &str) -> Option<(u128, &str)> {
    const UNITS: [(&str, u128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    UNITS.iter().find_map(|(name, nanos)| text.strip_prefix(name).map(|rest| (*nanos, rest)))
}

/// Formats a duration the way VirtualServices spell it: `2s`, `1m30s`, `250ms`.
pub fn format(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return if duration.is_zero() { "0s".to_owned() } else { format!("{}ns", duration.as_nanos()) };
    }
    if !millis.is_multiple_of(1000) {
        return if millis < 1000 { format!("{millis}ms") } else { format!("{}s", duration.as_secs_f64()) };
    }
    let total = millis / 1000;
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    let mut out = String::new();
    for (value, unit) in [(hours, 'h'), (minutes, 'm'), (seconds, 's')] {
        if value > 0 {
            out.push_str(&format!("{value}{unit}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_go_durations() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("2s", 2_000),
            ("100ms", 100),
            ("1h15m30.918s", 4_530_918),
            (".5s", 500),
            ("1.s", 1_000),
            ("1000us", 1),
            ("1000µs", 1),
        ] {
            assert_eq!(parse(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
    }

    #[test]
    fn rejects_text_that_is_not_a_duration() {
        for text in ["", "2", "s", "2 s", "-1s", "2d", "1h-3m", "..s", "99999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn formats_durations_in_their_shortest_form() {
        for text in ["2s", "250ms", "1m30s", "1h", "1.5s", "0s"] {
            assert_eq!(parse(text).map(format), Ok(text.to_owned()));
        }
    }
}
