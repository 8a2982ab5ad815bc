//! A shift in steps: the desired weights of each step, and its plan.

use super::plan::{AddableBackends, DesiredWeights, PlanError, PlannedBackend, RulePlan, plan_rule};
use super::record::RuleRecord;
use super::split::RuleSplit;
use crate::vocabulary::share::Share;

/// Why steps are invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    #[error("--steps needs a --to value with exactly one backend and its final share, such as v2=100")]
    SeveralBackends,
    #[error("the steps {0} do not lead to {1} in one direction")]
    NotMonotonic(String, Share),
}

/// The desired weights of each step from the share `now` to the share in `desired`. Steps already passed are skipped,
/// so that the same command continues a shift that was held.
///
/// # Errors
/// When `desired` names several backends, or the steps change direction.
#[expect(clippy::indexing_slicing, reason = "windows of two have two elements")]
pub fn step_weights(desired: &DesiredWeights, steps: &[Share], now: Share) -> Result<Vec<DesiredWeights>, StepsError> {
    let [(name, last)] = &desired.0[..] else { return Err(StepsError::SeveralBackends) };
    let rises = *last >= now;
    let is_ahead = |from: Share, to: Share| if rises { from < to } else { from > to };
    let mut all: Vec<Share> = steps.to_vec();
    if all.last() != Some(last) {
        all.push(*last);
    }
    if !all.windows(2).all(|pair| is_ahead(pair[0], pair[1])) {
        let steps = steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(StepsError::NotMonotonic(steps, *last));
    }
    let ahead = all.into_iter().filter(|share| is_ahead(now, *share) || share == last);
    Ok(ahead.map(|share| DesiredWeights(vec![(name.clone(), share)])).collect())
}

/// The plan of a further step. `now` is the rule as the object has it. The weights are computed from those at the start
/// of the shift, so that rounding does not add up.
///
/// # Errors
/// As [`plan_rule`].
pub fn plan_step(rule: &RuleRecord, now: &RuleSplit, desired: &DesiredWeights) -> Result<RulePlan, PlanError> {
    let from_start = plan_rule(&rule.split_at_start(now), desired, &AddableBackends::default())?;
    let effective = now.effective_weights();
    let backends = now.backends.iter().zip(&effective).zip(&from_start.backends);
    let backends = backends.map(|((backend, before), planned)| PlannedBackend {
        backend: backend.clone(),
        before: Some(*before),
        after: planned.after,
    });
    Ok(RulePlan {
        split: now.clone(),
        backends: backends.collect(),
        total_before: effective.iter().sum(),
        total_after: from_start.total_after,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::split::rule_splits;
    use super::*;
    use crate::schema::Kind;

    fn shares(text: &str) -> Vec<Share> {
        text.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
    }

    #[test]
    fn steps_lead_to_the_desired_share() {
        let steps_from = |desired: &str, steps: &str, now| {
            step_weights(&desired.parse().unwrap(), &shares(steps), Share::from_ratio(now, 10_000))
                .map(|all| all.iter().map(|step| step.0[0].1.to_string()).collect::<Vec<_>>().join(" "))
        };
        for (desired, steps, now, expected) in [
            ("v2=100", "5,25,50,100", 0, "5% 25% 50% 100%"),
            ("v2=100", "5,25,50", 0, "5% 25% 50% 100%"),
            ("v2=100", "5,25,50", 2500, "50% 100%"),
            ("v2=0", "50,10", 10_000, "50% 10% 0%"),
            ("v2=100", "", 0, "100%"),
            ("v2=50", "5,25,50", 5000, "50%"),
        ] {
            assert_eq!(steps_from(desired, steps, now).as_deref(), Ok(expected), "{desired} {steps} {now}");
        }
        assert!(matches!(steps_from("v2=50", "5,25,100", 0), Err(StepsError::NotMonotonic(..))));
        assert!(matches!(steps_from("v2=100", "25,5", 0), Err(StepsError::NotMonotonic(..))));
        assert_eq!(steps_from("v1=50,v2=50", "5", 0), Err(StepsError::SeveralBackends));
    }

    proptest! {
        #[test]
        fn every_step_gives_its_share_exactly_and_the_others_keep_their_proportion(
            first in 1_u64..90, second in 1_u64..90, steps in prop::collection::btree_set(1_u32..100, 1..6),
        ) {
            let third = 200 - first - second;
            let object = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"rules": [{"backendRefs": [
                {"name": "a", "weight": first}, {"name": "b", "weight": second}, {"name": "c", "weight": third}]}]}});
            let start = rule_splits(Kind::GrpcRoute, &object).remove(0);
            let steps: Vec<Share> = steps.into_iter().map(|share| share.to_string().parse().unwrap()).collect();
            let desired: DesiredWeights = "c=100".parse().unwrap();
            let mut now = start.clone();
            let mut record: Option<RuleRecord> = None;
            for step in step_weights(&desired, &steps, Share::from_ratio(0, 1)).unwrap() {
                let planned = match &record {
                    None => plan_rule(&start, &step, &AddableBackends::default()).unwrap(),
                    Some(rule) => plan_step(rule, &now, &step).unwrap(),
                };
                let share = u64::from(step.0[0].1.hundredths());
                prop_assert_eq!(planned.backends[2].after * 10_000, share * planned.total_after);
                let rest = (10_000 - share) as f64 / 10_000.0 * planned.total_after as f64;
                let exact = rest * first as f64 / (first + second) as f64;
                prop_assert!((planned.backends[0].after as f64 - exact).abs() < 1.0 + 1e-9);
                record = Some(record.map_or_else(|| RuleRecord::new(&planned), |rule| rule.for_next_step(&planned)));
                for (backend, planned) in now.backends.iter_mut().zip(&planned.backends) {
                    backend.weight = Some(planned.after);
                }
            }
            prop_assert_eq!(record.unwrap().start, vec![Some(first), Some(second), Some(third)]);
        }
    }
}
