//! The outbound listeners of a sidecar: builds them with their filter chains, and selects the one that accepts a
//! connection.
//!
//! Sources: `buildSidecarOutboundListeners`, `buildSidecarOutboundListener` and `mergeTCPFilterChains` in
//! `pilot/pkg/networking/core/listener.go`, and `tls.go` beside it, of istio/istio 1.31; Envoy's filter chain matching
//! (`config/listener/v3/listener_components.proto`, `FilterChainMatch`).

use std::rc::Rc;

use schemars::JsonSchema;
use serde::Serialize;

use super::host_patterns;
use super::route_config::RouteConfig;
use super::scope::{EgressListener, VisibleService};
use super::{CallProtocol, CompiledBackend, DialedAddress, ProxyConfig};
use crate::mesh::Mesh;
use crate::mesh::ids::{Host, ServiceId, WorkloadId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::{Resolution, Service};
use crate::mesh::traffic_exclusion::IpRange;
use crate::mesh::virtual_service::GatewayName;
use crate::mesh::workload::Readiness;
use crate::schema::virtual_service::{Destination, L4Match, RouteDestination};

/// Ports that the proxy itself listens on. istiod builds no shared outbound listener for them.
pub(crate) const RESERVED_PORTS: [u16; 4] = [15001, 15006, 15021, 15090];

/// The action of a filter chain on a connection.
#[derive(Debug, Clone)]
pub(super) enum ConnectionAction {
    /// Routes each call by this table.
    Http(RouteTableName),
    /// Forwards the TCP stream to one of these backends.
    Tcp(Vec<CompiledBackend>),
    /// Passes the connection to the catch-all listener: to the address that the client dialed, or nowhere.
    CatchAll,
}

/// The name of a sidecar's route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RouteTableName {
    /// The routes of all Services on the port, selected by authority.
    Port(u16),
    /// The routes of one Service, for every authority.
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

/// A filter chain with its match conditions.
#[derive(Debug, Clone)]
struct FilterChain {
    /// SNI names of the TLS handshake; empty matches all.
    server_names: Vec<String>,
    /// Dialed addresses; empty matches all.
    ip_ranges: Vec<IpRange>,
    /// Matches only connections that start with plaintext HTTP.
    requires_plain_http: bool,
    action: ConnectionAction,
}

impl FilterChain {
    fn is_catch_all(&self) -> bool {
        (self.server_names.is_empty() || self.server_names.iter().any(|name| name == "*"))
            && self.ip_ranges.is_empty()
            && !self.requires_plain_http
    }

    fn conflicts_with(&self, other: &Self) -> bool {
        let names = |chain: &Self| {
            let mut names: Vec<_> = chain.server_names.iter().filter(|name| *name != "*").cloned().collect();
            names.sort();
            names
        };
        let ranges = |chain: &Self| {
            let mut ranges = chain.ip_ranges.clone();
            ranges.sort();
            ranges
        };
        self.requires_plain_http == other.requires_plain_http
            && names(self) == names(other)
            && ranges(self) == ranges(other)
    }
}

/// A listener for one address and port.
#[derive(Debug)]
pub(super) struct CompiledListener {
    bind: DialedAddress,
    port: u16,
    protocol: Protocol,
    /// Whether the Sidecar names its port. The egress listener for all other ports adds nothing to it.
    is_locked: bool,
    chains: Vec<FilterChain>,
}

/// The listener that accepts a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ListenerClass {
    /// Routes the calls of every HTTP Service on the port by authority.
    Http,
    /// Belongs to one Service and detects whether the connection carries HTTP.
    Auto,
    /// Forwards TCP streams.
    Tcp,
    /// No listener matches: the proxy's catch-all listener takes the connection.
    None,
}

impl ListenerClass {
    /// The value in JSON reports, such as `auto`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The decision of a sidecar about a connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionDecision {
    pub(super) listener: ListenerClass,
    pub(super) action: ConnectionAction,
}

impl ProxyConfig<'_> {
    /// Selects the listener and filter chain for a connection to an address and port. A listener on the exact address
    /// takes precedence over one on the wildcard address.
    pub(super) fn accept_connection(
        &self,
        address: DialedAddress,
        port: u16,
        protocol: CallProtocol,
        server_name: &str,
    ) -> ConnectionDecision {
        let listeners = self.listeners_at(port);
        let bound_to = |address: DialedAddress| listeners.iter().find(|listener| listener.bind == address);
        let exact = (address != DialedAddress::Unknown).then(|| bound_to(address)).flatten();
        let Some(listener) = exact.or_else(|| bound_to(DialedAddress::Any)) else {
            return ConnectionDecision { listener: ListenerClass::None, action: ConnectionAction::CatchAll };
        };
        let is_http = |chain: &FilterChain| matches!(chain.action, ConnectionAction::Http(_));
        let class = match (listener.chains.iter().any(is_http), listener.bind == DialedAddress::Any) {
            (true, true) => ListenerClass::Http,
            (true, false) => ListenerClass::Auto,
            (false, _) => ListenerClass::Tcp,
        };
        let action = select_action(&listener.chains, address, protocol, server_name);
        ConnectionDecision { listener: class, action }
    }

    /// The route tables that the listeners of a port use.
    pub(super) fn tables_of_port(&self, port: u16) -> Vec<RouteTableName> {
        let listeners = self.listeners_at(port);
        let chains = listeners.iter().flat_map(|listener| &listener.chains);
        chains
            .filter_map(|chain| match &chain.action {
                ConnectionAction::Http(table) => Some(table.clone()),
                ConnectionAction::Tcp(_) | ConnectionAction::CatchAll => None,
            })
            .collect()
    }

    fn listeners_at(&self, port: u16) -> Rc<Vec<CompiledListener>> {
        if let Some(cached) = self.listeners.borrow().get(&port) {
            return Rc::clone(cached);
        }
        let listeners = Rc::new(self.build_listeners(port));
        self.listeners.borrow_mut().insert(port, Rc::clone(&listeners));
        listeners
    }

    fn build_listeners(&self, port: u16) -> Vec<CompiledListener> {
        let mut listeners: Vec<CompiledListener> = Vec::new();
        for egress in &self.scope.listeners {
            let bind = egress.bind.filter(|bind| !bind.is_empty());
            let bind = bind.map(|bind| bind.parse().map_or(DialedAddress::Unknown, DialedAddress::Ip));
            if let Some((egress_port, protocol)) = egress.port {
                if egress_port != port {
                    continue;
                }
                for visible in &egress.services {
                    self.add_service(&mut listeners, egress, visible, port, protocol, bind);
                }
                continue;
            }
            for listener in &mut listeners {
                listener.is_locked = true;
            }
            for visible in &egress.services {
                let Some(service_port) = visible.port(self.mesh, port) else { continue };
                let protocol = service_port.protocol;
                let service = self.mesh.service(visible.service);
                let needs_listener_per_pod = matches!(protocol.family(), ProtocolFamily::Tcp | ProtocolFamily::Auto)
                    && bind.is_none()
                    && address_of(self.mesh, visible.service) == DialedAddress::Any
                    && has_passthrough_resolution(service);
                if !needs_listener_per_pod {
                    self.add_service(&mut listeners, egress, visible, port, protocol, bind);
                    continue;
                }
                let pods = self.pod_addresses(service);
                if pods.is_empty() && !service.is_kubernetes() && service.selector.is_empty() {
                    self.add_service(&mut listeners, egress, visible, port, protocol, None);
                }
                for pod in pods {
                    // A pod's calls to its own address do not pass its outbound listeners.
                    if self.caller.address(self.mesh) != pod {
                        self.add_service(&mut listeners, egress, visible, port, protocol, Some(pod));
                    }
                }
            }
        }
        listeners
    }

    /// Addresses of a Service's published endpoints.
    pub(super) fn pod_addresses(&self, service: &Service) -> Vec<DialedAddress> {
        let is_published =
            |id: &&WorkloadId| service.publishes_not_ready || self.mesh.workload(**id).readiness != Readiness::NotReady;
        service.workloads.iter().filter(is_published).map(|id| DialedAddress::of_pod(self.mesh, *id)).collect()
    }

    /// Adds a Service's port: to a new listener, or to the existing one for the same address and port, by
    /// `buildSidecarOutboundListener`'s rules for conflicting protocols.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    fn add_service(
        &self,
        listeners: &mut Vec<CompiledListener>,
        egress: &EgressListener<'_>,
        visible: &VisibleService,
        port: u16,
        protocol: Protocol,
        bind: Option<DialedAddress>,
    ) {
        let service = self.mesh.service(visible.service);
        let family = protocol.family();
        let is_reserved = RESERVED_PORTS.contains(&port);
        if Mesh::is_alias(service) || family == ProtocolFamily::NoListener {
            return;
        }
        let is_shared = matches!(bind, Some(DialedAddress::Any)) || (bind.is_none() && family == ProtocolFamily::Http);
        if is_reserved && is_shared {
            return;
        }
        let mut ip_ranges = Vec::new();
        let bind = bind.unwrap_or_else(|| match family {
            ProtocolFamily::Http => DialedAddress::Any,
            _ if service.addresses.is_empty() && !service.ranges.is_empty() => {
                ip_ranges.clone_from(&service.ranges);
                DialedAddress::Any
            }
            _ => address_of(self.mesh, visible.service),
        });
        let position = listeners.iter().position(|listener| listener.bind == bind && listener.port == port);
        if position.is_some_and(|position| listeners[position].is_locked) {
            return;
        }
        let http_chain = |requires_plain_http: bool| {
            let is_detected = family == ProtocolFamily::Auto && bind != DialedAddress::Any;
            let table = if is_detected {
                RouteTableName::Service(service.host.clone(), port)
            } else {
                RouteTableName::Port(port)
            };
            FilterChain {
                server_names: Vec::new(),
                ip_ranges: Vec::new(),
                requires_plain_http,
                action: ConnectionAction::Http(table),
            }
        };
        let existing = position.map(|position| listeners[position].protocol);
        let (chains, new_protocol) = match family {
            ProtocolFamily::Http => {
                if existing.is_some_and(|existing| existing.family() != ProtocolFamily::Tcp) {
                    return;
                }
                // The shared listener forwards connections that do not carry HTTP, so it detects the protocol.
                let detects = bind == DialedAddress::Any && protocol != Protocol::HttpProxy;
                (vec![http_chain(detects)], if detects { Protocol::Auto } else { protocol })
            }
            ProtocolFamily::Auto => {
                if existing.is_some_and(|existing| existing.family() == ProtocolFamily::Auto) {
                    return;
                }
                let mut chains = self.l4_chains(egress, visible, port, protocol, bind, &ip_ranges);
                chains.push(http_chain(true));
                (chains, protocol)
            }
            ProtocolFamily::Tcp | ProtocolFamily::NoListener => {
                (self.l4_chains(egress, visible, port, protocol, bind, &ip_ranges), protocol)
            }
        };
        let is_exclusive = |protocol: Protocol| matches!(protocol, Protocol::Mongo | Protocol::MySql);
        let Some(position) = position else {
            listeners.push(CompiledListener { bind, port, protocol: new_protocol, is_locked: false, chains });
            return;
        };
        let listener = &mut listeners[position];
        if (is_exclusive(protocol) || is_exclusive(listener.protocol)) && protocol != listener.protocol {
            return;
        }
        match (family, listener.protocol.family()) {
            // A listener that detects the protocol replaces one that does not.
            (ProtocolFamily::Auto, ProtocolFamily::Http) => {
                listener.chains = chains;
                listener.protocol = new_protocol;
            }
            (_, existing_family) => {
                for chain in chains {
                    if !listener.chains.iter().any(|other| other.conflicts_with(&chain)) {
                        listener.chains.push(chain);
                    }
                }
                if !(family == ProtocolFamily::Tcp && existing_family != ProtocolFamily::Http) {
                    listener.protocol = Protocol::Auto;
                }
            }
        }
    }

    /// The filter chains that forward TCP streams: by `tls` or `tcp` rules of VirtualServices, else to the Service.
    fn l4_chains(
        &self,
        egress: &EgressListener<'_>,
        visible: &VisibleService,
        port: u16,
        protocol: Protocol,
        bind: DialedAddress,
        ip_ranges: &[IpRange],
    ) -> Vec<FilterChain> {
        let service = self.mesh.service(visible.service);
        let configs: Vec<&RouteConfig> = egress
            .configs
            .iter()
            .copied()
            .filter(|config| {
                config.hosts.iter().any(|host| host_patterns::overlap(host.as_str(), service.host.as_str()))
            })
            .collect();
        if matches!(protocol, Protocol::Tls | Protocol::Https) {
            self.tls_chains(&configs, visible, port, bind, ip_ranges)
        } else {
            self.tcp_chains(&configs, visible, port, ip_ranges)
        }
    }

    fn tls_chains(
        &self,
        configs: &[&RouteConfig],
        visible: &VisibleService,
        port: u16,
        bind: DialedAddress,
        ip_ranges: &[IpRange],
    ) -> Vec<FilterChain> {
        let service = self.mesh.service(visible.service);
        let mut chains: Vec<FilterChain> = Vec::new();
        let mut handled: Vec<(Vec<String>, Vec<String>)> = Vec::new();
        for config in configs {
            for rule in config.tls(self.mesh).iter().filter(|rule| !rule.route.is_empty()) {
                let applying = rule.matches.iter().filter(|conditions| self.l4_match_applies(conditions, config, port));
                for conditions in applying {
                    let key = (conditions.sni_hosts.0.clone(), conditions.destination_subnets.0.clone());
                    if handled.contains(&key) {
                        continue;
                    }
                    handled.push(key);
                    let subnets: Vec<IpRange> =
                        conditions.destination_subnets.iter().filter_map(|text| IpRange::parse(text)).collect();
                    chains.push(FilterChain {
                        server_names: conditions.sni_hosts.0.clone(),
                        ip_ranges: if subnets.is_empty() { ip_ranges.to_vec() } else { subnets },
                        requires_plain_http: false,
                        action: ConnectionAction::Tcp(self.l4_backends(config, &rule.route, port)),
                    });
                }
            }
        }
        if chains.is_empty() {
            let needs_sni = !ip_ranges.is_empty()
                || (address_of(self.mesh, visible.service) == DialedAddress::Any && bind == DialedAddress::Any);
            let mut server_names = Vec::new();
            if needs_sni {
                server_names.push(service.host.as_str().to_owned());
                for alias in &visible.aliases {
                    server_names.push(self.mesh.service(*alias).host.as_str().to_owned());
                }
            }
            chains.push(FilterChain {
                server_names,
                ip_ranges: ip_ranges.to_vec(),
                requires_plain_http: false,
                action: ConnectionAction::Tcp(vec![self.service_backend(visible, port)]),
            });
        }
        chains
    }

    fn tcp_chains(
        &self,
        configs: &[&RouteConfig],
        visible: &VisibleService,
        port: u16,
        ip_ranges: &[IpRange],
    ) -> Vec<FilterChain> {
        let mut chains = Vec::new();
        for config in configs {
            for rule in config.tcp(self.mesh).iter().filter(|rule| !rule.route.is_empty()) {
                let chain_for = |ip_ranges: Vec<IpRange>| FilterChain {
                    server_names: Vec::new(),
                    ip_ranges,
                    requires_plain_http: false,
                    action: ConnectionAction::Tcp(self.l4_backends(config, &rule.route, port)),
                };
                if rule.matches.is_empty() {
                    chains.push(chain_for(ip_ranges.to_vec()));
                    return chains;
                }
                let mut subnets: Vec<IpRange> = Vec::new();
                let applying = rule.matches.iter().filter(|conditions| self.l4_match_applies(conditions, config, port));
                for conditions in applying {
                    if conditions.destination_subnets.is_empty() {
                        chains.push(chain_for(ip_ranges.to_vec()));
                        return chains;
                    }
                    subnets.extend(conditions.destination_subnets.iter().filter_map(|text| IpRange::parse(text)));
                }
                if !subnets.is_empty() {
                    chains.push(chain_for(subnets));
                }
            }
        }
        chains.push(FilterChain {
            server_names: Vec::new(),
            ip_ranges: ip_ranges.to_vec(),
            requires_plain_http: false,
            action: ConnectionAction::Tcp(vec![self.service_backend(visible, port)]),
        });
        chains
    }

    fn service_backend(&self, visible: &VisibleService, port: u16) -> CompiledBackend {
        let host = &self.mesh.service(visible.service).host;
        let port = visible.single_port(self.mesh).map_or(port, |single| single.number);
        self.backend(host, &Destination::default(), u32::from(port), None)
    }

    /// Whether a match applies to this proxy and port. Its SNI names and subnets become conditions of the filter chain.
    fn l4_match_applies(&self, conditions: &L4Match, config: &RouteConfig, port: u16) -> bool {
        let gateway = conditions.gateways.is_empty()
            || conditions.gateways.iter().any(|name| GatewayName::parse(name, &config.namespace) == GatewayName::Mesh);
        let labels =
            conditions.source_labels.iter().all(|(key, value)| self.caller.labels.get(key) == Some(value.as_str()));
        let number = conditions.port.is_none_or(|required| required == 0 || required == u32::from(port));
        let namespace = conditions
            .source_namespace
            .as_deref()
            .is_none_or(|namespace| namespace.is_empty() || namespace == self.caller.namespace.as_str());
        gateway && labels && number && namespace
    }

    fn l4_backends(&self, config: &RouteConfig, targets: &[RouteDestination], port: u16) -> Vec<CompiledBackend> {
        let used = targets.iter().filter(|target| targets.len() == 1 || target.weight.unwrap_or(0) > 0);
        used.filter_map(|target| {
            let destination = target.destination.as_ref()?;
            let host = config.destination_host(self.mesh, destination);
            let (host, single_port) = self.resolve_alias(&host);
            let port = single_port.map_or(u32::from(port), u32::from);
            let weight = (targets.len() > 1).then(|| target.weight.unwrap_or(0));
            Some(self.backend(&host, destination, port, weight))
        })
        .collect()
    }

    /// The target of an ExternalName Service, and the port of a Service that has only one.
    pub(super) fn resolve_alias(&self, host: &Host) -> (Host, Option<u16>) {
        let Some(visible) = self.scope.find(host.as_str()) else { return (host.clone(), None) };
        let single = visible.single_port(self.mesh).map(|port| port.number);
        match &self.mesh.service(visible.service).resolution {
            Resolution::ExternalName(target) => (target.clone(), single),
            _ => (host.clone(), single),
        }
    }
}

/// Whether a Service has istiod's resolution `Passthrough`: the client's address is the endpoint.
pub(super) fn has_passthrough_resolution(service: &Service) -> bool {
    match &service.resolution {
        Resolution::Headless => true,
        Resolution::ServiceEntry(resolution) => &**resolution == "NONE",
        Resolution::ClusterIp | Resolution::ExternalName(_) => false,
    }
}

/// The address that clients of a Service dial and that its own listener binds.
pub(super) fn address_of(mesh: &Mesh<'_>, id: ServiceId) -> DialedAddress {
    let service = mesh.service(id);
    match (&service.resolution, service.addresses.first()) {
        (Resolution::Headless, _) => DialedAddress::Any,
        (_, Some(address)) => DialedAddress::Ip(*address),
        (Resolution::ClusterIp, None) => DialedAddress::Service(id),
        (Resolution::ExternalName(_) | Resolution::ServiceEntry(_), None) => DialedAddress::Any,
    }
}

/// Selects a filter chain as Envoy does: by address, then by SNI name, then by protocol. Envoy does not backtrack: when
/// the chains that match one step fail the next, the default chain gets the connection.
fn select_action(
    chains: &[FilterChain],
    address: DialedAddress,
    protocol: CallProtocol,
    server_name: &str,
) -> ConnectionAction {
    let inspects_tls = chains.iter().any(|chain| !chain.server_names.is_empty());
    let default = chains
        .iter()
        .find(|chain| chain.is_catch_all())
        .map_or(ConnectionAction::CatchAll, |chain| chain.action.clone());
    let conditional: Vec<&FilterChain> = chains.iter().filter(|chain| !chain.is_catch_all()).collect();
    let matches_address = |chain: &&FilterChain| match address {
        DialedAddress::Ip(ip) => chain.ip_ranges.iter().any(|range| range.contains(ip)),
        _ => false,
    };
    let by_address: Vec<&FilterChain> = if conditional.iter().any(&matches_address) {
        conditional.into_iter().filter(matches_address).collect()
    } else {
        conditional.into_iter().filter(|chain| chain.ip_ranges.is_empty()).collect()
    };
    let name = if inspects_tls && protocol == CallProtocol::GrpcTls { server_name } else { "" };
    let most_specific = (!name.is_empty())
        .then(|| {
            let mut patterns: Vec<&str> = by_address
                .iter()
                .flat_map(|chain| chain.server_names.iter().map(String::as_str))
                .filter(|pattern| host_patterns::is_subset(name, pattern))
                .collect();
            patterns.sort_by(|a, b| host_patterns::by_specificity(a, b));
            patterns.first().copied().map(str::to_owned)
        })
        .flatten();
    let by_name: Vec<&FilterChain> = match &most_specific {
        Some(pattern) => by_address.into_iter().filter(|chain| chain.server_names.contains(pattern)).collect(),
        None => by_address.into_iter().filter(|chain| chain.server_names.is_empty()).collect(),
    };
    let is_plain_http = protocol != CallProtocol::GrpcTls;
    let selected = by_name
        .iter()
        .find(|chain| chain.requires_plain_http && is_plain_http)
        .or_else(|| by_name.iter().find(|chain| !chain.requires_plain_http));
    selected.map_or(default, |chain| chain.action.clone())
}
