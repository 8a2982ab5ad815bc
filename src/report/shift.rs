//! Reports of `shift`: its events, and the history and status of an object.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::Ratio;
use crate::analysis::AnalysisSource;
use crate::analysis::verdict::AnalysisVerdict;
use crate::analysis::window::{CallCounts, Window};
use crate::shift::affected::CallerClassUsage;
use crate::shift::notice::{Notice, NoticeDetails, ProxyAckCounts, ShiftEventType};
use crate::shift::plan::RulePlan;
use crate::shift::record::{LostControlReason, RollbackTarget, ShiftEntry, ShiftState, StepVerdict};
use crate::vocabulary::share::format_percent;

/// An event of a shift; `-o json` prints one per line.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "ShiftEvent")]
pub struct ShiftEvent {
    /// Always `ShiftEvent`.
    pub kind: &'static str,
    /// Version of this format.
    pub version: u32,
    /// Identifier of the session.
    pub session: String,
    /// Number of the event in the session, from 1.
    pub seq: u32,
    /// RFC 3339.
    pub time: String,
    /// Type of the event.
    pub event: ShiftEventType,
    /// Step of the shift, from 1; 0 is the window before the first step.
    pub step: u32,
    /// Planned or applied weights by backend.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u64>,
    /// Acknowledgement by the affected proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxyAckCounts>,
    /// Counted calls of a `window` event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowReport>,
    /// Verdict of a `verdict` event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<AnalysisVerdict>,
    /// The weights that a `rolled-back` event restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_target: Option<RollbackTarget>,
    /// Reason of a `lost-control` event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_control: Option<LostControlReason>,
    /// The event in a sentence.
    pub message: String,
}

impl ShiftEvent {
    /// An event without details.
    pub fn new(event: ShiftEventType, message: impl Into<String>) -> Self {
        Self {
            kind: "ShiftEvent",
            version: 1,
            session: String::new(),
            seq: 1,
            time: String::new(),
            event,
            step: 1,
            weights: BTreeMap::new(),
            proxies: None,
            window: None,
            verdict: None,
            rollback_target: None,
            lost_control: None,
            message: message.into(),
        }
    }
}

impl From<Notice> for ShiftEvent {
    fn from(notice: Notice) -> Self {
        let Notice { event, step, message, details } = notice;
        let mut event = Self { step, ..Self::new(event, message) };
        match details {
            NoticeDetails::None => {}
            NoticeDetails::Weights(weights) => event.weights = weights,
            NoticeDetails::Proxies(proxies) => event.proxies = Some(proxies),
            NoticeDetails::Window { window, source, unread_callers } => {
                let report = WindowReport::new(&window, source);
                event.message = report.sentence();
                if let Some(first) = unread_callers.first() {
                    let unread = unread_callers.len();
                    event.message += &format!("; {unread} callers could not be read, such as {first}");
                }
                event.window = Some(report);
            }
            NoticeDetails::Verdict(verdict) => event.verdict = Some(verdict),
            NoticeDetails::RolledBack { target, weights } => {
                event.weights = weights;
                event.rollback_target = Some(target);
            }
            NoticeDetails::LostControl(reason) => event.lost_control = Some(reason),
        }
        event
    }
}

/// `v1 90% → 75%, v2 10% → 25%`, and the total of the weights if it changes.
#[expect(clippy::indexing_slicing, reason = "the indexes are positions of the rule's own backends")]
pub fn describe_change(plan: &RulePlan) -> String {
    let percent = |ratio: f64| format_percent(ratio * 100.0);
    let change = |index: usize| {
        let label = plan.backends[index].backend.label();
        let before = match plan.backends[index].before {
            Some(_) => percent(plan.share_before(index)),
            None => "new".to_owned(),
        };
        format!("{label} {before} → {}", percent(plan.share_after(index)))
    };
    let shares = (0..plan.backends.len()).map(change).collect::<Vec<_>>().join(", ");
    if plan.is_scaled() {
        format!("{shares} (total weight {} → {})", plan.total_before, plan.total_after)
    } else {
        shares
    }
}

/// `14 affected proxies: web (12), gateway istio-system/ingress (2); 3 not affected`.
pub fn describe_affected(classes: &[CallerClassUsage]) -> String {
    let count = |uses_rule: bool| {
        let classes = classes.iter().filter(|class| class.uses_rule == uses_rule);
        classes.map(|class| class.pods.len()).sum::<usize>()
    };
    let affected = classes.iter().filter(|class| class.uses_rule);
    let affected: Vec<String> = affected.map(|class| format!("{} ({})", class.name, class.pods.len())).collect();
    let affected = affected.join(", ");
    let mut message = match count(true) {
        1 => format!("1 affected proxy: {affected}"),
        proxies => format!("{proxies} affected proxies: {affected}"),
    };
    if count(false) > 0 {
        message += &format!("; {} not affected", count(false));
    }
    message
}

/// Calls counted in one window.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct WindowReport {
    /// Calls to the backends whose share rises.
    pub canary: CallCounts,
    /// Calls to the other backends of the rule.
    pub baseline: CallCounts,
    /// Calls that reached no endpoint (NR, NC, UH).
    #[serde(skip_serializing_if = "is_zero")]
    pub no_upstream: u64,
    /// The canary's part of the calls of affected proxies; absent without calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_share: Option<Ratio>,
    /// The canary's 99th percentile in milliseconds, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// The source of the counts.
    pub source: AnalysisSource,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl WindowReport {
    /// The report of a window.
    pub fn new(window: &Window, source: AnalysisSource) -> Self {
        Self {
            canary: window.canary,
            baseline: window.baseline,
            no_upstream: window.no_upstream,
            observed_share: window.observed_share().map(Ratio),
            p99_ms: window.p99_ms,
            source,
        }
    }

    /// The window in a sentence.
    pub fn sentence(&self) -> String {
        let cohort =
            |name: &str, counts: CallCounts| format!("{name} {} calls, {} failed", counts.calls, counts.errors);
        let share = self.observed_share.map(|share| format!("; canary share {}", format_percent(share.0 * 100.0)));
        let no_upstream =
            if self.no_upstream > 0 { format!("; {} reached no endpoint", self.no_upstream) } else { String::new() };
        let (canary, baseline) = (cohort("canary", self.canary), cohort("baseline", self.baseline));
        format!("{canary}; {baseline}{no_upstream}{}; source: {}", share.unwrap_or_default(), self.source.as_str())
    }
}

/// The planned weights by backend; with several rules the title of the rule comes first.
pub fn weights_after(plans: &[RulePlan]) -> BTreeMap<String, u64> {
    let has_several_rules = plans.len() > 1;
    let weights = plans.iter().flat_map(|plan| {
        plan.backends.iter().map(move |planned| {
            let label = planned.backend.label();
            let key = if has_several_rules { format!("{} {label}", plan.split.title()) } else { label };
            (key, planned.after)
        })
    });
    weights.collect()
}

/// The shifts of an object.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "ShiftHistory")]
pub struct ShiftHistoryReport {
    /// Always `ShiftHistory`.
    pub kind: &'static str,
    /// Version of this format.
    pub version: u32,
    /// `Kind namespace/name`.
    pub object: String,
    /// Shifts, newest first; the oldest are dropped.
    pub shifts: Vec<PastShiftReport>,
}

/// One shift.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PastShiftReport {
    /// Number among the shifts of the object, from 1.
    pub number: u64,
    /// Identifier of the session.
    pub session: String,
    /// User name, as the API server reports it.
    pub user: String,
    /// RFC 3339.
    pub started_at: String,
    /// Text of `--reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// State of the shift.
    pub state: ShiftState,
    /// Weights before the shift.
    pub from: String,
    /// Weights of its last step.
    pub to: String,
    /// Its steps; empty for a shift in one step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<String>,
    /// The step whose weights are applied, from 1.
    pub step: u32,
    /// Source of its canary analysis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisSource>,
    /// The last verdict of each step; step 0 is the window before the first step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<PastVerdictReport>,
    /// The session owns the shift until then, RFC 3339; afterwards another session may take over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// The outcome, in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The last verdict of a step.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PastVerdictReport {
    /// The step; 0 is the window before the first step.
    pub step: u32,
    /// The verdict.
    pub verdict: AnalysisVerdict,
    /// Calls to the canary.
    pub canary: CallCounts,
    /// Calls to the other backends.
    pub baseline: CallCounts,
    /// The reason, with numbers.
    pub reason: String,
}

impl From<&StepVerdict> for PastVerdictReport {
    fn from(verdict: &StepVerdict) -> Self {
        let StepVerdict { step, verdict, canary, baseline, reason } = verdict.clone();
        Self { step, verdict, canary, baseline, reason }
    }
}

/// The current weights and the last shift of an object.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "ShiftStatus")]
pub struct ShiftStatusReport {
    /// Always `ShiftStatus`.
    pub kind: &'static str,
    /// Version of this format.
    pub version: u32,
    /// `Kind namespace/name`.
    pub object: String,
    /// Current weights by rule and backend.
    pub weights: BTreeMap<String, BTreeMap<String, u64>>,
    /// Whether the weights are still those that the last shift applied; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unchanged: Option<bool>,
    /// The last shift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<PastShiftReport>,
}

impl From<&ShiftEntry> for PastShiftReport {
    fn from(entry: &ShiftEntry) -> Self {
        Self {
            number: entry.number,
            session: entry.session.clone(),
            user: entry.user.clone(),
            started_at: entry.started_at.clone(),
            reason: entry.reason.clone(),
            state: entry.state,
            from: entry.start_weights(),
            to: entry.applied_weights(),
            plan: entry.plan.clone(),
            step: entry.step,
            analysis: entry.analysis,
            verdicts: entry.verdicts.iter().map(PastVerdictReport::from).collect(),
            deadline: entry.deadline.clone(),
            message: entry.message.clone(),
        }
    }
}
