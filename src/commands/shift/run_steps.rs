//! Runs the steps of a shift: each is applied, acknowledged by the proxies and analyzed before the next.

use std::collections::BTreeMap;

use serde_json::Value;

use super::acknowledge::StepAck;
use super::analysis::CanaryAnalysis;
use super::apply::{MAX_ATTEMPTS, forbidden_failure};
use super::monitor::{POLL_INTERVAL, WaitOutcome};
use super::prompts::spawn_prompt;
use super::rollback::StopReason;
use super::session::ShiftSession;
use super::{AckMode, PatchOutcome, ShiftFormat, preflight};
use crate::cli::env::Env;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::report::shift::{ShiftEventType, weights_after};
use crate::shift::patch;
use crate::shift::plan::{DesiredWeights, RulePlan};
use crate::shift::record::{RuleRecord, ShiftEntry, ShiftRecord, ShiftState, weights_by_backend};
use crate::shift::steps;

/// While a prompt is open, the mesh is read once per this many reads of the object.
const POLLS_PER_MESH_CHECK: u32 = 5;

/// The result of a step.
pub(super) enum StepOutcome {
    Done,
    /// The shift ended with it.
    Ended(CommandOutcome),
}

/// The action after a step.
enum StepChoice {
    Continue,
    Hold,
    RollBack,
    Stop(StopReason),
    Interrupted,
}

impl ShiftSession<'_, '_> {
    /// Runs a shift from an applied step to its end.
    pub(super) async fn run_steps(
        &mut self,
        mut entry: ShiftEntry,
        mut analysis: Option<CanaryAnalysis>,
    ) -> Result<CommandOutcome, Failure> {
        let mut is_partial = false;
        let mut result_message = None;
        loop {
            self.step = entry.step;
            let is_last = entry.step as usize >= entry.plan.len();
            if self.arguments.ack == Some(AckMode::None) {
                if is_last && analysis.is_none() {
                    return self.finish_unacknowledged(&entry).await;
                }
            } else {
                match self.acknowledge(&entry).await? {
                    StepAck::Continue(counts) => {
                        is_partial |= counts.synced < counts.total;
                        let message = format!("{} of {} proxies run the new weights", counts.synced, counts.total);
                        self.emit_acknowledged(&message, counts)?;
                        if is_last && analysis.is_none() {
                            result_message = Some(message);
                        }
                    }
                    StepAck::Ended(outcome) => return Ok(outcome),
                }
            }
            let step = match &mut analysis {
                Some(analysis) => self.analyze_step(&mut entry, analysis, is_last).await?,
                None if is_last => StepOutcome::Done,
                None => self.wait_for_interval(&entry).await?,
            };
            if let StepOutcome::Ended(outcome) = step {
                return Ok(outcome);
            }
            if is_last {
                if let Some(analysis) = &analysis {
                    is_partial |= !analysis.unread_callers.is_empty();
                    result_message = entry.verdicts.last().map(|verdict| verdict.reason.clone());
                }
                let message = result_message.unwrap_or_default();
                if let Some(reason) = self.close_entry(&entry, ShiftState::Done, &message).await {
                    return self.stop(&entry, reason).await;
                }
                self.emit(ShiftEventType::Done, &format!("the shift is finished; {}", self.undo_hint()), |_| {})?;
                return Ok(if is_partial { CommandOutcome::Partial } else { CommandOutcome::Clean });
            }
            match self.ask_for_next_step(&entry).await? {
                StepChoice::Continue => {}
                StepChoice::Hold => return self.hold(&entry, "held by the user").await,
                StepChoice::RollBack => return self.roll_back_and_wait(&entry, "rolled back by the user").await,
                StepChoice::Stop(reason) => return self.stop(&entry, reason).await,
                StepChoice::Interrupted => return self.handle_interrupt(&entry).await,
            }
            if let StepOutcome::Ended(outcome) = self.apply_next_step(&mut entry).await? {
                return Ok(outcome);
            }
        }
    }

    async fn finish_unacknowledged(&mut self, entry: &ShiftEntry) -> Result<CommandOutcome, Failure> {
        self.close_entry(entry, ShiftState::Held, "proxies were not checked (--ack none)").await;
        let message = format!("the weights are applied; proxies were not checked (--ack none); {}", self.undo_hint());
        self.emit(ShiftEventType::Held, &message, |_| {})?;
        Ok(CommandOutcome::Clean)
    }

    /// Without canary analysis a step takes one interval.
    async fn wait_for_interval(&mut self, entry: &ShiftEntry) -> Result<StepOutcome, Failure> {
        let wait =
            self.wait_and_monitor(entry, None, self.arguments.analysis.interval, "waiting for the next step").await;
        let outcome = self.end_after_wait(entry, wait).await?;
        Ok(outcome.map_or(StepOutcome::Done, StepOutcome::Ended))
    }

    /// Ends the shift if a wait did not last its full time.
    pub(super) async fn end_after_wait(
        &mut self,
        entry: &ShiftEntry,
        wait: WaitOutcome,
    ) -> Result<Option<CommandOutcome>, Failure> {
        match wait {
            WaitOutcome::Elapsed => Ok(None),
            WaitOutcome::Interrupted => self.handle_interrupt(entry).await.map(Some),
            WaitOutcome::Stopped(reason) => self.stop(entry, reason).await.map(Some),
        }
    }

    /// Asks what to do after a step; continues without a prompt with `--yes` and with JSON output.
    async fn ask_for_next_step(&mut self, entry: &ShiftEntry) -> Result<StepChoice, Failure> {
        if self.arguments.yes || self.arguments.output == ShiftFormat::Json {
            return Ok(StepChoice::Continue);
        }
        self.context.out.flush()?;
        let next = entry.plan.get(entry.step as usize).cloned().unwrap_or_default();
        let items = vec![format!("continue with {next}"), "hold these weights".to_owned(), "roll back".to_owned()];
        let question = format!("Step {} of {} is done. What next?", entry.step, entry.plan.len());
        let messages = self.context.messages;
        let mut answer = spawn_prompt(move || messages.choose(&question, &items));
        // The object and the mesh are monitored during the prompt; calls are not counted.
        let interrupted = self.wait_for_signal(0);
        tokio::pin!(interrupted);
        let mut polls = 0_u32;
        loop {
            polls += 1;
            let stop_reason = tokio::select! {
                biased;
                () = &mut interrupted => {
                    messages.restore();
                    return Ok(StepChoice::Interrupted);
                }
                answer = &mut answer => {
                    return match answer {
                        Ok(Ok(Some(0))) => Ok(StepChoice::Continue),
                        Ok(Ok(Some(1) | None)) => Ok(StepChoice::Hold),
                        Ok(Ok(Some(_))) => Ok(StepChoice::RollBack),
                        Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => Ok(StepChoice::Interrupted),
                        Ok(Err(_)) | Err(_) => Ok(StepChoice::Hold),
                    };
                }
                stop_reason = async {
                    tokio::time::sleep(POLL_INTERVAL).await;
                    self.find_stop_reason(entry, polls.is_multiple_of(POLLS_PER_MESH_CHECK)).await
                } => stop_reason,
            };
            if let Some(reason) = stop_reason {
                messages.restore();
                return Ok(StepChoice::Stop(reason));
            }
        }
    }

    /// Why the shift cannot continue. Failed reads are ignored.
    async fn find_stop_reason(&mut self, entry: &ShiftEntry, checks_mesh: bool) -> Option<StopReason> {
        let object = self.get_object().await.ok()?;
        if let Err(reason) = self.verify_ownership(&object, entry) {
            return Some(reason);
        }
        let progress = std::mem::replace(&mut self.context.messages.shows_progress, false);
        let unreachable = if checks_mesh { self.check_mesh(entry, None).await.ok().flatten() } else { None };
        self.context.messages.shows_progress = progress;
        unreachable.map(StopReason::CanaryUnreachable)
    }

    /// Applies the next step after a new preflight.
    async fn apply_next_step(&mut self, entry: &mut ShiftEntry) -> Result<StepOutcome, Failure> {
        let desired = entry.plan.get(entry.step as usize).cloned().unwrap_or_default();
        let Ok(desired) = desired.parse::<DesiredWeights>() else {
            return self.hold_step(entry, &format!("the record has an invalid step \"{desired}\"")).await;
        };
        self.step = entry.step + 1;
        for _ in 0..MAX_ATTEMPTS {
            let Some(object) = self.get_with_retry(0).await? else {
                return self.handle_interrupt(entry).await.map(StepOutcome::Ended);
            };
            let mut record = ShiftRecord::from_object(&object).unwrap_or_default();
            if record.open_entry_of(&entry.session).is_some_and(|open| open.step == self.step) {
                // The response to an earlier patch was lost.
                let open = record.open_entry_of(&entry.session).cloned();
                *entry = open.unwrap_or_else(|| entry.clone());
                let weights = weights_by_backend(self.target.key.kind, &entry.rules, |rule| &rule.applied);
                self.emit_step_applied(entry, &desired, weights)?;
                return Ok(StepOutcome::Done);
            }
            let rules = match self.verify_ownership(&object, entry) {
                Ok(rules) => rules,
                Err(reason) => return self.stop(entry, reason).await.map(StepOutcome::Ended),
            };
            let plans: Result<Vec<RulePlan>, _> =
                entry.rules.iter().zip(&rules).map(|(rule, now)| steps::plan_step(rule, now, &desired)).collect();
            let plans = match plans {
                Ok(plans) => plans,
                Err(error) => return self.hold_step(entry, &error.to_string()).await,
            };
            let next_entry = ShiftEntry {
                step: self.step,
                deadline: Some(Env::clock_after(self.max_step_duration())),
                rules: entry
                    .rules
                    .iter()
                    .zip(&plans)
                    .map(|(rule, plan)| rule.for_next_step(plan))
                    .collect::<Vec<RuleRecord>>(),
                ..entry.clone()
            };
            if let Some(open) = record.open_entry_of(&entry.session) {
                *open = next_entry.clone();
            }
            let operations = patch::shift_patch(&object, &plans, &record);
            match self.recheck(&object, &operations, &plans).await {
                Ok(None) => {}
                Ok(Some(reason)) => {
                    return self.hold_step(entry, &format!("the next step was not applied: {reason}")).await;
                }
                Err(failure) => {
                    self.context.messages.warning(&failure.message);
                    tokio::time::sleep(POLL_INTERVAL).await;
                    continue;
                }
            }
            if self.is_interrupted() {
                return self.handle_interrupt(entry).await.map(StepOutcome::Ended);
            }
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(PatchOutcome::Accepted(_)) => {
                    *entry = next_entry;
                    self.emit_step_applied(entry, &desired, weights_after(&plans))?;
                    return Ok(StepOutcome::Done);
                }
                Ok(PatchOutcome::Conflict) => {}
                Ok(PatchOutcome::Rejected(reason)) => {
                    return self.hold_step(entry, &format!("the API server rejected the next step: {reason}")).await;
                }
                Ok(PatchOutcome::Forbidden(reason)) => {
                    return self.hold_step(entry, &forbidden_failure(&reason).message).await;
                }
                // The patch may have been stored; the next attempt finds out.
                Err(error) => {
                    self.context.messages.warning(&error.message);
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        }
        self.hold_step(entry, &format!("the next step could not be applied: {MAX_ATTEMPTS} attempts failed")).await
    }

    async fn hold_step(&mut self, entry: &ShiftEntry, reason: &str) -> Result<StepOutcome, Failure> {
        self.hold(entry, reason).await.map(StepOutcome::Ended)
    }

    fn emit_step_applied(
        &mut self,
        entry: &ShiftEntry,
        desired: &DesiredWeights,
        weights: BTreeMap<String, u64>,
    ) -> Result<(), Failure> {
        let message = format!("step {} of {}: {desired}", entry.step, entry.plan.len());
        self.emit(ShiftEventType::Applied, &message, |event| event.weights = weights)
    }

    /// Repeats the preflight before a further write, and returns why the write must not happen.
    pub(super) async fn recheck(
        &mut self,
        object: &Value,
        operations: &[Value],
        plans: &[RulePlan],
    ) -> Result<Option<String>, Failure> {
        let after = match self.server.patch(&self.target.key, &self.target.api_version, operations, false).await? {
            PatchOutcome::Accepted(after) => after,
            // Another client is writing: the tests of the real patch decide.
            PatchOutcome::Conflict => return Ok(None),
            PatchOutcome::Rejected(reason) => return Ok(Some(format!("the API server rejected the patch: {reason}"))),
            PatchOutcome::Forbidden(reason) => return Ok(Some(forbidden_failure(&reason).message)),
        };
        let mut read = self.source.read(self.context).await?;
        let options = self.source.options(&self.context.scope);
        let preflight = preflight::run_checks(&mut read.snapshot, &options, &self.target, object, &after, plans);
        if preflight.ensure_passed(self.arguments).is_ok() {
            return Ok(None);
        }
        self.show_checks(&preflight);
        let first = preflight.checks.first().map(|check| check.text.clone()).unwrap_or_default();
        Ok(Some(format!("a preflight check failed: {first}")))
    }
}
