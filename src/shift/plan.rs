//! Turns desired weights into the exact weights of a rule.

#![expect(clippy::indexing_slicing, reason = "audited: indexes are positions of the rule's own backends")]

use std::fmt;
use std::str::FromStr;

use super::shares::{DesiredShare, weights_for_shares};
use super::split::{RuleSplit, SplitBackend};
use crate::schema::Kind;
use crate::vocabulary::share::{Share, ShareError};

/// Backends, named as by the user, and the shares that they should get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredWeights(pub Vec<(String, Share)>);

/// Why desired weights cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("expected BACKEND=SHARE, such as v2=25 or v1=75,v2=25")]
    InvalidSyntax,
    #[error(transparent)]
    InvalidShare(#[from] ShareError),
    #[error("--to names {0} twice")]
    DuplicateBackend(String),
    #[error("the rule has no backend {name}; its backends are {available}")]
    UnknownBackend { name: String, available: String },
    #[error("{name} matches several backends: {candidates}; select one by number, such as #1")]
    AmbiguousBackend { name: String, candidates: String },
    #[error("the shares add up to more than 100%")]
    TotalAbove100,
    #[error("the shares add up to {0}, and the rule has no other backend for the rest")]
    TotalBelow100(Share),
    #[error("the other backends all have weight 0, so the rest cannot be split in proportion: name them in --to")]
    NoWeightsToScale,
    #[error(
        "the rule sends calls to all pods of {host}, including those of {subset}: first give it one destination per subset"
    )]
    DestinationWithoutSubset { host: String, subset: String },
}

impl fmt::Display for DesiredWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.0.iter().map(|(name, share)| format!("{name}={share}"));
        f.write_str(&parts.collect::<Vec<_>>().join(","))
    }
}

impl FromStr for DesiredWeights {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts: Vec<(String, Share)> = Vec::new();
        for part in text.split(',') {
            let (name, share) = part.rsplit_once('=').ok_or(PlanError::InvalidSyntax)?;
            let name = name.trim();
            if name.is_empty() {
                return Err(PlanError::InvalidSyntax);
            }
            if parts.iter().any(|(other, _)| other == name) {
                return Err(PlanError::DuplicateBackend(name.to_owned()));
            }
            parts.push((name.to_owned(), share.trim().parse()?));
        }
        Ok(Self(parts))
    }
}

/// A backend and its weight after the shift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBackend {
    /// The backend as the object has it.
    pub backend: SplitBackend,
    /// Its effective weight now; `None` for a backend that the shift adds.
    pub before: Option<u64>,
    /// Its weight afterwards.
    pub after: u64,
}

/// The planned weights of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulePlan {
    /// The rule as the object has it.
    pub split: RuleSplit,
    /// Its backends in their order; added ones last.
    pub backends: Vec<PlannedBackend>,
    /// Sum of the effective weights now.
    pub total_before: u64,
    /// Sum of the weights afterwards.
    pub total_after: u64,
}

impl RulePlan {
    /// Whether every backend keeps its share.
    pub fn is_noop(&self) -> bool {
        self.total_before > 0
            && self.backends.iter().all(|backend| {
                let (before, after) = (u128::from(backend.before.unwrap_or(0)), u128::from(backend.after));
                before * u128::from(self.total_after) == after * u128::from(self.total_before)
            })
    }

    /// Whether the weights are scaled to another total.
    pub fn is_scaled(&self) -> bool {
        self.total_after != self.total_before
    }

    /// The index of the backend that the user named.
    pub fn backend_index(&self, name: &str) -> Option<usize> {
        let backends: Vec<_> = self.backends.iter().map(|planned| (planned.backend.clone(), planned.before)).collect();
        find_backend(&backends, name).ok().flatten()
    }

    /// Share of a backend now, 0 to 1.
    pub fn share_before(&self, index: usize) -> f64 {
        ratio(self.backends[index].before.unwrap_or(0), self.total_before)
    }

    /// Share of a backend afterwards, 0 to 1.
    pub fn share_after(&self, index: usize) -> f64 {
        ratio(self.backends[index].after, self.total_after)
    }

    /// Whether a backend gets a larger share.
    pub fn is_rising(&self, index: usize) -> bool {
        self.share_after(index) > self.share_before(index)
    }
}

fn ratio(weight: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { weight as f64 / total as f64 }
}

/// Backends that a shift may add to a rule with a single backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddableBackends {
    /// Subsets that DestinationRules define for the destination's host.
    pub subsets: Vec<String>,
    /// Services in the namespace of a Gateway API route.
    pub services: Vec<String>,
}

/// Plans the weights of a rule. Backends that are not named share the rest in proportion to their weights.
///
/// # Errors
/// When the shares cannot be reached, or a name matches no backend or several.
pub fn plan_rule(
    split: &RuleSplit,
    desired: &DesiredWeights,
    addable: &AddableBackends,
) -> Result<RulePlan, PlanError> {
    let effective = split.effective_weights();
    let mut backends: Vec<(SplitBackend, Option<u64>)> =
        split.backends.iter().cloned().zip(effective.iter().copied().map(Some)).collect();
    let mut shares: Vec<Option<Share>> = vec![None; backends.len()];
    for (name, share) in &desired.0 {
        let index = match find_backend(&backends, name)? {
            Some(index) => index,
            None => {
                backends.push((added_backend(split, name, addable)?, None));
                shares.push(None);
                backends.len() - 1
            }
        };
        if shares[index].replace(*share).is_some() {
            return Err(PlanError::DuplicateBackend(backends[index].0.label()));
        }
    }
    let named_hundredths: u32 = shares.iter().flatten().map(|share| share.hundredths()).sum();
    if named_hundredths > Share::ALL.hundredths() {
        return Err(PlanError::TotalAbove100);
    }
    let unnamed: Vec<usize> = (0..shares.len()).filter(|index| shares[*index].is_none()).collect();
    let unnamed_weight: u64 = unnamed.iter().map(|index| backends[*index].1.unwrap_or(0)).sum();
    let has_rest = named_hundredths < Share::ALL.hundredths();
    match (&unnamed[..], has_rest, unnamed_weight) {
        ([], true, _) => {
            let rest = shares.iter().flatten().fold(Share::ALL, |rest, share| rest.saturating_sub(*share));
            return Err(PlanError::TotalBelow100(rest.complement()));
        }
        ([_, _, ..], true, 0) => return Err(PlanError::NoWeightsToScale),
        _ => {}
    }
    let desired_shares: Vec<DesiredShare> = shares
        .iter()
        .zip(&backends)
        .map(|(share, (_, before))| match share {
            Some(share) => DesiredShare::Exact(*share),
            None if unnamed_weight == 0 => DesiredShare::Proportional(1),
            None => DesiredShare::Proportional(before.unwrap_or(0)),
        })
        .collect();
    let total_before = effective.iter().sum();
    let (after, total_after) = weights_for_shares(total_before, &desired_shares);
    let backends =
        backends.into_iter().zip(after).map(|((backend, before), after)| PlannedBackend { backend, before, after });
    Ok(RulePlan { split: split.clone(), backends: backends.collect(), total_before, total_after })
}

/// The index of the backend with a name; `None` when no backend has it.
fn find_backend(backends: &[(SplitBackend, Option<u64>)], name: &str) -> Result<Option<usize>, PlanError> {
    let title = |index: usize| format!("#{} {}", index + 1, qualified_name(&backends[index].0));
    let available = || (0..backends.len()).map(title).collect::<Vec<_>>().join(", ");
    if let Some(number) = name.strip_prefix('#') {
        let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let index = index.filter(|index| *index < backends.len());
        let unknown = || PlanError::UnknownBackend { name: name.to_owned(), available: available() };
        return index.map(Some).ok_or_else(unknown);
    }
    let has_name = |backend: &SplitBackend| {
        let has_host_and_subset = |(host, subset): (&str, &str)| {
            backend.subset.as_deref() == Some(subset) && (host == backend.short_host() || host == backend.host)
        };
        backend.subset.as_deref() == Some(name)
            || backend.short_host() == name
            || backend.host == name
            || name.split_once('/').is_some_and(has_host_and_subset)
    };
    let matching: Vec<usize> = (0..backends.len()).filter(|index| has_name(&backends[*index].0)).collect();
    match matching[..] {
        [] => Ok(None),
        [index] => Ok(Some(index)),
        _ => {
            let candidates = matching.into_iter().map(title).collect::<Vec<_>>().join(", ");
            Err(PlanError::AmbiguousBackend { name: name.to_owned(), candidates })
        }
    }
}

/// `checkout/v2`, or `checkout-v2`.
fn qualified_name(backend: &SplitBackend) -> String {
    match &backend.subset {
        Some(subset) => format!("{}/{subset}", backend.short_host()),
        None => backend.short_host().to_owned(),
    }
}

/// A second backend for a rule that has one.
fn added_backend(split: &RuleSplit, name: &str, addable: &AddableBackends) -> Result<SplitBackend, PlanError> {
    let unknown = || {
        let mut available: Vec<String> = split.backends.iter().map(qualified_name).collect();
        available.extend(addable.subsets.iter().filter(|_| split.backends.len() == 1).cloned());
        available.dedup();
        PlanError::UnknownBackend { name: name.to_owned(), available: available.join(", ") }
    };
    let [only] = &split.backends[..] else { return Err(unknown()) };
    if split.kind == Kind::VirtualService {
        let host_and_subset = name.split_once('/').filter(|(host, _)| *host == only.short_host());
        let subset = host_and_subset.map_or(name, |(_, subset)| subset);
        if !addable.subsets.iter().any(|addable| addable == subset) {
            return Err(unknown());
        }
        if only.subset.is_none() {
            return Err(PlanError::DestinationWithoutSubset { host: only.host.clone(), subset: subset.to_owned() });
        }
        return Ok(SplitBackend { subset: Some(subset.to_owned()), weight: None, ..only.clone() });
    }
    if !addable.services.iter().any(|service| service == name) {
        return Err(unknown());
    }
    Ok(SplitBackend { host: name.to_owned(), weight: None, ..only.clone() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backend(subset: &str, weight: Option<u64>) -> SplitBackend {
        let subset = (!subset.is_empty()).then(|| subset.to_owned());
        SplitBackend {
            host: "checkout.shop.svc.cluster.local".to_owned(),
            subset,
            namespace: None,
            port: Some(7),
            weight,
        }
    }

    fn split(backends: &[(&str, Option<u64>)]) -> RuleSplit {
        let backends = backends.iter().map(|(subset, weight)| backend(subset, *weight)).collect();
        let condition = serde_json::Value::Null;
        RuleSplit { kind: Kind::VirtualService, rule: 0, name: None, condition, backends }
    }

    fn after(split: &RuleSplit, desired: &str) -> Result<Vec<u64>, PlanError> {
        let addable =
            AddableBackends { subsets: vec!["v1".to_owned(), "v2".to_owned()], services: vec!["b".to_owned()] };
        plan_rule(split, &desired.parse()?, &addable)
            .map(|plan| plan.backends.iter().map(|backend| backend.after).collect())
    }

    #[test]
    fn accepts_every_name_of_a_backend() {
        let v1_v2 = split(&[("v1", Some(90)), ("v2", Some(10))]);
        for desired in
            ["v2=25", "checkout/v2=25", "#2=25", "v1=75,v2=25", "v1=75", "checkout.shop.svc.cluster.local/v2=25%"]
        {
            assert_eq!(after(&v1_v2, desired), Ok(vec![75, 25]), "{desired}");
        }
        let three = split(&[("v1", Some(60)), ("v2", Some(30)), ("v3", Some(10))]);
        assert_eq!(after(&three, "v3=40"), Ok(vec![40, 20, 40]));
        assert_eq!(after(&three, "v3=100"), Ok(vec![0, 0, 100]));
        let unused = split(&[("v1", Some(0)), ("v2", Some(100))]);
        assert_eq!(after(&unused, "v2=50"), Ok(vec![50, 50]));
    }

    #[test]
    fn adds_a_second_destination() {
        assert_eq!(after(&split(&[("v1", None)]), "v2=5"), Ok(vec![95, 5]));
        let without_subset = Err(PlanError::DestinationWithoutSubset {
            host: "checkout.shop.svc.cluster.local".to_owned(),
            subset: "v2".to_owned(),
        });
        assert_eq!(after(&split(&[("", None)]), "v2=5"), without_subset);
        let mut route = split(&[("", Some(1))]);
        route.kind = Kind::GrpcRoute;
        assert_eq!(after(&route, "b=5"), Ok(vec![95, 5]));
        assert!(matches!(after(&route, "c=5"), Err(PlanError::UnknownBackend { .. })));
    }

    #[test]
    fn rejects_weights_that_cannot_be_reached_with_the_reason() {
        let v1_v2 = split(&[("v1", Some(90)), ("v2", Some(10))]);
        assert!(matches!(after(&v1_v2, "v3=5"), Err(PlanError::UnknownBackend { .. })));
        assert!(matches!(after(&v1_v2, "#3=5"), Err(PlanError::UnknownBackend { .. })));
        assert!(matches!(after(&v1_v2, "checkout=5"), Err(PlanError::AmbiguousBackend { .. })));
        assert_eq!(after(&v1_v2, "v1=60,v2=60"), Err(PlanError::TotalAbove100));
        assert_eq!(after(&v1_v2, "v1=60,v2=30"), Err(PlanError::TotalBelow100("90".parse().unwrap())));
        assert_eq!(after(&v1_v2, "v1=60,checkout/v1=30"), Err(PlanError::DuplicateBackend("v1".to_owned())));
        assert_eq!(after(&v1_v2, "v2=5,v2=6"), Err(PlanError::DuplicateBackend("v2".to_owned())));
        let only_v3 = split(&[("v1", Some(0)), ("v2", Some(0)), ("v3", Some(100))]);
        assert_eq!(after(&only_v3, "v3=40"), Err(PlanError::NoWeightsToScale));
        for invalid in ["v2", "=5", "v2=x", "v2=101", ""] {
            assert!(after(&v1_v2, invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn recognizes_plans_that_change_or_scale_nothing() {
        let addable = AddableBackends::default();
        let v1_v2 = split(&[("v1", Some(9)), ("v2", Some(1))]);
        let planned = |desired: &str| plan_rule(&v1_v2, &desired.parse().unwrap(), &addable).unwrap();
        assert!(planned("v2=10").is_noop() && !planned("v2=20").is_noop());
        let no_weights = split(&[("v1", Some(0)), ("v2", Some(0))]);
        assert!(!plan_rule(&no_weights, &"v1=100".parse().unwrap(), &addable).unwrap().is_noop());
        assert!(planned("v2=25").is_scaled() && !planned("v2=20").is_scaled());
    }

    proptest! {
        #[test]
        fn weights_give_the_desired_shares_exactly(
            before in prop::collection::vec(0_u64..200, 2..6),
            backend in 0_usize..6,
            hundredths in 0_u32..=10_000,
        ) {
            let backend = backend % before.len();
            let backends = before.iter().enumerate().map(|(index, weight)| (format!("s{index}"), Some(*weight)));
            let backends: Vec<_> = backends.collect();
            let split = split(&backends.iter().map(|(name, weight)| (name.as_str(), *weight)).collect::<Vec<_>>());
            let share = format!("{}.{:02}", hundredths / 100, hundredths % 100);
            let desired: DesiredWeights = format!("s{backend}={share}").parse().unwrap();
            match plan_rule(&split, &desired, &AddableBackends::default()) {
                Ok(plan) => {
                    let sum: u64 = plan.backends.iter().map(|planned| planned.after).sum();
                    prop_assert_eq!(sum, plan.total_after);
                    prop_assert!((plan.share_after(backend) - f64::from(hundredths) / 10_000.0).abs() < 1e-12);
                    // A backend without weight gets none, unless it is the only other backend.
                    for (other, planned) in plan.backends.iter().enumerate().filter(|(other, _)| *other != backend) {
                        prop_assert!(planned.after == 0 || before[other] > 0 || before.len() == 2);
                    }
                }
                Err(error) => prop_assert_eq!(error, PlanError::NoWeightsToScale),
            }
        }
    }
}
