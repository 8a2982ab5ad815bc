//! A step between its write and the next: proxies acknowledge the weights, windows of calls are counted and judged, and
//! the object and the backends are monitored meanwhile.

use std::time::Duration;

use super::super::notice::{NoticeDetails, ProxyAckCounts, ShiftEventType};
use super::super::record::{LostControl, RuleRecord, ShiftRecord, StepVerdict};
use super::ending::{Cause, HoldEnding};
use super::writing::{Close, Intent, Owned, WriteFrom, verify};
use super::{
    AnalysisSettings, Answer, BackendStates, Effect, Event, FailureAction, Phase, Prompts, Question, ReadResult, Step,
    Timer, WindowResult,
};
use crate::analysis::AnalysisSource;
use crate::analysis::step_policy::{NextAction, StepPolicy};
use crate::analysis::verdict::{AnalysisLimits, AnalysisResult, AnalysisVerdict, judge};
use crate::analysis::window::Window;

/// Pause between queries of the proxies.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between reads of the object while proxies are asked, which takes seconds.
pub(super) const ACK_MONITOR_INTERVAL: Duration = Duration::from_secs(5);
/// Interval between reads of the object during a step. Six reads and three checks of the backends a minute, of two
/// requests each, are 12 requests a minute, which leaves some for the calls.
const MONITOR_INTERVAL: Duration = Duration::from_secs(10);
/// Interval between checks of the backends.
const BACKENDS_INTERVAL: Duration = Duration::from_secs(20);

/// What is due while a step waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Monitor {
    pub(super) read_due: bool,
    pub(super) backends_due: bool,
    pub(super) poll_due: bool,
}

impl Monitor {
    pub(super) fn take_read(&mut self) -> bool {
        std::mem::take(&mut self.read_due)
    }

    pub(super) fn take_poll(&mut self) -> bool {
        std::mem::take(&mut self.poll_due)
    }
}

/// Counting calls before the first write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Counting {
    /// Why the first source could not be read.
    pub(super) start_error: Option<String>,
    /// Whether the wait for a first call is over.
    pub(super) is_overdue: bool,
}

/// Waiting until the proxies run the applied weights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Acknowledging {
    monitor: Monitor,
    /// Whether the time for the proxies is over.
    is_over: bool,
    /// Whether the last query, which starts when the time is over, is in flight or answered.
    is_last_query: bool,
    /// The last answer.
    last: ProxyAckCounts,
}

/// Waiting until the proxies run the restored weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RollbackAck {
    pub(super) cause: Cause,
    /// The rules as restored.
    pub(super) rules: Vec<RuleRecord>,
    pub(super) monitor: Monitor,
    pub(super) is_over: bool,
    pub(super) last: ProxyAckCounts,
}

/// Counting and judging windows of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Analyzing {
    monitor: Monitor,
    policy: StepPolicy,
    counting: Counting,
    window: WindowState,
    /// Whether `--watch` is over.
    watch_over: bool,
}

/// Where the current window is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum WindowState {
    /// Its first reading is due.
    Start,
    /// Its calls are counted until the timer ends.
    Open,
    /// Its first reading failed; the window counts as failed when the timer ends.
    Failed(String),
    /// Its calls are to be counted.
    Count,
}

impl Step<'_> {
    /// Waits for the proxies after a step was applied.
    pub(super) fn acknowledge(&mut self) {
        self.enter(Phase::Acknowledging(Acknowledging::default()));
        self.start_timer(Timer::Ack, self.run.settings.ack_timeout);
        self.start_monitor(ACK_MONITOR_INTERVAL);
        self.query_proxies();
    }

    pub(super) fn start_monitor(&mut self, interval: Duration) {
        self.start_timer(Timer::Monitor, interval);
        self.start_timer(Timer::Backends, BACKENDS_INTERVAL);
    }

    fn query_proxies(&mut self) {
        match self.verify_object() {
            Ok(owned) => {
                let (object, rules) = (self.state.object.clone(), owned.rules.iter().map(|split| split.rule).collect());
                self.operate(Effect::QueryProxies { object, rules });
            }
            Err(lost) => self.lost_control(&lost),
        }
    }

    /// Verifies that the object at hand has the weights and the open entry of this run.
    fn verify_object(&self) -> Result<Owned, LostControl> {
        // A record that cannot be decoded is not this run's.
        let record = ShiftRecord::from_object(&self.state.object).map_err(|_| LostControl::AnotherSession)?;
        verify(self.run.kind, &self.state.object, &record, &self.entry())
    }

    /// Handles what every wait of a step has in common. Returns whether the wait goes on.
    fn monitor(&mut self, monitor: &mut Monitor, event: &Event, interval: Duration) -> bool {
        match event {
            Event::Timer(Timer::Monitor) => monitor.read_due = true,
            Event::Timer(Timer::Backends) => monitor.backends_due = true,
            Event::Timer(Timer::Poll) => monitor.poll_due = true,
            Event::Read(ReadResult::Object(object)) => {
                if let Some(lost) = self.identity_loss(object) {
                    self.lost_control(&lost);
                    return false;
                }
                self.state.object = object.clone();
                self.start_timer(Timer::Monitor, interval);
                return self.continue_with_object();
            }
            Event::Read(ReadResult::NotFound) => {
                self.lost_control(&LostControl::ObjectDeleted);
                return false;
            }
            // A short outage of the API server ends nothing.
            Event::Read(ReadResult::Failed { message }) => {
                self.report_failed_read(message.clone());
                self.start_timer(Timer::Monitor, interval);
            }
            Event::Backends(states) => {
                self.start_timer(Timer::Backends, BACKENDS_INTERVAL);
                return self.continue_with_backends(states.as_ref());
            }
            _ => {}
        }
        true
    }

    /// Ends the wait if the object is no longer this run's, or a user asked for the rollback.
    fn continue_with_object(&mut self) -> bool {
        match self.verify_object() {
            Ok(Owned { abort_requested_by: Some(user), .. }) => {
                self.effects.push(Effect::CancelPrompt);
                self.roll_back(Cause::Abort, format!("aborted by {user}"));
                false
            }
            Ok(_) => true,
            Err(lost) => {
                self.effects.push(Effect::CancelPrompt);
                self.lost_control(&lost);
                false
            }
        }
    }

    /// Ends the wait if callers cannot reach the canary.
    fn continue_with_backends(&mut self, states: Option<&BackendStates>) -> bool {
        let Some(BackendStates { unreachable_canary, unreachable_baseline }) = states else { return true };
        self.state.unreachable_baseline.clone_from(unreachable_baseline);
        let Some(message) = unreachable_canary.clone().filter(|_| !self.run.settings.force) else { return true };
        self.emit(ShiftEventType::Verdict, message.clone(), NoticeDetails::Verdict(AnalysisVerdict::Bad));
        self.effects.push(Effect::CancelPrompt);
        self.roll_back(Cause::Verdict, message);
        false
    }

    /// Starts the check that is due, if any. Returns whether one was started.
    fn start_due_check(&mut self, monitor: &mut Monitor) -> bool {
        if monitor.take_read() {
            self.operate(Effect::Read);
        } else if std::mem::take(&mut monitor.backends_due) {
            let (object, entry) = (self.state.object.clone(), Box::new(self.entry()));
            self.operate(Effect::CheckBackends { object, entry });
        } else {
            return false;
        }
        true
    }

    pub(super) fn acknowledging(&mut self, mut ack: Acknowledging, event: Event) {
        if !self.monitor(&mut ack.monitor, &event, ACK_MONITOR_INTERVAL) {
            return;
        }
        match event {
            Event::Proxies(Ok(counts)) => {
                ack.last = counts;
                if !self.judge_proxies(&ack.last, ack.is_last_query) {
                    return;
                }
                self.start_timer(Timer::Poll, POLL_INTERVAL);
            }
            Event::Proxies(Err(message)) => {
                self.report_failed_read(message);
                self.start_timer(Timer::Poll, POLL_INTERVAL);
            }
            Event::Timer(Timer::Ack) => ack.is_over = true,
            // The next query is about the object just read.
            Event::Read(_) => ack.monitor.poll_due = true,
            _ => {}
        }
        if self.state.operation.is_none() {
            if ack.is_over && ack.is_last_query {
                return self.not_acknowledged(&ack.last);
            }
            // The last answer may be from well before the end of the time.
            if ack.is_over {
                ack.is_last_query = true;
                self.state.phase = Phase::Acknowledging(ack);
                return self.query_proxies();
            }
            if !self.start_due_check(&mut ack.monitor) && ack.monitor.take_poll() {
                self.state.phase = Phase::Acknowledging(ack);
                return self.query_proxies();
            }
        }
        self.state.phase = Phase::Acknowledging(ack);
    }

    /// Ends the wait if the proxies run the weights, or one rejects them. Returns whether the wait goes on.
    fn judge_proxies(&mut self, counts: &ProxyAckCounts, is_last: bool) -> bool {
        if !counts.rejected.is_empty() {
            self.not_acknowledged(counts);
            return false;
        }
        if !counts.stale.is_empty() || counts.synced == 0 {
            if is_last {
                self.not_acknowledged(counts);
            }
            return !is_last;
        }
        self.state.is_partial |= counts.synced < counts.total;
        self.state.acknowledged = Some(self.state.object.clone());
        let message = format!("{} of {} proxies run the new weights", counts.synced, counts.total);
        self.emit(ShiftEventType::Acknowledged, message.clone(), NoticeDetails::Proxies(counts.clone()));
        if self.is_last_step() && self.run.settings.analysis.is_none() {
            self.close_done(message);
        } else {
            self.start_step();
        }
        false
    }

    /// Ends a step whose weights the proxies do not acknowledge.
    fn not_acknowledged(&mut self, counts: &ProxyAckCounts) {
        let reason = self.not_synced_reason(counts);
        self.emit(ShiftEventType::Acknowledged, reason.clone(), NoticeDetails::Proxies(counts.clone()));
        let is_unknown = counts.stale.is_empty() && counts.rejected.is_empty();
        match self.run.settings.on_failure {
            // An unknown state is no reason to roll back.
            _ if is_unknown => self.hold(reason, HoldEnding::Partial),
            FailureAction::Hold => self.hold(reason, HoldEnding::Partial),
            FailureAction::Rollback => self.roll_back(Cause::Acknowledgement, reason),
        }
    }

    pub(super) fn not_synced_reason(&self, counts: &ProxyAckCounts) -> String {
        let timeout = crate::vocabulary::duration::format(self.run.settings.ack_timeout);
        if let Some(first) = counts.rejected.first() {
            return format!("rejected by {first}");
        }
        match counts.stale.first() {
            Some(first) => format!(
                "{} of {} proxies do not run the weights after {timeout}, such as {first}",
                counts.stale.len(),
                counts.total
            ),
            None => "no affected proxy could be queried: it is unknown whether they run the weights".to_owned(),
        }
    }

    pub(super) fn is_last_step(&self) -> bool {
        let entry = self.entry();
        entry.step as usize >= entry.plan.len()
    }

    /// Closes the record: the shift is finished. The object at hand may be newer than the one that the proxies
    /// acknowledged, such as after another client added a rule.
    fn close_done(&mut self, message: String) {
        let judged = self.state.acknowledged.clone().unwrap_or_else(|| self.state.object.clone());
        self.write(Intent::Close(Close::Done { judged, message }), WriteFrom::ObjectAtHand);
    }

    /// Starts what a step does after its proxies acknowledged it.
    pub(super) fn start_step(&mut self) {
        let Some(analysis) = &self.run.settings.analysis else {
            self.enter(Phase::Pausing(Monitor::default()));
            self.start_timer(Timer::Window, self.run.settings.interval);
            return self.start_monitor(MONITOR_INTERVAL);
        };
        let watches = self.is_last_step() && !analysis.watch.is_zero();
        let mut analyzing = Analyzing {
            monitor: Monitor { backends_due: true, ..Monitor::default() },
            policy: StepPolicy::new(analysis.bad_windows),
            counting: Counting::default(),
            window: WindowState::Start,
            watch_over: !watches,
        };
        self.enter(Phase::Analyzing(analyzing.clone()));
        self.start_timer(Timer::MaxWait, analysis.max_wait);
        if watches {
            self.start_timer(Timer::Watch, analysis.watch);
        }
        self.start_timer(Timer::Monitor, MONITOR_INTERVAL);
        self.start_due_check(&mut analyzing.monitor);
        self.state.phase = Phase::Analyzing(analyzing);
    }

    /// Waits for one interval.
    pub(super) fn pausing(&mut self, mut monitor: Monitor, event: Event) {
        if !self.monitor(&mut monitor, &event, MONITOR_INTERVAL) {
            return;
        }
        if matches!(event, Event::Timer(Timer::Window)) {
            return self.step_done(String::new());
        }
        if self.state.operation.is_none() {
            self.start_due_check(&mut monitor);
        }
        self.state.phase = Phase::Pausing(monitor);
    }

    pub(super) fn analyzing(&mut self, mut analyzing: Analyzing, event: Event) {
        let Some(analysis) = &self.run.settings.analysis else { return };
        if !self.monitor(&mut analyzing.monitor, &event, MONITOR_INTERVAL) {
            return;
        }
        match event {
            Event::WindowStarted(Ok(())) => self.open_window(&mut analyzing, WindowState::Open),
            Event::WindowStarted(Err(reason)) if self.may_fall_back(&analyzing.counting) => {
                analyzing.counting.start_error = Some(reason);
                self.operate(Effect::SwitchToLogs);
            }
            Event::WindowStarted(Err(reason)) => self.open_window(&mut analyzing, WindowState::Failed(reason)),
            Event::SwitchedToLogs(true) => {
                self.warn_about_logs();
                analyzing.window = WindowState::Start;
            }
            Event::SwitchedToLogs(false) => {
                let reason = analyzing.counting.start_error.clone().unwrap_or_default();
                self.open_window(&mut analyzing, WindowState::Failed(reason));
            }
            Event::Timer(Timer::Window) => match std::mem::replace(&mut analyzing.window, WindowState::Count) {
                WindowState::Failed(reason) => {
                    let window = WindowResult {
                        window: Err(reason),
                        source: analysis.source,
                        unread_callers: Vec::new(),
                        has_shared_backends: false,
                    };
                    return self.judge_window(analyzing, window);
                }
                WindowState::Start | WindowState::Open | WindowState::Count => {}
            },
            Event::Window(result) => return self.judge_window(analyzing, result),
            Event::Timer(Timer::MaxWait) => analyzing.counting.is_overdue = true,
            Event::Timer(Timer::Watch) => analyzing.watch_over = true,
            _ => {}
        }
        self.continue_analysis(analyzing);
    }

    fn open_window(&mut self, analyzing: &mut Analyzing, window: WindowState) {
        analyzing.window = window;
        self.start_timer(Timer::Window, self.run.settings.interval);
    }

    /// Starts the operation that is due.
    fn continue_analysis(&mut self, mut analyzing: Analyzing) {
        if self.state.operation.is_none() && !self.start_due_check(&mut analyzing.monitor) {
            match analyzing.window {
                WindowState::Start => self.operate(Effect::StartWindow),
                WindowState::Count => self.operate(Effect::CountWindow),
                WindowState::Open | WindowState::Failed(_) => {}
            }
        }
        self.state.phase = Phase::Analyzing(analyzing);
    }

    /// Judges a window, or the failure to count it, and acts on the verdict.
    fn judge_window(&mut self, mut analyzing: Analyzing, result: WindowResult) {
        let Some(analysis) = &self.run.settings.analysis else { return };
        let judged = self.verdict(analysis, result);
        match analyzing.policy.next_action(judged.verdict, analyzing.counting.is_overdue) {
            NextAction::Advance if self.is_last_step() && !analyzing.watch_over => {
                analyzing.policy = StepPolicy::new(analysis.bad_windows);
                analyzing.counting.is_overdue = false;
                self.start_timer(Timer::MaxWait, analysis.max_wait);
                analyzing.window = WindowState::Start;
                self.continue_analysis(analyzing);
            }
            NextAction::Advance => self.step_done(judged.reason),
            NextAction::NextWindow { restarts: true } => {
                analyzing.window = WindowState::Start;
                self.continue_analysis(analyzing);
            }
            NextAction::NextWindow { restarts: false } => {
                self.open_window(&mut analyzing, WindowState::Open);
                self.continue_analysis(analyzing);
            }
            NextAction::RollBack => self.roll_back(Cause::Verdict, judged.reason),
            NextAction::Stall => {
                let max_wait = crate::vocabulary::duration::format(analysis.max_wait);
                let reason = format!("no good or bad verdict in {max_wait}: {}", judged.reason);
                match analysis.on_stall {
                    FailureAction::Hold => self.hold(reason, HoldEnding::Partial),
                    FailureAction::Rollback => self.roll_back(Cause::Verdict, reason),
                }
            }
        }
    }

    /// Judges a window of this step and reports it.
    fn verdict(&mut self, analysis: &AnalysisSettings, result: WindowResult) -> AnalysisResult {
        let WindowResult { window, source, unread_callers, has_shared_backends } = result;
        let is_partial = !unread_callers.is_empty();
        let window = match window {
            Ok(window) => window,
            Err(reason) => {
                let judged = AnalysisResult::new(AnalysisVerdict::Unknown, reason);
                self.record_verdict(&Window::default(), &judged);
                return judged;
            }
        };
        let share = self.entry().rules.first().map_or(0.0, |rule| rule.canary(self.run.kind).1);
        let split_tolerance = analysis.limits.split_tolerance.filter(|_| !has_shared_backends);
        let limits = AnalysisLimits { split_tolerance, ..analysis.limits };
        let mut judged = judge(&window, self.state.before_shift, share, &limits);
        if let (AnalysisVerdict::Good, Some(reason)) = (judged.verdict, &self.state.unreachable_baseline) {
            judged = AnalysisResult::new(AnalysisVerdict::Unknown, reason.clone());
        }
        if self.is_last_step() && judged.verdict == AnalysisVerdict::Good {
            self.state.is_partial |= is_partial;
        }
        self.emit_window(window.clone(), source, unread_callers);
        self.record_verdict(&window, &judged);
        judged
    }

    pub(super) fn emit_window(&mut self, window: Window, source: AnalysisSource, unread_callers: Vec<String>) {
        let details = NoticeDetails::Window { window, source, unread_callers };
        self.emit(ShiftEventType::Window, String::new(), details);
    }

    pub(super) fn emit_verdict(&mut self, judged: &AnalysisResult) {
        let message = format!("{}: {}", judged.verdict.as_str(), judged.reason);
        self.emit(ShiftEventType::Verdict, message, NoticeDetails::Verdict(judged.verdict));
    }

    /// Reports a verdict and stores it as the last one of its step.
    fn record_verdict(&mut self, window: &Window, judged: &AnalysisResult) {
        self.emit_verdict(judged);
        let step = self.step_number();
        if let Some(entry) = &mut self.state.entry {
            entry.verdicts.retain(|stored| stored.step != step);
            entry.verdicts.push(StepVerdict {
                step,
                verdict: judged.verdict,
                canary: window.canary,
                baseline: window.baseline,
                reason: judged.reason.clone(),
            });
        }
    }

    /// Goes on after a step: to the next, or to the end.
    fn step_done(&mut self, message: String) {
        if self.is_last_step() {
            return self.close_done(message);
        }
        let entry = self.entry();
        if self.run.settings.prompts != Prompts::Ask {
            return self.write(Intent::Advance, WriteFrom::FreshObject);
        }
        let next = entry.plan.get(entry.step as usize).cloned().unwrap_or_default();
        self.enter(Phase::AskingNextStep(Monitor::default()));
        self.start_monitor(MONITOR_INTERVAL);
        self.effects.push(Effect::Ask(Question::NextStep { step: entry.step, of: entry.plan.len(), next }));
    }

    /// Waits for the answer to the question after a step. Calls are not counted meanwhile.
    pub(super) fn asking_next_step(&mut self, mut monitor: Monitor, event: Event) {
        if !self.monitor(&mut monitor, &event, MONITOR_INTERVAL) {
            return;
        }
        match event {
            Event::Answer(Answer::Yes) => return self.write(Intent::Advance, WriteFrom::FreshObject),
            Event::Answer(Answer::No) => return self.hold("held by the user", HoldEnding::Partial),
            Event::Answer(Answer::RollBack) => return self.roll_back(Cause::User, "rolled back by the user"),
            Event::Answer(Answer::Failed) => return self.hold("the prompt cannot be shown", HoldEnding::Partial),
            _ => {}
        }
        if self.state.operation.is_none() {
            self.start_due_check(&mut monitor);
        }
        self.state.phase = Phase::AskingNextStep(monitor);
    }
}
