//! Builds the [`Mesh`] from a snapshot. Never fails: objects that cannot be decoded are listed in the mesh.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use super::Mesh;
use super::backend_policy;
use super::behavior::{Behaviors, IstiodBehavior};
use super::coverage::Coverage;
use super::destination_rule::DestinationRules;
use super::host::{self, HostMap};
use super::ids::{Interner, Namespace, ServiceId, WorkloadId};
use super::name_index::NameIndex;
use super::reader::ObjectReader;
use super::references::{attach_routes, collect_evidence};
use super::registry::attach_workloads;
use super::version::{IstioVersion, VersionSource};
use super::virtual_service::VirtualServices;
use super::workload::NamespaceInjection;
use crate::snapshot::{Snapshot, SourceKind};

/// Settings that override what the source says.
#[derive(Debug, Clone, Default)]
pub struct ResolveOptions {
    /// Istio release whose behavior the model follows. `None`: the version of istiod, else of the newest proxy, else
    /// the newest release that is supported.
    pub istio_version: Option<IstioVersion>,
    /// Namespace of istiod. `None`: `istio-system`.
    pub istio_namespace: Option<String>,
    /// Revision whose mesh configuration applies. `None`: the default revision.
    pub revision: Option<String>,
    /// Suffix of Service hosts. `None`: istiod's `--domain` argument, else `cluster.local`.
    pub cluster_domain: Option<String>,
}

/// Builds the mesh model of a snapshot. The cost grows linearly with the number of objects.
pub fn resolve<'s>(snapshot: &'s Snapshot, options: &ResolveOptions) -> Mesh<'s> {
    let mut reader = ObjectReader { snapshot, names: Interner::default(), undecoded: Vec::new() };
    let istio_namespace = options.istio_namespace.as_deref().unwrap_or("istio-system");
    let (config, has_mesh_config) = reader.mesh_config(istio_namespace, options.revision.as_deref());
    let root_namespace: Namespace = config.effective_root_namespace(istio_namespace).into();
    let namespace_labels = reader.namespace_labels();
    let namespaces = namespace_labels
        .iter()
        .map(|(namespace, labels)| (namespace.clone(), NamespaceInjection::new(labels)))
        .collect();
    let workloads = reader.workloads(&namespaces);
    let istiod = reader.istiod(istio_namespace);
    let cluster_domain = options
        .cluster_domain
        .clone()
        .or(istiod.cluster_domain)
        .unwrap_or_else(|| host::DEFAULT_CLUSTER_DOMAIN.to_owned());
    let proxy_version = workloads.iter().filter_map(|workload| workload.proxy.envoy()?.version).max();
    let (version, version_source) = match (options.istio_version, istiod.version, proxy_version) {
        (Some(version), ..) => (version, VersionSource::Flag),
        (None, Some(version), _) => (version, VersionSource::Istiod),
        (None, None, Some(version)) => (version, VersionSource::Proxy),
        (None, None, None) => (IstioVersion::NEWEST, VersionSource::Assumed),
    };
    let environment = istiod.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let behaviors = Behaviors::new(version, environment);
    let mut services = reader.services(&config, &cluster_domain, &behaviors, &namespace_labels);
    attach_workloads(&mut services, &workloads);
    reader.endpoint_slices(&mut services);
    services.sort_by(|a, b| a.object.cmp(&b.object));
    let mut entries = reader.service_entries(&config, &namespace_labels);
    attach_workloads(&mut entries, &workloads);
    services.extend(entries);

    let mut hosts = HostMap::default();
    let mut services_by_workload: HashMap<WorkloadId, Vec<ServiceId>> = HashMap::new();
    for (position, service) in services.iter().enumerate() {
        let id = ServiceId::new(position);
        for workload in &service.workloads {
            services_by_workload.entry(*workload).or_default().push(id);
        }
        hosts.insert(&service.host, id);
    }
    let namespaces_with_workloads = workloads.iter().map(|workload| workload.namespace().clone()).collect();
    let name_index = NameIndex::new(&services);
    let described = (snapshot.source == SourceKind::Manifests)
        .then(|| services.iter().map(|service| service.namespace().clone()).collect());
    let caller_namespaces = workloads
        .iter()
        .filter(|workload| workload.proxy.is_meshed() != Some(false))
        .map(|workload| workload.namespace().clone())
        .collect();
    let (backend_tls_policies, backend_traffic_policies) = reader.backend_policies();
    let mut rules = reader.destination_rules(&config, &cluster_domain);
    let mut dead_policy_targets = Vec::new();
    if behaviors.has(IstiodBehavior::BackendTlsPolicies) {
        let (converted, dead) = backend_policy::convert(&backend_tls_policies, &services);
        rules.extend(converted);
        dead_policy_targets = dead;
    }
    let destination_rules = DestinationRules::new(rules, &root_namespace, &config, &behaviors);
    let virtual_services = reader.virtual_services(&config, &cluster_domain);
    let route_objects = reader.route_objects();
    let attached_routes = attach_routes(&route_objects, &name_index);
    let mut mesh = Mesh {
        snapshot,
        version,
        version_source,
        behaviors,
        cluster_domain,
        istio_gateways: reader.istio_gateways(&workloads),
        api_gateways: reader.api_gateways(),
        listener_sets: reader.listener_sets(),
        security_policies: reader.security(),
        trust_domains: config.trust_domains(),
        authorizers: config.authorizers(),
        extensions: reader.extensions(),
        sidecars: reader.sidecars(),
        reference_grants: reader.grants(),
        undecoded: std::mem::take(&mut reader.undecoded),
        coverage: Coverage::new(&snapshot.gaps, described),
        caller_namespaces,
        root_namespace,
        config,
        has_mesh_config,
        namespaces,
        namespace_labels,
        services,
        workloads,
        destination_rules,
        backend_traffic_policies,
        dead_policy_targets,
        virtual_services: VirtualServices::new(virtual_services),
        route_objects,
        hosts,
        name_index,
        namespaces_with_workloads,
        services_by_workload,
        xds_index: OnceLock::new(),
        missing_clusters: OnceLock::new(),
        objects_without_effect: OnceLock::new(),
        field_problems: OnceLock::new(),
        caller_label_keys: OnceLock::new(),
        unread_fields: Mutex::default(),
        attached_routes,
        route_references: HashMap::new(),
    };
    collect_evidence(&mut mesh);
    mesh
}
