//! Parses start times.

use super::entry::parse_number;

/// Converts the date and second once for timestamps that differ only in their milliseconds, as neighboring lines do.
#[derive(Debug, Clone, Default)]
pub(super) struct TimestampCache {
    /// Text of the last second, and its milliseconds since 1970.
    last: Option<([u8; 19], i64)>,
}

impl TimestampCache {
    /// Same result as [`parse_epoch_ms`].
    #[inline]
    pub(super) fn parse_epoch_ms(&mut self, text: &[u8]) -> Option<i64> {
        let Some((second, [b'.', a, b, c, b'Z'])) = text.split_first_chunk::<19>() else { return parse_epoch_ms(text) };
        let second_ms = match self.last {
            Some((last, millis)) if last == *second => millis,
            _ => {
                let millis = parse_epoch_ms(text)?.div_euclid(1000) * 1000;
                self.last = Some((*second, millis));
                millis
            }
        };
        Some(second_ms + i64::try_from(parse_number(&[*a, *b, *c])?).ok()?)
    }
}

/// Parses `2026-11-21T09:00:00.123Z`, with any number of fractional digits or none, into milliseconds since 1970. `None`
/// for other time zones and for invalid times.
///
/// Days are computed with Howard Hinnant's `days_from_civil`: a general date parser would dominate the cost of a line.
pub(super) fn parse_epoch_ms(text: &[u8]) -> Option<i64> {
    let (head, rest) = text.split_at_checked(19).filter(|(head, _)| super::is_date(head, b'T'))?;
    let field = |range: std::ops::Range<usize>| {
        head.get(range).and_then(parse_number).and_then(|value| i64::try_from(value).ok())
    };
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    let fraction_ms = parse_fraction_ms(rest.strip_suffix(b"Z")?)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years start in March, so that a leap day is the last day of its year.
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + fraction_ms)
}

/// Milliseconds of the text between seconds and zone: empty, or a point and digits.
fn parse_fraction_ms(text: &[u8]) -> Option<i64> {
    let Some(digits) = text.strip_prefix(b".") else { return text.is_empty().then_some(0) };
    let digit = |index: usize| digits.get(index).map_or(0, |digit| i64::from(digit - b'0'));
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digit(0) * 100 + digit(1) * 10 + digit(2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rejects_text_that_is_not_a_utc_timestamp() {
        for text in [
            "",
            "2026-11-20T23:30:13xxxxx",
            "2026-11-20T23:30:13.Z",
            "2026-11-20T23:30:13.123",
            "2026-02-29T00:00:00Z",
            "2026-11-20T23:30:13.123+02:00",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "\0\0\0\0",
        ] {
            assert_eq!(parse_epoch_ms(text.as_bytes()), None, "{text}");
            assert_eq!(TimestampCache::default().parse_epoch_ms(text.as_bytes()), None, "{text}");
        }
        // As many zero bytes as a second has characters: an empty cache must not match them.
        assert_eq!(TimestampCache::default().parse_epoch_ms(&[[0; 19].as_slice(), b".123Z"].concat()), None);
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(millis in -62_135_596_800_000_i64..253_402_300_000_000, others in prop::collection::vec(0_i64..3_000, 0..4)) {
            let mut timestamps = TimestampCache::default();
            for millis in others.iter().map(|offset| millis + offset).chain([millis]) {
                let time = jiff::Timestamp::from_millisecond(millis).unwrap();
                for text in [format!("{time:.3}"), format!("{time:.9}"), format!("{time}")] {
                    prop_assert_eq!(timestamps.parse_epoch_ms(text.as_bytes()), Some(millis), "{}", text);
                }
                prop_assert_eq!(timestamps.parse_epoch_ms(format!("{time:.0}").as_bytes()), Some(millis.div_euclid(1000) * 1000));
            }
        }
    }
}
