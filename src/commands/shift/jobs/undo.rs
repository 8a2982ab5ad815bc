//! `shift --undo`: restores the weights from before the last shift.

use super::super::args::RestoreJob;
use super::super::world::World;
use super::{RunParts, Subject, drive};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::shift::machine::RunJob;

pub(in super::super) async fn undo(
    context: &mut Context<'_>,
    world: World,
    job: RestoreJob,
) -> Result<CommandOutcome, Failure> {
    let subject = Subject::find(context, &job.target).await?;
    let parts = RunParts { flags: &job.run, metrics: None, is_long: false, steps: None };
    drive(context, world, subject, RunJob::Undo, parts).await
}
