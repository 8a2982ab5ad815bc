//! Virtual hosts of a sidecar's route tables: which routes a call's authority leads to.
//!
//! Source: `pilot/pkg/networking/core/httproute.go` and `BuildSidecarVirtualHostWrapper` in `route/route.go` of
//! istio/istio 1.31. Ports of an authority are ignored; Envoy takes the longest name that fits.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::ProxyConfig;
use super::host_patterns;
use super::listener::RouteTableName;
use super::route::{CompiledAction, CompiledRoute};
use super::route_config::RouteConfig;
use super::scope::{VisibleListener, VisibleService};
use crate::mesh::Mesh;
use crate::mesh::ids::{Host, ServiceId};
use crate::mesh::protocol::Protocol;
use crate::mesh::service::Resolution;
use crate::mesh::virtual_service::GatewayName;

/// A virtual host.
#[derive(Debug, Clone)]
pub(super) struct CompiledVirtualHost<'m> {
    pub(super) name: String,
    pub(super) domains: Vec<String>,
    /// Shared by the names of one configuration.
    pub(super) routes: Rc<[CompiledRoute<'m>]>,
    /// Plain text is answered with a redirect to HTTPS.
    pub(super) needs_tls: bool,
    /// What was not emitted for this proxy, with the reason.
    pub(super) left_out: Rc<[super::TriedRule]>,
}

/// A Service as a route table has it: with the one port of the table.
struct TableEntry<'e> {
    host: String,
    seen: &'e VisibleService,
}

impl<'m> ProxyConfig<'m> {
    /// The virtual hosts of a route table.
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
                    .filter(|one| one.domains.iter().any(|domain| domain == host.as_str()))
                    .collect();
                if let [one] = hosts.as_mut_slice() {
                    one.domains = vec!["*".to_owned()];
                }
                hosts
            }
        }
    }

    /// What unknown hosts get.
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
            needs_tls: false,
            left_out: Rc::new([]),
        }
    }

    fn hosts_of_port(&self, port: u16) -> Vec<CompiledVirtualHost<'m>> {
        let Some(egress) = self.scope.listener_for(port) else { return Vec::new() };
        let mut entries: HashMap<String, TableEntry<'_>> = HashMap::new();
        for seen in &egress.services {
            if seen.port(self.mesh, port).is_some_and(|port| port.protocol != Protocol::Udp) {
                let host = self.mesh.service(seen.service).host.as_str().to_ascii_lowercase();
                entries.insert(host.clone(), TableEntry { host, seen });
            }
        }
        let mut made = VirtualHostBuilder {
            outbound: self,
            port,
            hosts: Vec::new(),
            names: HashSet::new(),
            domains: HashSet::new(),
        };
        let mut owned: HashSet<String> = HashSet::new();
        let mut wrappers = Vec::new();
        for config in &egress.configs {
            // Hosts that nobody has in the registry get routes on port 80 only.
            if port != 80 && !selects(config, &entries) {
                continue;
            }
            if let Some(wrapper) = self.wrap(egress, config, &entries, port) {
                owned.extend(wrapper.services.iter().map(|entry| entry.host.clone()));
                wrappers.push(wrapper);
            }
        }
        let known: HashSet<String> = wrappers
            .iter()
            .flat_map(|wrapper| wrapper.services.iter().map(|entry| entry.host.clone()))
            .chain(entries.values().filter(|entry| !owned.contains(&entry.host)).map(|entry| entry.host.clone()))
            .collect();
        for wrapper in wrappers {
            for host in &wrapper.hosts {
                made.add(host, None, &wrapper.routes, &wrapper.left_out, &known);
            }
            for entry in &wrapper.services {
                made.add(&entry.host, Some(entry.seen), &wrapper.routes, &wrapper.left_out, &known);
            }
        }
        let nothing: Rc<[super::TriedRule]> = Rc::new([]);
        let mut rest: Vec<&TableEntry<'_>> = entries.values().filter(|entry| !owned.contains(&entry.host)).collect();
        rest.sort_by(|a, b| a.host.cmp(&b.host));
        for entry in rest {
            let service = self.mesh.service(entry.seen.service);
            let routed = entry.seen.port(self.mesh, port).is_some_and(|port| port.protocol.is_http_or_auto());
            if Mesh::is_alias(service) || !routed {
                continue;
            }
            let routes: Rc<[CompiledRoute<'m>]> =
                Rc::new([CompiledRoute::catch_all(CompiledAction::Service(&service.host), port)]);
            made.add(&entry.host, Some(entry.seen), &routes, &nothing, &known);
        }
        made.hosts
    }

    /// The hosts and Services that a configuration gives routes to on a port; `None` when it has none for this proxy,
    /// and so steps aside.
    fn wrap<'e>(
        &self,
        egress: &VisibleListener<'m>,
        config: &'m RouteConfig,
        entries: &'e HashMap<String, TableEntry<'e>>,
        port: u16,
    ) -> Option<HostRoutes<'m, 'e>> {
        let (routes, left_out) = self.routes(config, &GatewayName::Mesh, port);
        if routes.is_empty() {
            return None;
        }
        let (hosts, mut services) = self.split_hosts(egress, config, entries);
        if config.is_gateway_api {
            let own = self.caller.namespace == config.namespace;
            services.retain(|entry| own || *self.mesh.service(entry.seen.service).namespace() == config.namespace);
            if services.is_empty() {
                return None;
            }
        }
        services.retain(|entry| entry.seen.port(self.mesh, port).is_some_and(|port| port.protocol.is_http_or_auto()));
        if services.is_empty() && port != 80 {
            return None;
        }
        Some(HostRoutes { hosts, services, routes: routes.into(), left_out: left_out.into() })
    }

    /// Which hosts of a configuration are Services, and which nobody has.
    fn split_hosts<'e>(
        &self,
        egress: &VisibleListener<'m>,
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
            let mut found = false;
            let mut covered: Vec<&TableEntry<'_>> =
                entries.values().filter(|entry| host_patterns::overlap(&entry.host, host.as_str())).collect();
            covered.sort_by(|a, b| a.host.cmp(&b.host));
            for entry in covered {
                found = true;
                // The most precise host of any configuration owns a Service.
                if self.owner(egress, &entry.host).is_some_and(|owner| std::ptr::eq(owner, config)) {
                    services.push(entry);
                }
            }
            if !found {
                hosts.push(host.as_str().to_owned());
            }
        }
        (hosts, services)
    }

    /// The host that a destination means on a route table's port: an alias stands for its target, if it has the port.
    pub(super) fn concrete_on_port(&self, host: &Host, port: u16) -> Host {
        let target = |id: ServiceId| match &self.mesh.service(id).resolution {
            Resolution::ExternalName(target) => Some(target),
            _ => None,
        };
        if !self.mesh.services_named(host.as_str()).iter().any(|id| target(*id).is_some()) {
            return host.clone();
        }
        let services = self.scope.listener_for(port).map_or(&[][..], |egress| &egress.services);
        let has_port =
            |seen: &&VisibleService| seen.port(self.mesh, port).is_some_and(|port| port.protocol != Protocol::Udp);
        let named = services.iter().filter(|seen| self.mesh.service(seen.service).host == *host);
        let last = named.filter(has_port).last();
        last.and_then(|seen| target(seen.service)).unwrap_or(host).clone()
    }

    /// The configuration with the most precise host for a Service.
    fn owner(&self, egress: &VisibleListener<'m>, service: &str) -> Option<&'m RouteConfig> {
        let pairs = egress
            .configs
            .iter()
            .copied()
            .flat_map(|config| config.hosts.iter().map(move |host| (host.as_str(), config)));
        let mut best: Option<(&str, &RouteConfig)> = None;
        for (host, config) in pairs {
            let fits = match host.strip_prefix('*') {
                Some(suffix) if service.starts_with('*') => host == service || service[1..].ends_with(suffix),
                Some(suffix) => service.ends_with(suffix),
                None => host == service,
            };
            if fits && best.is_none_or(|(have, _)| host_patterns::by_precision(host, have).is_lt()) {
                best = Some((host, config));
            }
        }
        best.map(|(_, config)| config)
    }
}

/// Whether a configuration has a host that some Service on the port has.
fn selects(config: &RouteConfig, entries: &HashMap<String, TableEntry<'_>>) -> bool {
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
    left_out: Rc<[super::TriedRule]>,
}

/// Virtual hosts while they are put together: the first one to have a domain keeps it.
struct VirtualHostBuilder<'m, 'o> {
    outbound: &'o ProxyConfig<'m>,
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
        left_out: &Rc<[super::TriedRule]>,
        known: &HashSet<String>,
    ) {
        let name = format!("{host}:{}", self.port);
        if !self.names.insert(name.clone()) {
            return;
        }
        let all = service.map_or_else(|| vec![HostDomain::own(host)], |seen| self.outbound.domains(seen));
        let mut domains = Vec::with_capacity(all.len());
        for HostDomain { name, is_other_form } in all {
            // A short form never takes the full name of another Service.
            if is_other_form && known.contains(&name) {
                continue;
            }
            if self.domains.insert(name.to_ascii_lowercase()) {
                domains.push(name);
            }
        }
        if !domains.is_empty() {
            let (routes, left_out) = (Rc::clone(routes), Rc::clone(left_out));
            self.hosts.push(CompiledVirtualHost { name, domains, routes, needs_tls: false, left_out });
        }
    }
}

/// A name or address that leads to a virtual host.
struct HostDomain {
    name: String,
    /// Whether it is another form of a Service's name.
    is_other_form: bool,
}

impl HostDomain {
    fn own(name: &str) -> Self {
        Self { name: name.to_owned(), is_other_form: false }
    }
}

impl ProxyConfig<'_> {
    /// Names and addresses that lead to a Service.
    fn domains(&self, seen: &VisibleService) -> Vec<HostDomain> {
        let service = self.mesh.service(seen.service);
        let mut domains = Vec::new();
        let aliases = seen.aliases.iter().map(|alias| self.mesh.service(*alias).host.as_str());
        for host in std::iter::once(service.host.as_str()).chain(aliases) {
            domains.push(HostDomain::own(host));
            domains.extend(self.other_forms(host).into_iter().map(|name| HostDomain { name, is_other_form: true }));
        }
        if service.resolution == Resolution::Headless {
            let all: Vec<HostDomain> = domains.iter().map(|one| HostDomain::own(&format!("*.{}", one.name))).collect();
            domains.extend(all);
            return domains;
        }
        let own = service.addresses.iter().map(|address| match address {
            std::net::IpAddr::V4(address) => address.to_string(),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
        });
        let used = if service.is_kubernetes() { service.addresses.len() } else { 1 };
        domains.extend(own.take(used).map(|name| HostDomain { name, is_other_form: false }));
        domains
    }

    /// Short forms of a Service's name for callers of this namespace, and the form with a dot at its end.
    fn other_forms(&self, host: &str) -> Vec<String> {
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
