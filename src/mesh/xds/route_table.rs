//! Looks up the virtual host for an authority in a route table.
//!
//! Source: Envoy 1.39, `envoy/config/route/v3/route_components.proto` (order of domains), `ignore_port_in_host_matching`
//! as istiod sets it. Ports of an authority are ignored, and the most specific domain wins.

use std::collections::HashMap;

use super::route::CompiledRoute;
use super::virtual_host::CompiledVirtualHost;

/// A route table with an index of its domains.
#[derive(Debug)]
pub(super) struct IndexedTable<'m> {
    hosts: Vec<CompiledVirtualHost<'m>>,
    /// Exact domains in lower case, each with the position of its virtual host.
    exact: HashMap<String, usize>,
    /// Wildcard domains, the most specific first.
    wildcards: Vec<(WildcardDomain, usize)>,
    /// The first route that makes Envoy reject the table: positions of its virtual host and route, and the reason.
    rejection: Option<(usize, usize, String)>,
}

#[derive(Debug)]
enum WildcardDomain {
    /// `*suffix`.
    Suffix(String),
    /// `prefix*`.
    Prefix(String),
    /// `*`.
    All,
}

impl WildcardDomain {
    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Prefix(prefix) => host.len() > prefix.len() && host.starts_with(prefix.as_str()),
            Self::All => true,
        }
    }

    /// Envoy tries suffix wildcards before prefix wildcards, longer ones before shorter ones, and `*` last.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Suffix(suffix) => (2, suffix.len()),
            Self::Prefix(prefix) => (1, prefix.len()),
            Self::All => (0, 0),
        }
    }
}

impl<'m> IndexedTable<'m> {
    pub(super) fn new(hosts: Vec<CompiledVirtualHost<'m>>) -> Self {
        let mut exact = HashMap::new();
        let mut wildcards = Vec::new();
        for (position, host) in hosts.iter().enumerate() {
            for domain in &host.domains {
                let domain = domain.to_ascii_lowercase();
                if domain == "*" {
                    wildcards.push((WildcardDomain::All, position));
                } else if let Some(suffix) = domain.strip_prefix('*') {
                    wildcards.push((WildcardDomain::Suffix(suffix.to_owned()), position));
                } else if let Some(prefix) = domain.strip_suffix('*') {
                    wildcards.push((WildcardDomain::Prefix(prefix.to_owned()), position));
                } else {
                    exact.entry(domain).or_insert(position);
                }
            }
        }
        wildcards.sort_by_key(|(wildcard, _)| std::cmp::Reverse(wildcard.rank()));
        let rejection = hosts.iter().enumerate().find_map(|(host_position, host)| {
            let mut routes = host.routes.iter().enumerate();
            routes.find_map(|(route_position, route)| Some((host_position, route_position, route.rejection()?)))
        });
        Self { hosts, exact, wildcards, rejection }
    }

    /// The virtual host that Envoy selects for an authority.
    pub(super) fn find(&self, authority: &str) -> Option<&CompiledVirtualHost<'m>> {
        let host = without_port(authority).to_ascii_lowercase();
        let wildcard = || self.wildcards.iter().find(|(wildcard, _)| wildcard.covers(&host));
        let position = self.exact.get(&host).copied().or_else(|| wildcard().map(|(_, position)| *position));
        position.and_then(|position| self.hosts.get(position))
    }

    /// The route that makes Envoy reject the whole table, and the reason.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    pub(super) fn rejection(&self) -> Option<(&CompiledRoute<'m>, &str)> {
        let (host, route, reason) = self.rejection.as_ref()?;
        Some((&self.hosts[*host].routes[*route], reason))
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
