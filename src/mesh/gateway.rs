//! Istio Gateways, Gateway API Gateways and ReferenceGrants, and what their servers do with TLS.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::ids::{Labels, Namespace, ObjectRef, WorkloadId};
use super::protocol::Protocol;
use crate::schema::gateway::{GatewayServer, IstioGatewaySpec};
use crate::schema::gateway_api;

#[derive(Debug)]
pub struct IstioGateway {
    pub object: ObjectRef,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    /// Pod labels; an empty selector matches every gateway pod.
    pub selector: Labels,
    /// Gateway pods that the selector matches, in any namespace.
    pub workloads: Vec<WorkloadId>,
    pub spec: IstioGatewaySpec,
}

#[derive(Debug)]
pub struct ApiGateway {
    pub object: ObjectRef,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    /// Name of the Service that istiod creates for the Gateway, if the annotation `gateway.istio.io/name-override` sets
    /// it.
    pub service_name: Option<String>,
    /// The traffic that a waypoint takes: its label `istio.io/waypoint-for`.
    pub waypoint_for: Option<String>,
    pub spec: gateway_api::ApiGatewaySpec,
}

/// A ListenerSet: adds listeners to a Gateway API Gateway.
#[derive(Debug)]
pub struct ListenerSet {
    pub object: ObjectRef,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    /// The Gateway; `None` for a parent of another kind.
    pub gateway: Option<(Namespace, Arc<str>)>,
    pub spec: gateway_api::ListenerSetSpec,
}

/// A ReferenceGrant: permits references from other namespaces to objects of its own.
#[derive(Debug)]
pub struct ReferenceGrant {
    pub object: ObjectRef,
    pub spec: gateway_api::ReferenceGrantSpec,
}

/// How a gateway server handles TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServerTlsMode {
    /// Accepts plaintext.
    Plaintext,
    /// Terminates TLS and routes each call.
    Terminated,
    /// Terminates TLS and forwards each connection as TCP.
    TerminatedAsTcp,
    /// Forwards the TLS connection unopened, by SNI.
    Passthrough,
    /// Answers every request with a redirect to HTTPS.
    RedirectsToHttps,
}

impl fmt::Display for ServerTlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plaintext => "plaintext",
            Self::Terminated => "TLS",
            Self::TerminatedAsTcp => "TLS terminated, then TCP",
            Self::Passthrough => "TLS passthrough",
            Self::RedirectsToHttps => "redirects to HTTPS",
        })
    }
}

/// How the server of an Istio Gateway handles TLS at run time.
///
/// istiod ignores the TLS block on a port with an HTTP protocol and configures a plaintext listener.
/// Source: `createGatewayHTTPFilterChainOpts` in `pilot/pkg/networking/core/gateway.go`.
pub fn server_tls_mode(server: &GatewayServer) -> ServerTlsMode {
    let protocol = server.port.as_ref().and_then(|port| Protocol::parse(&port.protocol));
    let mode = server.tls.as_ref().map(|tls| tls.mode.as_deref().unwrap_or("PASSTHROUGH"));
    let is_passthrough = matches!(mode, Some("PASSTHROUGH" | "AUTO_PASSTHROUGH"));
    match protocol {
        Some(Protocol::Https) if is_passthrough => ServerTlsMode::Passthrough,
        Some(Protocol::Https) => ServerTlsMode::Terminated,
        Some(Protocol::Tls) if is_passthrough => ServerTlsMode::Passthrough,
        Some(Protocol::Tls) => ServerTlsMode::TerminatedAsTcp,
        _ if server.tls.as_ref().is_some_and(|tls| tls.https_redirect == Some(true)) => ServerTlsMode::RedirectsToHttps,
        _ => ServerTlsMode::Plaintext,
    }
}

/// A gateway server or listener through which clients reach a Service.
#[derive(Debug, Clone)]
pub struct GatewayExposure {
    pub gateway: ObjectRef,
    /// Whether the source has the Gateway.
    pub is_gateway_found: bool,
    /// Port of the server; 0 if the Gateway was not found.
    pub port: u32,
    /// Written protocol of the server or listener.
    pub protocol: String,
    pub tls: ServerTlsMode,
    /// Hosts for which the route applies on this server.
    pub hosts: Vec<String>,
    /// The route object with the Service as a backend.
    pub route: ObjectRef,
}

/// Splits a server's `namespace/host` into the namespace to which it is limited, if any, and the host.
pub fn split_server_host<'a>(host: &'a str, own_namespace: &'a Namespace) -> (Option<&'a str>, &'a str) {
    match host.split_once('/') {
        Some((".", host)) => (Some(own_namespace.as_str()), host),
        Some(("*", host)) => (None, host),
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, host),
    }
}

/// Whether two hosts or wildcards match any common host.
pub fn hosts_overlap(a: &str, b: &str) -> bool {
    super::host::covers(a, b) || super::host::covers(b, a)
}
