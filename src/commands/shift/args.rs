//! The arguments of `shift`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::super::live_proxies::AdminAccessArgs;
use super::analysis::AnalysisArgs;
use crate::shift::plan::DesiredWeights;
use crate::shift::record::RollbackTarget;
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
    pub(super) on_failure: FailureAction,
    /// Action on Ctrl-C, SIGTERM or SIGHUP before the shift is done
    #[arg(long, value_name = "ACTION", default_value = "rollback")]
    pub(super) on_interrupt: FailureAction,
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

impl ShiftArgs {
    /// Whether they ask for something that needs no weights.
    pub(super) fn needs_no_weights(&self) -> bool {
        self.history || self.status || self.abort || self.undo || self.resume
    }
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
pub(super) enum FailureAction {
    /// Restore the weights from before the shift; see --rollback-to.
    Rollback,
    /// Keep the new weights.
    Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ShiftFormat {
    /// Human-readable text.
    Text,
    /// One JSON event per line.
    Json,
}
