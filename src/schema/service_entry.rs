//! Istio's ServiceEntry and WorkloadEntry. Source: `networking/v1alpha3/service_entry.proto` and
//! `workload_entry.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{StringMap, string_map};

/// `spec` of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntrySpec {
    /// Hosts it adds to the registry.
    pub hosts: NullableList<String>,
    /// Virtual addresses.
    pub addresses: NullableList<String>,
    /// Ports.
    pub ports: NullableList<ServiceEntryPort>,
    /// `MESH_EXTERNAL` (default) or `MESH_INTERNAL`.
    pub location: Option<String>,
    /// `NONE` (default), `STATIC`, `DNS`, `DNS_ROUND_ROBIN`, `DYNAMIC_DNS`.
    pub resolution: Option<String>,
    /// Fixed endpoints.
    pub endpoints: NullableList<WorkloadEntrySpec>,
    /// Labels of WorkloadEntries and Pods behind it.
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that see the object.
    pub export_to: NullableList<String>,
}

/// `{labels: {…}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WorkloadSelector {
    /// Labels that must all be there.
    #[serde(deserialize_with = "string_map")]
    pub labels: StringMap,
}

/// A port of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntryPort {
    /// Number.
    pub number: u32,
    /// Name.
    pub name: String,
    /// Protocol word; empty means detection.
    pub protocol: Option<String>,
    /// Port of the endpoints.
    pub target_port: Option<u32>,
}

/// `spec` of a WorkloadEntry, and an endpoint of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WorkloadEntrySpec {
    /// Address.
    pub address: Option<String>,
    /// Labels.
    #[serde(deserialize_with = "string_map")]
    pub labels: StringMap,
}
