//! Clusters: how an Envoy reaches a Service or one of its subsets.
//!
//! Source: `envoy/config/cluster/v3/cluster.proto`, `circuit_breaker.proto`, `outlier_detection.proto` and
//! `envoy/extensions/upstreams/http/v3/http_protocol_options.proto` of envoyproxy/envoy 1.39.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tolerant;
use crate::vocabulary::duration;

/// A cluster: its settings in words, so that two can be compared one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvoyCluster {
    /// Its name.
    pub name: String,
    /// What shapes calls.
    pub settings: BTreeMap<ClusterSetting, String>,
}

/// What shapes calls to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterSetting {
    /// How endpoints are found.
    Discovery,
    /// Which endpoint is chosen.
    Balancing,
    /// What is spoken upstream.
    Protocol,
    /// Whether it is encrypted.
    Tls,
    /// Circuit breaker.
    MaxConnections,
    /// Circuit breaker.
    MaxPendingRequests,
    /// Circuit breaker.
    MaxRequests,
    /// Circuit breaker.
    MaxRetries,
    /// Limit for a connection's first packet.
    ConnectTimeout,
    /// Calls for each connection at a time.
    MaxConcurrentStreams,
    /// Calls for each connection in all.
    MaxRequestsPerConnection,
    /// When endpoints are ejected.
    OutlierDetection,
}

impl ClusterSetting {
    /// The words for it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Discovery => "discovery of endpoints",
            Self::Balancing => "load balancing",
            Self::Protocol => "upstream protocol",
            Self::Tls => "TLS",
            Self::MaxConnections => "maximum of connections",
            Self::MaxPendingRequests => "maximum of pending requests",
            Self::MaxRequests => "maximum of requests",
            Self::MaxRetries => "maximum of retries",
            Self::ConnectTimeout => "connect timeout",
            Self::MaxConcurrentStreams => "streams of a connection",
            Self::MaxRequestsPerConnection => "requests of a connection",
            Self::OutlierDetection => "outlier detection",
        }
    }
}

/// `none`, or a number: istiod writes 2³²−1 where there is no limit.
pub fn limit(limit: Option<u64>) -> String {
    limit.filter(|limit| *limit < u64::from(u32::MAX)).map_or("none".to_owned(), |limit| limit.to_string())
}

/// When endpoints are ejected; Envoy's defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Errors in a row; `None` is never.
    pub errors: Option<u64>,
    /// Gateway errors in a row; `None` is never.
    pub gateway_errors: Option<u64>,
    /// How often it is looked at.
    pub interval: Duration,
    /// How long an endpoint is out at least.
    pub out: Duration,
    /// Of all endpoints, at most.
    pub percent: u64,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            errors: Some(5),
            gateway_errors: None,
            interval: Duration::from_secs(10),
            out: Duration::from_secs(30),
            percent: 10,
        }
    }
}

impl OutlierSettings {
    /// In words.
    pub fn words(&self) -> String {
        let Self { errors, gateway_errors, interval, out, percent } = self;
        let count = |count: &Option<u64>| count.map_or("never".to_owned(), |count| count.to_string());
        format!(
            "errors {}, gateway errors {}, every {}, for {}, at most {percent}%",
            count(errors),
            count(gateway_errors),
            duration::show(*interval),
            duration::show(*out)
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
        self.cluster.map(RawCluster::words)
    }
}

impl RawCluster {
    fn words(self) -> EnvoyCluster {
        let thresholds = self.circuit_breakers.map(|one| one.thresholds).unwrap_or_default();
        let is_default = |one: &RawThresholds| one.priority.as_deref().is_none_or(|word| word == "DEFAULT");
        let breaker = thresholds.into_iter().find(is_default).unwrap_or_default();
        // Of an extension under another name nothing is known.
        let options = self.typed_extension_protocol_options.into_iter();
        let options = options.filter(|(name, _)| name.ends_with("HttpProtocolOptions")).map(|(_, one)| one).next();
        let options = options.unwrap_or_default();
        let explicit = options.explicit_http_config.and_then(|one| one.http2_protocol_options);
        let (protocol, http2) = match (explicit, options.use_downstream_protocol_config) {
            (_, Some(downstream)) => ("as the caller's", downstream.http2_protocol_options),
            (Some(http2), None) => ("HTTP/2", Some(http2)),
            (None, None) => ("HTTP/1.1", None),
        };
        let tls = if !self.transport_socket_matches.is_empty() {
            "chosen for each endpoint"
        } else if self.transport_socket.is_some_and(|socket| socket.name == "envoy.transport_sockets.tls") {
            "TLS"
        } else {
            "plain text"
        };
        let balancing = match self.lb_policy.as_deref() {
            Some("RING_HASH" | "MAGLEV") => "consistent hash",
            Some(word) => word,
            None => "ROUND_ROBIN",
        };
        let connect_timeout = tolerant::duration(Some(self.connect_timeout.as_deref().unwrap_or("5s")));
        let streams = http2.and_then(|one| one.max_concurrent_streams);
        let per_connection = options.common_http_protocol_options.and_then(|one| one.max_requests_per_connection);
        let settings = BTreeMap::from([
            (ClusterSetting::Discovery, self.discovery.unwrap_or_else(|| "STATIC".to_owned())),
            (ClusterSetting::Balancing, balancing.to_owned()),
            (ClusterSetting::Protocol, protocol.to_owned()),
            (ClusterSetting::Tls, tls.to_owned()),
            (ClusterSetting::MaxConnections, limit(breaker.max_connections)),
            (ClusterSetting::MaxPendingRequests, limit(breaker.max_pending_requests)),
            (ClusterSetting::MaxRequests, limit(breaker.max_requests)),
            (ClusterSetting::MaxRetries, limit(breaker.max_retries)),
            (ClusterSetting::ConnectTimeout, duration::show(connect_timeout)),
            (ClusterSetting::MaxConcurrentStreams, limit(streams)),
            (ClusterSetting::MaxRequestsPerConnection, limit(per_connection)),
            (
                ClusterSetting::OutlierDetection,
                self.outlier_detection.map_or("none".to_owned(), |one| one.ejection().words()),
            ),
        ]);
        EnvoyCluster { name: self.name, settings }
    }
}

impl RawOutlier {
    fn ejection(self) -> OutlierSettings {
        let default = OutlierSettings::default();
        let time = |text: &Option<String>, default: Duration| {
            text.as_deref().map_or(default, |text| tolerant::duration(Some(text)))
        };
        let enforced = |share: Option<u64>, default: u64| share.unwrap_or(default) > 0;
        let errors = self.consecutive_5xx.or(default.errors);
        OutlierSettings {
            errors: errors.filter(|_| enforced(self.enforcing_consecutive_5xx, 100)),
            gateway_errors: self
                .consecutive_gateway_failure
                .filter(|_| enforced(self.enforcing_consecutive_gateway_failure, 0)),
            interval: time(&self.interval, default.interval),
            out: time(&self.base_ejection_time, default.out),
            percent: self.max_ejection_percent.unwrap_or(default.percent),
        }
    }
}
