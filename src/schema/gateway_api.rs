//! Gateway API's Gateway, ListenerSet, HTTPRoute, GRPCRoute, ReferenceGrant and backend policies, as written.
//! Source: `apis/v1` of kubernetes-sigs/gateway-api v1.6.0.

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{ObjectMeta, StringMap, string_map};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ApiRoute {
    pub metadata: ObjectMeta,
    pub spec: ApiRouteSpec,
    pub status: ApiRouteStatus,
}

/// What each controller reports about the parents of a route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ApiRouteStatus {
    pub parents: NullableList<RouteParentStatus>,
}

/// What one controller reports about one parent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteParentStatus {
    pub parent_ref: ParentRef,
    /// The controller; Istio's name starts with `istio.io/`.
    pub controller_name: String,
    pub conditions: NullableList<RouteStatusCondition>,
}

/// A condition in a status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteStatusCondition {
    /// `Accepted`, `ResolvedRefs` and others.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The `metadata.generation` that the condition is about.
    pub observed_generation: Option<i64>,
}

/// `spec` of an HTTPRoute or GRPCRoute; the two differ only in their matches.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRouteSpec {
    /// The Gateways or Services that the route attaches to.
    pub parent_refs: NullableList<ParentRef>,
    pub hostnames: NullableList<String>,
    pub rules: NullableList<ApiRouteRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// Absent means Gateway API's group.
    pub group: Option<String>,
    /// Absent means `Gateway`.
    pub kind: Option<String>,
    /// Absent means the route's namespace.
    pub namespace: Option<String>,
    pub name: String,
    /// Name of a listener.
    pub section_name: Option<String>,
    pub port: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRouteRule {
    pub name: Option<String>,
    /// A call needs to satisfy one of them; empty matches every call.
    pub matches: NullableList<ApiRouteMatch>,
    pub filters: NullableList<RouteFilter>,
    pub backend_refs: NullableList<BackendRef>,
    /// HTTPRoute only.
    pub timeouts: Option<RouteTimeouts>,
    /// HTTPRoute only.
    pub retry: Option<RouteRetry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteRetry {
    /// HTTP status codes that are retried.
    pub codes: NullableList<i64>,
    /// Retries after the first attempt.
    pub attempts: Option<i64>,
    /// Delay before the first retry.
    pub backoff: Option<String>,
}

/// A call needs to satisfy all of the conditions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRouteMatch {
    /// HTTPRoute only.
    pub path: Option<ValueMatch>,
    /// HTTPRoute: an HTTP method. GRPCRoute: service and method.
    pub method: Option<MethodMatch>,
    pub headers: NullableList<ValueMatch>,
    /// HTTPRoute only.
    pub query_params: NullableList<ValueMatch>,
}

/// `{type, name, value}`: a condition on a path, header or query parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ValueMatch {
    /// `Exact`, `PathPrefix` or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Name of the header or query parameter.
    pub name: Option<String>,
    pub value: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum MethodMatch {
    Http(String),
    Grpc(GrpcMethodMatch),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcMethodMatch {
    /// `Exact` (the default) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Fully qualified service name.
    pub service: Option<String>,
    pub method: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteFilter {
    /// `RequestHeaderModifier`, `RequestMirror`, `RequestRedirect`, `URLRewrite` and others.
    #[serde(rename = "type")]
    pub kind: String,
    pub request_mirror: Option<RequestMirror>,
    pub request_redirect: Option<RequestRedirect>,
    pub url_rewrite: Option<UrlRewrite>,
    pub request_header_modifier: Option<HeaderModifier>,
    pub response_header_modifier: Option<HeaderModifier>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRedirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    /// Absent means 302.
    pub status_code: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct UrlRewrite {
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    pub replace_full_path: Option<String>,
    pub replace_prefix_match: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    pub set: NullableList<ValueMatch>,
    pub add: NullableList<ValueMatch>,
    pub remove: NullableList<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMirror {
    pub backend_ref: BackendRef,
    /// Absent means all requests.
    pub percent: Option<i64>,
    pub fraction: Option<Fraction>,
}

/// `{numerator: 1, denominator: 1000}`; the denominator is 100 when absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Fraction {
    pub numerator: i32,
    pub denominator: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackendRef {
    /// Absent means the core group.
    pub group: Option<String>,
    /// Absent means `Service`.
    pub kind: Option<String>,
    pub name: String,
    /// Absent means the route's namespace.
    pub namespace: Option<String>,
    /// Required for a Service.
    pub port: Option<i64>,
    /// Relative to the other backends; absent means 1.
    pub weight: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteTimeouts {
    /// Limit of the whole request, retries included.
    pub request: Option<String>,
    /// Limit of a single attempt.
    pub backend_request: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiGatewaySpec {
    /// `istio`, `istio-waypoint`, `istio-remote`, or a class of another controller.
    pub gateway_class_name: String,
    pub listeners: NullableList<ApiListener>,
    /// Names an existing Service that runs the gateway; otherwise istiod creates one.
    pub addresses: NullableList<GatewayAddress>,
    /// Absent means that no ListenerSet may add listeners.
    pub allowed_listeners: Option<AllowedListeners>,
}

/// ListenerSets that may add listeners to a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedListeners {
    pub namespaces: Option<RouteNamespaces>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerSetSpec {
    /// The Gateway that gets the listeners.
    pub parent_ref: ParentRef,
    pub listeners: NullableList<ApiListener>,
}

/// TLS between a proxy and the backends of a Service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsPolicySpec {
    pub target_refs: NullableList<BackendPolicyTarget>,
    pub validation: BackendTlsValidation,
}

/// An experimental policy of a Service: retry budgets and session persistence, which are not modelled.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTrafficPolicySpec {
    pub target_refs: NullableList<BackendPolicyTarget>,
}

/// An object of the policy's own namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendPolicyTarget {
    pub group: String,
    pub kind: String,
    pub name: String,
    /// Name of a port; absent means all ports.
    pub section_name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsValidation {
    /// The SNI name, and the name that the certificate must have.
    pub hostname: String,
    pub subject_alt_names: NullableList<SubjectAltName>,
    /// ConfigMaps with the certificates of the authorities.
    pub ca_certificate_refs: NullableList<CertificateRef>,
    /// `System`: the authorities of the proxy's image.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<String>,
}

/// A name that the certificate may have instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SubjectAltName {
    pub hostname: Option<String>,
    pub uri: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GatewayAddress {
    /// `IPAddress` (the default) or `Hostname`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrantSpec {
    pub from: NullableList<GrantFrom>,
    pub to: NullableList<GrantTo>,
}

/// Objects that may refer to objects in the grant's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

/// Objects in the grant's namespace that may be referred to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrantTo {
    pub group: String,
    pub kind: String,
    /// Absent means every object of the kind.
    pub name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiListener {
    pub name: String,
    /// Absent means every host.
    pub hostname: Option<String>,
    /// A ListenerSet may leave it out for HTTP and HTTPS.
    pub port: i64,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP` or `HBONE`.
    pub protocol: String,
    pub tls: Option<ListenerTls>,
    pub allowed_routes: Option<AllowedRoutes>,
}

impl ApiListener {
    /// The port, or the default of the protocol. 0: neither.
    ///
    /// Source: `ListenerEntryPortNumber` in `pilot/pkg/config/kube/gatewaycommon/gateway_utils.go` of istio/istio 1.31.
    pub fn effective_port(&self) -> i64 {
        match (self.port, self.protocol.as_str()) {
            (0, "HTTP") => 80,
            (0, "HTTPS") => 443,
            (port, _) => port,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerTls {
    /// `Terminate` (the default) or `Passthrough`.
    pub mode: Option<String>,
    pub certificate_refs: NullableList<CertificateRef>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CertificateRef {
    /// Absent means `Secret`.
    pub kind: Option<String>,
    pub name: String,
    /// Absent means the Gateway's namespace.
    pub namespace: Option<String>,
}

/// Routes that may attach to a listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    pub namespaces: Option<RouteNamespaces>,
    /// Empty means every kind that the listener's protocol supports.
    pub kinds: NullableList<RouteKind>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteKind {
    pub kind: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteNamespaces {
    /// `Same` (the default of routes), `All`, `Selector` or `None`.
    pub from: Option<String>,
    pub selector: Option<LabelSelector>,
}

/// The label selector of the Kubernetes API: all labels and all expressions must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    #[serde(deserialize_with = "string_map")]
    pub match_labels: StringMap,
    pub match_expressions: NullableList<LabelExpression>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LabelExpression {
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    pub values: NullableList<String>,
}

impl LabelSelector {
    /// Reports whether the selector selects an object with these labels.
    pub fn matches(&self, labels: &StringMap) -> bool {
        let is_satisfied = |expression: &LabelExpression| {
            let value = labels.get(&expression.key);
            match expression.operator.as_str() {
                "In" => value.is_some_and(|value| expression.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !expression.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(is_satisfied)
    }
}
