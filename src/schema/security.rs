//! Istio PeerAuthentication and AuthorizationPolicy, as written.
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

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicySpec {
    /// Absent selects every pod of the namespace.
    pub selector: Option<MatchLabels>,
    /// Set when the policy applies to a gateway or waypoint instead of pods.
    pub target_refs: NullableList<serde_json::Value>,
    /// `ALLOW` (the default), `DENY`, `AUDIT` or `CUSTOM`.
    pub action: Option<String>,
    pub rules: NullableList<AuthorizationRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AuthorizationRule {
    pub from: NullableList<RuleFrom>,
    pub to: NullableList<RuleTo>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RuleFrom {
    pub source: Option<RuleSource>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RuleSource {
    pub namespaces: NullableList<String>,
    /// SPIFFE identities without the scheme: `cluster.local/ns/web/sa/web`.
    pub principals: NullableList<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RuleTo {
    pub operation: Option<RuleOperation>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleOperation {
    /// `/pkg.Service/Method` for gRPC.
    pub paths: NullableList<String>,
    /// Excluded paths.
    pub not_paths: NullableList<String>,
}
