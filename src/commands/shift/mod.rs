//! `shift`: moves weights between the backends of a route rule and verifies that the proxies follow.

mod acknowledge;
mod analysis;
mod apply;
mod args;
mod edit;
mod history;
mod monitor;
mod preflight;
mod prompts;
mod rollback;
mod run_steps;
mod session;
mod step_analysis;
mod target;

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::sync::watch::Receiver;

use crate::analysis::AnalysisSource;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cluster::write::PatchOutcome;
use crate::compare;
use crate::mesh;
use crate::render;
use crate::report::diff::DiffObjectReport;
use crate::report::shift::ShiftEventType;
use crate::shift::patch;
use crate::shift::plan::{DesiredWeights, RulePlan};
use crate::shift::record::{ShiftEntry, ShiftRecord, ShiftState};
use crate::shift::steps;
use crate::vocabulary::share::Share;
use analysis::CanaryAnalysis;
pub(super) use analysis::parse_prometheus_address;
pub use args::ShiftArgs;
use args::{AckMode, DryRunMode, EmitFormat, FailureAction, ShiftFormat};
use preflight::Preflight;
use session::ShiftSession;
use target::ShiftTarget;

/// The remaining work after the checks.
enum Prepared<'a, 'w> {
    Finished(CommandOutcome),
    Apply {
        session: Box<ShiftSession<'a, 'w>>,
        plans: Vec<RulePlan>,
        object: Value,
        entry: Box<ShiftEntry>,
        analysis: Option<Box<CanaryAnalysis>>,
    },
    UndoOrResume {
        session: Box<ShiftSession<'a, 'w>>,
        object: Value,
        record: ShiftRecord,
    },
}

pub(super) async fn run(context: &mut Context<'_>, mut arguments: ShiftArgs) -> Result<CommandOutcome, Failure> {
    let signals = super::count_termination_signals();
    let (mut interrupts, messages) = (signals.clone(), context.messages);
    let is_abort = arguments.abort;
    let interrupted = || {
        messages.restore();
        let hint = if is_abort { "the request to abort may be recorded" } else { "nothing was applied" };
        Failure::interrupted().hint(hint)
    };
    arguments.analysis.prometheus_address()?;
    if let Some(path) = arguments.edit.clone() {
        return edit::run(context, &arguments, &path).await;
    }
    tokio::select! {
        biased;
        _ = interrupts.changed() => return Err(interrupted()),
        completed = complete_arguments(context, &mut arguments) => completed?,
    }
    let prepared = tokio::select! {
        biased;
        _ = interrupts.changed() => return Err(interrupted()),
        prepared = prepare(context, &arguments, signals) => prepared?,
    };
    match prepared {
        Prepared::Finished(outcome) => Ok(outcome),
        Prepared::Apply { mut session, plans, object, entry, analysis } => {
            session.apply_and_run(&plans, object, *entry, analysis.map(|analysis| *analysis)).await
        }
        Prepared::UndoOrResume { mut session, object, record } => {
            history::undo_or_resume(&mut session, &object, record).await
        }
    }
}

/// Asks for missing arguments on a terminal.
async fn complete_arguments(context: &mut Context<'_>, arguments: &mut ShiftArgs) -> Result<(), Failure> {
    if arguments.target.is_some() && (arguments.to.is_some() || arguments.needs_no_weights()) {
        return Ok(());
    }
    let can_ask = context.env.stderr_is_terminal && arguments.output == ShiftFormat::Text && !arguments.yes;
    match (&arguments.target, can_ask && !arguments.needs_no_weights() && arguments.to.is_none()) {
        (_, true) => prompts::ask_for_arguments(context, arguments).await,
        (None, false) => Err(Failure::usage("no shift target given")
            .hint("name a Service or route object: kubectl grpcmesh shift checkout.shop --to v2=25")
            .hint("on a terminal, kubectl grpcmesh shift asks for target and weights")),
        (Some(_), false) => Err(no_target_weights()),
    }
}

fn no_target_weights() -> Failure {
    Failure::usage("no target weights given: pass --to BACKEND=SHARE, such as --to v2=25")
        .hint("without new weights: --status, --history, --undo, --resume or --abort")
}

/// Everything before the weights are applied.
async fn prepare<'a, 'w>(
    context: &'a mut Context<'w>,
    arguments: &'a ShiftArgs,
    signals: Receiver<u32>,
) -> Result<Prepared<'a, 'w>, Failure> {
    let source = SourceArgs::default();
    let mut read = source.read(context).await?;
    let options = source.options(&context.scope);
    let argument = arguments.target.as_deref().unwrap_or_default();
    let target = target::find(&mesh::resolve(&read.snapshot, &options), argument, &read.namespaces)?;
    let server = context.connect().await?;
    let Some(mut object) = server.get_object(&target.key, &target.api_version).await? else {
        return Err(not_found(&target));
    };
    let record = ShiftRecord::from_object(&object).map_err(|error| {
        Failure::unavailable(format!("cannot read the shift record of {}", target.title())).cause(error).hint(
            "if a newer kubectl-grpcmesh wrote it, upgrade; to start over, remove the annotation grpcmesh.io/shift",
        )
    })?;
    if arguments.history {
        return history::show_history(context, arguments, &target, &record).map(Prepared::Finished);
    }
    let mut session = Box::new(ShiftSession::new(context, arguments, server, target, source.clone(), signals));
    if arguments.status {
        return history::show_status(&mut session, &object, &record).map(Prepared::Finished);
    }
    if arguments.abort {
        return history::abort(&mut session, &record).await.map(Prepared::Finished);
    }
    if arguments.undo || arguments.resume {
        return Ok(Prepared::UndoOrResume { session, object, record });
    }
    let Some(desired) = &arguments.to else { return Err(no_target_weights()) };
    let (plans, step_weights) = {
        let mesh = mesh::resolve(&read.snapshot, &options);
        let plans = target::plan_rules(&mesh, &session.target, &object, desired, arguments)?;
        let step_weights = plan_steps(desired, &plans, arguments)?;
        match step_weights.first() {
            Some(first) => (target::plan_rules(&mesh, &session.target, &object, first, arguments)?, step_weights),
            None => (plans, step_weights),
        }
    };
    if plans.iter().all(RulePlan::is_noop) {
        session.emit(ShiftEventType::Done, "the weights already match: nothing to do", |_| {})?;
        return Ok(Prepared::Finished(CommandOutcome::Clean));
    }
    session.ensure_no_open_shift(&record, &object)?;
    let mut entry = Box::new(session.new_entry(&plans).await);
    entry.plan = step_weights.iter().map(ToString::to_string).collect();
    let mut analysis = CanaryAnalysis::new(&mut session, !step_weights.is_empty()).await?.map(Box::new);
    if analysis.is_some() {
        ensure_comparable(&plans)?;
    }
    entry.analysis = analysis.as_ref().map(|analysis| analysis.source());
    let mut new_record = record.clone();
    let number = record.next_number();
    new_record.push(match arguments.emit {
        // Another program applies the change, so no session will close the entry.
        Some(_) => {
            let message =
                "emitted for another client to apply; acknowledgement by the proxies was not checked".to_owned();
            ShiftEntry { number, state: ShiftState::Held, deadline: None, message, ..(*entry).clone() }
        }
        None => ShiftEntry { number, ..(*entry).clone() },
    });
    let mut operations = patch::shift_patch(&object, &plans, &new_record);
    if arguments.dry_run == Some(DryRunMode::Client) {
        session.show_plan(&plans, &object, None, &Preflight::default())?;
        emit_steps(&mut session, &entry)?;
        return finish_dry_run(&mut session);
    }
    let after = session.server_dry_run(&operations).await?;
    let mut preflight = preflight::run_checks(&mut read.snapshot, &options, &session.target, &object, &after, &plans);
    let mesh = mesh::resolve(&read.snapshot, &options);
    let autoscalers = preflight::check_autoscalers(&session.server, &mesh, &preflight, &plans).await;
    drop(mesh);
    preflight.checks.extend(autoscalers);
    if let Some(format) = arguments.emit {
        session.show_checks(&preflight);
        preflight.ensure_passed(arguments)?;
        match format {
            EmitFormat::Patch => render::json(&Value::from(operations), session.context.out)?,
            EmitFormat::Yaml => {
                render::yaml::yaml(&compare::without_server_fields(&after), session.context.out)?;
            }
        }
        return Ok(Prepared::Finished(CommandOutcome::Clean));
    }
    let hosts: BTreeSet<&String> = preflight.classes.iter().flat_map(|class| &class.hosts).collect();
    entry.hosts = hosts.into_iter().cloned().collect();
    session.show_plan(&plans, &object, Some(&after), &preflight)?;
    emit_steps(&mut session, &entry)?;
    preflight.ensure_passed(arguments)?;
    if arguments.dry_run.is_some() {
        return finish_dry_run(&mut session);
    }
    if !session.confirm().await? {
        session.emit(ShiftEventType::Held, "not confirmed: nothing was applied", |_| {})?;
        return Ok(Prepared::Finished(CommandOutcome::Partial));
    }
    if let Some(analysis) = &mut analysis {
        // Cohorts come from the mesh after the patch, which `read` holds now, and from the mesh as it is.
        session.update_cohorts(analysis, &mesh::resolve(&read.snapshot, &options), &entry);
        read = source.read(session.context).await?;
        session.update_cohorts(analysis, &mesh::resolve(&read.snapshot, &options), &entry);
        session.measure_baseline(&mut entry, analysis).await?;
    }
    if !arguments.yes || analysis.is_some() {
        // The mesh may have changed during the prompt or the baseline window.
        read = source.read(session.context).await?;
        let now = session.get_object().await?;
        if ShiftSession::is_changed(&object, &now) {
            return Err(session.changed_failure(&now));
        }
        object = now;
        operations = patch::shift_patch(&object, &plans, &new_record);
        let after = session.server_dry_run(&operations).await?;
        let preflight = preflight::run_checks(&mut read.snapshot, &options, &session.target, &object, &after, &plans);
        if preflight.ensure_passed(arguments).is_err() {
            session.show_checks(&preflight);
        }
        preflight.ensure_passed(arguments)?;
    }
    Ok(Prepared::Apply { session, plans, object, entry, analysis })
}

fn not_found(target: &ShiftTarget) -> Failure {
    Failure::unavailable(format!("{} not found: it was deleted", target.title()))
}

fn finish_dry_run<'a, 'w>(session: &mut ShiftSession<'a, 'w>) -> Result<Prepared<'a, 'w>, Failure> {
    session.emit(ShiftEventType::Done, "dry run: nothing was applied", |_| {})?;
    Ok(Prepared::Finished(CommandOutcome::Clean))
}

/// Emits the steps, if there are several.
fn emit_steps(session: &mut ShiftSession<'_, '_>, entry: &ShiftEntry) -> Result<(), Failure> {
    if entry.plan.len() < 2 {
        return Ok(());
    }
    let interval = crate::vocabulary::duration::format(session.arguments.analysis.interval);
    let analysis = entry.analysis.map_or("none", AnalysisSource::as_str);
    let message = format!(
        "{} steps: {}; at least {interval} each; canary analysis: {analysis}",
        entry.plan.len(),
        entry.plan.join(", ")
    );
    session.emit(ShiftEventType::Plan, &message, |_| {})
}

/// Fails where canary and baseline cannot be separated: backends with the same label, and rules in which different
/// backends rise.
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
        if rising(plan) != rising(&plans[0]) {
            return Err(Failure::usage("cannot analyze these rules together: different backends rise in them")
                .hint("shift them one after the other with --rule N"));
        }
    }
    Ok(())
}

/// The desired weights of each step that is still ahead; empty without `--steps`.
fn plan_steps(
    desired: &DesiredWeights,
    plans: &[RulePlan],
    arguments: &ShiftArgs,
) -> Result<Vec<DesiredWeights>, Failure> {
    if arguments.steps.is_empty() {
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
    steps::step_weights(desired, &arguments.steps, now.unwrap_or(Share::from_ratio(0, 1)))
        .map_err(|error| Failure::usage(error.to_string()))
}

/// The change of the object, as `diff` reports it.
fn compare_object(target: &ShiftTarget, object: &Value, after: &Value) -> DiffObjectReport {
    DiffObjectReport::from(compare::compare_objects(target.key.clone(), Some(after), Some(object)))
}
