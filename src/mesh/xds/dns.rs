//! Resolves host names as the cluster's DNS does for a client pod.

use super::listener::address_of;
use super::{CallerKind, DialedAddress, ProxyConfig};
use crate::mesh::Mesh;
use crate::mesh::ids::{Host, ServiceId};
use crate::mesh::service::Resolution;

/// Limit for chains of ExternalName Services, which may form a cycle.
const MAX_ALIASES: usize = 8;

impl ProxyConfig<'_> {
    /// The address that a client dials for a host; `None` if DNS returns no address.
    pub(super) fn resolve(&self, host: &str) -> Option<DialedAddress> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(DialedAddress::Ip(address));
        }
        let mut host = host;
        for _ in 0..MAX_ALIASES {
            let Some((id, pod)) = self.kubernetes_service(&host) else {
                return Some(self.entry_address(&host));
            };
            let service = self.mesh.service(id);
            match &service.resolution {
                Resolution::ExternalName(target) => {
                    target.as_str().clone_into(&mut host);
                }
                Resolution::Headless => {
                    let Some(pod) = pod else { return self.pod_addresses(service).first().copied() };
                    let mut pods = service.workloads.iter();
                    let workload = pods.find(|id| *self.mesh.workload(**id).object.name == *pod)?;
                    return Some(DialedAddress::of_pod(self.mesh, *workload));
                }
                Resolution::ClusterIp | Resolution::ServiceEntry(_) => return Some(address_of(self.mesh, id)),
            }
        }
        None
    }

    /// The registry entry whose address a client dials for a host, whether or not its proxy sees it.
    pub(super) fn dialed_service(&self, host: &str) -> Option<ServiceId> {
        let mut host = host.trim_end_matches('.').to_ascii_lowercase();
        for _ in 0..MAX_ALIASES {
            let Some((id, _)) = self.kubernetes_service(&host) else {
                return self.mesh.services_named(&host).first().copied();
            };
            match &self.mesh.service(id).resolution {
                Resolution::ExternalName(target) => target.as_str().clone_into(&mut host),
                _ => return Some(id),
            }
        }
        None
    }

    /// The Kubernetes Service that a name resolves to in the caller's namespace, and the pod if the name contains one.
    fn kubernetes_service(&self, host: &str) -> Option<(ServiceId, Option<String>)> {
        let domain = self.mesh.cluster_domain.as_str();
        let inner = host
            .strip_suffix(domain)
            .and_then(|rest| rest.strip_suffix(".svc."))
            .or_else(|| host.strip_suffix(".svc"))
            .unwrap_or(host);
        let has_svc_suffix = inner.len() != host.len();
        let parts: Vec<&str> = inner.split('.').collect();
        let own_namespace = self.caller.namespace.as_str();
        let find = |namespace: &str, name: &str| self.mesh.find_service(namespace, name);
        match parts.as_slice() {
            [name] if !has_svc_suffix => find(own_namespace, name).map(|id| (id, None)),
            [name, namespace] => find(namespace, name).map(|id| (id, None)).or_else(|| {
                // `pod.service`, in the caller's namespace.
                (!has_svc_suffix)
                    .then(|| find(own_namespace, namespace).map(|id| (id, Some((*name).to_owned()))))
                    .flatten()
            }),
            [pod, name, namespace] => find(namespace, name).map(|id| (id, Some((*pod).to_owned()))),
            _ => None,
        }
        .filter(|(id, pod)| pod.is_none() || self.mesh.service(*id).resolution == Resolution::Headless)
    }

    /// The address of a ServiceEntry's host, visible entries first; without one, an address that no listener matches.
    fn entry_address(&self, host: &str) -> DialedAddress {
        let entries = || self.mesh.services_named(host).iter().map(|id| self.mesh.service(*id));
        let visible = entries().filter(|entry| super::scope::is_visible(entry, &self.caller.namespace));
        let address = visible.chain(entries()).find_map(|service| service.addresses.first());
        address.map_or(DialedAddress::Unknown, |address| DialedAddress::Ip(*address))
    }

    /// Whether the proxy is a gateway. Clients of a gateway dial the gateway itself.
    pub(super) fn is_gateway(&self) -> bool {
        self.caller.kind == CallerKind::Gateway
    }
}

impl Mesh<'_> {
    /// All registry entries with exactly this host.
    pub fn services_named(&self, host: &str) -> &[ServiceId] {
        self.hosts.exact(host)
    }

    /// All registry entries, oldest first; ties are ordered by name and namespace.
    pub(super) fn services_by_age(&self) -> &[ServiceId] {
        self.xds_index().by_age.as_slice()
    }

    /// ExternalName Services by the host at the end of their chain.
    pub(super) fn aliases(&self) -> &std::collections::HashMap<Host, Vec<ServiceId>> {
        &self.xds_index().aliases
    }
}
