//! The virtual hosts of a sidecar's route tables: which domains lead to which routes.
//!
//! Source: `pilot/pkg/networking/core/httproute.go` and `BuildSidecarVirtualHostWrapper` in `route/route.go` of
//! istio/istio 1.31.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::ProxyConfig;
use super::host_patterns;
use super::listener::RouteTableName;
use super::route::{CompiledAction, CompiledRoute};
use super::route_config::RouteConfig;
use super::scope::{EgressListener, VisibleService};
use crate::mesh::Mesh;
use crate::mesh::ids::{Host, ServiceId};
use crate::mesh::protocol::Protocol;
use crate::mesh::service::Resolution;
use crate::mesh::virtual_service::GatewayName;

#[derive(Debug, Clone)]
pub(super) struct CompiledVirtualHost<'m> {
    pub(super) name: String,
    pub(super) domains: Vec<String>,
    /// The virtual hosts of one configuration share its routes.
    pub(super) routes: Rc<[CompiledRoute<'m>]>,
    /// Whether plaintext calls are redirected to HTTPS (Envoy's `require_tls`).
    pub(super) requires_tls: bool,
    /// Rules and matches that istiod skips for this proxy, with the reason.
    pub(super) skipped: Rc<[super::TriedRule]>,
}

/// A Service that has the port of a route table.
struct TableEntry<'e> {
    /// Host in lower case.
    host: String,
    visible: &'e VisibleService,
}

impl<'m> ProxyConfig<'m> {
    /// Builds the virtual hosts of a route table.
    pub(super) fn virtual_hosts(&self, table: &RouteTableName) -> Vec<CompiledVirtualHost<'m>> {
        match table {
            RouteTableName::Port(port) => {
                let mut hosts = self.hosts_of_port(*port);
                hosts.push(self.catch_all());
                hosts
            }
            RouteTableName::Service(host, port) => {
                let mut hosts: Vec<CompiledVirtualHost<'m>> = self
                    .hosts_of_port(*port)
                    .into_iter()
                    .filter(|virtual_host| virtual_host.domains.iter().any(|domain| domain == host.as_str()))
                    .collect();
                if let [single] = hosts.as_mut_slice() {
                    single.domains = vec!["*".to_owned()];
                }
                hosts
            }
        }
    }

    /// The virtual host for authorities that no other virtual host matches.
    fn catch_all(&self) -> CompiledVirtualHost<'m> {
        let (name, action) = if self.scope.allows_any {
            ("allow_any", CompiledAction::Passthrough)
        } else {
            ("block_all", CompiledAction::Block)
        };
        CompiledVirtualHost {
            name: name.to_owned(),
            domains: vec!["*".to_owned()],
            routes: Rc::new([CompiledRoute::catch_all(action, 0)]),
            requires_tls: false,
            skipped: Rc::new([]),
        }
    }

    fn hosts_of_port(&self, port: u16) -> Vec<CompiledVirtualHost<'m>> {
        let Some(egress) = self.scope.listener_for(port) else { return Vec::new() };
        let mut entries: HashMap<String, TableEntry<'_>> = HashMap::new();
        for visible in &egress.services {
            if visible.port(self.mesh, port).is_some_and(|port| port.protocol != Protocol::Udp) {
                let host = self.mesh.service(visible.service).host.as_str().to_ascii_lowercase();
                entries.insert(host.clone(), TableEntry { host, visible });
            }
        }
        let mut builder =
            VirtualHostBuilder { proxy: self, port, hosts: Vec::new(), names: HashSet::new(), domains: HashSet::new() };
        let mut owned: HashSet<String> = HashSet::new();
        let mut all_routes = Vec::new();
        for config in &egress.configs {
            // Hosts outside the registry get routes on port 80 only.
            if port != 80 && !has_host_on_port(config, &entries) {
                continue;
            }
            if let Some(host_routes) = self.host_routes(egress, config, &entries, port) {
                owned.extend(host_routes.services.iter().map(|entry| entry.host.clone()));
                all_routes.push(host_routes);
            }
        }
        let service_hosts: HashSet<String> = all_routes
            .iter()
            .flat_map(|host_routes| host_routes.services.iter().map(|entry| entry.host.clone()))
            .chain(entries.values().filter(|entry| !owned.contains(&entry.host)).map(|entry| entry.host.clone()))
            .collect();
        for HostRoutes { hosts, services, routes, skipped } in all_routes {
            for host in &hosts {
                builder.add(host, None, &routes, &skipped, &service_hosts);
            }
            for entry in &services {
                builder.add(&entry.host, Some(entry.visible), &routes, &skipped, &service_hosts);
            }
        }
        let none_skipped: Rc<[super::TriedRule]> = Rc::new([]);
        let mut rest: Vec<&TableEntry<'_>> = entries.values().filter(|entry| !owned.contains(&entry.host)).collect();
        rest.sort_by(|a, b| a.host.cmp(&b.host));
        for entry in rest {
            let service = self.mesh.service(entry.visible.service);
            let is_routed = entry.visible.port(self.mesh, port).is_some_and(|port| port.protocol.is_http_or_auto());
            if Mesh::is_alias(service) || !is_routed {
                continue;
            }
            let routes: Rc<[CompiledRoute<'m>]> =
                Rc::new([CompiledRoute::catch_all(CompiledAction::Service(&service.host), port)]);
            builder.add(&entry.host, Some(entry.visible), &routes, &none_skipped, &service_hosts);
        }
        builder.hosts
    }

    /// The hosts and Services that get a configuration's routes on a port. `None` when it has no routes for this proxy
    /// and port: the next configuration then gets its hosts.
    fn host_routes<'e>(
        &self,
        egress: &EgressListener<'m>,
        config: &'m RouteConfig,
        entries: &'e HashMap<String, TableEntry<'e>>,
        port: u16,
    ) -> Option<HostRoutes<'m, 'e>> {
        let (routes, skipped) = self.routes(config, &GatewayName::Mesh, port);
        if routes.is_empty() {
            return None;
        }
        let (hosts, mut services) = self.split_hosts(egress, config, entries);
        if config.is_gateway_api {
            let is_own = self.caller.namespace == config.namespace;
            services
                .retain(|entry| is_own || *self.mesh.service(entry.visible.service).namespace() == config.namespace);
            if services.is_empty() {
                return None;
            }
        }
        services
            .retain(|entry| entry.visible.port(self.mesh, port).is_some_and(|port| port.protocol.is_http_or_auto()));
        if services.is_empty() && port != 80 {
            return None;
        }
        Some(HostRoutes { hosts, services, routes: routes.into(), skipped: skipped.into() })
    }

    /// Splits the hosts of a configuration into those outside the registry and those of Services.
    fn split_hosts<'e>(
        &self,
        egress: &EgressListener<'m>,
        config: &RouteConfig,
        entries: &'e HashMap<String, TableEntry<'e>>,
    ) -> (Vec<String>, Vec<&'e TableEntry<'e>>) {
        let mut hosts = Vec::new();
        let mut services = Vec::new();
        let (wildcards, exact): (Vec<&Host>, Vec<&Host>) =
            config.hosts.iter().partition(|host| host.as_str().starts_with('*'));
        for host in exact {
            match entries.get(host.as_str()) {
                Some(entry) => services.push(entry),
                None => hosts.push(host.as_str().to_owned()),
            }
        }
        for host in wildcards {
            if config.is_gateway_api {
                hosts.push(host.as_str().to_owned());
                continue;
            }
            let mut covers_any = false;
            let mut covered: Vec<&TableEntry<'_>> =
                entries.values().filter(|entry| host_patterns::overlap(&entry.host, host.as_str())).collect();
            covered.sort_by(|a, b| a.host.cmp(&b.host));
            for entry in covered {
                covers_any = true;
                // The configuration with the most specific host owns a Service.
                if self.config_for_service(egress, &entry.host).is_some_and(|owner| std::ptr::eq(owner, config)) {
                    services.push(entry);
                }
            }
            if !covers_any {
                hosts.push(host.as_str().to_owned());
            }
        }
        (hosts, services)
    }

    /// The host that a destination resolves to on a route table's port: the target of an ExternalName Service that has
    /// the port, else the host itself.
    pub(super) fn resolve_alias_on_port(&self, host: &Host, port: u16) -> Host {
        let target = |id: ServiceId| match &self.mesh.service(id).resolution {
            Resolution::ExternalName(target) => Some(target),
            _ => None,
        };
        if !self.mesh.services_named(host.as_str()).iter().any(|id| target(*id).is_some()) {
            return host.clone();
        }
        let services = self.scope.listener_for(port).map_or(&[][..], |egress| &egress.services);
        let has_port = |visible: &&VisibleService| {
            visible.port(self.mesh, port).is_some_and(|port| port.protocol != Protocol::Udp)
        };
        let named = services.iter().filter(|visible| self.mesh.service(visible.service).host == *host);
        let last = named.filter(has_port).last();
        last.and_then(|visible| target(visible.service)).unwrap_or(host).clone()
    }

    /// The configuration with the most specific host for a Service.
    fn config_for_service(&self, egress: &EgressListener<'m>, service: &str) -> Option<&'m RouteConfig> {
        let pairs = egress
            .configs
            .iter()
            .copied()
            .flat_map(|config| config.hosts.iter().map(move |host| (host.as_str(), config)));
        let mut most_specific: Option<(&str, &RouteConfig)> = None;
        for (host, config) in pairs {
            let covers = match host.strip_prefix('*') {
                Some(suffix) if service.starts_with('*') => {
                    host == service || service.strip_prefix('*').is_some_and(|rest| rest.ends_with(suffix))
                }
                Some(suffix) => service.ends_with(suffix),
                None => host == service,
            };
            if covers && most_specific.is_none_or(|(best, _)| host_patterns::by_specificity(host, best).is_lt()) {
                most_specific = Some((host, config));
            }
        }
        most_specific.map(|(_, config)| config)
    }
}

/// Whether a Service on the port has a host of a configuration.
fn has_host_on_port(config: &RouteConfig, entries: &HashMap<String, TableEntry<'_>>) -> bool {
    config.hosts.iter().any(|host| {
        entries.contains_key(host.as_str())
            || if host.as_str().starts_with('*') {
                entries.keys().any(|entry| host_patterns::overlap(host.as_str(), entry))
            } else {
                entries.keys().any(|entry| entry.starts_with('*') && host_patterns::overlap(host.as_str(), entry))
            }
    })
}

struct HostRoutes<'m, 'e> {
    hosts: Vec<String>,
    services: Vec<&'e TableEntry<'e>>,
    routes: Rc<[CompiledRoute<'m>]>,
    skipped: Rc<[super::TriedRule]>,
}

/// Collects virtual hosts. Domains must be unique within a route table: the first virtual host with a domain keeps it.
struct VirtualHostBuilder<'m, 'p> {
    proxy: &'p ProxyConfig<'m>,
    port: u16,
    hosts: Vec<CompiledVirtualHost<'m>>,
    names: HashSet<String>,
    domains: HashSet<String>,
}

impl<'m> VirtualHostBuilder<'m, '_> {
    fn add(
        &mut self,
        host: &str,
        service: Option<&VisibleService>,
        routes: &Rc<[CompiledRoute<'m>]>,
        skipped: &Rc<[super::TriedRule]>,
        service_hosts: &HashSet<String>,
    ) {
        let name = format!("{host}:{}", self.port);
        if !self.names.insert(name.clone()) {
            return;
        }
        let candidates = service.map_or_else(|| vec![HostDomain::primary(host)], |visible| self.proxy.domains(visible));
        let mut domains = Vec::with_capacity(candidates.len());
        for HostDomain { name, is_alternate } in candidates {
            // A short form never claims the full name of another Service.
            if is_alternate && service_hosts.contains(&name) {
                continue;
            }
            if self.domains.insert(name.to_ascii_lowercase()) {
                domains.push(name);
            }
        }
        if !domains.is_empty() {
            let (routes, skipped) = (Rc::clone(routes), Rc::clone(skipped));
            self.hosts.push(CompiledVirtualHost { name, domains, routes, requires_tls: false, skipped });
        }
    }
}

/// A name or address that leads to a virtual host.
struct HostDomain {
    name: String,
    /// Whether it is an alternate form of a Service's name, such as `checkout.shop`.
    is_alternate: bool,
}

impl HostDomain {
    fn primary(name: &str) -> Self {
        Self { name: name.to_owned(), is_alternate: false }
    }

    fn alternate(name: String) -> Self {
        Self { name, is_alternate: true }
    }
}

impl ProxyConfig<'_> {
    /// The names and addresses that lead to a Service.
    fn domains(&self, visible: &VisibleService) -> Vec<HostDomain> {
        let service = self.mesh.service(visible.service);
        let mut domains = Vec::new();
        let aliases = visible.aliases.iter().map(|alias| self.mesh.service(*alias).host.as_str());
        for host in std::iter::once(service.host.as_str()).chain(aliases) {
            domains.push(HostDomain::primary(host));
            domains.extend(self.alternate_names(host).into_iter().map(HostDomain::alternate));
        }
        if service.resolution == Resolution::Headless {
            // Clients of a headless Service may use pod names.
            let pods: Vec<HostDomain> =
                domains.iter().map(|domain| HostDomain::primary(&format!("*.{}", domain.name))).collect();
            domains.extend(pods);
            return domains;
        }
        let addresses = service.addresses.iter().map(|address| match address {
            std::net::IpAddr::V4(address) => address.to_string(),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
        });
        let used = if service.is_kubernetes() { service.addresses.len() } else { 1 };
        domains.extend(addresses.take(used).map(|address| HostDomain::primary(&address)));
        domains
    }

    /// Other names for a Service host: with a trailing dot, and the short forms that resolve in the caller's namespace.
    fn alternate_names(&self, host: &str) -> Vec<String> {
        let mut forms = Vec::new();
        if host.parse::<std::net::IpAddr>().is_err() {
            forms.push(format!("{host}."));
        }
        let suffix = format!(".svc.{}", self.mesh.cluster_domain);
        let Some(inner) = host.strip_suffix(&suffix) else { return forms };
        let Some((name, namespace)) = inner.split_once('.') else { return forms };
        if namespace == self.caller.namespace.as_str() {
            forms.push(name.to_owned());
        }
        forms.push(format!("{inner}.svc"));
        forms.push(inner.to_owned());
        forms
    }
}
