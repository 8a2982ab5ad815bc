//! VirtualServices, indexed by host and name. [`super::xds`] determines which of them applies to a caller.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::host::HostMap;
use super::ids::{Host, Namespace, ObjectRef, VirtualServiceId};
use super::service::Visibility;
use crate::schema::virtual_service::VirtualServiceSpec;

/// A VirtualService with the names of its hosts and gateways completed.
#[derive(Debug)]
pub struct VirtualService {
    pub object: ObjectRef,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    /// Fully qualified hosts in lower case. A delegate has none.
    pub hosts: Vec<Host>,
    /// `spec.gateways`. Empty means `mesh`.
    pub gateways: Vec<GatewayName>,
    pub export_to: Visibility,
    pub spec: VirtualServiceSpec,
}

/// One entry of `spec.gateways`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayName {
    /// `mesh`: all sidecars.
    Mesh,
    /// An Istio Gateway.
    Named { namespace: Namespace, name: Arc<str> },
}

impl GatewayName {
    /// Parses an entry of a VirtualService in namespace `own_namespace`: `gw`, `ns/gw`, `./gw`, or the deprecated `gw.ns.svc…`.
    pub fn parse(text: &str, own_namespace: &Namespace) -> Self {
        if text == "mesh" {
            return Self::Mesh;
        }
        let (namespace, name) = match text.split_once('/') {
            Some((".", name)) => (own_namespace.clone(), name),
            Some((namespace, name)) => (namespace.into(), name),
            None => match text.split_once('.') {
                Some((name, rest)) => (rest.split('.').next().unwrap_or(rest).into(), name),
                None => (own_namespace.clone(), text),
            },
        };
        Self::Named { namespace, name: name.into() }
    }

    /// Whether `gateways` makes a route act in the mesh, that is, on sidecars: it is empty or lists `mesh`.
    pub fn list_includes_mesh(gateways: &[Self]) -> bool {
        gateways.is_empty() || gateways.contains(&Self::Mesh)
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("mesh"),
            Self::Named { namespace, name } => write!(f, "{namespace}/{name}"),
        }
    }
}

impl VirtualService {
    /// Whether the object acts on sidecars under its own hosts. A delegate does not: it acts through its root.
    pub fn acts_in_mesh(&self) -> bool {
        !self.hosts.is_empty() && GatewayName::list_includes_mesh(&self.gateways)
    }

    /// The gateways in `spec.gateways`, without `mesh`.
    pub fn named_gateways(&self) -> impl Iterator<Item = (&Namespace, &str)> {
        self.gateways.iter().filter_map(|gateway| match gateway {
            GatewayName::Mesh => None,
            GatewayName::Named { namespace, name } => Some((namespace, &**name)),
        })
    }
}

#[derive(Debug, Default)]
pub struct VirtualServices {
    /// Oldest first.
    all: Vec<VirtualService>,
    /// Those that act in the mesh.
    in_mesh: HostMap<VirtualServiceId>,
    by_name: HashMap<(Namespace, Arc<str>), usize>,
}

impl VirtualServices {
    pub fn new(mut all: Vec<VirtualService>) -> Self {
        // istiod breaks ties by name, then by namespace.
        all.sort_by(|a, b| {
            (&a.created, &a.object.name, &a.object.namespace).cmp(&(&b.created, &b.object.name, &b.object.namespace))
        });
        let mut in_mesh = HostMap::default();
        for (position, object) in all.iter().enumerate() {
            if object.acts_in_mesh() {
                for host in &object.hosts {
                    in_mesh.insert(host, VirtualServiceId::new(position));
                }
            }
        }
        let key = |object: &VirtualService| (object.object.namespace.clone(), Arc::clone(&object.object.name));
        let by_name = all.iter().enumerate().map(|(position, object)| (key(object), position)).collect();
        Self { all, in_mesh, by_name }
    }

    #[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
    pub fn get(&self, id: VirtualServiceId) -> &VirtualService {
        &self.all[id.index()]
    }

    pub fn find(&self, namespace: &Namespace, name: &str) -> Option<&VirtualService> {
        let index = self.by_name.get(&(namespace.clone(), Arc::from(name)))?;
        self.all.get(*index)
    }

    /// All objects, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (VirtualServiceId, &VirtualService)> {
        self.all.iter().enumerate().map(|(position, object)| (VirtualServiceId::new(position), object))
    }

    /// Objects that act in the mesh with a host or wildcard that matches `host`, most specific first.
    pub fn covering<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a VirtualService> + 'a {
        self.in_mesh.covering(host.as_str()).flatten().map(|id| self.get(*id))
    }

    /// Hosts other than wildcards, each with the objects that act on it in the mesh.
    pub fn claimed_hosts(&self) -> impl Iterator<Item = (&Host, &[VirtualServiceId])> {
        self.in_mesh.iter_exact()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_gateway_names() {
        let own_namespace = Namespace::from("shop");
        for (text, expected) in [
            ("mesh", "mesh"),
            ("gw", "shop/gw"),
            ("edge/gw", "edge/gw"),
            ("./gw", "shop/gw"),
            ("gw.edge.svc.cluster.local", "edge/gw"),
        ] {
            assert_eq!(GatewayName::parse(text, &own_namespace).to_string(), expected);
        }
    }
}
