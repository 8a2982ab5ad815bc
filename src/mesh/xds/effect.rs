//! Whether a route object has any effect: whether some proxy uses a rule of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Caller;
use super::route_config::{ConfigId, RouteConfig};
use crate::mesh::Mesh;
use crate::mesh::gateway;
use crate::mesh::ids::{Host, Namespace, ObjectRef};
use crate::mesh::service::Visibility;
use crate::mesh::virtual_service::GatewayName;

/// Owners found so far, by caller, host, namespace of the Service, and port. Many configurations may name one host.
type KnownOwners = HashMap<(Namespace, Host, Namespace, u16), Option<ConfigId>>;

/// The port of hosts that are not in the registry.
const HTTP_PORT: u16 = 80;

impl Mesh<'_> {
    /// VirtualServices that no proxy uses: another object owns all of their hosts, no Gateway of theirs serves them, or
    /// no VirtualService with an effect delegates to them. Nothing that their rules say happens to any call.
    pub fn objects_without_effect(&self) -> &HashSet<ObjectRef> {
        self.objects_without_effect.get_or_init(|| find(self))
    }
}

fn find(mesh: &Mesh<'_>) -> HashSet<ObjectRef> {
    let mut has_effect: BTreeMap<ObjectRef, bool> = BTreeMap::new();
    let mut owners = KnownOwners::new();
    for (id, config) in mesh.route_configs().iter().filter(|(_, config)| !config.is_gateway_api) {
        let is_used = is_used_in_mesh(mesh, id, config, &mut owners) || is_used_at_gateway(mesh, config);
        let delegates = config.rules.iter().filter_map(|rule| rule.delegate.as_ref().map(|(object, _)| object));
        for object in config.objects.iter().chain(delegates) {
            *has_effect.entry(object.clone()).or_default() |= is_used;
        }
    }
    has_effect.into_iter().filter(|(_, is_used)| !is_used).map(|(object, _)| object).collect()
}

/// Whether the configuration owns the routes to one of its hosts for some sidecar. A host that no other configuration
/// claims is owned.
fn is_used_in_mesh(mesh: &Mesh<'_>, id: ConfigId, config: &RouteConfig, owners: &mut KnownOwners) -> bool {
    if !config.acts_in_mesh() || config.export_to == Visibility::NoNamespace {
        return false;
    }
    config.hosts.iter().any(|host| {
        if mesh.route_configs().naming_host(host).nth(1).is_none() {
            return true;
        }
        let service = mesh.find_host(host.as_str()).map(|id| mesh.service(id));
        let namespace = service.map(|service| service.namespace().clone()).or_else(|| mesh.namespace_of_host(host));
        let namespace = namespace.unwrap_or_else(|| config.namespace.clone());
        let mut ports: Vec<u16> =
            service.into_iter().flat_map(|service| &service.ports).map(|port| port.number).collect();
        if ports.is_empty() {
            ports.push(HTTP_PORT);
        }
        let mut callers: Vec<Namespace> = mesh.caller_namespaces.iter().cloned().collect();
        // Callers that the source does not contain.
        callers.extend([Namespace::from(""), config.namespace.clone(), namespace.clone()]);
        callers
            .into_iter()
            .any(|caller| ports.iter().any(|port| owner(mesh, owners, (&caller, host, &namespace, *port)) == Some(id)))
    })
}

fn owner(
    mesh: &Mesh<'_>,
    owners: &mut KnownOwners,
    (caller, host, namespace, port): (&Namespace, &Host, &Namespace, u16),
) -> Option<ConfigId> {
    let key = (caller.clone(), host.clone(), namespace.clone(), port);
    let find = || mesh.owner_of_host(&Caller::in_namespace(caller.clone()), host, namespace, port);
    *owners.entry(key).or_insert_with(find)
}

/// Whether a Gateway that the configuration names exists and serves one of its hosts. A Gateway that the source lacks may
/// exist.
fn is_used_at_gateway(mesh: &Mesh<'_>, config: &RouteConfig) -> bool {
    config.gateways.iter().any(|name| {
        let GatewayName::Named { namespace, name } = name else { return false };
        let Some(gateway) = mesh.find_istio_gateway(namespace, name) else {
            return !mesh.coverage.covers(crate::schema::Kind::IstioGateway, namespace);
        };
        gateway.spec.servers.iter().flat_map(|server| server.hosts.iter()).any(|served| {
            let (reserved, served) = gateway::split_server_host(served, &gateway.object.namespace);
            reserved.is_none_or(|namespace| namespace == config.namespace.as_str())
                && config.hosts.iter().any(|host| gateway::hosts_overlap(host.as_str(), &served.to_ascii_lowercase()))
        })
    })
}
