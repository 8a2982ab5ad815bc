//! Endpoints that Kubernetes knows against those that an Envoy has.

use std::collections::{BTreeSet, HashMap};

use super::Difference;
use crate::envoy::endpoint::{Assignment, show};
use crate::mesh::Mesh;
use crate::mesh::ids::Labels;
use crate::mesh::outbound::IntendedCluster;
use crate::schema::Kind;
use crate::schema::core::EndpointSlice;

/// Addresses that are shown of each kind.
const SHOWN: usize = 5;

/// What EndpointSlices say, by Service.
#[derive(Debug)]
pub struct Slices {
    by_service: HashMap<(String, String), Vec<EndpointSlice>>,
    labels: HashMap<String, Labels>,
}

impl Slices {
    /// Reads those of a mesh's snapshot; `None` when the source has none at all.
    pub fn new(mesh: &Mesh<'_>) -> Option<Self> {
        let mut by_service: HashMap<(String, String), Vec<EndpointSlice>> = HashMap::new();
        for object in mesh.snapshot.of_kind(Kind::EndpointSlice) {
            let Ok(slice) = serde_json::from_str::<EndpointSlice>(object.body.get()) else { continue };
            let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name").cloned() else { continue };
            by_service.entry((object.key.namespace.to_string(), service)).or_default().push(slice);
        }
        let pods = mesh.workloads.iter().filter_map(|one| Some((one.ip.as_deref()?.to_owned(), one.labels.clone())));
        (!by_service.is_empty()).then(|| Self { labels: pods.collect(), by_service })
    }

    /// The differences between the endpoints of clusters. Of Services whose endpoints stand elsewhere nothing is said.
    pub fn compare(&self, mesh: &Mesh<'_>, intent: &[&IntendedCluster], live: &[Assignment]) -> Vec<Difference> {
        let of_live: HashMap<&str, &Assignment> = live.iter().map(|one| (one.cluster.as_str(), one)).collect();
        let mut found = Vec::new();
        for cluster in intent.iter().filter(|one| one.has_endpoints) {
            let Some((ready, all)) = self.addresses(mesh, cluster) else { continue };
            let none = BTreeSet::new();
            let name = &cluster.cluster.name;
            let (healthy, unhealthy) =
                of_live.get(name.as_str()).map_or((&none, &none), |one| (&one.healthy, &one.unhealthy));
            let missing: Vec<&String> = ready.difference(healthy).collect();
            // An endpoint that ends may stay for a moment and gets nothing new.
            let more: Vec<&String> = healthy.union(unhealthy).filter(|one| !all.contains(*one)).collect();
            if !missing.is_empty() || !more.is_empty() {
                found.push(Difference {
                    what: format!("endpoints of {name}"),
                    intent: list(&missing),
                    live: list(&more),
                });
            }
        }
        found
    }

    /// Addresses that should take calls, and all that Kubernetes knows.
    fn addresses(&self, mesh: &Mesh<'_>, cluster: &IntendedCluster) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
        let service = mesh.service(cluster.service);
        let key = (service.namespace().to_string(), service.object.name.to_string());
        let slices = self.by_service.get(&key).filter(|_| service.is_kubernetes())?;
        let port = service.port(cluster.port)?;
        let subset = cluster.subset_labels.as_ref();
        let (mut ready, mut all) = (BTreeSet::new(), BTreeSet::new());
        for slice in slices {
            let name = port.name.as_deref().unwrap_or_default();
            let of_port = slice.ports.iter().find(|one| one.name.as_deref().unwrap_or_default() == name);
            let Some(number) = of_port.and_then(|one| one.port).and_then(|port| u16::try_from(port).ok()) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let takes = endpoint.conditions.ready.unwrap_or(true) && endpoint.conditions.terminating != Some(true);
                for address in &endpoint.addresses {
                    let fits = subset.is_none_or(|wanted| {
                        let have = self.labels.get(address);
                        wanted.iter().all(|(key, value)| have.and_then(|have| have.get(key)) == Some(value.as_str()))
                    });
                    if !fits {
                        continue;
                    }
                    let text = show(address, number);
                    if takes || service.publishes_not_ready {
                        ready.insert(text.clone());
                    }
                    all.insert(text);
                }
            }
        }
        Some((ready, all))
    }
}

fn list(addresses: &[&String]) -> String {
    let shown: Vec<&str> = addresses.iter().take(SHOWN).map(|one| one.as_str()).collect();
    let more = addresses.len().saturating_sub(shown.len());
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
