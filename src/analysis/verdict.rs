//! From a window to a verdict.
//!
//! Four verdicts, since "no data" is neither success nor failure: only *good* lets a shift go on, only *bad* takes it
//! back.

use super::window::{CallCounts, Window};
use crate::vocabulary::share::format_percent;

/// Standard deviations by which an observed share may be off by chance.
const CHANCE: f64 = 3.0;

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnalysisLimits {
    /// Calls to the canary below which nothing is said.
    pub min_requests: u64,
    /// Share of errors that is allowed, 0 to 1.
    pub max_error_rate: f64,
    /// 99th percentile that is allowed, in milliseconds.
    pub max_p99: Option<f64>,
    /// By how much the observed share may differ from the weights, 0 to 1; absent where that says nothing.
    pub tolerance: Option<f64>,
}

/// What a window says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnalysisVerdict {
    /// Enough calls, and they go well.
    Good,
    /// They do not, and not because everything fails.
    Bad,
    /// Too few calls to say.
    NotEnoughCalls,
    /// The source failed, or what it tells fits no verdict on the canary.
    Unknown,
}

impl AnalysisVerdict {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::NotEnoughCalls => "not-enough-calls",
            Self::Unknown => "unknown",
        }
    }
}

/// A verdict with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnalysisResult {
    /// The verdict.
    pub verdict: AnalysisVerdict,
    /// Why, with numbers.
    pub why: String,
}

fn judged(verdict: AnalysisVerdict, why: impl Into<String>) -> AnalysisResult {
    AnalysisResult { verdict, why: why.into() }
}

/// Judges a window of a shift. `before` is what all backends did before it; it stands in for the baseline where that
/// gets too few calls. `share` is what the canary should get, 0 to 1.
pub fn judge(window: &Window, before: CallCounts, share: f64, limits: &AnalysisLimits) -> AnalysisResult {
    let Window { canary, nowhere, .. } = *window;
    let all = window.all();
    let lost = CallCounts { calls: all.calls, errors: nowhere };
    if lost.calls >= limits.min_requests && lost.rate() > limits.max_error_rate {
        return judged(
            AnalysisVerdict::Bad,
            format!("{nowhere} of {} calls to the Service found no server", all.calls),
        );
    }
    if canary.calls < limits.min_requests {
        let why = format!("{} of the {} calls to the canary that a verdict needs", canary.calls, limits.min_requests);
        return judged(AnalysisVerdict::NotEnoughCalls, why);
    }
    let beside = if window.baseline.calls >= limits.min_requests { window.baseline } else { before };
    if canary.rate() > limits.max_error_rate {
        let (found, other) = (show(canary), show(beside));
        return if beside.rate() > limits.max_error_rate && !canary.is_worse_than(beside) {
            judged(
                AnalysisVerdict::Unknown,
                format!("{found} fail, and {other} of the baseline: not the canary's doing"),
            )
        } else {
            let allowed = format_percent(limits.max_error_rate * 100.0);
            judged(
                AnalysisVerdict::Bad,
                format!("{found} to the canary fail, {other} to the baseline; {allowed} are allowed"),
            )
        };
    }
    if window.untold as f64 > limits.max_error_rate * canary.calls as f64 {
        return judged(
            AnalysisVerdict::Unknown,
            format!("of {} calls to the canary the source tells no gRPC status", window.untold),
        );
    }
    if let Some(most) = limits.max_p99 {
        match window.p99 {
            None => return judged(AnalysisVerdict::Unknown, "the source tells no latencies of the canary"),
            Some(p99) if p99 > most => {
                return judged(
                    AnalysisVerdict::Bad,
                    format!("the canary's p99 is {p99:.0} ms; {most:.0} ms are allowed"),
                );
            }
            Some(_) => {}
        }
    }
    if let Some(why) = split_is_off(window, share, limits) {
        return judged(AnalysisVerdict::Unknown, why);
    }
    let p99 = window.p99.map(|p99| format!(", p99 {p99:.0} ms")).unwrap_or_default();
    judged(AnalysisVerdict::Good, format!("{} to the canary fail, {} to the baseline{p99}", show(canary), show(beside)))
}

/// Judges the window before a shift: whether there is anything to compare with.
pub fn judge_baseline(window: &Window, limits: &AnalysisLimits) -> AnalysisResult {
    let all = window.all();
    if all.calls < limits.min_requests {
        return judged(
            AnalysisVerdict::NotEnoughCalls,
            format!("{} of the {} calls that a verdict needs", all.calls, limits.min_requests),
        );
    }
    let allowed = format_percent(limits.max_error_rate * 100.0);
    // A canary that has a share already, as after a hold, must not hide among the others.
    let canary = window.canary;
    if canary.calls >= limits.min_requests && canary.rate() > limits.max_error_rate {
        let why = format!("{} to the canary fail before anything is shifted; {allowed} are allowed", show(canary));
        return judged(AnalysisVerdict::Bad, why);
    }
    let verdict = if all.rate() > limits.max_error_rate { AnalysisVerdict::Bad } else { AnalysisVerdict::Good };
    judged(verdict, format!("{} fail before anything is shifted; {allowed} are allowed", show(all)))
}

fn split_is_off(window: &Window, share: f64, limits: &AnalysisLimits) -> Option<String> {
    let (observed, tolerance) = (window.observed_share()?, limits.tolerance?);
    let by_chance = CHANCE * (share * (1.0 - share) / window.obeying as f64).sqrt();
    let is_off = (observed - share).abs() > tolerance.max(by_chance);
    is_off.then(|| {
        format!(
            "the canary gets {} of the calls of those that obey, and the weights say {}",
            format_percent(observed * 100.0),
            format_percent(share * 100.0)
        )
    })
}

/// `20 of 412 calls (4.9%, really 3.2% to 7.4%)`.
fn show(tally: CallCounts) -> String {
    if tally.calls == 0 {
        return "no calls".to_owned();
    }
    let (low, high) = tally.interval();
    let percent = |rate: f64| format!("{:.1}%", rate * 100.0);
    let range = if tally.errors == 0 {
        format!("at most {}", percent(high))
    } else {
        format!("{} to {}", percent(low), percent(high))
    };
    format!("{} of {} calls ({range})", tally.errors, tally.calls)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: AnalysisLimits =
        AnalysisLimits { min_requests: 100, max_error_rate: 0.01, max_p99: None, tolerance: Some(0.1) };

    fn window(canary: (u64, u64), baseline: (u64, u64)) -> Window {
        Window {
            canary: CallCounts { calls: canary.0, errors: canary.1 },
            baseline: CallCounts { calls: baseline.0, errors: baseline.1 },
            obeying_canary: canary.0,
            obeying: canary.0 + baseline.0,
            ..Window::default()
        }
    }

    fn verdict(window: &Window, share: f64) -> AnalysisVerdict {
        judge(window, CallCounts { calls: 1000, errors: 1 }, share, &LIMITS).verdict
    }

    #[test]
    fn verdicts() {
        use AnalysisVerdict::{Bad, Good, NotEnoughCalls, Unknown};
        for (canary, baseline, share, expected) in [
            ((200, 0), (1800, 2), 0.1, Good),
            ((200, 40), (1800, 2), 0.1, Bad),
            ((99, 99), (900, 0), 0.1, NotEnoughCalls),
            ((0, 0), (0, 0), 0.1, NotEnoughCalls),
            // Everything fails: the canary did not do it, and nobody goes on.
            ((200, 20), (1800, 190), 0.1, Unknown),
            // The baseline gets nothing any more: what it did before stands in.
            ((1000, 0), (0, 0), 1.0, Good),
            ((1000, 50), (0, 0), 1.0, Bad),
            // The weights say half, and a tenth arrives.
            ((200, 0), (1800, 0), 0.5, Unknown),
            // By chance it may be off with few calls.
            ((120, 0), (80, 0), 0.5, Good),
        ] {
            assert_eq!(verdict(&window(canary, baseline), share), expected, "{canary:?} {baseline:?} {share}");
        }
    }

    #[test]
    fn calls_that_find_no_server_count_for_the_service() {
        let lost = Window { nowhere: 50, ..window((200, 0), (1800, 0)) };
        assert_eq!(verdict(&lost, 0.1), AnalysisVerdict::Bad);
        let few = Window { nowhere: 3, ..window((200, 0), (1800, 0)) };
        assert_eq!(verdict(&few, 0.1), AnalysisVerdict::Good);
    }

    #[test]
    fn latencies_that_are_asked_for_must_be_known() {
        let limits = AnalysisLimits { max_p99: Some(50.0), ..LIMITS };
        let of =
            |p99| judge(&Window { p99, ..window((200, 0), (1800, 0)) }, CallCounts::default(), 0.1, &limits).verdict;
        assert_eq!(
            (of(None), of(Some(20.0)), of(Some(80.0))),
            (AnalysisVerdict::Unknown, AnalysisVerdict::Good, AnalysisVerdict::Bad)
        );
    }

    #[test]
    fn what_is_known_to_fail_counts_beside_what_is_not_told() {
        let of = |errors, untold| verdict(&Window { untold, ..window((100, errors), (900, 0)) }, 0.1);
        assert_eq!(
            (of(40, 60), of(0, 60), of(0, 0)),
            (AnalysisVerdict::Bad, AnalysisVerdict::Unknown, AnalysisVerdict::Good)
        );
        let shared = AnalysisLimits { tolerance: None, ..LIMITS };
        let off = judge(&window((200, 0), (1800, 0)), CallCounts::default(), 0.5, &shared);
        assert_eq!(
            off.verdict,
            AnalysisVerdict::Good,
            "where other rules send to the same backends the split says nothing"
        );
        assert_eq!(judge_baseline(&window((100, 3), (900, 0)), &LIMITS).verdict, AnalysisVerdict::Bad);
    }

    #[test]
    fn a_baseline_that_fails_is_no_baseline() {
        let of = |calls, errors| judge_baseline(&window((0, 0), (calls, errors)), &LIMITS).verdict;
        assert_eq!(
            (of(500, 1), of(500, 20), of(5, 5)),
            (AnalysisVerdict::Good, AnalysisVerdict::Bad, AnalysisVerdict::NotEnoughCalls)
        );
    }

    proptest! {
        #[test]
        fn more_errors_never_make_it_better(
            calls in 0_u64..2000, errors in 0_u64..2000, more in 0_u64..500, base in 0_u64..3000, of_base in 0_u64..3000,
        ) {
            let (errors, of_base) = (errors.min(calls), of_base.min(base));
            let worse = (errors + more).min(calls);
            let of = |errors| verdict(&window((calls, errors), (base, of_base)), calls as f64 / (calls + base).max(1) as f64);
            if of(errors) == AnalysisVerdict::Bad {
                prop_assert_eq!(of(worse), AnalysisVerdict::Bad);
            }
            if of(worse) == AnalysisVerdict::Good {
                prop_assert_eq!(of(errors), AnalysisVerdict::Good);
            }
        }
    }
}
