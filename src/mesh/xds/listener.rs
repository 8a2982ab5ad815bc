//! Which listener of a sidecar takes a connection, and what that does with it.
//!
//! Sources: `buildSidecarOutboundListeners`, `buildSidecarOutboundListener` and `mergeTCPFilterChains` in
//! `pilot/pkg/networking/core/listener.go`, and `tls.go` beside it, of istio/istio 1.31; Envoy's filter chain matching
//! (`config/listener/v3/listener_components.proto`, `FilterChainMatch`).

use std::rc::Rc;

use super::host_patterns;
use super::route_config::RouteConfig;
use super::scope::{VisibleListener, VisibleService};
use super::{CallProtocol, CompiledBackend, DialedAddress, ProxyConfig};
use crate::mesh::Mesh;
use crate::mesh::ids::{Host, ServiceId, WorkloadId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::{Resolution, Service};
use crate::mesh::traffic_exclusion::IpRange;
use crate::mesh::virtual_service::GatewayName;
use crate::mesh::workload::Readiness;
use crate::schema::virtual_service::{Destination, L4Match, RouteDestination};

/// Ports that the proxy itself listens on: istiod makes no outbound listener for them.
pub(crate) const RESERVED: [u16; 4] = [15001, 15006, 15021, 15090];

/// What becomes of a connection.
#[derive(Debug, Clone)]
pub(super) enum FilterChain {
    /// Calls are routed one by one.
    Http(RouteTableName),
    /// Bytes go to one of these.
    Tcp(Vec<CompiledBackend>),
    /// Bytes go where the client dialled, or nowhere.
    Unknown,
}

/// The routes that a listener uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RouteTableName {
    /// Those of all Services on the port.
    Port(u16),
    /// Those of one Service, whatever the authority.
    Service(Host, u16),
}

impl std::fmt::Display for RouteTableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{port}"),
            Self::Service(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// A filter chain with its conditions.
#[derive(Debug, Clone)]
struct MatchedChain {
    /// Names of the TLS handshake.
    names: Vec<String>,
    /// Addresses that were dialled.
    ranges: Vec<IpRange>,
    /// Only what begins like HTTP in plain text.
    plain_http: bool,
    chain: FilterChain,
}

impl MatchedChain {
    fn takes_all(&self) -> bool {
        (self.names.is_empty() || self.names.iter().any(|name| name == "*"))
            && self.ranges.is_empty()
            && !self.plain_http
    }

    fn clashes(&self, other: &Self) -> bool {
        let names = |one: &Self| {
            let mut names: Vec<_> = one.names.iter().filter(|name| *name != "*").cloned().collect();
            names.sort();
            names
        };
        let ranges = |one: &Self| {
            let mut ranges = one.ranges.clone();
            ranges.sort();
            ranges
        };
        self.plain_http == other.plain_http && names(self) == names(other) && ranges(self) == ranges(other)
    }
}

/// A listener while it is put together.
#[derive(Debug)]
pub(super) struct CompiledListener {
    bind: DialedAddress,
    port: u16,
    protocol: Protocol,
    /// Made for a port that a Sidecar names: nothing is added by the listener for all ports.
    is_locked: bool,
    chains: Vec<MatchedChain>,
}

/// What a listener is to the program's users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerClass {
    /// Shared by all HTTP Services of a port.
    Http,
    /// Detects what is spoken.
    Auto,
    /// Passes bytes on.
    Tcp,
    /// None: the one that takes everything else.
    None,
}

/// The answer of a proxy's listeners to a connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionDecision {
    pub(super) class: ListenerClass,
    pub(super) chain: FilterChain,
}

impl ProxyConfig<'_> {
    /// What the sidecar does with a connection to an address and port.
    pub(super) fn take(
        &self,
        address: DialedAddress,
        port: u16,
        protocol: CallProtocol,
        server_name: &str,
    ) -> ConnectionDecision {
        let listeners = self.listeners_at(port);
        let exact =
            (address != DialedAddress::Unknown).then(|| listeners.iter().find(|one| one.bind == address)).flatten();
        let Some(listener) = exact.or_else(|| listeners.iter().find(|one| one.bind == DialedAddress::Any)) else {
            return ConnectionDecision { class: ListenerClass::None, chain: FilterChain::Unknown };
        };
        let is_http = |one: &MatchedChain| matches!(one.chain, FilterChain::Http(_));
        let class = match (listener.chains.iter().any(is_http), listener.bind == DialedAddress::Any) {
            (true, true) => ListenerClass::Http,
            (true, false) => ListenerClass::Auto,
            (false, _) => ListenerClass::Tcp,
        };
        ConnectionDecision { class, chain: choose(&listener.chains, address, protocol, server_name) }
    }

    /// The route tables that the listeners of a port use.
    pub(super) fn tables_of_port(&self, port: u16) -> Vec<RouteTableName> {
        let listeners = self.listeners_at(port);
        let chains = listeners.iter().flat_map(|listener| &listener.chains);
        chains
            .filter_map(|one| match &one.chain {
                FilterChain::Http(table) => Some(table.clone()),
                FilterChain::Tcp(_) | FilterChain::Unknown => None,
            })
            .collect()
    }

    fn listeners_at(&self, port: u16) -> Rc<Vec<CompiledListener>> {
        if let Some(known) = self.listeners.borrow().get(&port) {
            return Rc::clone(known);
        }
        let made = Rc::new(self.make_listeners(port));
        self.listeners.borrow_mut().insert(port, Rc::clone(&made));
        made
    }

    fn make_listeners(&self, port: u16) -> Vec<CompiledListener> {
        let mut listeners: Vec<CompiledListener> = Vec::new();
        for egress in &self.scope.listeners {
            let bind = egress.bind.filter(|bind| !bind.is_empty());
            let bind = bind.map(|bind| bind.parse().map_or(DialedAddress::Unknown, DialedAddress::Ip));
            if let Some((own, protocol)) = egress.port {
                if own != port {
                    continue;
                }
                for seen in &egress.services {
                    self.add(&mut listeners, egress, seen, port, protocol, bind);
                }
                continue;
            }
            for one in &mut listeners {
                one.is_locked = true;
            }
            for seen in &egress.services {
                let Some(service_port) = seen.port(self.mesh, port) else { continue };
                let protocol = service_port.protocol;
                let service = self.mesh.service(seen.service);
                let by_pod = matches!(protocol.family(), ProtocolFamily::Tcp | ProtocolFamily::Auto)
                    && bind.is_none()
                    && address_of(self.mesh, seen.service) == DialedAddress::Any
                    && is_passed_through(service);
                if !by_pod {
                    self.add(&mut listeners, egress, seen, port, protocol, bind);
                    continue;
                }
                let pods = self.pod_addresses(service);
                if pods.is_empty() && !service.is_kubernetes() && service.selector.is_empty() {
                    self.add(&mut listeners, egress, seen, port, protocol, None);
                }
                for pod in pods {
                    // A pod that calls itself by its address does not come by here.
                    if self.caller.address(self.mesh) != pod {
                        self.add(&mut listeners, egress, seen, port, protocol, Some(pod));
                    }
                }
            }
        }
        listeners
    }

    /// Addresses of a Service's endpoints.
    pub(super) fn pod_addresses(&self, service: &Service) -> Vec<DialedAddress> {
        let ready =
            |id: &&WorkloadId| service.publishes_not_ready || self.mesh.workload(**id).readiness != Readiness::NotReady;
        service.workloads.iter().filter(ready).map(|id| DialedAddress::of_pod(self.mesh, *id)).collect()
    }

    fn add(
        &self,
        listeners: &mut Vec<CompiledListener>,
        egress: &VisibleListener<'_>,
        seen: &VisibleService,
        port: u16,
        protocol: Protocol,
        bind: Option<DialedAddress>,
    ) {
        let service = self.mesh.service(seen.service);
        let family = protocol.family();
        let reserved = RESERVED.contains(&port);
        if Mesh::is_alias(service) || family == ProtocolFamily::Nothing {
            return;
        }
        let shared = matches!(bind, Some(DialedAddress::Any)) || (bind.is_none() && family == ProtocolFamily::Http);
        if reserved && shared {
            return;
        }
        let mut ranges = Vec::new();
        let bind = bind.unwrap_or_else(|| match family {
            ProtocolFamily::Http => DialedAddress::Any,
            _ if service.addresses.is_empty() && !service.ranges.is_empty() => {
                ranges.clone_from(&service.ranges);
                DialedAddress::Any
            }
            _ => address_of(self.mesh, seen.service),
        });
        let at = listeners.iter().position(|one| one.bind == bind && one.port == port);
        if at.is_some_and(|at| listeners[at].is_locked) {
            return;
        }
        let http = |plain_http: bool| {
            let sniffed = family == ProtocolFamily::Auto && bind != DialedAddress::Any;
            let table =
                if sniffed { RouteTableName::Service(service.host.clone(), port) } else { RouteTableName::Port(port) };
            MatchedChain { names: Vec::new(), ranges: Vec::new(), plain_http, chain: FilterChain::Http(table) }
        };
        let existing = at.map(|at| listeners[at].protocol);
        let (chains, new_protocol) = match family {
            ProtocolFamily::Http => {
                if existing.is_some_and(|existing| existing.family() != ProtocolFamily::Tcp) {
                    return;
                }
                // On the shared listener, what is no HTTP goes on as bytes, so it is one that detects.
                let shared = bind == DialedAddress::Any && protocol != Protocol::HttpProxy;
                (vec![http(shared)], if shared { Protocol::Auto } else { protocol })
            }
            ProtocolFamily::Auto => {
                if existing.is_some_and(|existing| existing.family() == ProtocolFamily::Auto) {
                    return;
                }
                let mut chains = self.tcp_chains(egress, seen, port, protocol, bind, &ranges);
                chains.push(http(true));
                (chains, protocol)
            }
            ProtocolFamily::Tcp | ProtocolFamily::Nothing => {
                (self.tcp_chains(egress, seen, port, protocol, bind, &ranges), protocol)
            }
        };
        let alone = |one: Protocol| matches!(one, Protocol::Mongo | Protocol::MySql);
        let Some(at) = at else {
            listeners.push(CompiledListener { bind, port, protocol: new_protocol, is_locked: false, chains });
            return;
        };
        let have = &mut listeners[at];
        if (alone(protocol) || alone(have.protocol)) && protocol != have.protocol {
            return;
        }
        match (family, have.protocol.family()) {
            // What detects replaces what does not.
            (ProtocolFamily::Auto, ProtocolFamily::Http) => {
                have.chains = chains;
                have.protocol = new_protocol;
            }
            (_, had) => {
                for chain in chains {
                    if !have.chains.iter().any(|other| other.clashes(&chain)) {
                        have.chains.push(chain);
                    }
                }
                if !(family == ProtocolFamily::Tcp && had != ProtocolFamily::Http) {
                    have.protocol = Protocol::Auto;
                }
            }
        }
    }

    /// The chains for bytes: by VirtualServices' `tls` or `tcp` rules, else to the Service itself.
    fn tcp_chains(
        &self,
        egress: &VisibleListener<'_>,
        seen: &VisibleService,
        port: u16,
        protocol: Protocol,
        bind: DialedAddress,
        ranges: &[IpRange],
    ) -> Vec<MatchedChain> {
        let service = self.mesh.service(seen.service);
        let configs: Vec<&RouteConfig> = egress
            .configs
            .iter()
            .copied()
            .filter(|config| {
                config.hosts.iter().any(|host| host_patterns::overlap(host.as_str(), service.host.as_str()))
            })
            .collect();
        if matches!(protocol, Protocol::Tls | Protocol::Https) {
            self.tls_chains(&configs, seen, port, bind, ranges)
        } else {
            self.plain_chains(&configs, seen, port, ranges)
        }
    }

    fn tls_chains(
        &self,
        configs: &[&RouteConfig],
        seen: &VisibleService,
        port: u16,
        bind: DialedAddress,
        ranges: &[IpRange],
    ) -> Vec<MatchedChain> {
        let service = self.mesh.service(seen.service);
        let mut chains: Vec<MatchedChain> = Vec::new();
        let mut handled: Vec<(Vec<String>, Vec<String>)> = Vec::new();
        for config in configs {
            for rule in config.tls(self.mesh).iter().filter(|rule| !rule.route.is_empty()) {
                for one in rule.matches.iter().filter(|one| self.l4_fits(one, config, port)) {
                    let key = (one.sni_hosts.0.clone(), one.destination_subnets.0.clone());
                    if handled.contains(&key) {
                        continue;
                    }
                    handled.push(key);
                    let subnets: Vec<IpRange> =
                        one.destination_subnets.iter().filter_map(|text| IpRange::parse(text)).collect();
                    chains.push(MatchedChain {
                        names: one.sni_hosts.0.clone(),
                        ranges: if subnets.is_empty() { ranges.to_vec() } else { subnets },
                        plain_http: false,
                        chain: FilterChain::Tcp(self.l4_backends(config, &rule.route, port)),
                    });
                }
            }
        }
        if chains.is_empty() {
            let by_name = !ranges.is_empty()
                || (address_of(self.mesh, seen.service) == DialedAddress::Any && bind == DialedAddress::Any);
            let mut names = Vec::new();
            if by_name {
                names.push(service.host.as_str().to_owned());
                for alias in &seen.aliases {
                    names.push(self.mesh.service(*alias).host.as_str().to_owned());
                }
            }
            chains.push(MatchedChain {
                names,
                ranges: ranges.to_vec(),
                plain_http: false,
                chain: FilterChain::Tcp(vec![self.own_backend(seen, port)]),
            });
        }
        chains
    }

    fn plain_chains(
        &self,
        configs: &[&RouteConfig],
        seen: &VisibleService,
        port: u16,
        ranges: &[IpRange],
    ) -> Vec<MatchedChain> {
        let mut chains = Vec::new();
        for config in configs {
            for rule in config.tcp(self.mesh).iter().filter(|rule| !rule.route.is_empty()) {
                let backends = || FilterChain::Tcp(self.l4_backends(config, &rule.route, port));
                let conditional = |ranges: Vec<IpRange>| MatchedChain {
                    names: Vec::new(),
                    ranges,
                    plain_http: false,
                    chain: backends(),
                };
                if rule.matches.is_empty() {
                    chains.push(conditional(ranges.to_vec()));
                    return chains;
                }
                let mut subnets: Vec<IpRange> = Vec::new();
                for one in rule.matches.iter().filter(|one| self.l4_fits(one, config, port)) {
                    if one.destination_subnets.is_empty() {
                        chains.push(conditional(ranges.to_vec()));
                        return chains;
                    }
                    subnets.extend(one.destination_subnets.iter().filter_map(|text| IpRange::parse(text)));
                }
                if !subnets.is_empty() {
                    chains.push(conditional(subnets));
                }
            }
        }
        chains.push(MatchedChain {
            names: Vec::new(),
            ranges: ranges.to_vec(),
            plain_http: false,
            chain: FilterChain::Tcp(vec![self.own_backend(seen, port)]),
        });
        chains
    }

    fn own_backend(&self, seen: &VisibleService, port: u16) -> CompiledBackend {
        let host = &self.mesh.service(seen.service).host;
        let port = seen.single_port(self.mesh).map_or(port, |single| single.number);
        self.backend(host, &Destination::default(), u32::from(port), None)
    }

    fn l4_fits(&self, one: &L4Match, config: &RouteConfig, port: u16) -> bool {
        let gateway = one.gateways.is_empty()
            || one.gateways.iter().any(|name| GatewayName::parse(name, &config.namespace) == GatewayName::Mesh);
        let labels = one.source_labels.iter().all(|(key, value)| self.caller.labels.get(key) == Some(value.as_str()));
        let number = one.port.is_none_or(|wanted| wanted == 0 || wanted == u32::from(port));
        let namespace = one
            .source_namespace
            .as_deref()
            .is_none_or(|namespace| namespace.is_empty() || namespace == self.caller.namespace.as_str());
        gateway && labels && number && namespace
    }

    fn l4_backends(&self, config: &RouteConfig, targets: &[RouteDestination], port: u16) -> Vec<CompiledBackend> {
        let used = targets.iter().filter(|target| targets.len() == 1 || target.weight.unwrap_or(0) > 0);
        used.filter_map(|target| {
            let destination = target.destination.as_ref()?;
            let host = config.destination(self.mesh, destination);
            let (host, own) = self.concrete(&host);
            let port = own.map_or(u32::from(port), u32::from);
            let weight = (targets.len() > 1).then(|| target.weight.unwrap_or(0));
            Some(self.backend(&host, destination, port, weight))
        })
        .collect()
    }

    /// The host behind an alias, and the only port of a Service that has just one.
    pub(super) fn concrete(&self, host: &Host) -> (Host, Option<u16>) {
        let Some(seen) = self.scope.find(host.as_str()) else { return (host.clone(), None) };
        let single = seen.single_port(self.mesh).map(|port| port.number);
        match &self.mesh.service(seen.service).resolution {
            Resolution::ExternalName(target) => (target.clone(), single),
            _ => (host.clone(), single),
        }
    }
}

pub(super) fn is_passed_through(service: &Service) -> bool {
    match &service.resolution {
        Resolution::Headless => true,
        Resolution::Entry(word) => &**word == "NONE",
        Resolution::ClusterIp | Resolution::ExternalName(_) => false,
    }
}

/// The address that clients of a Service dial, and its own listeners bind.
pub(super) fn address_of(mesh: &Mesh<'_>, id: ServiceId) -> DialedAddress {
    let service = mesh.service(id);
    match (&service.resolution, service.addresses.first()) {
        (Resolution::Headless, _) => DialedAddress::Any,
        (_, Some(address)) => DialedAddress::Ip(*address),
        (Resolution::ClusterIp, None) => DialedAddress::Service(id),
        (Resolution::ExternalName(_) | Resolution::Entry(_), None) => DialedAddress::Any,
    }
}

/// Envoy's choice among filter chains: by address, then by the name of the TLS handshake, then by what is spoken; it
/// does not go back. What fits none goes on as unknown.
fn choose(chains: &[MatchedChain], address: DialedAddress, protocol: CallProtocol, server_name: &str) -> FilterChain {
    let reads_names = chains.iter().any(|one| !one.names.is_empty());
    let default = chains.iter().find(|one| one.takes_all()).map_or(FilterChain::Unknown, |one| one.chain.clone());
    let conditional: Vec<&MatchedChain> = chains.iter().filter(|one| !one.takes_all()).collect();
    let dialled = |one: &&MatchedChain| match address {
        DialedAddress::Ip(ip) => one.ranges.iter().any(|range| range.contains(ip)),
        _ => false,
    };
    let by_address: Vec<&MatchedChain> = if conditional.iter().any(&dialled) {
        conditional.into_iter().filter(dialled).collect()
    } else {
        conditional.into_iter().filter(|one| one.ranges.is_empty()).collect()
    };
    let name = if reads_names && protocol == CallProtocol::GrpcTls { server_name } else { "" };
    let best = (!name.is_empty())
        .then(|| {
            let mut fitting: Vec<&str> = by_address
                .iter()
                .flat_map(|one| one.names.iter().map(String::as_str))
                .filter(|pattern| host_patterns::is_subset(name, pattern))
                .collect();
            fitting.sort_by(|a, b| host_patterns::by_precision(a, b));
            fitting.first().copied().map(str::to_owned)
        })
        .flatten();
    let by_name: Vec<&MatchedChain> = match &best {
        Some(pattern) => by_address.into_iter().filter(|one| one.names.contains(pattern)).collect(),
        None => by_address.into_iter().filter(|one| one.names.is_empty()).collect(),
    };
    let speaks_http = protocol != CallProtocol::GrpcTls;
    let chosen =
        by_name.iter().find(|one| one.plain_http && speaks_http).or_else(|| by_name.iter().find(|one| !one.plain_http));
    chosen.map_or(default, |one| one.chain.clone())
}
