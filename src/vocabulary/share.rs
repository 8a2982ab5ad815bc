//! Shares of traffic, and how percentages are printed.

use std::fmt;
use std::str::FromStr;

/// A share of traffic in hundredths of a percent, from 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    pub const ALL: Self = Self(10_000);

    /// `part` divided by `total`, rounded to the nearest hundredth of a percent; zero when `total` is zero.
    pub fn from_ratio(part: u64, total: u64) -> Self {
        let all = u128::from(Self::ALL.0);
        let hundredths = (2 * all * u128::from(part) + u128::from(total)) / (2 * u128::from(total)).max(1);
        Self(u32::try_from(hundredths).unwrap_or(Self::ALL.0).min(Self::ALL.0))
    }

    /// Values above 10,000 become 10,000.
    #[cfg(test)]
    pub fn from_hundredths(hundredths: u32) -> Self {
        Self(hundredths.min(Self::ALL.0))
    }

    pub fn hundredths(self) -> u32 {
        self.0
    }

    /// 100% minus this share.
    #[must_use]
    pub fn complement(self) -> Self {
        Self::ALL.saturating_sub(self)
    }

    /// Subtracts another share, down to zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:02}", self.0 / 100, self.0 % 100);
        f.pad(&format!("{}%", text.trim_end_matches('0').trim_end_matches('.')))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a valid share: expected a number from 0 to 100 with at most two decimals")]
pub struct ShareError(String);

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ShareError(text.to_owned());
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits =
            |text: &str, max_length: usize| text.len() <= max_length && text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole, 3) || !digits(fraction, 2) || number.ends_with('.') {
            return Err(invalid());
        }
        let whole: u32 = whole.parse().map_err(|_| invalid())?;
        let fraction: u32 = format!("{fraction:0<2}").parse().map_err(|_| invalid())?;
        let share = Self(whole * 100 + fraction);
        if share <= Self::ALL { Ok(share) } else { Err(invalid()) }
    }
}

/// Formats a percentage from 0 to 100 with at most one decimal: `90%`, `33.3%`.
pub fn format_percent(percent: f64) -> String {
    let tenths = (percent * 10.0).round() / 10.0;
    if tenths.fract() == 0.0 { format!("{tenths:.0}%") } else { format!("{tenths:.1}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    #[test]
    fn parses_percentages_with_at_most_two_decimals() {
        for (text, hundredths, shown) in [
            ("25", 2500, "25%"),
            ("0", 0, "0%"),
            ("100%", 10_000, "100%"),
            ("12.5", 1250, "12.5%"),
            ("0.05", 5, "0.05%"),
        ] {
            assert_eq!((share(text).hundredths(), share(text).to_string().as_str()), (hundredths, shown));
        }
        for invalid in ["", "%", "101", "-1", "1.234", "1.", ".5", "1e1", "ten", "100.01", "+5", "٢"] {
            assert!(invalid.parse::<Share>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn computes_a_share_from_a_part_and_a_total() {
        let share = |part, total| Share::from_ratio(part, total).to_string();
        assert_eq!(
            (share(1, 3), share(2, 3), share(9, 9), share(0, 7), share(0, 0)),
            ("33.33%".into(), "66.67%".into(), "100%".into(), "0%".into(), "0%".into())
        );
    }

    #[test]
    fn prints_percentages_with_at_most_one_decimal() {
        assert_eq!(format_percent(100.0 / 3.0), "33.3%");
        assert_eq!(format_percent(90.0), "90%");
    }
}
