//! Observed endpoints.
//!
//! Source: `envoy/config/endpoint/v3/endpoint.proto` of envoyproxy/envoy 1.39; returned by
//! `/config_dump?include_eds`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::tolerant;

/// The endpoints of a cluster in an Envoy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointAssignment {
    /// Name of the Envoy cluster.
    pub cluster: String,
    /// `address:port` of the endpoints that get calls.
    pub healthy: BTreeSet<String>,
    /// `address:port` of the endpoints that do not.
    pub unhealthy: BTreeSet<String>,
    /// Kubernetes clusters of the endpoints, by istiod's cluster ID.
    pub cluster_ids: BTreeSet<String>,
}

#[derive(Deserialize)]
pub(super) struct RawEndpointElement {
    endpoint_config: Option<RawAssignment>,
}

#[derive(Deserialize)]
struct RawAssignment {
    #[serde(default)]
    cluster_name: String,
    #[serde(default)]
    endpoints: Vec<RawLocality>,
}

#[derive(Deserialize)]
struct RawLocality {
    #[serde(default)]
    lb_endpoints: Vec<RawEndpoint>,
}

#[derive(Deserialize)]
struct RawEndpoint {
    endpoint: Option<RawInner>,
    health_status: Option<String>,
    metadata: Option<RawMetadata>,
}

#[derive(Deserialize)]
struct RawMetadata {
    #[serde(default)]
    filter_metadata: BTreeMap<String, serde_json::Value>,
}

impl RawMetadata {
    /// istiod writes `name;namespace;app;version;cluster` to `workload`.
    fn cluster_id(&self) -> Option<String> {
        let workload = self.filter_metadata.get("istio")?.get("workload")?.as_str()?;
        workload.split(';').nth(4).filter(|id| !id.is_empty()).map(str::to_owned)
    }
}

#[derive(Deserialize)]
struct RawInner {
    address: Option<tolerant::SocketAddress>,
}

impl RawEndpointElement {
    pub(super) fn assignment(self) -> Option<EndpointAssignment> {
        let raw = self.endpoint_config?;
        let mut assignment = EndpointAssignment {
            cluster: raw.cluster_name,
            healthy: BTreeSet::new(),
            unhealthy: BTreeSet::new(),
            cluster_ids: BTreeSet::new(),
        };
        for endpoint in raw.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints) {
            assignment.cluster_ids.extend(endpoint.metadata.as_ref().and_then(RawMetadata::cluster_id));
            let address = endpoint.endpoint.and_then(|inner| inner.address);
            let Some(address) = address.and_then(|address| address.to_address()) else { continue };
            let is_healthy =
                endpoint.health_status.is_none_or(|status| matches!(&*status, "HEALTHY" | "UNKNOWN" | "DEGRADED"));
            if is_healthy {
                assignment.healthy.insert(address)
            } else {
                assignment.unhealthy.insert(address)
            };
        }
        Some(assignment)
    }
}

/// Formats `10.0.0.1:50051` or `[::1]:50051`.
pub fn socket_address(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
