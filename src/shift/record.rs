//! What is put down beside the weights: who shifted what, when, and how to get back.
//!
//! An annotation of the object, written in the same patch as the weights, so that the two never disagree. It is bounded:
//! the last entries are kept, and each is numbered, so that it shows when older ones are gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::RulePlan;
use super::split::{RuleSplit, acting, rules_field, splits};
use crate::analysis::window::CallCounts;
use crate::schema::Kind;

/// Name of the annotation.
pub const ANNOTATION: &str = "grpcmesh.io/shift";
/// Entries that are kept.
const KEPT: usize = 50;
/// Bytes that are kept: all annotations of an object together may have 256 KiB.
const BYTES: usize = 32 << 10;

/// The annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShiftRecord {
    /// Version of this form.
    pub version: u32,
    /// Shifts, newest first.
    #[serde(default)]
    pub entries: Vec<ShiftEntry>,
}

/// One shift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShiftEntry {
    /// Number among the shifts of the object, from 1.
    pub number: u64,
    /// Identity of the run that made it.
    pub session: String,
    /// User, as the cluster knows it.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why, in the user's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Until when the run may go on by itself; later another may take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Hosts whose calls it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Its steps, as wishes (`v2=25`); of a shift in one step there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// The step whose weights are written, from 1.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub step: u32,
    /// Who judges it, if somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// What was found at the steps, the last of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<StepVerdict>,
    /// Who asked the run to go back, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<String>,
    /// How it stands.
    pub state: ShiftState,
    /// What was found, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The rules.
    pub rules: Vec<RuleRecord>,
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_first(step: &u32) -> bool {
    *step == 1
}

/// What was found at a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepVerdict {
    /// The step; 0 is before the first.
    pub step: u32,
    /// The verdict's word.
    pub verdict: String,
    /// Calls to the canary.
    pub canary: CallCounts,
    /// Calls to the others in the same time.
    pub baseline: CallCounts,
    /// In a sentence.
    pub why: String,
}

/// How a shift stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShiftState {
    /// It is written; whether the proxies follow is not known yet.
    Open,
    /// Done, and the proxies follow.
    Done,
    /// Done as far as is known: it was ended before all proxies were seen to follow, or nobody asked them.
    Held,
    /// The weights are again what they were before.
    RolledBack,
}

impl ShiftState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Held => "held",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// What a shift did to a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRecord {
    /// Index at that time.
    pub rule: usize,
    /// [`Split::identity`] afterwards.
    pub identity: String,
    /// Names of the backends.
    pub backends: Vec<String>,
    /// Weights as they were written before; of backends that were added there is none.
    pub start: Vec<Option<u64>>,
    /// Weights as they were written by it, at its last step.
    pub wrote: Vec<Option<u64>>,
    /// Weights of the step before; at the first step there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Option<u64>>,
}

/// Weights of rules by backend, as `of` picks them; of several rules the place of the rule goes before.
pub fn weights_by_name<'r>(
    kind: Kind,
    rules: &'r [RuleRecord],
    of: impl Fn(&'r RuleRecord) -> &'r [Option<u64>],
) -> BTreeMap<String, u64> {
    let field = rules_field(kind);
    let named = rules.iter().flat_map(|rule| {
        let place = if rules.len() > 1 { format!("{field}[{}] ", rule.rule) } else { String::new() };
        let weights = rule.backends.iter().zip(of(rule));
        weights.filter_map(move |(name, weight)| Some((format!("{place}{name}"), (*weight)?)))
    });
    named.collect()
}

/// Where a way back leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollbackTarget {
    /// To what was there before the shift.
    Start,
    /// To the step before; at the first step that is the start.
    Previous,
}

/// Why there is no way back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LostControl {
    /// The rule is gone, or is another one.
    #[error("the rule that had the backends {0} is not there any more, or is another one")]
    Rule(String),
    /// Somebody else changed the weights.
    #[error("somebody changed the weights since: {0}")]
    Weights(String),
}

impl ShiftRecord {
    /// Reads the annotation of an object; absent is empty.
    ///
    /// # Errors
    /// When it is there and not in this form, or of a newer one.
    pub fn of(object: &Value) -> Result<Self, serde_json::Error> {
        match object["metadata"]["annotations"][ANNOTATION].as_str() {
            Some(text) => {
                let record: Self = serde_json::from_str(text)?;
                let is_newer = record.version > 1;
                if is_newer { Err(serde::de::Error::custom("it is of a newer version")) } else { Ok(record) }
            }
            None => Ok(Self { version: 1, entries: Vec::new() }),
        }
    }

    /// The entry of a run that is at it: the first, and open.
    pub fn of_run(&mut self, session: &str) -> Option<&mut ShiftEntry> {
        self.entries.first_mut().filter(|entry| entry.session == session && entry.state == ShiftState::Open)
    }

    /// Puts an entry first and lets the oldest go.
    pub fn push(&mut self, entry: ShiftEntry) {
        self.version = 1;
        self.entries.insert(0, entry);
        self.entries.truncate(KEPT);
        self.bound();
    }

    /// Lets the oldest go until it is small enough.
    fn bound(&mut self) {
        while self.entries.len() > 1 && self.text().len() > BYTES {
            self.entries.pop();
        }
    }

    /// The number of the next entry.
    pub fn next_number(&self) -> u64 {
        self.entries.first().map_or(1, |last| last.number + 1)
    }

    /// As it is written.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The shift that nobody has ended yet.
    pub fn open(&self) -> Option<&ShiftEntry> {
        self.entries.first().filter(|entry| entry.state == ShiftState::Open)
    }

    /// The last shift that stands: what can be undone.
    pub fn last_standing(&self) -> Option<&ShiftEntry> {
        self.entries.first().filter(|entry| entry.state != ShiftState::RolledBack)
    }
}

impl RuleRecord {
    /// What a plan will have done.
    pub fn new(plan: &RulePlan) -> Self {
        let mut after = plan.split.clone();
        after.backends = plan.backends.iter().map(|one| one.backend.clone()).collect();
        Self {
            rule: plan.split.rule,
            identity: after.identity(),
            backends: plan.backends.iter().map(|one| one.backend.label()).collect(),
            start: plan.split.backends.iter().map(|one| one.weight).collect(),
            wrote: plan.backends.iter().map(super::patch::written).collect(),
            previous: Vec::new(),
        }
    }

    /// The rule after a further step.
    #[must_use]
    pub fn next(&self, plan: &RulePlan) -> Self {
        Self { start: self.start.clone(), previous: self.wrote.clone(), ..Self::new(plan) }
    }

    /// The weights at the end of a way back.
    pub fn weights(&self, back: RollbackTarget) -> &[Option<u64>] {
        if back == RollbackTarget::Previous && !self.previous.is_empty() { &self.previous } else { &self.start }
    }

    /// The rule as it was before the shift, with the backends that it has now: those that were added had no share.
    pub fn at_start(&self, now: &RuleSplit) -> RuleSplit {
        let mut split = now.clone();
        split.backends.truncate(self.start.len());
        for (one, weight) in split.backends.iter_mut().zip(&self.start) {
            one.weight = *weight;
        }
        let acting = split.acting();
        let mut all = now.clone();
        for (at, one) in all.backends.iter_mut().enumerate() {
            one.weight = Some(acting.get(at).copied().unwrap_or(0));
        }
        all
    }

    /// Names of the backends whose share it raises, and their share together afterwards, 0 to 1.
    pub fn rising(&self, kind: Kind) -> (Vec<&str>, f64) {
        let (start, wrote) = (acting(kind, &self.start), acting(kind, &self.wrote));
        let share = |weights: &[u64], at: usize| {
            let all: u64 = weights.iter().sum();
            weights.get(at).copied().unwrap_or(0) as f64 / all.max(1) as f64
        };
        let rises = |at: &usize| share(&wrote, *at) > share(&start, *at);
        let rising: Vec<usize> = (0..self.backends.len()).filter(rises).collect();
        let together = rising.iter().map(|at| share(&wrote, *at)).sum();
        (rising.into_iter().map(|at| self.backends[at].as_str()).collect(), together)
    }

    /// The rule in an object, if it still has the weights that were written.
    ///
    /// # Errors
    /// When the rule is gone, or its weights are others.
    pub fn find(&self, kind: Kind, object: &Value) -> Result<RuleSplit, LostControl> {
        let all = splits(kind, object);
        let same = |split: &&RuleSplit| split.identity() == self.identity;
        // Rules may have been put before it.
        let found = all.iter().find(|split| split.rule == self.rule && same(split));
        let found =
            found.or_else(|| all.iter().find(same)).ok_or_else(|| LostControl::Rule(self.backends.join(", ")))?;
        let now: Vec<Option<u64>> = found.backends.iter().map(|one| one.weight).collect();
        if now != self.wrote {
            return Err(LostControl::Weights(show(&self.backends, &now)));
        }
        Ok(found.clone())
    }
}

/// `v1 75, v2 25`.
pub fn show(names: &[String], weights: &[Option<u64>]) -> String {
    let one = |(name, weight): (&String, &Option<u64>)| match weight {
        Some(weight) => format!("{name} {weight}"),
        None => name.clone(),
    };
    names.iter().zip(weights).map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_several_rules_stay_apart() {
        let rule = |rule, stable, canary| RuleRecord {
            rule,
            identity: String::new(),
            backends: vec!["v1".into(), "v2".into()],
            start: vec![Some(100), None],
            wrote: vec![Some(stable), Some(canary)],
            previous: Vec::new(),
        };
        let wrote = |kind, rules: &[RuleRecord]| {
            let named = weights_by_name(kind, rules, |rule| &rule.wrote);
            named.into_iter().map(|(name, weight)| format!("{name}={weight}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(wrote(Kind::VirtualService, &[rule(3, 75, 25)]), "v1=75 v2=25");
        let two = [rule(0, 75, 25), rule(2, 50, 50)];
        assert_eq!(wrote(Kind::VirtualService, &two), "http[0] v1=75 http[0] v2=25 http[2] v1=50 http[2] v2=50");
        let before = weights_by_name(Kind::HttpRoute, &two[..1], |rule| rule.weights(RollbackTarget::Start));
        assert_eq!(before, BTreeMap::from([("v1".to_owned(), 100)]), "what had no weight has none again");
    }
}
