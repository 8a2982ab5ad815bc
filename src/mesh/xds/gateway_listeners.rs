//! A gateway's servers and listeners.
//!
//! Sources: `mergeGateways` in `pilot/pkg/model/gateway.go` and `push_context.go`, `buildGatewayListeners` in
//! `pilot/pkg/networking/core/gateway.go` of istio/istio 1.31.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::gateway_api_parents;
use super::host_patterns;
use super::listener::ListenerClass;
use super::{CallProtocol, ProxyConfig};
use crate::mesh::ids::{Namespace, ServiceId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::Service;
use crate::mesh::virtual_service::GatewayName;
use crate::schema::gateway::GatewayServer;

/// A Gateway that acts on the proxy.
struct GatewayConfig {
    name: GatewayName,
    namespace: Namespace,
    created: Option<Arc<str>>,
    servers: Vec<GatewayServer>,
    /// Of Gateway API: hosts of the Services that run it.
    services: Option<Vec<String>>,
    is_managed: bool,
}

/// A server on a port of the pod.
#[derive(Clone)]
pub(super) struct PlacedServer {
    pub(super) gateway: GatewayName,
    pub(super) server: GatewayServer,
    table: Option<String>,
}

/// All servers that share a listener.
struct ServerGroup {
    port: u16,
    protocol: Protocol,
    bind: String,
    servers: Vec<PlacedServer>,
    table: Option<String>,
}

/// What a gateway does with a connection.
pub(super) enum GatewayConnection {
    /// Nothing listens on the port.
    NoListener,
    /// The connection is closed, with the reason.
    Closed(String),
    /// Calls are routed by this table.
    Http(String),
    /// Bytes are passed on, which is not followed further.
    Bytes,
}

/// A server that istiod leaves out when it merges the Gateways of one proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedServer {
    /// Its Gateway.
    pub gateway: GatewayName,
    /// Position of the server there.
    pub server: usize,
    /// The port that it asks for.
    pub port: u32,
    /// The Gateway that has what it asks for.
    pub winner: GatewayName,
    /// What is taken: `host a.example.com with TLS`, `a name of port: https`, `protocol HTTPS`.
    pub why: String,
}

/// A gateway's servers after they were merged.
pub(super) struct MergedServers {
    pub(super) left_out: Vec<DroppedServer>,
    groups: Vec<ServerGroup>,
    pub(super) tables: BTreeMap<String, Vec<PlacedServer>>,
}

fn is_passthrough(server: &GatewayServer) -> bool {
    let mode = server.tls.as_ref().map(|tls| tls.mode.as_deref().unwrap_or("PASSTHROUGH"));
    matches!(mode, Some("PASSTHROUGH" | "AUTO_PASSTHROUGH"))
}

fn protocol(server: &GatewayServer) -> Protocol {
    server.port.as_ref().and_then(|port| Protocol::parse(&port.protocol)).unwrap_or(Protocol::Auto)
}

fn is_http(server: &GatewayServer) -> bool {
    let protocol = protocol(server);
    protocol.family() == ProtocolFamily::Http || (protocol == Protocol::Https && !is_passthrough(server))
}

fn is_tls(server: &GatewayServer) -> bool {
    server.tls.is_some() && protocol(server).family() != ProtocolFamily::Http
}

/// Hosts with their namespaces written out: `./host` by the Gateway's own, `*/host` by none.
fn sanitized(server: &GatewayServer, own: &Namespace) -> GatewayServer {
    let mut server = server.clone();
    if server.hosts.iter().any(|host| host == "*/*") {
        server.hosts.0 = vec!["*".to_owned()];
        return server;
    }
    for host in &mut server.hosts.0 {
        if let Some(rest) = host.strip_prefix("./") {
            *host = format!("{own}/{rest}");
        } else if let Some(rest) = host.strip_prefix("*/") {
            *host = rest.to_owned();
        }
    }
    server
}

impl<'m> ProxyConfig<'m> {
    /// The Services in front of the gateway's pod.
    fn own_services(&self) -> Vec<&'m Service> {
        let ids: Vec<ServiceId> = self
            .caller
            .workload
            .map(|id| self.mesh.services_by_workload.get(&id).cloned().unwrap_or_default())
            .unwrap_or_default();
        ids.into_iter().map(|id| self.mesh.service(id)).collect()
    }

    fn gateways(&self) -> Vec<GatewayConfig> {
        let mut found: Vec<GatewayConfig> = self
            .mesh
            .istio_gateways
            .iter()
            .filter(|gateway| self.caller.labels.contains_all(&gateway.selector))
            .map(|gateway| {
                let namespace = gateway.object.namespace.clone();
                GatewayConfig {
                    name: GatewayName::Named { namespace: namespace.clone(), name: Arc::clone(&gateway.object.name) },
                    namespace,
                    created: gateway.created.clone(),
                    servers: gateway.spec.servers.0.clone(),
                    services: None,
                    is_managed: false,
                }
            })
            .collect();
        let own = self.own_services();
        for listener in gateway_api_parents::listeners(self.mesh) {
            let GatewayName::Named { namespace, .. } = &listener.gateway else { continue };
            let runs = own.iter().any(|service| {
                service.namespace() == namespace && listener.services.iter().any(|host| host == service.host.as_str())
            });
            if runs {
                found.push(GatewayConfig {
                    namespace: namespace.clone(),
                    name: listener.gateway,
                    created: listener.created,
                    servers: vec![listener.server],
                    services: Some(listener.services),
                    is_managed: listener.is_managed,
                });
            }
        }
        let name = |config: &GatewayConfig| match &config.name {
            GatewayName::Mesh => String::new(),
            GatewayName::Named { name, .. } => name.to_string(),
        };
        found.sort_by(|a, b| {
            a.created.cmp(&b.created).then_with(|| name(a).cmp(&name(b))).then_with(|| a.namespace.cmp(&b.namespace))
        });
        // Into a gateway that istiod deploys, Istio Gateways of other namespaces are not merged.
        let managed: Vec<Namespace> =
            found.iter().filter(|one| one.is_managed).map(|one| one.namespace.clone()).collect();
        if !managed.is_empty() {
            found.retain(|one| one.services.is_some() || managed.contains(&one.namespace));
        }
        found
    }

    /// The port of the pod that a Gateway's port number becomes.
    fn pod_ports(&self, number: u32, services: Option<&[String]>) -> Vec<u16> {
        let own = self.own_services();
        let workload = self.caller.workload.map(|id| self.mesh.workload(id));
        let targets = own
            .iter()
            .filter(|service| services.is_none_or(|hosts| hosts.iter().any(|host| host == service.host.as_str())))
            .filter(|service| {
                services.is_some()
                    || service.labels.get("experimental.istio.io/disable-gateway-port-translation").is_none()
            })
            .flat_map(|service| &service.ports)
            .filter(|port| u32::from(port.number) == number)
            .filter_map(|port| workload.map_or(Some(port.number), |workload| port.target.number_in(workload)));
        let mut found: Vec<u16> = targets.collect();
        found.dedup();
        match services {
            Some(_) => found,
            None => found.first().copied().or_else(|| u16::try_from(number).ok()).into_iter().collect(),
        }
    }

    /// The port of the pod behind a port of the gateway's Service.
    pub(super) fn entered_port(&self, number: u16) -> u16 {
        let workload = self.caller.workload.map(|id| self.mesh.workload(id));
        let own = self.own_services();
        let port = own.iter().find_map(|service| service.port(number));
        port.and_then(|port| workload.map_or(Some(port.number), |workload| port.target.number_in(workload)))
            .unwrap_or(number)
    }

    /// Merges all Gateways that act on the proxy. What does not fit beside an earlier server is left out.
    pub(super) fn servers(&self) -> MergedServers {
        let mut servers = MergedServers { left_out: Vec::new(), groups: Vec::new(), tables: BTreeMap::new() };
        let mut known_hosts: HashMap<u16, HashMap<String, (String, GatewayName)>> = HashMap::new();
        let mut used: Vec<u16> = Vec::new();
        let mut plain: HashMap<u16, usize> = HashMap::new();
        for config in self.gateways() {
            for (at, server) in config.servers.iter().enumerate() {
                let Some(port) = &server.port else { continue };
                let left_out = |winner: &GatewayName, why: String| DroppedServer {
                    gateway: config.name.clone(),
                    server: at,
                    port: port.number,
                    winner: winner.clone(),
                    why,
                };
                let server = sanitized(server, &config.namespace);
                for number in self.pod_ports(port.number, config.services.as_deref()) {
                    let bind = server.bind.clone().unwrap_or_default();
                    let table = table_name(&server, number, &config.name);
                    if server.tls.is_some() {
                        let known = known_hosts.entry(number).or_default();
                        let taken = server.hosts.iter().find_map(|host| {
                            known.get(host).filter(|(have, _)| *have == bind).map(|(_, winner)| (host, winner))
                        });
                        if let Some((host, winner)) = taken {
                            servers.left_out.push(left_out(winner, format!("host {host} with TLS")));
                            continue;
                        }
                        let own = server.hosts.iter().map(|host| (host.clone(), (bind.clone(), config.name.clone())));
                        known.extend(own);
                    }
                    let protocol = protocol(&server);
                    let placed =
                        PlacedServer { gateway: config.name.clone(), server: server.clone(), table: table.clone() };
                    let same = servers
                        .groups
                        .iter()
                        .position(|one| one.port == number && one.protocol == protocol && one.bind == bind);
                    if !used.contains(&number) {
                        used.push(number);
                        servers.open(placed, number, protocol, bind, &mut plain);
                        continue;
                    }
                    if let Some(current) = plain.get(&number).copied() {
                        let (have, have_bind) =
                            (servers.groups[current].protocol, servers.groups[current].bind.clone());
                        let both_http =
                            protocol.family() == ProtocolFamily::Http && have.family() == ProtocolFamily::Http;
                        if have_bind == bind {
                            if !both_http || table.is_none() {
                                let winner = &servers.groups[current].servers[0].gateway;
                                servers.left_out.push(left_out(winner, format!("the port, for {}", have.as_str())));
                                continue;
                            }
                            servers.note(&placed);
                            servers.groups[current].servers.push(placed);
                        } else {
                            match same {
                                None => servers.open(placed, number, protocol, bind, &mut plain),
                                Some(at) => {
                                    servers.note(&placed);
                                    servers.groups[at].servers.push(placed);
                                }
                            }
                        }
                        continue;
                    }
                    if !is_tls(&server) {
                        servers.open(placed, number, protocol, bind, &mut plain);
                        continue;
                    }
                    if is_http(&server) {
                        let Some(table) = &table else { continue };
                        if let Some(first) = servers.tables.get(table).and_then(|placed| placed.first()) {
                            servers.left_out.push(left_out(&first.gateway, "the same name of the port".to_owned()));
                            continue;
                        }
                        servers.note(&placed);
                    }
                    match same {
                        None => {
                            servers.groups.push(ServerGroup {
                                port: number,
                                protocol,
                                bind,
                                servers: vec![placed],
                                table,
                            });
                        }
                        Some(at) => servers.groups[at].servers.push(placed),
                    }
                }
            }
        }
        servers
    }

    /// What the gateway does with a connection to a port of its Service.
    pub(super) fn enter(
        &self,
        servers: &MergedServers,
        number: u16,
        protocol: CallProtocol,
        server_name: &str,
    ) -> GatewayConnection {
        let port = self.entered_port(number);
        let groups: Vec<&ServerGroup> = servers.groups.iter().filter(|one| one.port == port).collect();
        let mut chains: Vec<(Vec<String>, Option<&str>, bool)> = Vec::new();
        for group in &groups {
            if group.protocol.family() == ProtocolFamily::Http {
                chains.push((Vec::new(), group.table.as_deref(), false));
                continue;
            }
            for placed in &group.servers {
                let terminates = group.protocol == Protocol::Https && !is_passthrough(&placed.server);
                if terminates {
                    let names = placed
                        .server
                        .hosts
                        .iter()
                        .map(|host| host.split_once('/').map_or(host.as_str(), |(_, host)| host).to_owned());
                    let mut names: Vec<String> = names.collect();
                    if names.iter().any(|name| name == "*") {
                        names.clear();
                    }
                    chains.push((names, placed.table.as_deref(), true));
                } else {
                    chains.extend(
                        self.byte_chains(placed).into_iter().map(|names| (names, None, is_tls(&placed.server))),
                    );
                }
            }
        }
        if chains.is_empty() {
            return GatewayConnection::NoListener;
        }
        let speaks_tls = protocol == CallProtocol::GrpcTls;
        let name = if speaks_tls { server_name } else { "" };
        let mut fitting: Vec<&str> = chains
            .iter()
            .flat_map(|(names, ..)| names.iter().map(String::as_str))
            .filter(|pattern| !name.is_empty() && host_patterns::is_subset(name, pattern))
            .collect();
        fitting.sort_by(|a, b| host_patterns::by_precision(a, b));
        let chosen: Vec<&(Vec<String>, Option<&str>, bool)> = match fitting.first().copied() {
            Some(pattern) => chains.iter().filter(|(names, ..)| names.iter().any(|name| name == pattern)).collect(),
            None => chains.iter().filter(|(names, ..)| names.is_empty()).collect(),
        };
        match chosen.as_slice() {
            [] if !speaks_tls && chains.iter().all(|(.., with_tls)| *with_tls) => {
                GatewayConnection::Closed("the gateway's servers on this port want TLS".to_owned())
            }
            [] => GatewayConnection::Closed("no server of the gateway has this name".to_owned()),
            [(_, table, with_tls)] => match (table, with_tls, speaks_tls) {
                (Some(_), true, false) => GatewayConnection::Closed("the gateway's server wants TLS".to_owned()),
                (Some(_), false, true) => GatewayConnection::Closed("the gateway's server is plain text".to_owned()),
                (Some(table), ..) => GatewayConnection::Http((*table).to_owned()),
                (None, ..) => GatewayConnection::Bytes,
            },
            _ => GatewayConnection::Closed(
                "several servers of the gateway take the same names, which Envoy refuses".to_owned(),
            ),
        }
    }

    /// Names of the chains that pass bytes on, one list a rule of `tcp` or `tls` that fits.
    pub(super) fn byte_chains(&self, placed: &PlacedServer) -> Vec<Vec<String>> {
        let PlacedServer { gateway, server, .. } = placed;
        let port = server.port.as_ref().map_or(0, |port| port.number);
        let fits = |one: &crate::schema::virtual_service::L4Match, namespace: &Namespace| {
            one.port.is_none_or(|wanted| wanted == 0 || wanted == port)
                && (one.gateways.is_empty()
                    || one.gateways.iter().any(|name| GatewayName::parse(name, namespace) == *gateway))
        };
        let mut chains = Vec::new();
        for config in self.mesh.route_configs().visible(gateway, &self.caller.namespace) {
            let hosts: Vec<&str> = server_hosts(server, &config.namespace);
            if !config.hosts.iter().any(|host| hosts.iter().any(|own| host_patterns::overlap(own, host.as_str()))) {
                continue;
            }
            if is_passthrough(server) {
                for rule in config.tls(self.mesh).iter().filter(|rule| !rule.route.is_empty()) {
                    let own = rule.matches.iter().filter(|one| fits(one, &config.namespace));
                    chains.extend(own.map(|one| one.sni_hosts.0.clone()));
                }
            } else {
                let mut rules = config.tcp(self.mesh).iter().filter(|rule| !rule.route.is_empty());
                let first = rules.find(|rule| {
                    rule.matches.is_empty() || rule.matches.iter().any(|one| fits(one, &config.namespace))
                });
                if first.is_some() {
                    let names = if server.tls.is_some() {
                        hosts.iter().map(|&host| host.to_owned()).collect()
                    } else {
                        Vec::new()
                    };
                    return vec![names];
                }
            }
        }
        chains
    }

    /// The class of a gateway's listener.
    pub(super) fn class(entered: &GatewayConnection) -> ListenerClass {
        match entered {
            GatewayConnection::Http(_) => ListenerClass::Http,
            GatewayConnection::Bytes | GatewayConnection::Closed(_) => ListenerClass::Tcp,
            GatewayConnection::NoListener => ListenerClass::None,
        }
    }
}

/// Hosts of a server for configurations of a namespace.
pub(super) fn server_hosts<'s>(server: &'s GatewayServer, namespace: &Namespace) -> Vec<&'s str> {
    server
        .hosts
        .iter()
        .filter_map(|host| match host.split_once('/') {
            Some((of, host)) => (of == namespace.as_str() || of == "*").then_some(host),
            None => Some(host.as_str()),
        })
        .collect()
}

fn table_name(server: &GatewayServer, port: u16, gateway: &GatewayName) -> Option<String> {
    let bind =
        server.bind.as_deref().filter(|bind| !bind.is_empty()).map(|bind| format!(".{bind}")).unwrap_or_default();
    let written = server.port.as_ref()?;
    match protocol(server) {
        one if one.family() == ProtocolFamily::Http => Some(format!("http.{port}{bind}")),
        Protocol::Https if !is_passthrough(server) => {
            let (namespace, name) = match gateway {
                GatewayName::Named { namespace, name } => (namespace.as_str(), &**name),
                GatewayName::Mesh => ("", ""),
            };
            Some(format!("https.{}.{}.{name}.{namespace}{bind}", written.number, written.name))
        }
        _ => None,
    }
}

impl MergedServers {
    /// The servers that are not left out.
    pub(super) fn all(&self) -> impl Iterator<Item = &PlacedServer> {
        self.groups.iter().flat_map(|group| &group.servers)
    }

    fn note(&mut self, placed: &PlacedServer) {
        if let Some(table) = &placed.table {
            self.tables.entry(table.clone()).or_default().push(placed.clone());
        }
    }

    fn open(
        &mut self,
        placed: PlacedServer,
        port: u16,
        protocol: Protocol,
        bind: String,
        plain: &mut HashMap<u16, usize>,
    ) {
        if !is_tls(&placed.server) {
            plain.insert(port, self.groups.len());
        }
        if is_http(&placed.server)
            && let Some(table) = &placed.table
        {
            self.tables.insert(table.clone(), vec![placed.clone()]);
        }
        let table = placed.table.clone();
        self.groups.push(ServerGroup { port, protocol, bind, servers: vec![placed], table });
    }
}
