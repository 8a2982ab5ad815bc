//! `shift`: move weights between the backends of a rule, and see that the proxies follow.

mod edit;
mod ending;
mod follow;
mod guard;
mod past;
mod preflight;
mod questions;
mod session;
mod target;
mod walk;
mod writing;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;
use tokio::sync::watch;

use super::proxies::ReachArgs;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::global::SourceArgs;
use crate::cluster::write::Patched;
use crate::compare::objects;
use crate::mesh;
use crate::render;
use crate::report::diff::ObjectReport;
use crate::rules::Severity;
use crate::schema;
use crate::shift::patch;
use crate::shift::plan::{RulePlan, Wish};
use crate::shift::record::{Back, Entry, Record, State};
use crate::shift::shares::Share;
use crate::shift::steps;
use guard::{Guard, GuardArgs};
use preflight::Preflight;
use session::Session;
use target::Target;

/// Move weights between the backends of a rule, and see that the proxies follow
///
/// Plans exact weights, says whose calls the rule decides and what speaks against it, asks, writes weights and a record in
/// one patch that tests what it rests on, and waits until the Envoys that obey run them. If they do not, or on Ctrl-C, the
/// weights from before come back. With --steps or --watch it also judges what callers see, and goes back when that is bad.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh shift checkout.shop --to v2=25                a quarter of the calls to subset v2
  kubectl grpcmesh shift vs/checkout -n shop --to v1=75,v2=25 --rule canary
  kubectl grpcmesh shift checkout --to v2=100 --steps 5,25,50 --interval 2m --prometheus istio-system/prometheus
  kubectl grpcmesh shift vs/checkout --to v2=25 --edit routes.yaml    the numbers in a manifest, for git
  kubectl grpcmesh shift checkout --to v2=25 --dry-run=server    what would be written, tried and not stored
  kubectl grpcmesh shift checkout --to v2=25 --emit patch        for a pipeline of your own
  kubectl grpcmesh shift checkout --to v2=25 --yes -o json       one event a line
  kubectl grpcmesh shift checkout --history                      who shifted what
  kubectl grpcmesh shift checkout --undo                         exactly the weights from before the last shift")]
pub struct ShiftArgs {
    /// What is shifted: checkout, checkout.shop, vs/x, httproute/x, grpcroute/x; asked for on a terminal
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// Shares in percent by subset, Service, service/subset or #number; others keep their proportion
    #[arg(long, value_name = "BACKEND=SHARE,...")]
    to: Option<Wish>,
    /// Shares on the way to the one of --to, each judged before the next
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',')]
    steps: Vec<Share>,
    /// The rule, by number or name
    #[arg(long, value_name = "N|NAME", conflicts_with = "all_rules")]
    rule: Option<String>,
    /// All rules that have the backends
    #[arg(long)]
    all_rules: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Write nothing: only plan (client), or let the server try it (server)
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "server")]
    dry_run: Option<DryRunAt>,
    /// Print what would be written instead of writing it
    #[arg(long, value_name = "FORM", conflicts_with = "dry_run")]
    emit: Option<Emit>,
    /// Write the weights into this manifest and nothing into a cluster; comments and layout stay
    #[arg(long, value_name = "FILE", conflicts_with_all = ["emit", "steps", "history", "undo", "resume"])]
    edit: Option<PathBuf>,
    /// Whose Envoys must run the new weights (default: all where 50 or fewer obey, else a sample of every class)
    #[arg(long, value_name = "WHOSE")]
    ack: Option<Ack>,
    /// How long that may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = schema::duration::parse)]
    ack_timeout: Duration,
    /// When the Envoys do not follow
    #[arg(long, value_name = "WHAT", default_value = "rollback")]
    on_failure: Then,
    /// On Ctrl-C, or when the program is ended, before the shift is done
    #[arg(long, value_name = "WHAT", default_value = "rollback")]
    on_interrupt: Then,
    /// Where a way back leads
    #[arg(long, value_name = "WHERE", default_value = "start")]
    rollback_to: BackTo,
    /// Go on although something speaks against it
    #[arg(long)]
    force: bool,
    /// Go on although a controller writes the object too
    #[arg(long)]
    force_owner: bool,
    /// Shifts of the object, newest first
    #[arg(long, conflicts_with_all = ["to", "undo", "resume", "dry_run", "emit"])]
    history: bool,
    /// Give the weights back that were there before the last shift
    #[arg(long, conflicts_with_all = ["to", "resume", "dry_run", "emit"])]
    undo: bool,
    /// Go on with a shift that was cut off: see whether the proxies follow, and end it
    #[arg(long, conflicts_with_all = ["to", "dry_run", "emit"])]
    resume: bool,
    /// Go on with a shift, or start one, although another run may still be at it
    #[arg(long)]
    takeover: bool,
    /// How the last shift stands
    #[arg(long, conflicts_with_all = ["to", "history", "undo", "resume", "dry_run", "emit"])]
    status: bool,
    /// Ask the run that is at it to take the weights back
    #[arg(long, conflicts_with_all = ["to", "status", "history", "undo", "resume", "dry_run", "emit"])]
    abort: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    reach: ReachArgs,
    #[command(flatten)]
    guard: GuardArgs,
}

/// Where a way back leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BackTo {
    /// What was there before the shift.
    Start,
    /// The step before.
    Previous,
}

impl From<BackTo> for Back {
    fn from(to: BackTo) -> Self {
        match to {
            BackTo::Start => Self::Start,
            BackTo::Previous => Self::Previous,
        }
    }
}

/// Where a dry run is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DryRunAt {
    /// Only the plan.
    Client,
    /// The server tries the patch.
    Server,
}

/// What is printed instead of written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// The JSON Patch.
    Patch,
    /// The object as it would be.
    Yaml,
}

/// Whose Envoys must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ack {
    /// All that obey.
    All,
    /// Some of every class of callers.
    Sampled,
    /// Nobody's.
    None,
}

/// What is done when it does not go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Then {
    /// The weights from before.
    Rollback,
    /// Leave the new weights and say so.
    Hold,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One event a line.
    Json,
}

/// What is left to do when everything was looked at.
enum Ready<'a, 'w> {
    /// Nothing.
    Ended(Outcome),
    /// Weights are to be written.
    Write {
        session: Box<Session<'a, 'w>>,
        plans: Vec<RulePlan>,
        object: Value,
        entry: Box<Entry>,
        guard: Option<Box<Guard>>,
    },
    /// The last shift is to be undone, or gone on with.
    GoOn { session: Box<Session<'a, 'w>>, object: Value, record: Record },
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, mut arguments: ShiftArgs) -> Result<Outcome, Failure> {
    let signals = super::signals();
    let (mut ended, messages) = (signals.clone(), context.messages);
    let interrupted = || {
        messages.give_cursor_back();
        Failure::interrupted().hint("nothing is written")
    };
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
        Ready::Ended(outcome) => Ok(outcome),
        Ready::Write { mut session, plans, object, entry, guard } => {
            session.write_and_follow(&plans, object, *entry, guard.map(|guard| *guard)).await
        }
        Ready::GoOn { mut session, object, record } => past::go_on(&mut session, &object, record).await,
    }
}

/// Asks for what is missing, where somebody can be asked.
async fn complete(context: &mut Context<'_>, arguments: &mut ShiftArgs) -> Result<(), Failure> {
    let looks_back = arguments.history || arguments.status || arguments.abort || arguments.undo || arguments.resume;
    if arguments.target.is_some() && (arguments.to.is_some() || looks_back) {
        return Ok(());
    }
    let can_ask = context.env.stderr_is_terminal && arguments.output == Format::Text && !arguments.yes;
    match (&arguments.target, can_ask && !looks_back && arguments.to.is_none()) {
        (_, true) => questions::complete(context, arguments).await,
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
    signals: watch::Receiver<u32>,
) -> Result<Ready<'a, 'w>, Failure> {
    let source = SourceArgs::default();
    let mut read = source.read(context).await?;
    let options = source.options(&context.scope);
    let word = arguments.target.as_deref().unwrap_or_default();
    let target = target::find(&mesh::resolve(&read.snapshot, &options), word, &read.namespaces)?;
    let server = context.connection.connection(&context.env).connect().await?;
    let Some(object) = server.object(&target.key, &target.api_version).await? else {
        return Err(Failure::source(format!("{} is gone", target.title())));
    };
    let record = Record::of(&object).map_err(|error| {
        Failure::source(format!("the record of {} cannot be read", target.title()))
            .cause(error)
            .hint("a newer version of this program may have written it; without the annotation grpcmesh.io/shift it begins anew")
    })?;
    if arguments.history {
        return past::history(context, arguments, &target, &record).map(Ready::Ended);
    }
    let mut session = Box::new(Session::new(context, arguments, server, target, source.clone(), signals));
    if arguments.status {
        return past::status(&mut session, &object, &record).map(Ready::Ended);
    }
    if arguments.abort {
        return past::abort(&mut session, &record).await.map(Ready::Ended);
    }
    if arguments.undo || arguments.resume {
        return Ok(Ready::GoOn { session, object, record });
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
        return Ok(Ready::Ended(Outcome::Clean));
    }
    session.not_open(&record, &object)?;
    let mut entry = Box::new(session.entry(&plans).await);
    entry.plan = wishes.iter().map(ToString::to_string).collect();
    let mut guard = Guard::new(&mut session, !wishes.is_empty()).await?.map(Box::new);
    let mut written = record.clone();
    // What another program writes, no run of this one will end.
    let emitted = "emitted; nobody saw whether the proxies follow".to_owned();
    let number = record.next_number();
    written.push(match arguments.emit {
        Some(_) => Entry { number, state: State::Held, until: None, message: emitted, ..(*entry).clone() },
        None => Entry { number, ..(*entry).clone() },
    });
    let operations = patch::shift(&object, &plans, &written);
    if arguments.dry_run == Some(DryRunAt::Client) {
        session.show_plan(&plans, &object, None, &Preflight::default())?;
        session.tell("done", "a dry run: nothing is written", |_| {})?;
        return Ok(Ready::Ended(Outcome::Clean));
    }
    let after = session.try_it(&operations).await?;
    let found = preflight::look(&mut read.snapshot, &options, &session.target, &object, &after, &plans);
    if let Some(form) = arguments.emit {
        session.show_checks(&found);
        stopped(arguments, &found)?;
        match form {
            Emit::Patch => render::json(&Value::from(operations), session.context.out)?,
            Emit::Yaml => {
                render::yaml::yaml(&objects::sendable(&after), session.context.out)?;
            }
        }
        return Ok(Ready::Ended(Outcome::Clean));
    }
    session.show_plan(&plans, &object, Some(&after), &found)?;
    if let [_, _, ..] = &entry.plan[..] {
        let interval = schema::duration::show(arguments.guard.interval);
        let steps = entry.plan.join(", ");
        let by = guard.as_ref().map_or("not judged: steps go by time", |guard| guard.name());
        session.tell(
            "plan",
            &format!("{} steps: {steps}; each at least {interval} ({by})", entry.plan.len()),
            |_| {},
        )?;
    }
    stopped(arguments, &found)?;
    if arguments.dry_run.is_some() {
        session.tell("done", "a dry run: nothing is written", |_| {})?;
        return Ok(Ready::Ended(Outcome::Clean));
    }
    if !session.is_agreed().await? {
        session.tell("held", "not agreed: nothing is written", |_| {})?;
        return Ok(Ready::Ended(Outcome::Partial));
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
        let after = session.try_it(&operations).await?;
        let found = preflight::look(&mut read.snapshot, &options, &session.target, &object, &after, &plans);
        if stopped(arguments, &found).is_err() {
            session.show_checks(&found);
        }
        stopped(arguments, &found)?;
    }
    Ok(Ready::Write { session, plans, object, entry, guard })
}

/// The steps of a wish, if steps are asked for: those that lie ahead.
fn way(wish: &Wish, plans: &[RulePlan], arguments: &ShiftArgs) -> Result<Vec<Wish>, Failure> {
    if arguments.steps.is_empty() {
        return Ok(Vec::new());
    }
    let now = plans.first().and_then(|plan| {
        let at = plan.named(&wish.0.first()?.0)?;
        Some(Share::of(plan.backends[at].before.unwrap_or(0), plan.total_before))
    });
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
fn compared(target: &Target, object: &Value, after: &Value) -> ObjectReport {
    ObjectReport::from(objects::compare(target.title(), Some(after), Some(object)))
}
