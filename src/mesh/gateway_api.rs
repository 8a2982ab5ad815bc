//! HTTPRoutes and GRPCRoutes: their parents and backends. [`super::xds`] compiles their rules.
//!
//! Sources: `pilot/pkg/config/kube/gateway/conversion.go` and `route_collections.go` of istio/istio 1.31.

use std::sync::Arc;

use super::host;
use super::ids::{Host, Namespace, ObjectRef};
use crate::schema::Kind;
use crate::schema::gateway_api::{ApiRoute, ApiRouteRule, BackendRef, ParentRef};

#[derive(Debug)]
pub struct RouteObject {
    pub object: ObjectRef,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    pub parents: Vec<RouteParent>,
    pub route: ApiRoute,
}

/// An entry of `parentRefs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteParent {
    /// A Service: the rules apply to calls from sidecars to it.
    Service {
        namespace: Namespace,
        name: Arc<str>,
        /// Limits the rules to this port.
        port: Option<u16>,
    },
    /// A Gateway or a ListenerSet.
    Listeners {
        owner: ObjectRef,
        /// Limits the rules to this listener.
        listener: Option<Arc<str>>,
        /// Limits the rules to listeners of this port.
        port: Option<u16>,
    },
    /// Another kind, which Istio does not support.
    Other(String),
}

impl RouteParent {
    pub fn new(parent: &ParentRef, own_namespace: &Namespace) -> Self {
        let ParentRef { group, kind, namespace, name, section_name, port } = parent;
        let namespace = namespace.as_deref().map_or_else(|| own_namespace.clone(), Into::into);
        let group = group.as_deref().unwrap_or("gateway.networking.k8s.io");
        let kind = kind.as_deref().unwrap_or("Gateway");
        let port = port.and_then(|port| u16::try_from(port).ok());
        match (group, kind) {
            ("" | "core", "Service") => Self::Service { namespace, name: name.as_str().into(), port },
            ("gateway.networking.k8s.io", "Gateway" | "ListenerSet") => {
                let kind = if kind == "Gateway" { Kind::Gateway } else { Kind::ListenerSet };
                let owner = ObjectRef { kind, namespace, name: name.as_str().into() };
                Self::Listeners { owner, listener: section_name.as_deref().map(Into::into), port }
            }
            (_, kind) => Self::Other(format!("{kind} {namespace}/{name}")),
        }
    }
}

impl RouteObject {
    /// Position, host and port of each backend of `rule` that is a Service or a `Hostname`.
    pub fn backend_hosts(&self, rule: &ApiRouteRule, cluster_domain: &str) -> Vec<(usize, Host, Option<u16>)> {
        let target = |(index, backend): (usize, &BackendRef)| {
            let BackendRef { group, kind, name, namespace, port, weight: _ } = backend;
            let namespace = namespace.as_deref().map_or_else(|| self.object.namespace.clone(), Namespace::from);
            let host = match (group.as_deref().unwrap_or_default(), kind.as_deref().unwrap_or("Service")) {
                ("" | "core", "Service") => host::service_host(name, &namespace, cluster_domain),
                (_, "Hostname") => name.as_str().into(),
                _ => return None,
            };
            Some((index, host, port.and_then(|port| u16::try_from(port).ok())))
        };
        rule.backend_refs.iter().enumerate().filter_map(target).collect()
    }

    /// Namespace, name and port of each parent that is a Service. A route acts in the mesh if it has any.
    pub fn service_parents(&self) -> impl Iterator<Item = (&Namespace, &str, Option<u16>)> {
        self.parents.iter().filter_map(|parent| match parent {
            RouteParent::Service { namespace, name, port } => Some((namespace, &**name, *port)),
            RouteParent::Listeners { .. } | RouteParent::Other(_) => None,
        })
    }

    pub fn is_grpc(&self) -> bool {
        self.object.kind == Kind::GrpcRoute
    }
}
