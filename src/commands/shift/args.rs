//! The arguments of `shift`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::super::proxy_states::AdminAccessArgs;
use super::analysis::AnalysisArgs;
use crate::shift::plan::DesiredWeights;
use crate::shift::record::RollbackTarget;
use crate::vocabulary::share::Share;

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
    pub(super) target: Option<String>,
    /// Shares in percent by subset, Service, service/subset or #number; others keep their proportion
    #[arg(long, value_name = "BACKEND=SHARE,...")]
    pub(super) to: Option<DesiredWeights>,
    /// Shares on the way to the one of --to, each judged before the next
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',')]
    pub(super) steps: Vec<Share>,
    /// The rule, by number or name
    #[arg(long, value_name = "N|NAME", conflicts_with = "all_rules")]
    pub(super) rule: Option<String>,
    /// All rules that have the backends
    #[arg(long)]
    pub(super) all_rules: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Write nothing: only plan (client), or let the server try it (server)
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "server")]
    pub(super) dry_run: Option<DryRunMode>,
    /// Print what would be written instead of writing it
    #[arg(long, value_name = "FORM", conflicts_with_all = ["dry_run", "steps", "watch"])]
    pub(super) emit: Option<EmitFormat>,
    /// Write the weights into this manifest and nothing into a cluster; comments and layout stay
    #[arg(long, value_name = "FILE", conflicts_with_all = ["emit", "steps", "watch", "history", "undo", "resume"])]
    pub(super) edit: Option<PathBuf>,
    /// Whose Envoys must run the new weights (default: all where 50 or fewer obey, else a sample of every class)
    #[arg(long, value_name = "WHOSE")]
    pub(super) ack: Option<AckMode>,
    /// How long that may take
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::vocabulary::duration::parse)]
    pub(super) ack_timeout: Duration,
    /// When the Envoys do not follow
    #[arg(long, value_name = "WHAT", default_value = "rollback")]
    pub(super) on_failure: FailureAction,
    /// On Ctrl-C, or when the program is ended, before the shift is done
    #[arg(long, value_name = "WHAT", default_value = "rollback")]
    pub(super) on_interrupt: FailureAction,
    /// Where a way back leads
    #[arg(long, value_name = "WHERE", default_value = "start")]
    pub(super) rollback_to: RollbackTargetArg,
    /// Go on although something speaks against it
    #[arg(long)]
    pub(super) force: bool,
    /// Go on although a controller writes the object too
    #[arg(long)]
    pub(super) force_owner: bool,
    /// Shifts of the object, newest first
    #[arg(long, conflicts_with_all = ["to", "undo", "resume", "dry_run", "emit"])]
    pub(super) history: bool,
    /// Give the weights back that were there before the last shift
    #[arg(long, conflicts_with_all = ["to", "resume", "dry_run", "emit"])]
    pub(super) undo: bool,
    /// Go on with a shift that was cut off: see whether the proxies follow, and end it
    #[arg(long, conflicts_with_all = ["to", "dry_run", "emit"])]
    pub(super) resume: bool,
    /// Go on with a shift, or start one, although another run may still be at it
    #[arg(long)]
    pub(super) takeover: bool,
    /// How the last shift stands
    #[arg(long, conflicts_with_all = ["to", "history", "undo", "resume", "dry_run", "emit"])]
    pub(super) status: bool,
    /// Ask the run that is at it to take the weights back
    #[arg(long, conflicts_with_all = ["to", "status", "history", "undo", "resume", "dry_run", "emit"])]
    pub(super) abort: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(super) output: ShiftFormat,
    #[command(flatten)]
    pub(super) reach: AdminAccessArgs,
    #[command(flatten)]
    pub(super) guard: AnalysisArgs,
}

/// Where a way back leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RollbackTargetArg {
    /// What was there before the shift.
    Start,
    /// The step before.
    Previous,
}

impl From<RollbackTargetArg> for RollbackTarget {
    fn from(to: RollbackTargetArg) -> Self {
        match to {
            RollbackTargetArg::Start => Self::Start,
            RollbackTargetArg::Previous => Self::Previous,
        }
    }
}

/// Where a dry run is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DryRunMode {
    /// Only the plan.
    Client,
    /// The server tries the patch.
    Server,
}

/// What is printed instead of written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum EmitFormat {
    /// The JSON Patch.
    Patch,
    /// The object as it would be.
    Yaml,
}

/// Whose Envoys must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AckMode {
    /// All that obey.
    All,
    /// Some of every class of callers.
    Sampled,
    /// Nobody's.
    None,
}

/// What is done when it does not go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FailureAction {
    /// The weights from before.
    Rollback,
    /// Leave the new weights and say so.
    Hold,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ShiftFormat {
    /// For people.
    Text,
    /// One event a line.
    Json,
}
