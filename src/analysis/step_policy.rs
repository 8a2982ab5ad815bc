//! The action of a step after each verdict.

use std::time::Duration;

use super::verdict::AnalysisVerdict;

/// Decides when a step advances, rolls back or stalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPolicy {
    /// Consecutive bad windows that roll the shift back, at least 1.
    pub bad_windows: u32,
    /// How long a step waits for a good or a bad window.
    pub max_wait: Duration,
    consecutive_bad: u32,
}

/// The next action of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAction {
    /// The step is done.
    Advance,
    /// Count another window. With `restarts` off the current window goes on, so that few calls add up.
    NextWindow {
        /// Whether counting starts over.
        restarts: bool,
    },
    RollBack,
    /// No good or bad verdict within `max_wait`.
    Stall,
}

impl StepPolicy {
    pub fn new(bad_windows: u32, max_wait: Duration) -> Self {
        Self { bad_windows: bad_windows.max(1), max_wait, consecutive_bad: 0 }
    }

    /// The action after a verdict, `elapsed` since the step began.
    pub fn next_action(&mut self, verdict: AnalysisVerdict, elapsed: Duration) -> NextAction {
        match verdict {
            AnalysisVerdict::Good => NextAction::Advance,
            AnalysisVerdict::Bad => {
                self.consecutive_bad += 1;
                if self.consecutive_bad >= self.bad_windows {
                    NextAction::RollBack
                } else {
                    NextAction::NextWindow { restarts: true }
                }
            }
            AnalysisVerdict::NotEnoughCalls | AnalysisVerdict::Unknown if elapsed >= self.max_wait => NextAction::Stall,
            AnalysisVerdict::NotEnoughCalls => NextAction::NextWindow { restarts: false },
            AnalysisVerdict::Unknown => NextAction::NextWindow { restarts: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rolls_back_after_the_configured_number_of_bad_windows() {
        let mut policy = StepPolicy::new(2, Duration::from_secs(100));
        let mut after = |verdict| policy.next_action(verdict, Duration::ZERO);
        assert_eq!(after(AnalysisVerdict::Bad), NextAction::NextWindow { restarts: true });
        assert_eq!(after(AnalysisVerdict::NotEnoughCalls), NextAction::NextWindow { restarts: false });
        assert_eq!(after(AnalysisVerdict::Bad), NextAction::RollBack, "an undecided window does not reset the count");
    }

    proptest! {
        #[test]
        fn an_unknown_verdict_neither_promotes_nor_rolls_back(
            verdicts in prop::collection::vec(prop::bool::ANY, 1..40), bad_windows in 0_u32..4, max_wait in 0_u64..30,
        ) {
            let mut policy = StepPolicy::new(bad_windows, Duration::from_secs(max_wait));
            for (second, is_unknown) in verdicts.into_iter().enumerate() {
                let verdict = if is_unknown { AnalysisVerdict::Unknown } else { AnalysisVerdict::NotEnoughCalls };
                let next = policy.next_action(verdict, Duration::from_secs(second as u64));
                prop_assert!(!matches!(next, NextAction::Advance | NextAction::RollBack));
                prop_assert_eq!(next == NextAction::Stall, second as u64 >= max_wait);
            }
        }
    }
}
