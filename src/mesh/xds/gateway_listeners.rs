//! The servers of one gateway: merges all Gateways that select it, builds its listeners, and selects the server that
//! accepts a connection.
//!
//! Sources: `mergeGateways` in `pilot/pkg/model/gateway.go` and `push_context.go`, `buildGatewayListeners` in
//! `pilot/pkg/networking/core/gateway.go` of istio/istio 1.31.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::gateway_api_parents;
use super::host_patterns;
use super::listener::ListenerClass;
use super::{CallProtocol, ProxyConfig};
use crate::mesh::behavior::IstiodBehavior;
use crate::mesh::ids::{Namespace, ServiceId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::Service;
use crate::mesh::virtual_service::GatewayName;
use crate::schema::gateway::GatewayServer;

/// A Gateway that selects the proxy.
struct GatewayConfig {
    name: GatewayName,
    namespace: Namespace,
    created: Option<Arc<str>>,
    servers: Vec<GatewayServer>,
    /// Hosts of the Services in front of it; `None` for an Istio Gateway.
    services: Option<Vec<String>>,
    is_managed: bool,
}

/// A server bound to a port of the gateway's pod.
#[derive(Clone)]
pub(super) struct BoundServer {
    pub(super) gateway: GatewayName,
    pub(super) server: GatewayServer,
    table: Option<String>,
}

/// The servers that share a listener.
struct ServerGroup {
    port: u16,
    protocol: Protocol,
    bind: String,
    servers: Vec<BoundServer>,
    table: Option<String>,
}

/// The decision of a gateway about a connection.
pub(super) enum GatewayConnection {
    /// Nothing listens on the port.
    NoListener,
    /// The connection is closed, with the reason.
    Closed(String),
    /// Calls are routed by this table.
    Http(String),
    /// The TCP stream is forwarded. Its backend is not computed.
    Tcp,
}

impl GatewayConnection {
    pub(super) fn listener(&self) -> ListenerClass {
        match self {
            Self::Http(_) => ListenerClass::Http,
            Self::Tcp | Self::Closed(_) => ListenerClass::Tcp,
            Self::NoListener => ListenerClass::None,
        }
    }
}

/// A server that istiod drops when it merges the Gateways of one proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedServer {
    /// Its Gateway.
    pub gateway: GatewayName,
    /// Index of the server in the Gateway.
    pub server: usize,
    /// The port that it requests.
    pub port: u32,
    /// The Gateway whose server it conflicts with.
    pub winner: GatewayName,
    /// The setting that the winner already serves, such as `host a.example.com with TLS`.
    pub reason: String,
}

/// A server whose TLS server name another server on the port has too, so that Envoy rejects the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateServer {
    /// Its Gateway.
    pub gateway: GatewayName,
    /// Its port.
    pub port: u32,
    /// The server name, `*` for all.
    pub name: String,
    /// The Gateway of the first server with the name.
    pub other: GatewayName,
}

/// A filter chain of a gateway's listener.
struct GatewayFilterChain<'s> {
    /// TLS server names; empty matches all.
    names: Vec<String>,
    /// The route table; `None` forwards connections.
    table: Option<&'s str>,
    requires_tls: bool,
    /// `None` for plaintext, where servers share one chain.
    server: Option<&'s BoundServer>,
}

/// The servers of one gateway after the merge.
pub(super) struct MergedServers {
    pub(super) dropped: Vec<DroppedServer>,
    groups: Vec<ServerGroup>,
    pub(super) tables: BTreeMap<String, Vec<BoundServer>>,
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

/// Normalizes the namespaces of hosts: `./host` gets the Gateway's own namespace, `*/host` loses the prefix.
fn with_normalized_hosts(server: &GatewayServer, own_namespace: &Namespace) -> GatewayServer {
    let mut server = server.clone();
    if server.hosts.iter().any(|host| host == "*/*") {
        server.hosts.0 = vec!["*".to_owned()];
        return server;
    }
    for host in &mut server.hosts.0 {
        if let Some(rest) = host.strip_prefix("./") {
            *host = format!("{own_namespace}/{rest}");
        } else if let Some(rest) = host.strip_prefix("*/") {
            *host = rest.to_owned();
        }
    }
    server
}

impl<'m> ProxyConfig<'m> {
    /// The Services in front of the gateway's pod.
    fn gateway_services(&self) -> Vec<&'m Service> {
        let ids: Vec<ServiceId> = self
            .caller
            .workload
            .map(|id| self.mesh.services_by_workload.get(&id).cloned().unwrap_or_default())
            .unwrap_or_default();
        ids.into_iter().map(|id| self.mesh.service(id)).collect()
    }

    fn gateways(&self) -> Vec<GatewayConfig> {
        let is_scoped = self.mesh.has_behavior(IstiodBehavior::NamespacedGateways);
        let mut gateways: Vec<GatewayConfig> = self
            .mesh
            .istio_gateways
            .iter()
            .filter(|gateway| self.caller.labels.contains_all(&gateway.selector))
            .filter(|gateway| !is_scoped || gateway.object.namespace == self.caller.namespace)
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
        let own_services = self.gateway_services();
        for listener in gateway_api_parents::listeners(self.mesh) {
            let namespace = &listener.service_namespace;
            let is_own = own_services.iter().any(|service| {
                service.namespace() == namespace && listener.services.iter().any(|host| host == service.host.as_str())
            });
            if is_own {
                gateways.push(GatewayConfig {
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
        gateways.sort_by(|a, b| {
            a.created.cmp(&b.created).then_with(|| name(a).cmp(&name(b))).then_with(|| a.namespace.cmp(&b.namespace))
        });
        // istiod merges no Istio Gateways of other namespaces into a gateway that it deploys itself.
        let managed: Vec<Namespace> =
            gateways.iter().filter(|gateway| gateway.is_managed).map(|gateway| gateway.namespace.clone()).collect();
        if !managed.is_empty() && self.mesh.has_behavior(IstiodBehavior::StrictGatewayMerging) {
            gateways.retain(|gateway| gateway.services.is_some() || managed.contains(&gateway.namespace));
        }
        gateways
    }

    /// The ports of the pod that a Gateway's port number translates to, through the Services in front of the pod.
    fn pod_ports(&self, number: u32, services: Option<&[String]>) -> Vec<u16> {
        let own_services = self.gateway_services();
        let workload = self.caller.workload.map(|id| self.mesh.workload(id));
        let targets = own_services
            .iter()
            .filter(|service| services.is_none_or(|hosts| hosts.iter().any(|host| host == service.host.as_str())))
            .filter(|service| {
                services.is_some()
                    || service.labels.get("experimental.istio.io/disable-gateway-port-translation").is_none()
            })
            .flat_map(|service| &service.ports)
            .filter(|port| u32::from(port.number) == number)
            .filter_map(|port| workload.map_or(Some(port.number), |workload| port.target.number_in(workload)));
        let mut ports: Vec<u16> = targets.collect();
        ports.dedup();
        match services {
            Some(_) => ports,
            None => ports.first().copied().or_else(|| u16::try_from(number).ok()).into_iter().collect(),
        }
    }

    /// The pod port that a port of the gateway's Service leads to.
    pub(super) fn pod_port(&self, number: u16) -> u16 {
        let workload = self.caller.workload.map(|id| self.mesh.workload(id));
        let own_services = self.gateway_services();
        let port = own_services.iter().find_map(|service| service.port(number));
        port.and_then(|port| workload.map_or(Some(port.number), |workload| port.target.number_in(workload)))
            .unwrap_or(number)
    }

    /// Merges all Gateways that select the proxy, oldest first. A server that conflicts with an earlier one is dropped.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    pub(super) fn servers(&self) -> MergedServers {
        let mut servers = MergedServers { dropped: Vec::new(), groups: Vec::new(), tables: BTreeMap::new() };
        // Hosts of TLS servers by port, each with its bind address and Gateway.
        let mut tls_hosts: HashMap<u16, HashMap<String, (String, GatewayName)>> = HashMap::new();
        let mut used_ports: Vec<u16> = Vec::new();
        // The group of plain-text servers by port.
        let mut plain_groups: HashMap<u16, usize> = HashMap::new();
        for config in self.gateways() {
            for (index, server) in config.servers.iter().enumerate() {
                let Some(port) = &server.port else { continue };
                let dropped = |winner: &GatewayName, reason: String| DroppedServer {
                    gateway: config.name.clone(),
                    server: index,
                    port: port.number,
                    winner: winner.clone(),
                    reason,
                };
                let server = with_normalized_hosts(server, &config.namespace);
                for number in self.pod_ports(port.number, config.services.as_deref()) {
                    let bind = server.bind.clone().unwrap_or_default();
                    let table = table_name(&server, number, &config.name);
                    if server.tls.is_some() {
                        let served = tls_hosts.entry(number).or_default();
                        let conflict = server.hosts.iter().find_map(|host| {
                            served.get(host).filter(|(other, _)| *other == bind).map(|(_, winner)| (host, winner))
                        });
                        if let Some((host, winner)) = conflict {
                            servers.dropped.push(dropped(winner, format!("host {host} with TLS")));
                            continue;
                        }
                        let server_hosts =
                            server.hosts.iter().map(|host| (host.clone(), (bind.clone(), config.name.clone())));
                        served.extend(server_hosts);
                    }
                    let protocol = protocol(&server);
                    let bound =
                        BoundServer { gateway: config.name.clone(), server: server.clone(), table: table.clone() };
                    let same_group = servers
                        .groups
                        .iter()
                        .position(|group| group.port == number && group.protocol == protocol && group.bind == bind);
                    if !used_ports.contains(&number) {
                        used_ports.push(number);
                        servers.add_group(bound, number, protocol, bind, &mut plain_groups);
                        continue;
                    }
                    if let Some(current) = plain_groups.get(&number).copied() {
                        let (current_protocol, current_bind) =
                            (servers.groups[current].protocol, servers.groups[current].bind.clone());
                        let share_http = protocol.family() == ProtocolFamily::Http
                            && current_protocol.family() == ProtocolFamily::Http;
                        if current_bind == bind {
                            if !share_http || table.is_none() {
                                let winner = &servers.groups[current].servers[0].gateway;
                                let reason =
                                    format!("a server with protocol {} on the port", current_protocol.as_str());
                                servers.dropped.push(dropped(winner, reason));
                                continue;
                            }
                            servers.add_to_table(&bound);
                            servers.groups[current].servers.push(bound);
                        } else {
                            match same_group {
                                None => servers.add_group(bound, number, protocol, bind, &mut plain_groups),
                                Some(position) => {
                                    servers.add_to_table(&bound);
                                    servers.groups[position].servers.push(bound);
                                }
                            }
                        }
                        continue;
                    }
                    if !is_tls(&server) {
                        servers.add_group(bound, number, protocol, bind, &mut plain_groups);
                        continue;
                    }
                    if is_http(&server) {
                        let Some(table) = &table else { continue };
                        if let Some(first) = servers.tables.get(table).and_then(|servers| servers.first()) {
                            servers
                                .dropped
                                .push(dropped(&first.gateway, "a server with the same port name".to_owned()));
                            continue;
                        }
                        servers.add_to_table(&bound);
                    }
                    match same_group {
                        None => {
                            servers.groups.push(ServerGroup {
                                port: number,
                                protocol,
                                bind,
                                servers: vec![bound],
                                table,
                            });
                        }
                        Some(position) => servers.groups[position].servers.push(bound),
                    }
                }
            }
        }
        servers
    }

    /// The filter chains of the listener on a port of the pod.
    fn filter_chains<'s>(&self, servers: &'s MergedServers, port: u16) -> Vec<GatewayFilterChain<'s>> {
        let mut chains = Vec::new();
        for group in servers.groups.iter().filter(|group| group.port == port) {
            if group.protocol.family() == ProtocolFamily::Http {
                let table = group.table.as_deref();
                chains.push(GatewayFilterChain { names: Vec::new(), table, requires_tls: false, server: None });
                continue;
            }
            for bound in &group.servers {
                let terminates_tls = group.protocol == Protocol::Https && !is_passthrough(&bound.server);
                if terminates_tls {
                    let names = bound
                        .server
                        .hosts
                        .iter()
                        .map(|host| host.split_once('/').map_or(host.as_str(), |(_, host)| host).to_owned());
                    let mut names: Vec<String> = names.collect();
                    if names.iter().any(|name| name == "*") {
                        names.clear();
                    }
                    let table = bound.table.as_deref();
                    chains.push(GatewayFilterChain { names, table, requires_tls: true, server: Some(bound) });
                } else {
                    let requires_tls = is_tls(&bound.server);
                    let forwarding = self.tcp_chain_names(bound).into_iter();
                    chains.extend(forwarding.map(|names| GatewayFilterChain {
                        names,
                        table: None,
                        requires_tls,
                        server: Some(bound),
                    }));
                }
            }
        }
        chains
    }

    /// Servers with the same TLS server name as another one on their port. Envoy rejects a listener with such servers.
    pub(super) fn duplicate_servers(&self, servers: &MergedServers) -> Vec<DuplicateServer> {
        let ports: BTreeSet<u16> = servers.groups.iter().map(|group| group.port).collect();
        let mut duplicates = Vec::new();
        for port in ports {
            let mut first_by_name: HashMap<String, (usize, &BoundServer)> = HashMap::new();
            for (index, chain) in self.filter_chains(servers, port).into_iter().enumerate() {
                let Some(server) = chain.server else { continue };
                let any = ["*".to_owned()];
                for name in if chain.names.is_empty() { &any[..] } else { &chain.names } {
                    let (first_index, first) = *first_by_name.entry(name.clone()).or_insert((index, server));
                    if first_index == index {
                        continue;
                    }
                    duplicates.push(DuplicateServer {
                        gateway: server.gateway.clone(),
                        port: server.server.port.as_ref().map_or(0, |port| port.number),
                        name: name.clone(),
                        other: first.gateway.clone(),
                    });
                }
            }
        }
        duplicates
    }

    /// Selects the server that accepts a connection to a port of the gateway's Service.
    pub(super) fn accept_gateway_connection(
        &self,
        servers: &MergedServers,
        number: u16,
        protocol: CallProtocol,
        server_name: &str,
    ) -> GatewayConnection {
        let chains = self.filter_chains(servers, self.pod_port(number));
        if chains.is_empty() {
            return GatewayConnection::NoListener;
        }
        let uses_tls = protocol == CallProtocol::GrpcTls;
        let name = if uses_tls { server_name } else { "" };
        let mut patterns: Vec<&str> = chains
            .iter()
            .flat_map(|chain| chain.names.iter().map(String::as_str))
            .filter(|pattern| !name.is_empty() && host_patterns::is_subset(name, pattern))
            .collect();
        patterns.sort_by(|a, b| host_patterns::by_specificity(a, b));
        let matching: Vec<&GatewayFilterChain<'_>> = match patterns.first().copied() {
            Some(pattern) => chains.iter().filter(|chain| chain.names.iter().any(|name| name == pattern)).collect(),
            None => chains.iter().filter(|chain| chain.names.is_empty()).collect(),
        };
        match matching.as_slice() {
            [] if !uses_tls && chains.iter().all(|chain| chain.requires_tls) => {
                GatewayConnection::Closed("all servers of the gateway on this port require TLS".to_owned())
            }
            [] => GatewayConnection::Closed("no server of the gateway serves this host name".to_owned()),
            [chain] => match (chain.table, chain.requires_tls, uses_tls) {
                (Some(_), true, false) => GatewayConnection::Closed("the gateway's server requires TLS".to_owned()),
                (Some(_), false, true) => {
                    GatewayConnection::Closed("the gateway's server expects plaintext, not TLS".to_owned())
                }
                (Some(table), ..) => GatewayConnection::Http(table.to_owned()),
                (None, ..) => GatewayConnection::Tcp,
            },
            _ => GatewayConnection::Closed(
                "several servers of the gateway match the same names, so Envoy rejects the listener".to_owned(),
            ),
        }
    }

    /// The SNI names of the filter chains that forward a server's TCP streams: one list for each `tcp` or `tls` rule
    /// that applies.
    pub(super) fn tcp_chain_names(&self, bound: &BoundServer) -> Vec<Vec<String>> {
        let BoundServer { gateway, server, .. } = bound;
        let port = server.port.as_ref().map_or(0, |port| port.number);
        let applies = |conditions: &crate::schema::virtual_service::L4Match, namespace: &Namespace| {
            conditions.port.is_none_or(|required| required == 0 || required == port)
                && (conditions.gateways.is_empty()
                    || conditions.gateways.iter().any(|name| GatewayName::parse(name, namespace) == *gateway))
        };
        let mut chains = Vec::new();
        for config in self.mesh.route_configs().visible_configs(gateway, &self.caller.namespace) {
            let hosts: Vec<&str> = server_hosts(server, &config.namespace);
            if !config.hosts.iter().any(|host| hosts.iter().any(|own| host_patterns::overlap(own, host.as_str()))) {
                continue;
            }
            if is_passthrough(server) {
                for rule in config.tls(self.mesh).iter().filter(|rule| !rule.route.is_empty()) {
                    let applying = rule.matches.iter().filter(|conditions| applies(conditions, &config.namespace));
                    chains.extend(applying.map(|conditions| conditions.sni_hosts.0.clone()));
                }
            } else {
                let mut rules = config.tcp(self.mesh).iter().filter(|rule| !rule.route.is_empty());
                let first = rules.find(|rule| {
                    rule.matches.is_empty()
                        || rule.matches.iter().any(|conditions| applies(conditions, &config.namespace))
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
}

/// The hosts that a server offers to route configurations of a namespace.
pub(super) fn server_hosts<'s>(server: &'s GatewayServer, namespace: &Namespace) -> Vec<&'s str> {
    server
        .hosts
        .iter()
        .filter_map(|host| match host.split_once('/') {
            Some((allowed, host)) => (allowed == namespace.as_str() || allowed == "*").then_some(host),
            None => Some(host.as_str()),
        })
        .collect()
}

fn table_name(server: &GatewayServer, port: u16, gateway: &GatewayName) -> Option<String> {
    let bind =
        server.bind.as_deref().filter(|bind| !bind.is_empty()).map(|bind| format!(".{bind}")).unwrap_or_default();
    let server_port = server.port.as_ref()?;
    match protocol(server) {
        protocol if protocol.family() == ProtocolFamily::Http => Some(format!("http.{port}{bind}")),
        Protocol::Https if !is_passthrough(server) => {
            let (namespace, name) = match gateway {
                GatewayName::Named { namespace, name } => (namespace.as_str(), &**name),
                GatewayName::Mesh => ("", ""),
            };
            Some(format!("https.{}.{}.{name}.{namespace}{bind}", server_port.number, server_port.name))
        }
        _ => None,
    }
}

impl MergedServers {
    /// The servers that are not dropped.
    pub(super) fn all(&self) -> impl Iterator<Item = &BoundServer> {
        self.groups.iter().flat_map(|group| &group.servers)
    }

    fn add_to_table(&mut self, bound: &BoundServer) {
        if let Some(table) = &bound.table {
            self.tables.entry(table.clone()).or_default().push(bound.clone());
        }
    }

    fn add_group(
        &mut self,
        bound: BoundServer,
        port: u16,
        protocol: Protocol,
        bind: String,
        plain_groups: &mut HashMap<u16, usize>,
    ) {
        if !is_tls(&bound.server) {
            plain_groups.insert(port, self.groups.len());
        }
        if is_http(&bound.server)
            && let Some(table) = &bound.table
        {
            self.tables.insert(table.clone(), vec![bound.clone()]);
        }
        let table = bound.table.clone();
        self.groups.push(ServerGroup { port, protocol, bind, servers: vec![bound], table });
    }
}
