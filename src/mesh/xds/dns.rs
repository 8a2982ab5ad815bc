//! Where a client's connection goes: names as the cluster's DNS answers them to a pod.

use super::listener::address_of;
use super::{CallerKind, DialedAddress, ProxyConfig};
use crate::mesh::Mesh;
use crate::mesh::ids::{Host, ServiceId};
use crate::mesh::service::Resolution;

/// Steps over ExternalNames before it is a circle.
const STEPS: usize = 8;

impl ProxyConfig<'_> {
    /// The address that a client dials for a host; `None` when the name has no address at all.
    pub(super) fn resolve(&self, host: &str) -> Option<DialedAddress> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Some(DialedAddress::Ip(address));
        }
        let mut host = host;
        for _ in 0..STEPS {
            let Some((id, pod)) = self.service_named(&host) else {
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
                    let named = pods.find(|id| *self.mesh.workload(**id).object.name == *pod)?;
                    return Some(DialedAddress::of_pod(self.mesh, *named));
                }
                Resolution::ClusterIp | Resolution::Entry(_) => return Some(address_of(self.mesh, id)),
            }
        }
        None
    }

    /// The Kubernetes Service that a name means in the caller's namespace, with the pod that it names.
    fn service_named(&self, host: &str) -> Option<(ServiceId, Option<String>)> {
        let domain = self.mesh.cluster_domain.as_str();
        let inner = host
            .strip_suffix(domain)
            .and_then(|rest| rest.strip_suffix(".svc."))
            .or_else(|| host.strip_suffix(".svc"))
            .unwrap_or(host);
        let is_full = inner.len() != host.len();
        let parts: Vec<&str> = inner.split('.').collect();
        let own = self.caller.namespace.as_str();
        let find = |namespace: &str, name: &str| self.mesh.find_service(namespace, name);
        match parts.as_slice() {
            [name] if !is_full => find(own, name).map(|id| (id, None)),
            [name, namespace] => find(namespace, name).map(|id| (id, None)).or_else(|| {
                // `pod.service`, in the caller's namespace.
                (!is_full).then(|| find(own, namespace).map(|id| (id, Some((*name).to_owned())))).flatten()
            }),
            [pod, name, namespace] => find(namespace, name).map(|id| (id, Some((*pod).to_owned()))),
            _ => None,
        }
        .filter(|(id, pod)| pod.is_none() || self.mesh.service(*id).resolution == Resolution::Headless)
    }

    /// The virtual address of a ServiceEntry's host, else some address that no listener knows.
    fn entry_address(&self, host: &str) -> DialedAddress {
        let entries = || self.mesh.services_named(host).iter().map(|id| self.mesh.service(*id));
        let seen = entries().filter(|entry| super::scope::is_visible(entry, &self.caller.namespace));
        let address = seen.chain(entries()).find_map(|service| service.addresses.first());
        address.map_or(DialedAddress::Unknown, |address| DialedAddress::Ip(*address))
    }

    /// Whether the caller is a gateway, whose clients dial the gateway itself.
    pub(super) fn is_gateway(&self) -> bool {
        self.caller.kind == CallerKind::Gateway
    }
}

impl Mesh<'_> {
    /// All entries of the registry for exactly this host.
    pub fn services_named(&self, host: &str) -> &[ServiceId] {
        self.hosts.exact(host)
    }

    /// All entries of the registry, oldest first; ties by name and namespace.
    pub(super) fn services_by_age(&self) -> &[ServiceId] {
        self.outbound_index().by_age.as_slice()
    }

    /// ExternalName Services by the host that they lead to in the end.
    pub(super) fn aliases(&self) -> &std::collections::HashMap<Host, Vec<ServiceId>> {
        &self.outbound_index().aliases
    }
}
