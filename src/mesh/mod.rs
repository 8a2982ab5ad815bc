//! The resolved model: what the objects mean for each caller.
//!
//! [`resolve`] makes a [`Mesh`] from a [`Snapshot`] and never fails: a reference that leads nowhere is a value
//! ([`written_route::BackendState`]), not an error. What applies to a call depends on who calls, so questions about routes
//! and policies take a caller; [`views`] groups callers that nothing tells apart.
//!
//! CORE. Never serialised: [`crate::report`] holds what is shown.

pub(crate) mod caller_classes;
pub(crate) mod coverage;
pub(crate) mod destination_rule;
pub(crate) mod evidence;
pub(crate) mod gateway;
pub(crate) mod gateway_api;
mod gateway_exposure;
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
pub(crate) mod workload;
pub(crate) mod written_route;
mod written_rules;
pub mod xds;

pub use resolve::{ResolveOptions, resolve};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use crate::schema::fields::{self, FieldProblem};
use crate::schema::limits;
use crate::schema::mesh_config::MeshConfig;
use crate::schema::sidecar::{SelectingSpec, SidecarSpec};
use crate::snapshot::decode_error::DecodeError;
use crate::snapshot::{Object, Snapshot};
use coverage::Coverage;
use destination_rule::DestinationRules;
use gateway::{ApiGateway, IstioGateway, ReferenceGrant};
use gateway_api::RouteObject;
use host::HostMap;
use ids::{Host, Interner, Labels, Namespace, ObjectRef, RouteObjectId, ServiceId, VirtualServiceId, WorkloadId};
use name_index::NameIndex;
use security::SecurityPolicies;
use service::Service;
use version::{IstioVersion, VersionSource};
use virtual_service::VirtualServices;
use workload::{NamespaceInjection, Workload};

/// A mesh, resolved.
#[derive(Debug)]
pub struct Mesh<'s> {
    /// What it was made from.
    pub snapshot: &'s Snapshot,
    /// Version whose behaviour is assumed.
    pub version: IstioVersion,
    /// Where the version came from.
    pub version_source: VersionSource,
    /// Domain of Service hosts.
    pub cluster_domain: String,
    /// Namespace of mesh-wide objects.
    pub root: Namespace,
    /// Mesh configuration; defaults when the source has none.
    pub config: MeshConfig,
    /// Whether the source has a mesh configuration.
    pub has_mesh_config: bool,
    /// Namespaces with what their labels ask for.
    pub namespaces: BTreeMap<Namespace, NamespaceInjection>,
    /// The registry.
    pub services: Vec<Service>,
    /// Pods and templates.
    pub workloads: Vec<Workload>,
    /// DestinationRules.
    pub destination_rules: DestinationRules,
    /// VirtualServices.
    pub virtual_services: VirtualServices,
    /// HTTPRoutes and GRPCRoutes.
    pub route_objects: Vec<RouteObject>,
    /// Istio Gateways, by namespace and name.
    pub istio_gateways: Vec<IstioGateway>,
    /// Gateways of Gateway API, by namespace and name.
    pub api_gateways: Vec<ApiGateway>,
    /// mTLS and authorization.
    pub security: SecurityPolicies,
    /// EnvoyFilters and WasmPlugins, which may change what the model says.
    pub extensions: Vec<Extension>,
    /// Sidecar objects: they narrow what callers see.
    pub sidecars: Vec<SidecarObject>,
    /// ReferenceGrants.
    pub grants: Vec<ReferenceGrant>,
    /// Objects whose shape could not be read, with the reason.
    pub undecoded: Vec<UndecodedObject>,
    /// What the source could not tell.
    pub coverage: Coverage,
    /// Namespaces in which meshed pods run, or may run.
    pub caller_namespaces: BTreeSet<Namespace>,
    /// Services by name.
    pub directory: NameIndex,
    /// Namespaces with workloads.
    populated: BTreeSet<Namespace>,
    hosts: HostMap<ServiceId>,
    /// Route objects attached to a Service in the mesh.
    attached: HashMap<ServiceId, Vec<RouteObjectId>>,
    /// Who sends to a Service, from any rule.
    users: HashMap<ServiceId, Vec<RouteReference>>,
    services_by_workload: HashMap<WorkloadId, Vec<ServiceId>>,
    outbound_index: OnceLock<xds::XdsIndex>,
    field_problems: OnceLock<Vec<(ObjectRef, FieldProblem)>>,
    labels_of_callers: OnceLock<BTreeSet<String>>,
}

/// An object whose shape could not be read.
#[derive(Debug)]
pub struct UndecodedObject {
    /// The object.
    pub object: ObjectRef,
    /// Field path of what does not fit.
    pub field: String,
    /// Why.
    pub why: String,
}

impl UndecodedObject {
    fn new(object: ObjectRef, DecodeError { field, why }: DecodeError) -> Self {
        let why = why.strip_prefix("invalid type: ").unwrap_or(&why).to_owned();
        Self { object, field, why }
    }
}

/// An object that patches Envoy's configuration behind the model's back.
#[derive(Debug)]
pub struct Extension {
    /// The object.
    pub object: ObjectRef,
    /// Whom and what it patches.
    pub spec: SelectingSpec,
}

impl Extension {
    /// Whether it acts on proxies of these labels in a namespace; `root` is the mesh's.
    pub fn acts_on(&self, namespace: &Namespace, labels: &Labels, root: &Namespace) -> bool {
        let near = self.object.namespace == *root || self.object.namespace == *namespace;
        let selected = self.spec.workload_selector.as_ref().map(|selector| &selector.labels);
        let selected = selected.or(self.spec.selector.as_ref().map(|selector| &selector.match_labels));
        near && selected.is_none_or(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value.as_str())))
    }

    /// What it patches, such as `HTTP_ROUTE`.
    pub fn patches(&self) -> BTreeSet<&str> {
        self.spec.config_patches.iter().filter_map(|patch| patch.apply_to.as_deref()).collect()
    }

    /// What it is, with its patches in brackets.
    pub fn title(&self) -> String {
        let patches: Vec<&str> = self.patches().into_iter().collect();
        if patches.is_empty() {
            return self.object.to_string();
        }
        format!("{} (patches {})", self.object, patches.join(", "))
    }
}

/// A Sidecar.
#[derive(Debug)]
pub struct SidecarObject {
    /// The object.
    pub object: ObjectRef,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// Labels of the pods that it narrows; `None` means all of its namespace, in the root namespace of the mesh.
    pub selector: Option<Labels>,
    /// As written.
    pub spec: SidecarSpec,
}

/// A rule that sends to a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteReference {
    /// An HTTP rule of a VirtualService, by object and position.
    VirtualService(VirtualServiceId, usize),
    /// A rule of a Gateway API route, by object and position.
    RouteObject(RouteObjectId, usize),
}

impl Mesh<'_> {
    /// One host of the registry.
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.services[id.index()]
    }

    /// One workload.
    pub fn workload(&self, id: WorkloadId) -> &Workload {
        &self.workloads[id.index()]
    }

    /// One Gateway API route.
    pub fn route_object(&self, id: RouteObjectId) -> &RouteObject {
        &self.route_objects[id.index()]
    }

    /// Ids of all Services.
    pub fn service_ids(&self) -> impl Iterator<Item = ServiceId> + use<> {
        (0..self.services.len()).map(ServiceId::new)
    }

    /// Ids of all workloads.
    pub fn workload_ids(&self) -> impl Iterator<Item = WorkloadId> + use<> {
        (0..self.workloads.len()).map(WorkloadId::new)
    }

    /// Keys of labels by which some object tells callers apart: Sidecars, DestinationRules with a workload selector,
    /// and matches on the caller's labels.
    pub fn labels_read_of_callers(&self) -> &BTreeSet<String> {
        self.labels_of_callers.get_or_init(|| self.find_labels_of_callers())
    }

    fn find_labels_of_callers(&self) -> BTreeSet<String> {
        let sidecars = self.sidecars.iter().filter_map(|sidecar| sidecar.selector.as_ref());
        let rules = self.destination_rules.iter().filter_map(|rule| rule.selector.as_ref());
        let selectors = sidecars.chain(rules).flat_map(|labels| labels.iter().map(|(key, _)| key.to_string()));
        let specs = self.virtual_services.iter().map(|(_, object)| &object.spec);
        let matches = specs.flat_map(|spec| {
            let http = spec.http.iter().flat_map(|rule| &rule.matches).map(|one| &one.source_labels);
            let bytes = spec.tcp.iter().chain(&spec.tls).flat_map(|rule| &rule.matches).map(|one| &one.source_labels);
            http.chain(bytes)
        });
        selectors.chain(matches.flat_map(|labels| labels.keys().cloned())).collect()
    }

    /// The registry's entry for exactly this host; the oldest when there are several.
    pub fn find_host(&self, host: &str) -> Option<ServiceId> {
        self.hosts.exact(host).first().copied()
    }

    /// Whether any entry, a wildcard ServiceEntry's too, covers the host, or a wildcard pattern covers any host.
    pub fn knows_host(&self, host: &str) -> bool {
        if let Some(suffix) = host.strip_prefix('*') {
            return self.directory.any_host_ends_in(suffix);
        }
        self.hosts.covering(host).next().is_some()
    }

    /// The Kubernetes Service of this name.
    pub fn find_service(&self, namespace: &str, name: &str) -> Option<ServiceId> {
        self.directory.find(namespace, name)
    }

    /// The workloads behind a Service.
    pub fn workloads_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Workload> + 'a {
        service.workloads.iter().map(|id| self.workload(*id))
    }

    /// The Services that select a workload.
    pub fn services_of(&self, workload: WorkloadId) -> impl Iterator<Item = &Service> {
        self.services_by_workload.get(&workload).into_iter().flatten().map(|id| self.service(*id))
    }

    /// Gateway API routes attached to a Service in the mesh.
    pub fn attached_routes(&self, service: ServiceId) -> &[RouteObjectId] {
        self.attached.get(&service).map_or(&[], Vec::as_slice)
    }

    /// The rules that send to a Service.
    pub fn users_of(&self, service: ServiceId) -> &[RouteReference] {
        self.users.get(&service).map_or(&[], Vec::as_slice)
    }

    /// What the published schemas say against fields of Istio's and Gateway API's objects.
    pub fn field_problems(&self) -> &[(ObjectRef, FieldProblem)] {
        self.field_problems.get_or_init(|| {
            let mut names = Interner::default();
            let mut found = Vec::new();
            for object in self.snapshot.objects.values().filter(|object| object.key.kind.is_mesh_kind()) {
                let Ok(body) = serde_json::from_str(object.body.get()) else { continue };
                let problems = fields::check(object.key.kind, &body);
                let refused = limits::check(object.key.kind, &body);
                found.extend(
                    problems.into_iter().chain(refused).map(|one| (ObjectRef::new(&object.key, &mut names), one)),
                );
            }
            found
        })
    }

    /// The object as it was read.
    pub fn object(&self, reference: &ObjectRef) -> Option<&Object> {
        self.snapshot.objects.get(&reference.key())
    }

    /// A host as the object's author would see it: `name.namespace` for Services of the cluster.
    pub fn short_host<'a>(&self, host: &'a Host) -> &'a str {
        host.as_str()
            .strip_suffix(self.cluster_domain.as_str())
            .and_then(|host| host.strip_suffix(".svc."))
            .unwrap_or(host.as_str())
    }

    /// The namespace of a Service's host, `None` for hosts outside the cluster domain.
    pub fn namespace_of_host(&self, host: &Host) -> Option<Namespace> {
        let inner = host.as_str().strip_suffix(self.cluster_domain.as_str())?.strip_suffix(".svc.")?;
        inner.split_once('.').map(|(_, namespace)| namespace.into())
    }
}
