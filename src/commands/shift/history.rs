//! Past shifts: `--history`, `--status`, `--abort`, `--undo` and `--resume`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::analysis::CanaryAnalysis;
use super::session::ShiftSession;
use super::target::ShiftTarget;
use super::{ShiftArgs, ShiftFormat};
use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::mesh;
use crate::render;
use crate::report::shift::{PastShiftReport, ShiftEventType, ShiftHistoryReport, ShiftStatusReport};
use crate::shift::record::{ShiftEntry, ShiftRecord, ShiftState};
use crate::shift::split::{RuleSplit, SplitBackend, rule_splits};

/// Interval between reads of the record after a request to abort.
const ABORT_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Reads of the record before `--abort` gives up.
const MAX_ABORT_POLLS: u32 = 60;

pub(super) fn show_history(
    context: &mut Context<'_>,
    arguments: &ShiftArgs,
    target: &ShiftTarget,
    record: &ShiftRecord,
) -> Result<CommandOutcome, Failure> {
    let shifts = record.entries.iter().map(PastShiftReport::from).collect();
    let report = ShiftHistoryReport { kind: "ShiftHistory", version: 1, object: target.title(), shifts };
    match arguments.output {
        ShiftFormat::Json => render::json(&report, context.out)?,
        ShiftFormat::Text => render::shift::history(&report, &context.style, context.out)?,
    }
    Ok(CommandOutcome::Clean)
}

pub(super) fn show_status(
    session: &mut ShiftSession<'_, '_>,
    object: &Value,
    record: &ShiftRecord,
) -> Result<CommandOutcome, Failure> {
    let kind = session.target.key.kind;
    let is_unchanged = |entry: &ShiftEntry| entry.rules.iter().all(|rule| rule.find_unchanged(kind, object).is_ok());
    let report = ShiftStatusReport {
        kind: "ShiftStatus",
        version: 1,
        object: session.target.title(),
        weights: rule_splits(kind, object).into_iter().map(weights_of_rule).collect(),
        unchanged: record.applied_entry().map(is_unchanged),
        last: record.entries.first().map(PastShiftReport::from),
    };
    match session.arguments.output {
        ShiftFormat::Json => render::json(&report, session.context.out)?,
        ShiftFormat::Text => render::shift::status(&report, &session.context.style, session.context.out)?,
    }
    Ok(CommandOutcome::Clean)
}

/// Title of a rule, and its effective weights by backend.
fn weights_of_rule(split: RuleSplit) -> (String, BTreeMap<String, u64>) {
    let weights = split.backends.iter().map(SplitBackend::label).zip(split.effective_weights());
    (split.title(), weights.collect())
}

/// Asks the session of the open shift to roll back, and waits until it has.
pub(super) async fn abort(session: &mut ShiftSession<'_, '_>, record: &ShiftRecord) -> Result<CommandOutcome, Failure> {
    let (title, target) = (session.target.title(), session.target.argument());
    let Some(entry) = record.open_entry().cloned() else {
        return Err(Failure::unavailable(format!("cannot abort: no shift of {title} is in progress"))
            .hint(format!("to undo the last shift: kubectl grpcmesh shift {target} --undo")));
    };
    if session.can_take_over(&entry) {
        return Err(Failure::unavailable(format!(
            "cannot abort: session {} did not finish by its deadline {}",
            entry.session,
            entry.deadline.unwrap_or_default()
        ))
        .hint(format!("to restore the weights: kubectl grpcmesh shift {target} --undo")));
    }
    session.request_abort(&entry).await?;
    let request = format!("asked session {} of {} to roll back", entry.session, entry.user);
    session.emit(ShiftEventType::Plan, &request, |_| {})?;
    for _ in 0..MAX_ABORT_POLLS {
        tokio::select! {
            biased;
            () = session.wait_for_signal(0) => return Err(Failure::interrupted()),
            () = tokio::time::sleep(ABORT_POLL_INTERVAL) => {}
        }
        let object = session.get_object().await?;
        let now = ShiftRecord::from_object(&object).unwrap_or_default();
        let Some(current) = now.entries.iter().find(|current| current.session == entry.session) else { break };
        match current.state {
            ShiftState::Open => {}
            ShiftState::RolledBack => {
                let message = format!("{}; the weights from before are restored", current.message);
                session.emit(ShiftEventType::RolledBack, &message, |_| {})?;
                return Ok(CommandOutcome::Clean);
            }
            ShiftState::Done | ShiftState::Held => {
                session.emit(ShiftEventType::Held, &current.message, |_| {})?;
                return Ok(CommandOutcome::Partial);
            }
        }
    }
    Err(Failure::unavailable(format!("cannot abort: session {} does not respond", entry.session)).hint(format!(
        "if its process is gone, restore the weights: kubectl grpcmesh shift {target} --undo --takeover"
    )))
}

/// Undoes the last applied shift, or resumes it.
pub(super) async fn undo_or_resume(
    session: &mut ShiftSession<'_, '_>,
    object: &Value,
    record: ShiftRecord,
) -> Result<CommandOutcome, Failure> {
    let (title, target) = (session.target.title(), session.target.argument());
    let Some(entry) = record.applied_entry().cloned() else {
        return Err(Failure::unavailable(format!("{title} has no applied shift to undo or resume"))
            .hint(format!("list its shifts: kubectl grpcmesh shift {target} --history")));
    };
    for rule in &entry.rules {
        rule.find_unchanged(session.target.key.kind, object).map_err(|lost| session.lost_control_failure(&lost))?;
    }
    if entry.state == ShiftState::Open && !session.can_take_over(&entry) {
        return session.ensure_no_open_shift(&record, object).map(|()| CommandOutcome::Clean);
    }
    if session.arguments.undo {
        return undo(session, &entry).await;
    }
    if entry.state != ShiftState::Open {
        session.emit(ShiftEventType::Done, "the last shift is finished: nothing to resume", |_| {})?;
        return Ok(CommandOutcome::Clean);
    }
    resume(session, entry).await
}

async fn undo(session: &mut ShiftSession<'_, '_>, entry: &ShiftEntry) -> Result<CommandOutcome, Failure> {
    let PastShiftReport { number, user, started_at, from, to, .. } = PastShiftReport::from(entry);
    let title = session.target.title();
    let message = format!("{title}: undo shift {number} of {user} from {started_at}: {to} → {from}");
    session.emit(ShiftEventType::Plan, &message, |_| {})?;
    if !session.confirm().await? {
        session.emit(ShiftEventType::Held, "not confirmed: nothing was applied", |_| {})?;
        return Ok(CommandOutcome::Partial);
    }
    if !session.arguments.force
        && let Some(blocker) = session.rollback_blocker(entry).await
    {
        return Err(Failure::unavailable(format!("cannot roll back {title}: {blocker}"))
            .hint("nothing was applied; to roll back anyway: --force"));
    }
    let restored = session.roll_back(entry, "undone", false).await?;
    session.acknowledge_rollback(&restored, session.arguments.ack_timeout).await
}

async fn resume(session: &mut ShiftSession<'_, '_>, mut entry: ShiftEntry) -> Result<CommandOutcome, Failure> {
    session.is_long = !entry.plan.is_empty() || entry.analysis.is_some();
    let arguments = &session.arguments.analysis;
    if let Some(source) = entry.analysis.filter(|_| arguments.analysis.is_none() && arguments.prometheus.is_none()) {
        return Err(Failure::usage(format!("this shift uses canary analysis by {}", source.as_str()))
            .hint("pass its flags again: --analysis or --prometheus, and the limits")
            .hint("to resume without analysis: --analysis none"));
    }
    let mut analysis = CanaryAnalysis::new(session, session.is_long).await?;
    session.take_over(&mut entry).await?;
    session.is_applied = true;
    if let Some(analysis) = &mut analysis {
        let read = session.source.read(session.context).await?;
        let mesh = mesh::resolve(&read.snapshot, &session.source.options(&session.context.scope));
        session.update_cohorts(analysis, &mesh, &entry);
        let baseline = entry.verdicts.first().map(|verdict| verdict.canary.plus(verdict.baseline));
        analysis.before_shift = baseline.unwrap_or_default();
    }
    session.run_steps(entry, analysis).await
}

impl ShiftSession<'_, '_> {
    /// Whether this session may take over an open entry: its deadline has passed, or `--takeover` is given.
    fn can_take_over(&self, entry: &ShiftEntry) -> bool {
        self.arguments.takeover || entry.deadline.as_deref().is_none_or(|deadline| *deadline < *Env::clock())
    }
}
