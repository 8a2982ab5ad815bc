//! Istio's DestinationRule. Source: `networking/v1alpha3/destination_rule.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{StringMap, string_map};

/// `spec` of a DestinationRule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRuleSpec {
    /// Host; a name without dots is of the object's own namespace.
    pub host: String,
    /// Policy for all subsets.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named sets of pods.
    pub subsets: NullableList<Subset>,
    /// Namespaces that see the object; empty means the mesh's default.
    pub export_to: NullableList<String>,
    /// Narrows the rule to these callers in its own namespace.
    pub workload_selector: Option<MatchLabels>,
}

/// `{matchLabels: {…}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchLabels {
    /// Labels that must all be there.
    #[serde(deserialize_with = "string_map")]
    pub match_labels: StringMap,
}

/// A named set of pods.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Name, a DNS label.
    pub name: String,
    /// Labels that must all be there; empty means all pods.
    #[serde(deserialize_with = "string_map")]
    pub labels: StringMap,
    /// Policy that overrides the rule's, block by block.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How to talk to a host.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// Balancing.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection of bad endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS toward the host.
    pub tls: Option<ClientTls>,
    /// Per port: replaces the whole policy (the port is the Service's).
    pub port_level_settings: NullableList<PortPolicy>,
}

/// Policy of one port.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortPolicy {
    /// The Service port.
    pub port: Option<super::virtual_service::PortSelector>,
    /// Balancing.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection of bad endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS toward the host.
    pub tls: Option<ClientTls>,
}

/// Balancing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// `ROUND_ROBIN`, `LEAST_REQUEST`, `RANDOM`, `PASSTHROUGH`, `LEAST_CONN`.
    pub simple: Option<String>,
    /// Stickiness.
    pub consistent_hash: Option<ConsistentHash>,
    /// Locality.
    pub locality_lb_setting: Option<LocalityLoadBalancing>,
    /// Zone-aware balancing.
    pub zone_aware_lb_setting: Option<serde_json::Value>,
}

/// What calls are hashed by.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// A header.
    pub http_header_name: Option<String>,
    /// A cookie.
    pub http_cookie: Option<serde_json::Value>,
    /// The caller's address.
    pub use_source_ip: Option<bool>,
    /// A query parameter.
    pub http_query_parameter_name: Option<String>,
}

/// Locality settings.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLoadBalancing {
    /// Fixed shares.
    pub distribute: NullableList<serde_json::Value>,
    /// Where to fail over.
    pub failover: NullableList<serde_json::Value>,
    /// Labels that order the fail-over.
    pub failover_priority: NullableList<String>,
    /// Whether it is on.
    pub enabled: Option<bool>,
}

/// Limits of one proxy toward one host.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConnectionPool {
    /// Connection limits.
    pub tcp: Option<TcpPool>,
    /// Request limits.
    pub http: Option<HttpPool>,
}

/// Connection limits. 0 and absent are the same to istiod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpPool {
    /// Connections.
    pub max_connections: Option<i64>,
    /// Limit for connecting.
    pub connect_timeout: Option<String>,
    /// Age limit of a connection.
    pub max_connection_duration: Option<String>,
    /// Idle limit, used when HTTP has none.
    pub idle_timeout: Option<String>,
}

/// Request limits. 0 and absent are the same to istiod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPool {
    /// Waiting requests, HTTP/2 too in spite of the name.
    pub http1_max_pending_requests: Option<i64>,
    /// Requests in flight, for all protocols.
    pub http2_max_requests: Option<i64>,
    /// Requests before a connection is closed.
    pub max_requests_per_connection: Option<i64>,
    /// Retries in flight.
    pub max_retries: Option<i64>,
    /// Idle limit of a connection.
    pub idle_timeout: Option<String>,
    /// `DEFAULT`, `DO_NOT_UPGRADE`, `UPGRADE`.
    pub h2_upgrade_policy: Option<String>,
    /// Speak what the caller speaks.
    pub use_client_protocol: Option<bool>,
    /// Streams per connection.
    pub max_concurrent_streams: Option<i64>,
    /// Keep-alive pings.
    pub http2_keep_alive: Option<serde_json::Value>,
}

/// Ejection of bad endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Deprecated and unused.
    pub consecutive_errors: Option<i64>,
    /// Failures in a row.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<i64>,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway_errors: Option<i64>,
    /// Failed connections in a row.
    pub consecutive_local_origin_failures: Option<i64>,
    /// Count local failures apart.
    pub split_external_local_origin_errors: Option<bool>,
    /// Between two sweeps.
    pub interval: Option<String>,
    /// First ejection.
    pub base_ejection_time: Option<String>,
    /// At most this share.
    pub max_ejection_percent: Option<i64>,
    /// Panic threshold.
    pub min_health_percent: Option<i64>,
}

/// TLS toward a host.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// `DISABLE`, `SIMPLE`, `MUTUAL`, `ISTIO_MUTUAL`.
    pub mode: Option<String>,
    /// Certificate from a Secret.
    pub credential_name: Option<String>,
    /// CA file.
    pub ca_certificates: Option<String>,
    /// Client certificate file.
    pub client_certificate: Option<String>,
    /// Client key file.
    pub private_key: Option<String>,
    /// Names the server may have.
    pub subject_alt_names: NullableList<String>,
    /// SNI.
    pub sni: Option<String>,
}
