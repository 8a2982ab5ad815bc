//! Istio's Sidecar and the selectors of other per-workload kinds.
//! Source: `networking/v1alpha3/sidecar.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::service_entry::WorkloadSelector;

/// `spec` of a Sidecar.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarSpec {
    /// Which pods; absent means all of the namespace.
    pub workload_selector: Option<WorkloadSelector>,
    /// What these pods may see.
    pub egress: NullableList<EgressSpec>,
    /// Replaces the inbound listeners when not empty.
    pub ingress: NullableList<serde_json::Value>,
    /// Unknown hosts.
    pub outbound_traffic_policy: Option<OutboundPolicy>,
}

/// What is visible on one listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressSpec {
    /// `namespace/host` patterns.
    pub hosts: NullableList<String>,
    /// Narrows to one port.
    pub port: Option<super::gateway::ServerPort>,
    /// Address of the listener.
    pub bind: Option<String>,
    /// `DEFAULT`, `IPTABLES`, `NONE`.
    pub capture_mode: Option<String>,
}

/// `ALLOW_ANY` or `REGISTRY_ONLY`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OutboundPolicy {
    /// The mode.
    pub mode: Option<String>,
}

/// `spec` of an EnvoyFilter, WasmPlugin or Telemetry as far as it says whom it acts on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectingSpec {
    /// EnvoyFilter's selector.
    pub workload_selector: Option<WorkloadSelector>,
    /// Selector of the others.
    pub selector: Option<super::destination_rule::MatchLabels>,
    /// Patches of an EnvoyFilter.
    pub config_patches: NullableList<ConfigPatch>,
}

/// One patch of an EnvoyFilter.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigPatch {
    /// What is patched: `HTTP_ROUTE`, `CLUSTER`, `HTTP_FILTER`, …
    pub apply_to: Option<String>,
    /// Where it acts.
    #[serde(rename = "match")]
    pub matches: Option<PatchMatch>,
}

/// Where a patch acts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PatchMatch {
    /// `ANY`, `SIDECAR_INBOUND`, `SIDECAR_OUTBOUND` or `GATEWAY`.
    pub context: Option<String>,
}
