//! `shift`: what happens, one event after the other.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::shift::plan::RulePlan;
use crate::shift::record::Entry;

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
    /// `plan`, `preflight`, `written`, `acknowledged`, `rolled-back`, `held`, `lost-control` or `done`.
    pub event: &'static str,
    /// Step of the shift, from 1.
    pub step: u32,
    /// Weights by backend, as wished or written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u64>,
    /// How the proxies stand that obey.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxyCounts>,
    /// In a sentence.
    pub message: String,
}

/// How the proxies stand that obey.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProxyCounts {
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
pub struct ShiftHistory {
    /// Always `ShiftHistory`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// `Kind namespace/name`.
    pub object: String,
    /// Shifts, newest first; older ones are let go.
    pub shifts: Vec<PastShift>,
}

/// One shift.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PastShift {
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
    /// Weights that it wrote.
    pub to: String,
    /// What was found.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl From<&Entry> for PastShift {
    fn from(entry: &Entry) -> Self {
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
            state: entry.state.word(),
            from: show(false),
            to: show(true),
            message: entry.message.clone(),
        }
    }
}
