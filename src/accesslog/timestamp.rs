//! Start times.

use super::entry::number;

/// Times that differ in their milliseconds only, as those of neighbours in a log do, are worked out once.
#[derive(Debug, Clone, Default)]
pub(super) struct TimestampCache {
    /// The last second, and its milliseconds since 1970.
    last: Option<([u8; 19], i64)>,
}

impl TimestampCache {
    /// As [`millis`].
    #[inline]
    pub(super) fn millis(&mut self, text: &[u8]) -> Option<i64> {
        let Some((second, [b'.', a, b, c, b'Z'])) = text.split_first_chunk::<19>() else { return millis(text) };
        let start = match self.last {
            Some((last, start)) if last == *second => start,
            _ => {
                let start = millis(text)?.div_euclid(1000) * 1000;
                self.last = Some((*second, start));
                start
            }
        };
        Some(start + i64::try_from(number(&[*a, *b, *c])?).ok()?)
    }
}

/// `2026-11-21T09:00:00.123Z`, with any number of digits after the point or none, in milliseconds since 1970; `None` for
/// a time of another zone, and for what is no time.
///
/// Civil days by Howard Hinnant's `days_from_civil`: a log has millions of lines, and a general parser would be most of
/// the time spent on one.
pub(super) fn millis(text: &[u8]) -> Option<i64> {
    let (head, rest) = text.split_at_checked(19).filter(|(head, _)| super::is_date(head, b'T'))?;
    let part =
        |range: std::ops::Range<usize>| head.get(range).and_then(number).and_then(|value| i64::try_from(value).ok());
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
    let fraction = fraction(rest.strip_suffix(b"Z")?)?;
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
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + fraction)
}

/// Milliseconds of what stands between seconds and zone: nothing, or a point and digits.
fn fraction(text: &[u8]) -> Option<i64> {
    let Some(digits) = text.strip_prefix(b".") else { return text.is_empty().then_some(0) };
    let known = |at: usize| digits.get(at).map_or(0, |digit| i64::from(digit - b'0'));
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| known(0) * 100 + known(1) * 10 + known(2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_time_is_none() {
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
            assert_eq!(millis(text.as_bytes()), None, "{text}");
            assert_eq!(TimestampCache::default().millis(text.as_bytes()), None, "{text}");
        }
        // As many zeros as a second has letters, which an empty memory could be taken for.
        assert_eq!(TimestampCache::default().millis(&[[0; 19].as_slice(), b".123Z"].concat()), None);
    }

    proptest! {
        #[test]
        fn as_a_library_reads_it(at in -62_135_596_800_000_i64..253_402_300_000_000, others in prop::collection::vec(0_i64..3_000, 0..4)) {
            let mut clock = TimestampCache::default();
            for at in others.iter().map(|more| at + more).chain([at]) {
                let time = jiff::Timestamp::from_millisecond(at).unwrap();
                for text in [format!("{time:.3}"), format!("{time:.9}"), format!("{time}")] {
                    prop_assert_eq!(clock.millis(text.as_bytes()), Some(at), "{}", text);
                }
                prop_assert_eq!(clock.millis(format!("{time:.0}").as_bytes()), Some(at.div_euclid(1000) * 1000));
            }
        }
    }
}
