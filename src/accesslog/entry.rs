//! The fields of an access line.

use bumpalo::Bump;

use super::timestamp::millis;

/// A value as it was written; absent is `None`.
pub type FieldBytes<'a> = Option<&'a [u8]>;

/// One access line.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AccessEntry<'a> {
    /// Start in milliseconds since 1970.
    pub start: Option<i64>,
    /// Method.
    pub method: FieldBytes<'a>,
    /// Path before a rewrite, with its query; for gRPC `/package.Service/Method`.
    pub path: FieldBytes<'a>,
    /// Protocol of the caller, such as `HTTP/2`; absent for TCP.
    pub protocol: FieldBytes<'a>,
    /// HTTP status; 0 when no response began, and for TCP. A failed gRPC call has 200.
    pub code: Option<u16>,
    /// Response flags.
    pub flags: ResponseFlags<'a>,
    /// Response code details.
    pub details: FieldBytes<'a>,
    /// Why the connection ended.
    pub termination: FieldBytes<'a>,
    /// Why the connection to the upstream failed.
    pub transport_failure: FieldBytes<'a>,
    /// Bytes of the request's body.
    pub bytes_received: Option<u64>,
    /// Bytes of the response's body.
    pub bytes_sent: Option<u64>,
    /// Milliseconds from the first byte in to the last byte out.
    pub duration: Option<u64>,
    /// Milliseconds that the upstream took, retries included.
    pub upstream_time: Option<u64>,
    /// `x-forwarded-for`.
    pub forwarded_for: FieldBytes<'a>,
    /// User agent.
    pub user_agent: FieldBytes<'a>,
    /// Request id: the same on both sides of a call and for every retry.
    pub request_id: FieldBytes<'a>,
    /// Authority.
    pub authority: FieldBytes<'a>,
    /// Address of the endpoint that was tried last.
    pub upstream_host: FieldBytes<'a>,
    /// Cluster, such as `outbound|50051|v1|echo.shop.svc.cluster.local`.
    pub cluster: FieldBytes<'a>,
    /// This proxy's address toward the upstream.
    pub upstream_local: FieldBytes<'a>,
    /// The address that the caller dialled.
    pub downstream_local: FieldBytes<'a>,
    /// The caller's address.
    pub downstream_remote: FieldBytes<'a>,
    /// SNI of the caller.
    pub sni: FieldBytes<'a>,
    /// Name of the route.
    pub route: FieldBytes<'a>,
    /// gRPC status, where the format has it.
    pub grpc_status: Option<u8>,
    /// Tries, where the format has them.
    pub attempts: Option<u32>,
    /// Whether text that a client sent made the line readable in several ways.
    pub ambiguous: bool,
}

/// Whose proxy wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The caller's.
    Outbound,
    /// The server's.
    Inbound,
}

/// Response flags: a set, printed in the order in which they were raised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseFlags<'a>(pub &'a str);

impl<'a> ResponseFlags<'a> {
    /// Reads `-` or `UH,URX`; `None` for anything else.
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

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The flags one by one.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').filter(|flag| !flag.is_empty())
    }

    /// Whether a flag is among them.
    pub fn has(&self, flag: &str) -> bool {
        self.iter().any(|one| one == flag)
    }
}

/// Envoy's operators that are understood, by what they tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogOperator {
    /// `START_TIME`.
    StartTime,
    /// `REQ(:METHOD)`.
    Method,
    /// `REQ(X-ENVOY-ORIGINAL-PATH?:PATH)` and its kin.
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
    /// Anything else: read past.
    Unknown,
}

impl<'a> AccessEntry<'a> {
    /// Sets what an operator printed; `false` when no such operator prints that. What is made of several pieces is kept in
    /// `arena`.
    pub(super) fn set(&mut self, operator: LogOperator, text: &'a [u8], arena: &'a Bump) -> bool {
        use LogOperator as O;
        let present = value(text);
        match operator {
            O::StartTime => return store(&mut self.start, present, millis),
            O::Method => self.method = present,
            O::Path => self.path = present,
            O::Protocol => self.protocol = present,
            O::ResponseCode => return store(&mut self.code, present, |text| u16::try_from(number(text)?).ok()),
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
            O::BytesReceived => return store(&mut self.bytes_received, present, number),
            O::BytesSent => return store(&mut self.bytes_sent, present, number),
            O::Duration => return store(&mut self.duration, present, number),
            O::UpstreamTime => self.upstream_time = present.and_then(number),
            O::ForwardedFor => self.forwarded_for = present,
            O::UserAgent => self.user_agent = present,
            O::RequestId => self.request_id = present,
            O::Authority => self.authority = present,
            O::UpstreamHost => self.upstream_host = present,
            // Istio 1.23 and 1.24 printed the name for statistics, which ends in a semicolon.
            O::Cluster => self.cluster = present.map(|name| name.strip_suffix(b";").unwrap_or(name)),
            O::UpstreamLocal => self.upstream_local = present,
            O::DownstreamLocal => self.downstream_local = present,
            O::DownstreamRemote => self.downstream_remote = present,
            O::ServerName => self.sni = present,
            O::RouteName => self.route = present,
            O::GrpcStatus => {
                self.grpc_status = present.and_then(crate::vocabulary::grpc_status::parse);
                // A server may send a number that is no status.
                return self.grpc_status.is_some() || present.is_none_or(|text| text.iter().all(u8::is_ascii_digit));
            }
            O::Attempts => return store(&mut self.attempts, present, |text| u32::try_from(number(text)?).ok()),
            O::Unknown => {}
        }
        true
    }

    /// Sets what an operator printed as a number; `false` when it is not one that does.
    pub(super) fn set_number(&mut self, operator: LogOperator, number: u64) -> bool {
        use LogOperator as O;
        match operator {
            O::ResponseCode => match u16::try_from(number) {
                Ok(code) => self.code = Some(code),
                Err(_) => return false,
            },
            O::BytesReceived => self.bytes_received = Some(number),
            O::BytesSent => self.bytes_sent = Some(number),
            O::Duration => self.duration = Some(number),
            O::UpstreamTime => self.upstream_time = Some(number),
            _ => return false,
        }
        true
    }

    /// Whose proxy wrote the line, by the cluster, else by the address toward the upstream.
    pub fn direction(&self) -> Option<Direction> {
        let cluster = self.cluster.unwrap_or_default();
        if cluster.starts_with(b"inbound|") || cluster == b"InboundPassthroughCluster" {
            return Some(Direction::Inbound);
        }
        if cluster.starts_with(b"outbound|") || matches!(cluster, b"PassthroughCluster" | b"BlackHoleCluster") {
            return Some(Direction::Outbound);
        }
        let local = self.upstream_local.unwrap_or_default();
        if local.starts_with(b"127.0.0.6:") || local.starts_with(b"[::6]:") {
            return Some(Direction::Inbound);
        }
        let dialled = self.downstream_local.unwrap_or_default();
        dialled.ends_with(b":15006").then_some(Direction::Inbound)
    }

    /// Port, subset and host of the cluster's name.
    pub fn destination(&self) -> Option<(u16, &str, &str)> {
        let cluster = std::str::from_utf8(self.cluster?).ok()?;
        let mut parts = cluster.splitn(4, '|').skip(1);
        let port = parts.next()?.parse().ok()?;
        Some((port, parts.next()?, parts.next()?))
    }

    /// Whether the call was meant for a host, which may be without the cluster's domain: `checkout.shop.svc`. Where no
    /// cluster was chosen, as with `NC` and `NR`, the authority tells; it may be shorter than the host.
    pub fn goes_to(&self, host: &str) -> bool {
        let begins =
            |long: &str, short| long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if let Some((_, _, other)) = self.destination() {
            return begins(other, host);
        }
        let authority = self.authority.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
        !name.is_empty() && (begins(host, name) || begins(name, host))
    }

    /// Whether it looks like a gRPC call. The default format does not say so.
    #[inline]
    pub fn is_grpc(&self) -> bool {
        if self.grpc_status.is_some() {
            return true;
        }
        let is = |value: &FieldBytes<'_>, wanted: &[u8]| *value == Some(wanted);
        let agent = self.user_agent.unwrap_or_default();
        is(&self.method, b"POST")
            && !is(&self.protocol, b"HTTP/1.1")
            && (agent.starts_with(b"grpc-") || self.grpc_method().is_some_and(is_named_like_grpc))
    }

    /// Service and method of a gRPC path.
    pub fn grpc_method(&self) -> Option<(&str, &str)> {
        let path = std::str::from_utf8(self.path?).ok()?.strip_prefix('/')?;
        let (service, method) = path.split_once('/')?;
        let word =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b));
        (word(service) && word(method)).then_some((service, method))
    }
}

/// Whether a path's two parts look like a service and a method, and not like `/api/users`: a package, or capitals.
fn is_named_like_grpc((service, method): (&str, &str)) -> bool {
    let capital = |text: &str| text.starts_with(|c: char| c.is_ascii_uppercase());
    capital(method) && (service.contains('.') || capital(service))
}

/// A value in a text format, where `-` and nothing are both "absent".
pub(super) fn value(text: &[u8]) -> FieldBytes<'_> {
    (!matches!(text, b"-" | b"")).then_some(text)
}

/// Stores what a text says; `false` when it is there and says nothing.
fn store<T>(place: &mut Option<T>, text: FieldBytes<'_>, read: impl Fn(&[u8]) -> Option<T>) -> bool {
    *place = text.and_then(read);
    place.is_some() || text.is_none()
}

/// A whole number.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0_u64, |total, byte| byte.is_ascii_digit().then(|| total * 10 + u64::from(byte - b'0')))
}
