//! Envoy's response code details and transport failure reasons.
//!
//! Sources: `response_code_details.rst`, `envoy/stream_info/stream_info.h` and the strings of Envoy 1.39. Envoy
//! declares the list unstable, so values are matched by prefix and unknown values are printed unchanged.

/// A known value, or the prefix of several values, with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeDetail {
    pub prefix: &'static str,
    pub meaning: &'static str,
}

const fn detail(prefix: &'static str, meaning: &'static str) -> CodeDetail {
    CodeDetail { prefix, meaning }
}

/// The response came from upstream: this proxy only forwarded it.
pub const VIA_UPSTREAM: &str = "via_upstream";

/// Response code details. When several prefixes match a value, the longest applies.
pub static DETAILS: &[CodeDetail] = &[
    detail(VIA_UPSTREAM, "the response came from the server or from its sidecar"),
    detail("upstream_reset_before_response_started", "the stream was reset before the server started to respond"),
    detail("upstream_reset_after_response_started", "the stream was reset after the server had started to respond"),
    detail("no_healthy_upstream", "the destination has no healthy endpoint"),
    detail("cluster_not_found", "the route's cluster does not exist for this caller"),
    detail("route_not_found", "no route matched"),
    detail("route_configuration_not_found", "the proxy has not received its route configuration"),
    detail(
        "filter_chain_not_found",
        "no filter chain matches the connection: plaintext to a server with STRICT mTLS, or an unexpected SNI",
    ),
    detail("response_timeout", "the route timeout or the caller's deadline expired"),
    detail("upstream_per_try_timeout", "one attempt exceeded the per-try timeout"),
    detail("upstream_per_try_idle_timeout", "one attempt exceeded the per-try idle timeout"),
    detail("upstream_max_stream_duration_reached", "the stream reached the cluster's maximum stream duration"),
    detail(
        "max_duration_timeout",
        "the stream reached its maximum duration, or the proxy enforced the caller's deadline",
    ),
    detail("stream_idle_timeout", "the stream was idle for the whole idle timeout"),
    detail("request_overall_timeout", "the request was not complete within the request timeout"),
    detail("request_header_timeout", "the request headers were not complete within the header timeout"),
    detail("health_check_failed", "an admin call made this proxy fail its health check"),
    detail("health_check_ok", "this proxy answered a health check"),
    detail("downstream_remote_disconnect", "the caller closed its connection"),
    detail("downstream_local_disconnect", "this proxy closed the caller's connection"),
    detail("http2.remote_reset", "the caller reset the stream: it cancelled the call or its deadline expired"),
    detail("http2.remote_refuse", "the caller rejected the stream"),
    detail("http2.too_many_headers", "the request has more headers than allowed; this proxy reset the stream"),
    detail("http2.", "the caller violated the HTTP/2 protocol"),
    detail("http1.", "the caller violated the HTTP/1 protocol"),
    detail("http.invalid_authority", "the authority contains invalid characters"),
    detail("low_version", "HTTP/1.0 is not allowed"),
    detail("missing_host_header", "the request has no Host header"),
    detail(
        "rbac_access_denied_matched_policy",
        "an AuthorizationPolicy denied the call; the brackets name it, or say none when no ALLOW rule matches",
    ),
    detail("ext_authz_denied", "the external authorization service denied the call"),
    detail("ext_authz_error", "the external authorization service could not be reached"),
    detail("jwt_authn_access_denied", "the token is missing or invalid"),
    detail("local_rate_limited", "this proxy's local rate limit was exceeded"),
    detail("request_rate_limited", "the rate limit service rejected the call"),
    detail("rate_limiter_error", "the rate limit service could not be reached"),
    detail("fault_filter_abort", "fault injection aborted the call"),
    detail("direct_response", "the route responds directly: a redirect, a fixed response, or a blocked unknown host"),
    detail("request_headers_failed_strict_check", "an x-envoy-* header has an invalid value"),
    detail("request_payload_too_large", "the request body exceeds the buffer limit"),
    detail("upgrade_failed", "the protocol upgrade is not allowed"),
    detail("overload", "this proxy rejects calls because it is overloaded"),
    detail("drop_overload", "the control plane instructs the proxy to drop a share of the calls"),
    detail("unconditional_drop_overload", "the control plane instructs the proxy to drop all calls"),
    detail("dns_resolution_failure", "the upstream host name could not be resolved"),
    detail("cache.response_from_cache_filter", "the response came from this proxy's cache"),
];

/// Reasons for stream resets (the part in braces of `upstream_reset_…{reason}`) and for failed connections.
pub static REASONS: &[CodeDetail] = &[
    detail("connection_timeout", "the connect timeout expired"),
    detail("remote_connection_failure", "the connection was refused or closed during setup"),
    detail("connection_termination", "the server's side closed the connection"),
    detail("local_connection_failure", "this proxy could not open the connection"),
    detail("local_reset", "this proxy reset the stream"),
    detail("HTTP/1_premature_upstream_half_close", "the server responded before the request was complete"),
    detail("remote_reset", "the server reset the stream"),
    detail("remote_refused_stream_reset", "the server rejected the stream, as it does during shutdown"),
    detail("protocol_error", "the server's bytes do not match the upstream protocol"),
    detail("overflow", "a connection pool limit was reached"),
    detail("delayed_connect_error:_Connection_refused", "no process listens on that port"),
    detail("delayed_connect_error:_111", "no process listens on that port"),
];

/// The entry with the longest prefix of `value`.
pub fn find_by_prefix(table: &'static [CodeDetail], value: &str) -> Option<&'static CodeDetail> {
    table.iter().filter(|detail| value.starts_with(detail.prefix)).max_by_key(|detail| detail.prefix.len())
}

/// Meaning of an upstream transport failure reason; `None` when it is not a known one.
pub fn transport_failure_meaning(value: &str) -> Option<&'static str> {
    let contains = |text: &str| value.contains(text);
    if contains("WRONG_VERSION_NUMBER") || contains("UNSUPPORTED_PROTOCOL") {
        return Some("the caller's proxy used TLS and the port speaks plaintext");
    }
    if contains("CERTIFICATE_VERIFY_FAILED") {
        return Some(if contains("SAN_matcher") {
            "the server's certificate does not have the expected identity"
        } else if contains("has_expired") {
            "the server's certificate has expired"
        } else {
            "the server's certificate is signed by an authority that the caller does not trust"
        });
    }
    if contains("HANDSHAKE_FAILURE") || contains("CERTIFICATE_REQUIRED") {
        return Some("the server requires a client certificate");
    }
    if contains("TLS_error") {
        return Some("the TLS handshake failed");
    }
    find_by_prefix(REASONS, value).map(|reason| reason.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_the_longest_matching_prefix() {
        assert_eq!(find_by_prefix(DETAILS, "http2.too_many_headers").unwrap().prefix, "http2.too_many_headers");
        assert_eq!(find_by_prefix(DETAILS, "http2.invalid.header.field").unwrap().prefix, "http2.");
        assert_eq!(find_by_prefix(DETAILS, "new_in_the_next_version"), None);
    }
}
