//! The record of a shift: who changed which weights, when, how far it got, and what a rollback restores.
//!
//! The record is an annotation of the object. One patch writes weights and record, so the two never disagree. Its size
//! is bounded: the oldest entries are dropped, and entries are numbered so that a gap is visible.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::IntoStaticStr;

use super::plan::RulePlan;
use super::split::{RuleSplit, effective_weights, rule_splits, rules_field};
use crate::analysis::AnalysisSource;
use crate::analysis::verdict::AnalysisVerdict;
use crate::analysis::window::CallCounts;
use crate::schema::Kind;

/// Name of the annotation.
pub const RECORD_ANNOTATION: &str = "grpcmesh.io/shift";
/// Version of the record's format.
const VERSION: u32 = 1;
const MAX_ENTRIES: usize = 50;
/// Kubernetes allows 256 KiB for all annotations of an object together.
const MAX_BYTES: usize = 32 << 10;

/// The annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShiftRecord {
    /// Version of this format.
    pub version: u32,
    /// Shifts, newest first.
    #[serde(default)]
    pub entries: Vec<ShiftEntry>,
}

/// One shift.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShiftEntry {
    /// Number among the shifts of the object, from 1.
    pub number: u64,
    /// Session that runs it.
    pub session: String,
    /// User name, as the API server reports it.
    pub user: String,
    /// Start time, RFC 3339.
    pub started_at: String,
    /// Why, in the user's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The session owns the shift until then, RFC 3339; afterwards another session may take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Hosts whose calls it affects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Its steps as `--to` values (`v2=25%`); empty for a shift in one step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// The step whose weights are applied, from 1.
    #[serde(default = "first_step", skip_serializing_if = "is_first_step")]
    pub step: u32,
    /// Source of its canary analysis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisSource>,
    /// The last verdict of each step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<StepVerdict>,
    /// User and time of a request to abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_requested_by: Option<String>,
    pub state: ShiftState,
    /// The outcome, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub rules: Vec<RuleRecord>,
}

fn first_step() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first_step(step: &u32) -> bool {
    *step == 1
}

/// The verdict of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepVerdict {
    /// The step; 0 is the window before the first.
    pub step: u32,
    pub verdict: AnalysisVerdict,
    /// Calls to the canary.
    pub canary: CallCounts,
    /// Calls to the other backends in the same window.
    pub baseline: CallCounts,
    /// A sentence with the numbers.
    pub reason: String,
}

/// State of a shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ShiftState {
    /// Weights are applied, and the session is not finished.
    Open,
    /// Finished, and the proxies are synced.
    Done,
    /// The new weights stay, but the shift is unfinished, or the proxies were not confirmed to be synced.
    Held,
    /// The weights from before are restored.
    RolledBack,
}

impl ShiftState {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The changes of a shift to one rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RuleRecord {
    /// Index of the rule when the weights were applied.
    pub rule: usize,
    /// [`RuleSplit::identity`] afterwards.
    pub identity: String,
    /// Labels of the backends.
    pub backends: Vec<String>,
    /// Weights as written before the shift; added backends have no item.
    pub start: Vec<Option<u64>>,
    /// Weights as written by the last step.
    pub applied: Vec<Option<u64>>,
    /// Weights as written by the step before; empty at the first step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Option<u64>>,
}

/// The weights that `select` picks from each rule, by backend; with several rules the field of the rule comes first.
pub fn weights_by_backend<'r>(
    kind: Kind,
    rules: &'r [RuleRecord],
    select: impl Fn(&'r RuleRecord) -> &'r [Option<u64>],
) -> BTreeMap<String, u64> {
    let field = rules_field(kind);
    let weights = rules.iter().flat_map(|rule| {
        let prefix = if rules.len() > 1 { format!("{field}[{}] ", rule.rule) } else { String::new() };
        let weights = rule.backends.iter().zip(select(rule));
        weights.filter_map(move |(backend, weight)| Some((format!("{prefix}{backend}"), (*weight)?)))
    });
    weights.collect()
}

/// The weights that a rollback restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RollbackTarget {
    /// The weights from before the shift.
    Start,
    /// The weights of the step before; at the first step those from before the shift.
    Previous,
}

/// Why a session no longer owns the weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LostControl {
    /// The object does not exist.
    #[error("the object was deleted")]
    ObjectDeleted,
    /// An object with the same name and another UID exists.
    #[error("the object was deleted and created again")]
    ObjectReplaced,
    /// The rule is missing or changed; the labels of its backends.
    #[error("the rule with the backends {0} was removed or changed")]
    RuleChanged(String),
    /// The weights as they are now.
    #[error("the weights have changed since this shift: {0}")]
    WeightsChanged(String),
    /// The record has a newer entry, or the entry is closed.
    #[error("another session took over")]
    AnotherSession,
}

/// [`LostControl`] without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum LostControlReason {
    /// The object was deleted.
    ObjectDeleted,
    /// The object was deleted and created again.
    ObjectReplaced,
    /// The rule was removed or changed.
    RuleChanged,
    /// Another client changed the weights.
    WeightsChanged,
    /// Another session took over.
    AnotherSession,
}

impl LostControl {
    pub fn reason(&self) -> LostControlReason {
        match self {
            Self::ObjectDeleted => LostControlReason::ObjectDeleted,
            Self::ObjectReplaced => LostControlReason::ObjectReplaced,
            Self::RuleChanged(_) => LostControlReason::RuleChanged,
            Self::WeightsChanged(_) => LostControlReason::WeightsChanged,
            Self::AnotherSession => LostControlReason::AnotherSession,
        }
    }
}

/// Why the record of an object cannot be read. Such a record is never overwritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A newer kubectl-grpcmesh wrote it.
    #[error("its version {0} is newer than {VERSION}, the newest that this kubectl-grpcmesh knows")]
    NewerVersion(u32),
    #[error("the annotation {RECORD_ANNOTATION} cannot be decoded: {0}")]
    Malformed(String),
}

impl ShiftRecord {
    /// Reads the record of an object; an object without the annotation has an empty one.
    ///
    /// # Errors
    /// When the annotation is not a record, or has a newer version.
    pub fn from_object(object: &Value) -> Result<Self, RecordError> {
        let annotation = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let Some(value) = annotation.and_then(|annotations| annotations.get(RECORD_ANNOTATION)) else {
            return Ok(Self { version: VERSION, entries: Vec::new() });
        };
        // A newer version may have other fields, so its number is read alone first.
        #[derive(Deserialize)]
        struct Header {
            version: u32,
        }
        let text = value.as_str().ok_or_else(|| RecordError::Malformed("it is not a string".to_owned()))?;
        let malformed = |error: serde_json::Error| RecordError::Malformed(error.to_string());
        let Header { version } = serde_json::from_str(text).map_err(malformed)?;
        if version > VERSION {
            return Err(RecordError::NewerVersion(version));
        }
        serde_json::from_str(text).map_err(malformed)
    }

    /// The newest entry, if it is open and belongs to a session.
    pub fn open_entry_of(&self, session: &str) -> Option<&ShiftEntry> {
        self.open_entry().filter(|entry| entry.session == session)
    }

    /// The same, for changes.
    pub fn open_entry_of_mut(&mut self, session: &str) -> Option<&mut ShiftEntry> {
        self.entries.first_mut().filter(|entry| entry.session == session && entry.state == ShiftState::Open)
    }

    /// Adds an entry as the newest and drops the oldest that exceed the bounds.
    pub fn push(&mut self, entry: ShiftEntry) {
        self.version = VERSION;
        self.entries.insert(0, entry);
        self.entries.truncate(MAX_ENTRIES);
        while self.entries.len() > 1 && self.to_json().len() > MAX_BYTES {
            self.entries.pop();
        }
    }

    /// The number of the next entry.
    pub fn next_number(&self) -> u64 {
        self.entries.first().map_or(1, |newest| newest.number + 1)
    }

    /// The value of the annotation.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The newest entry, if it is open.
    pub fn open_entry(&self) -> Option<&ShiftEntry> {
        self.entries.first().filter(|entry| entry.state == ShiftState::Open)
    }

    /// The newest entry, if it is open and the object still has its weights. An open shift whose weights another client
    /// changed does not count: its session stops when it notices.
    pub fn shift_in_progress(&self, kind: Kind, object: &Value) -> Option<&ShiftEntry> {
        let owns_weights = |open: &&ShiftEntry| open.rules.iter().all(|rule| rule.find_unchanged(kind, object).is_ok());
        self.open_entry().filter(owns_weights)
    }

    /// The newest entry, if its weights are applied: what `--undo` rolls back.
    pub fn applied_entry(&self) -> Option<&ShiftEntry> {
        self.entries.first().filter(|entry| entry.state != ShiftState::RolledBack)
    }
}

impl ShiftEntry {
    /// The weights from before the shift: `v1 90, v2 10`.
    pub fn start_weights(&self) -> String {
        self.describe_weights(|rule| &rule.start)
    }

    /// The weights of the last applied step.
    pub fn applied_weights(&self) -> String {
        self.describe_weights(|rule| &rule.applied)
    }

    fn describe_weights<'e>(&'e self, select: impl Fn(&'e RuleRecord) -> &'e [Option<u64>]) -> String {
        let rules = self.rules.iter().map(|rule| format_weights(&rule.backends, select(rule)));
        rules.collect::<Vec<_>>().join("; ")
    }
}

impl RuleRecord {
    /// The record of a plan, as if applied.
    pub fn new(plan: &RulePlan) -> Self {
        let mut after = plan.split.clone();
        after.backends = plan.backends.iter().map(|planned| planned.backend.clone()).collect();
        Self {
            rule: plan.split.rule,
            identity: after.identity(),
            backends: plan.backends.iter().map(|planned| planned.backend.label()).collect(),
            start: plan.split.backends.iter().map(|backend| backend.weight).collect(),
            applied: plan.backends.iter().map(super::patch::weight_to_write).collect(),
            previous: Vec::new(),
        }
    }

    /// The record after a further step.
    #[must_use]
    pub fn for_next_step(&self, plan: &RulePlan) -> Self {
        Self { start: self.start.clone(), previous: self.applied.clone(), ..Self::new(plan) }
    }

    /// The weights that a rollback restores.
    pub fn weights_at(&self, target: RollbackTarget) -> &[Option<u64>] {
        if target == RollbackTarget::Previous && !self.previous.is_empty() { &self.previous } else { &self.start }
    }

    /// The rule with the backends of `now` and the effective weights from before the shift; added backends have 0.
    pub fn split_at_start(&self, now: &RuleSplit) -> RuleSplit {
        let mut split = now.clone();
        split.backends.truncate(self.start.len());
        for (backend, weight) in split.backends.iter_mut().zip(&self.start) {
            backend.weight = *weight;
        }
        let effective = split.effective_weights();
        let mut all = now.clone();
        for (index, backend) in all.backends.iter_mut().enumerate() {
            backend.weight = Some(effective.get(index).copied().unwrap_or(0));
        }
        all
    }

    /// Labels of the backends whose share the shift raises, and the sum of their shares afterwards, 0 to 1.
    #[expect(clippy::indexing_slicing, reason = "the indexes are positions of the rule's own backends")]
    pub fn canary(&self, kind: Kind) -> (Vec<&str>, f64) {
        let (start, applied) = (effective_weights(kind, &self.start), effective_weights(kind, &self.applied));
        let share = |weights: &[u64], index: usize| {
            let total: u64 = weights.iter().sum();
            weights.get(index).copied().unwrap_or(0) as f64 / total.max(1) as f64
        };
        let is_rising = |index: &usize| share(&applied, *index) > share(&start, *index);
        let rising: Vec<usize> = (0..self.backends.len()).filter(is_rising).collect();
        let total_share = rising.iter().map(|index| share(&applied, *index)).sum();
        (rising.into_iter().map(|index| self.backends[index].as_str()).collect(), total_share)
    }

    /// Finds the rule in an object and verifies that it has the applied weights. Its index may have changed.
    ///
    /// # Errors
    /// When the rule is missing, or has other weights.
    pub fn find_unchanged(&self, kind: Kind, object: &Value) -> Result<RuleSplit, LostControl> {
        let splits = rule_splits(kind, object);
        let is_same = |split: &&RuleSplit| split.identity() == self.identity;
        let at_same_index = splits.iter().find(|split| split.rule == self.rule && is_same(split));
        let split = at_same_index
            .or_else(|| splits.iter().find(is_same))
            .ok_or_else(|| LostControl::RuleChanged(self.backends.join(", ")))?;
        let weights: Vec<Option<u64>> = split.backends.iter().map(|backend| backend.weight).collect();
        if weights != self.applied {
            return Err(LostControl::WeightsChanged(format_weights(&self.backends, &weights)));
        }
        Ok(split.clone())
    }
}

/// The client that last changed more than the status of an object, with the time, from the managed fields.
pub fn last_writer(object: &Value) -> String {
    let fields =
        object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |field: &Value, name: &str| field.get(name).and_then(Value::as_str).map(str::to_owned);
    let writes = fields.iter().filter(|field| text(field, "subresource").as_deref() != Some("status"));
    match writes.max_by_key(|field| text(field, "time")) {
        None => "another client".to_owned(),
        Some(last) => {
            let manager = text(last, "manager").unwrap_or_else(|| "another client".to_owned());
            format!("{manager} at {}", text(last, "time").unwrap_or_default())
        }
    }
}

/// `v1 75, v2 25`.
pub fn format_weights(backends: &[String], weights: &[Option<u64>]) -> String {
    let format = |(backend, weight): (&String, &Option<u64>)| match weight {
        Some(weight) => format!("{backend} {weight}"),
        None => backend.clone(),
    };
    backends.iter().zip(weights).map(format).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_several_rules_are_prefixed_with_their_rule() {
        let rule = |rule, stable, canary| RuleRecord {
            rule,
            identity: String::new(),
            backends: vec!["v1".into(), "v2".into()],
            start: vec![Some(100), None],
            applied: vec![Some(stable), Some(canary)],
            previous: Vec::new(),
        };
        let applied = |kind, rules: &[RuleRecord]| {
            let weights = weights_by_backend(kind, rules, |rule| &rule.applied);
            weights.into_iter().map(|(name, weight)| format!("{name}={weight}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(applied(Kind::VirtualService, &[rule(3, 75, 25)]), "v1=75 v2=25");
        let rules = [rule(0, 75, 25), rule(2, 50, 50)];
        assert_eq!(applied(Kind::VirtualService, &rules), "http[0] v1=75 http[0] v2=25 http[2] v1=50 http[2] v2=50");
        let before = weights_by_backend(Kind::HttpRoute, &rules[..1], |rule| rule.weights_at(RollbackTarget::Start));
        assert_eq!(before, BTreeMap::from([("v1".to_owned(), 100)]), "a backend without a weight has none again");
    }
}
