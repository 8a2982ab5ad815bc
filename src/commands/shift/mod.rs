//! `shift`: moves weights between the backends of a route rule and verifies that the proxies follow.
//!
//! [`args`] turns the command line into a [`Job`], and each job has a file in [`jobs`]. Jobs that write prepare a run of the
//! state machine in [`crate::shift::machine`], which decides everything. [`driver`] carries out its effects, with the
//! [`operations`] in the order of a step: check, write, ask the proxies, watch the backends, count calls. [`mesh_view`] holds
//! the mesh, [`metrics`] counts calls, [`output`] prints events, and [`world`] is what a test replaces.

mod analysis_args;
mod args;
mod driver;
mod jobs;
mod mesh_view;
mod metrics;
mod operations;
mod output;
mod prompts;
mod target;
#[cfg(test)]
mod tests;
mod world;

use analysis_args::AnalysisMode;
pub(super) use analysis_args::parse_prometheus_address;
use args::Job;
pub use args::ShiftArgs;
use world::World;

use std::rc::Rc;

use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};

pub(super) async fn run(context: &mut Context<'_>, arguments: ShiftArgs) -> Result<CommandOutcome, Failure> {
    let job = arguments.into_job()?;
    let world = World::real(context.messages);
    run_job(context, world, job).await
}

/// Runs a job. Until the state machine runs, a signal ends the command: nothing is applied by then.
async fn run_job(context: &mut Context<'_>, world: World, job: Job) -> Result<CommandOutcome, Failure> {
    let (mut signals, handles_signals) = (world.signals.clone(), Rc::clone(&world.handles_signals));
    let prompter = Rc::clone(&world.prompter);
    let first_signal = async {
        while signals.changed().await.is_ok() {
            if !handles_signals.get() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = first_signal => {
            prompter.restore();
            Err(Failure::interrupted().hint("nothing was applied"))
        }
        outcome = start_job(context, world, job) => outcome,
    }
}

async fn start_job(context: &mut Context<'_>, world: World, job: Job) -> Result<CommandOutcome, Failure> {
    match job {
        Job::EditFile(job) => jobs::edit_file(context, job).await,
        Job::Shift(job) => jobs::shift(context, world, job).await,
        Job::Emit(job) => jobs::emit(context, world, job).await,
        Job::Undo(job) => jobs::undo(context, world, job).await,
        Job::Resume(job) => jobs::resume(context, world, job).await,
        Job::Abort(job) => jobs::abort(context, world, job).await,
        Job::Status(job) => jobs::show_status(context, job).await,
        Job::History(job) => jobs::show_history(context, job).await,
    }
}
