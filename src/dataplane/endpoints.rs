//! Compares the endpoints of EndpointSlices with those of an Envoy.

use std::collections::{BTreeSet, HashMap};

use super::Difference;
use crate::envoy::endpoint::{EndpointAssignment, socket_address};
use crate::mesh::Mesh;
use crate::mesh::ids::Labels;
use crate::mesh::workload::Workload;
use crate::mesh::xds::CompiledCluster;
use crate::schema::Kind;
use crate::schema::core::EndpointSlice;
use crate::vocabulary::name_list::abbreviate;

/// Maximum number of addresses in one text.
const MAX_ADDRESSES: usize = 5;

/// The EndpointSlices of a mesh, by Service.
#[derive(Debug)]
pub struct SliceEndpoints {
    by_service: HashMap<(String, String), Vec<EndpointSlice>>,
    /// Labels of pods by namespace and name.
    labels: HashMap<(String, String), Labels>,
}

impl SliceEndpoints {
    /// Returns `None` if the source has no EndpointSlices.
    pub fn new(mesh: &Mesh<'_>) -> Option<Self> {
        let mut by_service: HashMap<(String, String), Vec<EndpointSlice>> = HashMap::new();
        for object in mesh.snapshot.of_kind(Kind::EndpointSlice) {
            let Ok(slice) = serde_json::from_str::<EndpointSlice>(object.body.get()) else { continue };
            let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name").cloned() else { continue };
            by_service.entry((object.key.namespace.to_string(), service)).or_default().push(slice);
        }
        let pods = mesh.workloads.iter().filter(|workload| workload.object.kind == Kind::Pod);
        let name = |pod: &Workload| (pod.namespace().to_string(), pod.object.name.to_string());
        let pods = pods.map(|pod| (name(pod), pod.labels.clone()));
        (!by_service.is_empty()).then(|| Self { labels: pods.collect(), by_service })
    }

    /// Returns the differences between the endpoints of clusters. Clusters whose endpoints do not come from
    /// EndpointSlices are skipped.
    pub fn compare(
        &self,
        mesh: &Mesh<'_>,
        desired: &[&CompiledCluster],
        live: &[EndpointAssignment],
    ) -> Vec<Difference> {
        let live_by_cluster: HashMap<&str, &EndpointAssignment> =
            live.iter().map(|assignment| (assignment.cluster.as_str(), assignment)).collect();
        let mut differences = Vec::new();
        // The EndpointSlices of other Kubernetes clusters are not part of the source: ignore extra endpoints then.
        let cluster_ids: BTreeSet<&String> = live.iter().flat_map(|assignment| &assignment.cluster_ids).collect();
        let is_multicluster = cluster_ids.len() >= 2;
        for cluster in desired.iter().filter(|cluster| cluster.has_endpoints) {
            let Some((ready, all)) = self.ready_and_all_addresses(mesh, cluster) else { continue };
            let none = BTreeSet::new();
            let (name, start) = (&cluster.cluster.name, differences.len());
            let (healthy, unhealthy) =
                live_by_cluster.get(name.as_str()).map_or((&none, &none), |live| (&live.healthy, &live.unhealthy));
            let missing: Vec<&String> = ready.difference(healthy).collect();
            // `all` includes terminating endpoints: Envoy may keep them for a moment and sends them no new calls.
            let extra = healthy.union(unhealthy).filter(|address| !is_multicluster && !all.contains(*address));
            let extra: Vec<&String> = extra.collect();
            if !missing.is_empty() || !extra.is_empty() {
                let what = format!("endpoints of {name}");
                let (missing, extra) = (abbreviate(missing, MAX_ADDRESSES), abbreviate(extra, MAX_ADDRESSES));
                differences.push(Difference::new(what, missing, extra));
                Difference::set_host(&mut differences, start, name.splitn(4, '|').nth(3).unwrap_or_default());
            }
        }
        differences
    }

    /// Addresses of the ready endpoints of a cluster, and of all its endpoints.
    fn ready_and_all_addresses(
        &self,
        mesh: &Mesh<'_>,
        cluster: &CompiledCluster,
    ) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
        let service = mesh.service(cluster.service);
        let key = (service.namespace().to_string(), service.object.name.to_string());
        let slices = self.by_service.get(&key).filter(|_| service.is_kubernetes())?;
        let port = service.port(cluster.port)?;
        let subset = cluster.subset_labels.as_ref();
        // Node-local traffic policies and topology subsets select endpoints by the location of the proxy.
        if service.is_node_local || subset.is_some_and(|labels| labels.keys().any(|key| key.starts_with("topology."))) {
            return None;
        }
        let has_ipv4 = slices.iter().any(|slice| !slice.is_ipv6());
        let (mut ready, mut all) = (BTreeSet::new(), BTreeSet::new());
        for slice in slices {
            // The IPv6 slice of a dual-stack Service contains the same pods.
            let is_duplicate = has_ipv4 && slice.is_ipv6();
            if is_duplicate || slice.address_type.as_deref() == Some("FQDN") {
                continue;
            }
            let name = port.name.as_deref().unwrap_or_default();
            let slice_port = slice.ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == name);
            let Some(number) = slice_port.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let is_ready = endpoint.conditions.accepts_calls();
                // Look up labels by pod, not by address: pods on the host network share one address.
                let pod = endpoint.target_ref.as_ref().map(|pod| (service.namespace().to_string(), pod.name.clone()));
                for address in endpoint.addresses.iter().take(1) {
                    let is_in_subset = subset.is_none_or(|subset_labels| {
                        let labels = pod.as_ref().and_then(|pod| self.labels.get(pod));
                        let has_label = |key, value: &str| labels.and_then(|labels| labels.get(key)) == Some(value);
                        subset_labels.iter().all(|(key, value)| has_label(key, value.as_str()))
                    });
                    if !is_in_subset {
                        continue;
                    }
                    let address = socket_address(address, number);
                    if is_ready || service.publishes_not_ready {
                        ready.insert(address.clone());
                    }
                    all.insert(address);
                }
            }
        }
        Some((ready, all))
    }
}
