//! The arguments of `shift`, and the job that they ask for.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::super::live_proxies::AdminAccessArgs;
use super::analysis_args::AnalysisArgs;
use crate::cli::failure::Failure;
use crate::shift::machine::FailureAction;
use crate::shift::plan::DesiredWeights;
use crate::shift::record::RollbackTarget;
use crate::shift::selection::RuleSelection;
use crate::vocabulary::share::Share;

/// Move weights between the backends of a route rule and verify that the proxies follow
///
/// Plans the exact weights, shows which proxies are affected and what the checks find, and asks for confirmation. One
/// patch writes the weights and a record of the shift. The command then waits until the affected Envoys run the new
/// weights; if they do not, or on Ctrl-C, it rolls back. With --steps or --watch it also runs a canary analysis and
/// rolls back on a bad verdict.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  # Send a quarter of the calls to subset v2
  kubectl grpcmesh shift checkout.shop --to v2=25

  # Set both shares of the rule named canary
  kubectl grpcmesh shift vs/checkout -n shop --to v1=75,v2=25 --rule canary

  # Shift in steps, with canary analysis by Prometheus
  kubectl grpcmesh shift checkout --to v2=100 --steps 5,25,50 --interval 2m --prometheus istio-system/prometheus

  # Let the API server validate the change without storing it
  kubectl grpcmesh shift checkout --to v2=25 --dry-run=server

  # Change only the weights in a manifest, for GitOps
  kubectl grpcmesh shift vs/checkout --to v2=25 --edit routes.yaml

  # Print the JSON Patch instead of applying it
  kubectl grpcmesh shift checkout --to v2=25 --emit patch

  # Run without a prompt and print one JSON event per line
  kubectl grpcmesh shift checkout --to v2=25 --yes -o json

  # List the shifts of an object
  kubectl grpcmesh shift checkout --history

  # Restore the exact weights from before the last shift
  kubectl grpcmesh shift checkout --undo")]
pub struct ShiftArgs {
    /// Service or route object: checkout, checkout.shop, vs/x, httproute/x, grpcroute/x; prompted for on a terminal
    #[arg(value_name = "TARGET")]
    pub(super) target: Option<String>,
    /// Shares in percent by subset, Service, service/subset or #number; other backends keep their proportion
    #[arg(long, value_name = "BACKEND=SHARE,...")]
    pub(super) to: Option<DesiredWeights>,
    /// Intermediate shares on the way to the share of --to
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',')]
    pub(super) steps: Vec<Share>,
    /// Rule to shift, by index or name
    #[arg(long, value_name = "N|NAME", conflicts_with = "all_rules")]
    pub(super) rule: Option<String>,
    /// Shift all rules that have the backends
    #[arg(long)]
    pub(super) all_rules: bool,
    /// Skip all prompts
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Reason, stored in the record of the shift
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Apply nothing: only plan (client), or let the API server validate the patch (server)
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "server")]
    pub(super) dry_run: Option<DryRunMode>,
    /// Print the change instead of applying it
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["dry_run", "steps", "watch"])]
    pub(super) emit: Option<EmitFormat>,
    /// Change the weights in this manifest instead of the cluster; comments and layout stay
    #[arg(long, value_name = "FILE", conflicts_with_all = ["emit", "steps", "watch", "history", "undo", "resume"])]
    pub(super) edit: Option<PathBuf>,
    /// Affected proxies that must run the new weights (default: all if 50 or fewer, else a sample of each caller class)
    #[arg(long, value_name = "MODE")]
    pub(super) ack: Option<AckMode>,
    /// How long to wait for the proxies
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::vocabulary::duration::parse)]
    pub(super) ack_timeout: Duration,
    /// Action when proxies do not run the new weights in time
    #[arg(long, value_name = "ACTION", default_value = "rollback")]
    pub(super) on_failure: FailureActionArg,
    /// Action on Ctrl-C, SIGTERM or SIGHUP before the shift is done
    #[arg(long, value_name = "ACTION", default_value = "rollback")]
    pub(super) on_interrupt: FailureActionArg,
    /// Weights that a rollback restores
    #[arg(long, value_name = "TARGET", default_value = "start")]
    pub(super) rollback_to: RollbackTargetArg,
    /// Continue despite failed checks
    #[arg(long)]
    pub(super) force: bool,
    /// Continue although a controller manages the object
    #[arg(long)]
    pub(super) force_owner: bool,
    /// List the shifts of the object, newest first
    #[arg(long, conflicts_with_all = ["to", "undo", "resume", "dry_run", "emit"])]
    pub(super) history: bool,
    /// Restore the weights from before the last shift
    #[arg(long, conflicts_with_all = ["to", "resume", "dry_run", "emit"])]
    pub(super) undo: bool,
    /// Continue a shift whose process was killed or cut off
    #[arg(long, conflicts_with_all = ["to", "dry_run", "emit"])]
    pub(super) resume: bool,
    /// Take over a shift that another session may still run
    #[arg(long)]
    pub(super) takeover: bool,
    /// Show the current weights and the last shift
    #[arg(long, conflicts_with_all = ["to", "history", "undo", "resume", "dry_run", "emit"])]
    pub(super) status: bool,
    /// Ask the session that runs the shift to roll back
    #[arg(long, conflicts_with_all = ["to", "status", "history", "undo", "resume", "dry_run", "emit"])]
    pub(super) abort: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(super) output: ShiftFormat,
    #[command(flatten)]
    pub(super) admin_access: AdminAccessArgs,
    #[command(flatten)]
    pub(super) analysis: AnalysisArgs,
}

/// What `shift` is asked to do. Flags that a job ignores are not part of it.
#[derive(Debug)]
pub(super) enum Job {
    Shift(ShiftJob),
    /// `--undo`.
    Undo(RestoreJob),
    /// `--resume`.
    Resume(RestoreJob),
    /// `--abort`.
    Abort(RestoreJob),
    /// `--status`.
    Status(RecordJob),
    /// `--history`.
    History(RecordJob),
    /// `--edit FILE`.
    EditFile(EditJob),
    /// `--emit FORMAT`.
    Emit(EmitJob),
}

/// New weights for an object. On a terminal, prompts ask for what is missing.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) target: Option<String>,
    pub(super) desired: Option<DesiredWeights>,
    pub(super) rules: RuleSelection,
    /// Whether prompts may ask for what is missing.
    pub(super) may_ask: bool,
}

/// A shift in the cluster.
#[derive(Debug)]
pub(super) struct ShiftJob {
    pub(super) request: Request,
    pub(super) steps: Vec<Share>,
    pub(super) reason: Option<String>,
    pub(super) dry_run: Option<DryRunMode>,
    pub(super) run: RunFlags,
}

/// Undoing, resuming or aborting the last shift.
#[derive(Debug)]
pub(super) struct RestoreJob {
    pub(super) target: String,
    pub(super) run: RunFlags,
}

/// Reading the record.
#[derive(Debug)]
pub(super) struct RecordJob {
    pub(super) target: String,
    pub(super) output: ShiftFormat,
}

/// New weights in a manifest.
#[derive(Debug)]
pub(super) struct EditJob {
    pub(super) target: String,
    pub(super) desired: DesiredWeights,
    pub(super) rules: RuleSelection,
    pub(super) path: PathBuf,
    pub(super) is_dry_run: bool,
    pub(super) output: ShiftFormat,
}

/// Printing the change in place of applying it.
#[derive(Debug)]
pub(super) struct EmitJob {
    pub(super) request: Request,
    pub(super) reason: Option<String>,
    pub(super) format: EmitFormat,
    pub(super) run: RunFlags,
}

/// The flags of every run that may write weights.
#[derive(Debug, Clone)]
pub(super) struct RunFlags {
    pub(super) yes: bool,
    pub(super) ack: Option<AckMode>,
    pub(super) ack_timeout: Duration,
    pub(super) on_failure: FailureActionArg,
    pub(super) on_interrupt: FailureActionArg,
    pub(super) rollback_to: RollbackTarget,
    pub(super) force: bool,
    pub(super) force_owner: bool,
    pub(super) takeover: bool,
    pub(super) output: ShiftFormat,
    pub(super) access: AdminAccessArgs,
    pub(super) analysis: AnalysisArgs,
}

impl ShiftArgs {
    /// The job that the arguments ask for.
    ///
    /// # Errors
    /// The job needs a target, or weights.
    pub(super) fn into_job(self) -> Result<Job, Failure> {
        self.analysis.prometheus_address()?;
        let rules = match (self.rule, self.all_rules) {
            (Some(rule), _) => RuleSelection::Named(rule),
            (None, true) => RuleSelection::All,
            (None, false) => RuleSelection::Only,
        };
        if let Some(path) = self.edit {
            let (Some(target), Some(desired)) = (self.target, self.to) else {
                return Err(Failure::usage("--edit needs a target and --to BACKEND=SHARE"));
            };
            let is_dry_run = self.dry_run.is_some();
            return Ok(Job::EditFile(EditJob { target, desired, rules, path, is_dry_run, output: self.output }));
        }
        let run = RunFlags {
            yes: self.yes,
            ack: self.ack,
            ack_timeout: self.ack_timeout,
            on_failure: self.on_failure,
            on_interrupt: self.on_interrupt,
            rollback_to: self.rollback_to.into(),
            force: self.force,
            force_owner: self.force_owner,
            takeover: self.takeover,
            output: self.output,
            access: self.admin_access,
            analysis: self.analysis,
        };
        if !(self.history || self.status || self.abort || self.undo || self.resume) {
            let may_ask = !run.yes && run.output == ShiftFormat::Text;
            let request = Request { target: self.target, desired: self.to, rules, may_ask };
            return Ok(match self.emit {
                Some(format) => Job::Emit(EmitJob { request, reason: self.reason, format, run }),
                None => {
                    Job::Shift(ShiftJob { request, steps: self.steps, reason: self.reason, dry_run: self.dry_run, run })
                }
            });
        }
        let target = self.target.ok_or_else(no_target)?;
        let record = |target| RecordJob { target, output: run.output };
        Ok(match (self.history, self.status, self.abort, self.undo) {
            (true, ..) => Job::History(record(target)),
            (_, true, ..) => Job::Status(record(target)),
            (_, _, true, _) => Job::Abort(RestoreJob { target, run }),
            (_, _, _, true) => Job::Undo(RestoreJob { target, run }),
            (..) => Job::Resume(RestoreJob { target, run }),
        })
    }
}

/// The failure without a target.
pub(super) fn no_target() -> Failure {
    Failure::usage("no shift target given")
        .hint("name a Service or route object: kubectl grpcmesh shift checkout.shop --to v2=25")
        .hint("on a terminal, kubectl grpcmesh shift asks for target and weights")
}

/// The failure without weights.
pub(super) fn no_target_weights() -> Failure {
    Failure::usage("no target weights given: pass --to BACKEND=SHARE, such as --to v2=25")
        .hint("without new weights: --status, --history, --undo, --resume or --abort")
}

/// The weights that a rollback restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RollbackTargetArg {
    /// The weights from before the shift.
    Start,
    /// The weights of the step before.
    Previous,
}

impl From<RollbackTargetArg> for RollbackTarget {
    fn from(target: RollbackTargetArg) -> Self {
        match target {
            RollbackTargetArg::Start => Self::Start,
            RollbackTargetArg::Previous => Self::Previous,
        }
    }
}

/// The extent of a dry run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DryRunMode {
    /// Only plan.
    Client,
    /// Let the API server validate the patch without storing it.
    Server,
}

/// The output of `--emit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum EmitFormat {
    /// The JSON Patch.
    Patch,
    /// The object after the patch.
    Yaml,
}

/// Which affected proxies must run the new weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AckMode {
    /// All of them.
    All,
    /// A sample of each caller class; for the others istiod's sync state counts.
    Sampled,
    /// None: do not wait.
    None,
}

/// The action on the new weights when a shift cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FailureActionArg {
    /// Restore the weights from before the shift; see --rollback-to.
    Rollback,
    /// Keep the new weights.
    Hold,
}

impl From<FailureActionArg> for FailureAction {
    fn from(action: FailureActionArg) -> Self {
        match action {
            FailureActionArg::Rollback => Self::Rollback,
            FailureActionArg::Hold => Self::Hold,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ShiftFormat {
    /// Human-readable text.
    Text,
    /// One JSON event per line.
    Json,
}
