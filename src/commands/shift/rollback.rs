//! How a shift ends when it does not go on: held, taken back, lost, interrupted.

use std::time::Duration;

use serde_json::Value;

use super::FailureAction;
use super::apply::last_writer;
use super::monitor::is_patchy;
use super::preflight::replace;
use super::session::ShiftSession;
use crate::analysis::verdict::AnalysisVerdict;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::mesh;
use crate::mesh::xds::BackendState;
use crate::shift::affected::{classes, label};
use crate::shift::patch;
use crate::shift::record::{LostControl, RuleRecord, ShiftEntry, ShiftRecord, ShiftState};
use crate::shift::split::{RuleSplit, acting};

/// How long an interrupted run looks whether the proxies follow its way back.
const LAST_LOOK: Duration = Duration::from_secs(3);
/// How long is thought about whether there is something to go back to.
const THINK: Duration = Duration::from_secs(3);

/// Why the object is not ours to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StopReason {
    /// Somebody else has it now.
    Lost(String),
    /// Somebody asked us to go back.
    Aborted(String),
    /// Callers have no way to the canary.
    NoCanary(String),
}

impl ShiftSession<'_, '_> {
    /// The rules of an entry in an object, while it is ours.
    pub(super) fn grip(&self, object: &Value, entry: &ShiftEntry) -> Result<Vec<RuleSplit>, StopReason> {
        let rules = self.places(object, &entry.rules)?;
        let mut record = ShiftRecord::of(object).unwrap_or_default();
        match record.of_run(&entry.session) {
            None => Err(StopReason::Lost("another run has come in between".to_owned())),
            Some(ShiftEntry { abort: Some(who), .. }) => Err(StopReason::Aborted(format!("aborted by {who}"))),
            Some(_) => Ok(rules),
        }
    }

    /// Rules in an object, while their weights are as they were written.
    pub(super) fn places(&self, object: &Value, rules: &[RuleRecord]) -> Result<Vec<RuleSplit>, StopReason> {
        let lost = |lost: LostControl| StopReason::Lost(format!("{lost} ({})", last_writer(object)));
        rules.iter().map(|rule| rule.find(self.target.key.kind, object).map_err(lost)).collect()
    }

    /// Ends a shift that slipped.
    pub(super) async fn slipped(&mut self, entry: &ShiftEntry, slip: StopReason) -> Result<CommandOutcome, Failure> {
        match slip {
            StopReason::Lost(why) => self.gone(&why),
            StopReason::Aborted(why) => self.back_out(entry, &why).await,
            StopReason::NoCanary(why) => {
                self.tell("verdict", &why, |event| event.verdict = Some(AnalysisVerdict::Bad.as_str()))?;
                self.back_out(entry, &why).await
            }
        }
    }

    /// Somebody else has the object now: nothing more is written.
    pub(super) fn gone(&mut self, why: &str) -> Result<CommandOutcome, Failure> {
        self.tell("lost-control", why, |_| {})?;
        Err(Failure::source(format!("lost control: {why}"))
            .hint("nothing more is written; who did it: kubectl get -o yaml --show-managed-fields"))
    }

    /// Leaves the new weights and says so.
    pub(super) async fn hold(&mut self, entry: &ShiftEntry, why: &str) -> Result<CommandOutcome, Failure> {
        self.end(entry, ShiftState::Held, why).await;
        self.tell("held", &format!("{why}; the new weights stay. {}", self.way_back()), |_| {})?;
        Ok(CommandOutcome::Partial)
    }

    /// Takes the weights back, where there is something to go back to, and sees that the proxies follow.
    pub(super) async fn back_out(&mut self, entry: &ShiftEntry, why: &str) -> Result<CommandOutcome, Failure> {
        if let Some(dead) = self.dead_end(entry).await {
            return self.hold(entry, &format!("{why}; {dead}")).await;
        }
        // To be asked to end is no reason not to go back; a second signal leaves at once.
        let restored = tokio::select! {
            biased;
            () = self.asked_to_end(1) => return self.leave(),
            restored = self.roll_back(entry, why, true) => restored?,
        };
        self.follow_back(&restored, self.arguments.ack_timeout).await?;
        Ok(CommandOutcome::Found)
    }

    /// What was asked for when the program is asked to end.
    pub(super) async fn interrupted(&mut self, entry: &ShiftEntry) -> Result<CommandOutcome, Failure> {
        if self.arguments.on_interrupt == FailureAction::Hold {
            self.hold(entry, "interrupted").await?;
            return Err(Failure::interrupted());
        }
        if let Some(dead) = self.dead_end(entry).await {
            self.hold(entry, &format!("interrupted; {dead}")).await?;
            return Err(Failure::interrupted());
        }
        let restored = tokio::select! {
            biased;
            () = self.asked_to_end(1) => return self.leave(),
            restored = self.roll_back(entry, "interrupted", true) => restored?,
        };
        // Whether the proxies follow is seen if they do so soon.
        let _ = self.follow_back(&restored, LAST_LOOK).await;
        Err(Failure::interrupted())
    }

    fn leave(&self) -> Result<CommandOutcome, Failure> {
        Err(Failure::interrupted().hint(format!("the new weights may still be there; {}", self.way_back())))
    }

    /// Why there is nothing to go back to: a backend that would get more than now has no ready pod. What cannot be found
    /// out in moments keeps nobody from going back.
    pub(super) async fn dead_end(&mut self, entry: &ShiftEntry) -> Option<String> {
        tokio::time::timeout(THINK, self.dead_backend(entry)).await.ok().flatten()
    }

    async fn dead_backend(&mut self, entry: &ShiftEntry) -> Option<String> {
        let kind = self.target.key.kind;
        let back = self.arguments.rollback_to.into();
        let object = self.look().await.ok()?;
        let operations = patch::back(kind, &object, entry, back, &ShiftRecord::default()).ok()?;
        let after = self.try_it(&operations).await.ok()?;
        let mut read = self.source.read(self.context).await.ok().filter(|read| !is_patchy(&read.snapshot))?;
        replace(&mut read.snapshot, &self.target, &after)?;
        let mesh = mesh::resolve(&read.snapshot, &self.source.options(&self.context.scope));
        let splits: Vec<RuleSplit> = entry.rules.iter().filter_map(|rule| rule.find(kind, &object).ok()).collect();
        let rules: Vec<usize> = splits.iter().map(|split| split.rule).collect();
        for class in classes(&mesh, &self.target.object(), &rules, "") {
            for (split, rule) in splits.iter().zip(&entry.rules) {
                let Some(backends) = class.backends.get(&split.rule) else { continue };
                let (then, now) = (acting(kind, rule.weights(back)), acting(kind, &rule.wrote));
                let share = |weights: &[u64], at: usize| {
                    weights.get(at).copied().unwrap_or(0) as f64 / weights.iter().sum::<u64>().max(1) as f64
                };
                let rises = |label: &str| {
                    let at = rule.backends.iter().position(|one| one == label);
                    at.is_some_and(|at| share(&then, at) > share(&now, at))
                };
                let dead = backends.iter().filter(|one| rises(&label(one))).find_map(|one| {
                    let why = match one.state {
                        BackendState::Ok => return None,
                        BackendState::NoCluster => "does not exist for callers now",
                        BackendState::NoEndpoints => "has no ready pod now",
                    };
                    Some(format!("the weights from before send more to {}, which {why}", one.cluster))
                });
                if dead.is_some() {
                    return dead;
                }
            }
        }
        None
    }
}
