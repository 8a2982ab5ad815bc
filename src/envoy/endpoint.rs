//! Endpoints as an Envoy has them.
//!
//! Source: `envoy/config/endpoint/v3/endpoint.proto` of envoyproxy/envoy 1.39; seen with `/config_dump?include_eds`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::tolerant;

/// The endpoints of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointAssignment {
    /// Name of the cluster.
    pub cluster: String,
    /// `address:port` of those that take calls.
    pub healthy: BTreeSet<String>,
    /// Of those that do not.
    pub unhealthy: BTreeSet<String>,
    /// Clusters of the mesh that they run in, as istiod names them.
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
    /// istiod's `workload` is `name;namespace;app;version;cluster`.
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
        let mut found = EndpointAssignment {
            cluster: raw.cluster_name,
            healthy: BTreeSet::new(),
            unhealthy: BTreeSet::new(),
            cluster_ids: BTreeSet::new(),
        };
        for one in raw.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints) {
            found.cluster_ids.extend(one.metadata.as_ref().and_then(RawMetadata::cluster_id));
            let address = one.endpoint.and_then(|inner| inner.address);
            let Some(text) = address.and_then(|address| address.show()) else { continue };
            let takes_calls = one.health_status.is_none_or(|word| matches!(&*word, "HEALTHY" | "UNKNOWN" | "DEGRADED"));
            if takes_calls {
                found.healthy.insert(text)
            } else {
                found.unhealthy.insert(text)
            };
        }
        Some(found)
    }
}

/// `10.0.0.1:50051`, `[::1]:50051`.
pub fn show(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
