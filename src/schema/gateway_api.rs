//! Gateway API's Gateway, HTTPRoute, GRPCRoute and ReferenceGrant.
//! Source: `apis/v1` of kubernetes-sigs/gateway-api v1.6.0.

use serde::Deserialize;

use super::core::StatusCondition;
use super::list::NullableList;
use super::meta::{ObjectMeta, StringMap, string_map};

/// A route object with its status.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ApiRoute {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    pub spec: ApiRouteSpec,
    /// Status.
    pub status: RouteStatus,
}

/// `spec` of an HTTPRoute or GRPCRoute; the two differ only inside matches.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRouteSpec {
    /// Gateways or Services it attaches to.
    pub parent_refs: NullableList<ParentRef>,
    /// Hosts.
    pub hostnames: NullableList<String>,
    /// Rules.
    pub rules: NullableList<ApiRouteRule>,
}

/// What a route attaches to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// Group; absent means Gateway API's.
    pub group: Option<String>,
    /// Kind; absent means `Gateway`.
    pub kind: Option<String>,
    /// Namespace; absent means the route's.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Listener.
    pub section_name: Option<String>,
    /// Port.
    pub port: Option<i64>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRouteRule {
    /// Name.
    pub name: Option<String>,
    /// Alternatives; empty matches everything.
    pub matches: NullableList<ApiRouteMatch>,
    /// Filters.
    pub filters: NullableList<RouteFilter>,
    /// Weighted backends.
    pub backend_refs: NullableList<BackendRef>,
    /// Only HTTPRoute.
    pub timeouts: Option<RouteTimeouts>,
    /// Only HTTPRoute.
    pub retry: Option<RouteRetry>,
}

/// Retries of an HTTPRoute rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteRetry {
    /// HTTP status codes that are retried.
    pub codes: NullableList<i64>,
    /// Retries after the first try.
    pub attempts: Option<i64>,
    /// First pause.
    pub backoff: Option<String>,
}

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRouteMatch {
    /// HTTPRoute: path.
    pub path: Option<ValueMatch>,
    /// HTTPRoute: a word. GRPCRoute: service and method.
    pub method: Option<MethodMatch>,
    /// Headers.
    pub headers: NullableList<ValueMatch>,
    /// Query parameters (HTTPRoute).
    pub query_params: NullableList<ValueMatch>,
}

/// `{type, name, value}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ValueMatch {
    /// `Exact`, `PathPrefix`, `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Name of the header or parameter.
    pub name: Option<String>,
    /// Value.
    pub value: Option<String>,
}

/// The method condition of either kind of route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MethodMatch {
    /// HTTPRoute: an HTTP method.
    Http(String),
    /// GRPCRoute.
    Grpc(GrpcMethodMatch),
}

/// gRPC service and method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcMethodMatch {
    /// `Exact` (default) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Full service name.
    pub service: Option<String>,
    /// Method.
    pub method: Option<String>,
}

/// A filter, by its type and the mirror it may hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteFilter {
    /// `RequestHeaderModifier`, `RequestMirror`, `RequestRedirect`, `URLRewrite`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Only of `RequestMirror`.
    pub request_mirror: Option<RequestMirror>,
    /// Only of `RequestRedirect`.
    pub request_redirect: Option<RequestRedirect>,
    /// Only of `URLRewrite`.
    pub url_rewrite: Option<UrlRewrite>,
    /// Only of `RequestHeaderModifier`.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Only of `ResponseHeaderModifier`.
    pub response_header_modifier: Option<HeaderModifier>,
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRedirect {
    /// New scheme.
    pub scheme: Option<String>,
    /// New host.
    pub hostname: Option<String>,
    /// HTTP status; absent is 302.
    pub status_code: Option<u32>,
}

/// Change of path or host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct UrlRewrite {
    /// New host.
    pub hostname: Option<String>,
    /// New path.
    pub path: Option<PathModifier>,
}

/// Change of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// New path.
    pub replace_full_path: Option<String>,
    /// New prefix.
    pub replace_prefix_match: Option<String>,
}

/// Changes of headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    /// Replaced.
    pub set: NullableList<ValueMatch>,
    /// Added.
    pub add: NullableList<ValueMatch>,
    /// Taken away.
    pub remove: NullableList<String>,
}

/// A copy of traffic.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMirror {
    /// Where to.
    pub backend_ref: BackendRef,
    /// Share in percent; absent means all.
    pub percent: Option<i64>,
    /// Share as a fraction.
    pub fraction: Option<Fraction>,
}

/// `{numerator: 1, denominator: 1000}`; the denominator is 100 when absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Fraction {
    /// Above.
    pub numerator: i32,
    /// Below.
    pub denominator: Option<i32>,
}

/// A weighted backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackendRef {
    /// Group; absent means the core group.
    pub group: Option<String>,
    /// Kind; absent means `Service`.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; absent means the route's.
    pub namespace: Option<String>,
    /// Port; needed for a Service.
    pub port: Option<i64>,
    /// Relative weight; absent means 1.
    pub weight: Option<i64>,
}

/// Timeouts of an HTTPRoute rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteTimeouts {
    /// Whole call.
    pub request: Option<String>,
    /// One try.
    pub backend_request: Option<String>,
}

/// `status` of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// One entry a parent.
    pub parents: NullableList<ParentStatus>,
}

/// What a parent's controller says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentStatus {
    /// The parent.
    pub parent_ref: ParentRef,
    /// `Accepted`, `ResolvedRefs`, …
    pub conditions: NullableList<StatusCondition>,
}

/// `spec` of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiGatewaySpec {
    /// `istio`, `istio-waypoint`, `istio-remote` or somebody else's.
    pub gateway_class_name: String,
    /// Listeners.
    pub listeners: NullableList<ApiListener>,
    /// A Service that already runs the gateway, instead of one that is made.
    pub addresses: NullableList<GatewayAddress>,
}

/// An address of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GatewayAddress {
    /// `IPAddress` (default) or `Hostname`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The address.
    pub value: String,
}

/// `spec` of a ReferenceGrant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: NullableList<GrantFrom>,
    /// To what in the grant's namespace.
    pub to: NullableList<GrantTo>,
}

/// Who may refer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrantFrom {
    /// Group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
}

/// To what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrantTo {
    /// Group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name; absent means all of the kind.
    pub name: Option<String>,
}

/// One listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiListener {
    /// Name.
    pub name: String,
    /// Host; absent means all.
    pub hostname: Option<String>,
    /// Port.
    pub port: i64,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `HBONE`.
    pub protocol: String,
    /// TLS.
    pub tls: Option<ListenerTls>,
    /// Who may attach.
    pub allowed_routes: Option<AllowedRoutes>,
}

/// TLS of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerTls {
    /// `Terminate` (default) or `Passthrough`.
    pub mode: Option<String>,
    /// Secrets with the certificate.
    pub certificate_refs: NullableList<CertificateRef>,
}

/// A Secret with a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CertificateRef {
    /// Kind; absent is `Secret`.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; absent is the Gateway's own.
    pub namespace: Option<String>,
}

/// Who may attach to a listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    /// From which namespaces.
    pub namespaces: Option<RouteNamespaces>,
    /// Kinds of routes; empty means all that the protocol takes.
    pub kinds: NullableList<RouteKind>,
}

/// A kind of route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteKind {
    /// Kind.
    pub kind: String,
}

/// From which namespaces routes may attach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteNamespaces {
    /// `Same` (default), `All`, `Selector`.
    pub from: Option<String>,
    /// For `Selector`.
    pub selector: Option<LabelSelector>,
}

/// Kubernetes' own label selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must all be there.
    #[serde(deserialize_with = "string_map")]
    pub match_labels: StringMap,
    /// Conditions that must all hold.
    pub match_expressions: NullableList<LabelExpression>,
}

/// A condition on one label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LabelExpression {
    /// Label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub operator: String,
    /// Values.
    pub values: NullableList<String>,
}

impl LabelSelector {
    /// Whether labels are selected.
    pub fn selects(&self, labels: &StringMap) -> bool {
        let expression = |one: &LabelExpression| {
            let value = labels.get(&one.key);
            match one.operator.as_str() {
                "In" => value.is_some_and(|value| one.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !one.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(expression)
    }
}
