//! How a shift ends early: held, rolled back, aborted, interrupted, or without control of the object.

use std::time::Duration;

use serde_json::Value;

use super::FailureAction;
use super::apply::last_writer;
use super::monitor::has_failed_reads;
use super::preflight::replace_object;
use super::session::ShiftSession;
use crate::analysis::verdict::AnalysisVerdict;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::mesh;
use crate::mesh::xds::BackendState;
use crate::report::shift::ShiftEventType;
use crate::shift::affected::{backend_label, caller_class_usage};
use crate::shift::patch;
use crate::shift::record::{LostControl, LostControlReason, RuleRecord, ShiftEntry, ShiftRecord, ShiftState};
use crate::shift::split::{RuleSplit, effective_weights};

/// How long an interrupted shift waits for the proxies after its rollback.
const INTERRUPTED_ACK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the check before a rollback may take.
const ROLLBACK_CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a shift cannot continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StopReason {
    /// This session no longer owns the weights.
    LostControl(LostControlReason, String),
    /// A user asked for the rollback with `--abort`.
    AbortRequested(String),
    /// Callers have no cluster or no ready pod for the canary.
    CanaryUnreachable(String),
}

impl ShiftSession<'_, '_> {
    /// Verifies that the weights and the record are still those of this session, and returns the rules as they are.
    pub(super) fn verify_ownership(&self, object: &Value, entry: &ShiftEntry) -> Result<Vec<RuleSplit>, StopReason> {
        let rules = self.locate_rules(object, &entry.rules)?;
        let mut record = ShiftRecord::from_object(object).unwrap_or_default();
        match record.open_entry_of(&entry.session) {
            None => {
                let lost = LostControl::AnotherSession;
                Err(StopReason::LostControl(lost.reason(), lost.to_string()))
            }
            Some(ShiftEntry { abort_requested_by: Some(user), .. }) => {
                Err(StopReason::AbortRequested(format!("aborted by {user}")))
            }
            Some(_) => Ok(rules),
        }
    }

    /// Finds rules in an object and verifies that they have the applied weights.
    pub(super) fn locate_rules(&self, object: &Value, rules: &[RuleRecord]) -> Result<Vec<RuleSplit>, StopReason> {
        let stop_reason = |lost: LostControl| {
            StopReason::LostControl(lost.reason(), format!("{lost} (last written by {})", last_writer(object)))
        };
        rules.iter().map(|rule| rule.find_unchanged(self.target.key.kind, object).map_err(stop_reason)).collect()
    }

    /// Ends a shift that cannot continue.
    pub(super) async fn stop(&mut self, entry: &ShiftEntry, reason: StopReason) -> Result<CommandOutcome, Failure> {
        match reason {
            StopReason::LostControl(reason, message) => self.stop_without_control(reason, &message),
            StopReason::AbortRequested(message) => self.roll_back_and_wait(entry, &message).await,
            StopReason::CanaryUnreachable(message) => {
                self.emit(ShiftEventType::Verdict, &message, |event| event.verdict = Some(AnalysisVerdict::Bad))?;
                self.roll_back_and_wait(entry, &message).await
            }
        }
    }

    /// Ends a shift that lost control of the object, without another write.
    pub(super) fn stop_without_control(
        &mut self,
        reason: LostControlReason,
        message: &str,
    ) -> Result<CommandOutcome, Failure> {
        self.emit(ShiftEventType::LostControl, message, |event| event.lost_control = Some(reason))?;
        let target = &self.target;
        let resource =
            format!("{} -n {} {}", target.key.kind.name().to_lowercase(), target.key.namespace, target.key.name);
        Err(Failure::unavailable(format!("lost control of {}: {message}", target.title())).hint(format!(
            "nothing more is written; field managers: kubectl get {resource} -o yaml --show-managed-fields"
        )))
    }

    /// Ends the shift and keeps the new weights.
    pub(super) async fn hold(&mut self, entry: &ShiftEntry, reason: &str) -> Result<CommandOutcome, Failure> {
        self.close_entry(entry, ShiftState::Held, reason).await;
        let message = format!("{reason}; the new weights stay; {}", self.undo_hint());
        self.emit(ShiftEventType::Held, &message, |_| {})?;
        Ok(CommandOutcome::Partial)
    }

    /// Rolls back and waits for the proxies. Holds instead if a backend that would get more calls has no ready pod.
    pub(super) async fn roll_back_and_wait(
        &mut self,
        entry: &ShiftEntry,
        reason: &str,
    ) -> Result<CommandOutcome, Failure> {
        if let Some(blocker) = self.rollback_blocker(entry).await {
            return self.hold(entry, &format!("{reason}; cannot roll back: {blocker}")).await;
        }
        // The first signal does not stop a rollback; a second one exits immediately.
        let restored = tokio::select! {
            biased;
            () = self.wait_for_signal(1) => return self.exit_immediately(),
            restored = self.roll_back(entry, reason, true) => restored?,
        };
        self.acknowledge_rollback(&restored, self.arguments.ack_timeout).await?;
        Ok(CommandOutcome::Found)
    }

    /// Ends an interrupted shift as `--on-interrupt` says.
    pub(super) async fn handle_interrupt(&mut self, entry: &ShiftEntry) -> Result<CommandOutcome, Failure> {
        if self.arguments.on_interrupt == FailureAction::Hold {
            self.hold(entry, "interrupted").await?;
            return Err(Failure::interrupted());
        }
        if let Some(blocker) = self.rollback_blocker(entry).await {
            self.hold(entry, &format!("interrupted; cannot roll back: {blocker}")).await?;
            return Err(Failure::interrupted());
        }
        let restored = tokio::select! {
            biased;
            () = self.wait_for_signal(1) => return self.exit_immediately(),
            restored = self.roll_back(entry, "interrupted", true) => restored?,
        };
        // Best effort: report the proxies that follow within moments.
        let _ = self.acknowledge_rollback(&restored, INTERRUPTED_ACK_TIMEOUT).await;
        Err(Failure::interrupted())
    }

    fn exit_immediately(&self) -> Result<CommandOutcome, Failure> {
        Err(Failure::interrupted().hint(format!("the new weights may still be applied; {}", self.undo_hint())))
    }

    /// Why a rollback would send calls to pods that do not exist. If the check takes too long, the rollback goes ahead.
    pub(super) async fn rollback_blocker(&mut self, entry: &ShiftEntry) -> Option<String> {
        tokio::time::timeout(ROLLBACK_CHECK_TIMEOUT, self.unready_rollback_backend(entry)).await.ok().flatten()
    }

    async fn unready_rollback_backend(&mut self, entry: &ShiftEntry) -> Option<String> {
        let kind = self.target.key.kind;
        let rollback_target = self.arguments.rollback_to.into();
        let object = self.get_object().await.ok()?;
        let operations = patch::rollback_patch(kind, &object, entry, rollback_target, &ShiftRecord::default()).ok()?;
        let after = self.server_dry_run(&operations).await.ok()?;
        let mut read = self.source.read(self.context).await.ok().filter(|read| !has_failed_reads(&read.snapshot))?;
        replace_object(&mut read.snapshot, &self.target, &after)?;
        let mesh = mesh::resolve(&read.snapshot, &self.source.options(&self.context.scope));
        let splits: Vec<RuleSplit> =
            entry.rules.iter().filter_map(|rule| rule.find_unchanged(kind, &object).ok()).collect();
        let rules: Vec<usize> = splits.iter().map(|split| split.rule).collect();
        for class in caller_class_usage(&mesh, &self.target.object_ref(), &rules, "") {
            for (split, rule) in splits.iter().zip(&entry.rules) {
                let Some(backends) = class.backends.get(&split.rule) else { continue };
                let after = effective_weights(kind, rule.weights_at(rollback_target));
                let now = effective_weights(kind, &rule.applied);
                let share = |weights: &[u64], index: usize| {
                    weights.get(index).copied().unwrap_or(0) as f64 / weights.iter().sum::<u64>().max(1) as f64
                };
                let is_rising = |label: &str| {
                    let index = rule.backends.iter().position(|backend| backend == label);
                    index.is_some_and(|index| share(&after, index) > share(&now, index))
                };
                let mut rising = backends.iter().filter(|backend| is_rising(&backend_label(backend)));
                let blocker = rising.find_map(|backend| {
                    let problem = match backend.state {
                        BackendState::Ok | BackendState::Unknown => return None,
                        BackendState::NoCluster => "does not exist for callers",
                        BackendState::NoEndpoints => "has no ready pod",
                    };
                    Some(format!("a rollback would send more calls to {}, which {problem}", backend.cluster))
                });
                if blocker.is_some() {
                    return blocker;
                }
            }
        }
        None
    }
}
