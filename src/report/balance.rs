//! `balance`: how calls spread over a Service's endpoints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::dataplane::balance::{CallDistribution, cause, is_tcp};
use crate::mesh::Mesh;
use crate::mesh::service::Service;

/// A spread of calls.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Balance")]
pub struct BalanceReport {
    /// Always `Balance`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// Host of the Service.
    pub service: String,
    /// Time between the two readings.
    pub seconds: f64,
    /// Callers that called in this time.
    pub callers: usize,
    /// Endpoints, busiest first.
    pub endpoints: Vec<EndpointReport>,
    /// Calls, retries counted each; connections where only those are counted.
    pub calls: u64,
    /// Number of servers that would share the calls as unevenly if each of them got the same.
    pub effective_servers: f64,
    /// Jain's index against an even spread: 1 is even.
    pub jain: f64,
    /// `even`, `uneven`, `pinned` or `too few calls`.
    pub verdict: &'static str,
    /// Why, as far as objects and counters tell.
    pub cause: String,
    /// What the callers' applications logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_pattern: Option<LogPatternReport>,
    /// Callers that could not be asked, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
}

impl BalanceReport {
    /// How calls to a Service, or to one port of it, spread; of the readings only that.
    pub fn new(mesh: &Mesh<'_>, service: &Service, port: Option<u16>, spread: &CallDistribution) -> Self {
        let calls = spread.calls();
        let pod_of = |address: &str| {
            let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip).trim_matches(['[', ']']);
            mesh.workloads.iter().find(|one| one.ip.as_deref() == Some(ip)).map(|one| one.object.name.to_string())
        };
        let mut endpoints: Vec<EndpointReport> = spread
            .endpoints
            .iter()
            .map(|(address, got)| EndpointReport {
                pod: pod_of(address),
                address: address.clone(),
                subset: (!got.subsets.is_empty())
                    .then(|| got.subsets.iter().map(String::as_str).collect::<Vec<_>>().join(",")),
                calls: got.calls,
                errors: got.errors,
                share: if calls == 0 { 0.0 } else { got.calls as f64 / calls as f64 },
            })
            .collect();
        endpoints.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.address.cmp(&b.address)));
        Self {
            kind: "Balance",
            version: 1,
            service: service.host.to_string(),
            seconds: 0.0,
            callers: spread.callers,
            endpoints,
            calls,
            effective_servers: spread.effective_servers(),
            jain: spread.jain(),
            verdict: spread.evenness(is_tcp(service, port)).as_str(),
            cause: cause(mesh, service, port, spread),
            log_pattern: None,
            unreachable: Vec::new(),
        }
    }
}

/// How calls spread, as far as proxies that were asked once can tell.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DistributionReport {
    /// Since when: `while the proxies were asked`, or since they know the endpoints.
    pub counted: &'static str,
    /// Callers that called.
    pub callers: usize,
    /// Calls, retries counted each.
    pub calls: u64,
    /// Endpoints, busiest first.
    pub endpoints: Vec<EndpointReport>,
    /// `even`, `uneven`, `pinned` or `too few calls`.
    pub verdict: &'static str,
    /// Why, as far as objects and counters tell.
    pub cause: String,
}

impl DistributionReport {
    /// How calls to a Service spread.
    pub fn new(mesh: &Mesh<'_>, service: &Service, spread: &CallDistribution, counted: &'static str) -> Self {
        let BalanceReport { callers, calls, endpoints, verdict, cause, .. } =
            BalanceReport::new(mesh, service, None, spread);
        Self { counted, callers, calls, endpoints, verdict, cause }
    }
}

/// One endpoint.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EndpointReport {
    /// `address:port`.
    pub address: String,
    /// The pod, if it is one of the source's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Subsets through which it was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Calls.
    pub calls: u64,
    /// Errors among them.
    pub errors: u64,
    /// Share of all calls, 0 to 1.
    pub share: f64,
}

/// What a pattern found in the callers' own logs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LogPatternReport {
    /// How many different texts.
    pub distinct: usize,
    /// How often each was found.
    pub counts: BTreeMap<String, u64>,
}
