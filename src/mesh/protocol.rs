//! Which protocol Istio takes a port for, and who decided it.
//!
//! Source: `pkg/config/kube/conversion.go` (`ConvertProtocol`) and `pkg/config/protocol/instance.go` (`Parse`) of
//! istio/istio 1.31. The rules are narrower than people think: only the text before the first `-` counts, an
//! `appProtocol` that means nothing still hides the port name, and the two are never combined.

use std::fmt;
use std::sync::Arc;

/// A protocol in Istio's sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// HTTP/1.1 upstream.
    Http,
    /// HTTP proxy requests.
    HttpProxy,
    /// HTTP/2.
    Http2,
    /// TLS that is routed by SNI.
    Https,
    /// TLS that is routed by SNI.
    Tls,
    /// Opaque bytes.
    Tcp,
    /// MongoDB.
    Mongo,
    /// Redis.
    Redis,
    /// MySQL.
    MySql,
    /// No listener at all.
    Udp,
    /// Detected from the first bytes of each connection.
    Auto,
}

/// What kind of listener a protocol gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolFamily {
    /// Calls are seen one by one.
    Http,
    /// HTTP if the first bytes look like it.
    Auto,
    /// Connections only.
    Tcp,
    /// None.
    Nothing,
}

impl Protocol {
    /// Istio's own word for it; `Auto` where Istio says `UnsupportedProtocol`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Http => "HTTP",
            Self::HttpProxy => "HTTP_PROXY",
            Self::Http2 => "HTTP2",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Mongo => "Mongo",
            Self::Redis => "Redis",
            Self::MySql => "MySQL",
            Self::Udp => "UDP",
            Self::Auto => "Auto",
        }
    }

    /// How people call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::GrpcWeb => "gRPC-Web",
            Self::Http2 => "HTTP/2",
            Self::Auto => "auto-detect",
            other => other.as_str(),
        }
    }

    /// The listener class. Redis and MySQL filters are off by default, so they are bytes.
    /// Source: `pilot/pkg/networking/networking.go`.
    pub fn family(self) -> ProtocolFamily {
        match self {
            Self::Grpc | Self::GrpcWeb | Self::Http | Self::HttpProxy | Self::Http2 => ProtocolFamily::Http,
            Self::Auto => ProtocolFamily::Auto,
            Self::Https | Self::Tls | Self::Tcp | Self::Mongo | Self::Redis | Self::MySql => ProtocolFamily::Tcp,
            Self::Udp => ProtocolFamily::Nothing,
        }
    }

    /// Whether the cluster speaks HTTP/2 whatever the caller speaks.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb | Self::Http2)
    }

    /// Whether the word says gRPC.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// Whether calls are routed by their own content: HTTP family or detected.
    pub fn is_http_or_auto(self) -> bool {
        matches!(self.family(), ProtocolFamily::Http | ProtocolFamily::Auto)
    }

    /// Parses a protocol word as ServiceEntries, Sidecars and Gateways write it: the whole text, any case.
    pub fn parse(text: &str) -> Option<Self> {
        const WORDS: [(&str, Protocol); 12] = [
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
        WORDS.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)).map(|(_, protocol)| *protocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// Who decided a port's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecidedBy {
    /// The port's L4 protocol is UDP, whatever else is said.
    L4Udp,
    /// `appProtocol`.
    AppProtocol(Arc<str>),
    /// An `appProtocol` that Istio does not know; it hides the port name.
    UnknownAppProtocol {
        /// The value, perhaps empty.
        value: Arc<str>,
        /// What the hidden name would have given.
        hidden: Option<Protocol>,
    },
    /// The port's name.
    PortName(Arc<str>),
    /// A name that says nothing.
    UnknownName(Arc<str>),
    /// No name and no `appProtocol`.
    NoName,
    /// Nothing known was written and the number is one of 25, 53, 3306 and 27017.
    WellKnownPort(u16),
    /// The protocol word of a ServiceEntry.
    EntryProtocol(Arc<str>),
    /// A protocol word of a ServiceEntry that Istio does not know.
    UnknownEntryProtocol(Arc<str>),
    /// A ServiceEntry without a protocol word.
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
            Self::UnknownName(_) => f.write_str("nothing: name unknown"),
            Self::NoName => f.write_str("nothing: no name"),
            Self::WellKnownPort(number) => write!(f, "port number {number}"),
            Self::EntryProtocol(word) => write!(f, "protocol \"{word}\""),
            Self::UnknownEntryProtocol(word) => write!(f, "nothing: protocol \"{word}\" is unknown"),
            Self::NoEntryProtocol => f.write_str("nothing: no protocol"),
        }
    }
}

/// Decides the protocol of a Kubernetes Service port.
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
    let found = match app_protocol {
        Some(value) => parse_app_protocol(value).map(|protocol| (protocol, DecidedBy::AppProtocol(value.into()))),
        None => by_name.map(|protocol| (protocol, DecidedBy::PortName(name.unwrap_or_default().into()))),
    };
    if let Some(found) = found {
        return found;
    }
    // Server-first protocols on their usual ports would hang under detection.
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

/// `appProtocol`: three exact words of Kubernetes, else as a port name.
pub fn parse_app_protocol(value: &str) -> Option<Protocol> {
    match value {
        "kubernetes.io/h2c" => Some(Protocol::Http2),
        "kubernetes.io/ws" => Some(Protocol::Http),
        "kubernetes.io/wss" => Some(Protocol::Https),
        other => parse_text(other),
    }
}

/// A port name: the text before the first `-`, except that anything beginning with `grpc-web` is gRPC-Web.
fn parse_text(text: &str) -> Option<Protocol> {
    const GRPC_WEB: &str = "grpc-web";
    if text.get(..GRPC_WEB.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC_WEB)) {
        return Some(Protocol::GrpcWeb);
    }
    let word = text.split('-').next().unwrap_or(text);
    Protocol::parse(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Istio's own table (`pkg/config/kube/conversion_test.go`), then our own.
    #[test]
    fn protocols_are_decided_as_istio_decides_them() {
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
            // Separators other than `-`, unknown words, case of the Kubernetes words.
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
            let name_given = (!name.is_empty()).then_some(name);
            assert_eq!(decide(l4, app_protocol, name_given, port).0, expected, "{name} {app_protocol:?} {port}");
        }
    }

    #[test]
    fn the_one_who_decided_is_named() {
        for (name, app_protocol, port, expected) in [
            (Some("grpc-api"), None, 1, "port name \"grpc-api\""),
            (Some("x"), Some("grpc"), 1, "appProtocol \"grpc\""),
            (Some("grpc"), Some("h2"), 1, "appProtocol \"h2\" (unknown; hides the port name)"),
            (Some("x"), Some("h2"), 1, "appProtocol \"h2\" (unknown)"),
            (Some("api-port"), None, 1, "nothing: name unknown"),
            (None, None, 1, "nothing: no name"),
            (None, None, 3306, "port number 3306"),
        ] {
            assert_eq!(decide("TCP", app_protocol, name, port).1.to_string(), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_gets_a_protocol(name in "\\PC{0,20}", app in proptest::option::of("\\PC{0,20}"), port: u16) {
            let _ = decide("TCP", app.as_deref(), Some(&name), port);
        }
    }
}
