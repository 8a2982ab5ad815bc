//! Istio Sidecar as written, and the parts of other kinds that select workloads.
//! Source: `networking/v1alpha3/sidecar.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::security::PolicyTarget;
use super::service_entry::WorkloadSelector;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarSpec {
    /// Absent selects every pod of the namespace.
    pub workload_selector: Option<WorkloadSelector>,
    /// The hosts that the selected pods can see.
    pub egress: NullableList<EgressSpec>,
    /// Decides about calls to unknown hosts.
    pub outbound_traffic_policy: Option<OutboundPolicy>,
}

/// The hosts that are visible on one listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressSpec {
    /// `namespace/host` patterns.
    pub hosts: NullableList<String>,
    /// Limits the listener to one port.
    pub port: Option<super::gateway::ServerPort>,
    pub bind: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OutboundPolicy {
    /// `ALLOW_ANY` or `REGISTRY_ONLY`.
    pub mode: Option<String>,
}

/// `spec` of an EnvoyFilter, WasmPlugin, TrafficExtension or Telemetry, reduced to the workloads that it selects.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelectorSpec {
    /// EnvoyFilter only.
    pub workload_selector: Option<WorkloadSelector>,
    /// All but EnvoyFilter.
    pub selector: Option<super::destination_rule::MatchLabels>,
    /// Older form of `target_refs`.
    pub target_ref: Option<PolicyTarget>,
    /// Gateways and waypoints. Not empty: the object applies to no sidecar.
    pub target_refs: NullableList<PolicyTarget>,
    /// EnvoyFilter only.
    pub config_patches: NullableList<ConfigPatch>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigPatch {
    /// `HTTP_ROUTE`, `CLUSTER`, `HTTP_FILTER` and others.
    pub apply_to: Option<String>,
    #[serde(rename = "match")]
    pub matches: Option<PatchMatch>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PatchMatch {
    /// `ANY`, `SIDECAR_INBOUND`, `SIDECAR_OUTBOUND` or `GATEWAY`.
    pub context: Option<String>,
}
