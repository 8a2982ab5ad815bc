//! What one proxy sees of the mesh: Services and route configurations, narrowed by `exportTo` and Sidecar objects.
//!
//! Sources: `pilot/pkg/model/sidecar.go`, `virtualservice.go` and `push_context.go` of istio/istio 1.31.

use std::collections::{HashMap, HashSet};

use super::host_patterns;
use super::route_config::RouteConfig;
use super::{Caller, CallerKind};
use crate::mesh::ids::{Namespace, ServiceId};
use crate::mesh::protocol::Protocol;
use crate::mesh::service::{Resolution, Service, ServicePort, Visibility};
use crate::mesh::virtual_service::GatewayName;
use crate::mesh::{Mesh, SidecarObject};
use crate::schema::sidecar::EgressSpec;

/// A Service as one proxy sees it.
#[derive(Debug, Clone)]
pub(super) struct VisibleService {
    pub(super) service: ServiceId,
    /// Only these ports; `None` means all.
    ports: Option<Vec<u16>>,
    /// Ports of other entries for the same host, which are merged into this one.
    more: Vec<(ServiceId, u16)>,
    /// ExternalName Services that stand for it and are seen too.
    pub(super) aliases: Vec<ServiceId>,
}

impl VisibleService {
    /// The ports that are seen.
    pub(super) fn ports<'m>(&self, mesh: &'m Mesh<'_>) -> impl Iterator<Item = &'m ServicePort> {
        let only = self.ports.clone();
        let own = mesh.service(self.service).ports.iter();
        let own = own.filter(move |port| only.as_ref().is_none_or(|only| only.contains(&port.number)));
        own.chain(self.more.clone().into_iter().filter_map(|(id, number)| mesh.service(id).port(number)))
    }

    /// The entry that has a port.
    pub(super) fn entry_of(&self, number: u16) -> ServiceId {
        self.more.iter().find(|(_, port)| *port == number).map_or(self.service, |(id, _)| *id)
    }

    /// The port of this number, if it is seen.
    pub(super) fn port<'m>(&self, mesh: &'m Mesh<'_>, number: u16) -> Option<&'m ServicePort> {
        self.ports(mesh).find(|port| port.number == number)
    }

    /// The only port, if there is just one.
    pub(super) fn single_port<'m>(&self, mesh: &'m Mesh<'_>) -> Option<&'m ServicePort> {
        let mut ports = self.ports(mesh);
        let first = ports.next();
        first.filter(|_| ports.next().is_none())
    }

    fn narrowed(&self, ports: Vec<u16>) -> Self {
        Self { ports: Some(ports), more: Vec::new(), ..self.clone() }
    }
}

/// One egress listener of a Sidecar, or the only one where there is none.
#[derive(Debug)]
pub(super) struct VisibleListener<'m> {
    /// Port and protocol, where the Sidecar names one.
    pub(super) port: Option<(u16, Protocol)>,
    /// Address, where the Sidecar names one.
    pub(super) bind: Option<&'m str>,
    /// Services in the order in which istiod takes them.
    pub(super) services: Vec<VisibleService>,
    /// Route configurations for sidecars, in the order in which they are asked.
    pub(super) configs: Vec<&'m RouteConfig>,
}

/// What one proxy sees.
#[derive(Debug)]
pub(super) struct ProxyScope<'m> {
    pub(super) listeners: Vec<VisibleListener<'m>>,
    /// All Services that the proxy has clusters for.
    pub(super) services: Vec<VisibleService>,
    by_host: HashMap<&'m str, usize>,
    /// Whether calls to unknown hosts go out as they are.
    pub(super) allows_any: bool,
    /// The Sidecar that narrows it.
    pub(super) sidecar: Option<&'m SidecarObject>,
}

impl<'m> ProxyScope<'m> {
    /// Makes the scope of a proxy.
    pub(super) fn new(mesh: &'m Mesh<'_>, caller: &Caller) -> Self {
        let mut scope = Self {
            listeners: Vec::new(),
            services: Vec::new(),
            by_host: HashMap::new(),
            allows_any: mesh_allows_any(mesh),
            sidecar: None,
        };
        if caller.kind == CallerKind::Gateway {
            for seen in exported(mesh, &caller.namespace) {
                scope.add(mesh, seen);
            }
            return scope;
        }
        scope.sidecar = sidecar_of(mesh, caller);
        let default =
            [EgressSpec { hosts: crate::schema::NullableList(vec!["*/*".to_owned()]), ..EgressSpec::default() }];
        let written = scope.sidecar.map_or(&[][..], |sidecar| &sidecar.spec.egress);
        let listeners: Vec<VisibleListener<'m>> = if written.is_empty() {
            default.iter().map(|one| VisibleListener::new(mesh, &caller.namespace, one, None)).collect()
        } else {
            written.iter().map(|one| VisibleListener::new(mesh, &caller.namespace, one, one.bind.as_deref())).collect()
        };
        for listener in &listeners {
            for seen in &listener.services {
                scope.add(mesh, seen.clone());
            }
            for config in &listener.configs {
                for (host, ports) in destinations(mesh, config, &caller.namespace) {
                    scope.infer(mesh, &caller.namespace, listener, &host, &ports);
                }
            }
        }
        scope.listeners = listeners;
        if let Some(policy) = scope.sidecar.and_then(|sidecar| sidecar.spec.outbound_traffic_policy.as_ref()) {
            // Absent is the first value of the API's enumeration.
            scope.allows_any = policy.mode.as_deref().unwrap_or("REGISTRY_ONLY") != "REGISTRY_ONLY";
        }
        scope
    }

    /// The Service that a host means to the proxy.
    pub(super) fn find(&self, host: &str) -> Option<&VisibleService> {
        self.by_host.get(host).map(|at| &self.services[*at])
    }

    /// The egress listener that serves a port: the first that names it, or the first for all.
    pub(super) fn listener_for(&self, port: u16) -> Option<&VisibleListener<'m>> {
        self.listeners.iter().find(|listener| listener.port.is_none_or(|(own, _)| own == port))
    }

    /// Adds a Service; of two with one host, one of Kubernetes goes before one of a ServiceEntry, else the first.
    fn add(&mut self, mesh: &'m Mesh<'_>, seen: VisibleService) {
        let service = mesh.service(seen.service);
        let Some(at) = self.by_host.get(service.host.as_str()).copied() else {
            self.by_host.insert(service.host.as_str(), self.services.len());
            self.services.push(seen);
            return;
        };
        let have = &mut self.services[at];
        let existing = mesh.service(have.service);
        match (existing.is_kubernetes(), service.is_kubernetes()) {
            (true, false) => {}
            (false, true) => *have = seen,
            _ => {
                if existing.object == service.object || can_merge(existing, service) {
                    merge_ports(mesh, have, &seen);
                }
            }
        }
    }

    /// Adds the destinations of a route configuration, which need not be imported themselves.
    fn infer(
        &mut self,
        mesh: &'m Mesh<'_>,
        own: &Namespace,
        listener: &VisibleListener<'m>,
        host: &str,
        ports: &HashSet<u16>,
    ) {
        let Some(whole) = inferred(mesh, own, host) else { return };
        let narrowed = match listener.port {
            Some((port, protocol)) if protocol != Protocol::HttpProxy => {
                whole.port(mesh, port).map(|_| whole.narrowed(vec![port]))
            }
            _ if ports.is_empty() || ports.contains(&0) => Some(whole),
            _ => {
                let found: Vec<u16> = whole.ports(mesh).map(|port| port.number).filter(|n| ports.contains(n)).collect();
                (!found.is_empty()).then(|| whole.narrowed(found))
            }
        };
        if let Some(narrowed) = narrowed {
            self.add(mesh, narrowed);
        }
    }
}

fn mesh_allows_any(mesh: &Mesh<'_>) -> bool {
    let mode = mesh.config.outbound_traffic_policy.as_ref().and_then(|policy| policy.mode.as_deref());
    mode != Some("REGISTRY_ONLY")
}

/// The Service that a destination's host means to proxies of a namespace, imported or not: one of their own namespace,
/// else of those that they see one of Kubernetes, else the oldest.
pub(super) fn inferred(mesh: &Mesh<'_>, own: &Namespace, host: &str) -> Option<VisibleService> {
    let candidates = mesh.services_named(host);
    let chosen = preferred(mesh, candidates, own).or_else(|| {
        let visible = candidates.iter().filter(|id| is_visible(mesh.service(**id), own));
        let key = |id: &&ServiceId| {
            let service = mesh.service(**id);
            (!service.is_kubernetes(), service.created.clone())
        };
        visible.min_by_key(key).copied()
    });
    chosen.map(|id| seen(mesh, id))
}

/// What a Sidecar imports on one port, for questions about single objects.
pub(super) struct EgressImports<'m> {
    places: HashMap<String, NamespaceImports<'m>>,
    /// Whether the Sidecar has a listener for the port at all.
    listens: bool,
}

impl<'m> EgressImports<'m> {
    pub(super) fn new(sidecar: &'m SidecarObject, own: &Namespace, port: u16) -> Self {
        let written = &sidecar.spec.egress;
        if written.is_empty() {
            let all = NamespaceImports { hosts: vec!["*"], excluded: Vec::new() };
            return Self { places: HashMap::from([("*".to_owned(), all)]), listens: true };
        }
        let of_port = |one: &&EgressSpec| one.port.as_ref().is_none_or(|own| own.number == u32::from(port));
        match written.iter().find(of_port) {
            Some(one) => Self { places: imports(one, own), listens: true },
            None => Self { places: HashMap::new(), listens: false },
        }
    }

    pub(super) fn takes(&self, service: &Service) -> bool {
        let places = [self.places.get(service.namespace().as_str()), self.places.get("*")];
        let host = service.host.as_str();
        self.listens
            && places.iter().flatten().any(|place| place.takes(host))
            && !places.iter().flatten().any(|place| place.excludes(host))
    }

    pub(super) fn takes_config(&self, config: &RouteConfig) -> bool {
        takes_config(&self.places, config)
    }
}

/// Whether any egress listener of a Sidecar imports a configuration.
pub(super) fn imports_config(sidecar: &SidecarObject, own: &Namespace, config: &RouteConfig) -> bool {
    let written = &sidecar.spec.egress;
    written.is_empty() || written.iter().any(|one| takes_config(&imports(one, own), config))
}

/// Of several entries for one host in one namespace: one of Kubernetes, else the first.
fn preferred(mesh: &Mesh<'_>, candidates: &[ServiceId], namespace: &Namespace) -> Option<ServiceId> {
    let own = || candidates.iter().copied().filter(|id| mesh.service(*id).namespace() == namespace);
    own().find(|id| mesh.service(*id).is_kubernetes()).or_else(|| own().next())
}

/// The Sidecar of a caller: of its namespace one that selects it, then one for all, then the root namespace's.
pub(super) fn sidecar_of<'m>(mesh: &'m Mesh<'_>, caller: &Caller) -> Option<&'m SidecarObject> {
    let own = mesh.sidecars.iter().filter(|one| one.object.namespace == caller.namespace);
    let picks =
        |one: &&SidecarObject| one.selector.as_ref().is_none_or(|selector| caller.labels.contains_all(selector));
    let root = || mesh.sidecars.iter().find(|one| one.object.namespace == mesh.root && one.selector.is_none());
    own.into_iter().find(picks).or_else(root)
}

fn can_merge(a: &Service, b: &Service) -> bool {
    a.namespace() == b.namespace()
        && a.resolution == b.resolution
        && a.labels == b.labels
        && a.selector == b.selector
        && a.export_words == b.export_words
}

fn merge_ports(mesh: &Mesh<'_>, have: &mut VisibleService, more: &VisibleService) {
    for number in more.ports(mesh).map(|port| port.number).collect::<Vec<_>>() {
        if have.ports(mesh).any(|port| port.number == number) {
            continue;
        }
        match &mut have.ports {
            Some(ports) if have.service == more.service => ports.push(number),
            _ => have.more.push((more.entry_of(number), number)),
        }
    }
}

pub(super) fn is_visible(service: &Service, namespace: &Namespace) -> bool {
    service.export_to.reaches(namespace, service.namespace())
}

fn seen(mesh: &Mesh<'_>, id: ServiceId) -> VisibleService {
    VisibleService { service: id, ports: None, more: Vec::new(), aliases: mesh.aliases_of(&mesh.service(id).host) }
}

/// Services that are shown to a namespace: those that name it first, then the public ones; each by age.
fn exported(mesh: &Mesh<'_>, namespace: &Namespace) -> Vec<VisibleService> {
    let by_age = mesh.services_by_age();
    let is_public = |id: &&ServiceId| mesh.service(**id).export_to == Visibility::Public;
    let shown = |id: &&ServiceId| is_visible(mesh.service(**id), namespace);
    let named = by_age.iter().filter(|id| !is_public(id)).filter(shown);
    let public = by_age.iter().filter(is_public);
    named.chain(public).map(|id| seen(mesh, *id)).collect()
}

/// Hosts that a Sidecar's `egress[].hosts` imports from one namespace.
#[derive(Debug, Default)]
struct NamespaceImports<'m> {
    hosts: Vec<&'m str>,
    excluded: Vec<&'m str>,
}

impl NamespaceImports<'_> {
    fn takes(&self, host: &str) -> bool {
        self.hosts.iter().any(|one| host_patterns::is_subset(host, one))
    }

    /// VirtualServices are compared in both directions: `*.com` is imported by `a.com`.
    fn takes_config(&self, host: &str, is_gateway_api: bool) -> bool {
        let matches = if is_gateway_api { host_patterns::is_subset } else { host_patterns::overlap };
        self.hosts.iter().any(|one| *one == host || matches(host, one))
    }

    fn excludes(&self, host: &str) -> bool {
        self.excluded.iter().any(|one| host_patterns::is_subset(host, one))
    }
}

impl<'m> VisibleListener<'m> {
    fn new(mesh: &'m Mesh<'_>, own: &Namespace, written: &EgressSpec, bind: Option<&'m str>) -> Self {
        let imports = imports(written, own);
        let port = written.port.as_ref().and_then(|port| {
            let number = u16::try_from(port.number).ok()?;
            Some((number, Protocol::parse(&port.protocol).unwrap_or(Protocol::Auto)))
        });
        let mut services: Vec<VisibleService> = Vec::new();
        for one in exported(mesh, own) {
            if let Some(one) = import(mesh, &imports, one, port) {
                services.push(one);
            }
        }
        keep_one_namespace(mesh, &mut services, own);
        let configs = mesh
            .route_configs()
            .visible(&GatewayName::Mesh, own)
            .filter(|config| takes_config(&imports, config))
            .collect();
        Self { port, bind, services, configs }
    }
}

/// The hosts of a listener by namespace; `*` stands for all namespaces.
fn imports<'w>(written: &'w EgressSpec, own: &Namespace) -> HashMap<String, NamespaceImports<'w>> {
    let mut imports: HashMap<String, NamespaceImports<'_>> = HashMap::new();
    for text in &written.hosts {
        let Some((namespace, host)) = text.split_once('/').filter(|(_, host)| !host.contains('/')) else {
            continue;
        };
        let (namespace, excluded) = match namespace.strip_prefix('~') {
            Some("") => ("*", true),
            Some(rest) => (rest, true),
            None => (namespace, false),
        };
        let namespace = if namespace == "." { own.as_str() } else { namespace };
        let entry = imports.entry(namespace.to_owned()).or_default();
        if excluded { entry.excluded.push(host) } else { entry.hosts.push(host) }
    }
    imports
}

/// Whether a listener imports a route configuration, by any of its hosts.
fn takes_config(imports: &HashMap<String, NamespaceImports<'_>>, config: &RouteConfig) -> bool {
    let places = [imports.get(config.namespace.as_str()), imports.get("*")];
    places.iter().flatten().any(|place| {
        config.hosts.iter().any(|host| {
            place.takes_config(host.as_str(), config.is_gateway_api)
                && !places.iter().flatten().any(|place| place.excludes(host.as_str()))
        })
    })
}

/// A Service with what a listener imports of it.
fn import(
    mesh: &Mesh<'_>,
    imports: &HashMap<String, NamespaceImports<'_>>,
    seen: VisibleService,
    port: Option<(u16, Protocol)>,
) -> Option<VisibleService> {
    let service = mesh.service(seen.service);
    let places = [imports.get(service.namespace().as_str()), imports.get("*")];
    if places.iter().flatten().any(|place| place.excludes(service.host.as_str())) {
        return None;
    }
    let place = places.into_iter().flatten().find(|place| place.takes(service.host.as_str()))?;
    let aliases: Vec<ServiceId> =
        seen.aliases.iter().copied().filter(|alias| place.takes(mesh.service(*alias).host.as_str())).collect();
    let seen = VisibleService { aliases, ..seen };
    match port {
        Some((port, protocol)) if port != 0 && protocol != Protocol::HttpProxy => {
            seen.port(mesh, port)?;
            Some(seen.narrowed(vec![port]))
        }
        _ => Some(seen),
    }
}

/// Of one host in several namespaces only one namespace stays: the caller's own, else one of Kubernetes, else the first.
fn keep_one_namespace(mesh: &Mesh<'_>, services: &mut Vec<VisibleService>, own: &Namespace) {
    let mut chosen: HashMap<&str, (&Namespace, bool)> = HashMap::new();
    for one in services.iter() {
        let service = mesh.service(one.service);
        let new = (service.namespace(), service.is_kubernetes());
        chosen
            .entry(service.host.as_str())
            .and_modify(|have| {
                let of_kubernetes = !have.1 && new.1 && (new.0 == own || have.0 != own);
                if new.0 == own || of_kubernetes {
                    *have = new;
                }
            })
            .or_insert(new);
    }
    services.retain(|one| {
        let service = mesh.service(one.service);
        chosen.get(service.host.as_str()).is_some_and(|(namespace, _)| *namespace == service.namespace())
    });
}

/// Hosts that a configuration sends to, with the ports that are named; 0 stands for none named.
fn destinations(mesh: &Mesh<'_>, config: &RouteConfig, own: &Namespace) -> Vec<(String, HashSet<u16>)> {
    let mut found: Vec<(String, HashSet<u16>)> = Vec::new();
    let mut add = |destination: &crate::schema::virtual_service::Destination| {
        let host = config.destination(mesh, destination).as_str().to_owned();
        let port = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok()).unwrap_or(0);
        match found.iter_mut().find(|(have, _)| *have == host) {
            Some((_, ports)) => {
                ports.insert(port);
            }
            None => found.push((host, HashSet::from([port]))),
        }
    };
    for rule in &config.rules {
        let rule = rule.rule(mesh, config);
        let named: Vec<&str> = rule
            .matches
            .iter()
            .filter_map(|one| one.source_namespace.as_deref())
            .filter(|namespace| !namespace.is_empty())
            .collect();
        if !named.is_empty() && !named.contains(&own.as_str()) {
            continue;
        }
        rule.route.iter().filter_map(|target| target.destination.as_ref()).for_each(&mut add);
        rule.mirror.iter().for_each(&mut add);
        rule.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref()).for_each(&mut add);
    }
    for rule in config.tcp(mesh).iter().chain(config.tls(mesh)) {
        rule.route.iter().filter_map(|target| target.destination.as_ref()).for_each(&mut add);
    }
    found
}

impl Mesh<'_> {
    /// ExternalName Services that lead to a host, over several steps too, by namespace and name.
    pub(super) fn aliases_of(&self, host: &crate::mesh::ids::Host) -> Vec<ServiceId> {
        let mut found: Vec<ServiceId> = self.aliases().get(host).cloned().unwrap_or_default();
        found.sort_by_key(|id| (self.service(*id).namespace().clone(), self.service(*id).host.clone()));
        found
    }

    /// Whether a Service is an alias without clusters of its own.
    pub(super) fn is_alias(service: &Service) -> bool {
        matches!(service.resolution, Resolution::ExternalName(_))
    }
}
