//! Envoy's response flags.
//!
//! Sources: `source/common/stream_info/utility.cc` and `envoy/stream_info/stream_info.h` of Envoy 1.39 for codes, names
//! and order; istio/istio 1.31 `pilot/pkg/networking/core/cluster_traffic_policy.go`, `networkfilter.go` and
//! `route/retry/retry.go` for the Istio settings that cause each flag. The gRPC status that a client receives was measured.

use schemars::JsonSchema;
use serde::Serialize;

/// The party that caused a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum FaultSide {
    /// The caller's application.
    Caller,
    /// The server's application or its pods.
    Server,
    /// The network between caller and server.
    Network,
    /// The proxy that wrote the log line.
    Proxy,
    /// Mesh configuration, such as a VirtualService or an AuthorizationPolicy.
    Configuration,
    /// No party: the call went well.
    None,
}

impl FaultSide {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFlag {
    /// Short code, as access logs print it.
    pub code: &'static str,
    /// Long name, as `%RESPONSE_FLAGS_LONG%` prints it.
    pub name: &'static str,
    /// The party that usually causes it.
    pub side: FaultSide,
    /// The gRPC status that the client receives when Envoy generates the response; `None` when it depends on the case.
    pub grpc_status: Option<u8>,
    pub meaning: &'static str,
    /// The first thing to check.
    pub next_step: &'static str,
    /// The settings that usually lead to this flag.
    pub related_settings: &'static str,
}

const fn flag(
    code: &'static str,
    name: &'static str,
    side: FaultSide,
    grpc_status: Option<u8>,
    meaning: &'static str,
    next_step: &'static str,
    related_settings: &'static str,
) -> ResponseFlag {
    ResponseFlag { code, name, side, grpc_status, meaning, next_step, related_settings }
}

/// All flags of Envoy 1.39, sorted by code.
pub static FLAGS: [ResponseFlag; 30] = [
    flag(
        "DC",
        "DownstreamConnectionTermination",
        FaultSide::Caller,
        None,
        "the caller closed its connection before the response was complete",
        "check whether the caller restarted at that time",
        "usually no mesh setting",
    ),
    flag(
        "DF",
        "DnsResolutionFailed",
        FaultSide::Configuration,
        Some(14),
        "the destination's host name could not be resolved",
        "resolve the host name from inside the caller's pod",
        "ServiceEntry; outboundTrafficPolicy",
    ),
    flag(
        "DI",
        "DelayInjected",
        FaultSide::Configuration,
        None,
        "fault injection delayed the call",
        "remove the fault rule if the test is over",
        "VirtualService http[].fault.delay",
    ),
    flag(
        "DO",
        "DropOverload",
        FaultSide::Configuration,
        Some(14),
        "the control plane instructed Envoy to drop a share of the calls",
        "find the control plane that sends drop_overloads; Istio does not",
        "the control plane",
    ),
    flag(
        "DPE",
        "DownstreamProtocolError",
        FaultSide::Caller,
        None,
        "the caller did not send valid HTTP",
        "find the client by its downstream address: it may be a port scanner, or send TLS to a plaintext port",
        "the caller",
    ),
    flag(
        "DR",
        "DownstreamRemoteReset",
        FaultSide::Caller,
        None,
        "the caller reset the stream: it cancelled the call or its deadline expired",
        "compare the duration with the caller's deadline: a round duration, such as 2s, suggests that it expired",
        "the caller's deadline; a slow server",
    ),
    flag(
        "DT",
        "DurationTimeout",
        FaultSide::Configuration,
        None,
        "the connection reached its maximum duration",
        "compare the duration with maxConnectionDuration",
        "DestinationRule connectionPool.tcp.maxConnectionDuration",
    ),
    flag(
        "FI",
        "FaultInjected",
        FaultSide::Configuration,
        None,
        "fault injection aborted the call",
        "remove the fault rule if the test is over",
        "VirtualService http[].fault.abort",
    ),
    flag(
        "IH",
        "InvalidEnvoyRequestHeaders",
        FaultSide::Caller,
        Some(13),
        "the caller sent an x-envoy-* header with an invalid value",
        "read the response code details: they name the header",
        "EnvoyFilter with strict header checks",
    ),
    flag(
        "LH",
        "FailedLocalHealthCheck",
        FaultSide::Proxy,
        Some(14),
        "an admin call made this proxy fail its health check",
        "find the client that called /healthcheck/fail",
        "not used by Istio",
    ),
    flag(
        "LR",
        "LocalReset",
        FaultSide::Proxy,
        Some(14),
        "this proxy reset the stream to the server",
        "read the response code details",
        "usually no setting",
    ),
    flag(
        "NC",
        "NoClusterFound",
        FaultSide::Configuration,
        Some(14),
        "the route selects a cluster that the caller's proxy does not have",
        "check that the host exists and that a DestinationRule visible to this caller defines the subset",
        "VirtualService route[].destination; DestinationRule subsets, exportTo; Sidecar egress",
    ),
    flag(
        "NFCF",
        "NoFilterConfigFound",
        FaultSide::Configuration,
        Some(2),
        "the proxy has not received the configuration of a filter",
        "check that the WasmPlugin's image can be pulled",
        "WasmPlugin; EnvoyFilter",
    ),
    flag(
        "NR",
        "NoRouteFound",
        FaultSide::Configuration,
        Some(12),
        "no route matched the call, or no filter chain matched the connection",
        "compare host and path with the route rules; on filter_chain_not_found check for plaintext to a server with STRICT mTLS",
        "VirtualService http[].match, hosts; PeerAuthentication mode",
    ),
    flag(
        "OM",
        "OverloadManagerTerminated",
        FaultSide::Proxy,
        None,
        "this proxy terminated the call because it is overloaded",
        "check the memory usage of the istio-proxy container",
        "resource limits of the sidecar",
    ),
    flag(
        "RFCF",
        "ResponseFromCacheFilter",
        FaultSide::Proxy,
        None,
        "the response came from this proxy's cache",
        "no action needed",
        "EnvoyFilter",
    ),
    flag(
        "RL",
        "RateLimited",
        FaultSide::Configuration,
        Some(14),
        "a rate limit rejected the call",
        "look for local_rate_limited or request_rate_limited in the details",
        "EnvoyFilter with a rate limit",
    ),
    flag(
        "RLSE",
        "RateLimitServiceError",
        FaultSide::Proxy,
        Some(2),
        "the rate limit service failed, and the filter rejects calls on failure",
        "check that the rate limit service is reachable",
        "EnvoyFilter with a rate limit",
    ),
    flag(
        "SI",
        "StreamIdleTimeout",
        FaultSide::Configuration,
        Some(14),
        "the stream was idle for the whole idle timeout",
        "compare the duration with the idle timeouts; long-lived quiet streams need keep-alive messages",
        "idle timeout of a gateway or EnvoyFilter",
    ),
    flag(
        "UAEX",
        "UnauthorizedExternalService",
        FaultSide::Server,
        Some(7),
        "the external authorization service denied the call or failed",
        "look for ext_authz_denied or ext_authz_error in the details",
        "AuthorizationPolicy CUSTOM; extensionProviders",
    ),
    flag(
        "UC",
        "UpstreamConnectionTermination",
        FaultSide::Server,
        Some(14),
        "the connection to the server closed while the call was in flight",
        "check for pod restarts, a maximum connection age in the server, and plaintext to a server with STRICT mTLS",
        "DestinationRule tls.mode; PeerAuthentication; the server's keepalive settings",
    ),
    flag(
        "UDO",
        "UnconditionalDropOverload",
        FaultSide::Configuration,
        Some(14),
        "the control plane instructed Envoy to drop all calls",
        "find the control plane that sends drop_overloads; Istio does not",
        "the control plane",
    ),
    flag(
        "UF",
        "UpstreamConnectionFailure",
        FaultSide::Network,
        Some(14),
        "the connection to the server could not be established",
        "check that the pod is ready and listens on that port, and read the transport failure reason",
        "Service targetPort; DestinationRule tls.mode, connectTimeout; PeerAuthentication",
    ),
    flag(
        "UH",
        "NoHealthyUpstream",
        FaultSide::Server,
        Some(14),
        "the destination has no healthy endpoint",
        "run kubectl get endpointslices, compare the subset's labels with the pods, and check outlier detection",
        "DestinationRule subsets, outlierDetection; Service selector",
    ),
    flag(
        "UMSDR",
        "UpstreamMaxStreamDurationReached",
        FaultSide::Configuration,
        Some(14),
        "the stream reached the cluster's maximum stream duration",
        "compare the duration with the configured maximum",
        "EnvoyFilter",
    ),
    flag(
        "UO",
        "UpstreamOverflow",
        FaultSide::Configuration,
        Some(14),
        "a connection pool limit rejected the call",
        "compare the concurrent calls per caller with http2MaxRequests and http1MaxPendingRequests",
        "DestinationRule connectionPool",
    ),
    flag(
        "UPE",
        "UpstreamProtocolError",
        FaultSide::Configuration,
        Some(14),
        "the server's bytes do not match the protocol that the proxy used",
        "check that the Service port is declared as grpc or http2 and that the server accepts HTTP/2 without TLS",
        "Service ports[].name, appProtocol",
    ),
    flag(
        "UR",
        "UpstreamRemoteReset",
        FaultSide::Server,
        Some(14),
        "the server reset the stream",
        "with remote_refused_stream_reset the server was shutting down; otherwise read the server's log",
        "the server; VirtualService retries",
    ),
    flag(
        "URX",
        "UpstreamRetryLimitExceeded",
        FaultSide::Server,
        None,
        "all retry attempts failed",
        "the other flag gives the reason for each attempt; with via_upstream the server sent the error itself",
        "VirtualService retries",
    ),
    flag(
        "UT",
        "UpstreamRequestTimeout",
        FaultSide::Server,
        Some(14),
        "the server did not respond within the timeout",
        "compare the duration with the route timeout, perTryTimeout and the caller's deadline",
        "VirtualService timeout, retries.perTryTimeout; the caller's deadline",
    ),
];

/// The short code for a code or long name in any case; unknown names are returned in capitals.
pub fn canonical_code(name: &str) -> String {
    find(name).map_or_else(|| name.to_ascii_uppercase(), |flag| flag.code.to_owned())
}

/// Finds a flag by its code or long name in any case.
pub fn find(text: &str) -> Option<&'static ResponseFlag> {
    FLAGS.iter().find(|flag| flag.code.eq_ignore_ascii_case(text) || flag.name.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sorted_by_unique_codes() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
