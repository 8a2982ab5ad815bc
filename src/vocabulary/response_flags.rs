//! Envoy's response flags.
//!
//! Sources: `source/common/stream_info/utility.cc` and `envoy/stream_info/stream_info.h` of Envoy 1.39 for codes, names
//! and order; istio/istio 1.31 `pilot/pkg/networking/core/cluster_traffic_policy.go`, `networkfilter.go` and
//! `route/retry/retry.go` for what in Istio leads to each; what a gRPC client receives was measured.

/// Whose side something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultSide {
    /// The caller's program.
    Caller,
    /// The server's program, or its pods.
    Server,
    /// The way between the two.
    Network,
    /// This proxy itself.
    Proxy,
    /// What somebody configured.
    Configuration,
    /// Nobody's: it is normal.
    Nobody,
}

impl FaultSide {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Server => "server",
            Self::Network => "network",
            Self::Proxy => "proxy",
            Self::Configuration => "configuration",
            Self::Nobody => "nobody",
        }
    }
}

/// One flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFlag {
    /// Short code, as it is printed.
    pub code: &'static str,
    /// Envoy's long name.
    pub name: &'static str,
    /// Whose side it speaks of.
    pub side: FaultSide,
    /// The gRPC status that a client gets, where Envoy answers itself.
    pub grpc: Option<u8>,
    /// What happened.
    pub meaning: &'static str,
    /// What to look at first.
    pub next: &'static str,
    /// The setting that it usually points at.
    pub points_at: &'static str,
}

const fn flag(
    code: &'static str,
    name: &'static str,
    side: FaultSide,
    grpc: Option<u8>,
    meaning: &'static str,
    next: &'static str,
    points_at: &'static str,
) -> ResponseFlag {
    ResponseFlag { code, name, side, grpc, meaning, next, points_at }
}

/// All flags of Envoy 1.39, by code.
pub static FLAGS: [ResponseFlag; 30] = [
    flag(
        "DC",
        "DownstreamConnectionTermination",
        FaultSide::Caller,
        None,
        "the caller's connection closed before the response was complete",
        "was the caller restarted or killed at that time?",
        "nothing in the mesh, usually",
    ),
    flag(
        "DF",
        "DnsResolutionFailed",
        FaultSide::Configuration,
        Some(14),
        "the name of the destination could not be resolved",
        "resolve the authority from inside the caller's pod",
        "ServiceEntry; outboundTrafficPolicy",
    ),
    flag(
        "DI",
        "DelayInjected",
        FaultSide::Configuration,
        None,
        "a fault rule delayed the call on purpose",
        "is the fault rule still wanted?",
        "VirtualService http[].fault.delay",
    ),
    flag(
        "DO",
        "DropOverload",
        FaultSide::Configuration,
        Some(14),
        "the control plane told Envoy to drop a share of the calls",
        "who sends drop_overloads? Istio does not",
        "the control plane",
    ),
    flag(
        "DPE",
        "DownstreamProtocolError",
        FaultSide::Caller,
        None,
        "the caller's bytes are not valid HTTP",
        "who connects? see the downstream address: scanners, TLS to a plaintext port",
        "the caller",
    ),
    flag(
        "DR",
        "DownstreamRemoteReset",
        FaultSide::Caller,
        None,
        "the caller reset the call: it cancelled, or its deadline passed",
        "a round duration is a deadline: compare it with the caller's",
        "the caller's deadline; a slow server",
    ),
    flag(
        "DT",
        "DurationTimeout",
        FaultSide::Configuration,
        None,
        "the connection reached its longest duration",
        "compare the duration with maxConnectionDuration",
        "DestinationRule connectionPool.tcp.maxConnectionDuration",
    ),
    flag(
        "FI",
        "FaultInjected",
        FaultSide::Configuration,
        None,
        "a fault rule ended the call on purpose",
        "is the fault rule still wanted?",
        "VirtualService http[].fault.abort",
    ),
    flag(
        "IH",
        "InvalidEnvoyRequestHeaders",
        FaultSide::Caller,
        Some(13),
        "the caller sent an x-envoy- header with an invalid value",
        "the details name the header",
        "EnvoyFilter with strict header checks",
    ),
    flag(
        "LH",
        "FailedLocalHealthCheck",
        FaultSide::Proxy,
        Some(14),
        "this proxy was told to fail its health check",
        "who called /healthcheck/fail?",
        "not used by Istio",
    ),
    flag(
        "LR",
        "LocalReset",
        FaultSide::Proxy,
        Some(14),
        "this proxy reset the stream to the server",
        "see the details",
        "usually nothing",
    ),
    flag(
        "NC",
        "NoClusterFound",
        FaultSide::Configuration,
        Some(14),
        "the route leads to a cluster that this caller does not have",
        "does a DestinationRule that this caller gets define the subset, and does the host exist?",
        "VirtualService route[].destination; DestinationRule subsets, exportTo; Sidecar egress",
    ),
    flag(
        "NFCF",
        "NoFilterConfigFound",
        FaultSide::Configuration,
        Some(2),
        "the configuration of a filter never arrived",
        "is the WasmPlugin's image there?",
        "WasmPlugin; EnvoyFilter",
    ),
    flag(
        "NR",
        "NoRouteFound",
        FaultSide::Configuration,
        Some(12),
        "no route matched the call, or no filter chain the connection",
        "compare host and path with the rules' matches; filter_chain_not_found: plain text to a strict server?",
        "VirtualService http[].match, hosts; PeerAuthentication mode",
    ),
    flag(
        "OM",
        "OverloadManagerTerminated",
        FaultSide::Proxy,
        None,
        "this proxy ended the call because it runs out of resources",
        "memory of the proxy container",
        "limits of the sidecar",
    ),
    flag(
        "RFCF",
        "ResponseFromCacheFilter",
        FaultSide::Proxy,
        None,
        "the answer came from this proxy's cache",
        "nothing",
        "EnvoyFilter",
    ),
    flag(
        "RL",
        "RateLimited",
        FaultSide::Configuration,
        Some(14),
        "a rate limit refused the call",
        "local_rate_limited or request_rate_limited in the details",
        "EnvoyFilter with a rate limit",
    ),
    flag(
        "RLSE",
        "RateLimitServiceError",
        FaultSide::Proxy,
        Some(2),
        "the rate-limit service failed, and failures refuse calls",
        "is the rate-limit service reachable?",
        "EnvoyFilter with a rate limit",
    ),
    flag(
        "SI",
        "StreamIdleTimeout",
        FaultSide::Configuration,
        Some(14),
        "no byte moved on the stream for the idle timeout",
        "does the duration equal an idle timeout? long quiet streams need keep-alive messages",
        "idle timeout of a gateway or EnvoyFilter",
    ),
    flag(
        "UAEX",
        "UnauthorizedExternalService",
        FaultSide::Server,
        Some(7),
        "external authorization denied the call, or failed",
        "ext_authz_denied or ext_authz_error in the details",
        "AuthorizationPolicy CUSTOM; extensionProviders",
    ),
    flag(
        "UC",
        "UpstreamConnectionTermination",
        FaultSide::Server,
        Some(14),
        "the server's connection closed while the call was in flight",
        "did the pod restart, or does the server close connections by age? is plain text sent to a strict server?",
        "DestinationRule tls.mode; PeerAuthentication; the server's keep-alive settings",
    ),
    flag(
        "UDO",
        "UnconditionalDropOverload",
        FaultSide::Configuration,
        Some(14),
        "the control plane told Envoy to drop all calls",
        "who sends drop_overloads? Istio does not",
        "the control plane",
    ),
    flag(
        "UF",
        "UpstreamConnectionFailure",
        FaultSide::Network,
        Some(14),
        "no connection to the server could be made",
        "is the pod ready and does it listen on that port? see the transport failure reason",
        "Service targetPort; DestinationRule tls.mode, connectTimeout; PeerAuthentication",
    ),
    flag(
        "UH",
        "NoHealthyUpstream",
        FaultSide::Server,
        Some(14),
        "the destination has no healthy endpoint",
        "kubectl get endpointslices; do the subset's labels fit the pods? was everything ejected?",
        "DestinationRule subsets, outlierDetection; Service selector",
    ),
    flag(
        "UMSDR",
        "UpstreamMaxStreamDurationReached",
        FaultSide::Configuration,
        Some(14),
        "the stream reached the cluster's longest duration",
        "compare the duration with the limit",
        "EnvoyFilter",
    ),
    flag(
        "UO",
        "UpstreamOverflow",
        FaultSide::Configuration,
        Some(14),
        "a limit of the connection pool refused the call",
        "how many calls run at once per caller? compare with http2MaxRequests and http1MaxPendingRequests",
        "DestinationRule connectionPool",
    ),
    flag(
        "UPE",
        "UpstreamProtocolError",
        FaultSide::Configuration,
        Some(14),
        "the server's bytes are not of the protocol that the proxy spoke",
        "is the Service port named grpc or http2, and does the server speak HTTP/2 without TLS?",
        "Service ports[].name, appProtocol",
    ),
    flag(
        "UR",
        "UpstreamRemoteReset",
        FaultSide::Server,
        Some(14),
        "the server reset the call's stream",
        "remote_refused_stream_reset: the server was shutting down; else see the server's log",
        "the server; VirtualService retries",
    ),
    flag(
        "URX",
        "UpstreamRetryLimitExceeded",
        FaultSide::Server,
        None,
        "all retries were used up",
        "the other flag tells why each try failed; with via_upstream the server itself answered so",
        "VirtualService retries",
    ),
    flag(
        "UT",
        "UpstreamRequestTimeout",
        FaultSide::Server,
        Some(14),
        "the server did not answer within the timeout",
        "compare the duration with the route's timeout, perTryTimeout and the client's deadline",
        "VirtualService timeout, retries.perTryTimeout; the client's deadline",
    ),
];

/// The code of a flag that is written by its code or its long name, in any case; of others, what was written.
pub fn code(word: &str) -> String {
    find(word).map_or_else(|| word.to_ascii_uppercase(), |flag| flag.code.to_owned())
}

/// Finds a flag by its code or long name, in any case.
pub fn find(text: &str) -> Option<&'static ResponseFlag> {
    FLAGS.iter().find(|flag| flag.code.eq_ignore_ascii_case(text) || flag.name.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
