//! Shifts that were: the history, the way back, and going on with one that was cut off.

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
use crate::report::shift::{PastShiftReport, ShiftHistoryReport, ShiftStatusReport};
use crate::shift::record::{ShiftEntry, ShiftRecord, ShiftState};
use crate::shift::split::{RuleSplit, splits};

/// Pause between two looks at a run that is asked to go back.
const ABORT_LOOK: Duration = Duration::from_secs(1);
/// Times that it is looked at.
const ABORT_LOOKS: u32 = 60;

/// Shows them.
pub(super) fn history(
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

/// Shows how the last shift stands, beside the weights as they are.
pub(super) fn status(
    session: &mut ShiftSession<'_, '_>,
    object: &Value,
    record: &ShiftRecord,
) -> Result<CommandOutcome, Failure> {
    let kind = session.target.key.kind;
    let last = record.entries.first();
    let stands = last.filter(|entry| entry.state != ShiftState::RolledBack);
    let report = ShiftStatusReport {
        kind: "ShiftStatus",
        version: 1,
        object: session.target.title(),
        weights: splits(kind, object).into_iter().map(weights_of).collect(),
        as_left: stands.map(|entry| entry.rules.iter().all(|rule| rule.find(kind, object).is_ok())),
        last: last.map(PastShiftReport::from),
    };
    match session.arguments.output {
        ShiftFormat::Json => render::json(&report, session.context.out)?,
        ShiftFormat::Text => render::shift::status(&report, &session.context.style, session.context.out)?,
    }
    Ok(CommandOutcome::Clean)
}

/// The weights of a rule, by its title.
fn weights_of(split: RuleSplit) -> (String, BTreeMap<String, u64>) {
    let weights = split.backends.iter().map(crate::shift::split::SplitBackend::label).zip(split.acting());
    (split.title(), weights.collect())
}

/// Asks the run that is at it to take the weights back, and waits until it has.
pub(super) async fn abort(session: &mut ShiftSession<'_, '_>, record: &ShiftRecord) -> Result<CommandOutcome, Failure> {
    let (title, word) = (session.target.title(), session.target.word());
    let Some(entry) = record.open().cloned() else {
        return Err(Failure::source(format!("no run is at {title}"))
            .hint(format!("to take back what the last shift wrote: kubectl grpcmesh shift {word} --undo")));
    };
    if session.may_take(&entry) {
        return Err(Failure::source(format!(
            "the run {} has ended without a word: its time was {}",
            entry.session,
            entry.until.unwrap_or_default()
        ))
        .hint(format!("take its weights back: kubectl grpcmesh shift {word} --undo")));
    }
    session.ask_to_abort(&entry).await?;
    session.tell(
        "plan",
        &format!("run {} of {} is asked to take its weights back", entry.session, entry.by),
        |_| {},
    )?;
    for _ in 0..ABORT_LOOKS {
        tokio::select! {
            biased;
            () = session.asked_to_end(0) => return Err(Failure::interrupted()),
            () = tokio::time::sleep(ABORT_LOOK) => {}
        }
        let object = session.look().await?;
        let now = ShiftRecord::of(&object).unwrap_or_default();
        let Some(ours) = now.entries.iter().find(|one| one.session == entry.session) else { break };
        match ours.state {
            ShiftState::Open => {}
            ShiftState::RolledBack => {
                session.tell("rolled-back", &format!("{}; the weights are as before", ours.message), |_| {})?;
                return Ok(CommandOutcome::Clean);
            }
            ShiftState::Done | ShiftState::Held => {
                session.tell("held", &ours.message, |_| {})?;
                return Ok(CommandOutcome::Partial);
            }
        }
    }
    Err(Failure::source("the run does not answer")
        .hint(format!("if it is gone, take its weights back: kubectl grpcmesh shift {word} --undo --takeover")))
}

/// Undoes the last shift that stands, or goes on with it.
pub(super) async fn go_on(
    session: &mut ShiftSession<'_, '_>,
    object: &Value,
    record: ShiftRecord,
) -> Result<CommandOutcome, Failure> {
    let title = session.target.title();
    let Some(entry) = record.last_standing().cloned() else {
        return Err(Failure::source(format!("{title} has no shift that stands")).hint("see them all: --history"));
    };
    for rule in &entry.rules {
        rule.find(session.target.key.kind, object).map_err(|lost| {
            Failure::source(format!("lost control: {lost}"))
                .hint("nothing is written over it; what was there before is in --history")
        })?;
    }
    if entry.state == ShiftState::Open && !session.may_take(&entry) {
        return session.not_open(&record, object).map(|()| CommandOutcome::Clean);
    }
    if session.undoes() {
        session.show_undo(&entry)?;
        if !session.is_agreed().await? {
            session.tell("held", "not agreed: nothing is written", |_| {})?;
            return Ok(CommandOutcome::Partial);
        }
        if !session.arguments.force
            && let Some(dead) = session.dead_end(&entry).await
        {
            return Err(Failure::source(dead).hint("nothing is written; to go back all the same: --force"));
        }
        let restored = session.roll_back(&entry, "undone", false).await?;
        return session.follow_back(&restored, session.arguments.ack_timeout).await;
    }
    if entry.state != ShiftState::Open {
        session.tell("done", "the last shift is ended: there is nothing to go on with", |_| {})?;
        return Ok(CommandOutcome::Clean);
    }
    let mut entry = entry;
    session.is_long = !entry.plan.is_empty() || entry.guard.is_some();
    let given = &session.arguments.guard;
    if let Some(source) = entry.guard.as_ref().filter(|_| given.guard.is_none() && given.prometheus.is_none()) {
        return Err(Failure::usage(format!("this shift was judged by {source}; how it goes on must be said"))
            .hint("give the guard and its limits again: --prometheus PLACE, --guard counters, or --guard logs; or --guard none"));
    }
    let mut guard = CanaryAnalysis::new(session, session.is_long).await?;
    session.take(&mut entry).await?;
    session.is_written = true;
    if let Some(guard) = &mut guard {
        let read = session.source.read(session.context).await?;
        session.learn(guard, &mesh::resolve(&read.snapshot, &session.source.options(&session.context.scope)), &entry);
        guard.before = entry.verdicts.first().map(|one| one.canary.and(one.baseline)).unwrap_or_default();
    }
    session.walk(entry, guard).await
}

impl ShiftSession<'_, '_> {
    /// Whether another run's time is over, or taken from it.
    fn may_take(&self, entry: &ShiftEntry) -> bool {
        self.takes_over() || entry.until.as_deref().is_none_or(|until| *until < *Env::clock())
    }

    fn show_undo(&mut self, entry: &ShiftEntry) -> Result<(), Failure> {
        let PastShiftReport { number, by, at, from, to, .. } = PastShiftReport::from(entry);
        let text = format!("{} shift {number} of {at} by {by}: back from {to} to {from}", self.target.title());
        self.tell("plan", &text, |_| {})
    }
}
