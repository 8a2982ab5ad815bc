//! What one caller, or a class of callers, gets for a Service.

use std::collections::{BTreeMap, BTreeSet};

use super::Mesh;
use super::destination_rule::AppliedRules;
use super::ids::{Host, Interner, Namespace, ObjectRef, ServiceId};
use super::service::{PodCount, Resolution, Service, Visibility};
use super::workload::Workload;
use super::written_route::{CallerBackend, CallerBackendState, WrittenBackend, WrittenRule, shares};
pub use super::xds::RouteOwner;
use super::xds::{self, Caller};
use crate::schema::Kind;
use crate::schema::virtual_service::{Destination, PortSelector};
use crate::snapshot::{Object, SourceKind};

/// Sidecar objects up to which each of their namespaces is looked at for every Service. Beyond it a page says that they
/// narrow what callers see, and `route --caller` tells for one.
pub const SIDECARS_MAX: usize = 64;

/// Callers that nothing here tells apart.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerClass {
    /// Their namespaces; empty stands for all namespaces that no other class names.
    pub namespaces: Vec<Namespace>,
    /// Labels of the pods there, when only some are meant: `app=web`.
    pub pods: Option<String>,
    /// One of them.
    pub sample: Caller,
    /// DestinationRules that they get.
    pub rules: AppliedRules,
    /// Who owns their routes.
    pub owner: RouteOwner,
}

impl CallerClass {
    /// Whether this is the class of everybody else.
    pub fn is_default(&self) -> bool {
        self.namespaces.is_empty()
    }
}

/// What tells classes of callers apart: rules, routes, and labels of pods.
type ClassKey = (AppliedRules, RouteOwner, Option<String>);

impl Mesh<'_> {
    /// The classes of callers of a Service in the mesh, everybody else first.
    pub fn caller_classes(&self, id: ServiceId) -> Vec<CallerClass> {
        let service = self.service(id);
        let own = service.namespace();
        let port = service.main_port();
        let special = self.special_caller_namespaces(id);
        let view = |caller: &Caller| (self.applied_rules(caller, service), self.route_owner(caller, id, port));
        // Someone outside all special namespaces: the Service's own when that is not special, else nobody in particular.
        let outsider = if special.contains(own) { Namespace::from("") } else { own.clone() };
        let outsider = Caller::in_namespace(outsider);
        let default = view(&outsider);
        let mut classes: BTreeMap<ClassKey, Vec<(Namespace, Caller)>> = BTreeMap::new();
        for namespace in special {
            for (pods, caller) in self.callers_in(&namespace, id) {
                let view = view(&caller);
                if view != default {
                    classes.entry((view.0, view.1, pods)).or_default().push((namespace.clone(), caller));
                }
            }
        }
        let everybody_else =
            CallerClass { namespaces: Vec::new(), pods: None, sample: outsider, rules: default.0, owner: default.1 };
        let others = classes.into_iter().filter_map(|((rules, owner, pods), members)| {
            let sample = members.first()?.1.clone();
            let namespaces = members.into_iter().map(|(namespace, _)| namespace).collect();
            Some(CallerClass { namespaces, pods, sample, rules, owner })
        });
        std::iter::once(everybody_else).chain(others).collect()
    }

    /// The callers of a namespace that may get different answers for a Service: one for all, or one for each set of
    /// labels that some object reads.
    fn callers_in(&self, namespace: &Namespace, id: ServiceId) -> Vec<(Option<String>, Caller)> {
        let everybody = || vec![(None, Caller::in_namespace(namespace.clone()))];
        let host = &self.service(id).host;
        let mut read: BTreeSet<String> = BTreeSet::new();
        let sidecars = self.sidecars.iter().filter(|one| one.object.namespace == *namespace);
        let selectors = sidecars.filter_map(|one| one.selector.as_ref());
        for selector in selectors.chain(self.destination_rules.selectors(namespace, host)) {
            read.extend(selector.iter().map(|(key, _)| key.to_string()));
        }
        let configs = self.route_configs();
        for config in configs.covering(host).flatten().map(|at| configs.get(*at)) {
            let matches = config.rules.iter().flat_map(|rule| &rule.rule(self, config).matches);
            read.extend(matches.flat_map(|one| one.source_labels.keys().cloned()));
        }
        if read.is_empty() {
            return everybody();
        }
        let mut found: BTreeMap<String, Caller> = BTreeMap::new();
        for at in self.workload_ids() {
            let workload = self.workload(at);
            if workload.namespace() != namespace || workload.proxy.is_meshed() == Some(false) {
                continue;
            }
            let labels = read.iter().filter_map(|key| workload.labels.get(key).map(|value| format!("{key}={value}")));
            let labels: Vec<String> = labels.collect();
            found.entry(labels.join(",")).or_insert_with(|| Caller::of_workload(self, at));
        }
        if found.is_empty() {
            return everybody();
        }
        found.into_iter().map(|(labels, caller)| ((!labels.is_empty()).then_some(labels), caller)).collect()
    }

    /// Whether callers are known, or possible, that belong to no class but everybody else's.
    pub fn has_other_callers(&self, views: &[CallerClass]) -> bool {
        let whole = views.iter().filter(|view| view.pods.is_none());
        let named: BTreeSet<&Namespace> = whole.flat_map(|view| &view.namespaces).collect();
        self.caller_namespaces.is_empty() || self.caller_namespaces.iter().any(|caller| !named.contains(caller))
    }

    /// The namespaces whose callers may get something else than everybody: those with rules of their own for the
    /// host, and those that an object for the host names or hides from. Only namespaces with callers count, if known.
    fn special_caller_namespaces(&self, id: ServiceId) -> BTreeSet<Namespace> {
        let service = self.service(id);
        let host = &service.host;
        let mut found: BTreeSet<Namespace> = BTreeSet::new();
        found.extend(self.destination_rules.namespaces_with_rules_for(host).cloned());
        let reached = |visibility: &Visibility, own: &Namespace, found: &mut BTreeSet<Namespace>| match visibility {
            Visibility::Private => found.extend([own.clone()]),
            Visibility::Namespaces(namespaces) => found.extend(namespaces.iter().cloned()),
            Visibility::Public | Visibility::Nobody => {}
        };
        reached(&service.export_to, service.namespace(), &mut found);
        for (_, rule) in self.destination_rules.covering(host.as_str()) {
            reached(&rule.export_to, &rule.object.namespace, &mut found);
        }
        let configs = self.route_configs();
        for config in configs.covering(host).flatten().map(|at| configs.get(*at)) {
            reached(&config.export_to, &config.namespace, &mut found);
            if config.is_gateway_api {
                found.insert(config.namespace.clone());
            }
            for one in config.rules.iter().flat_map(|rule| &rule.rule(self, config).matches) {
                found.extend(one.source_namespace.as_deref().filter(|name| !name.is_empty()).map(Namespace::from));
                if !one.source_labels.is_empty() {
                    found.extend(self.caller_namespaces.iter().cloned());
                }
            }
        }
        if self.sidecars.len() <= SIDECARS_MAX {
            found.extend(self.sidecars.iter().map(|sidecar| sidecar.object.namespace.clone()));
        }
        if !self.caller_namespaces.is_empty() {
            found.retain(|namespace| self.caller_namespaces.contains(namespace) || namespace == service.namespace());
        }
        found
    }

    /// The DestinationRules that a caller gets for a Service.
    pub fn applied_rules(&self, caller: &Caller, service: &Service) -> AppliedRules {
        let labels = Some(&caller.labels);
        self.destination_rules.applied(&caller.namespace, labels, &service.host, service.namespace(), &self.root)
    }

    /// The rules of an owner, in the order they are tried.
    pub fn rules_of(&self, owner: RouteOwner) -> Vec<WrittenRule> {
        match owner {
            RouteOwner::Default | RouteOwner::Hidden => Vec::new(),
            RouteOwner::Config(id) => self.config_rules(self.route_configs().get(id)),
        }
    }

    /// The targets of a rule as a caller gets them. `port` is taken by targets that name none.
    pub fn backends(&self, caller: &Caller, targets: &[WrittenBackend], port: u16) -> Vec<CallerBackend> {
        let weights: Vec<_> = targets.iter().map(|target| target.weight).collect();
        let shares = shares(&weights).unwrap_or_else(|| vec![0.0; targets.len()]);
        targets.iter().zip(shares).map(|(target, share)| self.backend(caller, target, port, share)).collect()
    }

    fn backend(&self, caller: &Caller, target: &WrittenBackend, port: u16, share: f64) -> CallerBackend {
        let destination = Destination {
            host: target.host.as_str().to_owned(),
            subset: target.subset.as_ref().map(ToString::to_string),
            port: target.port.map(|number| PortSelector { number }),
        };
        let found = self.backend_for(caller, &target.host, &destination, u32::from(port));
        let service = self.find_host(target.host.as_str());
        let known = service.is_some_and(|id| self.knows_pods_of(self.service(id)));
        let pods = found.endpoints.unwrap_or_else(|| match (found.state, service) {
            (xds::BackendState::Ok, Some(id)) => self.service(id).endpoints,
            _ => PodCount::default(),
        });
        let state = match found.state {
            xds::BackendState::NoCluster if !self.is_absent(&target.host) && service.is_none() => {
                CallerBackendState::Unknown
            }
            xds::BackendState::NoCluster => CallerBackendState::NoCluster,
            xds::BackendState::NoEndpoints => CallerBackendState::NoEndpoints,
            xds::BackendState::Ok if known => CallerBackendState::Ok,
            xds::BackendState::Ok => CallerBackendState::Unknown,
        };
        CallerBackend { target: target.clone(), share, service, state, pods }
    }

    /// Workloads whose pods a Service would select, if they had any. Reads templates anew: it is asked for few Services.
    pub fn idle_workloads_of(&self, service: &Service) -> Vec<ObjectRef> {
        let selected = |object: &&Object| {
            let template: Option<crate::schema::core::WorkloadObject> = serde_json::from_str(object.body.get()).ok();
            template.is_some_and(|template| {
                let labels = &template.spec.template.metadata.labels;
                template.spec.replicas == Some(0)
                    && service
                        .selector
                        .iter()
                        .all(|(key, value)| labels.get(&**key).map(String::as_str) == Some(&**value))
            })
        };
        let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::ReplicaSet];
        let objects = kinds.into_iter().flat_map(|kind| self.snapshot.of_kind(kind));
        let mut names = Interner::default();
        let here = objects.filter(|object| *object.key.namespace == *service.namespace().as_str());
        let mut found: Vec<_> = here.filter(selected).map(|object| ObjectRef::new(&object.key, &mut names)).collect();
        // A Deployment at 0 keeps its ReplicaSets at 0: one name is enough.
        if found.iter().any(|object| object.kind != Kind::ReplicaSet) {
            found.retain(|object| object.kind != Kind::ReplicaSet);
        }
        found
    }

    /// Whether the source tells which pods a namespace has. Manifests without any workload there do not.
    pub fn knows_pods_in(&self, namespace: &Namespace) -> bool {
        self.coverage.knows(crate::schema::Kind::Pod, namespace)
            && (self.snapshot.source != SourceKind::Manifests || self.populated.contains(namespace))
    }

    /// Whether the source can tell how many pods a Service has.
    pub fn knows_pods_of(&self, service: &Service) -> bool {
        match &service.resolution {
            Resolution::ClusterIp | Resolution::Headless => {
                let by_selector = !service.selector.is_empty() && self.knows_pods_in(service.namespace());
                by_selector || service.endpoints.total > 0
            }
            Resolution::ExternalName(_) | Resolution::Entry(_) => false,
        }
    }

    /// The workloads of a Service that carry a subset's labels. Labels that Istio adds for locality are not judged: a
    /// subset by topology may select pods that the source cannot tell.
    pub fn subset_workloads<'a>(
        &'a self,
        service: &'a Service,
        labels: &'a crate::schema::meta::StringMap,
    ) -> impl Iterator<Item = super::ids::WorkloadId> + 'a {
        let selected = |id: &super::ids::WorkloadId| {
            let own = &self.workload(*id).labels;
            labels.iter().all(|(key, value)| key.starts_with("topology.") || own.get(key) == Some(value.as_str()))
        };
        service.workloads.iter().copied().filter(selected)
    }

    /// Pods of a Service that carry a subset's labels, as [`Mesh::subset_workloads`] chooses them.
    pub fn subset_pods(&self, service: &Service, labels: &crate::schema::meta::StringMap) -> PodCount {
        let mut count = PodCount::default();
        for id in self.subset_workloads(service, labels) {
            count.add(self.workload(id), service.publishes_not_ready);
        }
        count
    }

    /// Extensions that may act on the pods of a namespace, or mesh-wide.
    pub fn extensions_for(&self, workload: &Workload) -> impl Iterator<Item = &super::Extension> {
        let acts =
            |extension: &&super::Extension| extension.acts_on(workload.namespace(), &workload.labels, &self.root);
        self.extensions.iter().filter(acts)
    }

    /// Whether an unknown host really does not exist: manifests that never mention its namespace cannot tell.
    pub fn is_absent(&self, host: &Host) -> bool {
        if self.knows_host(host.as_str()) {
            return false;
        }
        match self.namespace_of_host(host) {
            Some(namespace) => self.coverage.describes(&namespace),
            None => {
                self.coverage.knows_everywhere(crate::schema::Kind::Service)
                    && self.coverage.knows_everywhere(crate::schema::Kind::ServiceEntry)
            }
        }
    }
}
