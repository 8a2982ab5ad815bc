//! How a run ends: rollback, hold, loss of control, and the last events.

use std::time::Duration;

use super::super::notice::{NoticeDetails, ProxyAckCounts, ShiftEventType};
use super::super::patch;
use super::super::record::{LostControl, RollbackTarget, RuleRecord, ShiftEntry, last_writer, weights_by_backend};
use super::starting::NOTHING_APPLIED;
use super::waiting::{Monitor, RollbackAck};
use super::writing::{Close, Intent, WriteFrom};
use super::{Effect, Ending, Event, FailureAction, FailureReport, Operation, Phase, ReadResult, Step, Timer};

/// How long an interrupted run waits for the proxies after its rollback.
const INTERRUPTED_ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the check before a rollback may take.
const ROLLBACK_CHECK_LIMIT: Duration = Duration::from_secs(3);

/// A rollback and what led to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rollback {
    pub(super) cause: Cause,
    pub(super) reason: String,
}

/// What leads to a rollback. It decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// A bad verdict, or a canary without ready pods.
    Verdict,
    /// Proxies that do not follow.
    Acknowledgement,
    /// Another user's `--abort`.
    Abort,
    /// The answer to a question.
    User,
    /// A signal.
    Interrupt,
    /// `--undo`.
    Undo,
}

/// How a run ends that keeps the new weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum HoldEnding {
    Partial,
    /// The process was interrupted.
    Interrupted,
    /// A rollback is impossible.
    CannotRollBack {
        is_interrupted: bool,
    },
}

impl HoldEnding {
    /// Whether a request to abort that arrives meanwhile leads to a rollback.
    pub(super) fn yields_to_abort(self) -> bool {
        self == Self::Partial
    }
}

impl Step<'_> {
    /// Rolls back, after a check that the pods that get more calls exist.
    pub(super) fn roll_back(&mut self, cause: Cause, reason: impl Into<String>) {
        let rollback = Rollback { cause, reason: reason.into() };
        if cause == Cause::Undo && self.run.settings.force {
            return self.write(Intent::RollBack(rollback), WriteFrom::ObjectAtHand);
        }
        let target = self.run.settings.rollback_to;
        let entry = Box::new(self.entry());
        let Some(restored) = patch::rolled_back(self.run.kind, &self.state.object, &entry, target) else {
            // The weights are not those of this run: reading the object tells whose they are.
            return self.write(Intent::RollBack(rollback), WriteFrom::FreshObject);
        };
        let rules = restored_rules(self.run.kind, &self.state.object, &entry, target);
        let rules = rules.iter().map(|rule| rule.rule).collect();
        let (object, limit) = (restored.into(), ROLLBACK_CHECK_LIMIT);
        self.enter(Phase::CheckingRollback(rollback));
        self.operate(Effect::CheckRollback { object, entry, rules, target, limit });
    }

    pub(super) fn checking_rollback(&mut self, rollback: Rollback, event: Event) {
        match event {
            Event::RollbackChecked(None) => self.write(Intent::RollBack(rollback), WriteFrom::ObjectAtHand),
            Event::RollbackChecked(Some(blocker)) if rollback.cause == Cause::Undo => {
                let failure = FailureReport::unavailable(format!("cannot roll back {}: {blocker}", self.run.title));
                self.fail(failure.hint("nothing was applied; to roll back anyway: --force"));
            }
            Event::RollbackChecked(Some(blocker)) => {
                let is_interrupted = rollback.cause == Cause::Interrupt || self.state.signals > 0;
                let reason = format!("{}; cannot roll back: {blocker}", rollback.reason);
                self.hold(reason, HoldEnding::CannotRollBack { is_interrupted });
            }
            _ => self.state.phase = Phase::CheckingRollback(rollback),
        }
    }

    /// Goes on after a rollback is stored.
    pub(super) fn rolled_back(&mut self, rollback: Rollback, rules: Vec<RuleRecord>) {
        let (entry, target) = (self.entry(), self.run.settings.rollback_to);
        let restored = match target {
            RollbackTarget::Previous if entry.step > 1 => "restored the weights of the previous step",
            RollbackTarget::Start | RollbackTarget::Previous => "restored the weights from before the shift",
        };
        let weights = weights_by_backend(self.run.kind, &entry.rules, |rule| rule.weights_at(target));
        let message = format!("{}; {restored}", rollback.reason);
        self.emit(ShiftEventType::RolledBack, message, NoticeDetails::RolledBack { target, weights });
        self.state.is_applied = false;
        if !self.run.settings.acknowledges {
            return self.end_rollback(rollback.cause, false);
        }
        let is_interrupted = rollback.cause == Cause::Interrupt || self.state.signals > 0;
        let limit = if is_interrupted { INTERRUPTED_ACK_TIMEOUT } else { self.run.settings.ack_timeout };
        self.enter(Phase::AcknowledgingRollback(RollbackAck::new(rollback.cause, rules)));
        self.start_timer(Timer::Ack, limit);
        self.start_monitor(super::waiting::ACK_MONITOR_INTERVAL);
        self.query_restored();
    }

    /// Ends a run after its rollback.
    pub(super) fn end_rollback(&mut self, cause: Cause, is_partial: bool) {
        if cause == Cause::Interrupt || self.state.signals > 0 {
            return self.fail(FailureReport::interrupted());
        }
        self.finish(match (cause, is_partial) {
            (Cause::Undo, true) => Ending::Partial,
            (Cause::Undo, false) => Ending::Clean,
            (Cause::Verdict | Cause::Acknowledgement | Cause::Abort | Cause::User | Cause::Interrupt, _) => {
                Ending::Found
            }
        });
    }

    fn query_restored(&mut self) {
        let Phase::AcknowledgingRollback(ack) = &self.state.phase else { return };
        let found = ack.rules.iter().map(|rule| rule.find_unchanged(self.run.kind, &self.state.object));
        let rules: Result<Vec<usize>, LostControl> = found.map(|split| split.map(|split| split.rule)).collect();
        match rules {
            Ok(rules) => {
                let object = self.state.object.clone();
                self.operate(Effect::QueryProxies { object, rules });
            }
            Err(lost) => self.superseded(&lost),
        }
    }

    pub(super) fn acknowledging_rollback(&mut self, mut ack: RollbackAck, event: Event) {
        match event {
            Event::Proxies(Ok(counts)) => ack.last = counts,
            Event::Proxies(Err(message)) => self.report_failed_read(message),
            Event::Timer(Timer::Ack) => ack.is_over = true,
            Event::Timer(Timer::Monitor) => ack.monitor.read_due = true,
            Event::Timer(Timer::Poll) => ack.monitor.poll_due = true,
            Event::Read(ReadResult::Object(object)) => {
                if self.identity_loss(&object).is_some() {
                    return self.superseded_in(ack, &LostControl::ObjectReplaced);
                }
                self.state.object = object;
                self.start_timer(Timer::Monitor, super::waiting::ACK_MONITOR_INTERVAL);
                ack.monitor.poll_due = true;
            }
            Event::Read(ReadResult::NotFound) => return self.superseded_in(ack, &LostControl::ObjectDeleted),
            Event::Read(ReadResult::Failed { message }) => {
                self.report_failed_read(message);
                self.start_timer(Timer::Monitor, super::waiting::ACK_MONITOR_INTERVAL);
            }
            _ => {}
        }
        if self.state.operation.is_some() {
            self.state.phase = Phase::AcknowledgingRollback(ack);
            return;
        }
        let counts = ack.last.clone();
        let is_synced = counts.stale.is_empty() && counts.rejected.is_empty() && counts.synced > 0;
        if is_synced {
            let message = format!("{} of {} proxies run the restored weights", counts.synced, counts.total);
            let is_partial = counts.synced < counts.total;
            self.emit(ShiftEventType::Acknowledged, message, NoticeDetails::Proxies(counts));
            return self.end_rollback(ack.cause, is_partial);
        }
        if ack.is_over || !counts.rejected.is_empty() {
            let reason = self.not_synced_reason(&counts);
            self.emit(ShiftEventType::Acknowledged, reason, NoticeDetails::Proxies(counts));
            return self.end_rollback(ack.cause, true);
        }
        let (read_due, poll_due) = (ack.monitor.take_read(), ack.monitor.take_poll());
        self.state.phase = Phase::AcknowledgingRollback(ack);
        match (read_due, poll_due) {
            (true, _) => self.operate(Effect::Read),
            (false, true) => self.query_restored(),
            (false, false) => self.start_timer(Timer::Poll, super::waiting::POLL_INTERVAL),
        }
    }

    /// Ends the wait for the restored weights: another client changed them, which is allowed after a rollback.
    fn superseded(&mut self, lost: &LostControl) {
        let Phase::AcknowledgingRollback(ack) = self.state.phase.clone() else { return };
        self.superseded_in(ack, lost);
    }

    fn superseded_in(&mut self, ack: RollbackAck, lost: &LostControl) {
        let message = format!("the rollback is applied, and its proxies are not awaited any longer: {lost}");
        let counts = ProxyAckCounts { synced: ack.last.synced, total: ack.last.total, ..ProxyAckCounts::default() };
        self.emit(ShiftEventType::Acknowledged, message, NoticeDetails::Proxies(counts));
        self.end_rollback(ack.cause, false);
    }

    /// Ends the shift and keeps the new weights.
    pub(super) fn hold(&mut self, reason: impl Into<String>, ending: HoldEnding) {
        let close = Close::Held { reason: reason.into(), ending };
        self.write(Intent::Close(close), WriteFrom::ObjectAtHand);
    }

    /// Ends a run whose record is closed.
    pub(super) fn closed(&mut self, close: Close) {
        let undo = self.undo_hint();
        match close {
            Close::Done { .. } => {
                self.emit(ShiftEventType::Done, format!("the shift is finished; {undo}"), NoticeDetails::None);
                self.finish(if self.state.is_partial { Ending::Partial } else { Ending::Clean });
            }
            Close::Unacknowledged => {
                let message = format!("the weights are applied; proxies were not checked (--ack none); {undo}");
                self.emit(ShiftEventType::Held, message, NoticeDetails::None);
                self.finish(Ending::Clean);
            }
            Close::Held { reason, ending } => self.held(&reason, ending),
        }
    }

    fn held(&mut self, reason: &str, ending: HoldEnding) {
        let message = format!("{reason}; the new weights stay; {}", self.undo_hint());
        self.emit(ShiftEventType::Held, message, NoticeDetails::None);
        let is_interrupted = match ending {
            HoldEnding::Interrupted => true,
            HoldEnding::CannotRollBack { is_interrupted } => is_interrupted,
            HoldEnding::Partial => self.state.signals > 0,
        };
        if is_interrupted {
            return self.fail(FailureReport::interrupted());
        }
        self.finish(Ending::Partial);
    }

    /// Ends a run whose record cannot be closed. The weights are what they should be, but the shift is not finished.
    pub(super) fn not_closed(&mut self, close: Close, reason: &str) {
        let argument = &self.run.argument;
        let status = format!("check it with: kubectl grpcmesh shift {argument} --status");
        match close {
            Close::Done { .. } | Close::Unacknowledged => {
                let reason = format!("the weights are applied, but the record of the shift cannot be closed: {reason}");
                self.warn(status);
                self.held(&reason, HoldEnding::Partial);
            }
            Close::Held { reason: held, ending } => {
                self.warn(format!("cannot close the shift record: {reason}; {status}"));
                self.held(&held, ending);
            }
        }
    }

    pub(super) fn object_not_found(&mut self) {
        if self.state.is_applied {
            return self.lost_control(&LostControl::ObjectDeleted);
        }
        self.fail(self.not_found_failure());
    }

    pub(super) fn not_found_failure(&self) -> FailureReport {
        FailureReport::unavailable(format!("{} not found: it was deleted", self.run.title))
    }

    /// Handles a request to end the process. The first one ends the shift as `--on-interrupt` says, and does not stop a
    /// rollback; a second one ends at once.
    pub(super) fn interrupted(&mut self) {
        self.state.signals = (self.state.signals + 1).min(2);
        let phase = self.state.phase.clone();
        if self.state.signals > 1 {
            return self.exit_immediately(&phase);
        }
        match phase {
            Phase::Checking => self.fail(FailureReport::interrupted().hint(NOTHING_APPLIED)),
            Phase::Confirming | Phase::CountingBaseline(_) => {
                self.effects.push(Effect::CancelPrompt);
                self.fail(FailureReport::interrupted().hint(NOTHING_APPLIED));
            }
            Phase::Writing(write) => self.interrupt_write(write),
            Phase::Acknowledging(_) | Phase::Analyzing(_) | Phase::Pausing(_) | Phase::AskingNextStep(_) => {
                self.effects.push(Effect::CancelPrompt);
                self.end_interrupted();
            }
            Phase::CheckingRollback(Rollback { cause: Cause::Undo, .. }) => {
                self.fail(FailureReport::interrupted().hint(NOTHING_APPLIED));
            }
            Phase::CheckingRollback(_) | Phase::Finished => {}
            Phase::AcknowledgingRollback(_) => self.fail(FailureReport::interrupted()),
            Phase::AwaitingAbort(_) => {
                self.fail(FailureReport::interrupted().hint("the request to abort is recorded"));
            }
        }
    }

    /// Ends an interrupted shift as `--on-interrupt` says.
    pub(super) fn end_interrupted(&mut self) {
        match self.run.settings.on_interrupt {
            FailureAction::Hold => self.hold("interrupted", HoldEnding::Interrupted),
            FailureAction::Rollback => self.roll_back(Cause::Interrupt, "interrupted"),
        }
    }

    fn exit_immediately(&mut self, phase: &Phase) {
        let is_in_flight = self.state.operation == Some(Operation::Patch);
        let has_lost_answer = matches!(phase, Phase::Writing(write) if write.lost_answer);
        let failure = if matches!(phase, Phase::AcknowledgingRollback(_)) {
            FailureReport::interrupted()
        } else if self.state.is_applied || is_in_flight || has_lost_answer {
            FailureReport::interrupted().hint(format!("the new weights may still be applied; {}", self.undo_hint()))
        } else {
            FailureReport::interrupted().hint(NOTHING_APPLIED)
        };
        self.effects.push(Effect::CancelPrompt);
        self.fail(failure);
    }

    /// Ends a run that lost control of the object, without another write.
    pub(super) fn lost_control(&mut self, lost: &LostControl) {
        // Only a shift, or one that is resumed, applies weights of its own.
        if !self.state.is_applied {
            return self.fail(self.lost_control_failure(lost));
        }
        let message = match lost {
            LostControl::ObjectDeleted => lost.to_string(),
            _ => format!("{lost} (last written by {})", last_writer(&self.state.object)),
        };
        self.emit(ShiftEventType::LostControl, message.clone(), NoticeDetails::LostControl(lost.reason()));
        let failure = FailureReport::unavailable(format!("lost control of {}: {message}", self.run.title));
        let argument = &self.run.argument;
        self.fail(match lost {
            LostControl::ObjectDeleted => failure.hint("nothing more is written"),
            _ => failure.hint(format!(
                "nothing more is written; its shifts and weights: kubectl grpcmesh shift {argument} --status"
            )),
        });
    }

    pub(super) fn lost_control_failure(&self, lost: &LostControl) -> FailureReport {
        let argument = &self.run.argument;
        FailureReport::unavailable(format!("lost control of {}: {lost}", self.run.title))
            .hint(format!("nothing was overwritten; earlier weights: kubectl grpcmesh shift {argument} --history"))
    }
}

/// The rules of an entry as a rollback leaves them; rules that the object does not have are missing.
pub(super) fn restored_rules(
    kind: crate::schema::Kind,
    object: &serde_json::Value,
    entry: &ShiftEntry,
    target: RollbackTarget,
) -> Vec<RuleRecord> {
    let restore = |rule: &RuleRecord| {
        let mut split = rule.find_unchanged(kind, object).ok()?;
        let weights = rule.weights_at(target).to_vec();
        split.backends.truncate(weights.len());
        let backends = rule.backends.iter().take(weights.len()).cloned().collect();
        Some(RuleRecord {
            rule: split.rule,
            identity: split.identity(),
            backends,
            start: weights.clone(),
            applied: weights,
            previous: Vec::new(),
        })
    };
    entry.rules.iter().filter_map(restore).collect()
}

impl RollbackAck {
    fn new(cause: Cause, rules: Vec<RuleRecord>) -> Self {
        Self { cause, rules, monitor: Monitor::default(), is_over: false, last: ProxyAckCounts::default() }
    }
}
