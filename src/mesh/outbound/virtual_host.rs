//! Virtual hosts of a sidecar's route tables: which routes a call's authority leads to.
//!
//! Source: `pilot/pkg/networking/core/httproute.go` and `BuildSidecarVirtualHostWrapper` in `route/route.go` of
//! istio/istio 1.31. Ports of an authority are ignored; Envoy takes the longest name that fits.

use std::collections::{HashMap, HashSet};

use super::Outbound;
use super::configs::RouteConfig;
use super::listener::RouteTable;
use super::names;
use super::route::{Action, Route};
use super::scope::{EgressListener, Seen};
use crate::mesh::Mesh;
use crate::mesh::ids::Host;
use crate::mesh::protocol::Protocol;
use crate::mesh::service::Resolution;
use crate::mesh::virtual_service::GatewayName;

/// A virtual host.
#[derive(Debug, Clone)]
pub(super) struct VirtualHost<'m> {
    pub(super) name: String,
    pub(super) domains: Vec<String>,
    pub(super) routes: Vec<Route<'m>>,
    /// Plain text is answered with a redirect to HTTPS.
    pub(super) needs_tls: bool,
    /// What was not emitted for this proxy, with the reason.
    pub(super) left_out: Vec<super::Tried>,
}

/// A Service as a route table has it: with the one port of the table.
struct Entry<'e> {
    host: String,
    seen: &'e Seen,
}

impl<'m> Outbound<'m> {
    /// The virtual hosts of a route table.
    pub(super) fn virtual_hosts(&self, table: &RouteTable) -> Vec<VirtualHost<'m>> {
        match table {
            RouteTable::Port(port) => {
                let mut hosts = self.hosts_of_port(*port);
                hosts.push(self.catch_all());
                hosts
            }
            RouteTable::Service(host, port) => {
                let mut hosts: Vec<VirtualHost<'m>> = self
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
    fn catch_all(&self) -> VirtualHost<'m> {
        let (name, action) =
            if self.scope.allows_any { ("allow_any", Action::Passthrough) } else { ("block_all", Action::Block) };
        VirtualHost {
            name: name.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![Route::catch_all(name, action)],
            needs_tls: false,
            left_out: Vec::new(),
        }
    }

    fn hosts_of_port(&self, port: u16) -> Vec<VirtualHost<'m>> {
        let Some(egress) = self.scope.listener_for(port) else { return Vec::new() };
        let mut entries: HashMap<String, Entry<'_>> = HashMap::new();
        for seen in &egress.services {
            if seen.port(self.mesh, port).is_some_and(|port| port.protocol != Protocol::Udp) {
                let host = self.mesh.service(seen.service).host.as_str().to_ascii_lowercase();
                entries.insert(host.clone(), Entry { host, seen });
            }
        }
        let mut made =
            Making { outbound: self, port, hosts: Vec::new(), names: HashSet::new(), domains: HashSet::new() };
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
        let mut rest: Vec<&Entry<'_>> = entries.values().filter(|entry| !owned.contains(&entry.host)).collect();
        rest.sort_by(|a, b| a.host.cmp(&b.host));
        for entry in rest {
            let service = self.mesh.service(entry.seen.service);
            let routed = entry.seen.port(self.mesh, port).is_some_and(|port| port.protocol.is_http_or_auto());
            if Mesh::is_alias(service) || !routed {
                continue;
            }
            let route = self.default_route(&service.host, port);
            made.add(&entry.host, Some(entry.seen), &[route], &[], &known);
        }
        made.hosts
    }

    /// The hosts and Services that a configuration gives routes to on a port; `None` when it has none for this proxy,
    /// and so steps aside.
    fn wrap<'e>(
        &self,
        egress: &EgressListener<'m>,
        config: &'m RouteConfig,
        entries: &'e HashMap<String, Entry<'e>>,
        port: u16,
    ) -> Option<Wrapper<'m, 'e>> {
        let lookup = |host: &Host| {
            // Only Services that have the port are looked up, so a destination without a port gets the one dialled.
            let target = entries.get(host.as_str()).map(|entry| self.mesh.service(entry.seen.service));
            match target.map(|service| &service.resolution) {
                Some(Resolution::ExternalName(target)) => (target.clone(), None),
                _ => (host.clone(), None),
            }
        };
        let (routes, left_out) = self.routes(config, &GatewayName::Mesh, port, &lookup);
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
        Some(Wrapper { hosts, services, routes, left_out })
    }

    /// Which hosts of a configuration are Services, and which nobody has.
    fn split_hosts<'e>(
        &self,
        egress: &EgressListener<'m>,
        config: &RouteConfig,
        entries: &'e HashMap<String, Entry<'e>>,
    ) -> (Vec<String>, Vec<&'e Entry<'e>>) {
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
            let mut covered: Vec<&Entry<'_>> =
                entries.values().filter(|entry| names::overlap(&entry.host, host.as_str())).collect();
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

    /// The configuration with the most precise host for a Service.
    fn owner(&self, egress: &EgressListener<'m>, service: &str) -> Option<&'m RouteConfig> {
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
            if fits && best.is_none_or(|(have, _)| names::by_precision(host, have).is_lt()) {
                best = Some((host, config));
            }
        }
        best.map(|(_, config)| config)
    }
}

/// Whether a configuration has a host that some Service on the port has.
fn selects(config: &RouteConfig, entries: &HashMap<String, Entry<'_>>) -> bool {
    config.hosts.iter().any(|host| {
        entries.contains_key(host.as_str())
            || if host.as_str().starts_with('*') {
                entries.keys().any(|entry| names::overlap(host.as_str(), entry))
            } else {
                entries.keys().any(|entry| entry.starts_with('*') && names::overlap(host.as_str(), entry))
            }
    })
}

struct Wrapper<'m, 'e> {
    hosts: Vec<String>,
    services: Vec<&'e Entry<'e>>,
    routes: Vec<Route<'m>>,
    left_out: Vec<super::Tried>,
}

/// Virtual hosts while they are put together: the first one to have a domain keeps it.
struct Making<'m, 'o> {
    outbound: &'o Outbound<'m>,
    port: u16,
    hosts: Vec<VirtualHost<'m>>,
    names: HashSet<String>,
    domains: HashSet<String>,
}

impl<'m> Making<'m, '_> {
    fn add(
        &mut self,
        host: &str,
        service: Option<&Seen>,
        routes: &[Route<'m>],
        left_out: &[super::Tried],
        known: &HashSet<String>,
    ) {
        let name = format!("{host}:{}", self.port);
        if !self.names.insert(name.clone()) {
            return;
        }
        let (all, expanded) = match service {
            None => (vec![host.to_owned()], HashSet::new()),
            Some(seen) => self.outbound.domains(seen),
        };
        let mut domains = Vec::new();
        for domain in all {
            let lower = domain.to_ascii_lowercase();
            // A short form never takes the full name of another Service.
            if self.domains.contains(&lower) || (expanded.contains(&domain) && known.contains(&domain)) {
                continue;
            }
            self.domains.insert(lower);
            domains.push(domain);
        }
        if !domains.is_empty() {
            let (routes, left_out) = (routes.to_vec(), left_out.to_vec());
            self.hosts.push(VirtualHost { name, domains, routes, needs_tls: false, left_out });
        }
    }
}

impl Outbound<'_> {
    /// Names and addresses that lead to a Service, and which of them are other forms of its name.
    fn domains(&self, seen: &Seen) -> (Vec<String>, HashSet<String>) {
        let service = self.mesh.service(seen.service);
        let mut domains = Vec::new();
        let mut expanded = HashSet::new();
        let aliases = seen.aliases.iter().map(|alias| self.mesh.service(*alias).host.as_str());
        for host in std::iter::once(service.host.as_str()).chain(aliases) {
            domains.push(host.to_owned());
            for form in self.other_forms(host) {
                expanded.insert(form.clone());
                domains.push(form);
            }
        }
        if service.resolution == Resolution::Headless {
            let all: Vec<String> = domains.iter().map(|domain| format!("*.{domain}")).collect();
            domains.extend(all);
        }
        if service.resolution != Resolution::Headless {
            let own = service.addresses.iter().map(|address| match address {
                std::net::IpAddr::V4(address) => address.to_string(),
                std::net::IpAddr::V6(address) => format!("[{address}]"),
            });
            let used = if service.is_kubernetes() { service.addresses.len() } else { 1 };
            domains.extend(own.take(used));
        }
        (domains, expanded)
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

/// A route table, made to be asked often.
#[derive(Debug)]
pub(super) struct Table<'m> {
    hosts: Vec<VirtualHost<'m>>,
    /// Exact domains, lower case, with the position of the first host that has each.
    exact: HashMap<String, usize>,
    /// Domains with a wildcard, the most precise first.
    wildcards: Vec<(Wildcard, usize)>,
    /// The first route that makes Envoy refuse the whole table: its host, its position there, and why.
    refused: Option<(usize, usize, String)>,
}

/// A domain with a wildcard.
#[derive(Debug)]
enum Wildcard {
    /// `*suffix`.
    Suffix(String),
    /// `prefix*`.
    Prefix(String),
    /// `*`.
    All,
}

impl Wildcard {
    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Prefix(prefix) => host.len() > prefix.len() && host.starts_with(prefix.as_str()),
            Self::All => true,
        }
    }

    /// One at the front before one at the end, longer before shorter, `*` last.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Suffix(suffix) => (2, suffix.len()),
            Self::Prefix(prefix) => (1, prefix.len()),
            Self::All => (0, 0),
        }
    }
}

impl<'m> Table<'m> {
    /// Indexes virtual hosts.
    pub(super) fn new(hosts: Vec<VirtualHost<'m>>) -> Self {
        let mut exact = HashMap::new();
        let mut wildcards = Vec::new();
        for (at, host) in hosts.iter().enumerate() {
            for domain in &host.domains {
                let domain = domain.to_ascii_lowercase();
                if domain == "*" {
                    wildcards.push((Wildcard::All, at));
                } else if let Some(suffix) = domain.strip_prefix('*') {
                    wildcards.push((Wildcard::Suffix(suffix.to_owned()), at));
                } else if let Some(prefix) = domain.strip_suffix('*') {
                    wildcards.push((Wildcard::Prefix(prefix.to_owned()), at));
                } else {
                    exact.entry(domain).or_insert(at);
                }
            }
        }
        wildcards.sort_by_key(|(wildcard, _)| std::cmp::Reverse(wildcard.rank()));
        let refused = hosts.iter().enumerate().find_map(|(host, one)| {
            one.routes.iter().enumerate().find_map(|(at, route)| Some((host, at, route.refused()?)))
        });
        Self { hosts, exact, wildcards, refused }
    }

    /// The virtual host that Envoy takes for an authority.
    pub(super) fn find(&self, authority: &str) -> Option<&VirtualHost<'m>> {
        let host = without_port(authority).to_ascii_lowercase();
        let at = self
            .exact
            .get(&host)
            .copied()
            .or_else(|| self.wildcards.iter().find(|(wildcard, _)| wildcard.covers(&host)).map(|(_, at)| *at));
        at.and_then(|at| self.hosts.get(at))
    }

    /// The route that makes Envoy refuse the whole table, and why.
    pub(super) fn refused(&self) -> Option<(&Route<'m>, &str)> {
        let (host, at, why) = self.refused.as_ref()?;
        Some((&self.hosts[*host].routes[*at], why))
    }
}

/// An authority without its port.
pub(super) fn without_port(authority: &str) -> &str {
    if authority.ends_with(']') {
        return authority;
    }
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}
