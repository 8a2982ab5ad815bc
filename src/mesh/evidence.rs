//! What makes us say that a port is used for gRPC.
//!
//! Istio's protocol is what somebody *declared*; evidence is what shows the *use*. A fault is a gap between the two,
//! so every piece is kept and shown.

use std::fmt;
use std::sync::Arc;

use super::ids::ObjectRef;

/// One sign that a port is used for gRPC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// Istio takes the port for gRPC.
    Declared,
    /// `appProtocol` contains `grpc`.
    AppProtocol(Arc<str>),
    /// The port's name contains `grpc`.
    PortName(Arc<str>),
    /// A GRPCRoute leads to it.
    GrpcRoute(ObjectRef),
    /// A gRPC probe asks its target port.
    Probe(Arc<str>),
    /// The container port's name contains `grpc`.
    ContainerPort(Arc<str>),
    /// A route retries on conditions that only gRPC has.
    RetryWords(ObjectRef, Arc<str>),
    /// A route matches `content-type: application/grpc`.
    ContentType(ObjectRef),
    /// A route matches a path of the form `/package.Service/Method`.
    MethodPath(ObjectRef, Arc<str>),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared => f.write_str("Istio takes the port for gRPC"),
            Self::AppProtocol(value) => write!(f, "appProtocol \"{value}\" contains grpc"),
            Self::PortName(name) => write!(f, "port name \"{name}\" contains grpc"),
            Self::GrpcRoute(route) => write!(f, "{route} leads to it"),
            Self::Probe(workload) => write!(f, "{workload} has a gRPC probe on its target port"),
            Self::ContainerPort(name) => write!(f, "container port name \"{name}\" contains grpc"),
            Self::RetryWords(route, words) => write!(f, "{route} retries on {words}"),
            Self::ContentType(route) => write!(f, "{route} matches content-type application/grpc"),
            Self::MethodPath(route, path) => write!(f, "{route} matches the method path {path}"),
        }
    }
}

/// Whether a text contains `grpc` in any case. Names of things that speak HTTP/1.1 in front of gRPC do not count.
pub fn mentions_grpc(text: &str) -> bool {
    let text = text.to_ascii_lowercase().replace(['-', '_', '.'], "");
    text.contains("grpc") && !["grpcweb", "grpcgateway", "grpcgw", "grpcui"].iter().any(|other| text.contains(other))
}

/// The words of a `retryOn` that only gRPC has. Istio's own default, spelled out, says nothing: it is on every route.
pub fn grpc_retry_words(retry_on: &str) -> Vec<&str> {
    let words: Vec<&str> = retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let is_default = super::retry::DEFAULT_RETRY_ON.iter().take(4).all(|word| words.contains(word));
    words.into_iter().filter(|word| !is_default && GRPC_RETRY_WORDS.contains(word)).collect()
}

/// Whether a condition on a header asks for gRPC, and not for gRPC-Web.
pub fn is_grpc_content_type(name: &str, value: &str) -> bool {
    let is_grpc = value.starts_with("application/grpc") && !value.starts_with("application/grpc-web");
    name.eq_ignore_ascii_case("content-type") && is_grpc
}

/// Whether a path is a gRPC method's: `/package.Service/Method`, or a prefix of one that ends at a slash.
///
/// A path without a dot in its first part, such as `/api/v1`, is anybody's and is no evidence.
pub fn is_method_path(path: &str) -> bool {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return false;
    };
    let is_identifier = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let last = service.rsplit('.').next().unwrap_or_default();
    service.contains('.')
        && service.split('.').all(is_identifier)
        && last.starts_with(|c: char| c.is_ascii_uppercase())
        && (method.is_empty() || is_identifier(method))
}

/// Conditions of `retryOn` that look at a gRPC status.
const GRPC_RETRY_WORDS: [&str; 5] = ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_paths_are_told_from_other_paths() {
        for path in ["/shop.Checkout/Pay", "/shop.v1.Checkout/", "/grpc.health.v1.Health/Check"] {
            assert!(is_method_path(path), "{path}");
        }
        for path in ["/", "/api/v1", "/shop.Checkout", "/index.html/x", "/productpage", "/a.B/c/d", "/v1.2/x"] {
            assert!(!is_method_path(path), "{path}");
        }
    }
}
