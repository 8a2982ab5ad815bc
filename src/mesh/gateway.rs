//! Gateways of both kinds, and which of their servers lead to a Service.

use std::fmt;
use std::sync::Arc;

use super::ids::{Labels, Namespace, ObjectRef, WorkloadId};
use super::protocol::Protocol;
use crate::schema::gateway::{GatewayServer, IstioGatewaySpec};
use crate::schema::gateway_api;

/// An Istio Gateway.
#[derive(Debug)]
pub struct IstioGateway {
    /// The object.
    pub object: ObjectRef,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// Labels of its pods; empty means every gateway.
    pub selector: Labels,
    /// The gateway pods that it selects, in any namespace.
    pub workloads: Vec<WorkloadId>,
    /// As written.
    pub spec: IstioGatewaySpec,
}

/// A Gateway of Gateway API.
#[derive(Debug)]
pub struct ApiGateway {
    /// The object.
    pub object: ObjectRef,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// Name of the Service that istiod makes for it, where an annotation names it.
    pub service_name: Option<String>,
    /// As written.
    pub spec: gateway_api::ApiGatewaySpec,
}

/// A ReferenceGrant: what others may refer to in its namespace.
#[derive(Debug)]
pub struct ReferenceGrant {
    /// The object.
    pub object: ObjectRef,
    /// As written.
    pub spec: gateway_api::ReferenceGrantSpec,
}

/// What a server does with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerTlsMode {
    /// None: plain text.
    Plaintext,
    /// TLS ends here and calls are routed one by one.
    Terminated,
    /// TLS ends here and bytes are passed on.
    TerminatedAsTcp,
    /// TLS goes through.
    Passthrough,
    /// Everything is sent to HTTPS.
    RedirectsToHttps,
}

impl fmt::Display for ServerTlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plaintext => "plaintext",
            Self::Terminated => "TLS",
            Self::TerminatedAsTcp => "TLS, then bytes only",
            Self::Passthrough => "TLS passed through",
            Self::RedirectsToHttps => "redirects to HTTPS",
        })
    }
}

/// What an Istio Gateway's server does with TLS at run time, whatever its author meant.
///
/// On a port of the HTTP family a TLS block is not looked at: the listener is plain text.
/// Source: `createGatewayHTTPFilterChainOpts` in `pilot/pkg/networking/core/gateway.go`.
pub fn tls_use(server: &GatewayServer) -> ServerTlsMode {
    let protocol = server.port.as_ref().and_then(|port| Protocol::parse(&port.protocol));
    let mode = server.tls.as_ref().map(|tls| tls.mode.as_deref().unwrap_or("PASSTHROUGH"));
    let passes = matches!(mode, Some("PASSTHROUGH" | "AUTO_PASSTHROUGH"));
    match protocol {
        Some(Protocol::Https) if passes => ServerTlsMode::Passthrough,
        Some(Protocol::Https) => ServerTlsMode::Terminated,
        Some(Protocol::Tls) if passes => ServerTlsMode::Passthrough,
        Some(Protocol::Tls) => ServerTlsMode::TerminatedAsTcp,
        _ if server.tls.as_ref().is_some_and(|tls| tls.https_redirect == Some(true)) => ServerTlsMode::RedirectsToHttps,
        _ => ServerTlsMode::Plaintext,
    }
}

/// A way into the mesh that ends at a Service.
#[derive(Debug, Clone)]
pub struct GatewayExposure {
    /// The Gateway.
    pub gateway: ObjectRef,
    /// Whether the Gateway is in the source.
    pub known: bool,
    /// Port.
    pub port: u32,
    /// Protocol word of the server or listener.
    pub protocol: String,
    /// TLS.
    pub tls: ServerTlsMode,
    /// Hosts that clients call.
    pub hosts: Vec<String>,
    /// The route that leads from there to the Service.
    pub route: ObjectRef,
}

/// Splits a server's host into the namespace that it is reserved for, and the host.
pub fn split_server_host<'a>(host: &'a str, own: &'a Namespace) -> (Option<&'a str>, &'a str) {
    match host.split_once('/') {
        Some((".", host)) => (Some(own.as_str()), host),
        Some(("*", host)) => (None, host),
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, host),
    }
}

/// Whether two hosts, each perhaps a wildcard, have names in common.
pub fn overlap(a: &str, b: &str) -> bool {
    super::host::covers(a, b) || super::host::covers(b, a)
}
