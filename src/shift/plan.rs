//! From a wish to weights.

use std::fmt;
use std::str::FromStr;

use super::shares::{DesiredShare, weights};
use super::split::{RuleSplit, SplitBackend};
use crate::schema::Kind;
use crate::vocabulary::share::{Share, ShareError};

/// Backends with the shares that they are to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredWeights(pub Vec<(String, Share)>);

/// Why a wish is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not `BACKEND=SHARE,…`.
    #[error("\"{0}\" is no wish: write BACKEND=SHARE, such as v2=25 or v1=75,v2=25")]
    Form(String),
    /// A share that is none.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A backend twice.
    #[error("{0} is named twice")]
    Twice(String),
    /// A backend that the rule does not have.
    #[error("no backend of the rule is called {word}; there are {there}")]
    Unknown {
        /// What was asked for.
        word: String,
        /// What there is.
        there: String,
    },
    /// A word that fits several.
    #[error("{word} fits several backends: {there}; say which by its number")]
    Ambiguous {
        /// What was asked for.
        word: String,
        /// What it fits.
        there: String,
    },
    /// More than everything.
    #[error("the shares add up to more than 100%")]
    TooMuch,
    /// Less than everything, and nobody to get the rest.
    #[error("the shares add up to {0}, and no other backend is there to get the rest")]
    TooLittle(Share),
    /// Several others without any weight.
    #[error(
        "the backends that are not named have no weight now, so that there is no proportion for the rest: name them"
    )]
    NoProportion,
    /// A destination that stands for all pods.
    #[error(
        "the rule sends to all pods of {host}, and so also to those of {subset}: a share for {subset} needs a destination \
         for each subset first"
    )]
    AllPods {
        /// The destination's host.
        host: String,
        /// The subset.
        subset: String,
    },
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
            let (name, share) = part.rsplit_once('=').ok_or_else(|| PlanError::Form(text.to_owned()))?;
            let name = name.trim();
            if name.is_empty() {
                return Err(PlanError::Form(text.to_owned()));
            }
            if parts.iter().any(|(other, _)| other == name) {
                return Err(PlanError::Twice(name.to_owned()));
            }
            parts.push((name.to_owned(), share.trim().parse()?));
        }
        Ok(Self(parts))
    }
}

/// A backend after a shift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBackend {
    /// The backend, with the weight that is written now.
    pub backend: SplitBackend,
    /// The weight as it acts now; absent for one that is added.
    pub before: Option<u64>,
    /// Its weight afterwards.
    pub after: u64,
}

/// What becomes of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulePlan {
    /// The rule as it is.
    pub split: RuleSplit,
    /// Its backends in their order; new ones at the end.
    pub backends: Vec<PlannedBackend>,
    /// Sum of the weights now.
    pub total_before: u64,
    /// Sum of the weights afterwards.
    pub total: u64,
}

impl RulePlan {
    /// Whether calls will go as they go now.
    pub fn is_idle(&self) -> bool {
        self.total_before > 0
            && self.backends.iter().all(|one| {
                let (before, after) = (u128::from(one.before.unwrap_or(0)), u128::from(one.after));
                before * u128::from(self.total) == after * u128::from(self.total_before)
            })
    }

    /// Whether the weights are scaled to another total.
    pub fn is_scaled(&self) -> bool {
        self.total != self.total_before
    }

    /// The backend that a word of a wish means.
    pub fn named(&self, word: &str) -> Option<usize> {
        let backends: Vec<_> = self.backends.iter().map(|one| (one.backend.clone(), one.before)).collect();
        find(&backends, word).ok().flatten()
    }

    /// Share of a backend now, 0 to 1.
    pub fn share_before(&self, at: usize) -> f64 {
        share(self.backends[at].before.unwrap_or(0), self.total_before)
    }

    /// Share of a backend afterwards, 0 to 1.
    pub fn share_after(&self, at: usize) -> f64 {
        share(self.backends[at].after, self.total)
    }
}

fn share(weight: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { weight as f64 / total as f64 }
}

/// What could become a second backend of a rule that has one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddableBackend {
    /// Subsets that DestinationRules define for the destination's host.
    pub subsets: Vec<String>,
    /// Services in the namespace of a Gateway API route.
    pub services: Vec<String>,
}

/// Makes the plan for a rule.
///
/// # Errors
/// A wish that cannot be fulfilled, or that can be read in several ways.
pub fn plan(split: &RuleSplit, wish: &DesiredWeights, addable: &AddableBackend) -> Result<RulePlan, PlanError> {
    let acting = split.acting();
    let mut backends: Vec<(SplitBackend, Option<u64>)> =
        split.backends.iter().cloned().zip(acting.iter().copied().map(Some)).collect();
    let mut shares: Vec<Option<Share>> = vec![None; backends.len()];
    for (word, share) in &wish.0 {
        let at = match find(&backends, word)? {
            Some(at) => at,
            None => {
                backends.push((added(split, word, addable)?, None));
                shares.push(None);
                backends.len() - 1
            }
        };
        if shares[at].replace(*share).is_some() {
            return Err(PlanError::Twice(backends[at].0.label()));
        }
    }
    let named: u32 = shares.iter().flatten().map(|share| share.hundredths()).sum();
    if named > Share::ALL.hundredths() {
        return Err(PlanError::TooMuch);
    }
    let others: Vec<usize> = (0..shares.len()).filter(|at| shares[*at].is_none()).collect();
    let of_others: u64 = others.iter().map(|at| backends[*at].1.unwrap_or(0)).sum();
    let has_rest = named < Share::ALL.hundredths();
    match (&others[..], has_rest, of_others) {
        ([], true, _) => {
            let sum = shares.iter().flatten().fold(Share::ALL, |rest, share| rest.less(*share));
            return Err(PlanError::TooLittle(sum.rest()));
        }
        ([_, _, ..], true, 0) => return Err(PlanError::NoProportion),
        _ => {}
    }
    let wanted: Vec<DesiredShare> = shares
        .iter()
        .zip(&backends)
        .map(|(share, (_, before))| match share {
            Some(share) => DesiredShare::Share(*share),
            None if of_others == 0 => DesiredShare::Rest(1),
            None => DesiredShare::Rest(before.unwrap_or(0)),
        })
        .collect();
    let total_before = acting.iter().sum();
    let (after, total) = weights(total_before, &wanted);
    let backends =
        backends.into_iter().zip(after).map(|((backend, before), after)| PlannedBackend { backend, before, after });
    Ok(RulePlan { split: split.clone(), backends: backends.collect(), total_before, total })
}

/// The backend of a word; `None` when no one fits.
fn find(backends: &[(SplitBackend, Option<u64>)], word: &str) -> Result<Option<usize>, PlanError> {
    let title = |at: usize| format!("#{} {}", at + 1, name(&backends[at].0));
    let all = || (0..backends.len()).map(title).collect::<Vec<_>>().join(", ");
    if let Some(number) = word.strip_prefix('#') {
        let at = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let at = at.filter(|at| *at < backends.len());
        return at.map(Some).ok_or_else(|| PlanError::Unknown { word: word.to_owned(), there: all() });
    }
    let fits = |one: &SplitBackend| {
        let of_subset = |(host, subset): (&str, &str)| {
            one.subset.as_deref() == Some(subset) && (host == one.short() || host == one.host)
        };
        one.subset.as_deref() == Some(word)
            || one.short() == word
            || one.host == word
            || word.split_once('/').is_some_and(of_subset)
    };
    let found: Vec<usize> = (0..backends.len()).filter(|at| fits(&backends[*at].0)).collect();
    match found[..] {
        [] => Ok(None),
        [at] => Ok(Some(at)),
        _ => {
            let there = found.into_iter().map(title).collect::<Vec<_>>().join(", ");
            Err(PlanError::Ambiguous { word: word.to_owned(), there })
        }
    }
}

/// `checkout/v2`, or `checkout-v2`.
fn name(backend: &SplitBackend) -> String {
    match &backend.subset {
        Some(subset) => format!("{}/{subset}", backend.short()),
        None => backend.short().to_owned(),
    }
}

/// A second backend beside the only one.
fn added(split: &RuleSplit, word: &str, addable: &AddableBackend) -> Result<SplitBackend, PlanError> {
    let unknown = || {
        let mut there: Vec<String> = split.backends.iter().map(name).collect();
        there.extend(addable.subsets.iter().filter(|_| split.backends.len() == 1).cloned());
        there.dedup();
        PlanError::Unknown { word: word.to_owned(), there: there.join(", ") }
    };
    let [only] = &split.backends[..] else { return Err(unknown()) };
    if split.kind == Kind::VirtualService {
        let subset = word.split_once('/').filter(|(host, _)| *host == only.short()).map_or(word, |(_, subset)| subset);
        if !addable.subsets.iter().any(|one| one == subset) {
            return Err(unknown());
        }
        if only.subset.is_none() {
            return Err(PlanError::AllPods { host: only.host.clone(), subset: subset.to_owned() });
        }
        return Ok(SplitBackend { subset: Some(subset.to_owned()), weight: None, ..only.clone() });
    }
    if !addable.services.iter().any(|one| one == word) {
        return Err(unknown());
    }
    Ok(SplitBackend { host: word.to_owned(), weight: None, ..only.clone() })
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

    fn after(split: &RuleSplit, wish: &str) -> Result<Vec<u64>, PlanError> {
        let addable =
            AddableBackend { subsets: vec!["v1".to_owned(), "v2".to_owned()], services: vec!["b".to_owned()] };
        plan(split, &wish.parse()?, &addable).map(|plan| plan.backends.iter().map(|one| one.after).collect())
    }

    #[test]
    fn wishes_by_every_name() {
        let two = split(&[("v1", Some(90)), ("v2", Some(10))]);
        for wish in
            ["v2=25", "checkout/v2=25", "#2=25", "v1=75,v2=25", "v1=75", "checkout.shop.svc.cluster.local/v2=25%"]
        {
            assert_eq!(after(&two, wish), Ok(vec![75, 25]), "{wish}");
        }
        let three = split(&[("v1", Some(60)), ("v2", Some(30)), ("v3", Some(10))]);
        assert_eq!(after(&three, "v3=40"), Ok(vec![40, 20, 40]));
        assert_eq!(after(&three, "v3=100"), Ok(vec![0, 0, 100]));
        let off = split(&[("v1", Some(0)), ("v2", Some(100))]);
        assert_eq!(after(&off, "v2=50"), Ok(vec![50, 50]));
    }

    #[test]
    fn one_destination_becomes_two() {
        assert_eq!(after(&split(&[("v1", None)]), "v2=5"), Ok(vec![95, 5]));
        let all =
            Err(PlanError::AllPods { host: "checkout.shop.svc.cluster.local".to_owned(), subset: "v2".to_owned() });
        assert_eq!(after(&split(&[("", None)]), "v2=5"), all);
        let mut route = split(&[("", Some(1))]);
        route.kind = Kind::GrpcRoute;
        assert_eq!(after(&route, "b=5"), Ok(vec![95, 5]));
        assert!(matches!(after(&route, "c=5"), Err(PlanError::Unknown { .. })));
    }

    #[test]
    fn impossible_wishes_are_refused_with_the_reason() {
        let two = split(&[("v1", Some(90)), ("v2", Some(10))]);
        assert!(matches!(after(&two, "v3=5"), Err(PlanError::Unknown { .. })));
        assert!(matches!(after(&two, "#3=5"), Err(PlanError::Unknown { .. })));
        assert!(matches!(after(&two, "checkout=5"), Err(PlanError::Ambiguous { .. })));
        assert_eq!(after(&two, "v1=60,v2=60"), Err(PlanError::TooMuch));
        assert_eq!(after(&two, "v1=60,v2=30"), Err(PlanError::TooLittle("90".parse().unwrap())));
        assert_eq!(after(&two, "v1=60,checkout/v1=30"), Err(PlanError::Twice("v1".to_owned())));
        assert_eq!(after(&two, "v2=5,v2=6"), Err(PlanError::Twice("v2".to_owned())));
        let idle = split(&[("v1", Some(0)), ("v2", Some(0)), ("v3", Some(100))]);
        assert_eq!(after(&idle, "v3=40"), Err(PlanError::NoProportion));
        for wrong in ["v2", "=5", "v2=x", "v2=101", ""] {
            assert!(after(&two, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_changes_nothing_is_known() {
        let addable = AddableBackend::default();
        let of =
            |wish: &str| plan(&split(&[("v1", Some(9)), ("v2", Some(1))]), &wish.parse().unwrap(), &addable).unwrap();
        assert!(of("v2=10").is_idle() && !of("v2=20").is_idle());
        let nothing = split(&[("v1", Some(0)), ("v2", Some(0))]);
        assert!(!plan(&nothing, &"v1=100".parse().unwrap(), &addable).unwrap().is_idle());
        assert!(of("v2=25").is_scaled() && !of("v2=20").is_scaled());
    }

    proptest! {
        #[test]
        fn shares_are_as_planned(
            before in prop::collection::vec(0_u64..200, 2..6),
            at in 0_usize..6,
            hundredths in 0_u32..=10_000,
        ) {
            let at = at % before.len();
            let backends = before.iter().enumerate().map(|(at, weight)| (format!("s{at}"), Some(*weight)));
            let backends: Vec<_> = backends.collect();
            let split = split(&backends.iter().map(|(name, weight)| (name.as_str(), *weight)).collect::<Vec<_>>());
            let wish: DesiredWeights = format!("s{at}={}.{:02}", hundredths / 100, hundredths % 100).parse().unwrap();
            match plan(&split, &wish, &AddableBackend::default()) {
                Ok(plan) => {
                    let sum: u64 = plan.backends.iter().map(|one| one.after).sum();
                    prop_assert_eq!(sum, plan.total);
                    prop_assert!((plan.share_after(at) - f64::from(hundredths) / 10_000.0).abs() < 1e-12);
                    // Who had nothing gets nothing, unless alone with the rest.
                    for (other, one) in plan.backends.iter().enumerate().filter(|(other, _)| *other != at) {
                        prop_assert!(one.after == 0 || before[other] > 0 || before.len() == 2);
                    }
                }
                Err(refusal) => prop_assert_eq!(refusal, PlanError::NoProportion),
            }
        }
    }
}
