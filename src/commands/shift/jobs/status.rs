//! `shift --status`: shows the current weights and the last shift of an object.

use std::collections::BTreeMap;

use super::super::args::{RecordJob, ShiftFormat};
use super::Subject;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::render;
use crate::report::shift::{PastShiftReport, ShiftStatusReport};
use crate::shift::record::ShiftEntry;
use crate::shift::split::{RuleSplit, SplitBackend, rule_splits};

pub(in super::super) async fn show_status(
    context: &mut Context<'_>,
    job: RecordJob,
) -> Result<CommandOutcome, Failure> {
    let subject = Subject::find(context, &job.target).await?;
    let (kind, object, record) = (subject.target.key.kind, &subject.object, subject.record()?);
    let is_unchanged = |entry: &ShiftEntry| entry.rules.iter().all(|rule| rule.find_unchanged(kind, object).is_ok());
    let report = ShiftStatusReport {
        kind: "ShiftStatus",
        version: 1,
        object: subject.target.title(),
        weights: rule_splits(kind, object).into_iter().map(weights_of_rule).collect(),
        unchanged: record.applied_entry().map(is_unchanged),
        last: record.entries.first().map(PastShiftReport::from),
    };
    match job.output {
        ShiftFormat::Json => render::json(&report, context.out)?,
        ShiftFormat::Text => render::shift::status(&report, &context.style, context.out)?,
    }
    Ok(CommandOutcome::Clean)
}

/// Title of a rule, and its effective weights by backend.
fn weights_of_rule(split: RuleSplit) -> (String, BTreeMap<String, u64>) {
    let weights = split.backends.iter().map(SplitBackend::label).zip(split.effective_weights());
    (split.title(), weights.collect())
}
