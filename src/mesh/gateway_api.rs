//! Gateway API routes: what they attach to and whom they send to. [`super::xds`] makes their rules.
//!
//! Sources: `pilot/pkg/config/kube/gateway/conversion.go` and `route_collections.go` of istio/istio 1.31.

use std::sync::Arc;

use super::host;
use super::ids::{Host, Namespace, ObjectRef};
use crate::schema::Kind;
use crate::schema::gateway_api::{ApiRoute, ApiRouteRule, BackendRef, ParentRef};

/// An HTTPRoute or GRPCRoute.
#[derive(Debug)]
pub struct RouteObject {
    /// The object.
    pub object: ObjectRef,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// What it attaches to.
    pub parents: Vec<RouteParent>,
    /// As written.
    pub route: ApiRoute,
}

/// What a route attaches to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteParent {
    /// A Service: the rules act on calls to it in the mesh.
    Service {
        /// Namespace of the Service.
        namespace: Namespace,
        /// Name of the Service.
        name: Arc<str>,
        /// Only this port.
        port: Option<u16>,
    },
    /// A Gateway.
    Gateway {
        /// Namespace of the Gateway.
        namespace: Namespace,
        /// Name of the Gateway.
        name: Arc<str>,
        /// Only this listener.
        listener: Option<Arc<str>>,
        /// Only this port.
        port: Option<u16>,
    },
    /// Something else, which Istio does not take.
    Other(String),
}

impl RouteParent {
    /// Reads a parent reference of a route in namespace `own`.
    pub fn new(parent: &ParentRef, own: &Namespace) -> Self {
        let ParentRef { group, kind, namespace, name, section_name, port } = parent;
        let namespace = namespace.as_deref().map_or_else(|| own.clone(), Into::into);
        let group = group.as_deref().unwrap_or("gateway.networking.k8s.io");
        let kind = kind.as_deref().unwrap_or("Gateway");
        let port = port.and_then(|port| u16::try_from(port).ok());
        match (group, kind) {
            ("" | "core", "Service") => Self::Service { namespace, name: name.as_str().into(), port },
            ("gateway.networking.k8s.io", "Gateway") => {
                let listener = section_name.as_deref().map(Into::into);
                Self::Gateway { namespace, name: name.as_str().into(), listener, port }
            }
            (_, kind) => Self::Other(format!("{kind} {namespace}/{name}")),
        }
    }
}

impl RouteObject {
    /// Whom a rule sends to: position, host and port of each backend that is a Service or names a host.
    pub fn targets(&self, rule: &ApiRouteRule, cluster_domain: &str) -> Vec<(usize, Host, Option<u16>)> {
        let target = |(at, backend): (usize, &BackendRef)| {
            let BackendRef { group, kind, name, namespace, port, weight: _ } = backend;
            let namespace = namespace.as_deref().map_or_else(|| self.object.namespace.clone(), Namespace::from);
            let host = match (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or("Service")) {
                ("" | "core", "Service") => host::of_service(name, &namespace, cluster_domain),
                (_, "Hostname") => name.as_str().into(),
                _ => return None,
            };
            Some((at, host, port.and_then(|port| u16::try_from(port).ok())))
        };
        rule.backend_refs.iter().enumerate().filter_map(target).collect()
    }

    /// The Services of the mesh that it attaches to.
    pub fn service_parents(&self) -> impl Iterator<Item = (&Namespace, &str, Option<u16>)> {
        self.parents.iter().filter_map(|parent| match parent {
            RouteParent::Service { namespace, name, port } => Some((namespace, &**name, *port)),
            RouteParent::Gateway { .. } | RouteParent::Other(_) => None,
        })
    }

    /// Whether it is a GRPCRoute.
    pub fn is_grpc(&self) -> bool {
        self.object.kind == Kind::GrpcRoute
    }
}
