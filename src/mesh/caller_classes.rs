//! Caller classes: groups of callers that get the same rules for a Service.
//!
//! Most Services have one class, because no object separates their callers. Namespaces with DestinationRules, Sidecars
//! or route objects of their own, and pods with labels that a selector matches, form further classes.

use std::collections::{BTreeMap, BTreeSet};

use super::Mesh;
use super::destination_rule::AppliedRules;
use super::ids::{Host, Interner, Namespace, ObjectRef, ServiceId};
use super::service::{PodCount, Resolution, Service, Visibility};
use super::workload::Workload;
use super::written_route::WrittenRule;
use super::xds::Caller;
pub use super::xds::RouteOwner;
use crate::schema::Kind;
use crate::snapshot::{Object, SourceKind};

/// Up to this number of Sidecar objects, each of their namespaces is examined for every Service. Beyond it, `inspect`
/// only notes that Sidecars limit callers, and `route --caller` answers for a single caller.
pub const MAX_EXAMINED_SIDECARS: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub struct CallerClass {
    /// Namespaces of the callers. Empty: all namespaces that no other class lists.
    pub namespaces: Vec<Namespace>,
    /// Labels that limit the class to some pods of the namespaces: `app=web`.
    pub pod_labels: Option<String>,
    /// A caller that represents the class.
    pub sample: Caller,
    pub destination_rules: AppliedRules,
    pub route_owner: RouteOwner,
}

impl CallerClass {
    /// Whether this is the class of all callers that no other class lists.
    pub fn is_default(&self) -> bool {
        self.namespaces.is_empty()
    }
}

/// The properties that distinguish classes: DestinationRules, route owner, and pod labels.
type ClassKey = (AppliedRules, RouteOwner, Option<String>);

impl Mesh<'_> {
    /// The caller classes of a Service, for its main port. The default class comes first.
    pub fn caller_classes(&self, id: ServiceId) -> Vec<CallerClass> {
        let service = self.service(id);
        let own_namespace = service.namespace();
        let port = service.main_port();
        let candidates = self.distinct_caller_namespaces(id);
        let rules_and_owner =
            |caller: &Caller| (self.applied_rules(caller, service), self.route_owner(caller, id, port));
        // The default class is represented by a caller outside all candidates: one in the Service's own namespace if
        // possible, else one in a namespace that does not exist.
        let default_namespace =
            if candidates.contains(own_namespace) { Namespace::from("") } else { own_namespace.clone() };
        let default_caller = Caller::in_namespace(default_namespace);
        let default = rules_and_owner(&default_caller);
        let mut classes: BTreeMap<ClassKey, Vec<(Namespace, Caller)>> = BTreeMap::new();
        for namespace in candidates {
            for (pod_labels, caller) in self.callers_in(&namespace, id) {
                let (rules, owner) = rules_and_owner(&caller);
                if (&rules, owner) != (&default.0, default.1) {
                    classes.entry((rules, owner, pod_labels)).or_default().push((namespace.clone(), caller));
                }
            }
        }
        let default_class = CallerClass {
            namespaces: Vec::new(),
            pod_labels: None,
            sample: default_caller,
            destination_rules: default.0,
            route_owner: default.1,
        };
        let others = classes.into_iter().filter_map(|((destination_rules, route_owner, pod_labels), members)| {
            let sample = members.first()?.1.clone();
            let namespaces = members.into_iter().map(|(namespace, _)| namespace).collect();
            Some(CallerClass { namespaces, pod_labels, sample, destination_rules, route_owner })
        });
        std::iter::once(default_class).chain(others).collect()
    }

    /// One caller for each set of pod labels in `namespace` that can change the rules for a Service. A single caller
    /// without labels if no selector reads any.
    fn callers_in(&self, namespace: &Namespace, id: ServiceId) -> Vec<(Option<String>, Caller)> {
        let single = || vec![(None, Caller::in_namespace(namespace.clone()))];
        let host = &self.service(id).host;
        let mut keys: BTreeSet<String> = BTreeSet::new();
        let sidecars = self.sidecars.iter().filter(|sidecar| sidecar.object.namespace == *namespace);
        let selectors = sidecars.filter_map(|sidecar| sidecar.selector.as_ref());
        for selector in selectors.chain(self.destination_rules.selectors(namespace, host)) {
            keys.extend(selector.iter().map(|(key, _)| key.to_string()));
        }
        let configs = self.route_configs();
        for config in configs.covering_host(host).flatten().map(|id| configs.get(*id)) {
            let matches = config.rules.iter().flat_map(|rule| &rule.http_rule(self, config).matches);
            keys.extend(matches.flat_map(|condition| condition.source_labels.keys().cloned()));
        }
        if keys.is_empty() {
            return single();
        }
        let mut callers: BTreeMap<String, Caller> = BTreeMap::new();
        for id in self.workload_ids() {
            let workload = self.workload(id);
            if workload.namespace() != namespace || workload.proxy.is_meshed() == Some(false) {
                continue;
            }
            let labels = keys.iter().filter_map(|key| workload.labels.get(key).map(|value| format!("{key}={value}")));
            let labels: Vec<String> = labels.collect();
            callers.entry(labels.join(",")).or_insert_with(|| Caller::of_workload(self, id));
        }
        if callers.is_empty() {
            return single();
        }
        callers.into_iter().map(|(labels, caller)| ((!labels.is_empty()).then_some(labels), caller)).collect()
    }

    /// Whether the source has, or may have, callers that belong to the default class.
    pub fn has_default_callers(&self, classes: &[CallerClass]) -> bool {
        let complete = classes.iter().filter(|class| class.pod_labels.is_none());
        let listed: BTreeSet<&Namespace> = complete.flat_map(|class| &class.namespaces).collect();
        self.caller_namespaces.is_empty() || self.caller_namespaces.iter().any(|namespace| !listed.contains(namespace))
    }

    /// The namespaces whose callers may differ from the default class: those with rules of their own for the host, and
    /// those to which objects for the host are exported or matched. If the source has callers, namespaces without any
    /// are left out.
    fn distinct_caller_namespaces(&self, id: ServiceId) -> BTreeSet<Namespace> {
        let service = self.service(id);
        let host = &service.host;
        let mut candidates: BTreeSet<Namespace> = BTreeSet::new();
        candidates.extend(self.destination_rules.namespaces_with_rules_for(host).cloned());
        let add_exported = |visibility: &Visibility,
                            own_namespace: &Namespace,
                            candidates: &mut BTreeSet<Namespace>| match visibility {
            Visibility::Private => candidates.extend([own_namespace.clone()]),
            Visibility::Namespaces(namespaces) => candidates.extend(namespaces.iter().cloned()),
            Visibility::Public | Visibility::NoNamespace => {}
        };
        add_exported(&service.export_to, service.namespace(), &mut candidates);
        for (_, rule) in self.destination_rules.covering(host.as_str()) {
            add_exported(&rule.export_to, &rule.object.namespace, &mut candidates);
        }
        let configs = self.route_configs();
        for config in configs.covering_host(host).flatten().map(|id| configs.get(*id)) {
            add_exported(&config.export_to, &config.namespace, &mut candidates);
            if config.is_gateway_api {
                candidates.insert(config.namespace.clone());
            }
            for condition in config.rules.iter().flat_map(|rule| &rule.http_rule(self, config).matches) {
                candidates
                    .extend(condition.source_namespace.as_deref().filter(|name| !name.is_empty()).map(Namespace::from));
                if !condition.source_labels.is_empty() {
                    candidates.extend(self.caller_namespaces.iter().cloned());
                }
            }
        }
        if self.sidecars.len() <= MAX_EXAMINED_SIDECARS {
            candidates.extend(self.sidecars.iter().map(|sidecar| sidecar.object.namespace.clone()));
        }
        if !self.caller_namespaces.is_empty() {
            candidates
                .retain(|namespace| self.caller_namespaces.contains(namespace) || namespace == service.namespace());
        }
        candidates
    }

    /// The DestinationRules that apply to a caller for a Service.
    pub fn applied_rules(&self, caller: &Caller, service: &Service) -> AppliedRules {
        let labels = Some(&caller.labels);
        self.destination_rules.applied(
            &caller.namespace,
            labels,
            &service.host,
            service.namespace(),
            &self.root_namespace,
        )
    }

    /// The written rules of a route owner, in the order in which Envoy tries them.
    pub fn written_rules_of(&self, owner: RouteOwner) -> Vec<WrittenRule> {
        match owner {
            RouteOwner::Default | RouteOwner::Hidden => Vec::new(),
            RouteOwner::Config(id) => self.config_rules(self.route_configs().get(id)),
        }
    }

    /// Workloads scaled to zero whose pods the Service would select and that have `subset_labels`. Decodes all templates of the mesh, so it is meant
    /// for few Services.
    pub fn workloads_scaled_to_zero(
        &self,
        service: &Service,
        subset_labels: &crate::schema::meta::StringMap,
    ) -> Vec<ObjectRef> {
        let is_selected = |object: &&Object| {
            let template: Option<crate::schema::core::WorkloadObject> = serde_json::from_str(object.body.get()).ok();
            template.is_some_and(|template| {
                let labels = &template.spec.template.metadata.labels;
                template.spec.replicas == Some(0)
                    && subset_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
                    && service
                        .selector
                        .iter()
                        .all(|(key, value)| labels.get(&**key).map(String::as_str) == Some(&**value))
            })
        };
        let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::ReplicaSet];
        let objects = kinds.into_iter().flat_map(|kind| self.snapshot.of_kind(kind));
        let mut names = Interner::default();
        let local = objects.filter(|object| *object.key.namespace == *service.namespace().as_str());
        let mut workloads: Vec<_> =
            local.filter(is_selected).map(|object| ObjectRef::new(&object.key, &mut names)).collect();
        // A Deployment at 0 has ReplicaSets at 0. The Deployment alone is reported.
        if workloads.iter().any(|object| object.kind != Kind::ReplicaSet) {
            workloads.retain(|object| object.kind != Kind::ReplicaSet);
        }
        workloads
    }

    /// Whether the source has the pods of `namespace`. Manifests without a workload there do not count.
    pub fn covers_pods_in(&self, namespace: &Namespace) -> bool {
        self.coverage.covers(crate::schema::Kind::Pod, namespace)
            && (self.snapshot.source != SourceKind::Manifests || self.namespaces_with_workloads.contains(namespace))
    }

    /// Whether the source has the endpoints of a Service.
    pub fn covers_endpoints_of(&self, service: &Service) -> bool {
        match &service.resolution {
            Resolution::ClusterIp | Resolution::Headless => {
                let has_selected_pods = !service.selector.is_empty() && self.covers_pods_in(service.namespace());
                has_selected_pods || service.endpoints.total > 0
            }
            Resolution::ExternalName(_) | Resolution::ServiceEntry(_) => false,
        }
    }

    /// The workloads of a Service that match the labels of a subset. `topology.*` labels are ignored, because istiod
    /// adds them from the node and the source does not have them.
    pub fn subset_workloads<'a>(
        &'a self,
        service: &'a Service,
        labels: &'a crate::schema::meta::StringMap,
    ) -> impl Iterator<Item = super::ids::WorkloadId> + 'a {
        let is_selected = |id: &super::ids::WorkloadId| {
            let workload = &self.workload(*id).labels;
            labels.iter().all(|(key, value)| key.starts_with("topology.") || workload.get(key) == Some(value.as_str()))
        };
        service.workloads.iter().copied().filter(is_selected)
    }

    /// Number of pods in [`Mesh::subset_workloads`].
    pub fn subset_pods(&self, service: &Service, labels: &crate::schema::meta::StringMap) -> PodCount {
        let mut count = PodCount::default();
        for id in self.subset_workloads(service, labels) {
            count.add(self.workload(id), service.publishes_not_ready);
        }
        count
    }

    /// EnvoyFilters and WasmPlugins that apply to the proxy of `workload`.
    pub fn extensions_for(&self, workload: &Workload) -> impl Iterator<Item = &super::Extension> {
        let applies = |extension: &&super::Extension| {
            extension.applies_to(workload.namespace(), &workload.labels, &self.root_namespace)
        };
        self.extensions.iter().filter(applies)
    }

    /// Whether `host` does not exist. False if the registry has it, or if the source does not cover its namespace.
    pub fn is_host_absent(&self, host: &Host) -> bool {
        if self.has_host(host.as_str()) {
            return false;
        }
        match self.namespace_of_host(host) {
            Some(namespace) => self.coverage.covers_services_in(&namespace),
            None => {
                self.coverage.covers_everywhere(crate::schema::Kind::Service)
                    && self.coverage.covers_everywhere(crate::schema::Kind::ServiceEntry)
            }
        }
    }
}
