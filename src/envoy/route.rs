//! Route tables: which virtual host takes an authority, and what its routes do with a call.
//!
//! Source: `envoy/config/route/v3/route.proto` and `route_components.proto` of envoyproxy/envoy 1.39, as proto JSON with
//! names in snake case: fields with default values are missing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tolerant;

/// A route table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyRouteTable {
    /// Its name: a port, `host:port`, or `http.8080` at gateways.
    pub name: String,
    /// Its virtual hosts.
    pub hosts: Vec<EnvoyVirtualHost>,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyVirtualHost {
    /// `host:port`.
    pub name: String,
    /// Authorities that lead to it.
    pub domains: Vec<String>,
    /// Whether plain text is sent to HTTPS.
    pub redirects_to_tls: bool,
    /// Its routes, in the order tried.
    pub routes: Vec<EnvoyRoute>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyRoute {
    /// Its name.
    pub name: String,
    /// What a call must be, one condition each, sorted: `path prefix /`, `x-canary exact "1"`.
    pub conditions: Vec<String>,
    /// What becomes of a call.
    pub action: EnvoyAction,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvoyAction {
    /// It is sent to clusters.
    Forward(EnvoyForward),
    /// The client is sent elsewhere, with this HTTP status.
    Redirect(u32),
    /// The proxy answers with this HTTP status.
    Respond(u32),
    /// Something that istiod does not write.
    Other,
}

/// Where a call is sent on, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyForward {
    /// Clusters with their weights; the only one has 1.
    pub clusters: Vec<(String, u64)>,
    /// Limit of the whole call; zero is none.
    pub timeout: Duration,
    /// Cap of the client's deadline; zero is none.
    pub max_grpc_timeout: Duration,
    /// Retries; `None` is none.
    pub retries: Option<EnvoyRetries>,
    /// Clusters that get copies, with their share in millionths.
    pub mirrors: Vec<(String, u64)>,
}

/// A retry policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyRetries {
    /// Conditions, sorted.
    pub on: Vec<String>,
    /// Retries after the first try.
    pub attempts: u32,
    /// HTTP status codes that are retried, sorted.
    pub status_codes: Vec<u32>,
    /// Limit of each try; zero is none.
    pub per_try_timeout: Duration,
}

/// How many millionths a percent are.
pub const MILLIONTHS: f64 = 10_000.0;

/// A condition on a header or a query parameter, as it is shown and compared.
pub fn text_condition(name: &str, kind: &str, value: &str, inverted: bool) -> String {
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
    #[serde(default, deserialize_with = "tolerant::number")]
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
    #[serde(default, deserialize_with = "tolerant::number")]
    numerator: u64,
    denominator: Option<String>,
}

#[derive(Deserialize)]
struct RawRedirect {
    response_code: Option<String>,
}

#[derive(Deserialize)]
struct RawResponse {
    #[serde(default, deserialize_with = "tolerant::number")]
    status: u64,
}

/// A dynamic or static route table of a dump: the table itself, or an element of a dump that holds it.
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
            redirects_to_tls: host.require_tls.is_some_and(|word| word != "NONE"),
            routes: host.routes.into_iter().map(RawRoute::route).collect(),
        });
        EnvoyRouteTable { name: self.name, hosts: hosts.collect() }
    }
}

impl RawRoute {
    fn route(self) -> EnvoyRoute {
        let action = match (self.route, self.redirect, self.direct_response) {
            (Some(forward), ..) => EnvoyAction::Forward(forward.forward()),
            (_, Some(redirect), _) => EnvoyAction::Redirect(match redirect.response_code.as_deref() {
                Some("FOUND") => 302,
                Some("SEE_OTHER") => 303,
                Some("TEMPORARY_REDIRECT") => 307,
                Some("PERMANENT_REDIRECT") => 308,
                _ => 301,
            }),
            (_, _, Some(response)) => EnvoyAction::Respond(u32::try_from(response.status).unwrap_or(0)),
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
            (None, None, None, None) => "path by something else".to_owned(),
        };
        let folded = if self.case_sensitive == Some(false) { ", any case" } else { "" };
        let mut conditions = vec![path + folded];
        conditions.extend(self.headers.iter().map(|header| header.condition("")));
        conditions.extend(self.query_parameters.iter().map(|query| query.condition("?")));
        conditions.extend(self.dynamic_metadata.iter().map(|_| "a claim of the token".to_owned()));
        conditions.sort();
        conditions
    }
}

impl RawHeader {
    fn condition(&self, sign: &str) -> String {
        // Envoy compares names of headers without regard to case; names of query parameters it does not.
        let name = if sign.is_empty() { self.name.to_ascii_lowercase() } else { format!("{sign}{}", self.name) };
        // `present_match: false` is "absent".
        let (kind, value, inverted) = match &self.string_match {
            None => ("present", "", self.invert_match != (self.present_match == Some(false))),
            Some(text) => {
                let texts = [
                    ("exact", &text.exact),
                    ("prefix", &text.prefix),
                    ("suffix", &text.suffix),
                    ("contains", &text.contains),
                ];
                let found = texts.into_iter().find_map(|(kind, text)| Some((kind, text.as_deref()?)));
                let regex = || ("regex", text.safe_regex.as_ref().map_or("", |regex| &regex.regex));
                let (kind, value) = found.unwrap_or_else(regex);
                (kind, value, self.invert_match)
            }
        };
        text_condition(&name, kind, value, inverted)
    }
}

impl RawForward {
    fn forward(self) -> EnvoyForward {
        let clusters = match (self.cluster, self.weighted_clusters) {
            (Some(cluster), _) => vec![(cluster, 1)],
            (None, Some(weighted)) => weighted.clusters.into_iter().map(|one| (one.name, one.weight)).collect(),
            (None, None) => Vec::new(),
        };
        let of_stream = self.max_stream_duration.and_then(|one| one.grpc_timeout_header_max);
        let max_grpc_timeout = tolerant::duration(self.max_grpc_timeout.or(of_stream).as_deref());
        let mirrors = self.request_mirror_policies.into_iter().map(|mirror| {
            let fraction = mirror.runtime_fraction.and_then(|one| one.default_value);
            (mirror.cluster, fraction.map_or(1_000_000, RawFraction::millionths))
        });
        EnvoyForward {
            clusters,
            timeout: tolerant::duration(self.timeout.as_deref()),
            max_grpc_timeout,
            retries: self.retry_policy.map(RawRetries::retries),
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
    fn retries(self) -> EnvoyRetries {
        let mut on: Vec<String> =
            self.retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        on.sort();
        let mut status_codes = self.retriable_status_codes;
        status_codes.sort_unstable();
        // Envoy's default is one.
        let attempts = self.num_retries.unwrap_or(1);
        EnvoyRetries {
            on,
            attempts,
            status_codes,
            per_try_timeout: tolerant::duration(self.per_try_timeout.as_deref()),
        }
    }
}
