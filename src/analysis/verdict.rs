//! Judges a window.
//!
//! "No data" is neither success nor failure, so there are four verdicts: only *good* promotes and only *bad* rolls
//! back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::window::{CallCounts, Window};
use crate::vocabulary::share::format_percent;

/// Standard deviations by which the observed share may differ from the weights by chance.
const CHANCE_DEVIATIONS: f64 = 3.0;

/// The limits of a canary analysis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnalysisLimits {
    /// Calls to the canary that a verdict needs.
    pub min_requests: u64,
    /// Allowed ratio of failed calls, 0 to 1.
    pub max_error_ratio: f64,
    /// Allowed 99th percentile, in milliseconds.
    pub max_p99_ms: Option<f64>,
    /// Allowed difference between observed share and weights, 0 to 1; `None` to skip the check.
    pub split_tolerance: Option<f64>,
}

/// The verdict on a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum AnalysisVerdict {
    /// Enough calls, within all limits.
    Good,
    /// A limit is exceeded, and the baseline does not fail as much.
    Bad,
    /// Too few calls for a verdict.
    NotEnoughCalls,
    /// The source failed, or its data allows no verdict on the canary.
    Unknown,
}

impl AnalysisVerdict {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A verdict with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalysisResult {
    pub verdict: AnalysisVerdict,
    /// A sentence with the numbers.
    pub reason: String,
}

impl AnalysisResult {
    pub fn new(verdict: AnalysisVerdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into() }
    }
}

/// Judges a window of a step. `before_shift` counts the calls to all backends before the shift; it replaces a baseline
/// with too few calls. `share` is the canary's share by weight, 0 to 1.
pub fn judge(window: &Window, before_shift: CallCounts, share: f64, limits: &AnalysisLimits) -> AnalysisResult {
    let Window { canary, no_upstream, .. } = *window;
    let all = window.total();
    let lost = CallCounts { calls: all.calls, errors: no_upstream };
    if lost.calls >= limits.min_requests && lost.error_ratio() > limits.max_error_ratio {
        return AnalysisResult::new(
            AnalysisVerdict::Bad,
            format!("{no_upstream} of {} calls to the Service reached no endpoint (NR, NC or UH)", all.calls),
        );
    }
    if canary.calls < limits.min_requests {
        let reason = format!("{} calls to the canary, {} needed", canary.calls, limits.min_requests);
        return AnalysisResult::new(AnalysisVerdict::NotEnoughCalls, reason);
    }
    let baseline = if window.baseline.calls >= limits.min_requests { window.baseline } else { before_shift };
    if canary.error_ratio() > limits.max_error_ratio {
        return judge_failing_canary(canary, baseline, limits);
    }
    if window.unknown_status as f64 > limits.max_error_ratio * canary.calls as f64 {
        return AnalysisResult::new(
            AnalysisVerdict::Unknown,
            format!("{} calls to the canary have no known gRPC status", window.unknown_status),
        );
    }
    if let Some(max_p99_ms) = limits.max_p99_ms {
        match window.p99_ms {
            None => return AnalysisResult::new(AnalysisVerdict::Unknown, "the source has no latency for the canary"),
            Some(p99_ms) if p99_ms > max_p99_ms => {
                return AnalysisResult::new(
                    AnalysisVerdict::Bad,
                    format!("p99 of the canary is {p99_ms:.0} ms; at most {max_p99_ms:.0} ms allowed"),
                );
            }
            Some(_) => {}
        }
    }
    if let Some(reason) = split_deviation(window, share, limits) {
        return AnalysisResult::new(AnalysisVerdict::Unknown, reason);
    }
    let p99 = window.p99_ms.map(|p99_ms| format!(", p99 {p99_ms:.0} ms")).unwrap_or_default();
    let reason = format!("canary: {}{p99}; baseline: {}", describe_counts(canary), describe_counts(baseline));
    AnalysisResult::new(AnalysisVerdict::Good, reason)
}

fn judge_failing_canary(canary: CallCounts, baseline: CallCounts, limits: &AnalysisLimits) -> AnalysisResult {
    let counts = format!("canary: {}; baseline: {}", describe_counts(canary), describe_counts(baseline));
    if baseline.error_ratio() > limits.max_error_ratio && !canary.is_worse_than(baseline) {
        let reason = format!("{counts}; the baseline fails as much, so the canary is not the cause");
        return AnalysisResult::new(AnalysisVerdict::Unknown, reason);
    }
    AnalysisResult::new(AnalysisVerdict::Bad, format!("{counts}; {}", describe_limit(limits)))
}

/// Judges the window before a shift: whether it can serve as a baseline.
pub fn judge_baseline(window: &Window, limits: &AnalysisLimits) -> AnalysisResult {
    let all = window.total();
    if all.calls < limits.min_requests {
        return AnalysisResult::new(
            AnalysisVerdict::NotEnoughCalls,
            format!("{} calls, {} needed", all.calls, limits.min_requests),
        );
    }
    // A canary that has a share already, as after a hold, must not be masked by the other backends.
    let canary = window.canary;
    if canary.calls >= limits.min_requests && canary.error_ratio() > limits.max_error_ratio {
        let reason = format!("canary before the shift: {}; {}", describe_counts(canary), describe_limit(limits));
        return AnalysisResult::new(AnalysisVerdict::Bad, reason);
    }
    let is_bad = all.error_ratio() > limits.max_error_ratio;
    let verdict = if is_bad { AnalysisVerdict::Bad } else { AnalysisVerdict::Good };
    AnalysisResult::new(verdict, format!("before the shift: {}; {}", describe_counts(all), describe_limit(limits)))
}

fn split_deviation(window: &Window, share: f64, limits: &AnalysisLimits) -> Option<String> {
    let (observed, tolerance) = (window.observed_share()?, limits.split_tolerance?);
    let by_chance = CHANCE_DEVIATIONS * (share * (1.0 - share) / window.affected_calls as f64).sqrt();
    let deviates = (observed - share).abs() > tolerance.max(by_chance);
    deviates.then(|| {
        format!(
            "the canary gets {} of the calls, but its weight is {}",
            format_percent(observed * 100.0),
            format_percent(share * 100.0)
        )
    })
}

fn describe_limit(limits: &AnalysisLimits) -> String {
    format!("{} allowed", format_percent(limits.max_error_ratio * 100.0))
}

/// `20 of 412 calls failed (95% CI 3.2% to 7.4%)`.
fn describe_counts(counts: CallCounts) -> String {
    if counts.calls == 0 {
        return "no calls".to_owned();
    }
    let (low, high) = counts.confidence_interval();
    let percent = |ratio: f64| format!("{:.1}%", ratio * 100.0);
    let range = if counts.errors == 0 {
        format!("up to {}", percent(high))
    } else {
        format!("{} to {}", percent(low), percent(high))
    };
    format!("{} of {} calls failed (95% CI {range})", counts.errors, counts.calls)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: AnalysisLimits =
        AnalysisLimits { min_requests: 100, max_error_ratio: 0.01, max_p99_ms: None, split_tolerance: Some(0.1) };

    fn window(canary: (u64, u64), baseline: (u64, u64)) -> Window {
        Window {
            canary: CallCounts { calls: canary.0, errors: canary.1 },
            baseline: CallCounts { calls: baseline.0, errors: baseline.1 },
            affected_canary_calls: canary.0,
            affected_calls: canary.0 + baseline.0,
            ..Window::default()
        }
    }

    fn verdict(window: &Window, share: f64) -> AnalysisVerdict {
        judge(window, CallCounts { calls: 1000, errors: 1 }, share, &LIMITS).verdict
    }

    #[test]
    fn judges_a_canary_against_its_baseline() {
        use AnalysisVerdict::{Bad, Good, NotEnoughCalls, Unknown};
        for (canary, baseline, share, expected) in [
            ((200, 0), (1800, 2), 0.1, Good),
            ((200, 40), (1800, 2), 0.1, Bad),
            ((99, 99), (900, 0), 0.1, NotEnoughCalls),
            ((0, 0), (0, 0), 0.1, NotEnoughCalls),
            // Everything fails: the canary is not the cause, and the shift does not advance.
            ((200, 20), (1800, 190), 0.1, Unknown),
            // The baseline gets no calls: the window before the shift replaces it.
            ((1000, 0), (0, 0), 1.0, Good),
            ((1000, 50), (0, 0), 1.0, Bad),
            // The weight is one half, but a tenth of the calls arrives.
            ((200, 0), (1800, 0), 0.5, Unknown),
            // With few calls the split may deviate by chance.
            ((120, 0), (80, 0), 0.5, Good),
        ] {
            assert_eq!(verdict(&window(canary, baseline), share), expected, "{canary:?} {baseline:?} {share}");
        }
    }

    #[test]
    fn calls_that_reach_no_endpoint_count_against_the_service() {
        let many = Window { no_upstream: 50, ..window((200, 0), (1800, 0)) };
        assert_eq!(verdict(&many, 0.1), AnalysisVerdict::Bad);
        let few = Window { no_upstream: 3, ..window((200, 0), (1800, 0)) };
        assert_eq!(verdict(&few, 0.1), AnalysisVerdict::Good);
    }

    #[test]
    fn a_latency_limit_needs_a_latency() {
        let limits = AnalysisLimits { max_p99_ms: Some(50.0), ..LIMITS };
        let verdict_for = |p99_ms| {
            judge(&Window { p99_ms, ..window((200, 0), (1800, 0)) }, CallCounts::default(), 0.1, &limits).verdict
        };
        assert_eq!(
            (verdict_for(None), verdict_for(Some(20.0)), verdict_for(Some(80.0))),
            (AnalysisVerdict::Unknown, AnalysisVerdict::Good, AnalysisVerdict::Bad)
        );
    }

    #[test]
    fn calls_of_unknown_status_do_not_hide_failed_calls() {
        let verdict_for =
            |errors, unknown_status| verdict(&Window { unknown_status, ..window((100, errors), (900, 0)) }, 0.1);
        assert_eq!(
            (verdict_for(40, 60), verdict_for(0, 60), verdict_for(0, 0)),
            (AnalysisVerdict::Bad, AnalysisVerdict::Unknown, AnalysisVerdict::Good)
        );
        let without_split_check = AnalysisLimits { split_tolerance: None, ..LIMITS };
        let deviating = judge(&window((200, 0), (1800, 0)), CallCounts::default(), 0.5, &without_split_check);
        assert_eq!(
            deviating.verdict,
            AnalysisVerdict::Good,
            "the split says nothing when other rules send to the same backends"
        );
        assert_eq!(judge_baseline(&window((100, 3), (900, 0)), &LIMITS).verdict, AnalysisVerdict::Bad);
    }

    #[test]
    fn a_failing_window_is_not_a_baseline() {
        let verdict_for = |calls, errors| judge_baseline(&window((0, 0), (calls, errors)), &LIMITS).verdict;
        assert_eq!(
            (verdict_for(500, 1), verdict_for(500, 20), verdict_for(5, 5)),
            (AnalysisVerdict::Good, AnalysisVerdict::Bad, AnalysisVerdict::NotEnoughCalls)
        );
    }

    proptest! {
        #[test]
        fn more_errors_never_improve_the_verdict(
            calls in 0_u64..2000, errors in 0_u64..2000, more in 0_u64..500, baseline_calls in 0_u64..3000, baseline_errors in 0_u64..3000,
        ) {
            let (errors, baseline_errors) = (errors.min(calls), baseline_errors.min(baseline_calls));
            let worse = (errors + more).min(calls);
            let share = calls as f64 / (calls + baseline_calls).max(1) as f64;
            let verdict_for = |errors| verdict(&window((calls, errors), (baseline_calls, baseline_errors)), share);
            if verdict_for(errors) == AnalysisVerdict::Bad {
                prop_assert_eq!(verdict_for(worse), AnalysisVerdict::Bad);
            }
            if verdict_for(worse) == AnalysisVerdict::Good {
                prop_assert_eq!(verdict_for(errors), AnalysisVerdict::Good);
            }
        }
    }
}
