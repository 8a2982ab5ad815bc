//! Envoy's response code details and transport failure reasons.
//!
//! Sources: `response_code_details.rst`, `envoy/stream_info/stream_info.h` and the strings of Envoy 1.39. The list is
//! declared unstable: texts are matched by their beginning, and unknown ones are shown as they are.

/// One text with its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeDetail {
    /// How it begins.
    pub text: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn detail(text: &'static str, meaning: &'static str) -> CodeDetail {
    CodeDetail { text, meaning }
}

/// The answer came from the other side.
pub const VIA_UPSTREAM: &str = "via_upstream";

/// By beginning; of two that fit the longer one is meant.
pub static DETAILS: &[CodeDetail] = &[
    detail(VIA_UPSTREAM, "the status came from the server, or from the proxy beside it"),
    detail("upstream_reset_before_response_started", "the call broke before the server began to answer"),
    detail("upstream_reset_after_response_started", "the call broke after the server had begun to answer"),
    detail("no_healthy_upstream", "the destination has no healthy endpoint"),
    detail("cluster_not_found", "the route's cluster does not exist for this caller"),
    detail("route_not_found", "no route matched"),
    detail("route_configuration_not_found", "the routes never arrived"),
    detail(
        "filter_chain_not_found",
        "the connection fits no filter chain: plain text to a strict server, or a wrong SNI",
    ),
    detail("response_timeout", "the route's timeout, or the client's deadline, passed"),
    detail("upstream_per_try_timeout", "one try's time limit passed"),
    detail("upstream_per_try_idle_timeout", "one try was idle too long"),
    detail("upstream_max_stream_duration_reached", "the cluster's longest stream duration"),
    detail("max_duration_timeout", "the longest duration of a stream, or the client's deadline kept by the proxy"),
    detail("stream_idle_timeout", "no byte moved for the idle timeout"),
    detail("request_overall_timeout", "the request was not complete in time"),
    detail("request_header_timeout", "the request's headers were not complete in time"),
    detail("health_check_failed", "this proxy was told to fail its health check"),
    detail("health_check_ok", "this proxy answered a health check"),
    detail("downstream_remote_disconnect", "the caller closed its connection"),
    detail("downstream_local_disconnect", "this proxy closed the caller's connection"),
    detail("http2.remote_reset", "the caller reset the stream: a cancel or a deadline"),
    detail("http2.remote_refuse", "the caller refused the stream"),
    detail("http2.too_many_headers", "more headers than allowed; the proxy reset the stream itself"),
    detail("http2.", "the caller broke the rules of HTTP/2"),
    detail("http1.", "the caller broke the rules of HTTP/1"),
    detail("http.invalid_authority", "the authority has characters that it may not have"),
    detail("low_version", "HTTP/1.0 is not allowed"),
    detail("missing_host_header", "the request has no host"),
    detail(
        "rbac_access_denied_matched_policy",
        "an AuthorizationPolicy denied it; in brackets which, or none when no ALLOW fits",
    ),
    detail("ext_authz_denied", "external authorization said no"),
    detail("ext_authz_error", "external authorization could not be asked"),
    detail("jwt_authn_access_denied", "the token is missing or invalid"),
    detail("local_rate_limited", "this proxy's own rate limit"),
    detail("request_rate_limited", "the rate-limit service said no"),
    detail("rate_limiter_error", "the rate-limit service could not be asked"),
    detail("fault_filter_abort", "a fault rule ended the call on purpose"),
    detail(
        "direct_response",
        "the route answers itself: a redirect, a fixed answer, or an unknown host that is blocked",
    ),
    detail("request_headers_failed_strict_check", "an x-envoy- header is invalid"),
    detail("request_payload_too_large", "the request's body is too large to be buffered"),
    detail("upgrade_failed", "the protocol upgrade is not allowed"),
    detail("overload", "this proxy refuses calls because it runs out of resources"),
    detail("drop_overload", "a share of the calls is dropped by order of the control plane"),
    detail("unconditional_drop_overload", "all calls are dropped by order of the control plane"),
    detail("dns_resolution_failure", "the name could not be resolved"),
    detail("cache.response_from_cache_filter", "the answer came from the proxy's cache"),
];

/// Reasons inside the braces of a broken call, and of failed connections.
pub static REASONS: &[CodeDetail] = &[
    detail("connection_timeout", "the connection was not made in time"),
    detail("remote_connection_failure", "the connection was refused or broke while it was made"),
    detail("connection_termination", "the server's side closed the connection"),
    detail("local_connection_failure", "this proxy could not make the connection"),
    detail("local_reset", "this proxy reset the stream"),
    detail("HTTP/1_premature_upstream_half_close", "the server answered before the request was complete"),
    detail("remote_reset", "the server reset the stream"),
    detail("remote_refused_stream_reset", "the server refused the stream, as it does while it shuts down"),
    detail("protocol_error", "the server's bytes are not of the protocol that was spoken"),
    detail("overflow", "a limit of the connection pool"),
    detail("delayed_connect_error:_Connection_refused", "nothing listens on that port"),
    detail("delayed_connect_error:_111", "nothing listens on that port"),
];

/// The entry whose text a value begins with, the longest first.
pub fn find(table: &'static [CodeDetail], value: &str) -> Option<&'static CodeDetail> {
    table.iter().filter(|detail| value.starts_with(detail.text)).max_by_key(|detail| detail.text.len())
}

/// What a transport failure reason says.
pub fn transport(value: &str) -> Option<&'static str> {
    let has = |word: &str| value.contains(word);
    if has("WRONG_VERSION_NUMBER") || has("UNSUPPORTED_PROTOCOL") {
        return Some("TLS was spoken to a port that speaks plain text");
    }
    if has("CERTIFICATE_VERIFY_FAILED") {
        return Some(if has("SAN_matcher") {
            "the server's certificate has another identity than expected"
        } else if has("has_expired") {
            "the server's certificate has expired"
        } else {
            "the server's certificate is of an authority that is not trusted here"
        });
    }
    if has("HANDSHAKE_FAILURE") || has("CERTIFICATE_REQUIRED") {
        return Some("the server wants a client certificate");
    }
    if has("TLS_error") {
        return Some("the TLS handshake failed");
    }
    find(REASONS, value).map(|reason| reason.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_beginning_wins() {
        assert_eq!(find(DETAILS, "http2.too_many_headers").unwrap().text, "http2.too_many_headers");
        assert_eq!(find(DETAILS, "http2.invalid.header.field").unwrap().text, "http2.");
        assert_eq!(find(DETAILS, "new_in_the_next_version"), None);
    }
}
