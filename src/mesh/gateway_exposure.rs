//! Gateway exposure: the gateway servers and listeners through which clients reach a Service.

use std::collections::BTreeSet;

use super::gateway::{self, ApiGateway, GatewayExposure, IstioGateway, ListenerSet};
use super::gateway_api::{RouteObject, RouteParent};
use super::ids::{Namespace, ObjectRef, ServiceId, WorkloadId};
use super::virtual_service::VirtualService;
use super::{Mesh, RouteReference};
use crate::schema::Kind;
use crate::schema::gateway_api::ApiListener;

impl Mesh<'_> {
    /// The gateway servers and listeners that route to the Service.
    pub fn exposures(&self, id: ServiceId) -> Vec<GatewayExposure> {
        let mut exposures = Vec::new();
        let mut visited = BTreeSet::new();
        for reference in self.route_references(id) {
            match *reference {
                RouteReference::VirtualService(object, _) => {
                    let object = self.virtual_services.get(object);
                    if visited.insert(object.object.clone()) {
                        let gateways = object.named_gateways();
                        exposures.extend(
                            gateways.flat_map(|(namespace, name)| self.server_exposures(object, namespace, name)),
                        );
                    }
                }
                RouteReference::RouteObject(route, _) => {
                    let route = self.route_object(route);
                    if visited.insert(route.object.clone()) {
                        exposures
                            .extend(route.parents.iter().flat_map(|parent| self.listener_exposures(route, parent)));
                    }
                }
            }
        }
        exposures
    }

    /// The Istio Gateway with this namespace and name, by binary search.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    pub fn find_istio_gateway(&self, namespace: &Namespace, name: &str) -> Option<&IstioGateway> {
        let compare =
            |gateway: &IstioGateway| (&gateway.object.namespace, &*gateway.object.name).cmp(&(namespace, name));
        let index = self.istio_gateways.binary_search_by(compare);
        index.ok().map(|index| &self.istio_gateways[index])
    }

    /// The Gateway API Gateway with this namespace and name, by binary search.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    pub fn find_api_gateway(&self, namespace: &Namespace, name: &str) -> Option<&ApiGateway> {
        let compare = |gateway: &ApiGateway| (&gateway.object.namespace, &*gateway.object.name).cmp(&(namespace, name));
        let index = self.api_gateways.binary_search_by(compare);
        index.ok().map(|index| &self.api_gateways[index])
    }

    /// The Gateways, of Istio and of Gateway API, that configure a gateway's pod.
    pub fn gateways_of(&self, id: WorkloadId) -> Vec<ObjectRef> {
        let workload = self.workload(id);
        let selecting = self.istio_gateways.iter().filter(|gateway| gateway.workloads.contains(&id));
        let own = workload.labels.get(super::GATEWAY_NAME_LABEL);
        let own = own.and_then(|name| self.find_api_gateway(workload.namespace(), name));
        selecting.map(|gateway| gateway.object.clone()).chain(own.map(|gateway| gateway.object.clone())).collect()
    }

    /// The ListenerSet with this namespace and name, by binary search.
    pub fn find_listener_set(&self, namespace: &Namespace, name: &str) -> Option<&ListenerSet> {
        let compare = |set: &ListenerSet| (&set.object.namespace, &*set.object.name).cmp(&(namespace, name));
        let index = self.listener_sets.binary_search_by(compare);
        index.ok().and_then(|index| self.listener_sets.get(index))
    }

    /// The listeners of a Gateway or ListenerSet, as written. `None`: it does not exist.
    pub fn written_listeners(&self, owner: &ObjectRef) -> Option<&[ApiListener]> {
        let ObjectRef { kind, namespace, name } = owner;
        let listeners = match kind {
            Kind::ListenerSet => &self.find_listener_set(namespace, name)?.spec.listeners,
            _ => &self.find_api_gateway(namespace, name)?.spec.listeners,
        };
        Some(&listeners.0)
    }

    fn server_exposures(&self, object: &VirtualService, namespace: &Namespace, name: &str) -> Vec<GatewayExposure> {
        let gateway = self.find_istio_gateway(namespace, name);
        let hosts = || object.hosts.iter().map(|host| self.short_host(host).to_owned()).collect::<Vec<_>>();
        let Some(gateway) = gateway else {
            return vec![GatewayExposure {
                gateway: ObjectRef { kind: Kind::IstioGateway, namespace: namespace.clone(), name: name.into() },
                is_gateway_found: false,
                port: 0,
                protocol: String::new(),
                tls: gateway::ServerTlsMode::Plaintext,
                hosts: hosts(),
                route: object.object.clone(),
            }];
        };
        let served_hosts = |server: &crate::schema::gateway::GatewayServer| -> Vec<String> {
            let mut served = BTreeSet::new();
            for host in &server.hosts {
                let (namespace, host) = gateway::split_server_host(host, &gateway.object.namespace);
                if namespace.is_some_and(|namespace| namespace != object.object.namespace.as_str()) {
                    continue;
                }
                for route_host in object.hosts.iter().filter(|name| gateway::hosts_overlap(name.as_str(), host)) {
                    let narrower = if route_host.as_str().starts_with('*') { host } else { route_host.as_str() };
                    served.insert(narrower.to_owned());
                }
            }
            served.into_iter().collect()
        };
        gateway
            .spec
            .servers
            .iter()
            .filter_map(|server| {
                let hosts = served_hosts(server);
                let port = server.port.as_ref()?;
                (!hosts.is_empty()).then(|| GatewayExposure {
                    gateway: gateway.object.clone(),
                    is_gateway_found: true,
                    port: port.number,
                    protocol: port.protocol.clone(),
                    tls: gateway::server_tls_mode(server),
                    hosts,
                    route: object.object.clone(),
                })
            })
            .collect()
    }

    fn listener_exposures(&self, route: &RouteObject, parent: &RouteParent) -> Vec<GatewayExposure> {
        let RouteParent::Listeners { owner, listener, port } = parent else {
            return Vec::new();
        };
        let Some(listeners) = self.written_listeners(owner) else {
            return Vec::new();
        };
        let hostnames = &route.route.spec.hostnames;
        listeners
            .iter()
            .filter(|candidate| listener.as_deref().is_none_or(|name| name == candidate.name))
            .filter(|candidate| port.is_none_or(|number| i64::from(number) == candidate.effective_port()))
            .filter_map(|listener| {
                let listener_host = listener.hostname.as_deref();
                let hosts: Vec<String> = match listener_host {
                    _ if hostnames.is_empty() => vec![listener_host.unwrap_or("*").to_owned()],
                    None => hostnames.0.clone(),
                    Some(pattern) => {
                        hostnames.iter().filter(|host| gateway::hosts_overlap(host, pattern)).cloned().collect()
                    }
                };
                let is_passthrough =
                    listener.tls.as_ref().is_some_and(|tls| tls.mode.as_deref() == Some("Passthrough"));
                let tls = match listener.protocol.as_str() {
                    "HTTPS" => gateway::ServerTlsMode::Terminated,
                    "TLS" if is_passthrough => gateway::ServerTlsMode::Passthrough,
                    "TLS" => gateway::ServerTlsMode::TerminatedAsTcp,
                    _ => gateway::ServerTlsMode::Plaintext,
                };
                (!hosts.is_empty()).then(|| GatewayExposure {
                    gateway: owner.clone(),
                    is_gateway_found: true,
                    port: u32::try_from(listener.effective_port()).unwrap_or_default(),
                    protocol: listener.protocol.clone(),
                    tls,
                    hosts,
                    route: route.object.clone(),
                })
            })
            .collect()
    }
}
