//! Services by name: exact, by the name alone, nearest, and hosts by their ending.
//!
//! Every question is answered from a sorted list, so that rules that ask once per object stay linear in a mesh of ten
//! thousand Services.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ids::{Host, Namespace, ServiceId};
use super::service::Service;
use crate::vocabulary::nearest_name;

/// How many near names are told.
const TOLD: usize = 3;

/// Services by name.
#[derive(Debug, Default)]
pub struct NameIndex {
    by_namespace: BTreeMap<Namespace, BTreeMap<Arc<str>, ServiceId>>,
    /// By name in lower case, whatever the namespace.
    by_name: BTreeMap<Box<str>, Vec<ServiceId>>,
    /// Hosts written backwards, sorted: those with one ending stand together.
    backwards: Vec<String>,
}

impl NameIndex {
    /// Takes in the registry.
    pub(super) fn new(services: &[Service]) -> Self {
        let mut directory = Self::default();
        for (position, service) in services.iter().enumerate() {
            let id = ServiceId::new(position);
            directory.backwards.push(backwards(&service.host));
            if service.is_kubernetes() {
                let name = &service.object.name;
                directory.by_namespace.entry(service.namespace().clone()).or_default().insert(Arc::clone(name), id);
                directory.by_name.entry(name.to_ascii_lowercase().into()).or_default().push(id);
            }
        }
        directory.backwards.sort_unstable();
        directory
    }

    /// The Kubernetes Service of this name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<ServiceId> {
        self.by_namespace.get(namespace)?.get(name).copied()
    }

    /// Kubernetes Services of this name in any namespace, in any case.
    pub fn named(&self, name: &str) -> &[ServiceId] {
        self.by_name.get(name.to_ascii_lowercase().as_str()).map_or(&[], Vec::as_slice)
    }

    /// Whether any host ends in `suffix`.
    pub fn any_host_ends_in(&self, suffix: &str) -> bool {
        let wanted = backwards(&suffix.into());
        let at = self.backwards.partition_point(|host| *host < wanted);
        self.backwards.get(at).is_some_and(|host| host.starts_with(&wanted))
    }

    /// Names near to `name`, as `name.namespace`: of this namespace by distance, then of the same name elsewhere. An
    /// empty namespace stands for all of them.
    pub fn similar(&self, namespace: &str, name: &str) -> Vec<String> {
        let limit = nearest_name::max_edits(name).max(2);
        let meant = |other: &&Namespace| namespace.is_empty() || other.as_str() == namespace;
        let mut near: Vec<(usize, &Arc<str>, &Namespace)> = self
            .by_namespace
            .iter()
            .filter(|(other, _)| meant(other))
            .flat_map(|(place, names)| names.keys().map(move |other| (other, place)))
            .filter(|(other, _)| other.len().abs_diff(name.len()) <= limit)
            .map(|(other, place)| (nearest_name::edits(name, other), other, place))
            .filter(|(distance, ..)| *distance <= limit)
            .collect();
        near.sort_unstable();
        let here = near.into_iter().map(|(_, other, place)| format!("{other}.{place}"));
        let elsewhere = self.by_namespace.iter().filter(|(other, _)| !meant(other));
        let same = elsewhere.filter(|(_, names)| names.contains_key(name)).map(|(other, _)| format!("{name}.{other}"));
        here.chain(same).take(TOLD).collect()
    }
}

fn backwards(host: &Host) -> String {
    host.as_str().chars().rev().collect()
}
