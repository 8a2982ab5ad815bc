//! `balance`: how calls spread over a Service's endpoints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

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
    pub log_pattern: Option<PatternReport>,
    /// Callers that could not be asked, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
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
pub struct PatternReport {
    /// How many different texts.
    pub distinct: usize,
    /// How often each was found.
    pub counts: BTreeMap<String, u64>,
}
