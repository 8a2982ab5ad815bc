//! The action of a step after each verdict.

use super::verdict::AnalysisVerdict;

/// Decides when a step advances, rolls back or stalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepPolicy {
    /// Consecutive bad windows that roll the shift back, at least 1.
    pub bad_windows: u32,
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
    /// No good or bad verdict in time.
    Stall,
}

impl StepPolicy {
    pub fn new(bad_windows: u32) -> Self {
        Self { bad_windows: bad_windows.max(1), consecutive_bad: 0 }
    }

    /// The action after a verdict. `is_overdue` says whether the step has waited for a good or bad verdict long enough.
    ///
    /// A window whose source failed breaks a row of bad windows: nothing is known about it. A window with too few calls
    /// goes on, so it belongs to the next verdict.
    pub fn next_action(&mut self, verdict: AnalysisVerdict, is_overdue: bool) -> NextAction {
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
            AnalysisVerdict::NotEnoughCalls | AnalysisVerdict::Unknown if is_overdue => NextAction::Stall,
            AnalysisVerdict::NotEnoughCalls => NextAction::NextWindow { restarts: false },
            AnalysisVerdict::Unknown => {
                self.consecutive_bad = 0;
                NextAction::NextWindow { restarts: true }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rolls_back_after_the_configured_number_of_bad_windows() {
        use AnalysisVerdict::{Bad, NotEnoughCalls, Unknown};
        const RESTART: NextAction = NextAction::NextWindow { restarts: true };
        const CONTINUE: NextAction = NextAction::NextWindow { restarts: false };
        let actions = |verdicts: &[AnalysisVerdict]| {
            let mut policy = StepPolicy::new(2);
            verdicts.iter().map(|verdict| policy.next_action(*verdict, false)).collect::<Vec<_>>()
        };
        assert_eq!(actions(&[Bad, Bad]), [RESTART, NextAction::RollBack]);
        assert_eq!(
            actions(&[Bad, NotEnoughCalls, Bad]),
            [RESTART, CONTINUE, NextAction::RollBack],
            "a window with too few calls goes on"
        );
        assert_eq!(
            actions(&[Bad, Unknown, Bad, Bad]),
            [RESTART, RESTART, RESTART, NextAction::RollBack],
            "an unknown window breaks the row"
        );
    }

    proptest! {
        #[test]
        fn an_unknown_verdict_neither_promotes_nor_rolls_back(
            verdicts in prop::collection::vec((prop::bool::ANY, prop::bool::ANY), 1..40), bad_windows in 0_u32..4,
        ) {
            let mut policy = StepPolicy::new(bad_windows);
            for (is_unknown, is_overdue) in verdicts {
                let verdict = if is_unknown { AnalysisVerdict::Unknown } else { AnalysisVerdict::NotEnoughCalls };
                let next = policy.next_action(verdict, is_overdue);
                prop_assert!(!matches!(next, NextAction::Advance | NextAction::RollBack));
                prop_assert_eq!(next == NextAction::Stall, is_overdue);
            }
        }
    }
}
