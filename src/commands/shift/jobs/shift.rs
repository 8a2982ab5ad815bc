//! `shift TARGET --to …`: applies new weights, in one step or several.

use std::collections::BTreeSet;

use super::super::args::{DryRunMode, ShiftJob, no_target_weights};
use super::super::metrics::Metrics;
use super::super::output::Output;
use super::super::target;
use super::super::world::World;
use super::{RunParts, Subject, complete_request, drive};
use crate::analysis::AnalysisSource;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::shift::machine::{RunJob, ShiftGoal};
use crate::shift::notice::ShiftEventType;
use crate::shift::plan::{DesiredWeights, RulePlan};
use crate::shift::steps;
use crate::vocabulary::share::Share;

const NOTHING_TO_DO: &str = "the weights already match: nothing to do";

pub(in super::super) async fn shift(
    context: &mut Context<'_>,
    world: World,
    mut job: ShiftJob,
) -> Result<CommandOutcome, Failure> {
    complete_request(context, &world, &mut job.request).await?;
    let (Some(argument), Some(desired)) = (&job.request.target, &job.request.desired) else {
        return Err(no_target_weights());
    };
    let subject = Subject::find(context, argument).await?;
    let (plans, steps) = plan(&subject, desired, &job)?;
    if plans.iter().all(RulePlan::is_noop) {
        let mut output = Output::new(job.run.output, world.clock.unique_id());
        output.emit_plain(context, ShiftEventType::Done, NOTHING_TO_DO, world.clock.now())?;
        return Ok(CommandOutcome::Clean);
    }
    let analysis = &job.run.analysis;
    analysis.validate(!steps.is_empty())?;
    let counts_calls = !steps.is_empty() || analysis.watch.is_some();
    let metrics = if counts_calls {
        let logs = subject.log_settings(context);
        Metrics::new(context, &subject.server, analysis, job.run.access, logs).await?
    } else {
        None
    };
    if metrics.is_some() {
        ensure_comparable(&plans)?;
    }
    let shown_steps = describe_steps(&steps, &job, metrics.as_ref().map(Metrics::source));
    if job.dry_run == Some(DryRunMode::Client) {
        let now = world.clock.now();
        let mut output = Output::new(job.run.output, world.clock.unique_id());
        output.show_weights(context, &subject.target, &plans, now)?;
        if let Some(steps) = shown_steps {
            output.emit_plain(context, ShiftEventType::Plan, steps, now)?;
        }
        output.emit_plain(context, ShiftEventType::Done, "dry run: nothing was applied", now)?;
        return Ok(CommandOutcome::Clean);
    }
    let goal = ShiftGoal { plans, steps, reason: job.reason.clone(), is_dry_run: job.dry_run.is_some() };
    let parts = RunParts { flags: &job.run, metrics, is_long: counts_calls, steps: shown_steps };
    drive(context, world, subject, RunJob::Shift(goal), parts).await
}

/// The plan of the first step, and the desired weights of all steps; no steps for a shift in one step.
fn plan(
    subject: &Subject,
    desired: &DesiredWeights,
    job: &ShiftJob,
) -> Result<(Vec<RulePlan>, Vec<DesiredWeights>), Failure> {
    let mesh = subject.mesh();
    let rules = &job.request.rules;
    let plans = target::plan_rules(&mesh, &subject.target, &subject.object, desired, rules)?;
    let steps = plan_steps(desired, &plans, &job.steps)?;
    let plans = match steps.first() {
        Some(first) => target::plan_rules(&mesh, &subject.target, &subject.object, first, rules)?,
        None => plans,
    };
    Ok((plans, steps))
}

/// The desired weights of each step that is still ahead; empty without `--steps`.
#[expect(clippy::indexing_slicing, reason = "the indexes are positions of the rule's own backends")]
fn plan_steps(desired: &DesiredWeights, plans: &[RulePlan], steps: &[Share]) -> Result<Vec<DesiredWeights>, Failure> {
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let share = |plan: &RulePlan| {
        let index = plan.backend_index(&desired.0.first()?.0)?;
        Some(Share::from_ratio(plan.backends[index].before.unwrap_or(0), plan.total_before))
    };
    let now = plans.first().and_then(share);
    if plans.iter().any(|plan| share(plan) != now) {
        return Err(Failure::usage("cannot shift these rules in the same steps: their current shares differ")
            .hint("shift them one after the other with --rule N"));
    }
    steps::step_weights(desired, steps, now.unwrap_or(Share::from_ratio(0, 1)))
        .map_err(|error| Failure::usage(error.to_string()))
}

/// The steps in a sentence, if there are several.
fn describe_steps(steps: &[DesiredWeights], job: &ShiftJob, source: Option<AnalysisSource>) -> Option<String> {
    if steps.len() < 2 {
        return None;
    }
    let interval = crate::vocabulary::duration::format(job.run.analysis.interval);
    let analysis = source.map_or("none", AnalysisSource::as_str);
    let names = steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Some(format!("{} steps: {names}; at least {interval} each; canary analysis: {analysis}", steps.len()))
}

/// Fails where canary and baseline cannot be separated: backends with the same label, and rules in which different
/// backends rise.
#[expect(clippy::indexing_slicing, reason = "the indexes are positions of the rule's own backends")]
fn ensure_comparable(plans: &[RulePlan]) -> Result<(), Failure> {
    let rising = |plan: &RulePlan| -> BTreeSet<String> {
        let rising = (0..plan.backends.len()).filter(|index| plan.is_rising(*index));
        rising.map(|index| plan.backends[index].backend.label()).collect()
    };
    for plan in plans {
        let mut labels: Vec<String> = plan.backends.iter().map(|planned| planned.backend.label()).collect();
        labels.sort();
        if let Some([label, _]) = labels.array_windows().find(|[label, next]| label == next) {
            return Err(Failure::usage(format!(
                "cannot analyze {}: it has two backends named {label}",
                plan.split.title()
            ))
            .hint("shift without --steps and --watch, or with --analysis none"));
        }
        if plans.first().is_some_and(|first| rising(plan) != rising(first)) {
            return Err(Failure::usage("cannot analyze these rules together: different backends rise in them")
                .hint("shift them one after the other with --rule N"));
        }
    }
    Ok(())
}
