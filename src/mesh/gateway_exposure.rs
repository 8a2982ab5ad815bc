//! The ways into the mesh: which gateways lead to a Service.

use std::collections::BTreeSet;

use super::gateway::{self, ApiGateway, GatewayExposure, IstioGateway};
use super::gateway_api::{RouteObject, RouteParent};
use super::ids::{Namespace, ObjectRef, ServiceId};
use super::virtual_service::VirtualService;
use super::{Mesh, RouteReference};
use crate::schema::Kind;

impl Mesh<'_> {
    /// The ways into the mesh that end at a Service.
    pub fn exposures(&self, id: ServiceId) -> Vec<GatewayExposure> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for user in self.users_of(id) {
            match *user {
                RouteReference::VirtualService(object, _) => {
                    let object = self.virtual_services.get(object);
                    if seen.insert(object.object.clone()) {
                        found.extend(
                            object.named_gateways().flat_map(|(namespace, name)| self.servers(object, namespace, name)),
                        );
                    }
                }
                RouteReference::RouteObject(route, _) => {
                    let route = self.route_object(route);
                    if seen.insert(route.object.clone()) {
                        found.extend(route.parents.iter().flat_map(|parent| self.listeners(route, parent)));
                    }
                }
            }
        }
        found
    }

    /// The Istio Gateway of this name.
    pub fn find_istio_gateway(&self, namespace: &Namespace, name: &str) -> Option<&IstioGateway> {
        let wanted = (namespace, name);
        let at = self.istio_gateways.binary_search_by(|one| (&one.object.namespace, &*one.object.name).cmp(&wanted));
        at.ok().map(|at| &self.istio_gateways[at])
    }

    /// The Gateway API Gateway of this name.
    pub fn find_api_gateway(&self, namespace: &Namespace, name: &str) -> Option<&ApiGateway> {
        let wanted = (namespace, name);
        let at = self.api_gateways.binary_search_by(|one| (&one.object.namespace, &*one.object.name).cmp(&wanted));
        at.ok().map(|at| &self.api_gateways[at])
    }

    fn servers(&self, object: &VirtualService, namespace: &Namespace, name: &str) -> Vec<GatewayExposure> {
        let gateway = self.find_istio_gateway(namespace, name);
        let hosts = || object.hosts.iter().map(|host| self.short_host(host).to_owned()).collect::<Vec<_>>();
        let Some(gateway) = gateway else {
            let gateway = ObjectRef { kind: Kind::IstioGateway, namespace: namespace.clone(), name: name.into() };
            let (port, protocol) = (0, String::new());
            let tls = gateway::ServerTlsMode::Plaintext;
            return vec![GatewayExposure {
                gateway,
                known: false,
                port,
                protocol,
                tls,
                hosts: hosts(),
                route: object.object.clone(),
            }];
        };
        let serves = |server: &crate::schema::gateway::GatewayServer| -> Vec<String> {
            let mut names = BTreeSet::new();
            for host in &server.hosts {
                let (reserved, host) = gateway::split_server_host(host, &gateway.object.namespace);
                if reserved.is_some_and(|namespace| namespace != object.object.namespace.as_str()) {
                    continue;
                }
                for own in object.hosts.iter().filter(|own| gateway::overlap(own.as_str(), host)) {
                    let narrower = if own.as_str().starts_with('*') { host } else { own.as_str() };
                    names.insert(narrower.to_owned());
                }
            }
            names.into_iter().collect()
        };
        gateway
            .spec
            .servers
            .iter()
            .filter_map(|server| {
                let hosts = serves(server);
                let port = server.port.as_ref()?;
                (!hosts.is_empty()).then(|| GatewayExposure {
                    gateway: gateway.object.clone(),
                    known: true,
                    port: port.number,
                    protocol: port.protocol.clone(),
                    tls: gateway::tls_use(server),
                    hosts,
                    route: object.object.clone(),
                })
            })
            .collect()
    }

    fn listeners(&self, route: &RouteObject, parent: &RouteParent) -> Vec<GatewayExposure> {
        let RouteParent::Gateway { namespace, name, listener, port } = parent else {
            return Vec::new();
        };
        let Some(gateway) = self.find_api_gateway(namespace, name) else {
            return Vec::new();
        };
        let hostnames = &route.route.spec.hostnames;
        gateway
            .spec
            .listeners
            .iter()
            .filter(|one| listener.as_deref().is_none_or(|wanted| wanted == one.name))
            .filter(|one| port.is_none_or(|wanted| i64::from(wanted) == one.port))
            .filter_map(|one| {
                let own = one.hostname.as_deref();
                let hosts: Vec<String> = match own {
                    _ if hostnames.is_empty() => vec![own.unwrap_or("*").to_owned()],
                    None => hostnames.0.clone(),
                    Some(own) => hostnames.iter().filter(|host| gateway::overlap(host, own)).cloned().collect(),
                };
                let passes = one.tls.as_ref().is_some_and(|tls| tls.mode.as_deref() == Some("Passthrough"));
                let tls = match one.protocol.as_str() {
                    "HTTPS" => gateway::ServerTlsMode::Terminated,
                    "TLS" if passes => gateway::ServerTlsMode::Passthrough,
                    "TLS" => gateway::ServerTlsMode::TerminatedAsTcp,
                    _ => gateway::ServerTlsMode::Plaintext,
                };
                (!hosts.is_empty()).then(|| GatewayExposure {
                    gateway: gateway.object.clone(),
                    known: true,
                    port: u32::try_from(one.port).unwrap_or_default(),
                    protocol: one.protocol.clone(),
                    tls,
                    hosts,
                    route: route.object.clone(),
                })
            })
            .collect()
    }
}
