//! The report of `route --test`: expected against actual routing of each test.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Percent;
use super::route::{self, RouteBackendReport, RouteReport};
use crate::mesh::xds::CallOutcome;
use crate::vocabulary::duration;
use crate::vocabulary::grpc_status;

/// Difference in percent up to which two shares count as equal, so that `33.3` matches a third.
const SHARE_TOLERANCE_PERCENT: f64 = 0.1;

/// The expectations of a test. All given fields must match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteExpectation {
    /// How the call ends.
    pub outcome: Option<CallOutcome>,
    /// The subset that all calls go to.
    pub subset: Option<String>,
    /// The Service that all calls go to: `name`, `name.namespace` or the full host.
    pub service: Option<String>,
    /// Shares in percent by subset, Service, or `service/subset`.
    pub backends: Option<BTreeMap<String, f64>>,
    /// The gRPC status that the client sees, by name or number; `OK` when the call arrives.
    pub status: Option<TextOrNumber>,
    /// Limit of the call, such as `2s`; `none` for no limit.
    pub timeout: Option<TextOrNumber>,
    /// Retries after the first try.
    pub retries: Option<u32>,
    /// The rule, as `Kind/namespace/name[index]`, or its object without the index.
    pub rule: Option<String>,
}

/// A value that YAML may hold as text or as a number.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum TextOrNumber {
    /// A text such as `UNAVAILABLE` or `2s`.
    Text(String),
    /// A number such as `14`.
    Number(u64),
}

impl std::fmt::Display for TextOrNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// The results of all tests.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "RouteTests")]
pub struct RouteTestsReport {
    /// Always `RouteTests`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// Number of failed tests.
    pub failed: usize,
    /// The tests in the order of the file.
    pub tests: Vec<RouteTestReport>,
}

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RouteTestReport {
    /// Name of the test.
    pub name: String,
    /// Failed expectations, one sentence each; empty when the test passes.
    pub failures: Vec<String>,
    /// `:authority` of the call.
    pub authority: String,
    /// The decision about the call; absent when the source does not contain the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteReport>,
}

impl RouteTestsReport {
    /// Counts the failed tests.
    pub fn new(tests: Vec<RouteTestReport>) -> Self {
        let failed = tests.iter().filter(|test| !test.failures.is_empty()).count();
        Self { kind: "RouteTests", version: 1, failed, tests }
    }
}

impl RouteExpectation {
    /// Whether no field is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first value that cannot be parsed, as an error message.
    pub fn invalid_value(&self) -> Option<String> {
        let Self { status, timeout, .. } = self;
        if let Some(status) = status.as_ref().filter(|status| parse_status(status).is_none()) {
            return Some(format!(
                "status: \"{status}\" is not a gRPC status: expected a name such as UNAVAILABLE, or a number from 0 to 16"
            ));
        }
        let timeout = timeout.as_ref().filter(|timeout| parse_timeout_ms(timeout).is_none())?;
        Some(format!("timeout: \"{timeout}\" is not a valid duration: expected a value such as 2s or 500ms, or none"))
    }

    /// The expectations that the report of the call does not meet, one sentence each.
    pub fn failures(&self, report: &RouteReport) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |name: &str, expected: String, holds: bool, actual: String| {
            if !holds {
                failures.push(format!("{name}: expected {expected}, got {actual}"));
            }
        };
        let backends = || format_backends(report);
        if let Some(outcome) = self.outcome {
            check(
                "outcome",
                outcome.as_str().to_owned(),
                outcome == report.outcome,
                report.outcome.as_str().to_owned(),
            );
        }
        if let Some(subset) = &self.subset {
            let holds = all_calls_go_to(report, |backend| backend.subset.as_deref() == Some(subset));
            check("subset", subset.clone(), holds, backends());
        }
        if let Some(service) = &self.service {
            let holds = all_calls_go_to(report, |backend| is_service(backend, service));
            check("service", service.clone(), holds, backends());
        }
        if let Some(shares) = &self.backends {
            let expected: Vec<String> = shares.iter().map(|(key, share)| format!("{key} {share}%")).collect();
            check("backends", expected.join(", "), matches_shares(report, shares), backends());
        }
        if let Some(status) = &self.status {
            let actual = format_status(report);
            check("status", status.to_string(), parse_status(status) == Some(actual.as_str()), actual);
        }
        if let Some(timeout) = &self.timeout {
            let expected = parse_timeout_ms(timeout);
            let actual = match report.timeout_ms {
                None => "not forwarded".to_owned(),
                Some(0) => "none".to_owned(),
                Some(limit) => super::page::format_millis(limit),
            };
            check("timeout", timeout.to_string(), expected.is_some() && expected == report.timeout_ms, actual);
        }
        if let Some(retries) = self.retries {
            let actual = report.retries.as_ref().map_or(0, |policy| policy.attempts);
            check("retries", retries.to_string(), retries == actual, actual.to_string());
        }
        if let Some(rule) = &self.rule {
            let actual = report.rule.as_ref().map_or_else(
                || "no rule".to_owned(),
                |rule| format!("{}/{}/{}[{}]", rule.kind, rule.namespace, rule.name, rule.index),
            );
            let is_object = actual.rsplit_once('[').is_some_and(|(object, _)| object == rule);
            check("rule", rule.clone(), *rule == actual || is_object, actual.clone());
        }
        failures
    }
}

/// The name of a gRPC status given by name or number.
fn parse_status(status: &TextOrNumber) -> Option<&'static str> {
    grpc_status::parse(status.to_string().to_ascii_uppercase().as_bytes()).map(grpc_status::name)
}

/// A timeout in milliseconds; 0 means none.
fn parse_timeout_ms(timeout: &TextOrNumber) -> Option<u64> {
    match timeout.to_string().as_str() {
        "none" | "0" | "0s" => Some(0),
        text => duration::parse(text).ok().and_then(|limit| u64::try_from(limit.as_millis()).ok()),
    }
}

/// The gRPC status that the client sees, or a text when different calls see different ones.
fn format_status(report: &RouteReport) -> String {
    let Some(first) = report.client_sees.first() else {
        return match report.outcome {
            CallOutcome::Passthrough => "passthrough: the mesh does not know the host".to_owned(),
            _ if let Some(reason) = report.undecided_authorization() => format!("undecided: {reason}"),
            _ if report.arrives() => "OK".to_owned(),
            outcome => outcome.as_str().to_owned(),
        };
    };
    let has_one_status = report.client_sees.iter().all(|outcome| outcome.grpc_status == first.grpc_status);
    let failing: f64 = report.client_sees.iter().map(|outcome| outcome.share_percent.0).sum();
    if has_one_status && failing >= 100.0 - SHARE_TOLERANCE_PERCENT {
        return first.grpc_status.to_owned();
    }
    let parts = report.client_sees.iter();
    let parts: Vec<String> = parts
        .map(|outcome| format!("{} for {}% of the calls", outcome.grpc_status, outcome.share_percent.rounded().0))
        .collect();
    parts.join(", ")
}

fn all_calls_go_to(report: &RouteReport, is_expected: impl Fn(&RouteBackendReport) -> bool) -> bool {
    let mut used = route::shares(&report.backends).filter(|(_, share)| share.0 > 0.0);
    !report.backends.is_empty() && used.all(|(backend, _)| is_expected(backend))
}

fn is_service(backend: &RouteBackendReport, service: &str) -> bool {
    let Some(host) = backend.host.as_deref() else { return false };
    // kubectl writes `namespace/name`.
    let host_order = service.split_once('/').map(|(namespace, name)| format!("{name}.{namespace}"));
    let service = host_order.as_deref().unwrap_or(service);
    host == service || host.strip_prefix(service).is_some_and(|rest| rest.starts_with('.'))
}

fn matches_shares(report: &RouteReport, expected: &BTreeMap<String, f64>) -> bool {
    let mut unexpected: f64 = 0.0;
    let mut actual: BTreeMap<&str, f64> = BTreeMap::new();
    for (backend, Percent(share)) in route::shares(&report.backends) {
        let is_named_by = |key: &str| match key.split_once('/') {
            Some((service, subset)) => is_service(backend, service) && backend.subset.as_deref() == Some(subset),
            None => backend.subset.as_deref() == Some(key) || is_service(backend, key),
        };
        match expected.keys().find(|key| is_named_by(key)) {
            Some(key) => *actual.entry(key).or_default() += share,
            None => unexpected += share,
        }
    }
    let actual_share = |key: &str| actual.get(key).copied().unwrap_or(0.0);
    unexpected < SHARE_TOLERANCE_PERCENT
        && expected.iter().all(|(key, share)| (actual_share(key) - share).abs() < SHARE_TOLERANCE_PERCENT)
}

fn format_backends(report: &RouteReport) -> String {
    let texts = route::shares(&report.backends).map(|(backend, share)| {
        let host = backend.host.as_deref().unwrap_or(&backend.cluster);
        let subset = backend.subset.as_ref().map(|subset| format!("/{subset}")).unwrap_or_default();
        format!("{host}{subset} {}%", share.rounded().0)
    });
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { report.outcome.as_str().to_owned() } else { texts.join(", ") }
}
