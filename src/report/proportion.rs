//! Proportions in reports: fields that end in `_percent` are a [`Percent`], all others are a [`Ratio`].

use schemars::JsonSchema;
use serde::Serialize;

/// A share in percent, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, JsonSchema)]
pub struct Percent(#[schemars(range(min = 0, max = 100))] pub f64);

impl Percent {
    /// 100 percent.
    pub const ALL: Self = Self(100.0);

    /// The share that `part` has of `total`; zero when `total` is zero.
    pub fn of(part: u64, total: u64) -> Self {
        Self(if total == 0 { 0.0 } else { part as f64 * 100.0 / total as f64 })
    }

    /// Rounded to two decimals.
    #[must_use]
    pub fn rounded(self) -> Self {
        Self((self.0 * 100.0).round() / 100.0)
    }
}

/// A part of a whole, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, JsonSchema)]
pub struct Ratio(#[schemars(range(min = 0, max = 1))] pub f64);
