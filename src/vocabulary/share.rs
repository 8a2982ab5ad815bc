//! Shares of traffic.

use std::fmt;
use std::str::FromStr;

/// A share in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const ALL: Self = Self(10_000);

    /// A part of a total, to the nearest hundredth of a percent; of nothing it is none.
    pub fn of(part: u64, total: u64) -> Self {
        let all = u128::from(Self::ALL.0);
        let hundredths = (2 * all * u128::from(part) + u128::from(total)) / (2 * u128::from(total)).max(1);
        Self(u32::try_from(hundredths).unwrap_or(Self::ALL.0).min(Self::ALL.0))
    }

    /// This many hundredths of a percent, at most 10,000.
    #[cfg(test)]
    pub fn from_hundredths(hundredths: u32) -> Self {
        Self(hundredths.min(Self::ALL.0))
    }

    /// The hundredths of a percent.
    pub fn hundredths(self) -> u32 {
        self.0
    }

    /// What is left of all of it.
    #[must_use]
    pub fn rest(self) -> Self {
        Self::ALL.less(self)
    }

    /// What is left when another share is taken away.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:02}", self.0 / 100, self.0 % 100);
        f.pad(&format!("{}%", text.trim_end_matches('0').trim_end_matches('.')))
    }
}

/// Why a text is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no share: a number from 0 to 100 with at most two decimals, such as 25 or 12.5")]
pub struct ShareError(String);

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ShareError(text.to_owned());
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str, most: usize| text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole, 3) || !digits(part, 2) || number.ends_with('.') {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let part: u32 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
        let share = Self(whole * 100 + part);
        if share <= Self::ALL { Ok(share) } else { Err(wrong()) }
    }
}

/// Writes a share: `90%`, `33.3%`.
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
    fn shares_are_percents_with_two_decimals() {
        for (text, hundredths, shown) in [
            ("25", 2500, "25%"),
            ("0", 0, "0%"),
            ("100%", 10_000, "100%"),
            ("12.5", 1250, "12.5%"),
            ("0.05", 5, "0.05%"),
        ] {
            assert_eq!((share(text).hundredths(), share(text).to_string().as_str()), (hundredths, shown));
        }
        for wrong in ["", "%", "101", "-1", "1.234", "1.", ".5", "1e1", "ten", "100.01", "+5", "٢"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_are_shares() {
        let of = |part, total| Share::of(part, total).to_string();
        assert_eq!(
            (of(1, 3), of(2, 3), of(9, 9), of(0, 7), of(0, 0)),
            ("33.33%".into(), "66.67%".into(), "100%".into(), "0%".into(), "0%".into())
        );
    }

    #[test]
    fn percentages_show_at_most_one_decimal() {
        assert_eq!(format_percent(100.0 / 3.0), "33.3%");
        assert_eq!(format_percent(90.0), "90%");
    }
}
