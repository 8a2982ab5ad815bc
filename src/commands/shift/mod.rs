//! `shift`: move weights between the backends of a rule, and see that the proxies follow.

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
mod target;
mod watch;

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::sync::watch::Receiver;

use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cluster::write::PatchOutcome;
use crate::compare;
use crate::mesh;
use crate::render;
use crate::report::diff::DiffObjectReport;
use crate::rules::Severity;
use crate::shift::patch;
use crate::shift::plan::{DesiredWeights, RulePlan};
use crate::shift::record::{ShiftEntry, ShiftRecord, ShiftState};
use crate::shift::steps;
use crate::vocabulary::share::Share;
use analysis::CanaryAnalysis;
pub(super) use analysis::prometheus_at;
pub use args::ShiftArgs;
use args::{AckMode, DryRunMode, EmitFormat, FailureAction, ShiftFormat};
use preflight::Preflight;
use session::ShiftSession;
use target::ShiftTarget;

/// What is left to do when everything was looked at.
enum Prepared<'a, 'w> {
    /// Nothing.
    Ended(CommandOutcome),
    /// Weights are to be written.
    Write {
        session: Box<ShiftSession<'a, 'w>>,
        plans: Vec<RulePlan>,
        object: Value,
        entry: Box<ShiftEntry>,
        guard: Option<Box<CanaryAnalysis>>,
    },
    /// The last shift is to be undone, or gone on with.
    GoOn { session: Box<ShiftSession<'a, 'w>>, object: Value, record: ShiftRecord },
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, mut arguments: ShiftArgs) -> Result<CommandOutcome, Failure> {
    let signals = super::signals();
    let (mut ended, messages) = (signals.clone(), context.messages);
    let is_abort = arguments.abort;
    let interrupted = || {
        messages.give_cursor_back();
        let what = if is_abort { "what was asked for stands in the record" } else { "nothing is written" };
        Failure::interrupted().hint(what)
    };
    arguments.guard.place()?;
    if let Some(path) = arguments.edit.clone() {
        return edit::run(context, &arguments, &path).await;
    }
    tokio::select! {
        biased;
        _ = ended.changed() => return Err(interrupted()),
        completed = complete(context, &mut arguments) => completed?,
    }
    let ready = tokio::select! {
        biased;
        _ = ended.changed() => return Err(interrupted()),
        ready = prepare(context, &arguments, signals) => ready?,
    };
    match ready {
        Prepared::Ended(outcome) => Ok(outcome),
        Prepared::Write { mut session, plans, object, entry, guard } => {
            session.write_and_follow(&plans, object, *entry, guard.map(|guard| *guard)).await
        }
        Prepared::GoOn { mut session, object, record } => history::go_on(&mut session, &object, record).await,
    }
}

/// Asks for what is missing, where somebody can be asked.
async fn complete(context: &mut Context<'_>, arguments: &mut ShiftArgs) -> Result<(), Failure> {
    let looks_back = arguments.history || arguments.status || arguments.abort || arguments.undo || arguments.resume;
    if arguments.target.is_some() && (arguments.to.is_some() || looks_back) {
        return Ok(());
    }
    let can_ask = context.env.stderr_is_terminal && arguments.output == ShiftFormat::Text && !arguments.yes;
    match (&arguments.target, can_ask && !looks_back && arguments.to.is_none()) {
        (_, true) => prompts::complete(context, arguments).await,
        (None, false) => Err(Failure::usage("what is to be shifted is not said").hint(
            "name it: kubectl grpcmesh shift checkout.shop --to v2=25; or on a terminal without a name, to be asked",
        )),
        (Some(_), false) => Err(Failure::usage("the shares are not said: --to BACKEND=SHARE is missing")
            .hint("such as --to v2=25; or --status, --history, --undo, --resume, --abort")),
    }
}

/// Everything before the first write.
async fn prepare<'a, 'w>(
    context: &'a mut Context<'w>,
    arguments: &'a ShiftArgs,
    signals: Receiver<u32>,
) -> Result<Prepared<'a, 'w>, Failure> {
    let source = SourceArgs::default();
    let mut read = source.read(context).await?;
    let options = source.options(&context.scope);
    let word = arguments.target.as_deref().unwrap_or_default();
    let target = target::find(&mesh::resolve(&read.snapshot, &options), word, &read.namespaces)?;
    let server = context.connect().await?;
    let Some(mut object) = server.object(&target.key, &target.api_version).await? else {
        return Err(Failure::source(format!("{} is gone", target.title())));
    };
    let record = ShiftRecord::of(&object).map_err(|error| {
        Failure::source(format!("the record of {} cannot be read", target.title()))
            .cause(error)
            .hint("a newer version of this program may have written it; without the annotation grpcmesh.io/shift it begins anew")
    })?;
    if arguments.history {
        return history::history(context, arguments, &target, &record).map(Prepared::Ended);
    }
    let mut session = Box::new(ShiftSession::new(context, arguments, server, target, source.clone(), signals));
    if arguments.status {
        return history::status(&mut session, &object, &record).map(Prepared::Ended);
    }
    if arguments.abort {
        return history::abort(&mut session, &record).await.map(Prepared::Ended);
    }
    if arguments.undo || arguments.resume {
        return Ok(Prepared::GoOn { session, object, record });
    }
    let Some(wish) = &arguments.to else { return Err(Failure::usage("nothing is wished: --to BACKEND=SHARE")) };
    let (plans, wishes) = {
        let mesh = mesh::resolve(&read.snapshot, &options);
        let plans = target::plans(&mesh, &session.target, &object, wish, arguments)?;
        let wishes = way(wish, &plans, arguments)?;
        match wishes.first() {
            Some(first) => (target::plans(&mesh, &session.target, &object, first, arguments)?, wishes),
            None => (plans, wishes),
        }
    };
    if plans.iter().all(RulePlan::is_idle) {
        session.tell("done", "the shares are as wished already: nothing is written", |_| {})?;
        return Ok(Prepared::Ended(CommandOutcome::Clean));
    }
    session.not_open(&record, &object)?;
    let mut entry = Box::new(session.entry(&plans).await);
    entry.plan = wishes.iter().map(ToString::to_string).collect();
    let mut guard = CanaryAnalysis::new(&mut session, !wishes.is_empty()).await?.map(Box::new);
    if guard.is_some() {
        can_be_judged(&plans)?;
    }
    entry.guard = guard.as_ref().map(|guard| guard.name().to_owned());
    let mut written = record.clone();
    // What another program writes, no run of this one will end.
    let emitted = "emitted; nobody saw whether the proxies follow".to_owned();
    let number = record.next_number();
    written.push(match arguments.emit {
        Some(_) => ShiftEntry { number, state: ShiftState::Held, until: None, message: emitted, ..(*entry).clone() },
        None => ShiftEntry { number, ..(*entry).clone() },
    });
    let mut operations = patch::shift(&object, &plans, &written);
    if arguments.dry_run == Some(DryRunMode::Client) {
        session.show_plan(&plans, &object, None, &Preflight::default())?;
        tell_way(&mut session, &entry, guard.as_deref())?;
        session.tell("done", "a dry run: nothing is written", |_| {})?;
        return Ok(Prepared::Ended(CommandOutcome::Clean));
    }
    let after = session.try_it(&operations).await?;
    let mut found = preflight::look(&mut read.snapshot, &options, &session.target, &object, &after, &plans);
    let mesh = mesh::resolve(&read.snapshot, &options);
    let scaled = preflight::autoscalers(&session.server, &mesh, &found, &plans).await;
    drop(mesh);
    found.checks.extend(scaled);
    if let Some(form) = arguments.emit {
        session.show_checks(&found);
        stopped(arguments, &found)?;
        match form {
            EmitFormat::Patch => render::json(&Value::from(operations), session.context.out)?,
            EmitFormat::Yaml => {
                render::yaml::yaml(&compare::sendable(&after), session.context.out)?;
            }
        }
        return Ok(Prepared::Ended(CommandOutcome::Clean));
    }
    let hosts: BTreeSet<&String> = found.classes.iter().flat_map(|class| &class.hosts).collect();
    entry.hosts = hosts.into_iter().cloned().collect();
    session.show_plan(&plans, &object, Some(&after), &found)?;
    tell_way(&mut session, &entry, guard.as_deref())?;
    stopped(arguments, &found)?;
    if arguments.dry_run.is_some() {
        session.tell("done", "a dry run: nothing is written", |_| {})?;
        return Ok(Prepared::Ended(CommandOutcome::Clean));
    }
    if !session.is_agreed().await? {
        session.tell("held", "not agreed: nothing is written", |_| {})?;
        return Ok(Prepared::Ended(CommandOutcome::Partial));
    }
    if let Some(guard) = &mut guard {
        // Of the mesh as it will be, which was resolved last, and as it is.
        session.learn(guard, &mesh::resolve(&read.snapshot, &options), &entry);
        read = source.read(session.context).await?;
        session.learn(guard, &mesh::resolve(&read.snapshot, &options), &entry);
        session.baseline(&mut entry, guard).await?;
    }
    if !arguments.yes || guard.is_some() {
        // Time has passed: the mesh may be another one by now.
        read = source.read(session.context).await?;
        let now = session.look().await?;
        if ShiftSession::is_changed(&object, &now) {
            return Err(session.changed(&now));
        }
        object = now;
        operations = patch::shift(&object, &plans, &written);
        let after = session.try_it(&operations).await?;
        let found = preflight::look(&mut read.snapshot, &options, &session.target, &object, &after, &plans);
        if stopped(arguments, &found).is_err() {
            session.show_checks(&found);
        }
        stopped(arguments, &found)?;
    }
    Ok(Prepared::Write { session, plans, object, entry, guard })
}

/// Tells the steps, if there are several.
fn tell_way(
    session: &mut ShiftSession<'_, '_>,
    entry: &ShiftEntry,
    guard: Option<&CanaryAnalysis>,
) -> Result<(), Failure> {
    if entry.plan.len() < 2 {
        return Ok(());
    }
    let interval = crate::vocabulary::duration::show(session.arguments.guard.interval);
    let by = guard.map_or("not judged: steps go by time", CanaryAnalysis::name);
    let message = format!("{} steps: {}; each at least {interval} ({by})", entry.plan.len(), entry.plan.join(", "));
    session.tell("plan", &message, |_| {})
}

/// Refuses what no guard could tell apart: backends of one name, and rules whose shares move in different ways.
fn can_be_judged(plans: &[RulePlan]) -> Result<(), Failure> {
    let rising = |plan: &RulePlan| -> BTreeSet<String> {
        let rises = (0..plan.backends.len()).filter(|at| plan.share_after(*at) > plan.share_before(*at));
        rises.map(|at| plan.backends[at].backend.label()).collect()
    };
    for plan in plans {
        let mut labels: Vec<String> = plan.backends.iter().map(|one| one.backend.label()).collect();
        labels.sort();
        if let Some([label, _]) = labels.array_windows().find(|[one, other]| one == other) {
            let why = format!("{} has two backends called {}: they cannot be judged apart", plan.split.title(), label);
            return Err(Failure::usage(why).hint("shift it without --steps and --watch, or with --guard none"));
        }
        if rising(plan) != rising(&plans[0]) {
            let why = "in one of these rules other backends rise than in another: no guard can judge both";
            return Err(Failure::usage(why).hint("shift them one after the other: --rule N"));
        }
    }
    Ok(())
}

/// The steps of a wish, if steps are asked for: those that lie ahead.
fn way(wish: &DesiredWeights, plans: &[RulePlan], arguments: &ShiftArgs) -> Result<Vec<DesiredWeights>, Failure> {
    if arguments.steps.is_empty() {
        return Ok(Vec::new());
    }
    let share = |plan: &RulePlan| {
        let at = plan.named(&wish.0.first()?.0)?;
        Some(Share::of(plan.backends[at].before.unwrap_or(0), plan.total_before))
    };
    let now = plans.first().and_then(share);
    if plans.iter().any(|plan| share(plan) != now) {
        return Err(Failure::usage("the rules do not begin with the same share: their steps would not be the same")
            .hint("shift them one after the other: --rule N"));
    }
    steps::wishes(wish, &arguments.steps, now.unwrap_or(Share::of(0, 1)))
        .map_err(|error| Failure::usage(error.to_string()))
}

/// Stops where an error stands and no flag lets it pass.
fn stopped(arguments: &ShiftArgs, found: &Preflight) -> Result<(), Failure> {
    let stands = found.checks.iter().find(|check| {
        let passes = match check.flag {
            Some("--force-owner") => arguments.force_owner,
            _ => arguments.force,
        };
        check.severity == Severity::Error && !passes
    });
    match stands {
        Some(check) => Err(Failure::source("stopped: nothing is written").hint(match check.flag {
            Some(flag) => format!("to go on all the same: {flag}"),
            None => "mend it first".to_owned(),
        })),
        None => Ok(()),
    }
}

/// The object before and after, as `diff` shows it.
fn compared(target: &ShiftTarget, object: &Value, after: &Value) -> DiffObjectReport {
    DiffObjectReport::from(compare::compare(target.title(), Some(after), Some(object)))
}
