//! Going through the steps of a shift: each is written, followed by the proxies, and judged, before the next.

use std::collections::BTreeMap;

use serde_json::Value;

use super::analysis::CanaryAnalysis;
use super::apply::forbidden;
use super::monitor::{LOOK, WaitOutcome};
use super::prompts::aside;
use super::rollback::StopReason;
use super::session::ShiftSession;
use super::{AckMode, PatchOutcome, ShiftFormat, preflight, stopped};
use crate::cli::env::Env;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::report::shift::weights;
use crate::shift::patch;
use crate::shift::plan::{DesiredWeights, RulePlan};
use crate::shift::record::{RuleRecord, ShiftEntry, ShiftRecord, ShiftState, weights_by_name};
use crate::shift::steps;

/// Looks at the object for one at the mesh, while somebody thinks.
const LOOKS_TO_SURVEY: u32 = 5;
/// Times that a step is tried again after somebody else's write.
const TRIES: u32 = 5;

/// What became of a step.
pub(super) enum StepOutcome {
    /// It is done.
    Done,
    /// The shift ended with it.
    Ended(CommandOutcome),
}

/// What is done between two steps.
enum StepChoice {
    GoOn,
    Hold,
    RollBack,
    Slipped(StopReason),
    Interrupted,
}

impl ShiftSession<'_, '_> {
    /// Goes on from a step that is written, to the end.
    pub(super) async fn walk(
        &mut self,
        mut entry: ShiftEntry,
        mut guard: Option<CanaryAnalysis>,
    ) -> Result<CommandOutcome, Failure> {
        let mut is_partial = false;
        let mut ended_by = None;
        loop {
            self.step = entry.step;
            let is_last = entry.step as usize >= entry.plan.len();
            if self.arguments.ack == Some(AckMode::None) {
                if is_last && guard.is_none() {
                    return self.end_unasked(&entry).await;
                }
            } else {
                match self.acknowledge(&entry).await? {
                    Ok(counts) => {
                        is_partial |= counts.in_step < counts.total;
                        let message = format!("{} of {} proxies run the new weights", counts.in_step, counts.total);
                        self.tell("acknowledged", &message, |event| event.proxies = Some(counts.clone()))?;
                        if is_last && guard.is_none() {
                            ended_by = Some(message);
                        }
                    }
                    Err(outcome) => return Ok(outcome),
                }
            }
            let step = match &mut guard {
                Some(guard) => self.watch(&mut entry, guard, is_last).await?,
                None if is_last => StepOutcome::Done,
                None => self.rest(&entry).await?,
            };
            if let StepOutcome::Ended(outcome) = step {
                return Ok(outcome);
            }
            if is_last {
                if let Some(guard) = &guard {
                    is_partial |= !guard.unread.is_empty();
                    ended_by = entry.verdicts.last().map(|one| one.why.clone());
                }
                if let Some(slip) = self.end(&entry, ShiftState::Done, &ended_by.unwrap_or_default()).await {
                    return self.slipped(&entry, slip).await;
                }
                self.tell("done", &self.way_back(), |_| {})?;
                return Ok(if is_partial { CommandOutcome::Partial } else { CommandOutcome::Clean });
            }
            match self.choose(&entry).await? {
                StepChoice::GoOn => {}
                StepChoice::Hold => return self.hold(&entry, "held by choice").await,
                StepChoice::RollBack => return self.back_out(&entry, "taken back by choice").await,
                StepChoice::Slipped(slip) => return self.slipped(&entry, slip).await,
                StepChoice::Interrupted => return self.interrupted(&entry).await,
            }
            if let StepOutcome::Ended(outcome) = self.write_step(&mut entry).await? {
                return Ok(outcome);
            }
        }
    }

    async fn end_unasked(&mut self, entry: &ShiftEntry) -> Result<CommandOutcome, Failure> {
        self.end(entry, ShiftState::Held, "no proxy was asked (--ack none)").await;
        let message = format!("the weights are written; no proxy was asked (--ack none). {}", self.way_back());
        self.tell("held", &message, |_| {})?;
        Ok(CommandOutcome::Clean)
    }

    /// A step without a guard lasts its time.
    async fn rest(&mut self, entry: &ShiftEntry) -> Result<StepOutcome, Failure> {
        let waited = self.wait(entry, None, self.arguments.guard.interval, "this step lasts").await;
        self.waited(entry, waited).await.map(|ended| ended.map_or(StepOutcome::Done, StepOutcome::Ended))
    }

    /// What a wait that did not last its time leads to.
    pub(super) async fn waited(
        &mut self,
        entry: &ShiftEntry,
        waited: WaitOutcome,
    ) -> Result<Option<CommandOutcome>, Failure> {
        match waited {
            WaitOutcome::Over => Ok(None),
            WaitOutcome::Interrupted => self.interrupted(entry).await.map(Some),
            WaitOutcome::Slipped(slip) => self.slipped(entry, slip).await.map(Some),
        }
    }

    /// Asks what to do after a good step, where somebody can be asked; with `--yes` it goes on.
    async fn choose(&mut self, entry: &ShiftEntry) -> Result<StepChoice, Failure> {
        if self.arguments.yes || self.arguments.output == ShiftFormat::Json {
            return Ok(StepChoice::GoOn);
        }
        self.context.out.flush()?;
        let next = entry.plan.get(entry.step as usize).cloned().unwrap_or_default();
        let items = vec![format!("go on to {next}"), "hold here".to_owned(), "roll back".to_owned()];
        let question = format!("Step {} of {} is done. What now?", entry.step, entry.plan.len());
        let messages = self.context.messages;
        let mut answer = aside(move || messages.choose(&question, &items));
        // The ground is watched while somebody thinks; calls are not counted then.
        let ended = self.asked_to_end(0);
        tokio::pin!(ended);
        let mut looks = 0_u32;
        loop {
            looks += 1;
            let slip = tokio::select! {
                biased;
                () = &mut ended => {
                    messages.give_cursor_back();
                    return Ok(StepChoice::Interrupted);
                }
                answer = &mut answer => {
                    return match answer {
                        Ok(Ok(Some(0))) => Ok(StepChoice::GoOn),
                        Ok(Ok(Some(1) | None)) => Ok(StepChoice::Hold),
                        Ok(Ok(Some(_))) => Ok(StepChoice::RollBack),
                        Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => Ok(StepChoice::Interrupted),
                        Ok(Err(_)) | Err(_) => Ok(StepChoice::Hold),
                    };
                }
                slip = async {
                    tokio::time::sleep(LOOK).await;
                    self.slip(entry, looks.is_multiple_of(LOOKS_TO_SURVEY)).await
                } => slip,
            };
            if let Some(slip) = slip {
                messages.give_cursor_back();
                return Ok(StepChoice::Slipped(slip));
            }
        }
    }

    /// Why the shift cannot stand as it is, as far as that is known just now.
    async fn slip(&mut self, entry: &ShiftEntry, surveys: bool) -> Option<StopReason> {
        let object = self.look().await.ok()?;
        if let Err(slip) = self.grip(&object, entry) {
            return Some(slip);
        }
        let progress = std::mem::replace(&mut self.context.messages.progress, false);
        let dead = if surveys { self.survey(entry, None).await.ok().flatten() } else { None };
        self.context.messages.progress = progress;
        dead.map(StopReason::NoCanary)
    }

    /// Writes the next step, after everything was looked at again.
    async fn write_step(&mut self, entry: &mut ShiftEntry) -> Result<StepOutcome, Failure> {
        let wish = entry.plan.get(entry.step as usize).cloned().unwrap_or_default();
        let Ok(wish) = wish.parse::<DesiredWeights>() else {
            return self.hold(entry, &format!("\"{wish}\" in the record is no step")).await.map(StepOutcome::Ended);
        };
        self.step = entry.step + 1;
        for _ in 0..TRIES {
            let Some(object) = self.look_long(0).await? else {
                return self.interrupted(entry).await.map(StepOutcome::Ended);
            };
            let mut record = ShiftRecord::of(&object).unwrap_or_default();
            if record.of_run(&entry.session).is_some_and(|ours| ours.step == self.step) {
                // The answer to our patch was lost.
                let ours = record.of_run(&entry.session).cloned();
                *entry = ours.unwrap_or_else(|| entry.clone());
                let weights = weights_by_name(self.target.key.kind, &entry.rules, |rule| &rule.wrote);
                self.tell_step(entry, &wish, weights)?;
                return Ok(StepOutcome::Done);
            }
            let rules = match self.grip(&object, entry) {
                Ok(rules) => rules,
                Err(slip) => return self.slipped(entry, slip).await.map(StepOutcome::Ended),
            };
            let planned: Result<Vec<RulePlan>, _> =
                entry.rules.iter().zip(&rules).map(|(rule, now)| steps::next(rule, now, &wish)).collect();
            let plans = match planned {
                Ok(plans) => plans,
                Err(refusal) => return self.hold(entry, &refusal.to_string()).await.map(StepOutcome::Ended),
            };
            let written = ShiftEntry {
                step: self.step,
                until: Some(Env::clock_in(self.step_time())),
                rules: entry.rules.iter().zip(&plans).map(|(rule, plan)| rule.next(plan)).collect::<Vec<RuleRecord>>(),
                ..entry.clone()
            };
            if let Some(ours) = record.of_run(&entry.session) {
                *ours = written.clone();
            }
            let operations = patch::shift(&object, &plans, &record);
            match self.look_again(&object, &operations, &plans).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    return self
                        .hold(entry, &format!("the next step is not written: {why}"))
                        .await
                        .map(StepOutcome::Ended);
                }
                Err(failure) => {
                    self.context.messages.warning(&failure.message);
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            }
            if self.is_interrupted() {
                return self.interrupted(entry).await.map(StepOutcome::Ended);
            }
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(PatchOutcome::Stored(_)) => {
                    *entry = written;
                    self.tell_step(entry, &wish, weights(&plans))?;
                    return Ok(StepOutcome::Done);
                }
                Ok(PatchOutcome::Conflict) => {}
                Ok(PatchOutcome::Refused(why)) => {
                    return self
                        .hold(entry, &format!("the server refuses the next step: {why}"))
                        .await
                        .map(StepOutcome::Ended);
                }
                Ok(PatchOutcome::Forbidden(why)) => {
                    return self.hold(entry, &forbidden(&why).message).await.map(StepOutcome::Ended);
                }
                // Whether it was stored is seen in the next round.
                Err(error) => {
                    self.context.messages.warning(&error.message);
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        self.hold(entry, &format!("the next step could not be written: {TRIES} tries failed"))
            .await
            .map(StepOutcome::Ended)
    }

    fn tell_step(
        &mut self,
        entry: &ShiftEntry,
        wish: &DesiredWeights,
        weights: BTreeMap<String, u64>,
    ) -> Result<(), Failure> {
        let message = format!("step {} of {}: {wish}", entry.step, entry.plan.len());
        self.tell("written", &message, |event| event.weights = weights)
    }

    /// The preflight again, before a further write: why it must not be, if something stands against it.
    pub(super) async fn look_again(
        &mut self,
        object: &Value,
        operations: &[Value],
        plans: &[RulePlan],
    ) -> Result<Option<String>, Failure> {
        let after = match self.server.patch(&self.target.key, &self.target.api_version, operations, false).await? {
            PatchOutcome::Stored(after) => after,
            // Somebody writes just now: the patch itself will see.
            PatchOutcome::Conflict => return Ok(None),
            PatchOutcome::Refused(why) => return Ok(Some(format!("the server refuses it: {why}"))),
            PatchOutcome::Forbidden(why) => return Ok(Some(forbidden(&why).message)),
        };
        let mut read = self.source.read(self.context).await?;
        let options = self.source.options(&self.context.scope);
        let found = preflight::look(&mut read.snapshot, &options, &self.target, object, &after, plans);
        if stopped(self.arguments, &found).is_ok() {
            return Ok(None);
        }
        self.show_checks(&found);
        let first = found.checks.first().map(|check| check.text.clone()).unwrap_or_default();
        Ok(Some(format!("it is not safe any more: {first}")))
    }
}
