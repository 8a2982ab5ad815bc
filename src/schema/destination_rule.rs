//! Istio DestinationRule, as written. Source: `networking/v1alpha3/destination_rule.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{StringMap, string_map};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRuleSpec {
    /// A name without dots belongs to the object's own namespace.
    pub host: String,
    pub traffic_policy: Option<TrafficPolicy>,
    pub subsets: NullableList<Subset>,
    /// Namespaces that the object is visible to; empty means the mesh's default.
    pub export_to: NullableList<String>,
    /// Limits the rule to callers with these labels in its own namespace.
    pub workload_selector: Option<MatchLabels>,
}

impl DestinationRuleSpec {
    /// All `tls` blocks: those of the rule, of its ports and of its subsets.
    pub fn tls_settings(&self) -> impl Iterator<Item = &ClientTls> {
        let subsets = self.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        let policies = self.traffic_policy.iter().chain(subsets);
        policies.flat_map(|policy| {
            policy.tls.iter().chain(policy.port_level_settings.iter().filter_map(|port| port.tls.as_ref()))
        })
    }

    /// Whether any `tls` block exists.
    pub fn sets_tls(&self) -> bool {
        self.tls_settings().next().is_some()
    }
}

/// `{matchLabels: {…}}`: a pod needs all of the labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchLabels {
    #[serde(deserialize_with = "string_map")]
    pub match_labels: StringMap,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// A DNS label.
    pub name: String,
    /// A pod needs all of them; empty selects every pod.
    #[serde(deserialize_with = "string_map")]
    pub labels: StringMap,
    /// Overrides the rule's policy block by block.
    pub traffic_policy: Option<TrafficPolicy>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    pub load_balancer: Option<LoadBalancer>,
    pub connection_pool: Option<ConnectionPool>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTls>,
    /// A Service port's settings replace the whole policy for that port.
    pub port_level_settings: NullableList<PortPolicy>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortPolicy {
    /// The Service port.
    pub port: Option<super::virtual_service::PortSelector>,
    pub load_balancer: Option<LoadBalancer>,
    pub connection_pool: Option<ConnectionPool>,
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTls>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// `ROUND_ROBIN`, `LEAST_REQUEST`, `RANDOM`, `PASSTHROUGH` or `LEAST_CONN`.
    pub simple: Option<String>,
    pub consistent_hash: Option<ConsistentHash>,
    pub locality_lb_setting: Option<LocalityLoadBalancing>,
    pub zone_aware_lb_setting: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    pub http_header_name: Option<String>,
    pub http_cookie: Option<serde_json::Value>,
    /// Hashes by the caller's address.
    pub use_source_ip: Option<bool>,
    pub http_query_parameter_name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLoadBalancing {
    /// Fixed shares of the load per locality.
    pub distribute: NullableList<serde_json::Value>,
    pub failover: NullableList<serde_json::Value>,
}

/// Limits of one proxy toward one host.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConnectionPool {
    pub tcp: Option<TcpPool>,
    pub http: Option<HttpPool>,
}

/// istiod treats 0 and absent alike.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpPool {
    pub max_connections: Option<i64>,
    pub connect_timeout: Option<String>,
    /// Maximum age of a connection.
    pub max_connection_duration: Option<String>,
    /// Applies when HTTP sets none.
    pub idle_timeout: Option<String>,
}

/// istiod treats 0 and absent alike.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPool {
    /// Pending requests of HTTP/1.1 and HTTP/2, despite the name.
    pub http1_max_pending_requests: Option<i64>,
    /// Requests in flight, for all protocols, despite the name.
    pub http2_max_requests: Option<i64>,
    pub max_requests_per_connection: Option<i64>,
    /// Retries in flight.
    pub max_retries: Option<i64>,
    pub idle_timeout: Option<String>,
    /// `DEFAULT`, `DO_NOT_UPGRADE` or `UPGRADE`.
    pub h2_upgrade_policy: Option<String>,
    /// Uses the protocol of the downstream connection.
    pub use_client_protocol: Option<bool>,
    /// Streams per connection.
    pub max_concurrent_streams: Option<i64>,
    pub http2_keep_alive: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<i64>,
    /// 502, 503 and 504 responses in a row.
    pub consecutive_gateway_errors: Option<i64>,
    /// Failed connections in a row.
    pub consecutive_local_origin_failures: Option<i64>,
    pub split_external_local_origin_errors: Option<bool>,
    /// Time between two ejection sweeps.
    pub interval: Option<String>,
    pub base_ejection_time: Option<String>,
    pub max_ejection_percent: Option<i64>,
    /// Panic threshold.
    pub min_health_percent: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientTls {
    /// `DISABLE`, `SIMPLE`, `MUTUAL` or `ISTIO_MUTUAL`.
    pub mode: Option<String>,
    /// The Secret that holds the client certificate.
    pub credential_name: Option<String>,
    /// File with the certificates of the authorities; absent means those of the system.
    pub ca_certificates: Option<String>,
    /// Names that the server's certificate may have.
    pub subject_alt_names: NullableList<String>,
    /// The SNI name; absent means one that istiod builds for mTLS.
    pub sni: Option<String>,
    pub insecure_skip_verify: Option<bool>,
}

impl ClientTls {
    /// Whether the settings take the certificate from a Secret.
    pub fn needs_secret(&self) -> bool {
        let name = self.credential_name.as_deref().unwrap_or_default();
        let originates = matches!(self.mode.as_deref(), Some("SIMPLE" | "MUTUAL"));
        originates && !name.is_empty() && !name.starts_with("configmap://")
    }
}
