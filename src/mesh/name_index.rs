//! Lookups of Services by name: exact, in any namespace, by similar name, and by host suffix.
//!
//! Every lookup uses a sorted index. Rules run them once per object, and the total must stay linear for a mesh of
//! 10,000 Services.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ids::{Host, Namespace, ServiceId};
use super::service::Service;
use crate::vocabulary::nearest_name;

const MAX_SUGGESTIONS: usize = 3;

#[derive(Debug, Default)]
pub struct NameIndex {
    by_namespace: BTreeMap<Namespace, BTreeMap<Arc<str>, ServiceId>>,
    /// Keyed by the name in lower case.
    by_name: BTreeMap<Box<str>, Vec<ServiceId>>,
    /// Reversed hosts, sorted, so that hosts with a common suffix are adjacent.
    reversed_hosts: Vec<String>,
}

impl NameIndex {
    pub(super) fn new(services: &[Service]) -> Self {
        let mut index = Self::default();
        for (position, service) in services.iter().enumerate() {
            let id = ServiceId::new(position);
            index.reversed_hosts.push(reversed_text(&service.host));
            if service.is_kubernetes() {
                let name = &service.object.name;
                index.by_namespace.entry(service.namespace().clone()).or_default().insert(Arc::clone(name), id);
                index.by_name.entry(name.to_ascii_lowercase().into()).or_default().push(id);
            }
        }
        index.reversed_hosts.sort_unstable();
        index
    }

    /// The Kubernetes Service with exactly this namespace and name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<ServiceId> {
        self.by_namespace.get(namespace)?.get(name).copied()
    }

    /// Kubernetes Services with this name in any namespace, ignoring case.
    pub fn find_in_any_namespace(&self, name: &str) -> &[ServiceId] {
        self.by_name.get(name.to_ascii_lowercase().as_str()).map_or(&[], Vec::as_slice)
    }

    /// Whether the host of any registry entry ends in `suffix`.
    pub fn has_host_with_suffix(&self, suffix: &str) -> bool {
        let prefix = reversed_text(&suffix.into());
        let start = self.reversed_hosts.partition_point(|host| *host < prefix);
        self.reversed_hosts.get(start).is_some_and(|host| host.starts_with(&prefix))
    }

    /// Up to three suggestions for a misspelled Service, as `name.namespace`: similar names in `namespace`, nearest
    /// first, then the same name in other namespaces. An empty `namespace` means all namespaces.
    pub fn nearest_names(&self, namespace: &str, name: &str) -> Vec<String> {
        let max_edits = nearest_name::max_edits(name).max(2);
        let is_searched = |other: &&Namespace| namespace.is_empty() || other.as_str() == namespace;
        let mut similar: Vec<(usize, &Arc<str>, &Namespace)> = self
            .by_namespace
            .iter()
            .filter(|(namespace, _)| is_searched(namespace))
            .flat_map(|(namespace, names)| names.keys().map(move |candidate| (candidate, namespace)))
            .filter(|(candidate, _)| candidate.len().abs_diff(name.len()) <= max_edits)
            .map(|(candidate, namespace)| (nearest_name::edit_distance(name, candidate), candidate, namespace))
            .filter(|(edits, ..)| *edits <= max_edits)
            .collect();
        similar.sort_unstable();
        let similar = similar.into_iter().map(|(_, candidate, namespace)| format!("{candidate}.{namespace}"));
        let elsewhere = self.by_namespace.iter().filter(|(namespace, _)| !is_searched(namespace));
        let same_name =
            elsewhere.filter(|(_, names)| names.contains_key(name)).map(|(namespace, _)| format!("{name}.{namespace}"));
        similar.chain(same_name).take(MAX_SUGGESTIONS).collect()
    }
}

fn reversed_text(host: &Host) -> String {
    host.as_str().chars().rev().collect()
}
