//! A route table as it is asked: from an authority to its virtual host.
//!
//! Source: Envoy 1.39, `envoy/config/route/v3/route_components.proto` (order of domains), `ignore_port_in_host_matching`
//! as istiod sets it.

use std::collections::HashMap;

use super::route::CompiledRoute;
use super::virtual_host::CompiledVirtualHost;

/// A route table, made to be asked often.
#[derive(Debug)]
pub(super) struct IndexedTable<'m> {
    hosts: Vec<CompiledVirtualHost<'m>>,
    /// Exact domains, lower case, with the position of the first host that has each.
    exact: HashMap<String, usize>,
    /// Domains with a wildcard, the most precise first.
    wildcards: Vec<(WildcardDomain, usize)>,
    /// The first route that makes Envoy refuse the whole table: its host, its position there, and why.
    refused: Option<(usize, usize, String)>,
}

/// A domain with a wildcard.
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

    /// One at the front before one at the end, longer before shorter, `*` last.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Suffix(suffix) => (2, suffix.len()),
            Self::Prefix(prefix) => (1, prefix.len()),
            Self::All => (0, 0),
        }
    }
}

impl<'m> IndexedTable<'m> {
    /// Indexes virtual hosts.
    pub(super) fn new(hosts: Vec<CompiledVirtualHost<'m>>) -> Self {
        let mut exact = HashMap::new();
        let mut wildcards = Vec::new();
        for (at, host) in hosts.iter().enumerate() {
            for domain in &host.domains {
                let domain = domain.to_ascii_lowercase();
                if domain == "*" {
                    wildcards.push((WildcardDomain::All, at));
                } else if let Some(suffix) = domain.strip_prefix('*') {
                    wildcards.push((WildcardDomain::Suffix(suffix.to_owned()), at));
                } else if let Some(prefix) = domain.strip_suffix('*') {
                    wildcards.push((WildcardDomain::Prefix(prefix.to_owned()), at));
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
    pub(super) fn find(&self, authority: &str) -> Option<&CompiledVirtualHost<'m>> {
        let host = without_port(authority).to_ascii_lowercase();
        let at = self
            .exact
            .get(&host)
            .copied()
            .or_else(|| self.wildcards.iter().find(|(wildcard, _)| wildcard.covers(&host)).map(|(_, at)| *at));
        at.and_then(|at| self.hosts.get(at))
    }

    /// The route that makes Envoy refuse the whole table, and why.
    pub(super) fn refused(&self) -> Option<(&CompiledRoute<'m>, &str)> {
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
