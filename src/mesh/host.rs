//! Host names: how short ones are completed, what a wildcard covers, and maps keyed by them.

use std::collections::HashMap;

use super::ids::{Host, Namespace};

/// The cluster domain when nothing says otherwise.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// Completes a host as istiod does: a name without a dot belongs to `namespace`, which is that of the object it
/// stands in; a name with any dot is taken as it is.
/// Source: `pilot/pkg/model/config.go` (`ResolveShortnameToFQDN`).
pub fn resolve(host: &str, namespace: &Namespace, cluster_domain: &str) -> Host {
    if host.is_empty() || host.contains(['.', '*', ':']) {
        return host.into();
    }
    format!("{host}.{namespace}.svc.{cluster_domain}").as_str().into()
}

/// The host of a Kubernetes Service.
pub fn of_service(name: &str, namespace: &Namespace, cluster_domain: &str) -> Host {
    format!("{name}.{namespace}.svc.{cluster_domain}").as_str().into()
}

/// Whether `pattern` covers `host`; a pattern without `*` covers itself.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() >= suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// Values by host. Exact hosts and wildcards are kept apart, so a look-up costs a few hashes whatever the size.
#[derive(Debug)]
pub struct HostMap<T> {
    exact: HashMap<Host, Vec<T>>,
    /// By the text after `*`.
    wildcards: HashMap<Box<str>, Vec<T>>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcards: HashMap::new() }
    }
}

impl<T> HostMap<T> {
    /// Adds a value under a host or a wildcard.
    pub fn insert(&mut self, host: &Host, value: T) {
        self.exact_mut(host).push(value);
    }

    /// The values under exactly this host.
    pub fn exact(&self, host: &str) -> &[T] {
        self.exact.get(host).map_or(&[], Vec::as_slice)
    }

    /// The values under exactly this host or wildcard, to change them.
    pub fn exact_mut(&mut self, host: &Host) -> &mut Vec<T> {
        match host.as_str().strip_prefix('*') {
            Some(suffix) => self.wildcards.entry(suffix.into()).or_default(),
            None => self.exact.entry(host.clone()).or_default(),
        }
    }

    /// The values of every key that covers `host`, most specific key first.
    pub fn covering<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a [T]> + 'a {
        // A wildcard looked up by its own text finds itself; `*.a.b` is covered by `*.b`.
        let (exact, name) = match host.strip_prefix('*') {
            Some(suffix) => (self.wildcards.get(suffix), suffix),
            None => (self.exact.get(host), host),
        };
        let suffixes =
            name.char_indices().filter(|(at, _)| *at > 0 || !host.starts_with('*')).map(|(at, _)| &name[at..]);
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

    /// All keys with their values, in no order.
    pub fn iter_exact(&self) -> impl Iterator<Item = (&Host, &[T])> {
        self.exact.iter().map(|(host, values)| (host, values.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_belong_to_their_objects_namespace() {
        let shop = Namespace::from("shop");
        for (host, expected) in [
            ("cart", "cart.shop.svc.cluster.local"),
            ("cart.shop", "cart.shop"),
            ("*.example.com", "*.example.com"),
            ("*", "*"),
            ("10.0.0.1", "10.0.0.1"),
            ("Cart", "Cart.shop.svc.cluster.local"),
        ] {
            assert_eq!(resolve(host, &shop, "cluster.local").as_str(), expected);
        }
        assert_eq!(resolve("a", &shop, "corp.example").as_str(), "a.shop.svc.corp.example");
    }

    #[test]
    fn the_most_specific_key_wins() {
        let mut map = HostMap::default();
        for key in ["a.b.c", "*.b.c", "*.c", "*"] {
            map.insert(&key.into(), key);
        }
        let found = |host: &str| map.covering(host).map(|values| values[0]).collect::<Vec<_>>();
        assert_eq!(found("a.b.c"), ["a.b.c", "*.b.c", "*.c", "*"]);
        assert_eq!(found("x.b.c"), ["*.b.c", "*.c", "*"]);
        assert_eq!(found("*.b.c"), ["*.b.c", "*.c", "*"]);
        assert_eq!(found("z"), ["*"]);
        assert!(covers("*.c", "a.c") && !covers("*.c", "c") && covers("*", "c"));
    }
}
