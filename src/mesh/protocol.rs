//! Protocol selection: the protocol that Istio uses for a port, and the field that determines it.
//!
//! Source: `pkg/config/kube/conversion.go` (`ConvertProtocol`) and `pkg/config/protocol/instance.go` (`Parse`) of
//! istio/istio 1.31. The rules are stricter than they seem: only the text before the first `-` of a
//! port name counts, an unknown `appProtocol` still hides the port name, and Istio never combines the two.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// Protocol of a port, as Istio classifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "UPPERCASE")]
#[strum(serialize_all = "UPPERCASE")]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    #[serde(rename = "GRPC-Web")]
    #[strum(to_string = "GRPC-Web")]
    GrpcWeb,
    /// HTTP; HTTP/1.1 to the server.
    Http,
    /// HTTP proxy requests.
    #[serde(rename = "HTTP_PROXY")]
    #[strum(to_string = "HTTP_PROXY")]
    HttpProxy,
    /// HTTP/2.
    Http2,
    /// HTTPS, which Istio routes by SNI.
    Https,
    /// TLS, which Istio routes by SNI.
    Tls,
    /// TCP.
    Tcp,
    /// MongoDB.
    #[serde(rename = "Mongo")]
    #[strum(to_string = "Mongo")]
    Mongo,
    /// Redis.
    #[serde(rename = "Redis")]
    #[strum(to_string = "Redis")]
    Redis,
    /// MySQL.
    #[serde(rename = "MySQL")]
    #[strum(to_string = "MySQL")]
    MySql,
    /// UDP, for which istiod creates no listener.
    Udp,
    /// Undeclared: Envoy detects it from the first bytes of each connection.
    #[serde(rename = "Auto")]
    #[strum(to_string = "Auto")]
    Auto,
}

/// Kind of listener that istiod creates for a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolFamily {
    /// HTTP: Envoy routes and balances each call.
    Http,
    /// HTTP if Envoy detects it, else TCP.
    Auto,
    /// TCP: Envoy balances connections.
    Tcp,
    /// No listener.
    NoListener,
}

impl Protocol {
    /// The protocol's name in Istio, as in JSON output. `Auto` stands for Istio's `UnsupportedProtocol`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The common name, as in tables: `gRPC`, `HTTP/2`, `auto-detect`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::GrpcWeb => "gRPC-Web",
            Self::Http2 => "HTTP/2",
            Self::Auto => "auto-detect",
            other => other.as_str(),
        }
    }

    /// The listener kind. Redis and MySQL count as TCP, because istiod disables their filters by default.
    /// Source: `pilot/pkg/networking/networking.go`.
    pub fn family(self) -> ProtocolFamily {
        match self {
            Self::Grpc | Self::GrpcWeb | Self::Http | Self::HttpProxy | Self::Http2 => ProtocolFamily::Http,
            Self::Auto => ProtocolFamily::Auto,
            Self::Https | Self::Tls | Self::Tcp | Self::Mongo | Self::Redis | Self::MySql => ProtocolFamily::Tcp,
            Self::Udp => ProtocolFamily::NoListener,
        }
    }

    /// Whether Envoy always uses HTTP/2 to the server.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb | Self::Http2)
    }

    /// Whether the protocol is gRPC or gRPC-Web.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// Whether HTTP routes can apply: the protocol is of the HTTP family or detected.
    pub fn is_http_or_auto(self) -> bool {
        matches!(self.family(), ProtocolFamily::Http | ProtocolFamily::Auto)
    }

    /// Parses the `protocol` of a ServiceEntry, Sidecar or Gateway port. The whole text must match; case is ignored.
    pub fn parse(text: &str) -> Option<Self> {
        const NAMES: [(&str, Protocol); 12] = [
            ("tcp", Protocol::Tcp),
            ("udp", Protocol::Udp),
            ("grpc", Protocol::Grpc),
            ("grpc-web", Protocol::GrpcWeb),
            ("http", Protocol::Http),
            ("http_proxy", Protocol::HttpProxy),
            ("http2", Protocol::Http2),
            ("https", Protocol::Https),
            ("tls", Protocol::Tls),
            ("mongo", Protocol::Mongo),
            ("redis", Protocol::Redis),
            ("mysql", Protocol::MySql),
        ];
        NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, protocol)| *protocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// The field that determines the protocol of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecidedBy {
    /// The transport protocol is UDP, which takes precedence over every other field.
    L4Udp,
    /// `appProtocol`.
    AppProtocol(Arc<str>),
    /// An `appProtocol` that Istio does not know. It hides the port name.
    UnknownAppProtocol {
        /// The written value, which may be empty.
        value: Arc<str>,
        /// The protocol that the hidden port name declares.
        hidden: Option<Protocol>,
    },
    /// The port name.
    PortName(Arc<str>),
    /// A port name that declares no protocol.
    UnknownName(Arc<str>),
    /// Neither a port name nor an `appProtocol`.
    NoName,
    /// No field declares a protocol, and the port number is 25, 53, 3306 or 27017.
    WellKnownPort(u16),
    /// The `protocol` of a ServiceEntry port.
    EntryProtocol(Arc<str>),
    /// A `protocol` of a ServiceEntry port that Istio does not know.
    UnknownEntryProtocol(Arc<str>),
    /// A ServiceEntry port without a `protocol`.
    NoEntryProtocol,
}

impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::L4Udp => f.write_str("protocol UDP"),
            Self::AppProtocol(value) => write!(f, "appProtocol \"{value}\""),
            Self::UnknownAppProtocol { value, hidden: Some(_) } => {
                write!(f, "appProtocol \"{value}\" (unknown; hides the port name)")
            }
            Self::UnknownAppProtocol { value, hidden: None } => write!(f, "appProtocol \"{value}\" (unknown)"),
            Self::PortName(name) => write!(f, "port name \"{name}\""),
            Self::UnknownName(_) => f.write_str("default: unknown port name"),
            Self::NoName => f.write_str("default: no port name"),
            Self::WellKnownPort(number) => write!(f, "port number {number}"),
            Self::EntryProtocol(value) => write!(f, "protocol \"{value}\""),
            Self::UnknownEntryProtocol(value) => write!(f, "default: unknown protocol \"{value}\""),
            Self::NoEntryProtocol => f.write_str("default: no protocol"),
        }
    }
}

/// Determines the protocol of a Kubernetes Service port.
///
/// `l4` is the transport protocol of the port, `name` its name, and `port` its number.
///
/// ```
/// use grpcmesh::mesh::protocol::{decide, Protocol};
/// assert_eq!(decide("TCP", None, Some("grpc-api"), 50051).0, Protocol::Grpc);
/// assert_eq!(decide("TCP", Some("h2"), Some("grpc-api"), 50051).0, Protocol::Auto);
/// ```
pub fn decide(l4: &str, app_protocol: Option<&str>, name: Option<&str>, port: u16) -> (Protocol, DecidedBy) {
    if l4.eq_ignore_ascii_case("UDP") {
        return (Protocol::Udp, DecidedBy::L4Udp);
    }
    let by_name = name.and_then(parse_text);
    let declared = match app_protocol {
        Some(value) => parse_app_protocol(value).map(|protocol| (protocol, DecidedBy::AppProtocol(value.into()))),
        None => by_name.map(|protocol| (protocol, DecidedBy::PortName(name.unwrap_or_default().into()))),
    };
    if let Some(declared) = declared {
        return declared;
    }
    // Detection would block server-first protocols, so Istio treats their well-known ports as TCP.
    if matches!(port, 25 | 53 | 3306 | 27017) {
        return (Protocol::Tcp, DecidedBy::WellKnownPort(port));
    }
    let decided_by = match (app_protocol, name) {
        (Some(value), _) => DecidedBy::UnknownAppProtocol { value: value.into(), hidden: by_name },
        (None, Some(name)) if !name.is_empty() => DecidedBy::UnknownName(name.into()),
        (None, _) => DecidedBy::NoName,
    };
    (Protocol::Auto, decided_by)
}

/// Parses an `appProtocol`: one of the three standard Kubernetes values, else the syntax of a port name.
pub fn parse_app_protocol(value: &str) -> Option<Protocol> {
    match value {
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http),
        "kubernetes.io/wss" => Some(Protocol::Https),
        other => parse_text(other),
    }
}

/// Parses a port name: the text before the first `-`, except that any name starting with `grpc-web` is gRPC-Web.
fn parse_text(text: &str) -> Option<Protocol> {
    const GRPC_WEB: &str = "grpc-web";
    if text.get(..GRPC_WEB.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC_WEB)) {
        return Some(Protocol::GrpcWeb);
    }
    let prefix = text.split('-').next().unwrap_or(text);
    Protocol::parse(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Istio's `pkg/config/kube/conversion_test.go`, then further ones.
    #[test]
    fn determines_the_protocol_as_istio_does() {
        use Protocol::{Auto, Grpc, GrpcWeb, Http, Http2, Https, Mongo, MySql, Redis, Tcp, Tls, Udp};
        for (port, name, app_protocol, l4, expected) in [
            (8888, "", None, "TCP", Auto),
            (25, "", None, "TCP", Tcp),
            (53, "", None, "TCP", Tcp),
            (3306, "", None, "TCP", Tcp),
            (27017, "", None, "TCP", Tcp),
            (8888, "http", None, "TCP", Http),
            (8888, "http-test", None, "TCP", Http),
            (8888, "http", None, "UDP", Udp),
            (8888, "httptest", None, "TCP", Auto),
            (25, "httptest", None, "TCP", Tcp),
            (53, "httptest", None, "TCP", Tcp),
            (8888, "HTTP-TEST", None, "TCP", Http),
            (8888, "ZooKeeper", None, "TCP", Auto),
            (8888, "HTTPS", None, "TCP", Https),
            (8888, "hTTpS-test", None, "TCP", Https),
            (8888, "http2", None, "TCP", Http2),
            (8888, "http2-test", None, "TCP", Http2),
            (8888, "grpc", None, "TCP", Grpc),
            (8888, "grpc-test", None, "TCP", Grpc),
            (8888, "grpc-web", None, "TCP", GrpcWeb),
            (8888, "grpc-web-test", None, "TCP", GrpcWeb),
            (8888, "mongo", None, "TCP", Mongo),
            (8888, "mongo-test", None, "TCP", Mongo),
            (8888, "redis", None, "TCP", Redis),
            (8888, "redis-test", None, "TCP", Redis),
            (8888, "mysql", None, "TCP", MySql),
            (8888, "mysql-test", None, "TCP", MySql),
            (8888, "http", Some("test"), "TCP", Auto),
            (8888, "test", Some("http"), "TCP", Http),
            (8888, "", Some("kubernetes.io/h2c"), "TCP", Http2),
            (8888, "", Some("kubernetes.io/ws"), "TCP", Http),
            (8888, "", Some("kubernetes.io/wss"), "TCP", Https),
            (8888, "", Some("http2"), "TCP", Http2),
            (8888, "tls", None, "TCP", Tls),
            (8888, "udp", None, "TCP", Udp),
            // Other separators than `-`, unknown values, and the case of the standard Kubernetes values.
            (50051, "grpc_api", None, "TCP", Auto),
            (50051, "grpc.api", None, "TCP", Auto),
            (50051, "web-grpc", None, "TCP", Auto),
            (50051, "grpc-website", None, "TCP", GrpcWeb),
            (50051, "GRPC-Websocket", None, "TCP", GrpcWeb),
            (50051, "grpc", Some("h2"), "TCP", Auto),
            (50051, "grpc", Some("h2c"), "TCP", Auto),
            (50051, "grpc", Some(""), "TCP", Auto),
            (50051, "grpc", Some("kubernetes.io/H2C"), "TCP", Auto),
            (50051, "tcp", Some("grpc"), "TCP", Grpc),
            (50051, "tcp", Some("grpc-foo"), "TCP", Grpc),
            (50051, "tcp", Some("GRPC"), "TCP", Grpc),
            (3306, "grpc", None, "TCP", Grpc),
            (3306, "grpc", Some("h2"), "TCP", Tcp),
            (50051, "grpc", None, "SCTP", Grpc),
            (50051, "grpc", Some("grpc"), "UDP", Udp),
        ] {
            let optional_name = (!name.is_empty()).then_some(name);
            assert_eq!(decide(l4, app_protocol, optional_name, port).0, expected, "{name} {app_protocol:?} {port}");
        }
    }

    #[test]
    fn names_the_field_that_determines_the_protocol() {
        for (name, app_protocol, port, expected) in [
            (Some("grpc-api"), None, 1, "port name \"grpc-api\""),
            (Some("x"), Some("grpc"), 1, "appProtocol \"grpc\""),
            (Some("grpc"), Some("h2"), 1, "appProtocol \"h2\" (unknown; hides the port name)"),
            (Some("x"), Some("h2"), 1, "appProtocol \"h2\" (unknown)"),
            (Some("api-port"), None, 1, "default: unknown port name"),
            (None, None, 1, "default: no port name"),
            (None, None, 3306, "port number 3306"),
        ] {
            assert_eq!(decide("TCP", app_protocol, name, port).1.to_string(), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn accepts_any_text(name in "\\PC{0,20}", app in proptest::option::of("\\PC{0,20}"), port: u16) {
            let _ = decide("TCP", app.as_deref(), Some(&name), port);
        }
    }
}
