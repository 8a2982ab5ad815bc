//! Shifts that were: the history, the way back, and going on with one that was cut off.

use serde_json::Value;

use super::session::Session;
use super::target::Target;
use super::{Format, ShiftArgs};
use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::{Failure, Outcome};
use crate::render;
use crate::report::shift::{PastShift, ShiftHistory};
use crate::shift::record::{Entry, Record, State};

/// Shows them.
pub(super) fn history(
    context: &mut Context<'_>,
    arguments: &ShiftArgs,
    target: &Target,
    record: &Record,
) -> Result<Outcome, Failure> {
    let shifts = record.entries.iter().map(PastShift::from).collect();
    let report = ShiftHistory { kind: "ShiftHistory", version: 1, object: target.title(), shifts };
    match arguments.output {
        Format::Json => render::json(&report, context.out)?,
        Format::Text => render::shift::history(&report, &context.style, context.out)?,
    }
    Ok(Outcome::Clean)
}

/// Undoes the last shift that stands, or goes on with it.
pub(super) async fn go_on(session: &mut Session<'_, '_>, object: &Value, record: Record) -> Result<Outcome, Failure> {
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
    if entry.state == State::Open && !session.may_take(&entry) {
        return session.not_open(&record).map(|()| Outcome::Clean);
    }
    if session.undoes() {
        session.show_undo(&entry)?;
        if !session.is_agreed().await? {
            session.tell("held", "not agreed: nothing is written", |_| {})?;
            return Ok(Outcome::Partial);
        }
        if !session.arguments.force
            && let Some(dead) = session.dead_end(&entry).await
        {
            return Err(Failure::source(dead).hint("nothing is written; to go back all the same: --force"));
        }
        let restored = session.roll_back(&entry, "undone", false).await?;
        return session.follow_back(&restored).await;
    }
    if entry.state != State::Open {
        session.tell("done", "the last shift is ended: there is nothing to go on with", |_| {})?;
        return Ok(Outcome::Clean);
    }
    let mut entry = entry;
    session.take(&mut entry).await?;
    session.follow_to_the_end(&entry).await
}

impl Session<'_, '_> {
    /// Whether another run's time is over, or taken from it.
    fn may_take(&self, entry: &Entry) -> bool {
        self.takes_over() || entry.until.as_deref().is_none_or(|until| *until < *Env::clock())
    }

    fn show_undo(&mut self, entry: &Entry) -> Result<(), Failure> {
        let PastShift { number, by, at, from, to, .. } = PastShift::from(entry);
        let text = format!("{} shift {number} of {at} by {by}: back from {to} to {from}", self.target.title());
        self.tell("plan", &text, |_| {})
    }
}
