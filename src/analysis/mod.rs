//! Canary analysis: judges a canary by the calls that its callers see.
//!
//! CORE. A [`window::Window`] counts the calls of one interval: calls and errors of the canary, of the baseline in the
//! same interval, and of neither. [`verdict::judge`] compares a window with the limits. [`step_policy::StepPolicy`]
//! turns the verdicts of a step into the next action: advance, count another window, roll back, or stall. Windows come
//! from three sources that see different things: [`prometheus`] series, Envoy's per-endpoint [`counters`], and
//! [`access_logs`]. [`cohorts`] says which clusters and workloads are the canary and which the baseline.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

pub(crate) mod access_logs;
pub(crate) mod cohorts;
pub(crate) mod counters;
pub(crate) mod prometheus;
pub(crate) mod step_policy;
pub(crate) mod verdict;
pub(crate) mod window;

/// The source of call counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum AnalysisSource {
    /// Prometheus, with Istio's standard metrics.
    Prometheus,
    /// Per-endpoint counters of the callers' Envoys.
    Envoy,
    /// Access logs of the callers' Envoys.
    Logs,
}

impl AnalysisSource {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
