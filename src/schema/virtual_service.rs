//! Istio's VirtualService. Source: `networking/v1alpha3/virtual_service.proto` of istio/api 1.31.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{StringMap, string_map};

/// `spec` of a VirtualService.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualServiceSpec {
    /// Hosts whose calls these rules take; empty in a delegate.
    pub hosts: NullableList<String>,
    /// Where the rules act; empty means `mesh`, that is, all sidecars.
    pub gateways: NullableList<String>,
    /// HTTP and gRPC rules, in order.
    pub http: NullableList<HttpRule>,
    /// Rules for TLS that is passed through.
    pub tls: NullableList<L4Rule>,
    /// Rules for opaque TCP.
    pub tcp: NullableList<L4Rule>,
    /// Namespaces that see the object; empty means the mesh's default.
    pub export_to: NullableList<String>,
}

/// One entry of `spec.http`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRule {
    /// Name, which becomes the Envoy route's name.
    pub name: Option<String>,
    /// Alternatives; empty matches everything.
    #[serde(rename = "match")]
    pub matches: NullableList<HttpMatch>,
    /// Weighted backends.
    pub route: NullableList<RouteDestination>,
    /// Answer with a redirect.
    pub redirect: Option<Redirect>,
    /// Answer from the proxy.
    pub direct_response: Option<DirectResponse>,
    /// Another VirtualService holds the rules.
    pub delegate: Option<Delegate>,
    /// Change path or authority.
    pub rewrite: Option<Rewrite>,
    /// Change headers.
    pub headers: Option<Headers>,
    /// Limit of the whole call, as text.
    pub timeout: Option<String>,
    /// Retry policy; present but empty switches retries off.
    pub retries: Option<HttpRetries>,
    /// Injected faults.
    pub fault: Option<Fault>,
    /// Copy of the traffic, old form.
    pub mirror: Option<Destination>,
    /// Copies of the traffic.
    pub mirrors: NullableList<HttpMirror>,
    /// Share that is copied.
    pub mirror_percentage: Option<Percent>,
    /// Share that is copied, deprecated form.
    pub mirror_percent: Option<u32>,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// Name, appended to the rule's name.
    pub name: Option<String>,
    /// Path.
    pub uri: Option<StringMatch>,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// HTTP method; gRPC is always POST.
    pub method: Option<StringMatch>,
    /// `:authority`, port included.
    pub authority: Option<StringMatch>,
    /// Headers that must match.
    pub headers: Option<BTreeMap<String, StringMatch>>,
    /// Headers that must not match.
    pub without_headers: Option<BTreeMap<String, StringMatch>>,
    /// Query parameters.
    pub query_params: Option<BTreeMap<String, StringMatch>>,
    /// Port of the call.
    pub port: Option<u32>,
    /// Labels of the calling pod.
    #[serde(deserialize_with = "string_map")]
    pub source_labels: StringMap,
    /// Namespace of the calling pod.
    pub source_namespace: Option<String>,
    /// Narrows the rule to these gateways.
    pub gateways: NullableList<String>,
    /// Compare the path without regard to case.
    pub ignore_uri_case: bool,
}

/// Text condition. None of the three set means "present".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StringMatch {
    /// Equal.
    pub exact: Option<String>,
    /// Begins with.
    pub prefix: Option<String>,
    /// Matches as a whole (RE2).
    pub regex: Option<String>,
}

/// A weighted backend.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Option<Destination>,
    /// Relative weight; absent is 0 in Istio's API, and one backend alone takes everything.
    pub weight: Option<i64>,
    /// Change headers of the calls that go there.
    pub headers: Option<Headers>,
}

/// Changes of headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// Of the request.
    pub request: Option<HeaderOperations>,
    /// Of the response.
    pub response: Option<HeaderOperations>,
}

/// Changes of one direction's headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderOperations {
    /// Replaced.
    #[serde(deserialize_with = "string_map")]
    pub set: StringMap,
    /// Added.
    #[serde(deserialize_with = "string_map")]
    pub add: StringMap,
    /// Taken away.
    pub remove: NullableList<String>,
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirect {
    /// New path.
    pub uri: Option<String>,
    /// New authority.
    pub authority: Option<String>,
    /// New scheme.
    pub scheme: Option<String>,
    /// HTTP status; absent is 301.
    pub redirect_code: Option<u32>,
}

/// A host, perhaps a subset of it, perhaps a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// Host; a name without dots is of the object's own namespace.
    pub host: String,
    /// Subset of the DestinationRule that the caller gets.
    pub subset: Option<String>,
    /// Port.
    pub port: Option<PortSelector>,
}

/// `{number: n}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PortSelector {
    /// Number.
    pub number: u32,
}

/// A copy of traffic.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpMirror {
    /// Where to.
    pub destination: Option<Destination>,
    /// Share; absent means all.
    pub percentage: Option<Percent>,
}

/// `{value: 12.5}`, in percent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Percent {
    /// 0 to 100.
    pub value: f64,
}

/// An answer given by the proxy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DirectResponse {
    /// HTTP status.
    pub status: u32,
}

/// A VirtualService without hosts that holds the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Delegate {
    /// Name.
    pub name: String,
    /// Namespace; absent means the root's own.
    pub namespace: Option<String>,
}

/// Change of path or authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rewrite {
    /// New path, or new prefix.
    pub uri: Option<String>,
    /// New `:authority`.
    pub authority: Option<String>,
    /// New path by a regular expression.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A replacement by a regular expression.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RegexRewrite {
    /// RE2 expression.
    #[serde(rename = "match")]
    pub matches: String,
    /// What takes its place.
    pub rewrite: String,
}

/// Retry policy as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetries {
    /// Retries after the first try; absent is 0, that is, off.
    pub attempts: Option<i64>,
    /// Limit of one try.
    pub per_try_timeout: Option<String>,
    /// Conditions, joined by commas.
    pub retry_on: Option<String>,
    /// Retry in other localities too.
    pub retry_remote_localities: Option<bool>,
    /// First pause.
    pub backoff: Option<String>,
}

/// Injected faults.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// Delay.
    pub delay: Option<Delay>,
    /// Abort.
    pub abort: Option<Abort>,
}

/// An injected delay.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delay {
    /// How long.
    pub fixed_delay: Option<String>,
    /// Share; absent means all.
    pub percentage: Option<Percent>,
}

/// An injected failure.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Abort {
    /// HTTP status.
    pub http_status: Option<i64>,
    /// gRPC status name.
    pub grpc_status: Option<String>,
    /// Never accepted by Istio.
    pub http2_error: Option<String>,
    /// Share; absent means all.
    pub percentage: Option<Percent>,
}

/// One entry of `spec.tls` or `spec.tcp`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Rule {
    /// Alternatives.
    #[serde(rename = "match")]
    pub matches: NullableList<L4Match>,
    /// Weighted backends.
    pub route: NullableList<RouteDestination>,
}

/// Conditions on a connection that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct L4Match {
    /// Names of the TLS handshake; only in `spec.tls`.
    pub sni_hosts: NullableList<String>,
    /// Addresses that were dialled.
    pub destination_subnets: NullableList<String>,
    /// Port that was dialled.
    pub port: Option<u32>,
    /// Labels of the calling pod.
    #[serde(deserialize_with = "string_map")]
    pub source_labels: StringMap,
    /// Namespace of the calling pod.
    pub source_namespace: Option<String>,
    /// Narrows the rule to these gateways.
    pub gateways: NullableList<String>,
}
