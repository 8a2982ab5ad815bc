//! Counts of the calls in one interval, and which calls count as failed.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// gRPC statuses that count as failed by default: those that are a server's fault, and 12 (UNIMPLEMENTED), which shows
/// a method that a deployment lost. Statuses that an application returns on purpose (3, 5, 6, 9, 10, 11, 16) and calls
/// that the caller cancelled (1) do not count.
pub const DEFAULT_FAILURE_STATUSES: [u8; 7] = [2, 4, 8, 12, 13, 14, 15];
/// Response flags of calls that reached no endpoint: no route, no cluster, no healthy upstream.
pub const NO_UPSTREAM_FLAGS: [&str; 3] = ["NR", "NC", "UH"];

/// Which calls count as failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCriteria {
    /// gRPC statuses.
    pub statuses: BTreeSet<u8>,
    /// Envoy's response flags, whatever the status.
    pub flags: BTreeSet<String>,
}

impl Default for FailureCriteria {
    fn default() -> Self {
        Self { statuses: DEFAULT_FAILURE_STATUSES.into(), flags: BTreeSet::new() }
    }
}

impl FailureCriteria {
    /// Whether a call failed. Without a gRPC status the HTTP status code decides: 0 (no response) and 500 or above
    /// fail.
    pub fn is_failure<'a>(
        &self,
        grpc_status: Option<u8>,
        http_status: Option<u16>,
        mut flags: impl Iterator<Item = &'a str>,
    ) -> bool {
        let by_status = match grpc_status {
            Some(status) => self.statuses.contains(&status),
            None => http_status.is_some_and(|code| code == 0 || code >= 500),
        };
        by_status || flags.any(|flag| self.flags.contains(flag))
    }
}

/// Quantile of the normal distribution for a two-sided confidence of 95 %.
const Z_TWO_SIDED_95: f64 = 1.96;
/// The same, one-sided.
const Z_ONE_SIDED_95: f64 = 1.645;

/// Calls, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct CallCounts {
    /// All calls.
    pub calls: u64,
    /// Failed calls.
    pub errors: u64,
}

impl CallCounts {
    /// Adds calls that all failed or all succeeded.
    pub fn add(&mut self, calls: u64, is_failure: bool) {
        self.calls += calls;
        self.errors += if is_failure { calls } else { 0 };
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, errors: self.errors + other.errors }
    }

    /// Ratio of failed calls, 0 to 1; 0 without calls.
    pub fn error_ratio(self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.errors as f64 / self.calls as f64 }
    }

    /// The range of the true error ratio with 95 % confidence. Wilson's interval holds for few calls and for ratios
    /// near 0, where the normal approximation does not.
    pub fn confidence_interval(self) -> (f64, f64) {
        if self.calls == 0 {
            return (0.0, 1.0);
        }
        let (calls, ratio, square) = (self.calls as f64, self.error_ratio(), Z_TWO_SIDED_95 * Z_TWO_SIDED_95);
        let middle = (ratio + square / (2.0 * calls)) / (1.0 + square / calls);
        let half = Z_TWO_SIDED_95 / (1.0 + square / calls)
            * (ratio * (1.0 - ratio) / calls + square / (4.0 * calls * calls)).sqrt();
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }

    /// Whether its error ratio exceeds another's by more than chance: two-proportion z-test, one-sided, 95 %.
    pub fn is_worse_than(self, other: Self) -> bool {
        if self.calls == 0 || other.calls == 0 || self.error_ratio() <= other.error_ratio() {
            return false;
        }
        let pooled = self.plus(other).error_ratio();
        let variance = pooled * (1.0 - pooled) * (1.0 / self.calls as f64 + 1.0 / other.calls as f64);
        // The variance is 0 only when all calls of both fail, and then the ratios are equal.
        variance <= 0.0 || (self.error_ratio() - other.error_ratio()) / variance.sqrt() > Z_ONE_SIDED_95
    }
}

/// The calls between two readings of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// Calls to the canary.
    pub canary: CallCounts,
    /// Calls to the other backends.
    pub baseline: CallCounts,
    /// Calls that reached no endpoint (NR, NC, UH). Which backend they were meant for is unknown.
    pub no_upstream: u64,
    /// Calls to the canary whose result is unknown.
    pub unknown_status: u64,
    /// Calls of affected proxies to the canary.
    pub affected_canary_calls: u64,
    /// Calls of affected proxies to canary and baseline.
    pub affected_calls: u64,
    /// The canary's 99th percentile in milliseconds, if requested and known.
    pub p99_ms: Option<f64>,
}

impl Window {
    /// All calls; those that reached no endpoint count as failed.
    pub fn total(&self) -> CallCounts {
        let no_upstream = CallCounts { calls: self.no_upstream, errors: self.no_upstream };
        self.canary.plus(self.baseline).plus(no_upstream)
    }

    /// The canary's ratio of the calls of affected proxies, 0 to 1.
    pub fn observed_share(&self) -> Option<f64> {
        (self.affected_calls > 0).then(|| self.affected_canary_calls as f64 / self.affected_calls as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(calls: u64, errors: u64) -> CallCounts {
        CallCounts { calls, errors }
    }

    #[test]
    fn confidence_intervals_match_published_figures() {
        // Figures of Wilson's formula from textbooks: 8 of 10, and 0 of 20.
        let (low, high) = counts(10, 8).confidence_interval();
        assert!((low - 0.490).abs() < 0.002 && (high - 0.943).abs() < 0.002, "{low} {high}");
        let (low, high) = counts(20, 0).confidence_interval();
        assert!(low.abs() < 1e-9 && (high - 0.161).abs() < 0.002, "{low} {high}");
        assert_eq!(counts(0, 0).confidence_interval(), (0.0, 1.0));
    }

    #[test]
    fn is_worse_only_by_more_than_chance() {
        assert!(counts(100, 20).is_worse_than(counts(900, 9)));
        assert!(!counts(100, 2).is_worse_than(counts(900, 9)), "2 of 100 against 1 of 100 may be chance");
        assert!(!counts(100, 20).is_worse_than(counts(900, 200)));
        assert!(counts(50, 50).is_worse_than(counts(50, 0)));
        assert!(!counts(50, 50).is_worse_than(counts(50, 50)));
        assert!(!counts(0, 0).is_worse_than(counts(9, 9)) && !counts(9, 9).is_worse_than(counts(0, 0)));
    }
}
