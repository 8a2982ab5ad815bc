//! `shift --resume`: continues a shift whose process ended.

use super::super::args::RestoreJob;
use super::super::metrics::Metrics;
use super::super::world::World;
use super::{RunParts, Subject, drive, is_long};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::shift::machine::RunJob;

pub(in super::super) async fn resume(
    context: &mut Context<'_>,
    world: World,
    job: RestoreJob,
) -> Result<CommandOutcome, Failure> {
    let subject = Subject::find(context, &job.target).await?;
    let record = subject.record()?;
    let entry = record.open_entry();
    let analysis = &job.run.analysis;
    let counts_calls = is_long(entry) || analysis.watch.is_some();
    // Without the flags of the analysis that the shift uses, the machine asks for them.
    let is_missing = entry.is_some_and(|entry| entry.analysis.is_some())
        && analysis.analysis.is_none()
        && analysis.prometheus.is_none();
    let metrics = if entry.is_some() && counts_calls && !is_missing {
        analysis.validate(true)?;
        let logs = subject.log_settings(context);
        Metrics::new(context, &subject.server, analysis, job.run.access, logs).await?
    } else {
        None
    };
    let parts = RunParts { flags: &job.run, metrics, is_long: counts_calls, steps: None };
    drive(context, world, subject, RunJob::Resume, parts).await
}
