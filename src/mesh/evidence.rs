//! Evidence that a port carries gRPC.
//!
//! The protocol of a port is a *declaration*; evidence shows its *use*. Many findings report a contradiction between
//! the two, so the model keeps all evidence and the reports list it.

use std::fmt;
use std::sync::Arc;

use super::ids::ObjectRef;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The port declares gRPC to Istio.
    Declared,
    /// `appProtocol` contains `grpc`.
    AppProtocol(Arc<str>),
    /// The port's name contains `grpc`.
    PortName(Arc<str>),
    /// A GRPCRoute has the port as a backend or parent.
    GrpcRoute(ObjectRef),
    /// The named workload has a gRPC probe on the target port.
    Probe(Arc<str>),
    /// The container port's name contains `grpc`.
    ContainerPort(Arc<str>),
    /// A route retries on conditions that exist only for gRPC.
    RetryConditions(ObjectRef, Arc<str>),
    /// A route matches `content-type: application/grpc`.
    ContentType(ObjectRef),
    /// A route matches a path of the form `/package.Service/Method`.
    MethodPath(ObjectRef, Arc<str>),
    /// A Gateway server with `protocol: GRPC`, and the route that sends its calls to the port.
    GatewayServer { gateway: ObjectRef, server_port: u32, route: ObjectRef },
    /// A route sends calls here that callers make to a port with gRPC evidence of its own.
    Routed(RoutedEvidence),
}

/// Evidence that travels along a route: the calls to `dialed` are gRPC, and a rule sends them on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutedEvidence {
    /// The route object with the backend.
    pub route: ObjectRef,
    /// Path of the rule in the object, such as `spec.http[0]`.
    pub rule: Arc<str>,
    /// Host and port that callers dial, such as `checkout.shop:50051`.
    pub dialed: Arc<str>,
    /// Evidence of the dialed port as text, which may itself be a chain.
    pub because: Arc<str>,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared => f.write_str("Istio treats the port as gRPC"),
            Self::AppProtocol(value) => write!(f, "appProtocol \"{value}\" contains grpc"),
            Self::PortName(name) => write!(f, "port name \"{name}\" contains grpc"),
            Self::GrpcRoute(route) => write!(f, "{route} routes to it"),
            Self::Probe(workload) => write!(f, "{workload} has a gRPC probe on its target port"),
            Self::ContainerPort(name) => write!(f, "container port name \"{name}\" contains grpc"),
            Self::RetryConditions(route, conditions) => write!(f, "{route} retries on {conditions}"),
            Self::ContentType(route) => write!(f, "{route} matches content-type application/grpc"),
            Self::MethodPath(route, path) => write!(f, "{route} matches the method path {path}"),
            Self::GatewayServer { gateway, server_port, route } => {
                write!(f, "{gateway} serves GRPC on port {server_port}, and {route} sends its calls here")
            }
            Self::Routed(RoutedEvidence { route, rule, dialed, because }) => {
                write!(f, "{route} ({rule}) sends calls to {dialed} here, which are gRPC: {because}")
            }
        }
    }
}

impl Evidence {
    /// Whether the evidence is in the port itself or in its pods, and not in the calls that routes send to it.
    pub fn is_own(&self) -> bool {
        !matches!(self, Self::GatewayServer { .. } | Self::Routed(_))
    }
}

/// Whether a name contains `grpc` in any case. gRPC-Web and HTTP/JSON gateways do not count: they speak HTTP/1.1.
pub fn mentions_grpc(text: &str) -> bool {
    let text = text.to_ascii_lowercase().replace(['-', '_', '.'], "");
    text.contains("grpc") && !["grpcweb", "grpcgateway", "grpcgw", "grpcui"].iter().any(|name| text.contains(name))
}

/// The conditions of a `retryOn` that exist only for gRPC. A copy of Istio's default policy is no evidence, because
/// Istio applies it to every route.
pub fn grpc_retry_conditions(retry_on: &str) -> Vec<&str> {
    let conditions: Vec<&str> = retry_on.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let is_default = super::retry::DEFAULT_RETRY_ON.iter().take(4).all(|default| conditions.contains(default));
    conditions.into_iter().filter(|name| !is_default && GRPC_RETRY_CONDITIONS.contains(name)).collect()
}

/// Whether a header condition requires a gRPC content type. gRPC-Web does not count.
pub fn is_grpc_content_type(name: &str, value: &str) -> bool {
    let is_grpc = value.starts_with("application/grpc") && !value.starts_with("application/grpc-web");
    name.eq_ignore_ascii_case("content-type") && is_grpc
}

/// Whether a path has the form of a gRPC method, `/package.Service/Method`, or of its prefix up to the second slash.
///
/// A first segment without a dot, as in `/api/v1`, is not evidence: any HTTP service may have such a path.
pub fn is_method_path(path: &str) -> bool {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return false;
    };
    let is_identifier = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let last = service.rsplit('.').next().unwrap_or_default();
    service.contains('.')
        && service.split('.').all(is_identifier)
        && last.starts_with(|c: char| c.is_ascii_uppercase())
        && (method.is_empty() || is_identifier(method))
}

/// Conditions of `retryOn` that test the gRPC status.
/// Source: `x-envoy-retry-grpc-on` in the documentation of Envoy's router filter.
const GRPC_RETRY_CONDITIONS: [&str; 5] =
    ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_method_paths() {
        for path in ["/shop.Checkout/Pay", "/shop.v1.Checkout/", "/grpc.health.v1.Health/Check"] {
            assert!(is_method_path(path), "{path}");
        }
        for path in ["/", "/api/v1", "/shop.Checkout", "/index.html/x", "/productpage", "/a.B/c/d", "/v1.2/x"] {
            assert!(!is_method_path(path), "{path}");
        }
    }
}
