//! The registry: Services, hosts of ServiceEntries, and the pods behind them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::UndecodedObject;
use super::host::{self};
use super::ids::{Labels, Namespace, ObjectRef, WorkloadId};
use super::protocol::{self, DecidedBy, Protocol};
use super::reader::ObjectReader;
use super::service::{PodCount, Resolution, Service, ServicePort, TargetPort, Visibility};
use super::traffic_exclusion::IpRange;
use super::workload::{NamespaceInjection, Workload};
use crate::schema::core as shapes;
use crate::schema::kind::{KINDS, Kind};
use crate::schema::mesh_config::MeshConfig;
use crate::schema::meta::Resource;
use crate::schema::service_entry::{ServiceEntrySpec, WorkloadEntrySpec};
use crate::snapshot::{Object, SourceKind, decode_error};

impl<'s> ObjectReader<'s> {
    /// Pods, and the templates of workloads for which the source has no Pod.
    pub(super) fn workloads(&mut self, namespaces: &BTreeMap<Namespace, NamespaceInjection>) -> Vec<Workload> {
        let mut workloads = Vec::new();
        let mut with_pods: HashSet<(Namespace, Arc<str>, Arc<str>)> = HashSet::new();
        let mut namespaces_with_pods: HashSet<Namespace> = HashSet::new();
        let pods: Vec<&'s Object> = self.snapshot.of_kind(Kind::Pod).collect();
        for object in pods {
            let reference = ObjectRef::new(&object.key, &mut self.names);
            // Pods come in tens of thousands: they are decoded one at a time and only their summary stays.
            let pod: shapes::Pod = match decode_error::decode(object.body.get()) {
                Ok(pod) => pod,
                Err(misfit) => {
                    self.undecoded.push(UndecodedObject::new(reference, misfit));
                    continue;
                }
            };
            namespaces_with_pods.insert(reference.namespace.clone());
            let labels = namespaces.get(&reference.namespace).copied();
            let ip = pod.status.pod_ip.as_deref().map(Arc::from);
            if let Some(workload) = Workload::of_pod(reference, &pod, labels, &mut self.names) {
                if let Some((kind, name)) = &workload.owner {
                    with_pods.insert((workload.namespace().clone(), Arc::clone(kind), Arc::clone(name)));
                }
                workloads.push(Workload { ip, ..workload });
            }
        }
        // A live cluster shows its Pods: a workload without any has none. Only in manifests do templates stand for them.
        let templates_count = self.snapshot.source == SourceKind::Manifests || workloads.is_empty();
        if templates_count {
            for info in KINDS.iter().filter(|info| info.kind.is_workload()) {
                for (object, template) in self.decode::<shapes::WorkloadObject>(info.kind) {
                    let owned = template.metadata.owner_references.iter().any(|owner| owner.controller == Some(true));
                    let key =
                        (object.namespace.clone(), self.names.intern(object.kind.name()), Arc::clone(&object.name));
                    if owned || with_pods.contains(&key) {
                        continue;
                    }
                    let replicas = template.spec.replicas.unwrap_or(1).clamp(0, i64::from(u32::MAX));
                    let replicas = u32::try_from(replicas).unwrap_or(1);
                    let labels = namespaces.get(&object.namespace).copied();
                    workloads.push(Workload::of_template(
                        object,
                        &template.spec.template,
                        replicas,
                        labels,
                        &mut self.names,
                    ));
                }
            }
        }
        for (object, Resource { metadata, spec }) in self.decode::<Resource<WorkloadEntrySpec>>(Kind::WorkloadEntry) {
            let mut labels = metadata.labels;
            labels.extend(spec.labels);
            let labels = Labels::new(&labels, &mut self.names);
            let ip = spec.address.as_deref().map(Arc::from);
            workloads.push(Workload::of_entry(object, labels, ip));
        }
        workloads
    }

    pub(super) fn services(&mut self, config: &MeshConfig, cluster_domain: &str) -> Vec<Service> {
        let objects: Vec<(ObjectRef, shapes::ServiceObject)> = self.decode(Kind::Service);
        let waypoint_namespaces = self.waypoint_namespaces();
        objects
            .into_iter()
            .map(|(object, service)| {
                let shapes::ServiceObject { metadata, spec } = service;
                let resolution = match (spec.kind.as_deref(), spec.external_name.as_deref()) {
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
                let waypoint = match metadata.labels.get("istio.io/use-waypoint").map(String::as_str) {
                    Some(name) => name != "none",
                    None => waypoint_namespaces.contains(&object.namespace),
                };
                Service {
                    host: host::of_service(&object.name, &object.namespace, cluster_domain),
                    created: self.created(&metadata),
                    resolution,
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
                    fixed_endpoints: Vec::new(),
                    workloads: Vec::new(),
                    endpoints: PodCount::default(),
                    export_words: sorted(&export_to),
                    export_to: Visibility::new(&export_to, &config.default_service_export_to, &object.namespace),
                    publishes_not_ready: spec.publish_not_ready_addresses == Some(true),
                    is_node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
                    waypoint,
                    is_external: false,
                    object,
                }
            })
            .collect()
    }

    /// Namespaces whose label sends their Services' traffic through a waypoint.
    fn waypoint_namespaces(&self) -> BTreeSet<Namespace> {
        self.snapshot
            .of_kind(Kind::Namespace)
            .filter_map(|object| {
                let namespace: shapes::NamespaceObject = serde_json::from_str(object.body.get()).ok()?;
                let name = namespace.metadata.labels.get("istio.io/use-waypoint")?;
                (name != "none").then(|| Namespace::from(&*object.key.name))
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

    pub(super) fn service_entries(&mut self, config: &MeshConfig) -> Vec<Service> {
        let objects: Vec<(ObjectRef, Resource<ServiceEntrySpec>)> = self.decode(Kind::ServiceEntry);
        let mut services = Vec::new();
        for (object, entry) in objects {
            let Resource { metadata, spec } = entry;
            let created = self.created(&metadata);
            let labels = Labels::new(&metadata.labels, &mut self.names);
            let selector = spec.workload_selector.as_ref();
            let selector = selector.map(|selector| Labels::new(&selector.labels, &mut self.names)).unwrap_or_default();
            let fixed_endpoints: Vec<_> =
                spec.endpoints.iter().map(|endpoint| Labels::new(&endpoint.labels, &mut self.names)).collect();
            for host in &spec.hosts {
                let ports = spec.ports.iter().enumerate().filter_map(|(index, port)| {
                    let number = u16::try_from(port.number).ok().filter(|number| *number > 0)?;
                    let word = port.protocol.as_deref().unwrap_or_default();
                    let (protocol, decided_by) = match Protocol::parse(word) {
                        Some(protocol) => (protocol, DecidedBy::EntryProtocol(self.names.intern(word))),
                        None if word.is_empty() => (Protocol::Auto, DecidedBy::NoEntryProtocol),
                        None => (Protocol::Auto, DecidedBy::UnknownEntryProtocol(self.names.intern(word))),
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
                });
                services.push(Service {
                    host: host.to_ascii_lowercase().as_str().into(),
                    created: created.clone(),
                    resolution: Resolution::Entry(spec.resolution.as_deref().unwrap_or("NONE").into()),
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
                    fixed_endpoints: fixed_endpoints.clone(),
                    workloads: Vec::new(),
                    endpoints: PodCount::default(),
                    export_words: sorted(&spec.export_to),
                    export_to: Visibility::new(&spec.export_to, &config.default_service_export_to, &object.namespace),
                    publishes_not_ready: false,
                    is_node_local: false,
                    waypoint: false,
                    is_external: spec.location.as_deref() != Some("MESH_INTERNAL"),
                    object: object.clone(),
                });
            }
        }
        services
    }

    /// EndpointSlices say what a Service's endpoints are, where the source has them.
    pub(super) fn endpoint_slices(&mut self, services: &mut [Service]) {
        // Of a dual-stack Service each address family has its slices, with the same pods.
        let mut counts: HashMap<(Box<str>, String), BTreeMap<bool, PodCount>> = HashMap::new();
        for object in self.snapshot.of_kind(Kind::EndpointSlice) {
            let Ok(slice) = serde_json::from_str::<shapes::EndpointSlice>(object.body.get()) else { continue };
            let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") else { continue };
            let families = counts.entry((object.key.namespace.clone(), service.clone())).or_default();
            let count = families.entry(slice.is_ipv6()).or_default();
            for endpoint in &slice.endpoints {
                count.total += 1;
                count.ready += u32::from(endpoint.conditions.takes_calls());
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

fn sorted(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.sort();
    words.dedup();
    words
}

/// An address alone, or a range of one.
fn single_address(text: &str) -> Option<std::net::IpAddr> {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let address: std::net::IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { "32" } else { "128" };
    (bits.is_empty() || bits == all).then_some(address)
}

/// Finds each Service's pods through an index of just those labels that selectors ask for.
pub(super) fn attach_workloads(services: &mut [Service], workloads: &[Workload]) {
    type Triple = (Namespace, Arc<str>, Arc<str>);
    let mut index: HashMap<Triple, Vec<WorkloadId>> = HashMap::new();
    for service in services.iter() {
        for (key, value) in service.selector.iter() {
            index.entry((service.namespace().clone(), Arc::clone(key), Arc::clone(value))).or_default();
        }
    }
    for (position, workload) in workloads.iter().enumerate() {
        for (key, value) in workload.labels.iter() {
            let triple = (workload.namespace().clone(), Arc::clone(key), Arc::clone(value));
            if let Some(ids) = index.get_mut(&triple) {
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

    /// The pods of a dual-stack Service are counted once, whichever family's slice comes first.
    #[test]
    fn one_address_family_is_counted() {
        let slice = |name: &str, family: &str, addresses: &[&str]| {
            let endpoints: Vec<String> = addresses.iter().map(|one| format!("{{addresses: ['{one}']}}")).collect();
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
                 metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: a}}}}\n\
                 endpoints: [{}]\nports: [{{name: grpc, port: 1}}]\n",
                endpoints.join(", ")
            )
        };
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n\
                       spec: {clusterIP: 10.96.0.1, ports: [{name: grpc, port: 1}]}\n";
        let (four, six) = (&["10.0.0.1", "10.0.0.2"][..], &["fd00::1", "fd00::2"][..]);
        for (slices, wanted) in [
            ([("b", "IPv4", four), ("c", "IPv6", six)], 2),
            ([("c", "IPv4", four), ("b", "IPv6", six)], 2),
            ([("b", "IPv6", &six[..1]), ("c", "IPv6", &six[1..])], 2),
        ] {
            let text = slices
                .iter()
                .fold(service.to_owned(), |text, (name, family, addresses)| text + &slice(name, family, addresses));
            let mut snapshot = Snapshot::new(SourceKind::Manifests);
            let text = Arc::new(SourceText { path: "x".to_owned(), text });
            manifest::read(&mut snapshot, text, "shop", OnMalformed::Stop).unwrap();
            let mesh = resolve(&snapshot, &ResolveOptions::default());
            let count = mesh.services[0].endpoints;
            assert_eq!((count.ready, count.total), (wanted, wanted), "{slices:?}");
        }
    }
}
