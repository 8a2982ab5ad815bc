//! Snapshot to mesh. Total: whatever the objects say, there is a mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::coverage::Coverage;
use super::destination_rule::{DestinationRule, DestinationRules};
use super::evidence::{self, Evidence};
use super::gateway::{ApiGateway, IstioGateway};
use super::gateway_api::{Parent, RouteObject};
use super::host::{self, HostMap};
use super::ids::{Host, Labels, Names, Namespace, ObjectRef, RouteObjectId, ServiceId, WorkloadId};
use super::protocol::{self, DecidedBy, Protocol};
use super::route::{Action, Condition, RouteRule, TextMatch};
use super::security::{AuthorizationPolicy, MtlsMode, PeerAuthentication, Security};
use super::service::{PodCount, Resolution, Service, ServicePort, TargetPort, Visibility};
use super::version::{IstioVersion, VersionSource};
use super::virtual_service::{GatewayName, VirtualService, VirtualServices};
use super::workload::{NamespaceLabels, Workload};
use super::{Extension, Mesh, RouteUse};
use crate::schema::core as shapes;
use crate::schema::destination_rule::DestinationRuleSpec;
use crate::schema::gateway::GatewaySpec;
use crate::schema::kind::{KINDS, Kind};
use crate::schema::mesh_config::MeshConfig;
use crate::schema::meta::{Meta, Resource};
use crate::schema::security::{AuthorizationPolicySpec, PeerAuthenticationSpec};
use crate::schema::service_entry::ServiceEntrySpec;
use crate::schema::sidecar::SelectingSpec;
use crate::schema::virtual_service::VirtualServiceSpec;
use crate::schema::{gateway_api, meta::StringMap};
use crate::snapshot::{Object, Snapshot, SourceKind, yaml};

/// What the user knows better than the source.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Version whose behaviour is wanted.
    pub istio_version: Option<IstioVersion>,
    /// Namespace of istiod; absent means `istio-system`.
    pub istio_namespace: Option<String>,
    /// Revision whose mesh configuration is wanted; absent means the default one.
    pub revision: Option<String>,
    /// Cluster domain; absent means istiod's `--domain`, else `cluster.local`.
    pub cluster_domain: Option<String>,
}

/// Resolves a snapshot.
pub fn resolve<'s>(snapshot: &'s Snapshot, options: &Options) -> Mesh<'s> {
    let mut reader = Reader { snapshot, names: Names::default(), undecoded: Vec::new() };
    let istio_namespace = options.istio_namespace.as_deref().unwrap_or("istio-system");
    let (config, has_mesh_config) = reader.mesh_config(istio_namespace, options.revision.as_deref());
    let root: Namespace =
        config.root_namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or(istio_namespace).into();
    let namespaces = reader.namespaces();
    let workloads = reader.workloads(&namespaces);
    let istiod = reader.istiod(istio_namespace);
    let cluster_domain = options
        .cluster_domain
        .clone()
        .or(istiod.cluster_domain)
        .unwrap_or_else(|| host::DEFAULT_CLUSTER_DOMAIN.to_owned());
    let proxy_version = workloads.iter().filter_map(|workload| workload.proxy.envoy()?.version).max();
    let (version, version_source) = match (options.istio_version, istiod.version, proxy_version) {
        (Some(version), ..) => (version, VersionSource::Given),
        (None, Some(version), _) => (version, VersionSource::Istiod),
        (None, None, Some(version)) => (version, VersionSource::Proxy),
        (None, None, None) => (IstioVersion::NEWEST, VersionSource::Assumed),
    };
    let mut services = reader.services(&config, &cluster_domain);
    attach_workloads(&mut services, &workloads);
    reader.endpoint_slices(&mut services);
    services.sort_by(|a, b| a.object.cmp(&b.object));
    services.extend(reader.service_entries(&config));

    let mut hosts = HostMap::default();
    let mut by_name = HashMap::new();
    for (position, service) in services.iter().enumerate() {
        let id = ServiceId::new(position);
        hosts.insert(&service.host, id);
        if service.is_kubernetes() {
            by_name.insert((service.namespace().clone(), Arc::clone(&service.object.name)), id);
        }
    }
    let described = (snapshot.source == SourceKind::Manifests)
        .then(|| services.iter().map(|service| service.namespace().clone()).collect());
    let caller_namespaces = workloads
        .iter()
        .filter(|workload| workload.proxy.is_meshed() != Some(false))
        .map(|workload| workload.namespace().clone())
        .collect();
    let destination_rules = reader.destination_rules(&config, &cluster_domain);
    let virtual_services = reader.virtual_services(&config, &cluster_domain);
    let route_objects = reader.route_objects();
    let attached = attach_routes(&route_objects, &by_name);
    let mut mesh = Mesh {
        snapshot,
        version,
        version_source,
        cluster_domain,
        istio_gateways: reader.istio_gateways(&workloads),
        api_gateways: reader.api_gateways(),
        security: reader.security(),
        extensions: reader.extensions(),
        sidecars: reader.sidecars(),
        undecoded: std::mem::take(&mut reader.undecoded),
        coverage: Coverage::new(&snapshot.gaps, described),
        caller_namespaces,
        root,
        config,
        has_mesh_config,
        namespaces,
        services,
        workloads,
        destination_rules: DestinationRules::new(destination_rules),
        virtual_services: VirtualServices::new(virtual_services),
        route_objects,
        hosts,
        by_name,
        attached,
        users: HashMap::new(),
    };
    collect_evidence(&mut mesh);
    mesh
}

struct Reader<'s> {
    snapshot: &'s Snapshot,
    names: Names,
    undecoded: Vec<(ObjectRef, String)>,
}

struct Istiod {
    version: Option<IstioVersion>,
    cluster_domain: Option<String>,
}

impl<'s> Reader<'s> {
    /// All objects of a kind in their typed view. An object that does not fit its view is set aside.
    fn decode<T: DeserializeOwned>(&mut self, kind: Kind) -> Vec<(ObjectRef, T)> {
        let objects: Vec<&'s Object> = self.snapshot.of_kind(kind).collect();
        let mut decoded = Vec::with_capacity(objects.len());
        for object in objects {
            let reference = ObjectRef::new(&object.key, &mut self.names);
            match serde_json::from_str(object.body.get()) {
                Ok(view) => decoded.push((reference, view)),
                Err(error) => {
                    let message = error.to_string();
                    let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
                    self.undecoded.push((reference, message));
                }
            }
        }
        decoded
    }

    fn created(&mut self, meta: &Meta) -> Option<Arc<str>> {
        meta.creation_timestamp.as_deref().map(|time| self.names.intern(time))
    }

    fn mesh_config(&mut self, istio_namespace: &str, revision: Option<&str>) -> (MeshConfig, bool) {
        let wanted = match revision {
            Some(revision) if revision != "default" => format!("istio-{revision}"),
            _ => "istio".to_owned(),
        };
        let maps: Vec<(ObjectRef, shapes::MeshConfigMap)> = self.decode(Kind::ConfigMap);
        let mut candidates: Vec<_> =
            maps.iter().filter(|(object, _)| object.namespace.as_str() == istio_namespace).collect();
        candidates.sort_by_key(|(object, _)| (*object.name != *wanted, object.clone()));
        let Some((object, map)) = candidates.first() else {
            return (MeshConfig::default(), false);
        };
        let text = map.data.mesh.as_deref().unwrap_or_default();
        let parsed = yaml::to_json(text).map_err(|error| error.what).and_then(|converted| match converted.json {
            None => Ok(MeshConfig::default()),
            Some(json) => serde_json::from_str(json.get()).map_err(|error| error.to_string()),
        });
        match parsed {
            Ok(config) => (config, true),
            Err(why) => {
                self.undecoded.push((object.clone(), format!("data.mesh: {why}")));
                (MeshConfig::default(), false)
            }
        }
    }

    fn namespaces(&mut self) -> BTreeMap<Namespace, NamespaceLabels> {
        let objects: Vec<(ObjectRef, shapes::Namespace)> = self.decode(Kind::Namespace);
        objects
            .into_iter()
            .map(|(object, namespace)| {
                (Arc::clone(&object.name).into(), NamespaceLabels::new(&namespace.metadata.labels))
            })
            .collect()
    }

    /// istiod's own pods tell the version and the cluster domain.
    fn istiod(&self, istio_namespace: &str) -> Istiod {
        let pods = self.snapshot.of_kind(Kind::Pod).filter_map(|object| {
            let pod: shapes::Pod = (&*object.key.namespace == istio_namespace)
                .then(|| serde_json::from_str(object.body.get()).ok())
                .flatten()?;
            (pod.metadata.labels.get("app").map(String::as_str) == Some("istiod")).then_some(pod.spec)
        });
        let templates = KINDS.iter().filter(|info| info.kind == Kind::Deployment).flat_map(|info| {
            self.snapshot.of_kind(info.kind).filter_map(|object| {
                let workload: shapes::Workload = (&*object.key.namespace == istio_namespace)
                    .then(|| serde_json::from_str(object.body.get()).ok())
                    .flatten()?;
                let template = workload.spec.template;
                (template.metadata.labels.get("app").map(String::as_str) == Some("istiod")).then_some(template.spec)
            })
        });
        let mut istiod = Istiod { version: None, cluster_domain: None };
        for spec in pods.chain(templates) {
            for container in spec.containers.iter().filter(|container| container.name == "discovery") {
                let version = container.image.as_deref().and_then(IstioVersion::of_image);
                istiod.version = istiod.version.max(version);
                let mut words = container.args.iter();
                while let Some(word) = words.next() {
                    let domain = match word.strip_prefix("--domain") {
                        Some("") => words.next().cloned(),
                        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
                        None => None,
                    };
                    istiod.cluster_domain = istiod.cluster_domain.take().or(domain.filter(|domain| !domain.is_empty()));
                }
            }
        }
        istiod
    }

    /// Pods, and the templates of workloads for which the source has no Pod.
    fn workloads(&mut self, namespaces: &BTreeMap<Namespace, NamespaceLabels>) -> Vec<Workload> {
        let mut workloads = Vec::new();
        let mut with_pods: HashSet<(Namespace, Arc<str>, Arc<str>)> = HashSet::new();
        let mut namespaces_with_pods: HashSet<Namespace> = HashSet::new();
        let pods: Vec<&'s Object> = self.snapshot.of_kind(Kind::Pod).collect();
        for object in pods {
            let reference = ObjectRef::new(&object.key, &mut self.names);
            // Pods come in tens of thousands: they are decoded one at a time and only their summary stays.
            let pod: shapes::Pod = match serde_json::from_str(object.body.get()) {
                Ok(pod) => pod,
                Err(error) => {
                    self.undecoded.push((reference, error.to_string()));
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
                for (object, template) in self.decode::<shapes::Workload>(info.kind) {
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
        workloads
    }

    fn services(&mut self, config: &MeshConfig, cluster_domain: &str) -> Vec<Service> {
        let objects: Vec<(ObjectRef, shapes::Service)> = self.decode(Kind::Service);
        let waypoint_namespaces = self.waypoint_namespaces();
        objects
            .into_iter()
            .map(|(object, service)| {
                let shapes::Service { metadata, spec } = service;
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
                    workloads: Vec::new(),
                    endpoints: PodCount::default(),
                    export_to: Visibility::new(&export_to, &config.default_service_export_to, &object.namespace),
                    publishes_not_ready: spec.publish_not_ready_addresses == Some(true),
                    waypoint,
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
                let namespace: shapes::Namespace = serde_json::from_str(object.body.get()).ok()?;
                let name = namespace.metadata.labels.get("istio.io/use-waypoint")?;
                (name != "none").then(|| Namespace::from(&*object.key.name))
            })
            .collect()
    }

    fn service_port(&mut self, index: usize, port: &shapes::ServicePort) -> Option<ServicePort> {
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

    fn service_entries(&mut self, config: &MeshConfig) -> Vec<Service> {
        let objects: Vec<(ObjectRef, Resource<ServiceEntrySpec>)> = self.decode(Kind::ServiceEntry);
        let mut services = Vec::new();
        for (object, entry) in objects {
            let Resource { metadata, spec } = entry;
            let created = self.created(&metadata);
            let labels = Labels::new(&metadata.labels, &mut self.names);
            for host in &spec.hosts {
                let ports = spec.ports.iter().enumerate().filter_map(|(index, port)| {
                    let number = u16::try_from(port.number).ok().filter(|number| *number > 0)?;
                    let word = port.protocol.as_deref().unwrap_or_default();
                    let (protocol, decided_by) = match Protocol::parse_word(word) {
                        Some(protocol) => (protocol, DecidedBy::EntryProtocol(self.names.intern(word))),
                        None => (Protocol::Auto, DecidedBy::NoEntryProtocol),
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
                    selector: Labels::default(),
                    addresses: spec.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
                    workloads: Vec::new(),
                    endpoints: PodCount::default(),
                    export_to: Visibility::new(&spec.export_to, &config.default_service_export_to, &object.namespace),
                    publishes_not_ready: false,
                    waypoint: false,
                    object: object.clone(),
                });
            }
        }
        services
    }

    /// EndpointSlices say what a Service's endpoints are, where the source has them.
    fn endpoint_slices(&mut self, services: &mut [Service]) {
        let mut counts: HashMap<(Box<str>, String), PodCount> = HashMap::new();
        for object in self.snapshot.of_kind(Kind::EndpointSlice) {
            let Ok(slice) = serde_json::from_str::<shapes::EndpointSlice>(object.body.get()) else { continue };
            let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") else { continue };
            // The second address family of a dual-stack Service repeats the same pods.
            if slice.address_type.as_deref() == Some("IPv6")
                && counts.get(&(object.key.namespace.clone(), service.clone())).is_some_and(|count| count.total > 0)
            {
                continue;
            }
            let count = counts.entry((object.key.namespace.clone(), service.clone())).or_default();
            for endpoint in &slice.endpoints {
                count.total += 1;
                let ready = endpoint.conditions.ready.unwrap_or(true) && endpoint.conditions.terminating != Some(true);
                count.ready += u32::from(ready);
            }
        }
        for service in services {
            let key = (service.namespace().as_str().into(), service.object.name.to_string());
            if let Some(count) = counts.get(&key) {
                service.endpoints = *count;
            }
        }
    }

    fn destination_rules(&mut self, config: &MeshConfig, cluster_domain: &str) -> Vec<DestinationRule> {
        let objects: Vec<(ObjectRef, Resource<DestinationRuleSpec>)> = self.decode(Kind::DestinationRule);
        objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| DestinationRule {
                host: host::resolve(&spec.host, &object.namespace, cluster_domain),
                created: self.created(&metadata),
                export_to: Visibility::new(
                    &spec.export_to,
                    &config.default_destination_rule_export_to,
                    &object.namespace,
                ),
                selector: spec
                    .workload_selector
                    .as_ref()
                    .map(|selector| Labels::new(&selector.match_labels, &mut self.names)),
                object,
                spec,
            })
            .collect()
    }

    fn virtual_services(&mut self, config: &MeshConfig, cluster_domain: &str) -> Vec<VirtualService> {
        let objects: Vec<(ObjectRef, Resource<VirtualServiceSpec>)> = self.decode(Kind::VirtualService);
        objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| {
                let hosts = spec.hosts.iter().map(|host| {
                    let host = host::resolve(host, &object.namespace, cluster_domain);
                    Host::from(host.as_str().to_ascii_lowercase().as_str())
                });
                VirtualService {
                    hosts: hosts.collect(),
                    gateways: spec.gateways.iter().map(|name| GatewayName::parse(name, &object.namespace)).collect(),
                    created: self.created(&metadata),
                    export_to: Visibility::new(
                        &spec.export_to,
                        &config.default_virtual_service_export_to,
                        &object.namespace,
                    ),
                    object,
                    spec,
                }
            })
            .collect()
    }

    fn route_objects(&mut self) -> Vec<RouteObject> {
        let mut routes: Vec<(ObjectRef, gateway_api::Route)> = self.decode(Kind::HttpRoute);
        routes.extend(self.decode(Kind::GrpcRoute));
        let mut routes: Vec<_> = routes
            .into_iter()
            .map(|(object, route)| RouteObject {
                created: self.created(&route.metadata),
                parents: route.spec.parent_refs.iter().map(|parent| Parent::new(parent, &object.namespace)).collect(),
                object,
                route,
            })
            .collect();
        routes.sort_by(|a, b| (&a.created, &a.object).cmp(&(&b.created, &b.object)));
        routes
    }

    fn istio_gateways(&mut self, workloads: &[Workload]) -> Vec<IstioGateway> {
        let gateway_pods: Vec<(WorkloadId, &Workload)> = workloads
            .iter()
            .enumerate()
            .filter(|(_, workload)| matches!(workload.proxy, super::workload::Proxy::Gateway(_)))
            .map(|(position, workload)| (WorkloadId::new(position), workload))
            .collect();
        let objects: Vec<(ObjectRef, Resource<GatewaySpec>)> = self.decode(Kind::IstioGateway);
        objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| {
                let selector = Labels::new(&spec.selector, &mut self.names);
                let selected =
                    gateway_pods.iter().filter(|(_, pod)| pod.labels.contains_all(&selector)).map(|(id, _)| *id);
                IstioGateway { workloads: selected.collect(), created: self.created(&metadata), selector, object, spec }
            })
            .collect()
    }

    fn api_gateways(&mut self) -> Vec<ApiGateway> {
        let objects: Vec<(ObjectRef, Resource<gateway_api::GatewaySpec>)> = self.decode(Kind::Gateway);
        objects.into_iter().map(|(object, Resource { metadata: _, spec })| ApiGateway { object, spec }).collect()
    }

    fn security(&mut self) -> Security {
        let peer: Vec<(ObjectRef, Resource<PeerAuthenticationSpec>)> = self.decode(Kind::PeerAuthentication);
        let peer = peer.into_iter().map(|(object, Resource { metadata, spec })| {
            let labels = |map: &StringMap, names: &mut Names| (!map.is_empty()).then(|| Labels::new(map, names));
            let selector = spec.selector.as_ref().and_then(|s| labels(&s.match_labels, &mut self.names));
            let ports = spec
                .port_level_mtls
                .iter()
                .flatten()
                .filter_map(|(port, mtls)| Some((port.parse().ok()?, MtlsMode::parse(mtls.mode.as_deref()?)?)));
            PeerAuthentication {
                created: self.created(&metadata),
                mode: spec.mtls.as_ref().and_then(|mtls| MtlsMode::parse(mtls.mode.as_deref()?)),
                ports: ports.collect(),
                selector,
                object,
            }
        });
        let peer = peer.collect();
        let policies: Vec<(ObjectRef, Resource<AuthorizationPolicySpec>)> = self.decode(Kind::AuthorizationPolicy);
        let policies = policies.into_iter().map(|(object, Resource { metadata: _, spec })| {
            let selector = spec.selector.as_ref().filter(|selector| !selector.match_labels.is_empty());
            AuthorizationPolicy {
                selector: selector.map(|s| Labels::new(&s.match_labels, &mut self.names)),
                object,
                spec,
            }
        });
        Security::new(peer, policies.collect())
    }

    fn extensions(&mut self) -> Vec<Extension> {
        let mut objects: Vec<(ObjectRef, Resource<SelectingSpec>)> = self.decode(Kind::EnvoyFilter);
        objects.extend(self.decode(Kind::WasmPlugin));
        objects.into_iter().map(|(object, Resource { metadata: _, spec })| Extension { object, spec }).collect()
    }

    fn sidecars(&mut self) -> BTreeMap<Namespace, Vec<ObjectRef>> {
        let mut sidecars: BTreeMap<Namespace, Vec<ObjectRef>> = BTreeMap::new();
        for object in self.snapshot.of_kind(Kind::Sidecar) {
            let reference = ObjectRef::new(&object.key, &mut self.names);
            sidecars.entry(reference.namespace.clone()).or_default().push(reference);
        }
        sidecars
    }
}

/// Finds each Service's pods through an index of just those labels that selectors ask for.
fn attach_workloads(services: &mut [Service], workloads: &[Workload]) {
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
            super::views::count_workload(&mut count, &workloads[id.index()], service.publishes_not_ready);
        }
        service.endpoints = count;
    }
}

fn attach_routes(
    routes: &[RouteObject],
    by_name: &HashMap<(Namespace, Arc<str>), ServiceId>,
) -> HashMap<ServiceId, Vec<RouteObjectId>> {
    let mut attached: HashMap<ServiceId, Vec<RouteObjectId>> = HashMap::new();
    for (position, route) in routes.iter().enumerate() {
        for (namespace, name, _) in route.service_parents() {
            // Only a route beside its Service, or one for callers of its own namespace, acts at all.
            if let Some(service) = by_name.get(&(namespace.clone(), name.into())) {
                let ids = attached.entry(*service).or_default();
                if ids.last() != Some(&RouteObjectId::new(position)) {
                    ids.push(RouteObjectId::new(position));
                }
            }
        }
    }
    attached
}

/// Notes who sends to each Service, and what that says about gRPC.
fn collect_evidence(mesh: &mut Mesh<'_>) {
    let mut users: HashMap<ServiceId, Vec<RouteUse>> = HashMap::new();
    let mut found: Vec<(ServiceId, Option<u16>, Evidence)> = Vec::new();
    for (id, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let user = RouteUse::VirtualService(id, rule.index);
            let retry_words =
                object.spec.http[rule.index].retries.as_ref().and_then(|retries| retries.retry_on.as_deref());
            note_rule(mesh, &rule, user, retry_words, false, &mut users, &mut found);
        }
    }
    for (position, object) in mesh.route_objects.iter().enumerate() {
        let id = RouteObjectId::new(position);
        for rule in mesh.route_object_rules(object) {
            let user = RouteUse::RouteObject(id, rule.index);
            note_rule(mesh, &rule, user, None, object.is_grpc(), &mut users, &mut found);
        }
        if object.is_grpc() {
            for (namespace, name, port) in object.service_parents() {
                if let Some(service) = mesh.find_service(namespace.as_str(), name) {
                    found.push((service, port, Evidence::GrpcRoute(object.object.clone())));
                }
            }
        }
    }
    for (position, service) in mesh.services.iter().enumerate() {
        own_evidence(mesh, ServiceId::new(position), service, &mut found);
    }
    for (id, port, evidence) in found {
        let ports = &mut mesh.services[id.index()].ports;
        // A rule that names no port speaks about the only port; among several it is no evidence for any.
        let port = match port {
            Some(number) => ports.iter_mut().find(|port| port.number == number),
            None if ports.len() == 1 => ports.first_mut(),
            None => None,
        };
        if let Some(port) = port
            && !port.evidence.contains(&evidence)
        {
            port.evidence.push(evidence);
        }
    }
    for service in &mut mesh.services {
        for port in &mut service.ports {
            port.evidence.sort();
        }
    }
    mesh.users = users;
}

fn note_rule(
    mesh: &Mesh<'_>,
    rule: &RouteRule,
    user: RouteUse,
    retry_on: Option<&str>,
    is_grpc_route: bool,
    users: &mut HashMap<ServiceId, Vec<RouteUse>>,
    found: &mut Vec<(ServiceId, Option<u16>, Evidence)>,
) {
    let Action::Forward(targets) = &rule.action else { return };
    let mut evidence = Vec::new();
    if is_grpc_route {
        evidence.push(Evidence::GrpcRoute(rule.object.clone()));
    }
    let words: Vec<&str> = retry_on
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|word| evidence::GRPC_RETRY_WORDS.contains(word))
        .collect();
    if !words.is_empty() {
        evidence.push(Evidence::RetryWords(rule.object.clone(), words.join(",").as_str().into()));
    }
    let mut only_port = None;
    for condition in rule.matches.iter().flat_map(|one| &one.conditions) {
        match condition {
            Condition::Path { text: TextMatch::Exact(path) | TextMatch::Prefix(path), .. }
                if !is_grpc_route && evidence::is_method_path(path) =>
            {
                evidence.push(Evidence::MethodPath(rule.object.clone(), path.as_str().into()));
            }
            Condition::Header { name, text, inverted: false } if name.eq_ignore_ascii_case("content-type") => {
                let (TextMatch::Exact(text) | TextMatch::Prefix(text) | TextMatch::Regex(text)) = text else {
                    continue;
                };
                if text.starts_with("application/grpc") && !text.starts_with("application/grpc-web") {
                    evidence.push(Evidence::ContentType(rule.object.clone()));
                }
            }
            Condition::Port(port) => only_port = u16::try_from(*port).ok(),
            Condition::Path { .. }
            | Condition::Header { .. }
            | Condition::Pseudo { .. }
            | Condition::Query { .. }
            | Condition::SourceLabels(_)
            | Condition::SourceNamespace(_)
            | Condition::Gateways(_) => {}
        }
    }
    for target in targets {
        let Some(service) = mesh.find_host(target.host.as_str()) else { continue };
        let list = users.entry(service).or_default();
        if list.last() != Some(&user) {
            list.push(user);
        }
        let port = target.port.and_then(|port| u16::try_from(port).ok()).or(only_port);
        found.extend(evidence.iter().map(|one| (service, port, one.clone())));
    }
}

/// What a Service and its pods say by themselves.
fn own_evidence(
    mesh: &Mesh<'_>,
    id: ServiceId,
    service: &Service,
    found: &mut Vec<(ServiceId, Option<u16>, Evidence)>,
) {
    for port in &service.ports {
        let mut note = |evidence| found.push((id, Some(port.number), evidence));
        if port.protocol.is_grpc() {
            note(Evidence::Declared);
        }
        if let Some(value) = port.app_protocol.as_ref().filter(|value| evidence::mentions_grpc(value)) {
            note(Evidence::AppProtocol(Arc::clone(value)));
        }
        if let Some(name) = port.name.as_ref().filter(|name| evidence::mentions_grpc(name)) {
            note(Evidence::PortName(Arc::clone(name)));
        }
        let mut probes: BTreeSet<String> = BTreeSet::new();
        let mut names: BTreeSet<&Arc<str>> = BTreeSet::new();
        for workload in mesh.workloads_of(service) {
            if let Some(number) = target_number(&port.target, workload) {
                if workload.grpc_probes.contains(&number) && probes.len() < 2 {
                    probes.insert(workload.title());
                }
                let named =
                    workload.ports.iter().filter(|one| one.number == number).filter_map(|one| one.name.as_ref());
                names.extend(named.filter(|name| evidence::mentions_grpc(name)));
            }
        }
        for title in probes {
            note(Evidence::Probe(title.as_str().into()));
        }
        for name in names {
            note(Evidence::ContainerPort(Arc::clone(name)));
        }
    }
}

/// The number of a target port in a workload's pods; `None` for a name that they do not have.
pub(crate) fn target_number(target: &TargetPort, workload: &Workload) -> Option<u16> {
    match target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            workload.ports.iter().find(|port| port.name.as_deref() == Some(&**name)).map(|port| port.number)
        }
    }
}
