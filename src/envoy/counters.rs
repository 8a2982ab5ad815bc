//! What an Envoy counted for each endpoint.
//!
//! Source: `/clusters?format=json`, `envoy/admin/v3/clusters.proto` of envoyproxy/envoy 1.39. `rq_total` counts tries that
//! got a connection; success and error follow Envoy's fixed set of statuses, those in gRPC trailers included.

use serde::{Deserialize, Serialize};

use super::tolerant;

/// The question.
pub const QUESTION: &str = "/clusters?format=json";

/// Counters of an endpoint in one cluster. They begin with the endpoint, and end with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounters {
    /// Name of the cluster.
    pub cluster: String,
    /// `address:port`.
    pub address: String,
    /// Tries; for a cluster behind a TCP listener, connections.
    pub total: u64,
    /// Of them those that went well; 0 for TCP.
    pub success: u64,
    /// Of them those that did not; 0 for TCP.
    pub errors: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Whether it takes calls now.
    pub healthy: bool,
    /// Whether outlier detection has it out.
    pub ejected: bool,
    /// Its weight among those of its priority.
    #[serde(default)]
    pub weight: u64,
    /// Its priority: calls go to the smallest one that has healthy endpoints. Locality sets it.
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
    #[serde(default, deserialize_with = "tolerant::number")]
    weight: u64,
    #[serde(default, deserialize_with = "tolerant::number")]
    priority: u64,
    health_status: Option<RawHealth>,
}

#[derive(Deserialize)]
struct RawStat {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "tolerant::number")]
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

/// The counters of the clusters whose names `wanted` takes.
///
/// # Errors
/// When it is no JSON in that form.
pub fn read(answer: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Vec<EndpointCounters>, serde_json::Error> {
    let all: RawClusters = serde_json::from_slice(answer)?;
    let mut found = Vec::new();
    for cluster in all.cluster_statuses.into_iter().filter(|cluster| wanted(&cluster.name)) {
        for host in cluster.host_statuses {
            let Some(address) = host.address.as_ref().and_then(tolerant::SocketAddress::show) else { continue };
            let stat = |name: &str| host.stats.iter().find(|one| one.name == name).map_or(0, |one| one.value);
            let health = host.health_status.unwrap_or_default();
            let by_eds = health.eds_health_status.as_deref().is_none_or(|word| matches!(word, "HEALTHY" | "DEGRADED"));
            let ejected = health.failed_outlier_check;
            found.push(EndpointCounters {
                cluster: cluster.name.clone(),
                address,
                total: stat("rq_total"),
                success: stat("rq_success"),
                errors: stat("rq_error"),
                refused: stat("cx_connect_fail"),
                healthy: by_eds && !ejected && !health.failed_active_health_check,
                ejected,
                weight: host.weight,
                priority: host.priority,
            });
        }
    }
    Ok(found)
}
