//! The flags of the canary analysis.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::args::FailureActionArg;
use crate::analysis::verdict::AnalysisLimits;
use crate::analysis::window::{DEFAULT_FAILURE_STATUSES, FailureCriteria};
use crate::cli::failure::Failure;
use crate::cluster::prometheus::PrometheusAddress;
use crate::vocabulary::response_flags;

/// Source and limits of the canary analysis.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Canary analysis (with --steps or --watch)")]
pub(super) struct AnalysisArgs {
    /// Length of a window; each step lasts at least one window
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = crate::vocabulary::duration::parse)]
    pub(super) interval: Duration,
    /// Keep analyzing for this long after the last step (default: one window)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "0s",
          value_parser = crate::vocabulary::duration::parse)]
    pub(super) watch: Option<Duration>,
    /// Source of the counted calls (default: prometheus with --prometheus, else envoy, else logs)
    #[arg(long, value_name = "SOURCE")]
    pub(super) analysis: Option<AnalysisMode>,
    /// URL of Prometheus, or NAMESPACE/SERVICE[:PORT] to reach it through the API server
    #[arg(long, value_name = "ADDRESS")]
    pub(super) prometheus: Option<String>,
    /// File with HTTP headers for the URL of Prometheus, one per line, such as Authorization: Bearer …
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    pub(super) prometheus_header_file: Option<PathBuf>,
    /// Calls to the canary that a verdict needs
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) min_requests: u64,
    /// Allowed failed calls to the canary, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = parse_percent)]
    pub(super) max_error_rate: f64,
    /// Allowed 99th percentile of the canary's latency (prometheus and logs)
    #[arg(long, value_name = "DURATION", value_parser = crate::vocabulary::duration::parse)]
    pub(super) max_p99: Option<Duration>,
    /// gRPC statuses that count as failed (prometheus and logs; default: 2,4,8,12,13,14,15)
    #[arg(long, value_name = "STATUS,...", value_delimiter = ',', value_parser = parse_status)]
    pub(super) error_status: Option<Vec<u8>>,
    /// Response flags that count as failed whatever the status, such as UF,UO (prometheus and logs)
    #[arg(long, value_name = "FLAG,...", value_delimiter = ',')]
    pub(super) error_flags: Vec<String>,
    /// Allowed difference between the observed split and the weights, in percentage points
    #[arg(long, value_name = "POINTS", default_value = "10", value_parser = parse_percent)]
    pub(super) split_tolerance: f64,
    /// Consecutive bad windows that cause a rollback
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) bad_windows: u32,
    /// How long a step waits for a good or bad verdict
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = crate::vocabulary::duration::parse)]
    pub(super) max_wait: Duration,
    /// Action when a step gets no good or bad verdict in time
    #[arg(long, value_name = "ACTION", default_value = "hold")]
    pub(super) on_stall: FailureActionArg,
}

/// Value of `--analysis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AnalysisMode {
    /// Prometheus, with Istio's standard metrics.
    Prometheus,
    /// Per-endpoint counters of the callers' Envoys; needs no setup.
    Envoy,
    /// Access logs of the callers' Envoys.
    Logs,
    /// No analysis: each step takes one interval.
    None,
}

impl AnalysisArgs {
    /// The source to use.
    pub(super) fn mode(&self) -> AnalysisMode {
        match self.analysis {
            Some(mode) => mode,
            None if self.prometheus.is_some() => AnalysisMode::Prometheus,
            None => AnalysisMode::Envoy,
        }
    }

    /// The address of Prometheus. clap does not parse it, since its errors would show a password in the URL.
    pub(super) fn prometheus_address(&self) -> Result<Option<PrometheusAddress>, Failure> {
        self.prometheus.as_deref().map(parse_prometheus_address).transpose()
    }

    /// Rejects flags that would have no effect.
    pub(super) fn validate(&self, has_steps: bool) -> Result<(), Failure> {
        let is_requested = self.analysis.is_some_and(|mode| mode != AnalysisMode::None)
            || self.prometheus.is_some()
            || self.max_p99.is_some()
            || self.error_status.is_some()
            || !self.error_flags.is_empty();
        if is_requested && !has_steps && self.watch.is_none() {
            return Err(Failure::usage("canary analysis needs --steps or --watch")
                .hint("add --watch for a shift in one step, or --steps 5,25,50"));
        }
        if self.watch.is_some() && self.analysis == Some(AnalysisMode::None) {
            return Err(Failure::usage("--watch cannot be used with --analysis none"));
        }
        let is_service =
            || Ok::<_, Failure>(matches!(self.prometheus_address()?, Some(PrometheusAddress::Service(..))));
        if self.prometheus_header_file.is_some() && is_service()? {
            return Err(Failure::usage("--prometheus-header-file needs a URL: the API server forwards no headers")
                .hint("pass the URL of Prometheus: --prometheus https://…"));
        }
        Ok(())
    }

    /// Flags that per-endpoint counters cannot answer.
    pub(super) fn flags_beyond_counters(&self) -> Vec<&'static str> {
        [
            (self.max_p99.is_some(), "--max-p99"),
            (self.error_status.is_some(), "--error-status"),
            (!self.error_flags.is_empty(), "--error-flags"),
        ]
        .into_iter()
        .filter_map(|(is_given, flag)| is_given.then_some(flag))
        .collect()
    }

    pub(super) fn failure_criteria(&self) -> FailureCriteria {
        let statuses = self.error_status.clone().unwrap_or_else(|| DEFAULT_FAILURE_STATUSES.to_vec());
        FailureCriteria {
            statuses: statuses.into_iter().collect(),
            flags: self.error_flags.iter().map(|flag| response_flags::canonical_code(flag.trim())).collect(),
        }
    }

    pub(super) fn limits(&self) -> AnalysisLimits {
        AnalysisLimits {
            min_requests: self.min_requests,
            max_error_ratio: self.max_error_rate,
            max_p99_ms: self.max_p99.map(|limit| limit.as_secs_f64() * 1000.0),
            split_tolerance: Some(self.split_tolerance),
        }
    }
}

/// Parses a percentage into a ratio, 0 to 1.
fn parse_percent(text: &str) -> Result<f64, String> {
    let invalid = || format!("\"{text}\" is not a valid percentage: expected a number from 0 to 100");
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| invalid())?;
    if (0.0..=100.0).contains(&percent) { Ok(percent / 100.0) } else { Err(invalid()) }
}

fn parse_status(text: &str) -> Result<u8, String> {
    crate::vocabulary::grpc_status::parse(text.trim().as_bytes()).ok_or_else(|| {
        format!("\"{text}\" is not a gRPC status: expected a number from 0 to 16 or a name such as UNAVAILABLE")
    })
}

/// Parses the value of `--prometheus`.
pub(in crate::commands) fn parse_prometheus_address(text: &str) -> Result<PrometheusAddress, Failure> {
    text.parse().map_err(|error: String| Failure::usage(format!("invalid --prometheus value: {error}")))
}
