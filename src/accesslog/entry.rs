//! The fields of an access log line, and what the gRPC-specific ones imply.

#![expect(clippy::indexing_slicing, reason = "audited: the positions come from searches of the same bytes; fuzzed")]

use bumpalo::Bump;

use super::timestamp::parse_epoch_ms;

/// The bytes of a value; `None` if the line has `-`, an empty value, or no such field.
pub type FieldBytes<'a> = Option<&'a [u8]>;

/// One access log line.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AccessEntry<'a> {
    /// Start of the request in milliseconds since 1970.
    pub start_ms: Option<i64>,
    /// HTTP method.
    pub method: FieldBytes<'a>,
    /// Path before rewrites, with its query; for gRPC `/package.Service/Method`.
    pub path: FieldBytes<'a>,
    /// Protocol of the downstream request, such as `HTTP/2`; absent for TCP.
    pub protocol: FieldBytes<'a>,
    /// HTTP status code; 0 if no response started, and for TCP. A gRPC call that fails still has 200.
    pub http_status: Option<u16>,
    /// Response flags.
    pub flags: ResponseFlags<'a>,
    /// Response code details.
    pub details: FieldBytes<'a>,
    /// Connection termination details.
    pub termination: FieldBytes<'a>,
    /// Upstream transport failure reason.
    pub transport_failure: FieldBytes<'a>,
    /// Size of the request body in bytes.
    pub bytes_received: Option<u64>,
    /// Size of the response body in bytes.
    pub bytes_sent: Option<u64>,
    /// Milliseconds from the first byte of the request to the last byte of the response.
    pub duration_ms: Option<u64>,
    /// Milliseconds that the upstream took, with retries.
    pub upstream_time_ms: Option<u64>,
    /// `x-forwarded-for`.
    pub forwarded_for: FieldBytes<'a>,
    /// User agent.
    pub user_agent: FieldBytes<'a>,
    /// Request id; the same on both sides of a call and for every retry.
    pub request_id: FieldBytes<'a>,
    /// Authority, or the Host header.
    pub authority: FieldBytes<'a>,
    /// Address of the endpoint of the last attempt.
    pub upstream_host: FieldBytes<'a>,
    /// Name of the Envoy cluster, such as `outbound|50051|v1|echo.shop.svc.cluster.local`.
    pub upstream_cluster: FieldBytes<'a>,
    /// This proxy's own address on the upstream connection.
    pub upstream_local_address: FieldBytes<'a>,
    /// Destination address of the downstream connection.
    pub downstream_local_address: FieldBytes<'a>,
    /// Source address of the downstream connection.
    pub downstream_remote_address: FieldBytes<'a>,
    /// SNI of the downstream connection.
    pub sni: FieldBytes<'a>,
    /// Name of the route.
    pub route: FieldBytes<'a>,
    /// gRPC status, if the format contains it.
    pub grpc_status: Option<u8>,
    /// Number of upstream attempts, if the format contains it.
    pub attempts: Option<u32>,
    /// Whether text that a client sent allows several readings of the line.
    pub ambiguous: bool,
}

/// Direction of a call, seen from the proxy that wrote the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The caller's proxy wrote it.
    Outbound,
    /// The server's proxy wrote it.
    Inbound,
}

/// Response flags, comma-separated in logged order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseFlags<'a>(pub &'a str);

impl<'a> ResponseFlags<'a> {
    /// Parses `-` or `UH,URX`; `None` for any other text.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let allowed = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b',');
        match text {
            b"-" | b"" => Some(Self::default()),
            text if text[0].is_ascii_uppercase() && text.iter().all(allowed) => {
                std::str::from_utf8(text).ok().map(Self)
            }
            _ => None,
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The short codes in logged order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').filter(|flag| !flag.is_empty())
    }

    /// Whether the set contains a short code.
    pub fn contains(&self, flag: &str) -> bool {
        self.iter().any(|other| other == flag)
    }
}

/// Command operators of Envoy's access log format, by the field that they print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogOperator {
    /// `START_TIME`.
    StartTime,
    /// `REQ(:METHOD)`.
    Method,
    /// `REQ(X-ENVOY-ORIGINAL-PATH?:PATH)` and its variants.
    Path,
    /// `PROTOCOL`.
    Protocol,
    /// `RESPONSE_CODE`.
    ResponseCode,
    /// `RESPONSE_FLAGS`.
    ResponseFlags,
    /// `RESPONSE_FLAGS_LONG`.
    ResponseFlagsLong,
    /// `RESPONSE_CODE_DETAILS`.
    ResponseCodeDetails,
    /// `CONNECTION_TERMINATION_DETAILS`.
    TerminationDetails,
    /// `UPSTREAM_TRANSPORT_FAILURE_REASON`.
    TransportFailure,
    /// `BYTES_RECEIVED`.
    BytesReceived,
    /// `BYTES_SENT`.
    BytesSent,
    /// `DURATION`.
    Duration,
    /// `RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)`.
    UpstreamTime,
    /// `REQ(X-FORWARDED-FOR)`.
    ForwardedFor,
    /// `REQ(USER-AGENT)`.
    UserAgent,
    /// `REQ(X-REQUEST-ID)`.
    RequestId,
    /// `REQ(:AUTHORITY)`.
    Authority,
    /// `UPSTREAM_HOST`.
    UpstreamHost,
    /// `UPSTREAM_CLUSTER` and `UPSTREAM_CLUSTER_RAW`.
    Cluster,
    /// `UPSTREAM_LOCAL_ADDRESS`.
    UpstreamLocal,
    /// `DOWNSTREAM_LOCAL_ADDRESS`.
    DownstreamLocal,
    /// `DOWNSTREAM_REMOTE_ADDRESS`.
    DownstreamRemote,
    /// `REQUESTED_SERVER_NAME`.
    ServerName,
    /// `ROUTE_NAME`.
    RouteName,
    /// `GRPC_STATUS` in any spelling, `GRPC_STATUS_NUMBER`.
    GrpcStatus,
    /// `UPSTREAM_REQUEST_ATTEMPT_COUNT`.
    Attempts,
    /// Any other operator; its value is skipped.
    Unknown,
}

impl<'a> AccessEntry<'a> {
    /// Stores the text that an operator printed; `false` if the operator cannot print it. `arena` holds values that
    /// cannot be borrowed from the line.
    pub(super) fn set(&mut self, operator: LogOperator, text: &'a [u8], arena: &'a Bump) -> bool {
        use LogOperator as O;
        let present = absent_if_dash(text);
        match operator {
            O::StartTime => return store(&mut self.start_ms, present, parse_epoch_ms),
            O::Method => self.method = present,
            O::Path => self.path = present,
            O::Protocol => self.protocol = present,
            O::ResponseCode => {
                return store(&mut self.http_status, present, |text| u16::try_from(parse_number(text)?).ok());
            }
            O::ResponseFlags => {
                let Some(flags) = ResponseFlags::parse(text) else { return false };
                self.flags = flags;
            }
            O::ResponseFlagsLong => {
                let text = present.map(String::from_utf8_lossy).unwrap_or_default();
                let codes = text
                    .split(',')
                    .map(|name| crate::vocabulary::response_flags::find(name).map_or(name, |flag| flag.code));
                self.flags = ResponseFlags(arena.alloc_str(&codes.collect::<Vec<_>>().join(",")));
            }
            O::ResponseCodeDetails => self.details = present,
            O::TerminationDetails => self.termination = present,
            O::TransportFailure => self.transport_failure = present,
            O::BytesReceived => return store(&mut self.bytes_received, present, parse_number),
            O::BytesSent => return store(&mut self.bytes_sent, present, parse_number),
            O::Duration => return store(&mut self.duration_ms, present, parse_number),
            O::UpstreamTime => self.upstream_time_ms = present.and_then(parse_number),
            O::ForwardedFor => self.forwarded_for = present,
            O::UserAgent => self.user_agent = present,
            O::RequestId => self.request_id = present,
            O::Authority => self.authority = present,
            O::UpstreamHost => self.upstream_host = present,
            // Istio 1.23 and 1.24 printed the name that statistics use, which ends with a semicolon.
            O::Cluster => self.upstream_cluster = present.map(|name| name.strip_suffix(b";").unwrap_or(name)),
            O::UpstreamLocal => self.upstream_local_address = present,
            O::DownstreamLocal => self.downstream_local_address = present,
            O::DownstreamRemote => self.downstream_remote_address = present,
            O::ServerName => self.sni = present,
            O::RouteName => self.route = present,
            O::GrpcStatus => {
                self.grpc_status = present.and_then(crate::vocabulary::grpc_status::parse);
                // A server may send a number that is not a gRPC status.
                return self.grpc_status.is_some() || present.is_none_or(|text| text.iter().all(u8::is_ascii_digit));
            }
            O::Attempts => return store(&mut self.attempts, present, |text| u32::try_from(parse_number(text)?).ok()),
            O::Unknown => {}
        }
        true
    }

    /// Stores a number that an operator printed; `false` if the operator does not print numbers of this size.
    pub(super) fn set_number(&mut self, operator: LogOperator, number: u64) -> bool {
        use LogOperator as O;
        match operator {
            O::ResponseCode => match u16::try_from(number) {
                Ok(code) => self.http_status = Some(code),
                Err(_) => return false,
            },
            O::BytesReceived => self.bytes_received = Some(number),
            O::BytesSent => self.bytes_sent = Some(number),
            O::Duration => self.duration_ms = Some(number),
            O::UpstreamTime => self.upstream_time_ms = Some(number),
            _ => return false,
        }
        true
    }

    /// Direction by the cluster's name, or else by the addresses that istiod reserves for inbound traffic; `None` if
    /// neither decides it.
    ///
    /// Source: `pilot/pkg/networking/util` of istio/istio for the names of the passthrough and blackhole clusters and for
    /// 127.0.0.6, ::6 and port 15006.
    pub fn direction(&self) -> Option<Direction> {
        let cluster = self.upstream_cluster.unwrap_or_default();
        // Before Istio 1.22 the name ends in `Ipv4` or `Ipv6`. An inbound listener closes connections to its own port with
        // the cluster that outbound listeners use for unknown destinations.
        let listens_inbound = self.downstream_local_address.is_some_and(|address| address.ends_with(b":15006"));
        if cluster.starts_with(b"inbound|")
            || cluster.starts_with(b"InboundPassthroughCluster")
            || (cluster == b"BlackHoleCluster" && listens_inbound)
        {
            return Some(Direction::Inbound);
        }
        if cluster.starts_with(b"outbound|") || matches!(cluster, b"PassthroughCluster" | b"BlackHoleCluster") {
            return Some(Direction::Outbound);
        }
        let local = self.upstream_local_address.unwrap_or_default();
        if local.starts_with(b"127.0.0.6:") || local.starts_with(b"[::6]:") {
            return Some(Direction::Inbound);
        }
        listens_inbound.then_some(Direction::Inbound)
    }

    /// Port, subset and host in the cluster name `direction|port|subset|host`; `None` for clusters of other names.
    pub fn destination(&self) -> Option<(u16, &str, &str)> {
        let cluster = std::str::from_utf8(self.upstream_cluster?).ok()?;
        let mut parts = cluster.splitn(4, '|').skip(1);
        let port = parts.next()?.parse().ok()?;
        Some((port, parts.next()?, parts.next()?))
    }

    /// Whether the call was for a host, which may lack the cluster domain: `checkout.shop.svc`. Without a cluster, as
    /// with `NC` and `NR`, the authority decides; it may be shorter than the host.
    pub fn is_for_host(&self, host: &str) -> bool {
        let has_host_prefix =
            |long: &str, short| long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if let Some((_, _, other)) = self.destination() {
            return has_host_prefix(other, host);
        }
        let authority = self.authority.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
        !name.is_empty() && (has_host_prefix(host, name) || has_host_prefix(name, host))
    }

    /// Whether this is a gRPC call: by its logged gRPC status, or else by method, protocol, user agent and path, because
    /// Istio's default format does not contain the content type.
    #[inline]
    pub fn is_grpc(&self) -> bool {
        if self.grpc_status.is_some() {
            return true;
        }
        let is = |value: &FieldBytes<'_>, expected: &[u8]| *value == Some(expected);
        let agent = self.user_agent.unwrap_or_default();
        is(&self.method, b"POST")
            && !is(&self.protocol, b"HTTP/1.1")
            && (agent.starts_with(b"grpc-") || self.grpc_method().is_some_and(is_named_like_grpc))
    }

    /// Service and method of a path like `/package.Service/Method`; `None` for other paths.
    pub fn grpc_method(&self) -> Option<(&str, &str)> {
        let path = std::str::from_utf8(self.path?).ok()?.strip_prefix('/')?;
        let (service, method) = path.split_once('/')?;
        let is_identifier =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b));
        (is_identifier(service) && is_identifier(method)).then_some((service, method))
    }
}

/// Distinguishes `/package.Service/Method` from `/api/users`: a capital method, and a package or a capital service.
fn is_named_like_grpc((service, method): (&str, &str)) -> bool {
    let capital = |text: &str| text.starts_with(|c: char| c.is_ascii_uppercase());
    capital(method) && (service.contains('.') || capital(service))
}

/// A value in a text format, which prints `-` or an empty text for an absent one.
pub(super) fn absent_if_dash(text: &[u8]) -> FieldBytes<'_> {
    (!matches!(text, b"-" | b"")).then_some(text)
}

/// Parses a value into `target`; `false` if the value is present and cannot be parsed.
fn store<T>(target: &mut Option<T>, text: FieldBytes<'_>, parse: impl Fn(&[u8]) -> Option<T>) -> bool {
    *target = text.and_then(parse);
    target.is_some() || text.is_none()
}

/// Parses an unsigned decimal number of at most 19 digits.
pub(super) fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0_u64, |total, byte| byte.is_ascii_digit().then(|| total * 10 + u64::from(byte - b'0')))
}
