//! `shift --history`: lists the shifts of an object.

use super::super::args::{RecordJob, ShiftFormat};
use super::Subject;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::render;
use crate::report::shift::{PastShiftReport, ShiftHistoryReport};

pub(in super::super) async fn show_history(
    context: &mut Context<'_>,
    job: RecordJob,
) -> Result<CommandOutcome, Failure> {
    let subject = Subject::find(context, &job.target).await?;
    let shifts = subject.record()?.entries.iter().map(PastShiftReport::from).collect();
    let report = ShiftHistoryReport { kind: "ShiftHistory", version: 1, object: subject.target.title(), shifts };
    match job.output {
        ShiftFormat::Json => render::json(&report, context.out)?,
        ShiftFormat::Text => render::shift::history(&report, &context.style, context.out)?,
    }
    Ok(CommandOutcome::Clean)
}
