//! The state machine of a shift: everything that a run of `shift` decides, as a function of what it observed.
//!
//! [`next`] takes the state and one [`Event`] and returns the new state and a list of [`Effect`]s. The program around it
//! carries the effects out: it reads and patches the object, queries proxies and metrics, asks the user, and waits. It
//! decides nothing. [`start`] returns the first state of a run.
//!
//! ## Operations, prompts and timers
//! At most one *operation* is in flight: a read, a patch, a check, or a query of proxies or metrics. Each operation ends
//! with exactly one event. A new operation replaces the one in flight, whose answer is then ignored; only a patch is
//! always awaited, because the API server may store it whether or not anybody waits. A prompt and several timers may be
//! pending at the same time. A signal can arrive at any moment.
//!
//! ## What a run rests on
//! A write is always computed from one object, and its patch tests everything that it rests on: UID, resource version,
//! the rule with its weights, and the record. When the patch conflicts or its answer is lost, the object is read and the
//! write is computed again ([`writing`] is the only such loop). Proxies, windows and the end of a shift are judged on an
//! object that was verified to hold this run's weights, and the record is closed on that very object.
//!
//! Files: [`starting`] is what happens before the first write of a job, [`writing`] is every write, [`waiting`] is a step
//! between its write and the next, [`ending`] is rollback, hold and loss of control. `explore` (tests) runs two such
//! machines, another client and an unreliable API server against each other in every order.

mod ending;
mod starting;
mod waiting;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::notice::{Notice, NoticeDetails, ProxyAckCounts, ShiftEventType};
use super::plan::{DesiredWeights, RulePlan};
use super::preflight::PreflightCheck;
use super::record::{LostControl, RollbackTarget, ShiftEntry};
use crate::analysis::AnalysisSource;
use crate::analysis::verdict::AnalysisLimits;
use crate::analysis::window::{CallCounts, Window};
use crate::schema::Kind;

/// The facts and settings of a run. They do not change while it runs.
#[derive(Debug, Clone)]
pub struct Run {
    pub kind: Kind,
    /// `VirtualService shop/checkout`.
    pub title: String,
    /// The object as an argument: `vs/checkout -n shop`.
    pub argument: String,
    /// Identifies this run in the record.
    pub session: String,
    /// The user as the API server reports it.
    pub user: String,
    pub job: RunJob,
    pub settings: Settings,
}

/// What a run is for.
#[derive(Debug, Clone)]
pub enum RunJob {
    /// Apply new weights.
    Shift(ShiftGoal),
    /// Restore the weights from before the last shift.
    Undo,
    /// Continue a shift whose process ended.
    Resume,
    /// Ask the session of the open shift to roll back.
    Abort,
}

/// The weights that a run applies.
#[derive(Debug, Clone)]
pub struct ShiftGoal {
    /// The weights of the first step, or of the only one.
    pub plans: Vec<RulePlan>,
    /// The desired weights of each step; empty for a shift in one step.
    pub steps: Vec<DesiredWeights>,
    /// Why, in the user's words.
    pub reason: Option<String>,
    /// Whether the run ends before the question: nothing is applied.
    pub is_dry_run: bool,
}

/// The settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    pub prompts: Prompts,
    /// Whether the run waits for proxies.
    pub acknowledges: bool,
    pub ack_timeout: Duration,
    pub on_failure: FailureAction,
    pub on_interrupt: FailureAction,
    pub rollback_to: RollbackTarget,
    /// Continue despite failed checks.
    pub force: bool,
    /// Continue although a controller manages the object.
    pub force_owner: bool,
    /// Take over a shift that another session may still run.
    pub takeover: bool,
    /// Length of a window, and of a step without analysis.
    pub interval: Duration,
    /// Canary analysis; absent without it.
    pub analysis: Option<AnalysisSettings>,
    /// Whether the user chose a source of the analysis, or none on purpose.
    pub chose_analysis: bool,
    /// How long this run may take for one step; afterwards another run may take over.
    pub max_step_duration: Duration,
}

/// Whether questions can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompts {
    /// On a terminal.
    Ask,
    /// `--yes`: every question has the answer that continues.
    AssumeYes,
    /// Without a terminal, and for JSON: a question is an error.
    Unavailable,
}

/// The action on the new weights when a shift cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureAction {
    /// Restore the weights from before.
    Rollback,
    /// Keep the new weights.
    Hold,
}

/// The settings of a canary analysis.
#[derive(Debug, Clone)]
pub struct AnalysisSettings {
    pub source: AnalysisSource,
    /// Whether access logs may replace a source that cannot be read.
    pub may_fall_back: bool,
    pub limits: AnalysisLimits,
    /// Consecutive bad windows that roll the shift back.
    pub bad_windows: u32,
    /// How long a step waits for a good or bad verdict.
    pub max_wait: Duration,
    /// How long the last step is analyzed after its first good verdict.
    pub watch: Duration,
    pub on_stall: FailureAction,
}

/// An observation.
#[derive(Debug, Clone)]
pub enum Event {
    /// The answer to [`Effect::Read`].
    Read(ReadResult),
    /// The answer to [`Effect::Patch`].
    Patched(PatchResult),
    /// The answer to [`Effect::Check`].
    Checked(CheckResult),
    /// The answer to [`Effect::QueryProxies`]; the error is a sentence.
    Proxies(Result<ProxyAckCounts, String>),
    /// The answer to [`Effect::CheckBackends`].
    /// Absent if they could not be checked.
    Backends(Option<BackendStates>),
    /// The answer to [`Effect::CheckRollback`]: why a rollback would send calls to pods that do not exist.
    RollbackChecked(Option<String>),
    /// The answer to [`Effect::StartWindow`]; the error is a sentence about the source.
    WindowStarted(Result<(), String>),
    /// The answer to [`Effect::SwitchToLogs`].
    SwitchedToLogs(bool),
    /// The answer to [`Effect::CountWindow`].
    Window(WindowResult),
    /// The answer to [`Effect::Ask`].
    Answer(Answer),
    Timer(Timer),
    /// The process was asked to end, by Ctrl-C, SIGTERM or SIGHUP.
    Signal,
}

/// A read of the object.
#[derive(Debug, Clone)]
pub enum ReadResult {
    Object(Arc<Value>),
    NotFound,
    /// The API server did not answer, or failed: nothing is known about the object.
    Failed {
        message: String,
    },
}

/// The answer to a patch.
#[derive(Debug, Clone)]
pub enum PatchResult {
    /// The object as it is stored now.
    Applied(Arc<Value>),
    /// A test failed: another client changed the object.
    Conflict,
    NotFound,
    /// The API server or a webhook rejects the patch, with the reason.
    Rejected(String),
    /// The user may not patch the object, with the reason.
    Forbidden(String),
    /// The server is too busy and did not process the patch; how long to wait, if it says so.
    Busy {
        reason: String,
        retry_after: Option<Duration>,
    },
    /// No answer arrived, with the reason: the patch is applied, or not, or will be.
    AnswerLost(String),
}

/// The result of the preflight checks on one patch.
#[derive(Debug, Clone)]
pub enum CheckResult {
    /// The API server accepts the patch; the failed checks, worst first, and the hosts whose calls the rules route.
    Accepted {
        checks: Vec<PreflightCheck>,
        hosts: Vec<String>,
    },
    /// The object changed since it was read.
    Conflict,
    Rejected(String),
    Forbidden(String),
    /// The checks could not run.
    Failed {
        message: String,
        hint: Option<String>,
    },
}

/// Why callers cannot reach the backends of the rules, if they cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendStates {
    /// A backend whose share rises.
    pub unreachable_canary: Option<String>,
    /// One of the others.
    pub unreachable_baseline: Option<String>,
}

/// Calls counted since the start of a window.
#[derive(Debug, Clone)]
pub struct WindowResult {
    /// The window, or a sentence about the source.
    pub window: Result<Window, String>,
    pub source: AnalysisSource,
    /// Callers that could not be read, with the reason.
    pub unread_callers: Vec<String>,
    /// Whether other rules send calls to the same backends, so that the split says nothing about the weights.
    pub has_shared_backends: bool,
}

/// The answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Apply, or continue with the next step.
    Yes,
    /// Do not apply, or hold.
    No,
    RollBack,
    /// The user cancelled the prompt with Ctrl-C.
    Interrupt,
    /// The prompt cannot be shown, with the reason.
    Failed,
}

/// A timer; at most one of each runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// Pause before a write is tried again.
    Retry,
    /// How long a write waits for an API server that does not answer.
    Unreachable,
    /// How long proxies may take to follow.
    Ack,
    /// Pause between queries of the proxies.
    Poll,
    /// Interval between reads of the object.
    Monitor,
    /// Interval between checks of the backends.
    Backends,
    /// End of a window, or of a step without analysis.
    Window,
    /// End of the wait for a good or bad verdict.
    MaxWait,
    /// End of `--watch`.
    Watch,
    /// End of the wait for a session that was asked to roll back.
    Abort,
}

/// Something for the program around the machine to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Operation: get the object.
    Read,
    /// Operation: apply a patch.
    Patch(Vec<Value>),
    /// Operation: a dry run of a patch of this object, and the preflight checks on its result.
    Check {
        object: Arc<Value>,
        operations: Vec<Value>,
        plans: Vec<RulePlan>,
    },
    /// Operation: ask the proxies that use the rules of this object whether they run its weights. It ends with what is
    /// known when [`Timer::Ack`] ends.
    QueryProxies {
        object: Arc<Value>,
        rules: Vec<usize>,
    },
    /// Operation: check whether callers reach the backends of the rules of this object.
    CheckBackends {
        object: Arc<Value>,
        entry: Box<ShiftEntry>,
    },
    /// Operation: check whether callers would reach the backends of the rules after a rollback. A check that takes longer
    /// than `limit` finds nothing.
    CheckRollback {
        object: Arc<Value>,
        entry: Box<ShiftEntry>,
        /// Indexes of the entry's rules in the object.
        rules: Vec<usize>,
        target: RollbackTarget,
        limit: Duration,
    },
    /// Operation: take the first reading of a window.
    StartWindow,
    /// Operation: count the calls since the first reading.
    CountWindow,
    /// Operation: read access logs from now on, in place of counters.
    SwitchToLogs,
    /// Show the plan: weights, changed lines, affected proxies and failed checks, as the last check found them.
    ShowPlan,
    /// Show the failed checks of the last check.
    ShowChecks,
    /// Ask the user.
    Ask(Question),
    /// Take the question back.
    CancelPrompt,
    /// Start a timer, or start it again.
    StartTimer(Timer, Duration),
    /// Stop all timers.
    StopTimers,
    Emit(Notice),
    Warn(String),
    /// From now on a closed stdout does not end the run.
    Applied,
    /// End the run. Nothing follows.
    Finish(Ending),
}

/// A question to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether to apply the weights.
    Apply,
    /// What to do after a step, and the next one.
    NextStep { step: u32, of: usize, next: String },
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Everything is as asked for.
    Clean,
    /// Rolled back.
    Found,
    /// Unfinished, or not confirmed by all proxies.
    Partial,
    /// It cannot continue.
    Failed(FailureReport),
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureReport {
    pub kind: FailureType,
    pub message: String,
    pub causes: Vec<String>,
    pub hints: Vec<String>,
}

/// The type of a failure, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureType {
    Usage,
    Unavailable,
    Interrupted,
}

impl FailureReport {
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: FailureType::Unavailable, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self { kind: FailureType::Usage, ..Self::unavailable(message) }
    }

    fn interrupted() -> Self {
        Self { kind: FailureType::Interrupted, ..Self::unavailable("interrupted") }
    }

    #[must_use]
    fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    #[must_use]
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    phase: Phase,
    /// The operation in flight.
    operation: Option<Operation>,
    /// The object as it was last read or written.
    object: Arc<Value>,
    /// The entry of the record that this run writes, or undoes. Present from the first write.
    entry: Option<Box<ShiftEntry>>,
    /// Signals received; more than two count as two.
    signals: u8,
    /// The object whose weights the proxies acknowledged last.
    acknowledged: Option<Arc<Value>>,
    /// Whether the weights of this run are applied.
    is_applied: bool,
    /// Whether a failed read was reported since the last successful one.
    reported_unreachable: bool,
    /// Whether some proxies or callers could not be read.
    is_partial: bool,
    /// Calls to all backends before the shift.
    before_shift: CallCounts,
    /// The verdict of the window before the shift, which the record gets with the first write.
    baseline_verdict: Option<super::record::StepVerdict>,
    /// Hosts whose calls the rules route, as the last check found them.
    hosts: Vec<String>,
    /// Why callers cannot reach the baseline.
    unreachable_baseline: Option<String>,
}

/// What a run is doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Preflight checks before the question.
    Checking,
    /// The question whether to apply.
    Confirming,
    /// Counting calls before the first write.
    CountingBaseline(waiting::Counting),
    Writing(writing::Write),
    /// Waiting until the proxies run the applied weights.
    Acknowledging(waiting::Acknowledging),
    /// Counting and judging windows of a step.
    Analyzing(waiting::Analyzing),
    /// A step without analysis takes one interval.
    Pausing(waiting::Monitor),
    /// The question what to do after a step.
    AskingNextStep(waiting::Monitor),
    /// Whether the pods that a rollback sends calls to exist.
    CheckingRollback(ending::Rollback),
    /// Waiting until the proxies run the restored weights.
    AcknowledgingRollback(waiting::RollbackAck),
    /// Waiting for another session to roll back.
    AwaitingAbort(starting::AbortWait),
    Finished,
}

/// The kind of an operation in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Read,
    Patch,
    Check,
    Proxies,
    Backends,
    RollbackCheck,
    WindowStart,
    SwitchToLogs,
    Window,
}

impl State {
    /// The name of the phase, as in `docs/how-shift-works.md`.
    pub fn name(&self) -> &'static str {
        match &self.phase {
            Phase::Checking => "Checking",
            Phase::Confirming => "Confirming",
            Phase::CountingBaseline(_) => "CountingBaseline",
            Phase::Writing(write) => write.name(),
            Phase::Acknowledging(_) => "Acknowledging",
            Phase::Analyzing(_) => "Analyzing",
            Phase::Pausing(_) => "Pausing",
            Phase::AskingNextStep(_) => "AskingNextStep",
            Phase::CheckingRollback(_) => "CheckingRollback",
            Phase::AcknowledgingRollback(_) => "AcknowledgingRollback",
            Phase::AwaitingAbort(_) => "AwaitingAbort",
            Phase::Finished => "Finished",
        }
    }
}

/// Starts a run on an object that was just read. `now` is the wall-clock time.
pub fn start(run: &Run, object: Arc<Value>, now: Timestamp) -> (State, Vec<Effect>) {
    let state = State {
        phase: Phase::Checking,
        operation: None,
        object,
        entry: None,
        signals: 0,
        acknowledged: None,
        is_applied: false,
        reported_unreachable: false,
        is_partial: false,
        before_shift: CallCounts::default(),
        baseline_verdict: None,
        hosts: Vec::new(),
        unreachable_baseline: None,
    };
    let mut step = Step { run, state, now, effects: Vec::new() };
    step.begin();
    (step.state, step.effects)
}

/// Advances a run by one event. `now` is the wall-clock time of the event.
pub fn next(run: &Run, state: State, event: Event, now: Timestamp) -> (State, Vec<Effect>) {
    let mut step = Step { run, state, now, effects: Vec::new() };
    step.handle(event);
    (step.state, step.effects)
}

/// One transition in the making.
struct Step<'r> {
    run: &'r Run,
    state: State,
    now: Timestamp,
    effects: Vec<Effect>,
}

impl Step<'_> {
    fn handle(&mut self, event: Event) {
        if self.state.phase == Phase::Finished {
            return;
        }
        if let Some(operation) = answered_operation(&event) {
            if self.state.operation != Some(operation) {
                return;
            }
            self.state.operation = None;
        }
        if matches!(event, Event::Signal | Event::Answer(Answer::Interrupt)) {
            return self.interrupted();
        }
        if let Event::Read(ReadResult::Object(_) | ReadResult::NotFound) = &event {
            self.state.reported_unreachable = false;
        }
        match std::mem::replace(&mut self.state.phase, Phase::Finished) {
            Phase::Checking => self.checking(event),
            Phase::Confirming => self.confirming(&event),
            Phase::CountingBaseline(counting) => self.counting_baseline(counting, event),
            Phase::Writing(write) => self.writing(write, event),
            Phase::Acknowledging(ack) => self.acknowledging(ack, event),
            Phase::Analyzing(analyzing) => self.analyzing(analyzing, event),
            Phase::Pausing(monitor) => self.pausing(monitor, event),
            Phase::AskingNextStep(monitor) => self.asking_next_step(monitor, event),
            Phase::CheckingRollback(rollback) => self.checking_rollback(rollback, event),
            Phase::AcknowledgingRollback(ack) => self.acknowledging_rollback(ack, event),
            Phase::AwaitingAbort(wait) => self.awaiting_abort(wait, event),
            Phase::Finished => {}
        }
    }

    /// Starts an operation. It replaces the one in flight, unless that is a patch, which must be awaited.
    fn operate(&mut self, effect: Effect) {
        debug_assert!(self.state.operation != Some(Operation::Patch), "a patch is in flight");
        self.state.operation = match &effect {
            Effect::Read => Some(Operation::Read),
            Effect::Patch(_) => Some(Operation::Patch),
            Effect::Check { .. } => Some(Operation::Check),
            Effect::QueryProxies { .. } => Some(Operation::Proxies),
            Effect::CheckBackends { .. } => Some(Operation::Backends),
            Effect::CheckRollback { .. } => Some(Operation::RollbackCheck),
            Effect::StartWindow => Some(Operation::WindowStart),
            Effect::SwitchToLogs => Some(Operation::SwitchToLogs),
            Effect::CountWindow => Some(Operation::Window),
            _ => self.state.operation,
        };
        self.effects.push(effect);
    }

    /// Enters a phase. Timers belong to phases, so those of the phase before stop.
    fn enter(&mut self, phase: Phase) {
        self.effects.push(Effect::StopTimers);
        self.state.phase = phase;
    }

    fn start_timer(&mut self, timer: Timer, duration: Duration) {
        self.effects.push(Effect::StartTimer(timer, duration));
    }

    fn emit(&mut self, event: ShiftEventType, message: impl Into<String>, details: NoticeDetails) {
        let message = message.into();
        self.effects.push(Effect::Emit(Notice { event, step: self.step_number(), message, details }));
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.effects.push(Effect::Warn(text.into()));
    }

    fn finish(&mut self, ending: Ending) {
        self.enter(Phase::Finished);
        self.state.operation = None;
        self.effects.push(Effect::Finish(ending));
    }

    fn fail(&mut self, failure: FailureReport) {
        self.finish(Ending::Failed(failure));
    }

    /// The step of events, from 1; 0 is the window before the first step.
    fn step_number(&self) -> u32 {
        match (&self.state.phase, &self.state.entry) {
            (Phase::CountingBaseline(_), _) => 0,
            (_, Some(entry)) => entry.step,
            (_, None) => 1,
        }
    }

    /// The entry of this run. It exists from the first write.
    fn entry(&self) -> ShiftEntry {
        self.state.entry.as_deref().cloned().unwrap_or_else(|| self.new_entry())
    }

    /// Reports a read that failed, once for each outage.
    fn report_failed_read(&mut self, message: String) {
        if !std::mem::replace(&mut self.state.reported_unreachable, true) {
            self.warn(message);
        }
    }

    /// The command that undoes the shift.
    fn undo_hint(&self) -> String {
        format!("to undo: kubectl grpcmesh shift {} --undo", self.run.argument)
    }

    /// Whether a deleted or recreated object answers in place of the one that this run is about.
    fn identity_loss(&self, object: &Value) -> Option<LostControl> {
        let uid = |object: &Value| object.pointer("/metadata/uid").cloned();
        (uid(object) != uid(&self.state.object)).then_some(LostControl::ObjectReplaced)
    }
}

/// The operation that an event answers.
fn answered_operation(event: &Event) -> Option<Operation> {
    Some(match event {
        Event::Read(_) => Operation::Read,
        Event::Patched(_) => Operation::Patch,
        Event::Checked(_) => Operation::Check,
        Event::Proxies(_) => Operation::Proxies,
        Event::Backends(_) => Operation::Backends,
        Event::RollbackChecked(_) => Operation::RollbackCheck,
        Event::WindowStarted(_) => Operation::WindowStart,
        Event::SwitchedToLogs(_) => Operation::SwitchToLogs,
        Event::Window(_) => Operation::Window,
        Event::Answer(_) | Event::Timer(_) | Event::Signal => return None,
    })
}

#[cfg(test)]
mod explore;
