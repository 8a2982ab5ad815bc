//! A shift in steps: the shares on the way, and the weights of each step.

use super::plan::{AddableBackend, DesiredWeights, PlanError, PlannedBackend, RulePlan, plan};
use super::record::RuleRecord;
use super::split::RuleSplit;
use crate::vocabulary::share::Share;

/// Why steps are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    /// Whose steps they are is not said.
    #[error("with --steps, --to names one backend and where it ends, such as v2=100")]
    Several,
    /// They go to and fro.
    #[error("the steps go to and fro: {0}; each must lead on towards {1}")]
    Order(String, Share),
}

/// The wishes of a way from `now` by `steps` to the share that is wished. Steps that lie
/// behind are left out: what was begun and held is gone on with by the same command.
///
/// # Errors
/// A wish for several backends, or steps that go to and fro.
pub fn wishes(wish: &DesiredWeights, steps: &[Share], now: Share) -> Result<Vec<DesiredWeights>, StepsError> {
    let [(name, last)] = &wish.0[..] else { return Err(StepsError::Several) };
    let rises = *last >= now;
    let leads_on = |from: Share, to: Share| if rises { from < to } else { from > to };
    let mut all: Vec<Share> = steps.to_vec();
    if all.last() != Some(last) {
        all.push(*last);
    }
    if !all.windows(2).all(|pair| leads_on(pair[0], pair[1])) {
        let shown = steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(StepsError::Order(shown, *last));
    }
    let ahead = all.into_iter().filter(|share| leads_on(now, *share) || share == last);
    Ok(ahead.map(|share| DesiredWeights(vec![(name.clone(), share)])).collect())
}

/// The plan of a further step: the shares are worked out from what was there at the start, so that roundings do not add
/// up, and the weights are written over those of the step before. `now` is the rule as it is.
///
/// # Errors
/// As [`plan`].
pub fn next(rule: &RuleRecord, now: &RuleSplit, wish: &DesiredWeights) -> Result<RulePlan, PlanError> {
    let goal = plan(&rule.at_start(now), wish, &AddableBackend::default())?;
    let acting = now.acting();
    let backends = now.backends.iter().zip(&acting).zip(&goal.backends);
    let backends = backends.map(|((backend, before), goal)| PlannedBackend {
        backend: backend.clone(),
        before: Some(*before),
        after: goal.after,
    });
    Ok(RulePlan {
        split: now.clone(),
        backends: backends.collect(),
        total_before: acting.iter().sum(),
        total: goal.total,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::split::splits;
    use super::*;
    use crate::schema::Kind;

    fn shares(text: &str) -> Vec<Share> {
        text.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
    }

    #[test]
    fn steps_lead_on_to_the_wish() {
        let of = |wish: &str, steps: &str, now| {
            wishes(&wish.parse().unwrap(), &shares(steps), Share::of(now, 10_000))
                .map(|all| all.iter().map(|wish| wish.0[0].1.to_string()).collect::<Vec<_>>().join(" "))
        };
        for (wish, steps, now, expected) in [
            ("v2=100", "5,25,50,100", 0, "5% 25% 50% 100%"),
            ("v2=100", "5,25,50", 0, "5% 25% 50% 100%"),
            ("v2=100", "5,25,50", 2500, "50% 100%"),
            ("v2=0", "50,10", 10_000, "50% 10% 0%"),
            ("v2=100", "", 0, "100%"),
            ("v2=50", "5,25,50", 5000, "50%"),
        ] {
            assert_eq!(of(wish, steps, now).as_deref(), Ok(expected), "{wish} {steps} {now}");
        }
        assert!(matches!(of("v2=50", "5,25,100", 0), Err(StepsError::Order(..))));
        assert!(matches!(of("v2=100", "25,5", 0), Err(StepsError::Order(..))));
        assert_eq!(of("v1=50,v2=50", "5", 0), Err(StepsError::Several));
    }

    proptest! {
        #[test]
        fn every_step_has_its_share_exactly_and_the_others_keep_their_proportion(
            first in 1_u64..90, second in 1_u64..90, steps in prop::collection::btree_set(1_u32..100, 1..6),
        ) {
            let third = 200 - first - second;
            let object = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"rules": [{"backendRefs": [
                {"name": "a", "weight": first}, {"name": "b", "weight": second}, {"name": "c", "weight": third}]}]}});
            let start = splits(Kind::GrpcRoute, &object).remove(0);
            let steps: Vec<Share> = steps.into_iter().map(|share| share.to_string().parse().unwrap()).collect();
            let wish: DesiredWeights = "c=100".parse().unwrap();
            let mut now = start.clone();
            let mut record: Option<RuleRecord> = None;
            for step in wishes(&wish, &steps, Share::of(0, 1)).unwrap() {
                let planned = match &record {
                    None => plan(&start, &step, &AddableBackend::default()).unwrap(),
                    Some(rule) => next(rule, &now, &step).unwrap(),
                };
                let share = u64::from(step.0[0].1.hundredths());
                prop_assert_eq!(planned.backends[2].after * 10_000, share * planned.total);
                let rest = (10_000 - share) as f64 / 10_000.0 * planned.total as f64;
                let exact = rest * first as f64 / (first + second) as f64;
                prop_assert!((planned.backends[0].after as f64 - exact).abs() < 1.0 + 1e-9);
                record = Some(record.map_or_else(|| RuleRecord::new(&planned), |rule| rule.next(&planned)));
                for (one, planned) in now.backends.iter_mut().zip(&planned.backends) {
                    one.weight = Some(planned.after);
                }
            }
            prop_assert_eq!(record.unwrap().start, vec![Some(first), Some(second), Some(third)]);
        }
    }
}
