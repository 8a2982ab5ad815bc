//! What callers counted between two moments, and which calls count as failed.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// gRPC statuses that are a server's fault, and 12: a method that is missing after a deployment. Statuses that an
/// application answers on purpose (3, 5, 6, 9, 10, 11, 16) and a caller's own cancelling (1) are not.
pub const FAULTS: [u8; 7] = [2, 4, 8, 12, 13, 14, 15];
/// Flags of calls that found no server: no route, no cluster, no healthy endpoint.
pub const NOWHERE: [&str; 3] = ["NR", "NC", "UH"];

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
        Self { statuses: FAULTS.into(), flags: BTreeSet::new() }
    }
}

impl FailureCriteria {
    /// Whether a call failed. One without a gRPC status counts by its HTTP code, of which 0 is no answer.
    pub fn is_fault<'a>(&self, grpc: Option<u8>, http: Option<u16>, mut flags: impl Iterator<Item = &'a str>) -> bool {
        let by_status = match grpc {
            Some(status) => self.statuses.contains(&status),
            None => http.is_some_and(|code| code == 0 || code >= 500),
        };
        by_status || flags.any(|flag| self.flags.contains(flag))
    }
}

/// Quantile of the normal distribution for 95 of 100 intervals.
const Z: f64 = 1.96;

/// Calls, and errors among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallCounts {
    /// All of them.
    pub calls: u64,
    /// Those that failed.
    pub errors: u64,
}

impl CallCounts {
    /// Counts one more.
    pub fn count(&mut self, calls: u64, is_error: bool) {
        self.calls += calls;
        self.errors += if is_error { calls } else { 0 };
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, errors: self.errors + other.errors }
    }

    /// Share of errors, 0 to 1; of no calls 0.
    pub fn rate(self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.errors as f64 / self.calls as f64 }
    }

    /// Between what the share of errors may really be, with 95 % confidence: Wilson's interval, which is right for few
    /// calls and for shares near 0, too.
    pub fn interval(self) -> (f64, f64) {
        if self.calls == 0 {
            return (0.0, 1.0);
        }
        let (calls, rate, square) = (self.calls as f64, self.rate(), Z * Z);
        let middle = (rate + square / (2.0 * calls)) / (1.0 + square / calls);
        let half = Z / (1.0 + square / calls) * (rate * (1.0 - rate) / calls + square / (4.0 * calls * calls)).sqrt();
        ((middle - half).max(0.0), (middle + half).min(1.0))
    }

    /// Whether its share of errors is larger than another's by more than chance: two proportions, one-sided, 95 %.
    pub fn is_worse_than(self, other: Self) -> bool {
        if self.calls == 0 || other.calls == 0 || self.rate() <= other.rate() {
            return false;
        }
        let all = self.and(other).rate();
        let variance = all * (1.0 - all) * (1.0 / self.calls as f64 + 1.0 / other.calls as f64);
        // All calls of both fail: then neither is worse, which the comparison above has seen.
        variance <= 0.0 || (self.rate() - other.rate()) / variance.sqrt() > 1.645
    }
}

/// What callers counted between two moments.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// Calls that went to the canary.
    pub canary: CallCounts,
    /// Calls that went to the other backends in the same time.
    pub baseline: CallCounts,
    /// Calls that found no server: no route, no cluster or no endpoint. To whom they would have gone is not known.
    pub nowhere: u64,
    /// Calls to the canary of which is not known how they ended.
    pub untold: u64,
    /// Calls to the canary by those that obey the rule.
    pub obeying_canary: u64,
    /// All calls by those that obey the rule.
    pub obeying: u64,
    /// The canary's 99th percentile in milliseconds, where it was asked for and is known.
    pub p99: Option<f64>,
}

impl Window {
    /// All calls that were counted.
    pub fn all(&self) -> CallCounts {
        let nowhere = CallCounts { calls: self.nowhere, errors: self.nowhere };
        self.canary.and(self.baseline).and(nowhere)
    }

    /// Share of the canary among the calls of those that obey, 0 to 1.
    pub fn observed_share(&self) -> Option<f64> {
        (self.obeying > 0).then(|| self.obeying_canary as f64 / self.obeying as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(calls: u64, errors: u64) -> CallCounts {
        CallCounts { calls, errors }
    }

    #[test]
    fn intervals_are_wilsons() {
        // Figures of Wilson's formula as printed in textbooks: 8 of 10, and 0 of 20.
        let (low, high) = tally(10, 8).interval();
        assert!((low - 0.490).abs() < 0.002 && (high - 0.943).abs() < 0.002, "{low} {high}");
        let (low, high) = tally(20, 0).interval();
        assert!(low.abs() < 1e-9 && (high - 0.161).abs() < 0.002, "{low} {high}");
        assert_eq!(tally(0, 0).interval(), (0.0, 1.0));
    }

    #[test]
    fn worse_is_more_than_chance() {
        assert!(tally(100, 20).is_worse_than(tally(900, 9)));
        assert!(!tally(100, 2).is_worse_than(tally(900, 9)), "2 of 100 may be chance beside 1 in 100");
        assert!(!tally(100, 20).is_worse_than(tally(900, 200)));
        assert!(tally(50, 50).is_worse_than(tally(50, 0)));
        assert!(!tally(50, 50).is_worse_than(tally(50, 50)));
        assert!(!tally(0, 0).is_worse_than(tally(9, 9)) && !tally(9, 9).is_worse_than(tally(0, 0)));
    }
}
