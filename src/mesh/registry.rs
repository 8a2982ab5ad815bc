//! Builds the service registry and the workloads: decodes Services, ServiceEntries, Pods, pod templates and
//! EndpointSlices, and matches Services with pods.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::UndecodedObject;
use super::behavior::{Behaviors, IstiodBehavior};
use super::host::{self};
use super::ids::{Labels, Namespace, ObjectRef, WorkloadId};
use super::protocol::{self, DecidedBy, Protocol};
use super::reader::ObjectReader;
use super::service::{PodCount, Resolution, Service, ServicePort, TargetPort, Visibility};
use super::traffic_exclusion::IpRange;
use super::waypoint::WaypointRef;
use super::workload::{NamespaceInjection, Workload};
use crate::schema::core as shapes;
use crate::schema::kind::{KINDS, Kind};
use crate::schema::mesh_config::MeshConfig;
use crate::schema::meta::Resource;
use crate::schema::meta::StringMap;
use crate::schema::service_entry::{ServiceEntryPort, ServiceEntrySpec, WorkloadEntrySpec};
use crate::snapshot::{Object, SourceKind, decode_error};

/// Namespace, kind and name of a workload that owns Pods.
type WorkloadKey = (Namespace, Arc<str>, Arc<str>);

impl<'s> ObjectReader<'s> {
    /// Pods, pod templates of workloads without Pods in the source, and WorkloadEntries.
    pub(super) fn workloads(&mut self, namespaces: &BTreeMap<Namespace, NamespaceInjection>) -> Vec<Workload> {
        let mut workloads = Vec::new();
        let mut owners: HashSet<WorkloadKey> = HashSet::new();
        let pods: Vec<&'s Object> = self.snapshot.of_kind(Kind::Pod).collect();
        for object in pods {
            let reference = ObjectRef::new(&object.key, &mut self.names);
            // A mesh has tens of thousands of Pods. Decoding one Pod at a time keeps only their summaries in memory.
            let pod: shapes::Pod = match decode_error::decode(object.body.get()) {
                Ok(pod) => pod,
                Err(error) => {
                    self.undecoded.push(UndecodedObject::new(reference, error));
                    continue;
                }
            };
            let injection = namespaces.get(&reference.namespace).copied();
            let ip = pod.status.pod_ip.as_deref().map(Arc::from);
            if let Some(workload) = Workload::from_pod(reference, &pod, injection, &mut self.names) {
                if let Some((kind, name)) = &workload.owner {
                    owners.insert((workload.namespace().clone(), Arc::clone(kind), Arc::clone(name)));
                }
                workloads.push(Workload { ip, ..workload });
            }
        }
        // A cluster lists its Pods, so a workload without Pods has none there. In manifests, templates stand for Pods.
        if self.snapshot.source == SourceKind::Manifests || workloads.is_empty() {
            self.add_templates(namespaces, &owners, &mut workloads);
        }
        for (object, Resource { metadata, spec }) in self.decode::<Resource<WorkloadEntrySpec>>(Kind::WorkloadEntry) {
            let mut labels = metadata.labels;
            labels.extend(spec.labels);
            let labels = Labels::new(&labels, &mut self.names);
            let ip = spec.address.as_deref().map(Arc::from);
            let account = spec.service_account.as_deref().filter(|name| !name.is_empty());
            let account = account.map(|name| self.names.intern(name));
            workloads.push(Workload::from_workload_entry(object, labels, ip, account));
        }
        self.add_default_service_accounts(&mut workloads);
        workloads
    }

    /// Sets the ServiceAccount of pods that name none. The API server sets the field of every Pod, so that a Pod of a
    /// cluster without it comes from a snapshot that did not keep it.
    fn add_default_service_accounts(&mut self, workloads: &mut [Workload]) {
        let default = self.names.intern("default");
        for workload in workloads.iter_mut().filter(|workload| workload.service_account.is_none()) {
            let is_complete = match workload.object.kind {
                Kind::WorkloadEntry => false,
                Kind::Pod => self.snapshot.source != SourceKind::Cluster,
                _ => true,
            };
            workload.service_account = is_complete.then(|| Arc::clone(&default));
        }
    }

    /// Adds the pod templates of workloads that are not in `owners` and that no other workload owns.
    fn add_templates(
        &mut self,
        namespaces: &BTreeMap<Namespace, NamespaceInjection>,
        owners: &HashSet<WorkloadKey>,
        workloads: &mut Vec<Workload>,
    ) {
        for info in KINDS.iter().filter(|info| info.kind.is_workload()) {
            for (object, workload) in self.decode::<shapes::WorkloadObject>(info.kind) {
                let is_owned = workload.metadata.owner_references.iter().any(|owner| owner.controller == Some(true));
                let key = (object.namespace.clone(), self.names.intern(object.kind.name()), Arc::clone(&object.name));
                if is_owned || owners.contains(&key) {
                    continue;
                }
                let replicas = workload.spec.replicas.unwrap_or(1).clamp(0, i64::from(u32::MAX));
                let replicas = u32::try_from(replicas).unwrap_or(1);
                let injection = namespaces.get(&object.namespace).copied();
                let template = &workload.spec.template;
                workloads.push(Workload::from_template(object, template, replicas, injection, &mut self.names));
            }
        }
    }

    pub(super) fn services(
        &mut self,
        config: &MeshConfig,
        cluster_domain: &str,
        behaviors: &Behaviors,
        namespace_labels: &BTreeMap<Namespace, StringMap>,
    ) -> Vec<Service> {
        let objects: Vec<(ObjectRef, shapes::ServiceObject)> = self.decode(Kind::Service);
        let has_aliases = behaviors.has(IstiodBehavior::ExternalNameAliases);
        objects
            .into_iter()
            .map(|(object, service)| {
                let shapes::ServiceObject { metadata, spec } = service;
                let resolution = match (spec.kind.as_deref(), spec.external_name.as_deref()) {
                    // Without aliases, istiod resolves the target by DNS, as for a ServiceEntry.
                    (Some("ExternalName"), Some(_)) if !has_aliases => Resolution::ServiceEntry("DNS".into()),
                    (Some("ExternalName"), Some(target)) => {
                        Resolution::ExternalName(target.trim_end_matches('.').to_ascii_lowercase().as_str().into())
                    }
                    _ if spec.cluster_ip.as_deref() == Some("None") => Resolution::Headless,
                    _ => Resolution::ClusterIp,
                };
                let export_to: Vec<String> = metadata
                    .annotations
                    .get("networking.istio.io/exportTo")
                    .map(|list| list.split(',').map(|value| value.trim().to_owned()).collect())
                    .unwrap_or_default();
                let ports =
                    spec.ports.iter().enumerate().filter_map(|(index, port)| self.service_port(index, port)).collect();
                let waypoint =
                    WaypointRef::new(&metadata.labels, namespace_labels.get(&object.namespace), &object.namespace);
                Service {
                    host: host::service_host(&object.name, &object.namespace, cluster_domain),
                    created: self.created(&metadata),
                    ports,
                    labels: Labels::new(&metadata.labels, &mut self.names),
                    selector: Labels::new(&spec.selector, &mut self.names),
                    addresses: spec
                        .cluster_ips
                        .iter()
                        .chain(&spec.cluster_ip)
                        .filter_map(|address| address.parse().ok())
                        .collect(),
                    ranges: Vec::new(),
                    endpoint_labels: Vec::new(),
                    workloads: Vec::new(),
                    endpoints: PodCount::default(),
                    export_to_values: sorted_and_deduplicated(&export_to),
                    export_to: Visibility::new(&export_to, &config.default_service_export_to, &object.namespace),
                    publishes_not_ready: spec.publish_not_ready_addresses == Some(true),
                    is_node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
                    waypoint,
                    is_external: matches!(resolution, Resolution::ServiceEntry(_)),
                    resolution,
                    object,
                }
            })
            .collect()
    }

    fn service_port(&mut self, index: usize, port: &shapes::ServicePortSpec) -> Option<ServicePort> {
        let number = u16::try_from(port.port).ok().filter(|number| *number > 0)?;
        let l4 = port.protocol.as_deref().unwrap_or("TCP");
        let (protocol, decided_by) = protocol::decide(l4, port.app_protocol.as_deref(), port.name.as_deref(), number);
        let target = match &port.target_port {
            None => TargetPort::Number(number),
            Some(target) => match (target.number(), target) {
                (Some(0) | None, shapes::IntOrString::Int(_)) => TargetPort::Number(number),
                (Some(target), _) => TargetPort::Number(target),
                (None, shapes::IntOrString::Text(name)) => TargetPort::Name(self.names.intern(name)),
            },
        };
        Some(ServicePort {
            index,
            number,
            name: port.name.as_deref().map(|name| self.names.intern(name)),
            app_protocol: port.app_protocol.as_deref().map(|value| self.names.intern(value)),
            l4: self.names.intern(l4),
            protocol,
            decided_by,
            target,
            evidence: Vec::new(),
        })
    }

    /// One registry entry for each host of each ServiceEntry.
    pub(super) fn service_entries(
        &mut self,
        config: &MeshConfig,
        namespace_labels: &BTreeMap<Namespace, StringMap>,
    ) -> Vec<Service> {
        let objects: Vec<(ObjectRef, Resource<ServiceEntrySpec>)> = self.decode(Kind::ServiceEntry);
        let mut services = Vec::new();
        for (object, entry) in objects {
            let Resource { metadata, spec } = entry;
            let created = self.created(&metadata);
            let labels = Labels::new(&metadata.labels, &mut self.names);
            let waypoint =
                WaypointRef::new(&metadata.labels, namespace_labels.get(&object.namespace), &object.namespace);
            let selector = spec.workload_selector.as_ref();
            let selector = selector.map(|selector| Labels::new(&selector.labels, &mut self.names)).unwrap_or_default();
            let endpoint_labels: Vec<_> =
                spec.endpoints.iter().map(|endpoint| Labels::new(&endpoint.labels, &mut self.names)).collect();
            for host in &spec.hosts {
                let ports = spec.ports.iter().enumerate();
                let ports = ports.filter_map(|(index, port)| self.entry_port(index, port));
                services.push(Service {
                    host: host.to_ascii_lowercase().as_str().into(),
                    created: created.clone(),
                    resolution: Resolution::ServiceEntry(spec.resolution.as_deref().unwrap_or("NONE").into()),
                    ports: ports.collect(),
                    labels: labels.clone(),
                    selector: selector.clone(),
                    addresses: spec.addresses.iter().filter_map(|address| single_address(address)).collect(),
                    ranges: spec
                        .addresses
                        .iter()
                        .filter(|address| single_address(address).is_none())
                        .filter_map(|address| IpRange::parse(address))
                        .collect(),
                    endpoint_labels: endpoint_labels.clone(),
                    workloads: Vec::new(),
                    endpoints: PodCount::default(),
                    export_to_values: sorted_and_deduplicated(&spec.export_to),
                    export_to: Visibility::new(&spec.export_to, &config.default_service_export_to, &object.namespace),
                    publishes_not_ready: false,
                    is_node_local: false,
                    waypoint: waypoint.clone(),
                    is_external: spec.location.as_deref() != Some("MESH_INTERNAL"),
                    object: object.clone(),
                });
            }
        }
        services
    }

    fn entry_port(&mut self, index: usize, port: &ServiceEntryPort) -> Option<ServicePort> {
        let number = u16::try_from(port.number).ok().filter(|number| *number > 0)?;
        let written = port.protocol.as_deref().unwrap_or_default();
        let (protocol, decided_by) = match Protocol::parse(written) {
            Some(protocol) => (protocol, DecidedBy::EntryProtocol(self.names.intern(written))),
            None if written.is_empty() => (Protocol::Auto, DecidedBy::NoEntryProtocol),
            None => (Protocol::Auto, DecidedBy::UnknownEntryProtocol(self.names.intern(written))),
        };
        let target = port.target_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        Some(ServicePort {
            index,
            number,
            name: Some(self.names.intern(&port.name)),
            app_protocol: None,
            l4: self.names.intern("TCP"),
            protocol,
            decided_by,
            target: TargetPort::Number(target.unwrap_or(number)),
            evidence: Vec::new(),
        })
    }

    /// Sets the endpoint counts of Services from EndpointSlices, where the source has them.
    pub(super) fn endpoint_slices(&mut self, services: &mut [Service]) {
        // A dual-stack Service has slices for each address family, with the same pods. Only one family is counted.
        let mut counts: HashMap<(Box<str>, String), BTreeMap<bool, PodCount>> = HashMap::new();
        for object in self.snapshot.of_kind(Kind::EndpointSlice) {
            let Ok(slice) = serde_json::from_str::<shapes::EndpointSlice>(object.body.get()) else { continue };
            let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") else { continue };
            let families = counts.entry((object.key.namespace.clone(), service.clone())).or_default();
            let count = families.entry(slice.is_ipv6()).or_default();
            for endpoint in &slice.endpoints {
                count.total += 1;
                count.ready += u32::from(endpoint.conditions.accepts_calls());
            }
        }
        for service in services {
            let key = (service.namespace().as_str().into(), service.object.name.to_string());
            if let Some((_, count)) = counts.get(&key).and_then(BTreeMap::first_key_value) {
                service.endpoints = *count;
            }
        }
    }
}

fn sorted_and_deduplicated(values: &[String]) -> Vec<String> {
    let mut values = values.to_vec();
    values.sort();
    values.dedup();
    values
}

/// Parses a single address, with or without the prefix length `/32` or `/128`.
fn single_address(text: &str) -> Option<std::net::IpAddr> {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let address: std::net::IpAddr = address.parse().ok()?;
    let max_bits = if address.is_ipv4() { "32" } else { "128" };
    (bits.is_empty() || bits == max_bits).then_some(address)
}

/// Sets the workloads and endpoint counts of Services. An index of the labels in selectors keeps the cost linear.
#[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
pub(super) fn attach_workloads(services: &mut [Service], workloads: &[Workload]) {
    type LabelKey = (Namespace, Arc<str>, Arc<str>);
    let mut index: HashMap<LabelKey, Vec<WorkloadId>> = HashMap::new();
    for service in services.iter() {
        for (key, value) in service.selector.iter() {
            index.entry((service.namespace().clone(), Arc::clone(key), Arc::clone(value))).or_default();
        }
    }
    for (position, workload) in workloads.iter().enumerate() {
        for (key, value) in workload.labels.iter() {
            let label = (workload.namespace().clone(), Arc::clone(key), Arc::clone(value));
            if let Some(ids) = index.get_mut(&label) {
                ids.push(WorkloadId::new(position));
            }
        }
    }
    for service in services {
        let lists = service
            .selector
            .iter()
            .filter_map(|(key, value)| index.get(&(service.namespace().clone(), Arc::clone(key), Arc::clone(value))));
        let Some(shortest) = lists.min_by_key(|ids| ids.len()) else { continue };
        service.workloads = shortest
            .iter()
            .copied()
            .filter(|id| workloads[id.index()].labels.contains_all(&service.selector))
            .collect();
        let mut count = PodCount::default();
        for id in &service.workloads {
            count.add(&workloads[id.index()], service.publishes_not_ready);
        }
        service.endpoints = count;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::mesh::{ResolveOptions, resolve};
    use crate::snapshot::manifest::{self, OnMalformed};
    use crate::snapshot::{Snapshot, SourceKind, SourceText};

    #[test]
    fn counts_the_endpoints_of_one_address_family_of_a_dual_stack_service() {
        let slice = |name: &str, family: &str, addresses: &[&str]| {
            let endpoints: Vec<String> =
                addresses.iter().map(|address| format!("{{addresses: ['{address}']}}")).collect();
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
                 metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: a}}}}\n\
                 endpoints: [{}]\nports: [{{name: grpc, port: 1}}]\n",
                endpoints.join(", ")
            )
        };
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n\
                       spec: {clusterIP: 10.96.0.1, ports: [{name: grpc, port: 1}]}\n";
        let (ipv4, ipv6) = (&["10.0.0.1", "10.0.0.2"][..], &["fd00::1", "fd00::2"][..]);
        for (slices, expected) in [
            ([("b", "IPv4", ipv4), ("c", "IPv6", ipv6)], 2),
            ([("c", "IPv4", ipv4), ("b", "IPv6", ipv6)], 2),
            ([("b", "IPv6", &ipv6[..1]), ("c", "IPv6", &ipv6[1..])], 2),
        ] {
            let text = slices
                .iter()
                .fold(service.to_owned(), |text, (name, family, addresses)| text + &slice(name, family, addresses));
            let mut snapshot = Snapshot::new(SourceKind::Manifests);
            let text = Arc::new(SourceText { path: "x".to_owned(), text });
            manifest::read(&mut snapshot, text, "shop", OnMalformed::Stop).unwrap();
            let mesh = resolve(&snapshot, &ResolveOptions::default());
            let count = mesh.services[0].endpoints;
            assert_eq!((count.ready, count.total), (expected, expected), "{slices:?}");
        }
    }
}
