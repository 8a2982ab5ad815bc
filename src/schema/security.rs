//! Istio PeerAuthentication, RequestAuthentication and AuthorizationPolicy, as written.
//! Source: `security/v1beta1/*.proto` of istio/api 1.31.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::destination_rule::MatchLabels;
use super::list::NullableList;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthenticationSpec {
    /// Absent selects every pod of the namespace.
    pub selector: Option<MatchLabels>,
    pub mtls: Option<MtlsSpec>,
    /// By port of the pod.
    pub port_level_mtls: Option<BTreeMap<String, MtlsSpec>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MtlsSpec {
    /// `UNSET`, `DISABLE`, `PERMISSIVE` or `STRICT`.
    pub mode: Option<String>,
}

/// `spec` of a RequestAuthentication, reduced to what decides whether the proxies of a pod check tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthenticationSpec {
    /// Absent selects every pod of the namespace.
    pub selector: Option<MatchLabels>,
    /// The older form of `target_refs`, with a single target.
    pub target_ref: Option<PolicyTarget>,
    pub target_refs: NullableList<PolicyTarget>,
    /// Without any, no token is accepted.
    pub jwt_rules: NullableList<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicySpec {
    /// Absent selects every pod of the namespace.
    pub selector: Option<MatchLabels>,
    /// The older form of `target_refs`, with a single target.
    pub target_ref: Option<PolicyTarget>,
    /// Set when the policy applies to a gateway or waypoint instead of pods.
    pub target_refs: NullableList<PolicyTarget>,
    /// `ALLOW` (the default), `DENY`, `AUDIT` or `CUSTOM`.
    pub action: Option<String>,
    /// The external authorizer of a `CUSTOM` policy.
    pub provider: Option<PolicyProvider>,
    pub rules: NullableList<AuthorizationRule>,
}

/// The object that a policy is attached to, in the policy's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PolicyTarget {
    pub group: Option<String>,
    /// `Gateway`, `GatewayClass`, `Service` or `ServiceEntry`.
    pub kind: String,
    pub name: String,
    pub namespace: Option<String>,
}

impl PolicyTarget {
    /// Whether the target is the Gateway API Gateway with this name, for a policy of `own_namespace`. Policies attach only
    /// to Gateways of their own namespace.
    pub fn names_gateway(&self, own_namespace: &str, gateway: &str) -> bool {
        let is_own = self.namespace.as_deref().is_none_or(|name| name.is_empty() || name == own_namespace);
        let is_gateway_api = self.group.as_deref() == Some("gateway.networking.k8s.io");
        self.kind == "Gateway" && is_gateway_api && is_own && self.name == gateway
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PolicyProvider {
    /// An entry of `meshConfig.extensionProviders`.
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AuthorizationRule {
    pub from: NullableList<RuleFrom>,
    pub to: NullableList<RuleTo>,
    pub when: NullableList<RuleCondition>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RuleFrom {
    pub source: Option<RuleSource>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSource {
    /// SPIFFE identities without the scheme: `cluster.local/ns/web/sa/web`.
    pub principals: NullableList<String>,
    pub not_principals: NullableList<String>,
    /// `ISSUER/SUBJECT` of a token.
    pub request_principals: NullableList<String>,
    pub not_request_principals: NullableList<String>,
    pub namespaces: NullableList<String>,
    pub not_namespaces: NullableList<String>,
    /// `NAME`, or `NAMESPACE/NAME` for another namespace than the policy's.
    pub service_accounts: NullableList<String>,
    pub not_service_accounts: NullableList<String>,
    pub trust_domains: NullableList<String>,
    pub not_trust_domains: NullableList<String>,
    /// Address of the connection.
    pub ip_blocks: NullableList<String>,
    pub not_ip_blocks: NullableList<String>,
    /// Address of the original client, from `x-forwarded-for`.
    pub remote_ip_blocks: NullableList<String>,
    pub not_remote_ip_blocks: NullableList<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RuleTo {
    pub operation: Option<RuleOperation>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleOperation {
    /// Authorities, port included.
    pub hosts: NullableList<String>,
    pub not_hosts: NullableList<String>,
    /// Ports of the pod.
    pub ports: NullableList<String>,
    pub not_ports: NullableList<String>,
    /// HTTP methods; `POST` for gRPC.
    pub methods: NullableList<String>,
    pub not_methods: NullableList<String>,
    /// `/pkg.Service/Method` for gRPC.
    pub paths: NullableList<String>,
    /// Excluded paths.
    pub not_paths: NullableList<String>,
}

/// A condition on an attribute such as `request.headers[x-tenant]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleCondition {
    pub key: String,
    pub values: NullableList<String>,
    pub not_values: NullableList<String>,
}
