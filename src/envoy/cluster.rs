//! Observed clusters: how an Envoy reaches a Service or one of its subsets.
//!
//! Source: `envoy/config/cluster/v3/cluster.proto`, `circuit_breaker.proto`, `outlier_detection.proto` and
//! `envoy/extensions/upstreams/http/v3/http_protocol_options.proto` of envoyproxy/envoy 1.39.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tolerant;
use crate::vocabulary::duration;

/// A cluster with its settings as text, so that two clusters can be compared setting by setting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyCluster {
    /// `outbound|PORT|SUBSET|HOST` for a cluster that istiod generates.
    pub name: String,
    pub settings: BTreeMap<ClusterSetting, String>,
}

/// A setting that affects calls to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterSetting {
    /// `EDS`, `STRICT_DNS`, `LOGICAL_DNS` or `ORIGINAL_DST`.
    Discovery,
    /// `LEAST_REQUEST` and other policies of Envoy, or `consistent hash`.
    Balancing,
    /// `HTTP/1.1`, `HTTP/2` or `same as downstream`.
    Protocol,
    /// `TLS`, `plaintext` or `per endpoint`.
    Tls,
    MaxConnections,
    MaxPendingRequests,
    MaxRequests,
    MaxRetries,
    ConnectTimeout,
    MaxConcurrentStreams,
    MaxRequestsPerConnection,
    /// See [`OutlierSettings::summary`].
    OutlierDetection,
}

impl ClusterSetting {
    pub fn label(self) -> &'static str {
        match self {
            Self::Discovery => "endpoint discovery",
            Self::Balancing => "load balancing",
            Self::Protocol => "upstream protocol",
            Self::Tls => "TLS",
            Self::MaxConnections => "max connections",
            Self::MaxPendingRequests => "max pending requests",
            Self::MaxRequests => "max requests",
            Self::MaxRetries => "max retries",
            Self::ConnectTimeout => "connect timeout",
            Self::MaxConcurrentStreams => "max concurrent streams",
            Self::MaxRequestsPerConnection => "max requests per connection",
            Self::OutlierDetection => "outlier detection",
        }
    }
}

/// Formats a limit as a number or `none`. istiod writes 2³²−1 for "no limit".
pub fn format_limit(limit: Option<u64>) -> String {
    limit.filter(|limit| *limit < u64::from(u32::MAX)).map_or("none".to_owned(), |limit| limit.to_string())
}

/// Outlier detection with Envoy's defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierSettings {
    /// `None` disables ejection by 5xx errors.
    pub consecutive_errors: Option<u64>,
    /// `None` disables ejection by gateway errors.
    pub consecutive_gateway_errors: Option<u64>,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    /// 0 to 100, of all endpoints of the cluster.
    pub max_ejection_percent: u64,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            consecutive_errors: Some(5),
            consecutive_gateway_errors: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
        }
    }
}

impl OutlierSettings {
    /// One line with the field names of a DestinationRule.
    pub fn summary(&self) -> String {
        let Self { consecutive_errors, consecutive_gateway_errors, interval, base_ejection_time, max_ejection_percent } =
            self;
        let count = |count: &Option<u64>| count.map_or("never".to_owned(), |count| count.to_string());
        format!(
            "consecutive5xxErrors {}, consecutiveGatewayErrors {}, interval {}, baseEjectionTime {}, \
             maxEjectionPercent {max_ejection_percent}",
            count(consecutive_errors),
            count(consecutive_gateway_errors),
            duration::format(*interval),
            duration::format(*base_ejection_time)
        )
    }
}

#[derive(Deserialize)]
pub(super) struct RawClusterElement {
    cluster: Option<RawCluster>,
}

#[derive(Deserialize)]
struct RawCluster {
    #[serde(default)]
    name: String,
    #[serde(rename = "type")]
    discovery: Option<String>,
    lb_policy: Option<String>,
    connect_timeout: Option<String>,
    circuit_breakers: Option<RawBreakers>,
    outlier_detection: Option<RawOutlier>,
    transport_socket: Option<RawSocket>,
    #[serde(default)]
    transport_socket_matches: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    typed_extension_protocol_options: BTreeMap<String, RawOptions>,
}

#[derive(Deserialize)]
struct RawBreakers {
    #[serde(default)]
    thresholds: Vec<RawThresholds>,
}

#[derive(Deserialize, Default)]
struct RawThresholds {
    priority: Option<String>,
    max_connections: Option<u64>,
    max_pending_requests: Option<u64>,
    max_requests: Option<u64>,
    max_retries: Option<u64>,
}

#[derive(Deserialize)]
struct RawOutlier {
    consecutive_5xx: Option<u64>,
    enforcing_consecutive_5xx: Option<u64>,
    consecutive_gateway_failure: Option<u64>,
    enforcing_consecutive_gateway_failure: Option<u64>,
    interval: Option<String>,
    base_ejection_time: Option<String>,
    max_ejection_percent: Option<u64>,
}

#[derive(Deserialize)]
struct RawSocket {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize, Default)]
struct RawOptions {
    explicit_http_config: Option<RawExplicit>,
    use_downstream_protocol_config: Option<RawDownstream>,
    common_http_protocol_options: Option<RawCommon>,
}

#[derive(Deserialize)]
struct RawExplicit {
    http2_protocol_options: Option<RawHttp2>,
}

#[derive(Deserialize)]
struct RawDownstream {
    http2_protocol_options: Option<RawHttp2>,
}

#[derive(Deserialize)]
struct RawHttp2 {
    max_concurrent_streams: Option<u64>,
}

#[derive(Deserialize)]
struct RawCommon {
    max_requests_per_connection: Option<u64>,
}

impl RawClusterElement {
    pub(super) fn cluster(self) -> Option<EnvoyCluster> {
        self.cluster.map(RawCluster::observed)
    }
}

impl RawCluster {
    fn observed(self) -> EnvoyCluster {
        let thresholds = self.circuit_breakers.map(|breakers| breakers.thresholds).unwrap_or_default();
        let is_default =
            |thresholds: &RawThresholds| thresholds.priority.as_deref().is_none_or(|priority| priority == "DEFAULT");
        let breaker = thresholds.into_iter().find(is_default).unwrap_or_default();
        // Other extensions are not modelled.
        let options = self.typed_extension_protocol_options.into_iter();
        let options =
            options.filter(|(name, _)| name.ends_with("HttpProtocolOptions")).map(|(_, options)| options).next();
        let options = options.unwrap_or_default();
        let explicit = options.explicit_http_config.and_then(|config| config.http2_protocol_options);
        let (protocol, http2) = match (explicit, options.use_downstream_protocol_config) {
            (_, Some(downstream)) => ("same as downstream", downstream.http2_protocol_options),
            (Some(http2), None) => ("HTTP/2", Some(http2)),
            (None, None) => ("HTTP/1.1", None),
        };
        let tls = if !self.transport_socket_matches.is_empty() {
            "per endpoint"
        } else if self.transport_socket.is_some_and(|socket| socket.name == "envoy.transport_sockets.tls") {
            "TLS"
        } else {
            "plaintext"
        };
        let balancing = match self.lb_policy.as_deref() {
            Some("RING_HASH" | "MAGLEV") => "consistent hash",
            Some(policy) => policy,
            None => "ROUND_ROBIN",
        };
        let connect_timeout = tolerant::parse_duration(Some(self.connect_timeout.as_deref().unwrap_or("5s")));
        let streams = http2.and_then(|options| options.max_concurrent_streams);
        let per_connection = options.common_http_protocol_options.and_then(|common| common.max_requests_per_connection);
        let settings = BTreeMap::from([
            (ClusterSetting::Discovery, self.discovery.unwrap_or_else(|| "STATIC".to_owned())),
            (ClusterSetting::Balancing, balancing.to_owned()),
            (ClusterSetting::Protocol, protocol.to_owned()),
            (ClusterSetting::Tls, tls.to_owned()),
            (ClusterSetting::MaxConnections, format_limit(breaker.max_connections)),
            (ClusterSetting::MaxPendingRequests, format_limit(breaker.max_pending_requests)),
            (ClusterSetting::MaxRequests, format_limit(breaker.max_requests)),
            (ClusterSetting::MaxRetries, format_limit(breaker.max_retries)),
            (ClusterSetting::ConnectTimeout, duration::format(connect_timeout)),
            (ClusterSetting::MaxConcurrentStreams, format_limit(streams)),
            (ClusterSetting::MaxRequestsPerConnection, format_limit(per_connection)),
            (
                ClusterSetting::OutlierDetection,
                self.outlier_detection.map_or("none".to_owned(), |outlier| outlier.settings().summary()),
            ),
        ]);
        EnvoyCluster { name: self.name, settings }
    }
}

impl RawOutlier {
    fn settings(self) -> OutlierSettings {
        let default = OutlierSettings::default();
        let time = |text: &Option<String>, default: Duration| {
            text.as_deref().map_or(default, |text| tolerant::parse_duration(Some(text)))
        };
        let is_enforced = |percent: Option<u64>, default: u64| percent.unwrap_or(default) > 0;
        let errors = self.consecutive_5xx.or(default.consecutive_errors);
        OutlierSettings {
            consecutive_errors: errors.filter(|_| is_enforced(self.enforcing_consecutive_5xx, 100)),
            consecutive_gateway_errors: self
                .consecutive_gateway_failure
                .filter(|_| is_enforced(self.enforcing_consecutive_gateway_failure, 0)),
            interval: time(&self.interval, default.interval),
            base_ejection_time: time(&self.base_ejection_time, default.base_ejection_time),
            max_ejection_percent: self.max_ejection_percent.unwrap_or(default.max_ejection_percent),
        }
    }
}
