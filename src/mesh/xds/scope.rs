//! The scope of one proxy: the Services and route configurations that it sees, limited by `exportTo` and Sidecar
//! objects.
//!
//! Sources: `pilot/pkg/model/sidecar.go`, `virtualservice.go` and `push_context.go` of istio/istio 1.31.

use std::collections::{HashMap, HashSet};

use super::host_patterns;
use super::route_config::RouteConfig;
use super::{Caller, CallerKind};
use crate::mesh::behavior::IstiodBehavior;
use crate::mesh::ids::{Namespace, ServiceId};
use crate::mesh::protocol::Protocol;
use crate::mesh::service::{Resolution, Service, ServicePort, Visibility};
use crate::mesh::virtual_service::GatewayName;
use crate::mesh::{Mesh, SidecarObject};
use crate::schema::sidecar::EgressSpec;

/// A Service that one proxy sees, perhaps with fewer ports.
#[derive(Debug, Clone)]
pub(super) struct VisibleService {
    pub(super) service: ServiceId,
    /// The visible ports; `None` means all.
    ports: Option<Vec<u16>>,
    /// Ports of other registry entries for the same host, which istiod merges into this one.
    merged_ports: Vec<(ServiceId, u16)>,
    /// Visible ExternalName Services that point to it.
    pub(super) aliases: Vec<ServiceId>,
}

impl VisibleService {
    /// The visible ports, merged ones included.
    pub(super) fn ports<'m>(&self, mesh: &'m Mesh<'_>) -> impl Iterator<Item = &'m ServicePort> {
        let visible = self.ports.clone();
        let service_ports = mesh.service(self.service).ports.iter();
        let service_ports =
            service_ports.filter(move |port| visible.as_ref().is_none_or(|numbers| numbers.contains(&port.number)));
        service_ports
            .chain(self.merged_ports.clone().into_iter().filter_map(|(id, number)| mesh.service(id).port(number)))
    }

    /// The registry entry that a port comes from.
    pub(super) fn entry_for_port(&self, number: u16) -> ServiceId {
        self.merged_ports.iter().find(|(_, port)| *port == number).map_or(self.service, |(id, _)| *id)
    }

    /// The visible port with this number.
    pub(super) fn port<'m>(&self, mesh: &'m Mesh<'_>, number: u16) -> Option<&'m ServicePort> {
        self.ports(mesh).find(|port| port.number == number)
    }

    /// The port of a Service that has only one visible port.
    pub(super) fn single_port<'m>(&self, mesh: &'m Mesh<'_>) -> Option<&'m ServicePort> {
        let mut ports = self.ports(mesh);
        let first = ports.next();
        first.filter(|_| ports.next().is_none())
    }

    fn narrowed(&self, ports: Vec<u16>) -> Self {
        Self { ports: Some(ports), merged_ports: Vec::new(), ..self.clone() }
    }
}

/// One egress listener of a Sidecar, or the default listener of a proxy without a Sidecar.
#[derive(Debug)]
pub(super) struct EgressListener<'m> {
    /// Port and protocol, if the Sidecar sets them.
    pub(super) port: Option<(u16, Protocol)>,
    /// Address, if the Sidecar sets it.
    pub(super) bind: Option<&'m str>,
    /// Imported Services, in istiod's order.
    pub(super) services: Vec<VisibleService>,
    /// Imported route configurations, by precedence.
    pub(super) configs: Vec<&'m RouteConfig>,
}

#[derive(Debug)]
pub(super) struct ProxyScope<'m> {
    pub(super) listeners: Vec<EgressListener<'m>>,
    /// All Services for which the proxy has clusters.
    pub(super) services: Vec<VisibleService>,
    by_host: HashMap<&'m str, usize>,
    /// Whether the outbound traffic policy lets calls to unknown hosts pass.
    pub(super) allows_any: bool,
    /// The Sidecar that limits the scope.
    pub(super) sidecar: Option<&'m SidecarObject>,
}

impl<'m> ProxyScope<'m> {
    pub(super) fn new(mesh: &'m Mesh<'_>, caller: &Caller) -> Self {
        let mut scope = Self {
            listeners: Vec::new(),
            services: Vec::new(),
            by_host: HashMap::new(),
            allows_any: mesh_allows_any(mesh),
            sidecar: None,
        };
        if caller.kind == CallerKind::Gateway {
            for visible in exported_services(mesh, &caller.namespace) {
                scope.add(mesh, visible);
            }
            return scope;
        }
        scope.sidecar = sidecar_of(mesh, caller);
        let default =
            [EgressSpec { hosts: crate::schema::NullableList(vec!["*/*".to_owned()]), ..EgressSpec::default() }];
        let written = scope.sidecar.map_or(&[][..], |sidecar| &sidecar.spec.egress);
        let listeners: Vec<EgressListener<'m>> = if written.is_empty() {
            default.iter().map(|egress| EgressListener::new(mesh, &caller.namespace, egress, None)).collect()
        } else {
            let build =
                |egress: &'m EgressSpec| EgressListener::new(mesh, &caller.namespace, egress, egress.bind.as_deref());
            written.iter().map(build).collect()
        };
        for listener in &listeners {
            for visible in &listener.services {
                scope.add(mesh, visible.clone());
            }
            for config in &listener.configs {
                for (host, ports) in destinations(mesh, config, &caller.namespace) {
                    scope.add_destination(mesh, &caller.namespace, listener, &host, &ports);
                }
            }
        }
        scope.listeners = listeners;
        if let Some(policy) = scope.sidecar.and_then(|sidecar| sidecar.spec.outbound_traffic_policy.as_ref()) {
            // Without a mode, the first value of the API's enumeration applies.
            scope.allows_any = policy.mode.as_deref().unwrap_or("REGISTRY_ONLY") != "REGISTRY_ONLY";
        }
        scope
    }

    /// The Service that a host resolves to for the proxy.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    pub(super) fn find(&self, host: &str) -> Option<&VisibleService> {
        self.by_host.get(host).map(|position| &self.services[*position])
    }

    /// The first egress listener that names a port or serves all ports.
    pub(super) fn listener_for(&self, port: u16) -> Option<&EgressListener<'m>> {
        self.listeners.iter().find(|listener| listener.port.is_none_or(|(number, _)| number == port))
    }

    /// Adds a Service. If its host exists already, a Kubernetes Service replaces a ServiceEntry; otherwise the first
    /// entry stays, and may get the ports of the second.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    fn add(&mut self, mesh: &'m Mesh<'_>, visible: VisibleService) {
        let service = mesh.service(visible.service);
        let Some(position) = self.by_host.get(service.host.as_str()).copied() else {
            self.by_host.insert(service.host.as_str(), self.services.len());
            self.services.push(visible);
            return;
        };
        let existing = &mut self.services[position];
        let existing_service = mesh.service(existing.service);
        match (existing_service.is_kubernetes(), service.is_kubernetes()) {
            (true, false) => {}
            (false, true) => *existing = visible,
            _ => {
                if existing_service.object == service.object || can_merge(existing_service, service) {
                    merge_ports(mesh, existing, &visible);
                }
            }
        }
    }

    /// Adds a destination of an imported route configuration. The Sidecar need not import the destination itself.
    fn add_destination(
        &mut self,
        mesh: &'m Mesh<'_>,
        own_namespace: &Namespace,
        listener: &EgressListener<'m>,
        host: &str,
        ports: &HashSet<u16>,
    ) {
        let Some(service) = inferred_service(mesh, own_namespace, host) else { return };
        let narrowed = match listener.port {
            Some((port, protocol)) if protocol != Protocol::HttpProxy => {
                service.port(mesh, port).map(|_| service.narrowed(vec![port]))
            }
            _ if ports.is_empty() || ports.contains(&0) => Some(service),
            _ => {
                let numbers = service.ports(mesh).map(|port| port.number);
                let used: Vec<u16> = numbers.filter(|number| ports.contains(number)).collect();
                (!used.is_empty()).then(|| service.narrowed(used))
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

/// The Service that a destination's host resolves to for proxies of a namespace, imported or not: one in their own
/// namespace, else a visible Kubernetes Service, else the oldest visible entry.
pub(super) fn inferred_service(mesh: &Mesh<'_>, own_namespace: &Namespace, host: &str) -> Option<VisibleService> {
    let candidates = mesh.services_named(host);
    let selected = preferred_entry(mesh, candidates, own_namespace).or_else(|| {
        let visible = candidates.iter().filter(|id| is_visible(mesh.service(**id), own_namespace));
        let precedence = |id: &&ServiceId| {
            let service = mesh.service(**id);
            (!service.is_kubernetes(), service.created.clone())
        };
        if mesh.has_behavior(IstiodBehavior::PreferredServiceNamespace) {
            visible.min_by_key(precedence).copied()
        } else {
            visible.min_by_key(|id| mesh.service(**id).namespace()).copied()
        }
    });
    selected.map(|id| visible_service(mesh, id))
}

/// The imports of a Sidecar on one port, to check single objects without building a scope.
pub(super) struct EgressImports<'m> {
    by_namespace: HashMap<String, NamespaceImports<'m>>,
    /// Whether the Sidecar has a listener for the port.
    has_listener: bool,
}

impl<'m> EgressImports<'m> {
    pub(super) fn new(mesh: &Mesh<'_>, sidecar: &'m SidecarObject, own_namespace: &Namespace, port: u16) -> Self {
        let written = &sidecar.spec.egress;
        if written.is_empty() {
            let all = NamespaceImports { hosts: vec!["*"], excluded: Vec::new() };
            return Self { by_namespace: HashMap::from([("*".to_owned(), all)]), has_listener: true };
        }
        let serves_port =
            |egress: &&EgressSpec| egress.port.as_ref().is_none_or(|egress_port| egress_port.number == u32::from(port));
        match written.iter().find(serves_port) {
            Some(egress) => {
                Self { by_namespace: imports_by_namespace(mesh, egress, own_namespace), has_listener: true }
            }
            None => Self { by_namespace: HashMap::new(), has_listener: false },
        }
    }

    pub(super) fn includes(&self, service: &Service) -> bool {
        let imports = [self.by_namespace.get(service.namespace().as_str()), self.by_namespace.get("*")];
        let host = service.host.as_str();
        self.has_listener
            && imports.iter().flatten().any(|imports| imports.includes(host))
            && !imports.iter().flatten().any(|imports| imports.excludes(host))
    }

    pub(super) fn includes_config(&self, config: &RouteConfig) -> bool {
        includes_config(&self.by_namespace, config)
    }
}

/// Whether any egress listener of a Sidecar imports a configuration.
pub(super) fn imports_config(
    mesh: &Mesh<'_>,
    sidecar: &SidecarObject,
    own_namespace: &Namespace,
    config: &RouteConfig,
) -> bool {
    let written = &sidecar.spec.egress;
    written.is_empty()
        || written.iter().any(|egress| includes_config(&imports_by_namespace(mesh, egress, own_namespace), config))
}

/// The entry for a host that istiod prefers within one namespace: a Kubernetes Service, else the first.
fn preferred_entry(mesh: &Mesh<'_>, candidates: &[ServiceId], namespace: &Namespace) -> Option<ServiceId> {
    let in_namespace = || candidates.iter().copied().filter(|id| mesh.service(*id).namespace() == namespace);
    in_namespace().find(|id| mesh.service(*id).is_kubernetes()).or_else(|| in_namespace().next())
}

/// The Sidecar of a caller: one in its namespace that selects it, then one without a selector, then the one of the root
/// namespace.
pub(super) fn sidecar_of<'m>(mesh: &'m Mesh<'_>, caller: &Caller) -> Option<&'m SidecarObject> {
    let sidecars_in = |namespace: &Namespace| {
        let positions = mesh.xds_index().sidecars.get(namespace).into_iter().flatten();
        positions.filter_map(|position| mesh.sidecars.get(*position))
    };
    let selects_caller = |sidecar: &&SidecarObject| {
        sidecar.selector.as_ref().is_none_or(|selector| caller.labels.contains_all(selector))
    };
    sidecars_in(&caller.namespace)
        .find(selects_caller)
        .or_else(|| sidecars_in(&mesh.root_namespace).find(|sidecar| sidecar.selector.is_none()))
}

fn can_merge(a: &Service, b: &Service) -> bool {
    a.namespace() == b.namespace()
        && a.resolution == b.resolution
        && a.labels == b.labels
        && a.selector == b.selector
        && a.export_to_values == b.export_to_values
}

fn merge_ports(mesh: &Mesh<'_>, existing: &mut VisibleService, other: &VisibleService) {
    for number in other.ports(mesh).map(|port| port.number).collect::<Vec<_>>() {
        if existing.ports(mesh).any(|port| port.number == number) {
            continue;
        }
        match &mut existing.ports {
            Some(ports) if existing.service == other.service => ports.push(number),
            _ => existing.merged_ports.push((other.entry_for_port(number), number)),
        }
    }
}

pub(super) fn is_visible(service: &Service, namespace: &Namespace) -> bool {
    service.export_to.includes(namespace, service.namespace())
}

fn visible_service(mesh: &Mesh<'_>, id: ServiceId) -> VisibleService {
    VisibleService {
        service: id,
        ports: None,
        merged_ports: Vec::new(),
        aliases: mesh.aliases_of(&mesh.service(id).host),
    }
}

/// Services that are exported to a namespace: those that name it first, then the public ones, each oldest first.
fn exported_services(mesh: &Mesh<'_>, namespace: &Namespace) -> Vec<VisibleService> {
    let by_age = mesh.services_by_age();
    let is_public = |id: &&ServiceId| mesh.service(**id).export_to == Visibility::Public;
    let is_exported = |id: &&ServiceId| is_visible(mesh.service(**id), namespace);
    let named = by_age.iter().filter(|id| !is_public(id)).filter(is_exported);
    let public = by_age.iter().filter(is_public);
    named.chain(public).map(|id| visible_service(mesh, *id)).collect()
}

/// Hosts that a Sidecar's `egress[].hosts` imports from one namespace.
#[derive(Debug, Default)]
struct NamespaceImports<'m> {
    hosts: Vec<&'m str>,
    excluded: Vec<&'m str>,
}

impl NamespaceImports<'_> {
    fn includes(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| host_patterns::is_subset(host, pattern))
    }

    /// istiod compares hosts of VirtualServices in both directions: `a.com` imports `*.com`.
    fn includes_config_host(&self, host: &str, is_gateway_api: bool) -> bool {
        let matches = if is_gateway_api { host_patterns::is_subset } else { host_patterns::overlap };
        self.hosts.iter().any(|pattern| *pattern == host || matches(host, pattern))
    }

    fn excludes(&self, host: &str) -> bool {
        self.excluded.iter().any(|pattern| host_patterns::is_subset(host, pattern))
    }
}

impl<'m> EgressListener<'m> {
    fn new(mesh: &'m Mesh<'_>, own_namespace: &Namespace, written: &EgressSpec, bind: Option<&'m str>) -> Self {
        let imports = imports_by_namespace(mesh, written, own_namespace);
        let port = written.port.as_ref().and_then(|port| {
            let number = u16::try_from(port.number).ok()?;
            Some((number, Protocol::parse(&port.protocol).unwrap_or(Protocol::Auto)))
        });
        let mut services: Vec<VisibleService> = Vec::new();
        for visible in exported_services(mesh, own_namespace) {
            if let Some(imported) = import_service(mesh, &imports, visible, port) {
                services.push(imported);
            }
        }
        retain_one_namespace_per_host(mesh, &mut services, own_namespace);
        let configs = mesh
            .route_configs()
            .visible_configs(&GatewayName::Mesh, own_namespace)
            .filter(|config| includes_config(&imports, config))
            .collect();
        Self { port, bind, services, configs }
    }
}

/// The imported hosts of a listener by namespace; `*` stands for all namespaces.
fn imports_by_namespace<'w>(
    mesh: &Mesh<'_>,
    written: &'w EgressSpec,
    own_namespace: &Namespace,
) -> HashMap<String, NamespaceImports<'w>> {
    let has_exclusions = mesh.has_behavior(IstiodBehavior::SidecarExclusions);
    let mut imports: HashMap<String, NamespaceImports<'_>> = HashMap::new();
    for text in &written.hosts {
        let Some((namespace, host)) = text.split_once('/').filter(|(_, host)| !host.contains('/')) else {
            continue;
        };
        if namespace.starts_with('~') && !has_exclusions {
            // A namespace with this name, which cannot exist.
            continue;
        }
        let (namespace, is_excluded) = match namespace.strip_prefix('~') {
            Some("") => ("*", true),
            Some(rest) => (rest, true),
            None => (namespace, false),
        };
        let namespace = if namespace == "." { own_namespace.as_str() } else { namespace };
        let entry = imports.entry(namespace.to_owned()).or_default();
        if is_excluded { entry.excluded.push(host) } else { entry.hosts.push(host) }
    }
    imports
}

/// Whether a listener imports a route configuration, by any of its hosts.
fn includes_config(imports: &HashMap<String, NamespaceImports<'_>>, config: &RouteConfig) -> bool {
    let applicable = [imports.get(config.namespace.as_str()), imports.get("*")];
    applicable.iter().flatten().any(|imports| {
        config.hosts.iter().any(|host| {
            imports.includes_config_host(host.as_str(), config.is_gateway_api)
                && !applicable.iter().flatten().any(|imports| imports.excludes(host.as_str()))
        })
    })
}

/// The part of a Service that a listener imports: aliases and, if the listener names a port, only that port.
fn import_service(
    mesh: &Mesh<'_>,
    imports: &HashMap<String, NamespaceImports<'_>>,
    visible: VisibleService,
    port: Option<(u16, Protocol)>,
) -> Option<VisibleService> {
    let service = mesh.service(visible.service);
    let applicable = [imports.get(service.namespace().as_str()), imports.get("*")];
    if applicable.iter().flatten().any(|imports| imports.excludes(service.host.as_str())) {
        return None;
    }
    let imports = applicable.into_iter().flatten().find(|imports| imports.includes(service.host.as_str()))?;
    let is_imported = |alias: &ServiceId| imports.includes(mesh.service(*alias).host.as_str());
    let aliases: Vec<ServiceId> = visible.aliases.iter().copied().filter(is_imported).collect();
    let visible = VisibleService { aliases, ..visible };
    match port {
        Some((port, protocol)) if port != 0 && protocol != Protocol::HttpProxy => {
            visible.port(mesh, port)?;
            Some(visible.narrowed(vec![port]))
        }
        _ => Some(visible),
    }
}

/// Keeps the entries of one namespace for each host: the caller's own, else the first with a Kubernetes Service, else
/// the first.
fn retain_one_namespace_per_host(mesh: &Mesh<'_>, services: &mut Vec<VisibleService>, own_namespace: &Namespace) {
    let mut selected: HashMap<&str, (&Namespace, bool)> = HashMap::new();
    for visible in services.iter() {
        let service = mesh.service(visible.service);
        let candidate = (service.namespace(), service.is_kubernetes());
        selected
            .entry(service.host.as_str())
            .and_modify(|current| {
                let replaces_entry =
                    !current.1 && candidate.1 && (candidate.0 == own_namespace || current.0 != own_namespace);
                if candidate.0 == own_namespace || replaces_entry {
                    *current = candidate;
                }
            })
            .or_insert(candidate);
    }
    services.retain(|visible| {
        let service = mesh.service(visible.service);
        selected.get(service.host.as_str()).is_some_and(|(namespace, _)| *namespace == service.namespace())
    });
}

/// The destination hosts of a configuration with their ports; port 0 means that a destination names none. Rules that
/// match only other source namespaces are skipped.
fn destinations(mesh: &Mesh<'_>, config: &RouteConfig, own_namespace: &Namespace) -> Vec<(String, HashSet<u16>)> {
    let mut destinations: Vec<(String, HashSet<u16>)> = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    let mut written: HashSet<(String, u16)> = HashSet::new();
    let mut add = |destination: &crate::schema::virtual_service::Destination| {
        let port = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok()).unwrap_or(0);
        if !written.insert((destination.host.clone(), port)) {
            return;
        }
        let host = config.destination_host(mesh, destination).as_str().to_owned();
        let position = *positions.entry(host.clone()).or_insert(destinations.len());
        match destinations.get_mut(position) {
            Some((_, ports)) => {
                ports.insert(port);
            }
            None => destinations.push((host, HashSet::from([port]))),
        }
    };
    for rule in &config.rules {
        let rule = rule.http_rule(mesh, config);
        let source_namespaces: Vec<&str> = rule
            .matches
            .iter()
            .filter_map(|conditions| conditions.source_namespace.as_deref())
            .filter(|namespace| !namespace.is_empty())
            .collect();
        if !source_namespaces.is_empty() && !source_namespaces.contains(&own_namespace.as_str()) {
            continue;
        }
        rule.route.iter().filter_map(|target| target.destination.as_ref()).for_each(&mut add);
        rule.mirror.iter().for_each(&mut add);
        rule.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref()).for_each(&mut add);
    }
    for rule in config.tcp(mesh).iter().chain(config.tls(mesh)) {
        rule.route.iter().filter_map(|target| target.destination.as_ref()).for_each(&mut add);
    }
    destinations
}

impl Mesh<'_> {
    /// ExternalName Services that resolve to a host, directly or through other ExternalNames, by namespace and name.
    pub(super) fn aliases_of(&self, host: &crate::mesh::ids::Host) -> Vec<ServiceId> {
        let mut aliases: Vec<ServiceId> = self.aliases().get(host).cloned().unwrap_or_default();
        aliases.sort_by_key(|id| (self.service(*id).namespace().clone(), self.service(*id).host.clone()));
        aliases
    }

    /// Whether a Service is an ExternalName Service, which has no clusters of its own.
    pub(super) fn is_alias(service: &Service) -> bool {
        matches!(service.resolution, Resolution::ExternalName(_))
    }
}
