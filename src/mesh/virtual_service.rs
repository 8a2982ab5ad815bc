//! VirtualServices by host and name. Which one a caller gets is for [`super::xds`] to say.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::host::HostMap;
use super::ids::{Host, Namespace, ObjectRef, VirtualServiceId};
use super::service::Visibility;
use crate::schema::virtual_service::VirtualServiceSpec;

/// A VirtualService with its hosts and gateways completed.
#[derive(Debug)]
pub struct VirtualService {
    /// The object.
    pub object: ObjectRef,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// Hosts, completed and lower case; empty in a delegate.
    pub hosts: Vec<Host>,
    /// Where it acts.
    pub gateways: Vec<GatewayName>,
    /// Who sees it.
    pub export_to: Visibility,
    /// As written.
    pub spec: VirtualServiceSpec,
}

/// One entry of `spec.gateways`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayName {
    /// `mesh`: all sidecars.
    Mesh,
    /// A Gateway.
    Named {
        /// Namespace.
        namespace: Namespace,
        /// Name.
        name: Arc<str>,
    },
}

impl GatewayName {
    /// Reads an entry in a VirtualService of namespace `own`: `gw`, `ns/gw`, `./gw`, or the old `gw.ns.svc…`.
    pub fn parse(text: &str, own: &Namespace) -> Self {
        if text == "mesh" {
            return Self::Mesh;
        }
        let (namespace, name) = match text.split_once('/') {
            Some((".", name)) => (own.clone(), name),
            Some((namespace, name)) => (namespace.into(), name),
            None => match text.split_once('.') {
                Some((name, rest)) => (rest.split('.').next().unwrap_or(rest).into(), name),
                None => (own.clone(), text),
            },
        };
        Self::Named { namespace, name: name.into() }
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
    /// Whether sidecars get it.
    pub fn acts_in_mesh(&self) -> bool {
        !self.hosts.is_empty() && (self.gateways.is_empty() || self.gateways.contains(&GatewayName::Mesh))
    }

    /// The gateways it is bound to, `mesh` left out.
    pub fn named_gateways(&self) -> impl Iterator<Item = (&Namespace, &str)> {
        self.gateways.iter().filter_map(|gateway| match gateway {
            GatewayName::Mesh => None,
            GatewayName::Named { namespace, name } => Some((namespace, &**name)),
        })
    }
}

/// VirtualServices by host.
#[derive(Debug, Default)]
pub struct VirtualServices {
    all: Vec<VirtualService>,
    /// Those that sidecars get.
    in_mesh: HostMap<VirtualServiceId>,
    by_name: HashMap<(Namespace, Arc<str>), usize>,
}

impl VirtualServices {
    /// Sorts objects by age and indexes them.
    pub fn new(mut all: Vec<VirtualService>) -> Self {
        // Ties go by name, then by namespace.
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

    /// One object.
    pub fn get(&self, id: VirtualServiceId) -> &VirtualService {
        &self.all[id.index()]
    }

    /// The object of this name.
    pub fn named(&self, namespace: &Namespace, name: &str) -> Option<&VirtualService> {
        let at = self.by_name.get(&(namespace.clone(), Arc::from(name)))?;
        self.all.get(*at)
    }

    /// All objects, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (VirtualServiceId, &VirtualService)> {
        self.all.iter().enumerate().map(|(position, object)| (VirtualServiceId::new(position), object))
    }

    /// All objects that may own `host` for some caller, wildcards included.
    pub fn covering<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a VirtualService> + 'a {
        self.in_mesh.covering(host.as_str()).flatten().map(|id| self.get(*id))
    }

    /// Exactly named mesh hosts with the objects that claim them.
    pub fn claimed_hosts(&self) -> impl Iterator<Item = (&Host, &[VirtualServiceId])> {
        self.in_mesh.iter_exact()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_names_are_completed() {
        let own = Namespace::from("shop");
        for (text, expected) in [
            ("mesh", "mesh"),
            ("gw", "shop/gw"),
            ("edge/gw", "edge/gw"),
            ("./gw", "shop/gw"),
            ("gw.edge.svc.cluster.local", "edge/gw"),
        ] {
            assert_eq!(GatewayName::parse(text, &own).to_string(), expected);
        }
    }
}
