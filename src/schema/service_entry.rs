//! Istio ServiceEntry and WorkloadEntry, as written. Source: `networking/v1alpha3/service_entry.proto` and
//! `workload_entry.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{StringMap, string_map};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntrySpec {
    /// Hosts that the object adds to the service registry.
    pub hosts: NullableList<String>,
    /// Virtual IP addresses.
    pub addresses: NullableList<String>,
    pub ports: NullableList<ServiceEntryPort>,
    /// `MESH_EXTERNAL` (the default) or `MESH_INTERNAL`.
    pub location: Option<String>,
    /// `NONE` (the default), `STATIC`, `DNS`, `DNS_ROUND_ROBIN` or `DYNAMIC_DNS`.
    pub resolution: Option<String>,
    pub endpoints: NullableList<WorkloadEntrySpec>,
    /// Selects WorkloadEntries and Pods as endpoints.
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that the object is visible to.
    pub export_to: NullableList<String>,
}

/// `{labels: {…}}`: a pod needs all of the labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WorkloadSelector {
    #[serde(deserialize_with = "string_map")]
    pub labels: StringMap,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntryPort {
    pub number: u32,
    pub name: String,
    /// Empty means that Envoy detects the protocol.
    pub protocol: Option<String>,
    /// Port of the endpoints.
    pub target_port: Option<u32>,
}

/// `spec` of a WorkloadEntry, and an endpoint of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadEntrySpec {
    pub address: Option<String>,
    /// Set for a machine with a proxy: the identity that it has.
    pub service_account: Option<String>,
    #[serde(deserialize_with = "string_map")]
    pub labels: StringMap,
}
