//! Istio VirtualService, as written. Source: `networking/v1alpha3/virtual_service.proto` of istio/api 1.31.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{StringMap, string_map};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualServiceSpec {
    /// Hosts whose calls the rules apply to; empty in a delegate.
    pub hosts: NullableList<String>,
    /// Empty means `mesh`: all sidecars.
    pub gateways: NullableList<String>,
    /// HTTP and gRPC rules, in the order in which Envoy tries them.
    pub http: NullableList<HttpRule>,
    /// Rules for TLS passthrough.
    pub tls: NullableList<L4Rule>,
    pub tcp: NullableList<L4Rule>,
    /// Namespaces that the object is visible to; empty means the mesh's default.
    pub export_to: NullableList<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRule {
    /// Becomes the name of the Envoy route.
    pub name: Option<String>,
    /// A call needs to satisfy one of them; empty matches every call.
    #[serde(rename = "match")]
    pub matches: NullableList<HttpMatch>,
    pub route: NullableList<RouteDestination>,
    pub redirect: Option<Redirect>,
    pub direct_response: Option<DirectResponse>,
    /// Another VirtualService that holds the rules.
    pub delegate: Option<Delegate>,
    pub rewrite: Option<Rewrite>,
    pub headers: Option<Headers>,
    /// Limit of the whole call, retries included.
    pub timeout: Option<String>,
    /// Present but empty disables retries.
    pub retries: Option<HttpRetries>,
    pub fault: Option<Fault>,
    /// Older form of `mirrors`, for a single destination.
    pub mirror: Option<Destination>,
    pub mirrors: NullableList<HttpMirror>,
    /// Share of the requests that `mirror` copies.
    pub mirror_percentage: Option<PercentValue>,
    /// Deprecated form of `mirror_percentage`.
    pub mirror_percent: Option<u32>,
}

/// A call needs to satisfy all of the conditions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// Appended to the rule's name.
    pub name: Option<String>,
    pub uri: Option<StringMatch>,
    pub scheme: Option<StringMatch>,
    /// gRPC calls are always POST.
    pub method: Option<StringMatch>,
    /// `:authority`, with the port.
    pub authority: Option<StringMatch>,
    pub headers: Option<BTreeMap<String, StringMatch>>,
    pub without_headers: Option<BTreeMap<String, StringMatch>>,
    pub query_params: Option<BTreeMap<String, StringMatch>>,
    /// The port that the caller connects to.
    pub port: Option<u32>,
    /// Labels of the calling pod.
    #[serde(deserialize_with = "string_map")]
    pub source_labels: StringMap,
    /// Namespace of the calling pod.
    pub source_namespace: Option<String>,
    /// Limits the match to these gateways.
    pub gateways: NullableList<String>,
    pub ignore_uri_case: bool,
}

/// Without any of the three fields the condition is that the value is present.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StringMatch {
    pub exact: Option<String>,
    pub prefix: Option<String>,
    /// An RE2 expression that must match the whole value.
    pub regex: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RouteDestination {
    pub destination: Option<Destination>,
    /// Relative to the other backends. Absent means 0, except that a single backend gets every call.
    pub weight: Option<i64>,
    pub headers: Option<Headers>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Headers {
    pub request: Option<HeaderOperations>,
    pub response: Option<HeaderOperations>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderOperations {
    #[serde(deserialize_with = "string_map")]
    pub set: StringMap,
    #[serde(deserialize_with = "string_map")]
    pub add: StringMap,
    pub remove: NullableList<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirect {
    pub uri: Option<String>,
    pub authority: Option<String>,
    pub scheme: Option<String>,
    /// Absent means 301.
    pub redirect_code: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// A name without dots belongs to the object's own namespace.
    pub host: String,
    /// A subset of the DestinationRule that the caller uses.
    pub subset: Option<String>,
    pub port: Option<PortSelector>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PortSelector {
    pub number: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpMirror {
    pub destination: Option<Destination>,
    /// Absent means all requests.
    pub percentage: Option<PercentValue>,
}

/// `{value: 12.5}`, from 0 to 100.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PercentValue {
    pub value: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DirectResponse {
    /// HTTP status code.
    pub status: u32,
}

/// Name of a VirtualService without hosts that holds the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Delegate {
    pub name: String,
    /// Absent means the namespace of the delegating object.
    pub namespace: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rewrite {
    /// New path, or new prefix when the match is a prefix.
    pub uri: Option<String>,
    pub authority: Option<String>,
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RegexRewrite {
    /// An RE2 expression.
    #[serde(rename = "match")]
    pub matches: String,
    pub rewrite: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetries {
    /// Retries after the first attempt; absent means 0, which disables retries.
    pub attempts: Option<i64>,
    /// Limit of a single attempt.
    pub per_try_timeout: Option<String>,
    /// Conditions, separated by commas.
    pub retry_on: Option<String>,
    /// Whether retries may go to other localities.
    pub retry_remote_localities: Option<bool>,
    /// Delay before the first retry.
    pub backoff: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fault {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delay {
    pub fixed_delay: Option<String>,
    pub percentage: Option<PercentValue>,
    /// Deprecated form of `percentage`.
    pub percent: Option<i64>,
}

impl Delay {
    /// Share of the requests that are delayed, from 0 to 100. Without a share, istiod delays none.
    ///
    /// Source: `TranslateFault` in `pilot/pkg/networking/core/route/route.go` of istio/istio 1.31.
    pub fn share_percent(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a percentage")]
        let deprecated = || self.percent.unwrap_or(0) as f64;
        self.percentage.as_ref().map_or_else(deprecated, |percentage| percentage.value).clamp(0.0, 100.0)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Abort {
    /// HTTP status code.
    pub http_status: Option<i64>,
    /// Name of a gRPC status.
    pub grpc_status: Option<String>,
    /// Istio's webhook rejects it.
    pub http2_error: Option<String>,
    pub percentage: Option<PercentValue>,
}

impl Abort {
    /// Share of the requests that are aborted, from 0 to 100. Without a share, Envoy aborts none.
    ///
    /// Source: `TranslateFault`, and `HTTPFaultInjection.Abort` in `networking/v1alpha3/virtual_service.proto`.
    pub fn share_percent(&self) -> f64 {
        self.percentage.as_ref().map_or(0.0, |percentage| percentage.value.clamp(0.0, 100.0))
    }
}

/// An entry of `spec.tls` or `spec.tcp`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Rule {
    #[serde(rename = "match")]
    pub matches: NullableList<L4Match>,
    pub route: NullableList<RouteDestination>,
}

/// A connection needs to satisfy all of the conditions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    /// Server names of the TLS handshake; only in `spec.tls`.
    pub sni_hosts: NullableList<String>,
    /// Addresses that the caller connects to.
    pub destination_subnets: NullableList<String>,
    /// The port that the caller connects to.
    pub port: Option<u32>,
    /// Labels of the calling pod.
    #[serde(deserialize_with = "string_map")]
    pub source_labels: StringMap,
    /// Namespace of the calling pod.
    pub source_namespace: Option<String>,
    /// Limits the rule to these gateways.
    pub gateways: NullableList<String>,
}
