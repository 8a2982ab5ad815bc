//! `shift`: what happens, one event after the other.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::window::{CallCounts, Window};
use crate::shift::plan::RulePlan;
use crate::shift::record::{ShiftEntry, StepVerdict};
use crate::vocabulary::share::format_percent;

/// Something that happened.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(title = "ShiftEvent")]
pub struct ShiftEvent {
    /// Always `ShiftEvent`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// Identity of the run.
    pub session: String,
    /// Number of the event in the run, from 1.
    pub seq: u32,
    /// When, RFC 3339.
    pub time: String,
    /// `plan`, `preflight`, `written`, `acknowledged`, `window`, `verdict`, `rolled-back`, `held`, `lost-control` or
    /// `done`.
    pub event: &'static str,
    /// Step of the shift, from 1; 0 is the window before the first.
    pub step: u32,
    /// Weights by backend, as wished or written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u64>,
    /// How the proxies stand that obey.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxyAckCounts>,
    /// What callers counted, of `window`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowReport>,
    /// `good`, `bad`, `not-enough-calls` or `unknown`, of `verdict`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// In a sentence.
    pub message: String,
}

/// What callers counted between two moments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct WindowReport {
    /// Calls to the backends whose share rises.
    pub canary: CallCounts,
    /// Calls to the others of the rule.
    pub baseline: CallCounts,
    /// Calls that found no server at all.
    #[serde(skip_serializing_if = "is_zero")]
    pub nowhere: u64,
    /// The canary's part of the calls of those that obey, 0 to 1; absent without calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_share: Option<f64>,
    /// The canary's 99th percentile in milliseconds, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// `prometheus`, `counters` or `logs`.
    pub source: &'static str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl WindowReport {
    /// A window of a source.
    pub fn new(window: &Window, source: &'static str) -> Self {
        Self {
            canary: window.canary,
            baseline: window.baseline,
            nowhere: window.nowhere,
            observed_share: window.observed_share(),
            p99_ms: window.p99,
            source,
        }
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        let side = |name: &str, tally: CallCounts| format!("{name} {} calls, {} failed", tally.calls, tally.errors);
        let share = self.observed_share.map(|share| format!("; the canary got {}", format_percent(share * 100.0)));
        let nowhere = if self.nowhere > 0 { format!("; {} found no server", self.nowhere) } else { String::new() };
        let (canary, baseline) = (side("canary", self.canary), side("baseline", self.baseline));
        format!("{canary}; {baseline}{nowhere}{} ({})", share.unwrap_or_default(), self.source)
    }
}

/// How the proxies stand that obey.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProxyAckCounts {
    /// How many there are.
    pub total: usize,
    /// How many run the new weights.
    pub in_step: usize,
    /// Those that do not yet.
    pub late: Vec<String>,
    /// Those that refuse them, with Envoy's words.
    pub refused: Vec<String>,
    /// Those that could not be asked, with the reason.
    pub unreachable: Vec<String>,
}

/// Weights of plans by backend; of several rules the name of the rule goes before.
pub fn weights(plans: &[RulePlan]) -> BTreeMap<String, u64> {
    let several = plans.len() > 1;
    let named = plans.iter().flat_map(|plan| {
        plan.backends.iter().map(move |one| {
            let label = one.backend.label();
            (if several { format!("{} {label}", plan.split.title()) } else { label }, one.after)
        })
    });
    named.collect()
}

/// The shifts of an object, newest first.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "ShiftHistory")]
pub struct ShiftHistoryReport {
    /// Always `ShiftHistory`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// `Kind namespace/name`.
    pub object: String,
    /// Shifts, newest first; older ones are let go.
    pub shifts: Vec<PastShiftReport>,
}

/// One shift.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PastShiftReport {
    /// Number among those of the object.
    pub number: u64,
    /// Identity of the run.
    pub session: String,
    /// Who.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `open`, `done`, `held` or `rolled-back`.
    pub state: &'static str,
    /// Weights before, as written.
    pub from: String,
    /// Weights that it wrote, at its last step.
    pub to: String,
    /// Its steps; of a shift in one step there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// The step whose weights are written, from 1.
    pub step: u32,
    /// What was found at the steps; 0 is before the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<PastVerdictReport>,
    /// Until when the run that is at it may go on; later another may take over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// What was found.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What was found at a step.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PastVerdictReport {
    /// The step; 0 is before the first.
    pub step: u32,
    /// `good`, `bad`, `not-enough-calls` or `unknown`.
    pub verdict: String,
    /// Calls to the canary.
    pub canary: CallCounts,
    /// Calls to the others.
    pub baseline: CallCounts,
    /// In a sentence.
    pub why: String,
}

impl From<&StepVerdict> for PastVerdictReport {
    fn from(one: &StepVerdict) -> Self {
        let StepVerdict { step, verdict, canary, baseline, why } = one.clone();
        Self { step, verdict, canary, baseline, why }
    }
}

/// How the shift of an object stands.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "ShiftStatus")]
pub struct ShiftStatusReport {
    /// Always `ShiftStatus`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// `Kind namespace/name`.
    pub object: String,
    /// Weights as they are, by rule.
    pub weights: BTreeMap<String, BTreeMap<String, u64>>,
    /// Whether the weights are those that the last shift left; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_left: Option<bool>,
    /// The last shift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<PastShiftReport>,
}

impl From<&ShiftEntry> for PastShiftReport {
    fn from(entry: &ShiftEntry) -> Self {
        let show = |wrote: bool| {
            let of = entry
                .rules
                .iter()
                .map(|rule| crate::shift::record::show(&rule.backends, if wrote { &rule.wrote } else { &rule.start }));
            of.collect::<Vec<_>>().join("; ")
        };
        Self {
            number: entry.number,
            session: entry.session.clone(),
            by: entry.by.clone(),
            at: entry.at.clone(),
            reason: entry.reason.clone(),
            state: entry.state.as_str(),
            from: show(false),
            to: show(true),
            plan: entry.plan.clone(),
            step: entry.step,
            verdicts: entry.verdicts.iter().map(PastVerdictReport::from).collect(),
            until: entry.until.clone(),
            message: entry.message.clone(),
        }
    }
}
