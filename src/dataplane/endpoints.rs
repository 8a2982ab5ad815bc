//! Endpoints that Kubernetes knows against those that an Envoy has.

use std::collections::{BTreeSet, HashMap};

use super::Difference;
use crate::envoy::endpoint::{EndpointAssignment, show};
use crate::mesh::Mesh;
use crate::mesh::ids::Labels;
use crate::mesh::workload::Workload;
use crate::mesh::xds::CompiledCluster;
use crate::schema::Kind;
use crate::schema::core::EndpointSlice;
use crate::schema::string_list::few;

/// Addresses that are shown of each kind.
const SHOWN: usize = 5;

/// What EndpointSlices say, by Service.
#[derive(Debug)]
pub struct SliceEndpoints {
    by_service: HashMap<(String, String), Vec<EndpointSlice>>,
    /// Labels of pods by namespace and name.
    labels: HashMap<(String, String), Labels>,
}

impl SliceEndpoints {
    /// Reads those of a mesh's snapshot; `None` when the source has none at all.
    pub fn new(mesh: &Mesh<'_>) -> Option<Self> {
        let mut by_service: HashMap<(String, String), Vec<EndpointSlice>> = HashMap::new();
        for object in mesh.snapshot.of_kind(Kind::EndpointSlice) {
            let Ok(slice) = serde_json::from_str::<EndpointSlice>(object.body.get()) else { continue };
            let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name").cloned() else { continue };
            by_service.entry((object.key.namespace.to_string(), service)).or_default().push(slice);
        }
        let pods = mesh.workloads.iter().filter(|one| one.object.kind == Kind::Pod);
        let name = |one: &Workload| (one.namespace().to_string(), one.object.name.to_string());
        let pods = pods.map(|one| (name(one), one.labels.clone()));
        (!by_service.is_empty()).then(|| Self { labels: pods.collect(), by_service })
    }

    /// The differences between the endpoints of clusters. Of Services whose endpoints stand elsewhere nothing is said.
    pub fn compare(
        &self,
        mesh: &Mesh<'_>,
        intent: &[&CompiledCluster],
        live: &[EndpointAssignment],
    ) -> Vec<Difference> {
        let of_live: HashMap<&str, &EndpointAssignment> = live.iter().map(|one| (one.cluster.as_str(), one)).collect();
        let mut found = Vec::new();
        // Endpoints of another cluster of the mesh stand in no EndpointSlice here.
        let cluster_ids: BTreeSet<&String> = live.iter().flat_map(|one| &one.cluster_ids).collect();
        for cluster in intent.iter().filter(|one| one.has_endpoints) {
            let Some((ready, all)) = self.addresses(mesh, cluster) else { continue };
            let none = BTreeSet::new();
            let (name, from) = (&cluster.cluster.name, found.len());
            let (healthy, unhealthy) =
                of_live.get(name.as_str()).map_or((&none, &none), |one| (&one.healthy, &one.unhealthy));
            let missing: Vec<&String> = ready.difference(healthy).collect();
            // An endpoint that ends may stay for a moment and gets nothing new.
            let more = healthy.union(unhealthy).filter(|one| cluster_ids.len() < 2 && !all.contains(*one));
            let more: Vec<&String> = more.collect();
            if !missing.is_empty() || !more.is_empty() {
                let what = format!("endpoints of {name}");
                found.push(Difference::new(what, few(missing, SHOWN), few(more, SHOWN)));
                Difference::about(&mut found, from, name.splitn(4, '|').nth(3).unwrap_or_default());
            }
        }
        found
    }

    /// Addresses that should take calls, and all that Kubernetes knows.
    fn addresses(&self, mesh: &Mesh<'_>, cluster: &CompiledCluster) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
        let service = mesh.service(cluster.service);
        let key = (service.namespace().to_string(), service.object.name.to_string());
        let slices = self.by_service.get(&key).filter(|_| service.is_kubernetes())?;
        let port = service.port(cluster.port)?;
        let subset = cluster.subset_labels.as_ref();
        // Where a node's own endpoints, or a place, decide, a slice does not tell what a proxy gets.
        if service.is_node_local || subset.is_some_and(|labels| labels.keys().any(|key| key.starts_with("topology."))) {
            return None;
        }
        let has_ipv4 = slices.iter().any(|slice| !slice.is_ipv6());
        let (mut ready, mut all) = (BTreeSet::new(), BTreeSet::new());
        for slice in slices {
            // The second address family of a dual-stack Service repeats the same pods.
            let repeats = has_ipv4 && slice.is_ipv6();
            if repeats || slice.address_type.as_deref() == Some("FQDN") {
                continue;
            }
            let name = port.name.as_deref().unwrap_or_default();
            let of_port = slice.ports.iter().find(|one| one.name.as_deref().unwrap_or_default() == name);
            let Some(number) = of_port.and_then(|one| one.port).and_then(|port| u16::try_from(port).ok()) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let takes = endpoint.conditions.takes_calls();
                // Several pods may share a node's address.
                let pod = endpoint.target_ref.as_ref().map(|pod| (service.namespace().to_string(), pod.name.clone()));
                for address in endpoint.addresses.iter().take(1) {
                    let fits = subset.is_none_or(|wanted| {
                        let have = pod.as_ref().and_then(|pod| self.labels.get(pod));
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
