//! What follows from one verdict after the other.

use std::time::Duration;

use super::verdict::AnalysisVerdict;

/// How patient a shift is at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPolicy {
    /// Bad windows in a row that end it.
    pub bad_windows: u32,
    /// How long a step waits for a good or a bad window.
    pub max_wait: Duration,
    bad: u32,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAction {
    /// The step is done.
    GoOn,
    /// Another window. Where too few calls were seen it goes on counting from where it began.
    Again {
        /// Whether counting begins anew.
        anew: bool,
    },
    /// The weights from before.
    RollBack,
    /// No verdict in all that time.
    Stall,
}

impl StepPolicy {
    /// The beginning of a step.
    pub fn new(bad_windows: u32, max_wait: Duration) -> Self {
        Self { bad_windows: bad_windows.max(1), max_wait, bad: 0 }
    }

    /// After a verdict, when the step has lasted so long.
    pub fn after(&mut self, verdict: AnalysisVerdict, lasted: Duration) -> NextAction {
        match verdict {
            AnalysisVerdict::Good => NextAction::GoOn,
            AnalysisVerdict::Bad => {
                self.bad += 1;
                if self.bad >= self.bad_windows { NextAction::RollBack } else { NextAction::Again { anew: true } }
            }
            AnalysisVerdict::NotEnoughCalls | AnalysisVerdict::Unknown if lasted >= self.max_wait => NextAction::Stall,
            AnalysisVerdict::NotEnoughCalls => NextAction::Again { anew: false },
            AnalysisVerdict::Unknown => NextAction::Again { anew: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn so_many_bad_windows_in_a_row() {
        let mut course = StepPolicy::new(2, Duration::from_secs(100));
        assert_eq!(course.after(AnalysisVerdict::Bad, Duration::ZERO), NextAction::Again { anew: true });
        assert_eq!(course.after(AnalysisVerdict::NotEnoughCalls, Duration::ZERO), NextAction::Again { anew: false });
        assert_eq!(course.after(AnalysisVerdict::Bad, Duration::ZERO), NextAction::RollBack, "not knowing ends no row");
    }

    proptest! {
        #[test]
        fn not_knowing_never_goes_on_and_never_goes_back(
            verdicts in prop::collection::vec(prop::bool::ANY, 1..40), bad_windows in 0_u32..4, most in 0_u64..30,
        ) {
            let mut course = StepPolicy::new(bad_windows, Duration::from_secs(most));
            for (at, unknown) in verdicts.into_iter().enumerate() {
                let verdict = if unknown { AnalysisVerdict::Unknown } else { AnalysisVerdict::NotEnoughCalls };
                let next = course.after(verdict, Duration::from_secs(at as u64));
                prop_assert!(!matches!(next, NextAction::GoOn | NextAction::RollBack));
                prop_assert_eq!(next == NextAction::Stall, at as u64 >= most);
            }
        }
    }
}
