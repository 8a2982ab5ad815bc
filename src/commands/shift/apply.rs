//! Writes to the object: new weights with their record, the end of a shift, and rollbacks.

use std::time::Duration;

use serde_json::Value;

use super::PatchOutcome;
use super::analysis::CanaryAnalysis;
use super::rollback::StopReason;
use super::session::ShiftSession;
use crate::cli::env::Env;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::report::shift::{ShiftEventType, weights_after};
use crate::schema::Kind;
use crate::shift::patch;
use crate::shift::plan::RulePlan;
use crate::shift::record::{
    LostControl, RollbackTarget, RuleRecord, ShiftEntry, ShiftRecord, ShiftState, weights_by_backend,
};

/// Attempts of a write that conflicts with writes of other clients.
pub(super) const MAX_ATTEMPTS: u32 = 5;
/// How long a write that must succeed waits for an unreachable API server.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause between attempts.
const RETRY_DELAY: Duration = Duration::from_millis(300);

impl ShiftSession<'_, '_> {
    /// Applies the first step and runs the shift to its end.
    pub(super) async fn apply_and_run(
        &mut self,
        plans: &[RulePlan],
        object: Value,
        mut entry: ShiftEntry,
        analysis: Option<CanaryAnalysis>,
    ) -> Result<CommandOutcome, Failure> {
        self.apply(plans, object, &mut entry).await?;
        self.is_applied = true;
        let message = format!("weights applied by {}, session {}", entry.user, entry.session);
        self.emit(ShiftEventType::Applied, &message, |event| event.weights = weights_after(plans))?;
        self.run_steps(entry, analysis).await
    }

    /// Applies plans. Writes of other clients in the meantime are fatal only if they change more than the status.
    async fn apply(&mut self, plans: &[RulePlan], planned_from: Value, entry: &mut ShiftEntry) -> Result<(), Failure> {
        let mut object = planned_from.clone();
        for attempt in 0..MAX_ATTEMPTS {
            if self.is_interrupted() {
                return Err(Failure::interrupted().hint("nothing was applied"));
            }
            let mut record = self.read_record(&object)?;
            if let Some(open) = record.entries.first_mut().filter(|newest| newest.state == ShiftState::Open) {
                (open.state, open.deadline) = (ShiftState::Held, None);
                open.message = format!("taken over by session {}", entry.session);
            }
            (entry.number, entry.started_at) = (record.next_number(), Env::clock());
            entry.deadline = Some(Env::clock_after(self.max_step_duration()));
            record.push(entry.clone());
            let operations = patch::shift_patch(&object, plans, &record);
            if attempt > 0
                && let Some(reason) = self.recheck(&object, &operations, plans).await?
            {
                return Err(Failure::unavailable(format!("cannot shift {}: {reason}", self.target.title()))
                    .hint("nothing was applied"));
            }
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(PatchOutcome::Accepted(_)) => return Ok(()),
                Ok(PatchOutcome::Rejected(reason)) => return Err(self.rejected_failure(&reason)),
                Ok(PatchOutcome::Forbidden(reason)) => return Err(forbidden_failure(&reason)),
                Ok(PatchOutcome::Conflict) => {}
                // The patch may have been stored; the record below tells.
                Err(error) => self.context.messages.warning(&error.message),
            }
            object = self.get_object().await.map_err(|failure| {
                let target = self.target.argument();
                failure.hint(format!(
                    "the weights may be applied: check with kubectl grpcmesh shift {target} --status, then use --resume \
                     or --undo"
                ))
            })?;
            if self.read_record(&object)?.open_entry_of(&entry.session).is_some() {
                return Ok(());
            }
            if Self::is_changed(&planned_from, &object) {
                return Err(self.changed_failure(&object));
            }
        }
        Err(Failure::unavailable(format!("cannot patch {}: {MAX_ATTEMPTS} attempts failed", self.target.title()))
            .hint("nothing was applied; run the command again"))
    }

    /// Reads the object, with retries over a short outage of the API server.
    pub(super) async fn get_object(&self) -> Result<Value, Failure> {
        let mut attempts = 0;
        loop {
            match self.server.get_object(&self.target.key, &self.target.api_version).await {
                Ok(Some(object)) => return Ok(object),
                Ok(None) => return Err(super::not_found(&self.target)),
                Err(error) if attempts == MAX_ATTEMPTS => return Err(error.into()),
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
            attempts += 1;
        }
    }

    /// Reads the object before a write that must succeed: retries for a minute. `None` if more than `ignored_signals`
    /// signals were received.
    pub(super) async fn get_with_retry(&self, ignored_signals: u32) -> Result<Option<Value>, Failure> {
        let end = tokio::time::Instant::now() + UNREACHABLE_TIMEOUT;
        let mut is_reported = false;
        loop {
            let result = tokio::select! {
                biased;
                () = self.wait_for_signal(ignored_signals) => return Ok(None),
                result = self.get_object() => result,
            };
            match result {
                Ok(object) => return Ok(Some(object)),
                Err(failure) if tokio::time::Instant::now() >= end => {
                    return Err(failure.hint(format!("the last applied weights stay; {}", self.undo_hint())));
                }
                Err(failure) if !is_reported => {
                    is_reported = true;
                    self.context.messages.warning(&failure.message);
                }
                Err(_) => {}
            }
        }
    }

    /// Whether more than the status of an object changed.
    pub(super) fn is_changed(before: &Value, now: &Value) -> bool {
        let is_same = |pointer: &str| before.pointer(pointer) == now.pointer(pointer);
        let record = "/metadata/annotations/grpcmesh.io~1shift";
        !(is_same("/spec") && is_same("/metadata/labels") && is_same("/metadata/uid") && is_same(record))
    }

    pub(super) fn changed_failure(&self, object: &Value) -> Failure {
        let writer = last_writer(object);
        Failure::unavailable(format!("cannot shift {}: {writer} changed it in the meantime", self.target.title()))
            .hint("nothing was applied; check the change and run the command again")
    }

    /// The record of an object. A record that cannot be read is never overwritten.
    fn read_record(&self, object: &Value) -> Result<ShiftRecord, Failure> {
        ShiftRecord::from_object(object).map_err(|error| {
            Failure::unavailable(format!("cannot read the shift record of {}", self.target.title())).cause(error)
        })
    }

    /// Closes the entry of this session. A failure is only a warning, since the weights are already what they should
    /// be. A request to abort wins over `Done` and is returned.
    pub(super) async fn close_entry(
        &mut self,
        entry: &ShiftEntry,
        state: ShiftState,
        message: &str,
    ) -> Option<StopReason> {
        for _ in 0..MAX_ATTEMPTS {
            let Ok(Some(object)) = self.get_with_retry(1).await else { break };
            let Ok(mut record) = ShiftRecord::from_object(&object) else { break };
            let Some(open) = record.open_entry_of(&entry.session) else { break };
            if let (ShiftState::Done, Some(user)) = (state, &open.abort_requested_by) {
                return Some(StopReason::AbortRequested(format!("aborted by {user}")));
            }
            (open.state, open.deadline) = (state, None);
            message.clone_into(&mut open.message);
            open.verdicts.clone_from(&entry.verdicts);
            let Ok(operations) = patch::record_patch(self.target.key.kind, &object, &record) else { break };
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(PatchOutcome::Accepted(_)) => return None,
                Ok(PatchOutcome::Conflict) | Err(_) => tokio::time::sleep(RETRY_DELAY).await,
                Ok(PatchOutcome::Rejected(_) | PatchOutcome::Forbidden(_)) => break,
            }
        }
        self.context.messages.warning(&format!(
            "cannot close the shift record; check it with: kubectl grpcmesh shift {} --status",
            self.target.argument()
        ));
        None
    }

    /// Makes this session the owner of an open entry.
    pub(super) async fn take_over(&mut self, entry: &mut ShiftEntry) -> Result<(), Failure> {
        let (id, deadline) = (self.id.clone(), Env::clock_after(self.max_step_duration()));
        let updated = self
            .update_open_entry(&entry.session, |open| {
                (open.session, open.deadline) = (id.clone(), Some(deadline.clone()));
            })
            .await?;
        *entry = updated.ok_or_else(|| {
            Failure::unavailable(format!(
                "cannot resume the shift of {}: another session took over",
                self.target.title()
            ))
            .hint(format!("show it: kubectl grpcmesh shift {} --status", self.target.argument()))
        })?;
        Ok(())
    }

    /// Records a request to abort, which the session of the entry sees when it next reads the object.
    pub(super) async fn request_abort(&mut self, entry: &ShiftEntry) -> Result<(), Failure> {
        let user = self.server.current_user().await.unwrap_or_else(|_| "an unknown user".to_owned());
        let request = format!("{user} at {}", Env::clock());
        self.update_open_entry(&entry.session, |open| open.abort_requested_by = Some(request.clone())).await.map(drop)
    }

    /// Changes the open entry of a session and returns it; `None` when that session has no open entry any more.
    async fn update_open_entry(
        &self,
        session: &str,
        change: impl Fn(&mut ShiftEntry),
    ) -> Result<Option<ShiftEntry>, Failure> {
        for _ in 0..MAX_ATTEMPTS {
            let object = self.get_object().await?;
            let mut record = self.read_record(&object)?;
            let Some(open) = record.open_entry_of(session) else { return Ok(None) };
            change(open);
            let updated = open.clone();
            let operations = patch::record_patch(self.target.key.kind, &object, &record)
                .map_err(|lost| self.lost_control_failure(&lost))?;
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await? {
                PatchOutcome::Accepted(_) => return Ok(Some(updated)),
                PatchOutcome::Conflict => tokio::time::sleep(RETRY_DELAY).await,
                PatchOutcome::Forbidden(reason) => return Err(forbidden_failure(&reason)),
                PatchOutcome::Rejected(reason) => return Err(self.rejected_failure(&reason)),
            }
        }
        Err(Failure::unavailable(format!(
            "cannot update the shift record of {}: other clients keep changing the object",
            self.target.title()
        ))
        .hint("run the command again"))
    }

    /// Restores the weights from before an entry, if they are still those that it applied, and returns the restored
    /// rules. With `must_own` the entry must also be open and the newest.
    pub(super) async fn roll_back(
        &mut self,
        entry: &ShiftEntry,
        reason: &str,
        must_own: bool,
    ) -> Result<Vec<RuleRecord>, Failure> {
        let target: RollbackTarget = self.arguments.rollback_to.into();
        let mut attempted: Option<Vec<RuleRecord>> = None;
        let end = tokio::time::Instant::now() + UNREACHABLE_TIMEOUT;
        let mut conflicts = 0;
        while conflicts < MAX_ATTEMPTS && tokio::time::Instant::now() < end {
            let Some(object) = self.get_with_retry(1).await? else { return Err(Failure::interrupted()) };
            let mut record = self.read_record(&object)?;
            let newest = record.entries.first_mut().filter(|newest| newest.session == entry.session);
            let is_owned = |newest: &ShiftEntry| newest.state == ShiftState::Open || attempted.is_some();
            let Some(newest) = newest.filter(|newest| !must_own || is_owned(newest)) else {
                return Err(self.lost_control_failure(&LostControl::AnotherSession));
            };
            // The response to an earlier patch was lost.
            if let (Some(restored), true) = (&attempted, is_rolled_back(newest, entry, target)) {
                self.emit_rolled_back(entry, target, reason)?;
                return Ok(restored.clone());
            }
            mark_rolled_back(newest, entry, target, reason);
            let operations = patch::rollback_patch(self.target.key.kind, &object, entry, target, &record)
                .map_err(|lost| self.lost_control_failure(&lost))?;
            let restored = restored_rules(self.target.key.kind, &object, entry, target);
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(PatchOutcome::Accepted(_)) => {
                    self.emit_rolled_back(entry, target, reason)?;
                    return Ok(restored);
                }
                Ok(PatchOutcome::Conflict) => conflicts += 1,
                Ok(PatchOutcome::Rejected(reason) | PatchOutcome::Forbidden(reason)) => {
                    return Err(self.rollback_failure().cause(reason));
                }
                Err(error) => {
                    attempted = Some(restored);
                    self.context.messages.warning(&error.message);
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
        Err(self.rollback_failure())
    }

    fn rollback_failure(&self) -> Failure {
        Failure::unavailable(format!("cannot roll back {}", self.target.title()))
            .hint(format!("the new weights stay; {}", self.undo_hint()))
    }

    fn emit_rolled_back(&mut self, entry: &ShiftEntry, target: RollbackTarget, reason: &str) -> Result<(), Failure> {
        let restored = match target {
            RollbackTarget::Previous if entry.step > 1 => "restored the weights of the previous step",
            RollbackTarget::Start | RollbackTarget::Previous => "restored the weights from before the shift",
        };
        let weights = weights_by_backend(self.target.key.kind, &entry.rules, |rule| rule.weights_at(target));
        self.emit(ShiftEventType::RolledBack, &format!("{reason}; {restored}"), |event| {
            event.weights = weights;
            event.rollback_target = Some(target);
        })
    }

    pub(super) fn lost_control_failure(&self, lost: &LostControl) -> Failure {
        let target = self.target.argument();
        Failure::unavailable(format!("lost control of {}: {lost}", self.target.title()))
            .hint(format!("nothing was overwritten; earlier weights: kubectl grpcmesh shift {target} --history"))
    }

    /// The command that undoes the shift.
    pub(super) fn undo_hint(&self) -> String {
        format!("to undo: kubectl grpcmesh shift {} --undo", self.target.argument())
    }
}

pub(super) fn forbidden_failure(reason: &str) -> Failure {
    Failure::unavailable(format!("cannot patch the object: {reason}"))
        .hint("shift needs the verb patch on it: kubectl apply -f docs/rbac/shifter.yaml")
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

/// The rules of an entry after its rollback.
fn restored_rules(kind: Kind, object: &Value, entry: &ShiftEntry, target: RollbackTarget) -> Vec<RuleRecord> {
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

/// The client that last changed more than the status, with the time, from the managed fields.
pub(super) fn last_writer(object: &Value) -> String {
    let fields = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last =
        fields.iter().filter(|field| field["subresource"] != "status").max_by_key(|field| field["time"].as_str());
    last.map_or_else(
        || "another client".to_owned(),
        |field| {
            let manager = field["manager"].as_str().unwrap_or("another client");
            format!("{manager} at {}", field["time"].as_str().unwrap_or_default())
        },
    )
}
