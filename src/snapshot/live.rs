//! What the Envoys of a mesh ran when they were asked. Proxies that nothing tells apart run the same: each route table,
//! cluster and list of endpoints is kept once, and a proxy is a list of numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use serde::{Deserialize, Serialize};

use crate::envoy::cluster::EnvoyCluster;
use crate::envoy::config_dump::RunningConfig;
use crate::envoy::counters::EndpointCounters;
use crate::envoy::endpoint::EndpointAssignment;
use crate::envoy::route::EnvoyRouteTable;
use crate::envoy::sync::XdsSyncState;

/// What the Envoys of a mesh ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveState {
    /// When they were asked, RFC 3339.
    pub asked: String,
    routes: Deduplicated<EnvoyRouteTable>,
    clusters: Deduplicated<EnvoyCluster>,
    endpoints: Deduplicated<EndpointAssignment>,
    /// By namespace and pod.
    #[serde(with = "by_pod")]
    proxies: BTreeMap<(String, String), LiveProxy>,
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveProxy {
    /// What istiod said of it.
    pub sync: XdsSyncState,
    /// What it answered.
    pub answer: ProxyResponse,
    /// What it counted at two times, for clusters that it ever used: first and last; absent where it did not answer.
    #[serde(default)]
    pub counted: (Option<Vec<EndpointCounters>>, Option<Vec<EndpointCounters>>),
    /// What differed at the last look and not at the one before: it was about to arrive, and is no difference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passing: Vec<String>,
}

/// What a proxy answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyResponse {
    /// What it runs.
    Runs(ConfigParts),
    /// It could not be asked, and why.
    Silent(String),
    /// It was not asked, and why.
    NotAsked(String),
}

/// The parts of one proxy's configuration, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigParts {
    routes: Vec<u32>,
    clusters: Vec<u32>,
    endpoints: Vec<u32>,
    refused: Vec<(String, String)>,
    #[serde(default)]
    secrets: Option<BTreeSet<String>>,
}

impl LiveState {
    /// Nobody was asked yet.
    pub fn new(asked: String) -> Self {
        Self { asked, ..Self::default() }
    }

    /// Takes what a proxy runs.
    pub fn keep(&mut self, running: RunningConfig) -> ProxyResponse {
        let RunningConfig { routes, clusters, endpoints, refused, secrets } = running;
        ProxyResponse::Runs(ConfigParts {
            routes: routes.into_iter().map(|one| self.routes.place(one)).collect(),
            clusters: clusters.into_iter().map(|one| self.clusters.place(one)).collect(),
            endpoints: endpoints.into_iter().map(|one| self.endpoints.place(one)).collect(),
            refused,
            secrets,
        })
    }

    /// Takes a proxy.
    pub fn insert(&mut self, namespace: String, pod: String, proxy: LiveProxy) {
        self.proxies.insert((namespace, pod), proxy);
    }

    /// Adds to what is known of a pod's proxy.
    pub fn proxy_mut(&mut self, namespace: &str, pod: &str) -> Option<&mut LiveProxy> {
        self.proxies.get_mut(&(namespace.to_owned(), pod.to_owned()))
    }

    /// What is known of a pod's proxy.
    pub fn proxy(&self, namespace: &str, pod: &str) -> Option<&LiveProxy> {
        self.proxies.get(&(namespace.to_owned(), pod.to_owned()))
    }

    /// All of them, by namespace and pod.
    pub fn proxies(&self) -> impl Iterator<Item = (&str, &str, &LiveProxy)> {
        self.proxies.iter().map(|((namespace, pod), proxy)| (namespace.as_str(), pod.as_str(), proxy))
    }

    /// What a proxy runs, put together again. Numbers that lead nowhere, in a file that was changed, are passed over.
    pub fn running(&self, parts: &ConfigParts) -> RunningConfig {
        RunningConfig {
            routes: self.routes.take(&parts.routes),
            clusters: self.clusters.take(&parts.clusters),
            endpoints: self.endpoints.take(&parts.endpoints),
            refused: parts.refused.clone(),
            secrets: parts.secrets.clone(),
        }
    }
}

/// Different things, each once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Deduplicated<T> {
    parts: Vec<T>,
    /// Places of things by their hash.
    #[serde(skip)]
    places: HashMap<u64, Vec<u32>>,
}

impl<T> Default for Deduplicated<T> {
    fn default() -> Self {
        Self { parts: Vec::new(), places: HashMap::new() }
    }
}

impl<T: PartialEq> PartialEq for Deduplicated<T> {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl<T: Hash + PartialEq + Clone> Deduplicated<T> {
    fn place(&mut self, part: T) -> u32 {
        let mut hasher = DefaultHasher::new();
        part.hash(&mut hasher);
        let places = self.places.entry(hasher.finish()).or_default();
        let same = places.iter().find(|place| self.parts.get(**place as usize) == Some(&part));
        if let Some(place) = same {
            return *place;
        }
        let place = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        places.push(place);
        self.parts.push(part);
        place
    }

    fn take(&self, places: &[u32]) -> Vec<T> {
        places.iter().filter_map(|place| self.parts.get(*place as usize)).cloned().collect()
    }
}

/// JSON has no pairs as keys: a list of entries.
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
        EnvoyRouteTable { name: name.to_owned(), hosts: Vec::new() }
    }

    #[test]
    fn each_part_is_kept_once_and_comes_back() {
        let mut live = LiveState::new("2026-11-21T09:00:00Z".to_owned());
        let all = ["a", "b", "a"]
            .map(|name| RunningConfig { routes: vec![table("80"), table(name)], ..RunningConfig::default() });
        for (at, running) in all.iter().enumerate() {
            let answer = live.keep(running.clone());
            let proxy =
                LiveProxy { sync: XdsSyncState::NotConnected, answer, counted: <_>::default(), passing: Vec::new() };
            live.insert("shop".to_owned(), format!("pod-{at}"), proxy);
        }
        assert_eq!(live.routes.parts.len(), 3);
        let text = serde_json::to_string(&live).unwrap();
        let again: LiveState = serde_json::from_str(&text).unwrap();
        assert_eq!(again, live);
        for (at, running) in all.iter().enumerate() {
            let ProxyResponse::Runs(parts) = &again.proxy("shop", &format!("pod-{at}")).unwrap().answer else {
                panic!()
            };
            assert_eq!(&again.running(parts), running);
        }
        // A file may have been changed: a number that leads nowhere is no reason to fail.
        let odd: LiveState = serde_json::from_str(&text.replace("[0,1]", "[0,99]")).unwrap();
        let ProxyResponse::Runs(parts) = &odd.proxy("shop", "pod-0").unwrap().answer else { panic!() };
        assert_eq!(odd.running(parts).routes, [table("80")]);
    }
}
