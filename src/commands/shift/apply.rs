//! Writing: weights with what they rest on, how a shift ended, and the weights from before.

use std::time::Duration;

use serde_json::Value;

use super::PatchOutcome;
use super::analysis::CanaryAnalysis;
use super::rollback::StopReason;
use super::session::ShiftSession;
use crate::cli::env::Env;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::report::shift::weights;
use crate::schema::Kind;
use crate::shift::patch;
use crate::shift::plan::RulePlan;
use crate::shift::record::{
    LostControl, RollbackTarget, RuleRecord, ShiftEntry, ShiftRecord, ShiftState, weights_by_name,
};

/// Times that a write is tried again after somebody else's.
const TRIES: u32 = 5;
/// How long a write that must not be given up waits for an API server that is away.
const PATIENCE: Duration = Duration::from_mins(1);
/// Pause before something is tried again.
const AGAIN: Duration = Duration::from_millis(300);

impl ShiftSession<'_, '_> {
    /// Writes, and sees that the proxies follow; if they do not, what was asked for in that case.
    pub(super) async fn write_and_follow(
        &mut self,
        plans: &[RulePlan],
        object: Value,
        mut entry: ShiftEntry,
        guard: Option<CanaryAnalysis>,
    ) -> Result<CommandOutcome, Failure> {
        self.write(plans, object, &mut entry).await?;
        self.is_written = true;
        self.tell("written", &format!("session {} by {}", entry.session, entry.by), |event| {
            event.weights = weights(plans);
        })?;
        self.walk(entry, guard).await
    }

    /// Writes plans; what somebody else wrote in between that is not about the weights is no reason to stop.
    async fn write(&mut self, plans: &[RulePlan], first: Value, entry: &mut ShiftEntry) -> Result<(), Failure> {
        let mut object = first.clone();
        for attempt in 0..TRIES {
            if self.is_interrupted() {
                return Err(Failure::interrupted().hint("nothing is written"));
            }
            let mut record = self.record(&object)?;
            if let Some(open) = record.entries.first_mut().filter(|one| one.state == ShiftState::Open) {
                (open.state, open.until) = (ShiftState::Held, None);
                open.message = format!("taken over by session {}", entry.session);
            }
            (entry.number, entry.at) = (record.next_number(), Env::clock());
            entry.until = Some(Env::clock_in(self.step_time()));
            record.push(entry.clone());
            let operations = patch::shift(&object, plans, &record);
            if attempt > 0
                && let Some(why) = self.look_again(&object, &operations, plans).await?
            {
                return Err(Failure::source(why).hint("nothing is written"));
            }
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(PatchOutcome::Stored(_)) => return Ok(()),
                Ok(PatchOutcome::Refused(why)) => {
                    return Err(Failure::source(format!("the server refuses it: {why}")).hint("nothing is written"));
                }
                Ok(PatchOutcome::Forbidden(why)) => return Err(forbidden(&why)),
                Ok(PatchOutcome::Conflict) => {}
                // Whether it was stored is seen below.
                Err(error) => self.context.messages.warning(&error.message),
            }
            object = self.look().await.map_err(|failure| {
                let word = self.target.word();
                failure.hint(format!(
                    "the weights may be written: kubectl grpcmesh shift {word} --history, then --resume or --undo"
                ))
            })?;
            if self.record(&object)?.of_run(&entry.session).is_some() {
                return Ok(());
            }
            if Self::is_changed(&first, &object) {
                return Err(self.changed(&object));
            }
        }
        Err(Failure::source(format!("{} could not be written: {TRIES} tries failed", self.target.title()))
            .hint("nothing is written; try again"))
    }

    /// The object as it is; an API server that is away for a moment is asked again.
    pub(super) async fn look(&self) -> Result<Value, Failure> {
        let mut tries = 0;
        loop {
            match self.server.object(&self.target.key, &self.target.api_version).await {
                Ok(Some(object)) => return Ok(object),
                Ok(None) => return Err(Failure::source(format!("{} is gone", self.target.title()))),
                Err(error) if tries == TRIES => return Err(error.into()),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
            tries += 1;
        }
    }

    /// As [`Self::look`], for when there is something to write that must not be given up for an API server that is away:
    /// for a minute; `None` when the program was asked to end more than so many times.
    pub(super) async fn look_long(&self, times: u32) -> Result<Option<Value>, Failure> {
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut is_told = false;
        loop {
            let looked = tokio::select! {
                biased;
                () = self.asked_to_end(times) => return Ok(None),
                looked = self.look() => looked,
            };
            match looked {
                Ok(object) => return Ok(Some(object)),
                Err(failure) if tokio::time::Instant::now() >= end => {
                    return Err(failure.hint(format!("the weights are as they were written last; {}", self.way_back())));
                }
                Err(failure) if !is_told => {
                    is_told = true;
                    self.context.messages.warning(&failure.message);
                }
                Err(_) => {}
            }
        }
    }

    /// Whether somebody changed more of an object than its status.
    pub(super) fn is_changed(first: &Value, now: &Value) -> bool {
        let same = |part: &str| first.pointer(part) == now.pointer(part);
        let record = "/metadata/annotations/grpcmesh.io~1shift";
        !(same("/spec") && same("/metadata/labels") && same("/metadata/uid") && same(record))
    }

    /// The failure that tells of it.
    pub(super) fn changed(&self, object: &Value) -> Failure {
        let who = last_writer(object);
        Failure::source(format!("{who} changed {} in the meantime", self.target.title()))
            .hint("nothing is written; look at it and shift again")
    }

    /// The record of an object; one that cannot be read is nothing to write over.
    fn record(&self, object: &Value) -> Result<ShiftRecord, Failure> {
        ShiftRecord::of(object).map_err(|error| {
            Failure::source(format!("the record of {} cannot be read", self.target.title())).cause(error)
        })
    }

    /// Notes how our shift stands. Where it is not ours any more, or cannot be noted, that is said and is no failure: the
    /// weights are what they are.
    /// What was asked for until then, to go back, comes first, and is given.
    pub(super) async fn end(&mut self, entry: &ShiftEntry, state: ShiftState, message: &str) -> Option<StopReason> {
        for _ in 0..TRIES {
            let Ok(Some(object)) = self.look_long(1).await else { break };
            let Ok(mut record) = ShiftRecord::of(&object) else { break };
            let Some(ours) = record.of_run(&entry.session) else { break };
            if let (ShiftState::Done, Some(who)) = (state, &ours.abort) {
                return Some(StopReason::Aborted(format!("aborted by {who}")));
            }
            (ours.state, ours.until) = (state, None);
            message.clone_into(&mut ours.message);
            ours.verdicts.clone_from(&entry.verdicts);
            let Ok(operations) = patch::note(self.target.key.kind, &object, &record) else { break };
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(PatchOutcome::Stored(_)) => return None,
                Ok(PatchOutcome::Conflict) | Err(_) => tokio::time::sleep(AGAIN).await,
                Ok(PatchOutcome::Refused(_) | PatchOutcome::Forbidden(_)) => break,
            }
        }
        let word = self.target.word();
        self.context
            .messages
            .warning(&format!("the record could not be ended: kubectl grpcmesh shift {word} --history"));
        None
    }

    /// Makes a shift that was cut off our own.
    pub(super) async fn take(&mut self, entry: &mut ShiftEntry) -> Result<(), Failure> {
        let (id, until) = (self.id.clone(), Env::clock_in(self.step_time()));
        let taken =
            self.amend(&entry.session, |open| (open.session, open.until) = (id.clone(), Some(until.clone()))).await?;
        *entry = taken.ok_or_else(|| Failure::source("another run is at it").hint("see how it stands: --history"))?;
        Ok(())
    }

    /// Puts down that somebody wants a run to go back; it sees that at its next look. One that has ended wants nothing.
    pub(super) async fn ask_to_abort(&mut self, entry: &ShiftEntry) -> Result<(), Failure> {
        let who = self.server.who_am_i().await.unwrap_or_else(|_| "somebody".to_owned());
        let wish = format!("{who} at {}", Env::clock());
        self.amend(&entry.session, |open| open.abort = Some(wish.clone())).await.map(drop)
    }

    /// Changes what the record says of an open run, and gives it; `None` when that run is not at it any more.
    async fn amend(&self, session: &str, change: impl Fn(&mut ShiftEntry)) -> Result<Option<ShiftEntry>, Failure> {
        for _ in 0..TRIES {
            let object = self.look().await?;
            let mut record = self.record(&object)?;
            let Some(open) = record.of_run(session) else { return Ok(None) };
            change(open);
            let amended = open.clone();
            let operations = patch::note(self.target.key.kind, &object, &record).map_err(|lost| self.lost(&lost))?;
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await? {
                PatchOutcome::Stored(_) => return Ok(Some(amended)),
                PatchOutcome::Conflict => tokio::time::sleep(AGAIN).await,
                PatchOutcome::Forbidden(why) => return Err(forbidden(&why)),
                PatchOutcome::Refused(why) => return Err(Failure::source(format!("the server refuses it: {why}"))),
            }
        }
        Err(Failure::source("the record could not be written: somebody writes the object all the time")
            .hint("try again"))
    }

    /// Writes the weights from before an entry, if they are still those that it wrote; gives the rules as they are then.
    /// With `only_ours` no other run may have come in between.
    pub(super) async fn roll_back(
        &mut self,
        entry: &ShiftEntry,
        why: &str,
        only_ours: bool,
    ) -> Result<Vec<RuleRecord>, Failure> {
        let back: RollbackTarget = self.arguments.rollback_to.into();
        let mut before: Option<Vec<RuleRecord>> = None;
        let by_hand = |word: &str| format!("by hand: kubectl grpcmesh shift {word} --undo");
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut conflicts = 0;
        while conflicts < TRIES && tokio::time::Instant::now() < end {
            let Some(object) = self.look_long(1).await? else { return Err(Failure::interrupted()) };
            let mut record = self.record(&object)?;
            let one = record.entries.first_mut().filter(|one| one.session == entry.session);
            let stands = |one: &ShiftEntry| one.state == ShiftState::Open || before.is_some();
            let Some(one) = one.filter(|one| !only_ours || stands(one)) else {
                return Err(Failure::source("lost control: another run has come in between").hint(format!(
                    "nothing is written over it: kubectl grpcmesh shift {} --history",
                    self.target.word()
                )));
            };
            // The answer to our patch was lost.
            if let (Some(restored), true) = (&before, is_back(one, entry, back)) {
                self.tell_back(entry, back, why)?;
                return Ok(restored.clone());
            }
            note_way_back(one, entry, back, why);
            let operations =
                patch::back(self.target.key.kind, &object, entry, back, &record).map_err(|lost| self.lost(&lost))?;
            let restored = restored(self.target.key.kind, &object, entry, back);
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(PatchOutcome::Stored(_)) => {
                    self.tell_back(entry, back, why)?;
                    return Ok(restored);
                }
                Ok(PatchOutcome::Conflict) => conflicts += 1,
                Ok(PatchOutcome::Refused(why) | PatchOutcome::Forbidden(why)) => {
                    return Err(Failure::source(format!("the weights from before could not be written: {why}"))
                        .hint(by_hand(&self.target.word())));
                }
                Err(error) => {
                    before = Some(restored);
                    self.context.messages.warning(&error.message);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        Err(Failure::source("the weights from before could not be written").hint(by_hand(&self.target.word())))
    }

    fn tell_back(&mut self, entry: &ShiftEntry, back: RollbackTarget, why: &str) -> Result<(), Failure> {
        let now = match back {
            RollbackTarget::Previous if entry.step > 1 => "the weights are those of the step before",
            RollbackTarget::Start | RollbackTarget::Previous => "the weights are as before",
        };
        let weights = weights_by_name(self.target.key.kind, &entry.rules, |rule| rule.weights(back));
        self.tell("rolled-back", &format!("{why}; {now}"), |event| event.weights = weights)
    }

    pub(super) fn lost(&self, lost: &LostControl) -> Failure {
        let word = self.target.word();
        Failure::source(format!("lost control: {lost}"))
            .hint(format!("nothing is written over it; what was there before: kubectl grpcmesh shift {word} --history"))
    }

    /// The command that undoes it.
    pub(super) fn way_back(&self) -> String {
        format!("the way back: kubectl grpcmesh shift {} --undo", self.target.word())
    }
}

/// The right to write is missing.
pub(super) fn forbidden(why: &str) -> Failure {
    Failure::source(format!("the right to shift is missing: {why}"))
        .hint("it is patch on the object: docs/rbac/shifter.yaml")
}

/// Whether the record says that an entry is taken back.
fn is_back(one: &ShiftEntry, entry: &ShiftEntry, back: RollbackTarget) -> bool {
    match back {
        RollbackTarget::Previous if entry.step > 1 => one.state == ShiftState::Held && one.step + 1 == entry.step,
        RollbackTarget::Start | RollbackTarget::Previous => one.state == ShiftState::RolledBack,
    }
}

/// Puts down that an entry is taken back. What goes back to the step before stands with that step's weights.
fn note_way_back(one: &mut ShiftEntry, entry: &ShiftEntry, back: RollbackTarget, why: &str) {
    (one.state, one.until) = (ShiftState::RolledBack, None);
    one.verdicts.clone_from(&entry.verdicts);
    why.clone_into(&mut one.message);
    if back == RollbackTarget::Previous && entry.step > 1 {
        (one.state, one.step) = (ShiftState::Held, entry.step - 1);
        for rule in &mut one.rules {
            rule.wrote = rule.weights(back).to_vec();
            rule.previous.clear();
        }
    }
}

/// The rules of an entry as they are when its weights are taken back.
fn restored(kind: Kind, object: &Value, entry: &ShiftEntry, to: RollbackTarget) -> Vec<RuleRecord> {
    let back = |rule: &RuleRecord| {
        let mut split = rule.find(kind, object).ok()?;
        let weights = rule.weights(to).to_vec();
        split.backends.truncate(weights.len());
        let backends = rule.backends.iter().take(weights.len()).cloned().collect();
        Some(RuleRecord {
            rule: split.rule,
            identity: split.identity(),
            backends,
            start: weights.clone(),
            wrote: weights,
            previous: Vec::new(),
        })
    };
    entry.rules.iter().filter_map(back).collect()
}

/// Who wrote last, as far as the object tells.
pub(super) fn last_writer(object: &Value) -> String {
    let fields = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = fields.iter().filter(|one| one["subresource"] != "status").max_by_key(|one| one["time"].as_str());
    last.map_or_else(
        || "somebody".to_owned(),
        |one| {
            format!("{} at {}", one["manager"].as_str().unwrap_or("somebody"), one["time"].as_str().unwrap_or_default())
        },
    )
}
