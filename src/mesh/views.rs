//! What one caller, or a class of callers, gets for a Service.

use std::collections::{BTreeMap, BTreeSet};

use super::Mesh;
use super::destination_rule::AppliedRules;
use super::gateway_api::RouteObject;
use super::ids::{Host, Names, Namespace, ObjectRef, RouteObjectId, ServiceId, VirtualServiceId};
use super::retry;
use super::route::{Backend, BackendState, RouteRule, Target, shares};
use super::service::{PodCount, Resolution, Service};
use super::workload::Workload;
use crate::schema::Kind;
use crate::snapshot::{Object, SourceKind};

/// Callers that nothing here tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerClass {
    /// Their namespaces; empty stands for all namespaces that no other class names.
    pub namespaces: Vec<Namespace>,
    /// A namespace to ask with: one of them.
    pub sample: Namespace,
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

/// Who owns the routes to a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteOwner {
    /// Nobody: Istio's default route to all endpoints.
    Default,
    /// A VirtualService.
    VirtualService(VirtualServiceId),
    /// Gateway API routes, merged.
    RouteObjects(Vec<RouteObjectId>),
}

impl Mesh<'_> {
    /// The classes of callers of a Service in the mesh, everybody else first.
    pub fn views(&self, id: ServiceId) -> Vec<CallerClass> {
        let service = self.service(id);
        let own = service.namespace();
        let special = self.special_caller_namespaces(id);
        let view = |caller: &Namespace| (self.applied_rules(caller, service), self.route_owner(caller, id));
        // Someone outside all special namespaces: the Service's own when that is not special, else nobody in particular.
        let outsider = if special.contains(own) { Namespace::from("") } else { own.clone() };
        let default = view(&outsider);
        let mut classes: BTreeMap<(AppliedRules, RouteOwner), Vec<Namespace>> = BTreeMap::new();
        for namespace in special {
            let view = view(&namespace);
            if view != default {
                classes.entry(view).or_default().push(namespace);
            }
        }
        let everybody_else =
            CallerClass { namespaces: Vec::new(), sample: outsider, rules: default.0, owner: default.1 };
        let others = classes.into_iter().filter_map(|((rules, owner), namespaces)| {
            let sample = namespaces.first()?.clone();
            Some(CallerClass { namespaces, sample, rules, owner })
        });
        std::iter::once(everybody_else).chain(others).collect()
    }

    /// Whether callers are known, or possible, that belong to no class but everybody else's.
    pub fn has_other_callers(&self, views: &[CallerClass]) -> bool {
        let named: BTreeSet<&Namespace> = views.iter().flat_map(|view| &view.namespaces).collect();
        self.caller_namespaces.is_empty() || self.caller_namespaces.iter().any(|caller| !named.contains(caller))
    }

    /// The namespaces whose callers may get something else than everybody: those with rules of their own for the
    /// host, and those that an object for the host names or hides from. Only namespaces with callers count, if known.
    fn special_caller_namespaces(&self, id: ServiceId) -> BTreeSet<Namespace> {
        let service = self.service(id);
        let host = &service.host;
        let mut found: BTreeSet<Namespace> = BTreeSet::new();
        found.extend(self.destination_rules.namespaces_with_rules_for(host).cloned());
        let reached = |visibility: &super::service::Visibility, own: &Namespace, found: &mut BTreeSet<Namespace>| {
            match visibility {
                super::service::Visibility::Private => found.extend([own.clone()]),
                super::service::Visibility::Namespaces(namespaces) => found.extend(namespaces.iter().cloned()),
                super::service::Visibility::Public | super::service::Visibility::Nobody => {}
            }
        };
        for (_, rule) in self.destination_rules.covering(host.as_str()) {
            reached(&rule.export_to, &rule.object.namespace, &mut found);
        }
        for object in self.virtual_services.covering(host) {
            reached(&object.export_to, &object.object.namespace, &mut found);
            let named = object
                .spec
                .http
                .iter()
                .flat_map(|rule| &rule.matches)
                .filter_map(|one| one.source_namespace.as_deref());
            found.extend(named.map(Namespace::from));
        }
        for route in self.attached_routes(id) {
            found.insert(self.route_object(*route).object.namespace.clone());
        }
        if !self.caller_namespaces.is_empty() {
            found.retain(|namespace| self.caller_namespaces.contains(namespace) || namespace == service.namespace());
        }
        found
    }

    /// The DestinationRules that callers of a namespace get for a Service.
    pub fn applied_rules(&self, caller: &Namespace, service: &Service) -> AppliedRules {
        self.destination_rules.applied(caller, None, &service.host, service.namespace(), &self.root)
    }

    /// Who owns the routes to a Service for callers of a namespace.
    ///
    /// A Gateway API route acts on callers of its own namespace, or on all when it lives beside its Service. In the
    /// caller's own namespace it goes before any VirtualService; elsewhere the older object wins.
    pub fn route_owner(&self, caller: &Namespace, id: ServiceId) -> RouteOwner {
        let service = self.service(id);
        let attached = self.attached_routes(id);
        let in_namespace = |namespace: &Namespace| -> Vec<RouteObjectId> {
            attached.iter().copied().filter(|route| &self.route_object(*route).object.namespace == namespace).collect()
        };
        let consumer = in_namespace(caller);
        if !consumer.is_empty() {
            return RouteOwner::RouteObjects(consumer);
        }
        let virtual_service = self.virtual_services.owner(caller, &service.host);
        let producer = in_namespace(service.namespace());
        if producer.is_empty() {
            return virtual_service.map_or(RouteOwner::Default, RouteOwner::VirtualService);
        }
        let oldest = producer.iter().map(|route| &self.route_object(*route).created).min();
        match virtual_service {
            Some(object) if Some(&self.virtual_services.get(object).created) <= oldest => {
                RouteOwner::VirtualService(object)
            }
            _ => RouteOwner::RouteObjects(producer),
        }
    }

    /// The rules of an owner, in the order they are tried.
    pub fn rules_of(&self, owner: &RouteOwner) -> Vec<RouteRule> {
        match owner {
            RouteOwner::Default => Vec::new(),
            RouteOwner::VirtualService(id) => self.virtual_service_rules(self.virtual_services.get(*id)),
            RouteOwner::RouteObjects(ids) => {
                ids.iter().flat_map(|id| self.route_object_rules(self.route_object(*id))).collect()
            }
        }
    }

    /// The rules of a Gateway API route. They have no retries of their own except by HTTPRoute's `retry`.
    pub fn route_object_rules(&self, object: &RouteObject) -> Vec<RouteRule> {
        let default = retry::effective(None, self.config.default_http_retry_policy.as_ref());
        object.rules(&self.cluster_domain, &default)
    }

    /// The targets of a rule as callers of a namespace get them. `absent` is the weight of a target without one.
    pub fn backends(&self, caller: &Namespace, targets: &[Target], absent: i64) -> Vec<Backend> {
        let weights: Vec<_> = targets.iter().map(|target| target.weight).collect();
        let shares = shares(&weights, absent).unwrap_or_else(|| vec![0.0; targets.len()]);
        targets.iter().zip(shares).map(|(target, share)| self.backend(caller, target, share)).collect()
    }

    fn backend(&self, caller: &Namespace, target: &Target, share: f64) -> Backend {
        let target = target.clone();
        let Some(id) = self.find_host(target.host.as_str()) else {
            let known = self.knows_host(target.host.as_str());
            let state = if known { BackendState::Unknown } else { BackendState::HostUnknown };
            return Backend { target, share, service: None, state, pods: PodCount::default() };
        };
        let service = self.service(id);
        let (pods, subset_known) = match &target.subset {
            None => (service.endpoints, true),
            Some(name) => {
                let applied = self.applied_rules(caller, service);
                match self.destination_rules.subset(&applied, name) {
                    Some((_, subset)) => (self.subset_pods(service, &subset.labels), true),
                    None => (PodCount::default(), false),
                }
            }
        };
        let state = if !subset_known {
            BackendState::SubsetUnknown
        } else if !self.knows_pods_of(service) {
            BackendState::Unknown
        } else if pods.may_serve() {
            BackendState::Ok
        } else {
            BackendState::NoEndpoints
        };
        Backend { target, share, service: Some(id), state, pods }
    }

    /// Workloads whose pods a Service would select, if they had any. Reads templates anew: it is asked for few Services.
    pub fn idle_workloads_of(&self, service: &Service) -> Vec<ObjectRef> {
        let selected = |object: &&Object| {
            let template: Option<crate::schema::core::Workload> = serde_json::from_str(object.body.get()).ok();
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
        let mut names = Names::default();
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

    /// Pods of a Service that carry a subset's labels. Labels that Istio adds for locality are not judged: a subset
    /// by topology may select pods that the source cannot tell.
    pub fn subset_pods(&self, service: &Service, labels: &crate::schema::meta::StringMap) -> PodCount {
        let mut count = PodCount::default();
        for workload in self.workloads_of(service) {
            let selected = labels
                .iter()
                .all(|(key, value)| key.starts_with("topology.") || workload.labels.get(key) == Some(value.as_str()));
            if selected {
                count.add(workload, service.publishes_not_ready);
            }
        }
        count
    }

    /// Extensions that may act on the pods of a namespace, or mesh-wide.
    pub fn extensions_for(&self, workload: &Workload) -> impl Iterator<Item = &super::Extension> {
        self.extensions.iter().filter(|extension| {
            let of_namespace =
                extension.object.namespace == self.root || &extension.object.namespace == workload.namespace();
            let selected = extension.spec.workload_selector.as_ref().map(|selector| &selector.labels);
            let selected = selected.or(extension.spec.selector.as_ref().map(|selector| &selector.match_labels));
            of_namespace
                && selected.is_none_or(|labels| {
                    labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value.as_str()))
                })
        })
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
