//! Observed counters: what an Envoy counted for each endpoint.
//!
//! Source: `/clusters?format=json`, `envoy/admin/v3/clusters.proto` of envoyproxy/envoy 1.39. `rq_total` counts
//! attempts that got a connection; success and error follow Envoy's fixed set of statuses, including gRPC trailers.

use serde::{Deserialize, Serialize};

use super::tolerant;

/// Admin path of the counters.
pub const CLUSTERS_PATH: &str = "/clusters?format=json";

/// Counters of an endpoint in one cluster. They start at zero when the endpoint is added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounters {
    /// Name of the Envoy cluster.
    pub cluster: String,
    /// `address:port`.
    pub address: String,
    /// Attempts, each retry counted; for a cluster behind a TCP listener, connections.
    pub requests: u64,
    /// Successful attempts; 0 for TCP.
    pub successes: u64,
    /// Failed attempts; 0 for TCP.
    pub errors: u64,
    /// Connections that could not be established.
    pub connect_failures: u64,
    /// Whether it gets calls at the moment.
    pub is_healthy: bool,
    /// Whether outlier detection ejected it.
    pub is_ejected: bool,
    /// Load-balancing weight within its priority.
    #[serde(default)]
    pub weight: u64,
    /// Calls go to the lowest priority with healthy endpoints. Set by locality load balancing.
    #[serde(default)]
    pub priority: u64,
}

#[derive(Deserialize)]
struct RawClusters {
    #[serde(default)]
    cluster_statuses: Vec<RawCluster>,
}

#[derive(Deserialize)]
struct RawCluster {
    #[serde(default)]
    name: String,
    #[serde(default)]
    host_statuses: Vec<RawHost>,
}

#[derive(Deserialize)]
struct RawHost {
    address: Option<tolerant::SocketAddress>,
    #[serde(default)]
    stats: Vec<RawStat>,
    #[serde(default, deserialize_with = "tolerant::deserialize_integer")]
    weight: u64,
    #[serde(default, deserialize_with = "tolerant::deserialize_integer")]
    priority: u64,
    health_status: Option<RawHealth>,
}

#[derive(Deserialize)]
struct RawStat {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "tolerant::deserialize_integer")]
    value: u64,
}

#[derive(Deserialize, Default)]
struct RawHealth {
    eds_health_status: Option<String>,
    #[serde(default)]
    failed_outlier_check: bool,
    #[serde(default)]
    failed_active_health_check: bool,
}

/// Parses a response of [`CLUSTERS_PATH`], keeping the clusters whose name `is_selected` accepts.
///
/// # Errors
/// When the response is not JSON of that form.
pub fn parse(response: &[u8], is_selected: impl Fn(&str) -> bool) -> Result<Vec<EndpointCounters>, serde_json::Error> {
    let clusters: RawClusters = serde_json::from_slice(response)?;
    let mut counters = Vec::new();
    for cluster in clusters.cluster_statuses.into_iter().filter(|cluster| is_selected(&cluster.name)) {
        for host in cluster.host_statuses {
            let Some(address) = host.address.as_ref().and_then(tolerant::SocketAddress::to_address) else { continue };
            let stat = |name: &str| host.stats.iter().find(|stat| stat.name == name).map_or(0, |stat| stat.value);
            let health = host.health_status.unwrap_or_default();
            let is_healthy_in_eds =
                health.eds_health_status.as_deref().is_none_or(|status| matches!(status, "HEALTHY" | "DEGRADED"));
            let ejected = health.failed_outlier_check;
            counters.push(EndpointCounters {
                cluster: cluster.name.clone(),
                address,
                requests: stat("rq_total"),
                successes: stat("rq_success"),
                errors: stat("rq_error"),
                connect_failures: stat("cx_connect_fail"),
                is_healthy: is_healthy_in_eds && !ejected && !health.failed_active_health_check,
                is_ejected: ejected,
                weight: host.weight,
                priority: host.priority,
            });
        }
    }
    Ok(counters)
}
