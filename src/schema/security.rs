//! Istio's PeerAuthentication and AuthorizationPolicy.
//! Source: `security/v1beta1/*.proto` of istio/api 1.31.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::destination_rule::Selector;
use super::list::List;

/// `spec` of a PeerAuthentication.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthenticationSpec {
    /// Which pods; absent means all of the namespace.
    pub selector: Option<Selector>,
    /// Mode.
    pub mtls: Option<Mtls>,
    /// Mode per pod port.
    pub port_level_mtls: Option<BTreeMap<String, Mtls>>,
}

/// `{mode: STRICT}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Mtls {
    /// `UNSET`, `DISABLE`, `PERMISSIVE`, `STRICT`.
    pub mode: Option<String>,
}

/// `spec` of an AuthorizationPolicy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicySpec {
    /// Which pods; absent means all of the namespace.
    pub selector: Option<Selector>,
    /// Attached to a gateway or waypoint instead.
    pub target_refs: List<serde_json::Value>,
    /// `ALLOW` (default), `DENY`, `AUDIT`, `CUSTOM`.
    pub action: Option<String>,
    /// Rules.
    pub rules: List<AuthorizationRule>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AuthorizationRule {
    /// Who calls.
    pub from: List<CalledFrom>,
    /// Operations.
    pub to: List<To>,
}

/// `{source: {…}}`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CalledFrom {
    /// The caller.
    pub source: Option<Source>,
}

/// Callers, as far as a rule names them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Namespaces.
    pub namespaces: List<String>,
    /// Identities: `cluster.local/ns/web/sa/web`.
    pub principals: List<String>,
}

/// `{operation: {…}}`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct To {
    /// The operation.
    pub operation: Option<Operation>,
}

/// What is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Paths: `/pkg.Service/Method` for gRPC.
    pub paths: List<String>,
    /// All paths but these.
    pub not_paths: List<String>,
    /// HTTP methods.
    pub methods: List<String>,
    /// Pod ports.
    pub ports: List<String>,
}
