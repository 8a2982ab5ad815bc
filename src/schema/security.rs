//! Istio's PeerAuthentication and AuthorizationPolicy.
//! Source: `security/v1beta1/*.proto` of istio/api 1.31.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::destination_rule::MatchLabels;
use super::list::NullableList;

/// `spec` of a PeerAuthentication.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthenticationSpec {
    /// Which pods; absent means all of the namespace.
    pub selector: Option<MatchLabels>,
    /// Mode.
    pub mtls: Option<MtlsSpec>,
    /// Mode per pod port.
    pub port_level_mtls: Option<BTreeMap<String, MtlsSpec>>,
}

/// `{mode: STRICT}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MtlsSpec {
    /// `UNSET`, `DISABLE`, `PERMISSIVE`, `STRICT`.
    pub mode: Option<String>,
}

/// `spec` of an AuthorizationPolicy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicySpec {
    /// Which pods; absent means all of the namespace.
    pub selector: Option<MatchLabels>,
    /// Attached to a gateway or waypoint instead.
    pub target_refs: NullableList<serde_json::Value>,
    /// `ALLOW` (default), `DENY`, `AUDIT`, `CUSTOM`.
    pub action: Option<String>,
    /// Rules.
    pub rules: NullableList<AuthorizationRule>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AuthorizationRule {
    /// Who calls.
    pub from: NullableList<RuleFrom>,
    /// Operations.
    pub to: NullableList<RuleTo>,
}

/// `{source: {…}}`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RuleFrom {
    /// The caller.
    pub source: Option<RuleSource>,
}

/// Callers, as far as a rule names them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RuleSource {
    /// Namespaces.
    pub namespaces: NullableList<String>,
    /// Identities: `cluster.local/ns/web/sa/web`.
    pub principals: NullableList<String>,
}

/// `{operation: {…}}`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RuleTo {
    /// The operation.
    pub operation: Option<RuleOperation>,
}

/// What is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleOperation {
    /// Paths: `/pkg.Service/Method` for gRPC.
    pub paths: NullableList<String>,
    /// All paths but these.
    pub not_paths: NullableList<String>,
    /// HTTP methods.
    pub methods: NullableList<String>,
    /// Pod ports.
    pub ports: NullableList<String>,
}
