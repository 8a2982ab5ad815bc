//! Every write of a run: compute a patch from the object, apply it, and read the object again when the patch conflicts or
//! its answer is lost.
//!
//! The object decides what happened: a patch whose answer was lost is recognized by the record. Until it is, it may still
//! be stored, so a run never claims that nothing was applied while an answer is missing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::notice::{NoticeDetails, ShiftEventType};
use super::super::patch;
use super::super::plan::{DesiredWeights, RulePlan};
use super::super::preflight;
use super::super::record::{
    LostControl, RecordError, RollbackTarget, RuleRecord, ShiftEntry, ShiftRecord, ShiftState, last_writer,
    weights_by_backend,
};
use super::super::split::RuleSplit;
use super::super::steps;
use super::ending::{Cause, HoldEnding, Rollback, restored_rules};
use super::starting::{NOTHING_APPLIED, forbidden_failure};
use super::{CheckResult, Effect, Event, FailureReport, Operation, PatchResult, Phase, ReadResult, Step, Timer};

/// Attempts of a write that conflicts with writes of other clients.
const MAX_ATTEMPTS: u8 = 5;
/// Pause between attempts.
const RETRY_DELAY: Duration = Duration::from_millis(300);
/// Longest pause that a busy API server gets.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);
/// How long a write that must succeed waits for an API server that does not answer.
const UNREACHABLE_LIMIT: Duration = Duration::from_mins(1);
/// The same for a write without which nothing is applied.
const UNREACHABLE_LIMIT_BEFORE_APPLY: Duration = Duration::from_secs(5);

/// A write in progress.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) intent: Intent,
    /// Patches that conflicted or whose answer was lost.
    attempts: u8,
    /// Whether the answer to a patch was lost, and the object has not told what became of it.
    pub(super) lost_answer: bool,
    /// Whether the time for an unreachable API server runs, or is over.
    unreachable: Unreachable,
    /// Resource version for which the preflight passed.
    checked: Option<String>,
    /// The entry as the patch in flight leaves it.
    proposed: Option<Box<ShiftEntry>>,
    /// The rules as a rollback leaves them.
    restored: Vec<RuleRecord>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unreachable {
    No,
    Since,
    TooLong,
}

/// What a write is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Intent {
    /// Apply the first step. The plan was made, and shown, for this object.
    Begin { planned_from: Arc<Value> },
    /// Apply the next step.
    Advance,
    /// Close the record.
    Close(Close),
    /// Restore the weights.
    RollBack(Rollback),
    /// Make this run the owner of an open entry.
    TakeOver { from_session: String },
    /// Ask another session to roll back.
    RequestAbort { request: String },
}

/// How the record is closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Close {
    /// The shift is finished. Its proxies were judged on this object.
    Done { judged: Arc<Value>, message: String },
    /// The proxies were not asked (`--ack none`).
    Unacknowledged,
    /// The new weights stay.
    Held { reason: String, ending: HoldEnding },
}

/// The object that the first attempt of a write uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteFrom {
    /// The one at hand. If it is outdated, the patch conflicts.
    ObjectAtHand,
    /// A new one.
    FreshObject,
}

/// What an object allows a write to do.
enum Proposal {
    Patch {
        operations: Vec<Value>,
        entry: Box<ShiftEntry>,
        plans: Vec<RulePlan>,
    },
    /// An earlier patch whose answer was lost is stored.
    Stored(Box<ShiftEntry>),
    /// The user asked this run to roll back.
    AbortRequested(String),
    Lost(LostControl),
    /// The change of the object must be judged first.
    JudgeAgain,
    Fail(FailureReport),
    Hold(String),
}

impl Write {
    fn new(intent: Intent) -> Self {
        Self {
            intent,
            attempts: 0,
            lost_answer: false,
            unreachable: Unreachable::No,
            checked: None,
            proposed: None,
            restored: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match &self.intent {
            Intent::Begin { .. } => "WritingFirstStep",
            Intent::Advance => "WritingNextStep",
            Intent::Close(_) => "ClosingRecord",
            Intent::RollBack(_) => "RollingBack",
            Intent::TakeOver { .. } => "TakingOver",
            Intent::RequestAbort { .. } => "RequestingAbort",
        }
    }
}

impl Step<'_> {
    /// Starts a write.
    pub(super) fn write(&mut self, intent: Intent, from: WriteFrom) {
        let mut write = Write::new(intent);
        self.enter(Phase::Writing(write.clone()));
        match from {
            WriteFrom::ObjectAtHand => {
                // The checks before the question were made on this very object.
                write.checked =
                    resource_version(&self.state.object).filter(|_| matches!(write.intent, Intent::Begin { .. }));
                self.attempt(write);
            }
            WriteFrom::FreshObject => self.operate(Effect::Read),
        }
    }

    pub(super) fn writing(&mut self, mut write: Write, event: Event) {
        match event {
            Event::Read(ReadResult::Object(object)) => match self.identity_loss(&object) {
                Some(lost) => self.lost_control(&lost),
                None => {
                    self.state.object = object;
                    write.unreachable = Unreachable::No;
                    self.attempt(write);
                }
            },
            Event::Read(ReadResult::NotFound) => self.object_not_found(),
            Event::Read(ReadResult::Failed { message }) => {
                self.report_failed_read(message.clone());
                self.try_later(write, RETRY_DELAY, &message);
            }
            Event::Checked(result) => self.checked(write, result),
            Event::Patched(result) => self.patched(write, result),
            Event::Timer(Timer::Retry) if self.state.operation.is_none() => {
                self.state.phase = Phase::Writing(write);
                self.operate(Effect::Read);
            }
            Event::Timer(Timer::Unreachable) if write.unreachable == Unreachable::Since => {
                write.unreachable = Unreachable::TooLong;
                if self.state.operation == Some(Operation::Patch) {
                    self.state.phase = Phase::Writing(write);
                } else {
                    self.give_up(&write, "the API server does not answer");
                }
            }
            _ => self.state.phase = Phase::Writing(write),
        }
    }

    /// Tries again after a pause, unless the time for that is over.
    fn try_later(&mut self, mut write: Write, pause: Duration, reason: &str) {
        match write.unreachable {
            Unreachable::TooLong => return self.give_up(&write, reason),
            Unreachable::Since => {}
            Unreachable::No => {
                write.unreachable = Unreachable::Since;
                let must_succeed = self.state.is_applied || write.lost_answer;
                let limit = if must_succeed { UNREACHABLE_LIMIT } else { UNREACHABLE_LIMIT_BEFORE_APPLY };
                self.start_timer(Timer::Unreachable, limit);
            }
        }
        self.state.phase = Phase::Writing(write);
        self.start_timer(Timer::Retry, pause);
    }

    /// Computes the patch from the object and applies it, or does what the object demands instead.
    fn attempt(&mut self, mut write: Write) {
        if write.attempts >= MAX_ATTEMPTS {
            return self.give_up(&write, &format!("{} attempts failed", write.attempts));
        }
        let proposal = match ShiftRecord::from_object(&self.state.object) {
            Ok(record) => {
                self.adopt_stored_step(&write, &record);
                self.propose(&write, record)
            }
            Err(error) => Proposal::Fail(self.unreadable_record_failure(&error)),
        };
        match proposal {
            Proposal::Patch { operations, entry, plans } => {
                if self.state.signals > 0 && self.can_skip(&write) {
                    return self.skip_write(&write);
                }
                if !plans.is_empty() && write.checked != resource_version(&self.state.object) {
                    let object = self.state.object.clone();
                    self.state.phase = Phase::Writing(write);
                    return self.operate(Effect::Check { object, operations, plans });
                }
                if matches!(write.intent, Intent::RollBack(_)) {
                    let (kind, target) = (self.run.kind, self.run.settings.rollback_to);
                    write.restored = restored_rules(kind, &self.state.object, &self.entry(), target);
                }
                write.proposed = Some(entry);
                self.state.phase = Phase::Writing(write);
                self.operate(Effect::Patch(operations));
            }
            Proposal::Stored(entry) => {
                write.lost_answer = false;
                write.proposed = Some(entry);
                self.written(write);
            }
            Proposal::AbortRequested(user) => self.roll_back(Cause::Abort, format!("aborted by {user}")),
            Proposal::Lost(lost) => self.lost_control(&lost),
            Proposal::JudgeAgain => self.acknowledge(),
            Proposal::Fail(failure) => self.fail(failure),
            Proposal::Hold(reason) => self.hold(reason, HoldEnding::Partial),
        }
    }

    /// Takes over what the record says about this run. The patch of a step whose answer was lost may be stored by now, and
    /// only this run writes its entry. The next step itself recognizes that on its own.
    fn adopt_stored_step(&mut self, write: &Write, record: &ShiftRecord) {
        if matches!(write.intent, Intent::Advance | Intent::Begin { .. }) {
            return;
        }
        let entry = self.entry();
        if let Some(open) = record.open_entry_of(&self.run.session).filter(|open| open.step > entry.step) {
            self.state.entry = Some(Box::new(ShiftEntry { verdicts: entry.verdicts, ..open.clone() }));
        }
    }

    fn propose(&self, write: &Write, record: ShiftRecord) -> Proposal {
        match &write.intent {
            Intent::Begin { planned_from } => self.propose_begin(write, planned_from, &record),
            Intent::Advance => self.propose_advance(record),
            Intent::Close(close) => self.propose_close(write, close, record),
            Intent::RollBack(rollback) => self.propose_rollback(write, rollback, record),
            Intent::TakeOver { from_session } => self.propose_take_over(write, from_session, record),
            Intent::RequestAbort { request } => self.propose_abort(request, record),
        }
    }

    fn propose_begin(&self, write: &Write, planned_from: &Value, record: &ShiftRecord) -> Proposal {
        let object = &self.state.object;
        if let Some(stored) = record.open_entry_of(&self.run.session).filter(|_| write.lost_answer) {
            return Proposal::Stored(Box::new(stored.clone()));
        }
        if is_changed(planned_from, object) {
            let message =
                format!("cannot shift {}: {} changed it in the meantime", self.run.title, last_writer(object));
            let outcome = self.outcome_hint(write);
            return Proposal::Fail(
                FailureReport::unavailable(message)
                    .hint(format!("{outcome}; check the change and run the command again")),
            );
        }
        let (record, entry) = self.record_with_new_entry(record);
        let plans = self.plans().to_vec();
        Proposal::Patch { operations: patch::shift_patch(object, &plans, &record), entry: Box::new(entry), plans }
    }

    fn propose_advance(&self, mut record: ShiftRecord) -> Proposal {
        let next_step = self.entry().step + 1;
        if let Some(stored) = record.open_entry_of(&self.run.session).filter(|open| open.step == next_step) {
            // Only this run writes its entry, so this is a patch whose answer was lost.
            return Proposal::Stored(Box::new(stored.clone()));
        }
        let rules = match self.verify_ownership(&record) {
            Ok(rules) => rules,
            Err(proposal) => return proposal,
        };
        let entry = self.entry();
        let desired = entry.plan.get(entry.step as usize).cloned().unwrap_or_default();
        let Ok(desired) = desired.parse::<DesiredWeights>() else {
            return Proposal::Hold(format!("the record has an invalid step \"{desired}\""));
        };
        let plans = entry.rules.iter().zip(&rules).map(|(rule, now)| steps::plan_step(rule, now, &desired));
        let plans: Vec<RulePlan> = match plans.collect() {
            Ok(plans) => plans,
            Err(error) => return Proposal::Hold(format!("the next step was not applied: {error}")),
        };
        let rules: Vec<RuleRecord> =
            entry.rules.iter().zip(&plans).map(|(rule, plan)| rule.for_next_step(plan)).collect();
        let next = ShiftEntry { step: next_step, deadline: Some(self.deadline()), rules, ..entry };
        if let Some(open) = record.open_entry_of_mut(&self.run.session) {
            *open = next.clone();
        }
        Proposal::Patch {
            operations: patch::shift_patch(&self.state.object, &plans, &record),
            entry: Box::new(next),
            plans,
        }
    }

    fn propose_close(&self, write: &Write, close: &Close, mut record: ShiftRecord) -> Proposal {
        let (state, message) = match close {
            Close::Done { message, .. } => (ShiftState::Done, message.as_str()),
            Close::Unacknowledged => (ShiftState::Held, "proxies were not checked (--ack none)"),
            Close::Held { reason, .. } => (ShiftState::Held, reason.as_str()),
        };
        let newest = record.entries.first().filter(|newest| newest.session == self.run.session);
        if let Some(stored) = newest.filter(|newest| write.lost_answer && newest.state == state) {
            return Proposal::Stored(Box::new(stored.clone()));
        }
        match self.verify_ownership(&record) {
            Ok(_) => {}
            // A user who aborts wants the rollback, unless that is impossible or another user's wish is being carried out.
            Err(Proposal::AbortRequested(_)) if matches!(close, Close::Held { ending, .. } if !ending.yields_to_abort()) =>
                {}
            Err(proposal) => return proposal,
        }
        if let Close::Done { judged, .. } = close
            && self.run.settings.acknowledges
            && judged.get("spec") != self.state.object.get("spec")
        {
            return Proposal::JudgeAgain;
        }
        let mut entry = self.entry();
        (entry.state, entry.deadline) = (state, None);
        message.clone_into(&mut entry.message);
        if let Some(open) = record.open_entry_of_mut(&self.run.session) {
            *open = entry.clone();
        }
        match patch::record_patch(self.run.kind, &self.state.object, &record) {
            Ok(operations) => Proposal::Patch { operations, entry: Box::new(entry), plans: Vec::new() },
            Err(lost) => Proposal::Lost(lost),
        }
    }

    fn propose_rollback(&self, write: &Write, rollback: &Rollback, mut record: ShiftRecord) -> Proposal {
        let target = self.run.settings.rollback_to;
        let entry = self.entry();
        let Some(newest) = record.entries.first_mut().filter(|newest| newest.session == entry.session) else {
            return Proposal::Lost(LostControl::AnotherSession);
        };
        if write.lost_answer && is_rolled_back(newest, &entry, target) {
            return Proposal::Stored(Box::new(newest.clone()));
        }
        if rollback.cause != Cause::Undo && newest.state != ShiftState::Open {
            return Proposal::Lost(LostControl::AnotherSession);
        }
        mark_rolled_back(newest, &entry, target, &rollback.reason);
        let restored = newest.clone();
        match patch::rollback_patch(self.run.kind, &self.state.object, &entry, target, &record) {
            Ok(operations) => Proposal::Patch { operations, entry: Box::new(restored), plans: Vec::new() },
            Err(lost) => Proposal::Lost(lost),
        }
    }

    fn propose_take_over(&self, write: &Write, from_session: &str, mut record: ShiftRecord) -> Proposal {
        if let Some(stored) = record.open_entry_of(&self.run.session).filter(|_| write.lost_answer) {
            return Proposal::Stored(Box::new(stored.clone()));
        }
        let Some(open) = record.open_entry_of_mut(from_session) else {
            let message = format!("cannot resume the shift of {}: another session took over", self.run.title);
            let hint = format!("show it: kubectl grpcmesh shift {} --status", self.run.argument);
            return Proposal::Fail(FailureReport::unavailable(message).hint(hint));
        };
        (open.session, open.deadline) = (self.run.session.clone(), Some(self.deadline()));
        self.propose_record(&record)
    }

    fn propose_abort(&self, request: &str, mut record: ShiftRecord) -> Proposal {
        let session = self.entry().session;
        let newest = record.entries.first_mut().filter(|newest| newest.session == session);
        match newest {
            // The session may have ended, or rolled back, since: that is what this run waits for.
            Some(newest)
                if newest.state != ShiftState::Open || newest.abort_requested_by.as_deref() == Some(request) =>
            {
                Proposal::Stored(Box::new(newest.clone()))
            }
            Some(newest) => {
                newest.abort_requested_by = Some(request.to_owned());
                self.propose_record(&record)
            }
            None => Proposal::Lost(LostControl::AnotherSession),
        }
    }

    /// The patch that writes only the record, whose newest entry was changed.
    fn propose_record(&self, record: &ShiftRecord) -> Proposal {
        let entry = record.entries.first().cloned().unwrap_or_else(|| self.new_entry());
        match patch::record_patch(self.run.kind, &self.state.object, record) {
            Ok(operations) => Proposal::Patch { operations, entry: Box::new(entry), plans: Vec::new() },
            Err(lost) => Proposal::Lost(lost),
        }
    }

    /// Verifies that the object has the weights of this run and an open entry of it, and returns the rules as they are.
    fn verify_ownership(&self, record: &ShiftRecord) -> Result<Vec<RuleSplit>, Proposal> {
        match verify(self.run.kind, &self.state.object, record, &self.entry()) {
            Ok(Owned { abort_requested_by: Some(user), .. }) => Err(Proposal::AbortRequested(user)),
            Ok(Owned { rules, .. }) => Ok(rules),
            Err(lost) => Err(Proposal::Lost(lost)),
        }
    }

    fn checked(&mut self, mut write: Write, result: CheckResult) {
        let (reason, failure) = match result {
            CheckResult::Accepted { checks, .. } => {
                let settings = &self.run.settings;
                if preflight::blocking_check(&checks, settings.force, settings.force_owner).is_none() {
                    write.checked = resource_version(&self.state.object);
                    return self.attempt(write);
                }
                self.effects.push(Effect::ShowChecks);
                let first = checks.first().map(ToString::to_string).unwrap_or_default();
                let flag = checks.first().map_or("--force", |check| check.override_flag().as_str());
                let failure = FailureReport::unavailable("cannot shift: a preflight check failed")
                    .hint(format!("{}; to continue anyway: {flag}", self.outcome_hint(&write)));
                (format!("a preflight check failed: {first}"), failure)
            }
            // Another client is writing: the object decides.
            CheckResult::Conflict => return self.patched(write, PatchResult::Conflict),
            CheckResult::Rejected(reason) => {
                let failure = self.rejected_failure(&reason).hint(self.outcome_hint(&write));
                (format!("the API server rejected the patch: {reason}"), failure)
            }
            CheckResult::Forbidden(reason) => {
                let failure = forbidden_failure(&reason);
                (failure.message.clone(), failure.hint(self.outcome_hint(&write)))
            }
            CheckResult::Failed { message, .. } => {
                self.report_failed_read(message.clone());
                write.attempts += 1;
                if write.attempts < MAX_ATTEMPTS {
                    return self.try_later(write, RETRY_DELAY, &message);
                }
                let failure = FailureReport::unavailable(message.clone()).hint(self.outcome_hint(&write));
                (message, failure)
            }
        };
        match write.intent {
            Intent::Advance => self.hold(format!("the next step was not applied: {reason}"), HoldEnding::Partial),
            _ => self.fail(failure),
        }
    }

    fn patched(&mut self, mut write: Write, result: PatchResult) {
        match result {
            PatchResult::Applied(object) => {
                self.state.object = object;
                write.lost_answer = false;
                self.written(write);
            }
            PatchResult::NotFound => self.object_not_found(),
            PatchResult::Rejected(reason) => {
                let failure = self.rejected_failure(&reason);
                self.refused(&write, &format!("the API server rejected the patch: {reason}"), failure);
            }
            PatchResult::Forbidden(reason) => {
                let failure = forbidden_failure(&reason);
                self.refused(&write, &failure.message.clone(), failure);
            }
            PatchResult::Conflict => {
                write.attempts += 1;
                self.retry(write, None, "other clients keep changing the object");
            }
            PatchResult::Busy { reason, retry_after } => {
                write.attempts += 1;
                self.retry(write, Some(retry_after.unwrap_or(RETRY_DELAY).min(MAX_RETRY_DELAY)), &reason);
            }
            PatchResult::AnswerLost(reason) => {
                self.warn(reason.clone());
                write.attempts += 1;
                write.lost_answer = true;
                self.try_later(write, RETRY_DELAY, &reason);
            }
        }
    }

    /// Reads the object again, at once or after a pause, unless too many attempts failed.
    fn retry(&mut self, write: Write, pause: Option<Duration>, reason: &str) {
        if self.state.signals > 0 && self.can_skip(&write) && !write.lost_answer {
            return self.skip_write(&write);
        }
        if write.attempts >= MAX_ATTEMPTS || write.unreachable == Unreachable::TooLong {
            return self.give_up(&write, &format!("{} attempts failed: {reason}", write.attempts));
        }
        self.state.phase = Phase::Writing(write);
        match pause {
            Some(pause) => self.start_timer(Timer::Retry, pause),
            None => self.operate(Effect::Read),
        }
    }

    /// Whether a write is pointless after a signal.
    fn can_skip(&self, write: &Write) -> bool {
        match &write.intent {
            Intent::Begin { .. } | Intent::Advance | Intent::TakeOver { .. } | Intent::RequestAbort { .. } => true,
            Intent::Close(close) => !matches!(close, Close::Held { .. }),
            Intent::RollBack(rollback) => rollback.cause == Cause::Undo,
        }
    }

    /// Ends the run instead of a write, after a signal.
    fn skip_write(&mut self, write: &Write) {
        if self.state.is_applied {
            return self.end_interrupted();
        }
        self.fail(FailureReport::interrupted().hint(self.outcome_hint(write)));
    }

    /// Handles the first signal during a write. A patch in flight, or one whose answer was lost, is awaited.
    pub(super) fn interrupt_write(&mut self, write: Write) {
        let may_be_stored = self.state.operation == Some(Operation::Patch) || write.lost_answer;
        if may_be_stored || !self.can_skip(&write) {
            self.state.phase = Phase::Writing(write);
            return;
        }
        self.skip_write(&write);
    }

    /// What is known about the weights when a run ends without a write.
    fn outcome_hint(&self, write: &Write) -> String {
        let argument = &self.run.argument;
        match (write.lost_answer, &write.intent) {
            (true, Intent::Begin { .. }) => format!(
                "the weights may be applied: check with kubectl grpcmesh shift {argument} --status, then use --resume or --undo"
            ),
            (true, _) => format!("the change may be applied: check with kubectl grpcmesh shift {argument} --status"),
            (false, _) => NOTHING_APPLIED.to_owned(),
        }
    }

    /// Ends a write that other clients, or an unreachable API server, prevent.
    fn give_up(&mut self, write: &Write, reason: &str) {
        let (title, argument) = (&self.run.title, &self.run.argument);
        match &write.intent {
            Intent::Begin { .. } | Intent::RequestAbort { .. } | Intent::TakeOver { .. } => {
                let failure = FailureReport::unavailable(format!("cannot patch {title}")).cause(reason);
                self.fail(failure.hint(format!("{}; run the command again", self.outcome_hint(write))));
            }
            Intent::Advance if write.unreachable != Unreachable::TooLong => {
                self.hold(format!("the next step could not be applied: {reason}"), HoldEnding::Partial);
            }
            Intent::Advance => {
                let failure =
                    FailureReport::unavailable(format!("cannot apply the next step of {title}")).cause(reason);
                self.fail(
                    failure
                        .hint(format!("the last applied weights stay; {}", self.undo_hint()))
                        .hint(format!("to continue: kubectl grpcmesh shift {argument} --resume")),
                );
            }
            Intent::Close(close) => self.not_closed(close.clone(), reason),
            Intent::RollBack(_) => self.fail(self.rollback_failure(write).cause(reason)),
        }
    }

    /// Ends a write that the API server rejects.
    fn refused(&mut self, write: &Write, reason: &str, failure: FailureReport) {
        match &write.intent {
            Intent::Advance => self.hold(format!("the next step was not applied: {reason}"), HoldEnding::Partial),
            Intent::Close(close) => self.not_closed(close.clone(), reason),
            Intent::RollBack(_) => self.fail(self.rollback_failure(write).cause(reason)),
            Intent::Begin { .. } | Intent::TakeOver { .. } | Intent::RequestAbort { .. } => {
                self.fail(failure.hint(self.outcome_hint(write)));
            }
        }
    }

    /// Goes on after a write that is stored.
    fn written(&mut self, write: Write) {
        let Some(stored) = write.proposed else { return };
        match write.intent {
            Intent::Begin { .. } => {
                self.own(*stored);
                let entry = self.entry();
                let message = format!("weights applied by {}, session {}", entry.user, entry.session);
                self.emit_applied(message);
                self.go_on_after_step();
            }
            Intent::Advance => {
                self.own(*stored);
                let entry = self.entry();
                let desired = entry.plan.get(entry.step as usize - 1).cloned().unwrap_or_default();
                self.emit_applied(format!("step {} of {}: {desired}", entry.step, entry.plan.len()));
                self.go_on_after_step();
            }
            Intent::TakeOver { .. } => {
                self.own(*stored);
                self.go_on_after_step();
            }
            Intent::RequestAbort { .. } => self.await_abort(),
            Intent::Close(close) => self.closed(close),
            Intent::RollBack(rollback) => self.rolled_back(rollback, write.restored),
        }
    }

    /// Takes an applied entry as the one of this run. The verdicts of this run are newer than those of a stored entry.
    fn own(&mut self, stored: ShiftEntry) {
        let verdicts = match self.state.entry.take() {
            Some(entry) if !entry.verdicts.is_empty() => entry.verdicts,
            _ => stored.verdicts.clone(),
        };
        self.state.entry = Some(Box::new(ShiftEntry { verdicts, ..stored }));
        self.state.is_applied = true;
        self.effects.push(Effect::Applied);
    }

    fn emit_applied(&mut self, message: String) {
        let weights = weights_by_backend(self.run.kind, &self.entry().rules, |rule| &rule.applied);
        self.emit(ShiftEventType::Applied, message, NoticeDetails::Weights(weights));
    }

    /// Goes on after the weights of a step are applied.
    fn go_on_after_step(&mut self) {
        if self.state.signals > 0 {
            return self.end_interrupted();
        }
        if self.run.settings.acknowledges {
            return self.acknowledge();
        }
        if self.is_last_step() && self.run.settings.analysis.is_none() {
            return self.write(Intent::Close(Close::Unacknowledged), WriteFrom::ObjectAtHand);
        }
        self.start_step();
    }

    pub(super) fn rejected_failure(&self, reason: &str) -> FailureReport {
        FailureReport::unavailable(format!("cannot patch {}: the API server rejected the patch", self.run.title))
            .cause(reason)
    }

    fn rollback_failure(&self, write: &Write) -> FailureReport {
        let failure = FailureReport::unavailable(format!("cannot roll back {}", self.run.title));
        if write.lost_answer {
            return failure.hint(self.outcome_hint(write));
        }
        failure.hint(format!("the new weights stay; {}", self.undo_hint()))
    }

    pub(super) fn fail_unreadable_record(&mut self, error: &RecordError) {
        self.fail(self.unreadable_record_failure(error));
    }

    fn unreadable_record_failure(&self, error: &RecordError) -> FailureReport {
        let failure = FailureReport::unavailable(format!("cannot read the shift record of {}", self.run.title))
            .cause(error.to_string());
        let failure = match error {
            RecordError::NewerVersion(_) => failure.hint("upgrade kubectl-grpcmesh to the version that wrote it"),
            RecordError::Malformed(_) => failure.hint("to start over, remove the annotation grpcmesh.io/shift"),
        };
        if self.state.is_applied {
            failure.hint("the last applied weights stay; nothing more is written")
        } else {
            failure
        }
    }
}

/// The rules of an object that has the weights and the open entry of a run.
pub(super) struct Owned {
    pub(super) rules: Vec<RuleSplit>,
    /// User and time of a request to abort.
    pub(super) abort_requested_by: Option<String>,
}

/// Verifies that an object has the weights of an entry, and that the entry is open.
pub(super) fn verify(
    kind: crate::schema::Kind,
    object: &Value,
    record: &ShiftRecord,
    entry: &ShiftEntry,
) -> Result<Owned, LostControl> {
    let open = record.open_entry_of(&entry.session);
    // A later step of this run may be stored although its answer was lost: the record knows its weights.
    let rules = open.map_or(&entry.rules, |open| &open.rules);
    let rules: Result<Vec<RuleSplit>, LostControl> =
        rules.iter().map(|rule| rule.find_unchanged(kind, object)).collect();
    let rules = rules?;
    let open = open.ok_or(LostControl::AnotherSession)?;
    Ok(Owned { rules, abort_requested_by: open.abort_requested_by.clone() })
}

fn resource_version(object: &Value) -> Option<String> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).map(str::to_owned)
}

/// Whether more than the status of an object changed.
fn is_changed(before: &Value, now: &Value) -> bool {
    let is_same = |pointer: &str| before.pointer(pointer) == now.pointer(pointer);
    !(is_same("/spec") && is_same("/metadata/labels") && is_same("/metadata/uid") && is_same(&patch::record_pointer()))
}

/// Whether the record says that an entry was rolled back.
fn is_rolled_back(recorded: &ShiftEntry, entry: &ShiftEntry, target: RollbackTarget) -> bool {
    match target {
        RollbackTarget::Previous if entry.step > 1 => {
            recorded.state == ShiftState::Held && recorded.step + 1 == entry.step
        }
        RollbackTarget::Start | RollbackTarget::Previous => recorded.state == ShiftState::RolledBack,
    }
}

/// Records the rollback of an entry. After a rollback to the previous step the entry is held at that step.
fn mark_rolled_back(recorded: &mut ShiftEntry, entry: &ShiftEntry, target: RollbackTarget, reason: &str) {
    (recorded.state, recorded.deadline) = (ShiftState::RolledBack, None);
    recorded.verdicts.clone_from(&entry.verdicts);
    reason.clone_into(&mut recorded.message);
    if target == RollbackTarget::Previous && entry.step > 1 {
        (recorded.state, recorded.step) = (ShiftState::Held, entry.step - 1);
        for rule in &mut recorded.rules {
            rule.applied = rule.weights_at(target).to_vec();
            rule.previous.clear();
        }
    }
}
