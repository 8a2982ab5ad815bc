//! `route --test`: what was expected of calls, and what becomes of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::{self, RouteBackendReport, RouteReport};
use crate::vocabulary::duration;
use crate::vocabulary::grpc_status;

/// How far a share may be from what is expected, in percent: for 33.3 written for a third.
const TOLERANCE: f64 = 0.1;

/// What is expected of a call. Everything that is named must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteExpectation {
    /// Outcome, in the words of `-o json`.
    pub outcome: Option<String>,
    /// All calls go to this subset.
    pub subset: Option<String>,
    /// All calls go to this Service: `name`, `name.namespace` or the full host.
    pub service: Option<String>,
    /// Shares in percent by subset, Service, or `service/subset`.
    pub backends: Option<BTreeMap<String, f64>>,
    /// What the client sees: a gRPC status by name or number; `OK` when the call arrives.
    pub status: Option<TextOrNumber>,
    /// Limit of the call, such as `2s`; `none` for no limit.
    pub timeout: Option<TextOrNumber>,
    /// Retries after the first try.
    pub retries: Option<u32>,
    /// The rule, as `Kind/namespace/name[index]`, or the whole object without the index.
    pub rule: Option<String>,
}

/// A word that may be written as a number.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum TextOrNumber {
    /// A text.
    Text(String),
    /// A number.
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

/// The report of all tests.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "RouteTests")]
pub struct RouteTestsReport {
    /// Always `RouteTests`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// How many did not hold.
    pub failed: usize,
    /// The tests in their order.
    pub tests: Vec<RouteTestReport>,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RouteTestReport {
    /// Name.
    pub name: String,
    /// What does not hold, one text each.
    pub failures: Vec<String>,
    /// `:authority`.
    pub authority: String,
    /// What becomes of the call; absent where its caller is not in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteReport>,
}

impl RouteTestsReport {
    /// Counts what failed.
    pub fn new(tests: Vec<RouteTestReport>) -> Self {
        let failed = tests.iter().filter(|test| !test.failures.is_empty()).count();
        Self { kind: "RouteTests", version: 1, failed, tests }
    }
}

impl RouteExpectation {
    /// Whether nothing is expected.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is no word for what it stands for.
    pub fn mistake(&self) -> Option<String> {
        let Self { outcome, status, timeout, .. } = self;
        if let Some(word) = outcome.as_ref().filter(|word| !OUTCOMES.contains(&word.as_str())) {
            return Some(format!("outcome {word} is none of {}", OUTCOMES.join(", ")));
        }
        if let Some(word) = status.as_ref().filter(|word| status_of(word).is_none()) {
            return Some(format!("status {word} is no gRPC status"));
        }
        let word = timeout.as_ref().filter(|word| limit_of(word).is_none())?;
        Some(format!("timeout {word} is no duration such as 2s or 500ms, nor none"))
    }

    /// What does not hold of a call's report.
    pub fn failures(&self, report: &RouteReport) -> Vec<String> {
        let mut failures = Vec::new();
        let mut expect = |what: &str, wanted: String, holds: bool, is: String| {
            if !holds {
                failures.push(format!("{what}: expected {wanted}, is {is}"));
            }
        };
        let shown = || shares(report);
        if let Some(outcome) = &self.outcome {
            expect("outcome", outcome.clone(), outcome == report.outcome, report.outcome.to_owned());
        }
        if let Some(subset) = &self.subset {
            let all = everything(report, |backend| backend.subset.as_deref() == Some(subset));
            expect("subset", subset.clone(), all, shown());
        }
        if let Some(service) = &self.service {
            expect("service", service.clone(), everything(report, |backend| is_service(backend, service)), shown());
        }
        if let Some(backends) = &self.backends {
            let wanted: Vec<String> = backends.iter().map(|(key, share)| format!("{key} {share}%")).collect();
            expect("backends", wanted.join(", "), holds(report, backends), shown());
        }
        if let Some(status) = &self.status {
            let seen = match &report.client_sees {
                Some(seen) if seen.percent >= 100.0 => seen.grpc_status.clone(),
                Some(seen) => format!("{} for {}% of the calls", seen.grpc_status, seen.percent),
                None if report.outcome == "passthrough" => "passthrough: the mesh does not know the host".to_owned(),
                None if report.arrives() => "OK".to_owned(),
                None => report.outcome.to_owned(),
            };
            expect("status", status.to_string(), status_of(status) == Some(seen.as_str()), seen);
        }
        if let Some(timeout) = &self.timeout {
            let wanted = limit_of(timeout);
            let is = report.timeout_ms.map_or_else(
                || "not forwarded".to_owned(),
                |limit| match limit {
                    0 => "none".to_owned(),
                    limit => super::page::show_millis(limit),
                },
            );
            expect("timeout", timeout.to_string(), wanted.is_some() && wanted == report.timeout_ms, is);
        }
        if let Some(retries) = self.retries {
            let is = report.retries.as_ref().map_or(0, |policy| policy.attempts);
            expect("retries", retries.to_string(), retries == is, is.to_string());
        }
        if let Some(rule) = &self.rule {
            let is = report.rule.as_ref().map_or_else(
                || "no rule".to_owned(),
                |rule| format!("{}/{}/{}[{}]", rule.kind, rule.namespace, rule.name, rule.index),
            );
            let whole = is.rsplit_once('[').is_some_and(|(object, _)| object == rule);
            expect("rule", rule.clone(), *rule == is || whole, is.clone());
        }
        failures
    }
}

/// Outcomes in the words of the contract.
const OUTCOMES: [&str; 10] = [
    "forward",
    "direct-response",
    "redirect",
    "no-route",
    "passthrough",
    "blocked",
    "tcp",
    "closed",
    "unresolved",
    "rejected",
];

/// The name of a gRPC status that is written by name or number.
fn status_of(word: &TextOrNumber) -> Option<&'static str> {
    grpc_status::parse(word.to_string().to_ascii_uppercase().as_bytes()).map(grpc_status::name)
}

/// A limit in milliseconds; 0 is none.
fn limit_of(word: &TextOrNumber) -> Option<u64> {
    match word.to_string().as_str() {
        "none" | "0" | "0s" => Some(0),
        text => duration::parse(text).ok().and_then(|limit| u64::try_from(limit.as_millis()).ok()),
    }
}

fn everything(report: &RouteReport, wanted: impl Fn(&RouteBackendReport) -> bool) -> bool {
    let mut used = route::shares(&report.backends).filter(|(_, share)| *share > 0.0);
    !report.backends.is_empty() && used.all(|(backend, _)| wanted(backend))
}

fn is_service(backend: &RouteBackendReport, service: &str) -> bool {
    let Some(host) = backend.host.as_deref() else { return false };
    // `namespace/name` is kubectl's way to write it.
    let turned = service.split_once('/').map(|(namespace, name)| format!("{name}.{namespace}"));
    let service = turned.as_deref().unwrap_or(service);
    host == service || host.strip_prefix(service).is_some_and(|rest| rest.starts_with('.'))
}

fn holds(report: &RouteReport, wanted: &BTreeMap<String, f64>) -> bool {
    let mut left: f64 = 0.0;
    let mut found: BTreeMap<&str, f64> = BTreeMap::new();
    for (backend, share) in route::shares(&report.backends) {
        let fits = |key: &str| match key.split_once('/') {
            Some((service, subset)) => is_service(backend, service) && backend.subset.as_deref() == Some(subset),
            None => backend.subset.as_deref() == Some(key) || is_service(backend, key),
        };
        match wanted.keys().find(|key| fits(key)) {
            Some(key) => *found.entry(key).or_default() += share,
            None => left += share,
        }
    }
    left < TOLERANCE
        && wanted.iter().all(|(key, share)| (found.get(key.as_str()).copied().unwrap_or(0.0) - share).abs() < TOLERANCE)
}

fn shares(report: &RouteReport) -> String {
    let texts = route::shares(&report.backends).map(|(backend, share)| {
        let host = backend.host.as_deref().unwrap_or(&backend.cluster);
        let subset = backend.subset.as_ref().map(|subset| format!("/{subset}")).unwrap_or_default();
        format!("{host}{subset} {}%", (share * 100.0).round() / 100.0)
    });
    let text: Vec<String> = texts.collect();
    if text.is_empty() { report.outcome.to_owned() } else { text.join(", ") }
}
