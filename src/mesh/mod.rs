//! The mesh model: the objects of a snapshot, and what they mean for each caller.
//!
//! [`resolve`] builds a [`Mesh`] from a [`Snapshot`] and cannot fail. A reference to an object that does not exist is
//! part of the model: rules report it. What applies to a call depends on its caller, so functions about routes and
//! policies take an [`xds::Caller`], and `caller_classes` groups callers for which they give the same answer.
//!
//! A route has three stages, and each type belongs to one of them:
//!
//! | Stage | Modules | Types |
//! |---|---|---|
//! | written: what the objects say, with names resolved | [`crate::schema`], `written_route`, `written_rules` | `WrittenRule`, `WrittenMatch`, `WrittenBackend`, `WrittenMirror` |
//! | compiled: what istiod would send to a caller's proxy | [`xds`], `caller_backend` | `ConfigRule`, `CompiledBackend`, `CallerBackend` |
//! | observed: what an Envoy runs | [`crate::envoy`] | not in this module |
//!
//! This module is part of CORE. Its types are never serialized as such: [`crate::report`] defines the output.

pub(crate) mod authorization;
pub(crate) mod backend_policy;
pub mod behavior;
pub(crate) mod caller_backend;
pub(crate) mod caller_classes;
pub(crate) mod coverage;
pub(crate) mod destination_rule;
pub(crate) mod evidence;
mod evidence_flow;
pub(crate) mod gateway;
pub(crate) mod gateway_api;
mod gateway_exposure;
pub(crate) mod hop;
pub(crate) mod hop_problems;
pub(crate) mod host;
pub mod ids;
pub(crate) mod name_index;
pub mod protocol;
mod reader;
mod references;
mod registry;
mod resolve;
pub(crate) mod retry;
pub(crate) mod security;
pub mod service;
pub(crate) mod traffic_exclusion;
pub(crate) mod version;
pub(crate) mod virtual_service;
pub(crate) mod waypoint;
pub(crate) mod workload;
pub(crate) mod written_route;
mod written_rules;
pub mod xds;

pub use resolve::{ResolveOptions, resolve};

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::schema::fields::{self, FieldProblem};
use crate::schema::limits;
use crate::schema::mesh_config::MeshConfig;
use crate::schema::meta::StringMap;
use crate::schema::not_modelled::{self, UnreadUse};
use crate::schema::sidecar::{SelectorSpec, SidecarSpec};
use crate::snapshot::decode_error::DecodeError;
use crate::snapshot::{Object, Snapshot};
use backend_policy::{BackendTrafficPolicy, DeadTarget};
use behavior::Behaviors;
use coverage::Coverage;
use destination_rule::DestinationRules;
use gateway::{ApiGateway, IstioGateway, ListenerSet, ReferenceGrant};
use gateway_api::RouteObject;
use host::HostMap;
use ids::{Host, Interner, Labels, Namespace, ObjectRef, RouteObjectId, ServiceId, VirtualServiceId, WorkloadId};
use name_index::NameIndex;
use security::SecurityPolicies;
use service::Service;
use version::{IstioVersion, VersionSource};
use virtual_service::VirtualServices;
use workload::{NamespaceInjection, Workload};

/// Every object of a snapshot, decoded, with references resolved to indexes.
///
/// Built once by [`resolve`] and read-only afterwards. Lists are indexed by the id types of [`ids`], and an id is valid
/// only for the mesh that issued it. Indexes that only some commands need are built on first use.
///
/// Sources, of istio/istio 1.31 unless a module names another: `pilot/pkg/model/push_context.go` for what applies to
/// which caller, `pkg/kube/inject` for proxies, `pkg/config` for hosts and protocols.
#[derive(Debug)]
pub struct Mesh<'s> {
    /// The snapshot from which the mesh was built.
    pub snapshot: &'s Snapshot,
    /// Istio release whose behavior the model follows.
    pub version: IstioVersion,
    /// How `version` was determined.
    pub version_source: VersionSource,
    /// Behavior of this release, and of istiod's environment.
    pub behaviors: Behaviors,
    /// Suffix of Kubernetes Service hosts, such as `cluster.local`.
    pub cluster_domain: String,
    /// Root namespace: its objects apply to the whole mesh. `meshConfig.rootNamespace`, else istiod's namespace.
    pub root_namespace: Namespace,
    /// Contents of the `istio` ConfigMap, or Istio's defaults.
    pub config: MeshConfig,
    /// Whether the source contains a readable mesh configuration.
    pub has_mesh_config: bool,
    /// Injection labels of each Namespace in the source.
    pub namespaces: BTreeMap<Namespace, NamespaceInjection>,
    /// Labels of each Namespace in the source, with the label that the API server sets.
    pub namespace_labels: BTreeMap<Namespace, StringMap>,
    /// Service registry: Kubernetes Services by namespace and name, then one entry for each host of a ServiceEntry.
    /// Indexed by [`ServiceId`].
    pub services: Vec<Service>,
    /// Pods, pod templates of workloads without Pods in the source, and WorkloadEntries. Indexed by [`WorkloadId`].
    pub workloads: Vec<Workload>,
    /// DestinationRules, merged as istiod merges them.
    pub destination_rules: DestinationRules,
    /// XBackendTrafficPolicies. The model does not apply them; answers that they may change name them.
    pub backend_traffic_policies: Vec<BackendTrafficPolicy>,
    /// Targets on which a BackendTLSPolicy does not act.
    pub dead_policy_targets: Vec<DeadTarget>,
    /// VirtualServices, oldest first.
    pub virtual_services: VirtualServices,
    /// HTTPRoutes and GRPCRoutes, oldest first. Indexed by [`RouteObjectId`].
    pub route_objects: Vec<RouteObject>,
    /// Istio Gateways, sorted by namespace and name.
    pub istio_gateways: Vec<IstioGateway>,
    /// Gateway API Gateways, sorted by namespace and name.
    pub api_gateways: Vec<ApiGateway>,
    /// ListenerSets by namespace and name.
    pub listener_sets: Vec<ListenerSet>,
    /// PeerAuthentications, RequestAuthentications and AuthorizationPolicies.
    pub security_policies: SecurityPolicies,
    /// The mesh's trust domain, followed by its aliases.
    pub trust_domains: Vec<String>,
    /// External authorizers of the mesh configuration: name, and whether they support TCP connections.
    pub authorizers: Vec<(String, bool)>,
    /// EnvoyFilters, WasmPlugins and TrafficExtensions. The model does not apply them; answers that they may change name them.
    pub extensions: Vec<Extension>,
    /// Sidecar objects, in the order in which istiod tries them.
    pub sidecars: Vec<SidecarObject>,
    /// ReferenceGrants.
    pub reference_grants: Vec<ReferenceGrant>,
    /// Objects that do not match the schema of their kind. The model ignores them.
    pub undecoded: Vec<UndecodedObject>,
    /// Kinds and namespaces that could not be read.
    pub coverage: Coverage,
    /// Namespaces with at least one pod that has a proxy or may have one.
    pub caller_namespaces: BTreeSet<Namespace>,
    /// Kubernetes Services by name, for lookups and suggestions.
    pub name_index: NameIndex,
    namespaces_with_workloads: BTreeSet<Namespace>,
    hosts: HostMap<ServiceId>,
    /// Gateway API routes by the Service that is their parent.
    attached_routes: HashMap<ServiceId, Vec<RouteObjectId>>,
    route_references: HashMap<ServiceId, Vec<RouteReference>>,
    services_by_workload: HashMap<WorkloadId, Vec<ServiceId>>,
    xds_index: OnceLock<xds::XdsIndex>,
    missing_clusters: OnceLock<Vec<xds::MissingCluster>>,
    objects_without_effect: OnceLock<HashSet<ObjectRef>>,
    field_problems: OnceLock<Vec<(ObjectRef, FieldProblem)>>,
    caller_label_keys: OnceLock<BTreeSet<String>>,
    /// Answers of [`Mesh::unread_fields`].
    unread_fields: Mutex<HashMap<ObjectRef, Arc<[UnreadUse]>>>,
}

/// An object that does not match the schema of its kind.
#[derive(Debug)]
pub struct UndecodedObject {
    /// The object.
    pub object: ObjectRef,
    /// Path of the field that cannot be decoded, such as `spec.http[0].timeout`.
    pub field: String,
    /// Decode error, such as `string "a", expected a list`.
    pub reason: String,
}

impl fmt::Display for UndecodedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, reason } = self;
        write!(f, "ignoring {object}: cannot decode {field}: {reason}")
    }
}

impl UndecodedObject {
    fn new(object: ObjectRef, error: DecodeError) -> Self {
        let DecodeError { field, message: reason } = error;
        let reason = reason.strip_prefix("invalid type: ").unwrap_or(&reason).to_owned();
        Self { object, field, reason }
    }
}

/// Label of the pods of a Gateway API Gateway, waypoints included.
pub(crate) const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// An EnvoyFilter, WasmPlugin or TrafficExtension: it changes Envoy's configuration after istiod has generated it.
#[derive(Debug)]
pub struct Extension {
    /// The object.
    pub object: ObjectRef,
    /// Selector and patches.
    pub spec: SelectorSpec,
}

impl Extension {
    /// Whether the object applies to proxies of pods with these labels in `namespace`.
    pub fn applies_to(&self, namespace: &Namespace, labels: &Labels, root_namespace: &Namespace) -> bool {
        let is_in_scope = self.object.namespace == *root_namespace || self.object.namespace == *namespace;
        let mut targets = self.spec.target_ref.iter().chain(&self.spec.target_refs).peekable();
        if targets.peek().is_some() {
            let Some(gateway) = labels.get(GATEWAY_NAME_LABEL) else { return false };
            return self.object.namespace == *namespace
                && targets.any(|target| target.names_gateway(namespace.as_str(), gateway));
        }
        let selector = self.spec.workload_selector.as_ref().map(|selector| &selector.labels);
        let selector = selector.or(self.spec.selector.as_ref().map(|selector| &selector.match_labels));
        is_in_scope
            && selector
                .is_none_or(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value.as_str())))
    }

    /// Parts of Envoy's configuration that the object patches, such as `HTTP_ROUTE`.
    pub fn patches(&self) -> BTreeSet<&str> {
        self.spec.config_patches.iter().filter_map(|patch| patch.apply_to.as_deref()).collect()
    }

    /// The object with its patches: `EnvoyFilter shop/retry (patches HTTP_ROUTE)`.
    pub fn title(&self) -> String {
        let patches: Vec<&str> = self.patches().into_iter().collect();
        if patches.is_empty() {
            return self.object.to_string();
        }
        format!("{} (patches {})", self.object, patches.join(", "))
    }
}

/// A Sidecar object. It limits the hosts that its proxies know.
#[derive(Debug)]
pub struct SidecarObject {
    /// The object.
    pub object: ObjectRef,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    /// Labels of the pods that it applies to. `None`: all pods of its namespace, or of the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// The written `spec`.
    pub spec: SidecarSpec,
}

/// A route rule with a backend that is a given Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteReference {
    /// A VirtualService and the position of its HTTP rule.
    VirtualService(VirtualServiceId, usize),
    /// An HTTPRoute or GRPCRoute and the position of its rule.
    RouteObject(RouteObjectId, usize),
}

impl Mesh<'_> {
    /// The registry entry of `id`.
    #[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.services[id.index()]
    }

    /// The workload of `id`.
    #[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
    pub fn workload(&self, id: WorkloadId) -> &Workload {
        &self.workloads[id.index()]
    }

    /// The HTTPRoute or GRPCRoute of `id`.
    #[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
    pub fn route_object(&self, id: RouteObjectId) -> &RouteObject {
        &self.route_objects[id.index()]
    }

    /// Ids of all registry entries, in the order of [`Mesh::services`].
    pub fn service_ids(&self) -> impl Iterator<Item = ServiceId> + use<> {
        (0..self.services.len()).map(ServiceId::new)
    }

    /// Ids of all workloads, in the order of [`Mesh::workloads`].
    pub fn workload_ids(&self) -> impl Iterator<Item = WorkloadId> + use<> {
        (0..self.workloads.len()).map(WorkloadId::new)
    }

    /// Pod label keys that can separate callers: those in Sidecar and DestinationRule selectors and in `sourceLabels`.
    pub fn caller_label_keys(&self) -> &BTreeSet<String> {
        self.caller_label_keys.get_or_init(|| self.collect_caller_label_keys())
    }

    /// The fields of an object that can change an answer and that the model does not read. Many answers name the same
    /// objects, so each object is read once.
    pub fn unread_fields(&self, object: &ObjectRef) -> Arc<[UnreadUse]> {
        let mut known = self.unread_fields.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fields) = known.get(object) {
            return Arc::clone(fields);
        }
        let stored = self.snapshot.objects.get(&object.key());
        let body = stored.and_then(|stored| serde_json::from_str(stored.body.get()).ok());
        let fields: Arc<[UnreadUse]> =
            body.map(|body| not_modelled::unread_fields(object.kind, &body)).unwrap_or_default().into();
        known.insert(object.clone(), Arc::clone(&fields));
        fields
    }

    fn collect_caller_label_keys(&self) -> BTreeSet<String> {
        let sidecars = self.sidecars.iter().filter_map(|sidecar| sidecar.selector.as_ref());
        let rules = self.destination_rules.iter().filter_map(|rule| rule.selector.as_ref());
        let selectors = sidecars.chain(rules).flat_map(|labels| labels.iter().map(|(key, _)| key.to_string()));
        let specs = self.virtual_services.iter().map(|(_, object)| &object.spec);
        let source_labels = specs.flat_map(|spec| {
            let http = spec.http.iter().flat_map(|rule| &rule.matches).map(|condition| &condition.source_labels);
            let l4 = spec.tcp.iter().chain(&spec.tls).flat_map(|rule| &rule.matches);
            http.chain(l4.map(|condition| &condition.source_labels))
        });
        selectors.chain(source_labels.flat_map(|labels| labels.keys().cloned())).collect()
    }

    /// The registry entry for exactly this host. If several objects define the host, the oldest one.
    pub fn find_host(&self, host: &str) -> Option<ServiceId> {
        self.hosts.exact(host).first().copied()
    }

    /// Whether the registry has `host`, either exactly or through a wildcard ServiceEntry. For a wildcard such as
    /// `*.example.com`: whether it matches any host of the registry.
    pub fn has_host(&self, host: &str) -> bool {
        if let Some(suffix) = host.strip_prefix('*') {
            return self.name_index.has_host_with_suffix(suffix);
        }
        self.hosts.covering(host).next().is_some()
    }

    /// The Kubernetes Service with this namespace and name.
    pub fn find_service(&self, namespace: &str, name: &str) -> Option<ServiceId> {
        self.name_index.find(namespace, name)
    }

    /// The workloads that the Service selects.
    pub fn workloads_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Workload> + 'a {
        service.workloads.iter().map(|id| self.workload(*id))
    }

    /// The Services that select the workload.
    pub fn services_selecting(&self, workload: WorkloadId) -> impl Iterator<Item = &Service> {
        self.services_by_workload.get(&workload).into_iter().flatten().map(|id| self.service(*id))
    }

    /// HTTPRoutes and GRPCRoutes whose `parentRefs` name the Service.
    pub fn attached_routes(&self, service: ServiceId) -> &[RouteObjectId] {
        self.attached_routes.get(&service).map_or(&[], Vec::as_slice)
    }

    /// The route rules with a backend that is the Service, whether for sidecars or gateways.
    pub fn route_references(&self, service: ServiceId) -> &[RouteReference] {
        self.route_references.get(&service).map_or(&[], Vec::as_slice)
    }

    /// Whether sidecars apply a VirtualService, HTTPRoute or GRPCRoute. A delegate acts in the mesh if a VirtualService
    /// that refers to it does.
    pub fn acts_in_mesh(&self, object: &ObjectRef) -> bool {
        let is_delegate =
            |delegate: &Option<(ObjectRef, usize)>| delegate.as_ref().is_some_and(|(name, _)| name == object);
        self.route_configs().iter().filter(|(_, config)| config.acts_in_mesh()).any(|(_, config)| {
            config.objects.contains(object) || config.rules.iter().any(|rule| is_delegate(&rule.delegate))
        })
    }

    /// Violations of the published schemas of Istio and Gateway API: unknown fields, and values outside their limits.
    pub fn field_problems(&self) -> &[(ObjectRef, FieldProblem)] {
        self.field_problems.get_or_init(|| {
            let mut names = Interner::default();
            let mut problems = Vec::new();
            for object in self.snapshot.objects.values().filter(|object| object.key.kind.is_mesh_kind()) {
                let Ok(body) = serde_json::from_str(object.body.get()) else { continue };
                let unknown = fields::check(object.key.kind, &body);
                let limits = limits::check(object.key.kind, &body);
                let all = unknown.into_iter().chain(limits);
                problems.extend(all.map(|problem| (ObjectRef::new(&object.key, &mut names), problem)));
            }
            problems
        })
    }

    /// The object as the snapshot holds it.
    pub fn object(&self, reference: &ObjectRef) -> Option<&Object> {
        self.snapshot.objects.get(&reference.key())
    }

    /// The host for display: `name.namespace` for Kubernetes Services, any other host unchanged.
    pub fn short_host<'a>(&self, host: &'a Host) -> &'a str {
        host.as_str()
            .strip_suffix(self.cluster_domain.as_str())
            .and_then(|host| host.strip_suffix(".svc."))
            .unwrap_or(host.as_str())
    }

    /// The namespace in a Kubernetes Service's host. `None` for hosts outside the cluster domain.
    pub fn namespace_of_host(&self, host: &Host) -> Option<Namespace> {
        let service = host.as_str().strip_suffix(self.cluster_domain.as_str())?.strip_suffix(".svc.")?;
        service.split_once('.').map(|(_, namespace)| namespace.into())
    }
}
