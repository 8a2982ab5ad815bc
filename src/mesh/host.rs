//! Host names: completion of short names, wildcard matching, and maps keyed by hosts.

use std::collections::HashMap;

use super::ids::{Host, Namespace};

/// Cluster domain of Kubernetes and istiod by default.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// Completes a short host name as istiod does. A name without a dot gets the namespace of the object that contains it;
/// any other name stays as written.
/// Source: `pilot/pkg/model/config.go` (`ResolveShortnameToFQDN`).
pub fn to_fqdn(host: &str, namespace: &Namespace, cluster_domain: &str) -> Host {
    if host.is_empty() || host.contains(['.', '*', ':']) {
        return host.into();
    }
    format!("{host}.{namespace}.svc.{cluster_domain}").as_str().into()
}

/// Host of a Kubernetes Service: `name.namespace.svc.cluster.local`.
pub fn service_host(name: &str, namespace: &Namespace, cluster_domain: &str) -> Host {
    format!("{name}.{namespace}.svc.{cluster_domain}").as_str().into()
}

/// Whether `pattern` matches `host`. `*` matches any prefix, so `*.a` matches `x.y.a` but not `a`; a pattern without
/// `*` matches only itself.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() >= suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// Values by host or wildcard. A lookup costs one hash for each label of the host, whatever the number of entries.
#[derive(Debug)]
pub struct HostMap<T> {
    exact: HashMap<Host, Vec<T>>,
    /// Keyed by the text after `*`.
    wildcards: HashMap<Box<str>, Vec<T>>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcards: HashMap::new() }
    }
}

impl<T> HostMap<T> {
    pub fn insert(&mut self, host: &Host, value: T) {
        self.exact_mut(host).push(value);
    }

    /// Values of exactly this host, without wildcards.
    pub fn exact(&self, host: &str) -> &[T] {
        self.exact.get(host).map_or(&[], Vec::as_slice)
    }

    pub fn exact_mut(&mut self, host: &Host) -> &mut Vec<T> {
        match host.as_str().strip_prefix('*') {
            Some(suffix) => self.wildcards.entry(suffix.into()).or_default(),
            None => self.exact.entry(host.clone()).or_default(),
        }
    }

    /// Values of every key that matches `host`, most specific key first.
    pub fn covering<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a [T]> + 'a {
        // A wildcard host matches its own key and every shorter wildcard: `*.b` matches `*.a.b`.
        let (exact, name) = match host.strip_prefix('*') {
            Some(suffix) => (self.wildcards.get(suffix), suffix),
            None => (self.exact.get(host), host),
        };
        let suffixes = name
            .char_indices()
            .filter(|(start, _)| *start > 0 || !host.starts_with('*'))
            .filter_map(|(start, _)| name.get(start..));
        let any = std::iter::once("");
        let shorter = self
            .has_wildcards()
            .then(|| suffixes.chain(any).filter_map(|suffix| self.wildcards.get(suffix)))
            .into_iter()
            .flatten();
        exact.into_iter().chain(shorter).map(Vec::as_slice)
    }

    fn has_wildcards(&self) -> bool {
        !self.wildcards.is_empty()
    }

    /// Exact hosts with their values, in no particular order.
    pub fn iter_exact(&self) -> impl Iterator<Item = (&Host, &[T])> {
        self.exact.iter().map(|(host, values)| (host, values.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_short_names_with_the_namespace_of_the_object() {
        let shop = Namespace::from("shop");
        for (host, expected) in [
            ("cart", "cart.shop.svc.cluster.local"),
            ("cart.shop", "cart.shop"),
            ("*.example.com", "*.example.com"),
            ("*", "*"),
            ("10.0.0.1", "10.0.0.1"),
            ("Cart", "Cart.shop.svc.cluster.local"),
        ] {
            assert_eq!(to_fqdn(host, &shop, "cluster.local").as_str(), expected);
        }
        assert_eq!(to_fqdn("a", &shop, "corp.example").as_str(), "a.shop.svc.corp.example");
    }

    #[test]
    fn returns_the_most_specific_key_first() {
        let mut map = HostMap::default();
        for key in ["a.b.c", "*.b.c", "*.c", "*"] {
            map.insert(&key.into(), key);
        }
        let matches = |host: &str| map.covering(host).map(|values| values[0]).collect::<Vec<_>>();
        assert_eq!(matches("a.b.c"), ["a.b.c", "*.b.c", "*.c", "*"]);
        assert_eq!(matches("x.b.c"), ["*.b.c", "*.c", "*"]);
        assert_eq!(matches("*.b.c"), ["*.b.c", "*.c", "*"]);
        assert_eq!(matches("z"), ["*"]);
        assert!(covers("*.c", "a.c") && !covers("*.c", "c") && covers("*", "c"));
    }
}
