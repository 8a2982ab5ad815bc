//! What a run does before its first write: the preflight checks and the question, the window before the shift, and the
//! conditions under which a recorded shift may be undone, resumed or aborted.

use std::time::Duration;

use super::super::notice::{NoticeDetails, ShiftEventType};
use super::super::patch;
use super::super::plan::RulePlan;
use super::super::preflight;
use super::super::record::{RuleRecord, ShiftEntry, ShiftRecord, ShiftState, StepVerdict};
use super::ending::Cause;
use super::waiting::Counting;
use super::writing::{Intent, WriteFrom};
use super::{
    Answer, CheckResult, Effect, Ending, Event, FailureReport, Phase, Prompts, Question, ReadResult, RunJob, ShiftGoal,
    Step, Timer, WindowResult,
};
use crate::analysis::verdict::{AnalysisVerdict, judge_baseline};

/// How long a run waits for a session that it asked to roll back.
const ABORT_LIMIT: Duration = Duration::from_mins(1);
/// Interval between reads of the record after a request to abort.
const ABORT_POLL_INTERVAL: Duration = Duration::from_secs(4);

pub(super) const NOTHING_APPLIED: &str = "nothing was applied";

/// Waiting for another session to roll back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AbortWait {
    /// Whether the wait is over, and the read in flight is the last.
    is_over: bool,
}

impl Step<'_> {
    /// Starts the job.
    pub(super) fn begin(&mut self) {
        let run = self.run;
        let record = match ShiftRecord::from_object(&self.state.object) {
            Ok(record) => record,
            Err(error) => return self.fail_unreadable_record(&error),
        };
        match &run.job {
            RunJob::Shift(goal) => self.begin_shift(goal, &record),
            RunJob::Undo | RunJob::Resume => self.begin_with_last_shift(&record),
            RunJob::Abort => self.begin_abort(&record),
        }
    }

    fn begin_shift(&mut self, goal: &ShiftGoal, record: &ShiftRecord) {
        let in_progress = record.shift_in_progress(self.run.kind, &self.state.object);
        if let Some(open) = in_progress.filter(|_| !self.run.settings.takeover) {
            return self.fail(self.open_shift_failure(open));
        }
        let operations = patch::shift_patch(&self.state.object, &goal.plans, &self.record_with_new_entry(record).0);
        let (object, plans) = (self.state.object.clone(), goal.plans.clone());
        self.enter(Phase::Checking);
        self.operate(Effect::Check { object, operations, plans });
    }

    fn open_shift_failure(&self, open: &ShiftEntry) -> FailureReport {
        let deadline = open.deadline.clone().unwrap_or_default();
        let argument = &self.run.argument;
        FailureReport::unavailable(format!("cannot shift {}: another shift is in progress", self.run.title))
            .cause(format!(
                "session {} of {} started at {} and may run until {deadline}",
                open.session, open.user, open.started_at
            ))
            .hint(format!("show it: kubectl grpcmesh shift {argument} --status"))
            .hint(format!(
                "after {deadline} use --resume or --undo; to take over now: kubectl grpcmesh shift {argument} --resume --takeover"
            ))
    }

    /// The plans of a shift; empty for other jobs.
    pub(super) fn plans(&self) -> &[RulePlan] {
        match &self.run.job {
            RunJob::Shift(goal) => &goal.plans,
            RunJob::Undo | RunJob::Resume | RunJob::Abort => &[],
        }
    }

    /// The entry that the first write adds to the record. Its number is set when it is added.
    pub(super) fn new_entry(&self) -> ShiftEntry {
        let settings = &self.run.settings;
        let (steps, reason) = match &self.run.job {
            RunJob::Shift(goal) => (goal.steps.iter().map(ToString::to_string).collect(), goal.reason.clone()),
            RunJob::Undo | RunJob::Resume | RunJob::Abort => (Vec::new(), None),
        };
        ShiftEntry {
            number: 0,
            session: self.run.session.clone(),
            user: self.run.user.clone(),
            started_at: rfc3339(self.now),
            reason,
            deadline: Some(self.deadline()),
            hosts: self.state.hosts.clone(),
            plan: steps,
            step: 1,
            analysis: settings.analysis.as_ref().map(|analysis| analysis.source),
            verdicts: self.state.baseline_verdict.iter().cloned().collect(),
            abort_requested_by: None,
            state: ShiftState::Open,
            message: String::new(),
            rules: self.plans().iter().map(RuleRecord::new).collect(),
        }
    }

    /// The record with the entry of this run as the newest, and that entry. An open entry of another session is closed.
    pub(super) fn record_with_new_entry(&self, record: &ShiftRecord) -> (ShiftRecord, ShiftEntry) {
        let mut record = record.clone();
        if let Some(open) = record.entries.first_mut().filter(|newest| newest.state == ShiftState::Open) {
            (open.state, open.deadline) = (ShiftState::Held, None);
            open.message = format!("taken over by session {}", self.run.session);
        }
        let entry = ShiftEntry { number: record.next_number(), ..self.new_entry() };
        record.push(entry.clone());
        (record, entry)
    }

    /// Until when this run owns the weights.
    pub(super) fn deadline(&self) -> String {
        let deadline = self.now.checked_add(self.run.settings.max_step_duration);
        rfc3339(deadline.unwrap_or(jiff::Timestamp::MAX))
    }

    /// Whether this run may take over an open entry: its deadline has passed, or `--takeover` is given.
    fn can_take_over(&self, entry: &ShiftEntry) -> bool {
        let has_passed = |deadline: &str| deadline.parse::<jiff::Timestamp>().is_ok_and(|deadline| deadline < self.now);
        self.run.settings.takeover || entry.deadline.as_deref().is_none_or(has_passed)
    }

    /// The first checks, before the question.
    pub(super) fn checking(&mut self, event: Event) {
        let (true, Event::Checked(result)) = (matches!(self.run.job, RunJob::Shift(_)), event) else {
            self.state.phase = Phase::Checking;
            return;
        };
        let (checks, hosts) = match result {
            CheckResult::Accepted { checks, hosts } => (checks, hosts),
            CheckResult::Conflict => {
                let message = format!("cannot patch {}: another client is changing it", self.run.title);
                return self.fail(FailureReport::unavailable(message).hint("run the command again"));
            }
            CheckResult::Rejected(reason) => {
                return self.fail(self.rejected_failure(&reason).hint(NOTHING_APPLIED));
            }
            CheckResult::Forbidden(reason) => return self.fail(forbidden_failure(&reason)),
            CheckResult::Failed { message, hint } => return self.fail(unavailable(message, hint)),
        };
        self.state.hosts = hosts;
        self.effects.push(Effect::ShowPlan);
        if let Some(blocking) =
            preflight::blocking_check(&checks, self.run.settings.force, self.run.settings.force_owner)
        {
            let failure = FailureReport::unavailable("cannot shift: a preflight check failed");
            let flag = blocking.override_flag().as_str();
            return self.fail(failure.hint(format!("{NOTHING_APPLIED}; to continue anyway: {flag}")));
        }
        if matches!(&self.run.job, RunJob::Shift(goal) if goal.is_dry_run) {
            self.emit(ShiftEventType::Done, format!("dry run: {NOTHING_APPLIED}"), NoticeDetails::None);
            return self.finish(Ending::Clean);
        }
        self.ask();
    }

    /// Asks whether to apply the weights.
    fn ask(&mut self) {
        match self.run.settings.prompts {
            Prompts::AssumeYes => self.confirmed(WriteFrom::ObjectAtHand),
            Prompts::Ask => {
                self.enter(Phase::Confirming);
                self.effects.push(Effect::Ask(Question::Apply));
            }
            Prompts::Unavailable => {
                let failure = FailureReport::usage("cannot ask for confirmation without a terminal or with -o json");
                self.fail(failure.hint("to apply without a prompt: --yes"));
            }
        }
    }

    pub(super) fn confirming(&mut self, event: &Event) {
        match event {
            Event::Answer(Answer::Yes) => self.confirmed(WriteFrom::FreshObject),
            Event::Answer(Answer::No | Answer::RollBack) => {
                self.emit(ShiftEventType::Held, format!("not confirmed: {NOTHING_APPLIED}"), NoticeDetails::None);
                self.finish(Ending::Partial);
            }
            Event::Answer(Answer::Failed) => {
                let failure = FailureReport::unavailable("cannot show the prompt");
                self.fail(failure.hint("to apply without a prompt: --yes"));
            }
            _ => self.state.phase = Phase::Confirming,
        }
    }

    /// Goes on after the question. During a question the object may have changed, so it is read again.
    fn confirmed(&mut self, from: WriteFrom) {
        match &self.run.job {
            RunJob::Shift(_) if self.run.settings.analysis.is_some() => self.count_baseline(),
            RunJob::Shift(_) => self.begin_write(from),
            RunJob::Undo | RunJob::Resume | RunJob::Abort => self.roll_back(Cause::Undo, "undone"),
        }
    }

    fn begin_write(&mut self, from: WriteFrom) {
        let planned_from = self.state.object.clone();
        self.write(Intent::Begin { planned_from }, from);
    }

    fn count_baseline(&mut self) {
        let Some(analysis) = &self.run.settings.analysis else { return };
        self.enter(Phase::CountingBaseline(Counting::default()));
        self.start_timer(Timer::MaxWait, analysis.max_wait);
        self.operate(Effect::StartWindow);
    }

    /// Counts a window before the shift. Fails if it cannot serve as a baseline.
    pub(super) fn counting_baseline(&mut self, mut counting: Counting, event: Event) {
        let interval = self.run.settings.interval;
        self.state.phase = Phase::CountingBaseline(counting.clone());
        match event {
            Event::WindowStarted(Ok(())) => self.start_timer(Timer::Window, interval),
            Event::WindowStarted(Err(reason)) if self.may_fall_back(&counting) => {
                counting.start_error = Some(reason);
                self.state.phase = Phase::CountingBaseline(counting);
                self.operate(Effect::SwitchToLogs);
            }
            Event::SwitchedToLogs(true) => {
                self.warn_about_logs();
                self.operate(Effect::StartWindow);
            }
            Event::SwitchedToLogs(false) => self.fail_baseline(counting.start_error.unwrap_or_default()),
            Event::WindowStarted(Err(reason)) => self.fail_baseline(counting.start_error.unwrap_or(reason)),
            Event::Timer(Timer::Window) => self.operate(Effect::CountWindow),
            Event::Timer(Timer::MaxWait) => {
                counting.is_overdue = true;
                self.state.phase = Phase::CountingBaseline(counting);
            }
            Event::Window(result) => self.judge_baseline(&counting, result),
            _ => {}
        }
    }

    pub(super) fn may_fall_back(&self, counting: &Counting) -> bool {
        let may_fall_back = self.run.settings.analysis.as_ref().is_some_and(|analysis| analysis.may_fall_back);
        may_fall_back && counting.start_error.is_none()
    }

    pub(super) fn warn_about_logs(&mut self) {
        self.warn("the callers' Envoys cannot be queried: reading their access logs instead");
    }

    fn fail_baseline(&mut self, reason: String) {
        let failure = FailureReport::unavailable("cannot count calls for the baseline");
        self.fail(failure.cause(reason).hint(NOTHING_APPLIED));
    }

    fn judge_baseline(&mut self, counting: &Counting, result: WindowResult) {
        let Some(analysis) = &self.run.settings.analysis else { return };
        let WindowResult { window, source, unread_callers, has_shared_backends } = result;
        let window = match window {
            Ok(window) => window,
            Err(reason) => return self.fail_baseline(reason),
        };
        if has_shared_backends {
            self.warn(
                "other rules send calls to the same backends: the observed split is not compared with the weights",
            );
        }
        let judged = judge_baseline(&window, &analysis.limits);
        let total = window.total();
        let verdict = StepVerdict {
            step: 0,
            verdict: judged.verdict,
            canary: window.canary,
            baseline: window.baseline,
            reason: judged.reason.clone(),
        };
        self.emit_window(window, source, unread_callers);
        self.emit_verdict(&judged);
        // A source without any calls may be the wrong one, so the window goes on until the first call.
        if total.calls == 0 && !counting.is_overdue {
            return self.start_timer(Timer::Window, self.run.settings.interval);
        }
        if total.calls == 0 {
            let max_wait = crate::vocabulary::duration::format(analysis.max_wait);
            let message = format!("no calls to these backends in {max_wait} (source: {})", source.as_str());
            return self.fail(FailureReport::unavailable(message).hint(format!(
                "{NOTHING_APPLIED}; to see calls as Envoy counts them: kubectl grpcmesh balance SERVICE"
            )));
        }
        if judged.verdict == AnalysisVerdict::Bad {
            let message = format!("cannot start the shift: the baseline fails ({})", judged.reason);
            return self
                .fail(FailureReport::unavailable(message).hint(format!(
                    "{NOTHING_APPLIED}; show the failed calls: kubectl grpcmesh tail SERVICE --callers"
                )));
        }
        self.state.before_shift = total;
        self.state.baseline_verdict = Some(verdict);
        self.begin_write(WriteFrom::FreshObject);
    }

    /// Undoes the last applied shift, or resumes it.
    fn begin_with_last_shift(&mut self, record: &ShiftRecord) {
        let (title, argument) = (&self.run.title, &self.run.argument);
        let Some(entry) = record.applied_entry().cloned() else {
            let failure = FailureReport::unavailable(format!("{title} has no applied shift to undo or resume"));
            return self.fail(failure.hint(format!("list its shifts: kubectl grpcmesh shift {argument} --history")));
        };
        for rule in &entry.rules {
            if let Err(lost) = rule.find_unchanged(self.run.kind, &self.state.object) {
                return self.fail(self.lost_control_failure(&lost));
            }
        }
        if entry.state == ShiftState::Open && !self.can_take_over(&entry) {
            return self.fail(self.open_shift_failure(&entry));
        }
        self.state.entry = Some(Box::new(entry.clone()));
        if matches!(self.run.job, RunJob::Undo) {
            let (from, to) = (entry.start_weights(), entry.applied_weights());
            let ShiftEntry { number, user, started_at, .. } = &entry;
            let message = format!("{title}: undo shift {number} of {user} from {started_at}: {to} → {from}");
            self.emit(ShiftEventType::Plan, message, NoticeDetails::None);
            return self.ask();
        }
        if entry.state != ShiftState::Open {
            let message = "the last shift is finished: nothing to resume";
            self.emit(ShiftEventType::Done, message, NoticeDetails::None);
            return self.finish(Ending::Clean);
        }
        if let Some(source) = entry.analysis.filter(|_| !self.run.settings.chose_analysis) {
            let failure = FailureReport::usage(format!("this shift uses canary analysis by {}", source.as_str()));
            return self.fail(
                failure
                    .hint("pass its flags again: --analysis or --prometheus, and the limits")
                    .hint("to resume without analysis: --analysis none"),
            );
        }
        let baseline = entry.verdicts.first().map(|verdict| verdict.canary.plus(verdict.baseline));
        self.state.before_shift = baseline.unwrap_or_default();
        self.write(Intent::TakeOver { from_session: entry.session }, WriteFrom::ObjectAtHand);
    }

    fn begin_abort(&mut self, record: &ShiftRecord) {
        let (title, argument) = (&self.run.title, &self.run.argument);
        let Some(entry) = record.open_entry().cloned() else {
            let failure = FailureReport::unavailable(format!("cannot abort: no shift of {title} is in progress"));
            return self
                .fail(failure.hint(format!("to undo the last shift: kubectl grpcmesh shift {argument} --undo")));
        };
        if self.can_take_over(&entry) {
            let deadline = entry.deadline.unwrap_or_default();
            let message = format!("cannot abort: session {} did not finish by its deadline {deadline}", entry.session);
            let hint = format!("to restore the weights: kubectl grpcmesh shift {argument} --undo");
            return self.fail(FailureReport::unavailable(message).hint(hint));
        }
        let request = format!("{} at {}", self.run.user, rfc3339(self.now));
        self.state.entry = Some(Box::new(entry));
        self.write(Intent::RequestAbort { request }, WriteFrom::ObjectAtHand);
    }

    /// Waits for the session that was asked to roll back.
    pub(super) fn await_abort(&mut self) {
        let entry = self.entry();
        let message = format!("asked session {} of {} to roll back", entry.session, entry.user);
        self.emit(ShiftEventType::Plan, message, NoticeDetails::None);
        self.enter(Phase::AwaitingAbort(AbortWait { is_over: false }));
        self.start_timer(Timer::Abort, ABORT_LIMIT);
        self.start_timer(Timer::Monitor, ABORT_POLL_INTERVAL);
    }

    pub(super) fn awaiting_abort(&mut self, mut wait: AbortWait, event: Event) {
        match event {
            Event::Timer(Timer::Abort) => wait.is_over = true,
            Event::Timer(_) if self.state.operation.is_none() => self.operate(Effect::Read),
            Event::Read(ReadResult::Object(object)) => return self.examine_abort(wait, &object),
            Event::Read(ReadResult::NotFound) => return self.fail(self.not_found_failure()),
            Event::Read(ReadResult::Failed { message }) => {
                self.report_failed_read(message);
                self.start_timer(Timer::Monitor, ABORT_POLL_INTERVAL);
            }
            _ => {}
        }
        self.state.phase = Phase::AwaitingAbort(wait);
    }

    fn examine_abort(&mut self, wait: AbortWait, object: &serde_json::Value) {
        let record = match ShiftRecord::from_object(object) {
            Ok(record) => record,
            Err(error) => return self.fail_unreadable_record(&error),
        };
        let session = self.entry().session;
        let current = record.entries.iter().find(|current| current.session == session);
        match current {
            Some(current) if current.state == ShiftState::RolledBack => {
                let message = format!("{}; the weights from before are restored", current.message);
                self.emit(ShiftEventType::RolledBack, message, NoticeDetails::None);
                self.finish(Ending::Clean);
            }
            Some(current) if current.state != ShiftState::Open => {
                self.emit(ShiftEventType::Held, current.message.clone(), NoticeDetails::None);
                self.finish(Ending::Partial);
            }
            Some(_) if !wait.is_over => {
                self.start_timer(Timer::Monitor, ABORT_POLL_INTERVAL);
                self.state.phase = Phase::AwaitingAbort(wait);
            }
            Some(_) | None => {
                let argument = &self.run.argument;
                let failure = FailureReport::unavailable(format!("cannot abort: session {session} does not respond"));
                self.fail(failure.hint(format!(
                    "if its process is gone, restore the weights: kubectl grpcmesh shift {argument} --undo --takeover"
                )));
            }
        }
    }
}

pub(super) fn unavailable(message: String, hint: Option<String>) -> FailureReport {
    let failure = FailureReport::unavailable(message);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

pub(super) fn forbidden_failure(reason: &str) -> FailureReport {
    FailureReport::unavailable(format!("cannot patch the object: {reason}"))
        .hint("shift needs the verb patch on it: kubectl apply -f docs/rbac/shifter.yaml")
}

/// RFC 3339 in whole seconds.
pub(super) fn rfc3339(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
