//! Start times.

use super::entry::number;

/// Times that differ in their milliseconds only, as those of neighbours in a log do, are worked out once.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    second: [u8; 19],
    millis: i64,
}

impl Clock {
    /// As [`millis`].
    pub(super) fn millis(&mut self, text: &[u8]) -> Option<i64> {
        let Some((second, [b'.', a, b, c, b'Z'])) = text.split_first_chunk::<19>() else { return millis(text) };
        if *second != self.second {
            self.millis = millis(text)?.div_euclid(1000) * 1000;
            self.second = *second;
        }
        Some(self.millis + i64::try_from(number(&[*a, *b, *c])?).ok()?)
    }
}

/// `2026-11-21T09:00:00.123Z` in milliseconds since 1970.
///
/// Civil days by Howard Hinnant's `days_from_civil`: a log has millions of lines, and a general parser would be most of
/// the time spent on one.
pub(super) fn millis(text: &[u8]) -> Option<i64> {
    if text.len() < 20 || !super::is_date(text, b'T') {
        return None;
    }
    let part =
        |range: std::ops::Range<usize>| text.get(range).and_then(number).and_then(|value| i64::try_from(value).ok());
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
    let fraction = if text[19] == b'.' { part(20..23)? } else { 0 };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + fraction)
}
