//! The jobs of `shift`, one per file. Jobs that write prepare a [`Run`] of the machine here.

mod abort;
pub(super) mod edit_file;
mod emit;
mod history;
mod resume;
mod shift;
mod status;
mod undo;

pub(super) use abort::abort;
pub(super) use edit_file::edit_file;
pub(super) use emit::emit;
pub(super) use history::show_history;
pub(super) use resume::resume;
pub(super) use shift::shift;
pub(super) use status::show_status;
pub(super) use undo::undo;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;

use super::args::{AckMode, Request, RunFlags, ShiftFormat, no_target, no_target_weights};
use super::driver::Driver;
use super::mesh_view::{MeshView, SHIFT_KINDS};
use super::metrics::{LogSettingsScope, Metrics};
use super::operations::Operations;
use super::output::Output;
use super::target::{self, ShiftTarget};
use super::world::World;
use super::{AnalysisMode, prompts};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::cluster::client::ApiServer;
use crate::cluster::collect::CollectScope;
use crate::mesh::{self, Mesh, ResolveOptions};
use crate::shift::machine::{AnalysisSettings, Prompts, Run, RunJob, Settings};
use crate::shift::record::{ShiftEntry, ShiftRecord};

/// The mesh, the object to shift, and the connection to its cluster.
struct Subject {
    server: ApiServer,
    scoped: ScopedSnapshot,
    options: ResolveOptions,
    target: ShiftTarget,
    object: Arc<Value>,
}

impl Subject {
    /// Finds the object that an argument names, and reads it.
    async fn find(context: &mut Context<'_>, argument: &str) -> Result<Self, Failure> {
        let source = SourceArgs { kinds: SHIFT_KINDS.to_vec(), ..SourceArgs::default() };
        let scoped = source.read(context).await?;
        let options = source.options(&context.scope);
        let target = target::find(&mesh::resolve(&scoped.snapshot, &options), argument, &scoped.namespaces)?;
        let server = context.connect().await?;
        let Some(object) = server.get_object(&target.key, &target.api_version).await? else {
            return Err(Failure::unavailable(format!("{} not found: it was deleted", target.title())));
        };
        Ok(Self { server, scoped, options, target, object: object.into() })
    }

    fn mesh(&self) -> Mesh<'_> {
        mesh::resolve(&self.scoped.snapshot, &self.options)
    }

    /// The record of the object.
    fn record(&self) -> Result<ShiftRecord, Failure> {
        ShiftRecord::from_object(&self.object).map_err(|error| {
            Failure::unavailable(format!("cannot read the shift record of {}", self.target.title())).cause(error).hint(
                "if a newer kubectl-grpcmesh wrote it, upgrade; to start over, remove the annotation grpcmesh.io/shift",
            )
        })
    }

    /// Where the settings of access logs are.
    fn log_settings(&self, context: &Context<'_>) -> LogSettingsScope {
        LogSettingsScope {
            istio_namespace: context.scope.istio_namespace.clone(),
            revision: context.scope.revision.clone(),
            namespace: self.target.key.namespace.to_string(),
        }
    }
}

/// Asks for the target and the weights that are missing, if that is possible.
async fn complete_request(context: &mut Context<'_>, world: &World, request: &mut Request) -> Result<(), Failure> {
    let can_ask = request.may_ask && context.env.stderr_is_terminal && request.desired.is_none();
    if can_ask {
        return prompts::ask_for_request(context, world, request).await;
    }
    match (&request.target, &request.desired) {
        (Some(_), Some(_)) => Ok(()),
        (None, _) => Err(no_target()),
        (Some(_), None) => Err(no_target_weights()),
    }
}

/// What a run gets besides its job.
struct RunParts<'j> {
    flags: &'j RunFlags,
    metrics: Option<Metrics>,
    /// Whether a step may take long, because calls are counted or another step follows.
    is_long: bool,
    steps: Option<String>,
}

/// Runs the machine for a job.
async fn drive(
    context: &mut Context<'_>,
    world: World,
    subject: Subject,
    job: RunJob,
    parts: RunParts<'_>,
) -> Result<CommandOutcome, Failure> {
    let session = world.clock.unique_id();
    let handles_signals = Rc::clone(&world.handles_signals);
    let (target, object) = (&subject.target, subject.object.clone());
    let run = Run {
        kind: target.key.kind,
        title: target.title(),
        argument: target.argument(),
        session: session.clone(),
        user: subject.server.current_user().await.unwrap_or_else(|_| "unknown".to_owned()),
        job,
        settings: settings(context, parts.flags, parts.metrics.as_ref(), parts.is_long),
    };
    let driver = Driver {
        run,
        steps: parts.steps.clone(),
        output: Output::new(parts.flags.output, session),
        prompter: Rc::clone(&world.prompter),
        clock: Rc::clone(&world.clock),
        signals: world.signals.clone(),
        operations: Rc::new(Mutex::new(operations(context, world, subject, parts))),
        context,
    };
    handles_signals.set(true);
    driver.run(object).await
}

/// The operations of a run.
fn operations(context: &Context<'_>, world: World, subject: Subject, parts: RunParts<'_>) -> Operations {
    let Subject { server, scoped, options, target, object: _ } = subject;
    let scope = CollectScope {
        namespaces: scoped.namespaces.iter().cloned().collect(),
        istio_namespace: context.scope.istio_namespace.clone(),
        revision: context.scope.revision.clone(),
        kinds: SHIFT_KINDS.to_vec(),
    };
    Operations {
        server,
        proxies: world.proxies,
        clock: world.clock,
        view: MeshView::new(scoped.snapshot, options, scope, target),
        metrics: parts.metrics,
        access: parts.flags.access,
        ack: parts.flags.ack,
        last_check: None,
    }
}

fn settings(context: &Context<'_>, flags: &RunFlags, metrics: Option<&Metrics>, is_long: bool) -> Settings {
    let RunFlags { analysis, .. } = flags;
    let prompts = match (flags.yes, context.env.stderr_is_terminal && flags.output == ShiftFormat::Text) {
        (true, _) => Prompts::AssumeYes,
        (false, true) => Prompts::Ask,
        (false, false) => Prompts::Unavailable,
    };
    let counting =
        analysis.interval * (analysis.bad_windows + 2) + analysis.max_wait + analysis.watch.unwrap_or_default();
    Settings {
        prompts,
        acknowledges: flags.ack != Some(AckMode::None),
        ack_timeout: flags.ack_timeout,
        on_failure: flags.on_failure.into(),
        on_interrupt: flags.on_interrupt.into(),
        rollback_to: flags.rollback_to,
        force: flags.force,
        force_owner: flags.force_owner,
        takeover: flags.takeover,
        interval: analysis.interval,
        analysis: metrics.map(|metrics| AnalysisSettings {
            source: metrics.source(),
            may_fall_back: analysis.analysis.is_none() && analysis.mode() == AnalysisMode::Envoy,
            limits: analysis.limits(),
            bad_windows: analysis.bad_windows,
            max_wait: analysis.max_wait,
            watch: analysis.watch.unwrap_or_default(),
            on_stall: analysis.on_stall.into(),
        }),
        chose_analysis: analysis.analysis.is_some() || analysis.prometheus.is_some(),
        max_step_duration: flags.ack_timeout + if is_long { counting } else { Duration::ZERO },
    }
}

/// Whether the steps of a recorded shift may take long.
fn is_long(entry: Option<&ShiftEntry>) -> bool {
    entry.is_some_and(|entry| !entry.plan.is_empty() || entry.analysis.is_some())
}
