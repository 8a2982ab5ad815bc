//! The observed configuration and counters of the Envoys of a mesh.
//!
//! Proxies of the same caller class run the same configuration. Each route table, cluster and endpoint list is stored once,
//! and a proxy refers to them by number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use serde::{Deserialize, Serialize};

use crate::envoy::cluster::EnvoyCluster;
use crate::envoy::config_dump::RunningConfig;
use crate::envoy::counters::EndpointCounters;
use crate::envoy::endpoint::EndpointAssignment;
use crate::envoy::route::EnvoyRouteTable;
use crate::envoy::sync::XdsSyncState;

/// The observed configuration of the Envoys of a mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveState {
    /// Time of the queries, as RFC 3339.
    pub recorded_at: String,
    routes: Deduplicated<EnvoyRouteTable>,
    clusters: Deduplicated<EnvoyCluster>,
    endpoints: Deduplicated<EndpointAssignment>,
    /// Proxies by namespace and pod.
    #[serde(with = "by_pod")]
    proxies: BTreeMap<(String, String), LiveProxy>,
}

/// The observed state of one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveProxy {
    /// The sync state that istiod reports.
    pub sync: XdsSyncState,
    /// The response of its admin port.
    pub response: ProxyResponse,
    /// The first and the last reading of its endpoint counters, for clusters that it used. A reading is absent when the proxy
    /// did not answer.
    #[serde(default)]
    pub counters: (Option<Vec<EndpointCounters>>, Option<Vec<EndpointCounters>>),
    /// Differences of the last query that the query before it did not show. They are updates in progress, not differences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transient: Vec<String>,
}

/// The response of a proxy's admin port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyResponse {
    /// The configuration that it runs.
    Running(ConfigParts),
    /// The proxy could not be reached, with the reason.
    Unreachable(String),
    /// The proxy was not queried, with the reason.
    NotQueried(String),
}

/// One proxy's configuration, as numbers of deduplicated parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigParts {
    routes: Vec<u32>,
    clusters: Vec<u32>,
    endpoints: Vec<u32>,
    rejected: Vec<(String, String)>,
    #[serde(default)]
    secrets: Option<BTreeSet<String>>,
}

impl LiveState {
    /// Creates a state without proxies. `recorded_at` is RFC 3339.
    pub fn new(recorded_at: String) -> Self {
        Self { recorded_at, ..Self::default() }
    }

    /// Stores a proxy's configuration and returns the response that refers to it.
    pub fn record_config(&mut self, running: RunningConfig) -> ProxyResponse {
        let RunningConfig { routes, clusters, endpoints, rejected, secrets } = running;
        ProxyResponse::Running(ConfigParts {
            routes: routes.into_iter().map(|table| self.routes.intern(table)).collect(),
            clusters: clusters.into_iter().map(|cluster| self.clusters.intern(cluster)).collect(),
            endpoints: endpoints.into_iter().map(|assignment| self.endpoints.intern(assignment)).collect(),
            rejected,
            secrets,
        })
    }

    /// Adds a proxy, replacing an earlier state of the same pod.
    pub fn insert(&mut self, namespace: String, pod: String, proxy: LiveProxy) {
        self.proxies.insert((namespace, pod), proxy);
    }

    /// The state of a pod's proxy, for changes.
    pub fn proxy_mut(&mut self, namespace: &str, pod: &str) -> Option<&mut LiveProxy> {
        self.proxies.get_mut(&(namespace.to_owned(), pod.to_owned()))
    }

    /// The state of a pod's proxy.
    pub fn proxy(&self, namespace: &str, pod: &str) -> Option<&LiveProxy> {
        self.proxies.get(&(namespace.to_owned(), pod.to_owned()))
    }

    /// Iterates all proxies as namespace, pod and state, by namespace and pod.
    pub fn proxies(&self) -> impl Iterator<Item = (&str, &str, &LiveProxy)> {
        self.proxies.iter().map(|((namespace, pod), proxy)| (namespace.as_str(), pod.as_str(), proxy))
    }

    /// Rebuilds a proxy's configuration. Numbers without a part, which only an edited file can contain, are skipped.
    pub fn running_config(&self, parts: &ConfigParts) -> RunningConfig {
        RunningConfig {
            routes: self.routes.resolve(&parts.routes),
            clusters: self.clusters.resolve(&parts.clusters),
            endpoints: self.endpoints.resolve(&parts.endpoints),
            rejected: parts.rejected.clone(),
            secrets: parts.secrets.clone(),
        }
    }
}

/// A list of distinct values, addressed by their index.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Deduplicated<T> {
    parts: Vec<T>,
    /// Indexes of parts by hash.
    #[serde(skip)]
    indexes: HashMap<u64, Vec<u32>>,
}

impl<T> Default for Deduplicated<T> {
    fn default() -> Self {
        Self { parts: Vec::new(), indexes: HashMap::new() }
    }
}

impl<T: PartialEq> PartialEq for Deduplicated<T> {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl<T: Hash + PartialEq + Clone> Deduplicated<T> {
    /// Returns the index of `part`, adding it if it is new.
    fn intern(&mut self, part: T) -> u32 {
        let mut hasher = DefaultHasher::new();
        part.hash(&mut hasher);
        let indexes = self.indexes.entry(hasher.finish()).or_default();
        let existing = indexes.iter().find(|index| self.parts.get(**index as usize) == Some(&part));
        if let Some(index) = existing {
            return *index;
        }
        let index = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        indexes.push(index);
        self.parts.push(part);
        index
    }

    fn resolve(&self, indexes: &[u32]) -> Vec<T> {
        indexes.iter().filter_map(|index| self.parts.get(*index as usize)).cloned().collect()
    }
}

/// Serializes the proxies as a list, because JSON keys cannot be pairs.
mod by_pod {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::LiveProxy;

    #[derive(Serialize, Deserialize)]
    struct Entry<P> {
        namespace: String,
        pod: String,
        #[serde(flatten)]
        proxy: P,
    }

    pub(super) fn serialize<S: Serializer>(
        proxies: &BTreeMap<(String, String), LiveProxy>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(proxies.iter().map(|((namespace, pod), proxy)| Entry {
            namespace: namespace.clone(),
            pod: pod.clone(),
            proxy,
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<(String, String), LiveProxy>, D::Error> {
        let entries = Vec::<Entry<LiveProxy>>::deserialize(deserializer)?;
        Ok(entries.into_iter().map(|entry| ((entry.namespace, entry.pod), entry.proxy)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> EnvoyRouteTable {
        EnvoyRouteTable { name: name.to_owned(), virtual_hosts: Vec::new() }
    }

    #[test]
    fn stores_each_part_once_and_restores_configurations() {
        let mut live = LiveState::new("2026-11-21T09:00:00Z".to_owned());
        let all = ["a", "b", "a"]
            .map(|name| RunningConfig { routes: vec![table("80"), table(name)], ..RunningConfig::default() });
        for (index, running) in all.iter().enumerate() {
            let response = live.record_config(running.clone());
            let proxy = LiveProxy {
                sync: XdsSyncState::NotConnected,
                response,
                counters: <_>::default(),
                transient: Vec::new(),
            };
            live.insert("shop".to_owned(), format!("pod-{index}"), proxy);
        }
        assert_eq!(live.routes.parts.len(), 3);
        let text = serde_json::to_string(&live).unwrap();
        let decoded: LiveState = serde_json::from_str(&text).unwrap();
        assert_eq!(decoded, live);
        for (index, running) in all.iter().enumerate() {
            let ProxyResponse::Running(parts) = &decoded.proxy("shop", &format!("pod-{index}")).unwrap().response
            else {
                panic!()
            };
            assert_eq!(&decoded.running_config(parts), running);
        }
        // An edited file may contain numbers without a part.
        let edited: LiveState = serde_json::from_str(&text.replace("[0,1]", "[0,99]")).unwrap();
        let ProxyResponse::Running(parts) = &edited.proxy("shop", "pod-0").unwrap().response else { panic!() };
        assert_eq!(edited.running_config(parts).routes, [table("80")]);
    }
}
