//! What one caller, or a class of callers, gets for a Service.

use std::collections::{BTreeMap, BTreeSet};

use super::Mesh;
use super::destination_rule::AppliedRules;
use super::gateway::{self, Exposure};
use super::gateway_api::{Parent, RouteObject};
use super::ids::{Host, Namespace, ObjectRef, RouteObjectId, ServiceId, SubsetName, VirtualServiceId};
use super::retry;
use super::route::{Action, Backend, BackendState, Mirror, RouteRule, RuleMatch, Target, shares};
use super::service::{PodCount, Resolution, Service};
use super::virtual_service::VirtualService;
use super::workload::{Readiness, Workload};
use crate::schema::duration;
use crate::schema::virtual_service::{Fault, HttpRule};

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
        self.destination_rules.applied(caller, &service.host, service.namespace(), &self.root)
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

    /// The HTTP rules of a VirtualService, with short names completed.
    pub fn virtual_service_rules(&self, object: &VirtualService) -> Vec<RouteRule> {
        object.spec.http.iter().enumerate().map(|(index, rule)| self.rule(object, index, rule)).collect()
    }

    fn rule(&self, object: &VirtualService, index: usize, rule: &HttpRule) -> RouteRule {
        let field = format!("spec.http[{index}]");
        let own = &object.object.namespace;
        let resolve = |host: &str| super::host::resolve(host, own, &self.cluster_domain);
        let action = if let Some(delegate) = &rule.delegate {
            let namespace =
                delegate.namespace.as_deref().filter(|ns| !ns.is_empty()).map_or_else(|| own.clone(), Into::into);
            let object =
                ObjectRef { kind: crate::schema::Kind::VirtualService, namespace, name: delegate.name.as_str().into() };
            Action::Delegate { object }
        } else if rule.redirect.is_some() {
            Action::Redirect
        } else if let Some(response) = &rule.direct_response {
            Action::DirectResponse(response.status)
        } else {
            let targets = rule.route.iter().enumerate().map(|(at, route)| {
                let destination = route.destination.as_ref();
                Target {
                    host: resolve(destination.map_or("", |destination| &destination.host)),
                    port: destination
                        .and_then(|d| d.port.as_ref())
                        .map(|port| port.number)
                        .filter(|number| *number > 0),
                    subset: destination
                        .and_then(|d| d.subset.as_deref())
                        .filter(|name| !name.is_empty())
                        .map(SubsetName::from),
                    weight: route.weight,
                    field: format!("{field}.route[{at}]"),
                }
            });
            Action::Forward(targets.collect())
        };
        let legacy = rule.mirror.iter().map(|destination| {
            let share = rule.mirror_percentage.as_ref().map(|percent| percent.value);
            (destination, share.or(rule.mirror_percent.map(f64::from)).unwrap_or(100.0))
        });
        let listed = rule.mirrors.iter().filter_map(|mirror| {
            let share = mirror.percentage.as_ref().map_or(100.0, |percent| percent.value);
            mirror.destination.as_ref().map(|destination| (destination, share))
        });
        let mirrors = legacy
            .chain(listed)
            .filter(|(_, percent)| *percent > 0.0)
            .map(|(destination, percent)| Mirror {
                host: resolve(&destination.host),
                subset: destination.subset.as_deref().map(SubsetName::from),
                percent,
            })
            .collect();
        let rewrites = rule.rewrite.iter().flat_map(|rewrite| {
            let uri = rewrite.uri.as_ref().map(|uri| format!("path → {uri}"));
            let authority = rewrite.authority.as_ref().map(|authority| format!("authority → {authority}"));
            uri.into_iter().chain(authority)
        });
        RouteRule {
            object: object.object.clone(),
            index,
            name: rule.name.clone(),
            matches: rule.matches.iter().map(RuleMatch::of_virtual_service).collect(),
            action,
            timeout: rule
                .timeout
                .as_deref()
                .and_then(|text| duration::parse(text).ok())
                .filter(|limit| !limit.is_zero()),
            retries: retry::effective(
                rule.retries.as_ref().map(|retries| (retries, &object.object)),
                self.config.default_http_retry_policy.as_ref(),
            ),
            faults: rule.fault.as_ref().map(faults).unwrap_or_default(),
            mirrors,
            rewrites: rewrites.collect(),
            field,
        }
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

    /// Whether the source can tell how many pods a Service has.
    pub fn knows_pods_of(&self, service: &Service) -> bool {
        match &service.resolution {
            Resolution::ClusterIp | Resolution::Headless => {
                let by_selector =
                    !service.selector.is_empty() && self.coverage.knows(crate::schema::Kind::Pod, service.namespace());
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
                count_workload(&mut count, workload, service.publishes_not_ready);
            }
        }
        count
    }

    /// The ways into the mesh that end at a Service.
    pub fn exposures(&self, id: ServiceId) -> Vec<Exposure> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for user in self.users_of(id) {
            match *user {
                super::RouteUse::VirtualService(object, _) => {
                    let object = self.virtual_services.get(object);
                    if seen.insert(object.object.clone()) {
                        found.extend(
                            object.named_gateways().flat_map(|(namespace, name)| self.servers(object, namespace, name)),
                        );
                    }
                }
                super::RouteUse::RouteObject(route, _) => {
                    let route = self.route_object(route);
                    if seen.insert(route.object.clone()) {
                        found.extend(route.parents.iter().flat_map(|parent| self.listeners(route, parent)));
                    }
                }
            }
        }
        found
    }

    fn servers(&self, object: &VirtualService, namespace: &Namespace, name: &str) -> Vec<Exposure> {
        let gateway = self.istio_gateways.iter().find(|g| &g.object.namespace == namespace && &*g.object.name == name);
        let hosts = || object.hosts.iter().map(|host| self.short_host(host).to_owned()).collect::<Vec<_>>();
        let Some(gateway) = gateway else {
            let gateway =
                ObjectRef { kind: crate::schema::Kind::IstioGateway, namespace: namespace.clone(), name: name.into() };
            let (port, protocol) = (0, String::new());
            let tls = gateway::TlsUse::Plaintext;
            return vec![Exposure {
                gateway,
                known: false,
                port,
                protocol,
                tls,
                hosts: hosts(),
                route: object.object.clone(),
            }];
        };
        let serves = |server: &crate::schema::gateway::Server| -> Vec<String> {
            let mut names = BTreeSet::new();
            for host in &server.hosts {
                let (reserved, host) = gateway::split_server_host(host, &gateway.object.namespace);
                if reserved.is_some_and(|namespace| namespace != object.object.namespace.as_str()) {
                    continue;
                }
                for own in object.hosts.iter().filter(|own| gateway::overlap(own.as_str(), host)) {
                    let narrower = if own.as_str().starts_with('*') { host } else { own.as_str() };
                    names.insert(narrower.to_owned());
                }
            }
            names.into_iter().collect()
        };
        gateway
            .spec
            .servers
            .iter()
            .filter_map(|server| {
                let hosts = serves(server);
                let port = server.port.as_ref()?;
                (!hosts.is_empty()).then(|| Exposure {
                    gateway: gateway.object.clone(),
                    known: true,
                    port: port.number,
                    protocol: port.protocol.clone(),
                    tls: gateway::tls_use(server),
                    hosts,
                    route: object.object.clone(),
                })
            })
            .collect()
    }

    fn listeners(&self, route: &RouteObject, parent: &Parent) -> Vec<Exposure> {
        let Parent::Gateway { namespace, name, listener, port } = parent else {
            return Vec::new();
        };
        let Some(gateway) =
            self.api_gateways.iter().find(|g| &g.object.namespace == namespace && g.object.name == *name)
        else {
            return Vec::new();
        };
        let hostnames = &route.route.spec.hostnames;
        gateway
            .spec
            .listeners
            .iter()
            .filter(|one| listener.as_deref().is_none_or(|wanted| wanted == one.name))
            .filter(|one| port.is_none_or(|wanted| i64::from(wanted) == one.port))
            .filter_map(|one| {
                let own = one.hostname.as_deref();
                let hosts: Vec<String> = match own {
                    _ if hostnames.is_empty() => vec![own.unwrap_or("*").to_owned()],
                    None => hostnames.0.clone(),
                    Some(own) => hostnames.iter().filter(|host| gateway::overlap(host, own)).cloned().collect(),
                };
                let passes = one.tls.as_ref().is_some_and(|tls| tls.mode.as_deref() == Some("Passthrough"));
                let tls = match one.protocol.as_str() {
                    "HTTPS" => gateway::TlsUse::Terminated,
                    "TLS" if passes => gateway::TlsUse::Passthrough,
                    "TLS" => gateway::TlsUse::TerminatedAsTcp,
                    _ => gateway::TlsUse::Plaintext,
                };
                (!hosts.is_empty()).then(|| Exposure {
                    gateway: gateway.object.clone(),
                    known: true,
                    port: u32::try_from(one.port).unwrap_or_default(),
                    protocol: one.protocol.clone(),
                    tls,
                    hosts,
                    route: route.object.clone(),
                })
            })
            .collect()
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

    /// The namespaces of callers that a host of the mesh can have, for texts.
    pub fn host_of(&self, id: ServiceId) -> &Host {
        &self.service(id).host
    }
}

/// Adds a workload's pods to a count.
pub(super) fn count_workload(count: &mut PodCount, workload: &Workload, publishes_not_ready: bool) {
    count.total += workload.count;
    match workload.readiness {
        Readiness::Ready => count.ready += workload.count,
        Readiness::NotReady if publishes_not_ready => count.ready += workload.count,
        Readiness::NotReady => {}
        Readiness::Unknown => count.unknown += workload.count,
    }
}

fn faults(fault: &Fault) -> Vec<String> {
    let share = |percent: &Option<crate::schema::virtual_service::Percent>| {
        super::route::show_share(percent.as_ref().map_or(100.0, |percent| percent.value))
    };
    let mut texts = Vec::new();
    if let Some(delay) = &fault.delay {
        texts.push(format!("delay {} for {}", delay.fixed_delay.as_deref().unwrap_or("?"), share(&delay.percentage)));
    }
    if let Some(abort) = &fault.abort {
        let with = abort.grpc_status.clone().or(abort.http_status.map(|status| format!("HTTP {status}")));
        texts.push(format!("abort with {} for {}", with.unwrap_or_else(|| "?".to_owned()), share(&abort.percentage)));
    }
    texts
}

impl Mesh<'_> {
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
