//! The report of `balance`: how calls spread over the endpoints of a Service.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{GapReport, Percent};
use crate::dataplane::balance::{BalanceVerdict, CallDistribution, CountingPeriod, is_tcp, verdict_cause};
use crate::mesh::Mesh;
use crate::mesh::service::Service;

/// How calls spread over the endpoints of a Service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Balance")]
pub struct BalanceReport {
    /// Always `Balance`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// Host of the Service.
    pub service: String,
    /// Time between the two readings, in seconds.
    pub seconds: f64,
    /// Number of callers that sent calls in this time.
    pub callers: usize,
    /// Endpoints, busiest first.
    pub endpoints: Vec<EndpointReport>,
    /// Calls, each retry counted. For a TCP port, connections.
    pub calls: u64,
    /// Number of equally loaded servers with the same concentration of calls: (Σn)² ÷ Σn².
    pub effective_servers: f64,
    /// Jain's fairness index against an even spread: 1 is even.
    pub jain: f64,
    /// The verdict on the spread.
    pub verdict: BalanceVerdict,
    /// The cause, as far as objects and counters show it; empty for an even spread.
    pub cause: String,
    /// Captures of `--log-pattern` in the callers' application logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_pattern: Option<LogPatternReport>,
    /// Callers whose counters could not be read.
    pub gaps: Vec<GapReport>,
}

impl BalanceReport {
    /// Reports the spread over a Service, or over one of its ports. The caller fills in `seconds`, `log_pattern` and
    /// `gaps`.
    pub fn new(mesh: &Mesh<'_>, service: &Service, port: Option<u16>, distribution: &CallDistribution) -> Self {
        let calls = distribution.calls();
        let pod_of = |address: &str| {
            let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip).trim_matches(['[', ']']);
            let mut workloads = mesh.workloads.iter();
            workloads
                .find(|workload| workload.ip.as_deref() == Some(ip))
                .map(|workload| workload.object.name.to_string())
        };
        let mut endpoints: Vec<EndpointReport> = distribution
            .endpoints
            .iter()
            .map(|(address, counts)| EndpointReport {
                pod: pod_of(address),
                address: address.clone(),
                subset: (!counts.subsets.is_empty())
                    .then(|| counts.subsets.iter().map(String::as_str).collect::<Vec<_>>().join(",")),
                calls: counts.calls,
                errors: counts.errors,
                share_percent: Percent::of(counts.calls, calls),
            })
            .collect();
        endpoints.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.address.cmp(&b.address)));
        Self {
            kind: "Balance",
            version: 1,
            service: service.host.to_string(),
            seconds: 0.0,
            callers: distribution.callers,
            endpoints,
            calls,
            effective_servers: distribution.effective_servers(),
            jain: distribution.jain_index(),
            verdict: distribution.verdict(is_tcp(service, port)),
            cause: verdict_cause(mesh, service, port, distribution),
            log_pattern: None,
            gaps: Vec::new(),
        }
    }
}

/// How calls spread, from the counters that `inspect --live` reads.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DistributionReport {
    /// The period that the counters cover.
    pub period: CountingPeriod,
    /// Number of callers that sent calls in this period.
    pub callers: usize,
    /// Calls, each retry counted. For a TCP port, connections.
    pub calls: u64,
    /// Endpoints, busiest first.
    pub endpoints: Vec<EndpointReport>,
    /// The verdict on the spread.
    pub verdict: BalanceVerdict,
    /// The cause, as far as objects and counters show it; empty for an even spread.
    pub cause: String,
}

impl DistributionReport {
    /// Reports the spread over all ports of a Service.
    pub fn new(mesh: &Mesh<'_>, service: &Service, distribution: &CallDistribution, period: CountingPeriod) -> Self {
        let BalanceReport { callers, calls, endpoints, verdict, cause, .. } =
            BalanceReport::new(mesh, service, None, distribution);
        Self { period, callers, calls, endpoints, verdict, cause }
    }
}

/// The calls that one endpoint received.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EndpointReport {
    /// `address:port`.
    pub address: String,
    /// The pod with this address, if the source contains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Subsets through which callers reached it, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Calls.
    pub calls: u64,
    /// Failed calls among them.
    pub errors: u64,
    /// Share of all calls.
    pub share_percent: Percent,
}

/// Captures of a pattern in the callers' application logs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LogPatternReport {
    /// Number of distinct captures.
    pub distinct: usize,
    /// Number of lines by capture.
    pub counts: BTreeMap<String, u64>,
}
