//! Observed route tables: which virtual host an authority selects, and what its routes do with a call.
//!
//! Source: `envoy/config/route/v3/route.proto` and `route_components.proto` of envoyproxy/envoy 1.39, as proto JSON
//! with names in snake case: fields with default values are absent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tolerant;

/// A route table that an Envoy runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyRouteTable {
    /// A port, `host:port`, or `http.8080` at gateways.
    pub name: String,
    pub virtual_hosts: Vec<EnvoyVirtualHost>,
}

/// A virtual host of a route table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyVirtualHost {
    /// `host:port`.
    pub name: String,
    /// Authorities that select it.
    pub domains: Vec<String>,
    /// Whether plaintext requests are redirected to HTTPS.
    pub redirects_to_tls: bool,
    /// In the order in which Envoy tries them.
    pub routes: Vec<EnvoyRoute>,
}

/// A route of a virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyRoute {
    pub name: String,
    /// Match conditions, sorted, such as `path prefix /` and `x-canary exact "1"`.
    pub conditions: Vec<String>,
    pub action: EnvoyAction,
}

/// The action of a route on a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvoyAction {
    Forward(EnvoyForward),
    /// Redirects the client, with this HTTP status code.
    Redirect(u32),
    /// Responds from the proxy, with this HTTP status code.
    DirectResponse(u32),
    /// An action that istiod does not generate.
    Other,
}

/// How a route forwards calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyForward {
    /// Names and weights of clusters; a single cluster has weight 1.
    pub clusters: Vec<(String, u64)>,
    /// Timeout of the whole call; zero means none.
    pub timeout: Duration,
    /// Maximum for the deadline of the client; zero means none.
    pub max_grpc_timeout: Duration,
    /// `None` disables retries.
    pub retries: Option<EnvoyRetries>,
    /// Clusters that get copies of calls, with the share in millionths.
    pub mirrors: Vec<(String, u64)>,
}

/// The retry policy of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyRetries {
    /// Retry conditions, sorted.
    pub retry_on: Vec<String>,
    /// Maximum number of retries, not counting the first attempt.
    pub attempts: u32,
    /// Retriable HTTP status codes, sorted.
    pub status_codes: Vec<u32>,
    /// Timeout of each attempt; zero means none.
    pub per_try_timeout: Duration,
}

/// Mirror shares are in millionths.
pub const MILLIONTHS_PER_PERCENT: f64 = 10_000.0;

/// Formats a condition on a header or query parameter, such as `not x-canary exact "1"`. Compiled and observed routes
/// are compared by this text.
pub fn format_condition(name: &str, kind: &str, value: &str, inverted: bool) -> String {
    let not = if inverted { "not " } else { "" };
    if kind == "present" { format!("{not}{name} present") } else { format!("{not}{name} {kind} \"{value}\"") }
}

#[derive(Deserialize)]
struct RawTable {
    #[serde(default)]
    name: String,
    #[serde(default)]
    virtual_hosts: Vec<RawHost>,
}

#[derive(Deserialize)]
struct RawHost {
    #[serde(default)]
    name: String,
    #[serde(default)]
    domains: Vec<String>,
    #[serde(default)]
    require_tls: Option<String>,
    #[serde(default)]
    routes: Vec<RawRoute>,
}

#[derive(Deserialize)]
struct RawRoute {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "match")]
    matches: RawMatch,
    route: Option<RawForward>,
    redirect: Option<RawRedirect>,
    direct_response: Option<RawResponse>,
}

#[derive(Deserialize, Default)]
struct RawMatch {
    prefix: Option<String>,
    path: Option<String>,
    path_separated_prefix: Option<String>,
    safe_regex: Option<RawRegex>,
    case_sensitive: Option<bool>,
    #[serde(default)]
    headers: Vec<RawHeader>,
    #[serde(default)]
    query_parameters: Vec<RawHeader>,
    #[serde(default)]
    dynamic_metadata: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
struct RawRegex {
    #[serde(default)]
    regex: String,
}

#[derive(Deserialize)]
struct RawHeader {
    #[serde(default)]
    name: String,
    string_match: Option<RawString>,
    present_match: Option<bool>,
    #[serde(default)]
    invert_match: bool,
}

#[derive(Deserialize)]
struct RawString {
    exact: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    contains: Option<String>,
    safe_regex: Option<RawRegex>,
}

#[derive(Deserialize)]
struct RawForward {
    cluster: Option<String>,
    weighted_clusters: Option<RawWeighted>,
    timeout: Option<String>,
    max_grpc_timeout: Option<String>,
    max_stream_duration: Option<RawStreamDuration>,
    retry_policy: Option<RawRetries>,
    #[serde(default)]
    request_mirror_policies: Vec<RawMirror>,
}

#[derive(Deserialize)]
struct RawStreamDuration {
    grpc_timeout_header_max: Option<String>,
}

#[derive(Deserialize)]
struct RawWeighted {
    #[serde(default)]
    clusters: Vec<RawShare>,
}

#[derive(Deserialize)]
struct RawShare {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "tolerant::deserialize_integer")]
    weight: u64,
}

#[derive(Deserialize)]
struct RawRetries {
    #[serde(default)]
    retry_on: String,
    num_retries: Option<u32>,
    #[serde(default)]
    retriable_status_codes: Vec<u32>,
    per_try_timeout: Option<String>,
}

#[derive(Deserialize)]
struct RawMirror {
    #[serde(default)]
    cluster: String,
    runtime_fraction: Option<RawRuntime>,
}

#[derive(Deserialize)]
struct RawRuntime {
    default_value: Option<RawFraction>,
}

#[derive(Deserialize)]
struct RawFraction {
    #[serde(default, deserialize_with = "tolerant::deserialize_integer")]
    numerator: u64,
    denominator: Option<String>,
}

#[derive(Deserialize)]
struct RawRedirect {
    response_code: Option<String>,
}

#[derive(Deserialize)]
struct RawResponse {
    #[serde(default, deserialize_with = "tolerant::deserialize_integer")]
    status: u64,
}

/// An element of a route dump, dynamic or static.
#[derive(Deserialize)]
pub(super) struct RawRouteElement {
    route_config: Option<RawTable>,
}

impl RawRouteElement {
    pub(super) fn table(self) -> Option<EnvoyRouteTable> {
        self.route_config.map(RawTable::table)
    }
}

impl RawTable {
    fn table(self) -> EnvoyRouteTable {
        let hosts = self.virtual_hosts.into_iter().map(|host| EnvoyVirtualHost {
            name: host.name,
            domains: host.domains,
            redirects_to_tls: host.require_tls.is_some_and(|requirement| requirement != "NONE"),
            routes: host.routes.into_iter().map(RawRoute::observed).collect(),
        });
        EnvoyRouteTable { name: self.name, virtual_hosts: hosts.collect() }
    }
}

impl RawRoute {
    fn observed(self) -> EnvoyRoute {
        let action = match (self.route, self.redirect, self.direct_response) {
            (Some(forward), ..) => EnvoyAction::Forward(forward.forward()),
            (_, Some(redirect), _) => EnvoyAction::Redirect(match redirect.response_code.as_deref() {
                Some("FOUND") => 302,
                Some("SEE_OTHER") => 303,
                Some("TEMPORARY_REDIRECT") => 307,
                Some("PERMANENT_REDIRECT") => 308,
                _ => 301,
            }),
            (_, _, Some(response)) => EnvoyAction::DirectResponse(u32::try_from(response.status).unwrap_or(0)),
            (None, None, None) => EnvoyAction::Other,
        };
        EnvoyRoute { name: self.name, conditions: self.matches.conditions(), action }
    }
}

impl RawMatch {
    fn conditions(self) -> Vec<String> {
        let path = match (self.prefix, self.path, self.path_separated_prefix, self.safe_regex) {
            (Some(prefix), ..) => format!("path prefix {prefix}"),
            (_, Some(path), ..) => format!("path exact {path}"),
            (_, _, Some(prefix), _) => format!("path segments {prefix}"),
            (_, _, _, Some(RawRegex { regex })) => format!("path regex {regex}"),
            (None, None, None, None) => "path match of another type".to_owned(),
        };
        let case = if self.case_sensitive == Some(false) { ", case-insensitive" } else { "" };
        let mut conditions = vec![path + case];
        conditions.extend(self.headers.iter().map(|header| header.condition("")));
        conditions.extend(self.query_parameters.iter().map(|query| query.condition("?")));
        conditions.extend(self.dynamic_metadata.iter().map(|_| "JWT claim".to_owned()));
        conditions.sort();
        conditions
    }
}

impl RawHeader {
    fn condition(&self, prefix: &str) -> String {
        // Envoy ignores case in header names, but not in names of query parameters.
        let name = if prefix.is_empty() { self.name.to_ascii_lowercase() } else { format!("{prefix}{}", self.name) };
        // `present_match: false` requires that the header is absent.
        let (kind, value, inverted) = match &self.string_match {
            None => ("present", "", self.invert_match != (self.present_match == Some(false))),
            Some(text) => {
                let texts = [
                    ("exact", &text.exact),
                    ("prefix", &text.prefix),
                    ("suffix", &text.suffix),
                    ("contains", &text.contains),
                ];
                let matcher = texts.into_iter().find_map(|(kind, text)| Some((kind, text.as_deref()?)));
                let regex = || ("regex", text.safe_regex.as_ref().map_or("", |regex| &regex.regex));
                let (kind, value) = matcher.unwrap_or_else(regex);
                (kind, value, self.invert_match)
            }
        };
        format_condition(&name, kind, value, inverted)
    }
}

impl RawForward {
    fn forward(self) -> EnvoyForward {
        let clusters = match (self.cluster, self.weighted_clusters) {
            (Some(cluster), _) => vec![(cluster, 1)],
            (None, Some(weighted)) => {
                weighted.clusters.into_iter().map(|cluster| (cluster.name, cluster.weight)).collect()
            }
            (None, None) => Vec::new(),
        };
        let stream_limit = self.max_stream_duration.and_then(|limits| limits.grpc_timeout_header_max);
        let max_grpc_timeout = tolerant::parse_duration(self.max_grpc_timeout.or(stream_limit).as_deref());
        let mirrors = self.request_mirror_policies.into_iter().map(|mirror| {
            let fraction = mirror.runtime_fraction.and_then(|fraction| fraction.default_value);
            (mirror.cluster, fraction.map_or(1_000_000, RawFraction::millionths))
        });
        EnvoyForward {
            clusters,
            timeout: tolerant::parse_duration(self.timeout.as_deref()),
            max_grpc_timeout,
            retries: self.retry_policy.map(RawRetries::observed),
            mirrors: mirrors.collect(),
        }
    }
}

impl RawFraction {
    fn millionths(self) -> u64 {
        match self.denominator.as_deref() {
            Some("MILLION") => self.numerator,
            Some("TEN_THOUSAND") => self.numerator * 100,
            _ => self.numerator * 10_000,
        }
    }
}

impl RawRetries {
    fn observed(self) -> EnvoyRetries {
        let mut retry_on: Vec<String> = self
            .retry_on
            .split(',')
            .map(str::trim)
            .filter(|condition| !condition.is_empty())
            .map(str::to_owned)
            .collect();
        retry_on.sort();
        let mut status_codes = self.retriable_status_codes;
        status_codes.sort_unstable();
        // Envoy's default is one retry.
        let attempts = self.num_retries.unwrap_or(1);
        EnvoyRetries {
            retry_on,
            attempts,
            status_codes,
            per_try_timeout: tolerant::parse_duration(self.per_try_timeout.as_deref()),
        }
    }
}
