//! What a scenario consists of: the settings of its runs, its disturbances, and preconditions that are left out.

use std::time::Duration;

use serde_json::Value;

use super::super::{AnalysisSettings, FailureAction, Prompts, Run, RunJob, Settings, ShiftGoal};
use super::world::{KIND, the_rule};
use crate::analysis::AnalysisSource;
use crate::analysis::verdict::AnalysisLimits;
use crate::shift::patch::record_pointer;
use crate::shift::plan::{AddableBackends, DesiredWeights, plan_rule};
use crate::shift::record::RollbackTarget;

/// How long a run may take for a step.
const STEP_LIMIT: Duration = Duration::from_mins(10);

/// Settings of one run of a scenario.
#[derive(Debug, Clone)]
pub(super) struct RunSpec {
    pub(super) job: TestedJob,
    pub(super) analysis: bool,
    pub(super) watch: bool,
    pub(super) acknowledges: bool,
    pub(super) asks: bool,
    pub(super) takeover: bool,
    pub(super) force: bool,
    pub(super) on_failure: FailureAction,
    pub(super) on_interrupt: FailureAction,
    pub(super) rollback_to: RollbackTarget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TestedJob {
    /// The desired weights of each step; one value is a shift in one step.
    Shift(&'static [&'static str]),
    Undo,
    Resume,
    Abort,
}

impl RunSpec {
    pub(super) fn new(job: TestedJob) -> Self {
        Self {
            job,
            analysis: false,
            watch: false,
            acknowledges: true,
            asks: false,
            takeover: false,
            force: false,
            on_failure: FailureAction::Rollback,
            on_interrupt: FailureAction::Rollback,
            rollback_to: RollbackTarget::Start,
        }
    }

    /// The run as the driver sets it up for an object; `None` if the object does not have the rule.
    pub(super) fn run(&self, session: &'static str, object: &Value) -> Option<Run> {
        let job = match self.job {
            TestedJob::Shift(steps) => {
                let steps: Vec<DesiredWeights> = steps.iter().map(|step| step.parse().unwrap()).collect();
                let plan = plan_rule(&the_rule(object)?, &steps[0], &AddableBackends::default()).unwrap();
                let steps = if steps.len() > 1 { steps } else { Vec::new() };
                RunJob::Shift(ShiftGoal { plans: vec![plan], steps, reason: None, is_dry_run: false })
            }
            TestedJob::Undo => RunJob::Undo,
            TestedJob::Resume => RunJob::Resume,
            TestedJob::Abort => RunJob::Abort,
        };
        let limits = AnalysisLimits { min_requests: 10, max_error_ratio: 0.1, max_p99_ms: None, split_tolerance: None };
        let analysis = AnalysisSettings {
            source: AnalysisSource::Envoy,
            may_fall_back: true,
            limits,
            bad_windows: 2,
            max_wait: Duration::from_mins(2),
            watch: if self.watch { Duration::from_mins(2) } else { Duration::ZERO },
            on_stall: FailureAction::Hold,
        };
        let settings = Settings {
            prompts: if self.asks { Prompts::Ask } else { Prompts::AssumeYes },
            acknowledges: self.acknowledges,
            ack_timeout: Duration::from_mins(1),
            on_failure: self.on_failure,
            on_interrupt: self.on_interrupt,
            rollback_to: self.rollback_to,
            force: self.force,
            force_owner: false,
            takeover: self.takeover,
            interval: Duration::from_secs(30),
            analysis: self.analysis.then_some(analysis),
            chose_analysis: true,
            max_step_duration: STEP_LIMIT,
        };
        Some(Run {
            kind: KIND,
            title: "VirtualService shop/checkout".to_owned(),
            argument: "vs/checkout -n shop".to_owned(),
            session: session.to_owned(),
            user: session.to_owned(),
            job,
            settings,
        })
    }
}

/// How often each kind of disturbance may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Answers of the API server or of proxies other than the plain one.
    pub(super) faults: u8,
    /// Writes of another client.
    pub(super) foreign: u8,
    pub(super) crashes: u8,
    /// Signals of all runs together.
    pub(super) signals: u8,
    /// Jumps of the clock past deadlines.
    pub(super) jumps: u8,
    /// Backends that lose their pods.
    pub(super) pods: u8,
}

/// What is explored.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) a: RunSpec,
    pub(super) b: Option<RunSpec>,
    pub(super) budget: Budget,
    pub(super) foreign: &'static [ForeignWrite],
    /// Periodic timers end only while no operation is in flight. This leaves out orders of events that differ in which
    /// of two reads comes first.
    pub(super) quiet_timers: bool,
    /// Longest sequence of actions.
    pub(super) depth: usize,
}

/// Preconditions that the API server ignores, as if the patch did not have them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mutation {
    pub(super) uid: bool,
    pub(super) version: bool,
    pub(super) record: bool,
    pub(super) rule: bool,
    pub(super) backends: bool,
}

impl Mutation {
    /// The patch without the tests of this mutation.
    pub(super) fn apply(self, operations: &[Value]) -> Vec<Value> {
        let is_kept = |operation: &&Value| {
            let path = operation["path"].as_str().unwrap_or_default();
            let is_dropped = match path {
                "/metadata/uid" => self.uid,
                "/metadata/resourceVersion" => self.version,
                _ if path == record_pointer() => self.record,
                _ if path.ends_with("/name") || path.ends_with("/match") => self.rule,
                _ if path.ends_with("/route") => self.backends,
                _ => false,
            };
            operation["op"] != "test" || !is_dropped
        };
        operations.iter().filter(is_kept).cloned().collect()
    }
}

/// A write of another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ForeignWrite {
    ChangeWeights,
    /// A controller reports a condition.
    TouchStatus,
    TouchLabels,
    /// A rule with the same backends and other conditions comes first.
    InsertRule,
    Delete,
    /// Deletes the object and creates it as it was at the beginning.
    Recreate,
    /// Deletes the object and creates it with the same content, as a restored backup does.
    Restore,
}
