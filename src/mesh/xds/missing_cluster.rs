//! Destinations of route rules for which the proxies that use the rule have no cluster, although the host exists.
//!
//! The answer depends on the caller: on its namespace's DestinationRules, and on what is exported to it. Every rule is
//! judged for every proxy that uses it, also where the rule's own host is another one: sidecars under the hosts of the
//! configuration, and gateways under their servers. Delegates count under their roots.

use std::collections::{BTreeMap, BTreeSet};

use super::matching;
use super::route_config::{ConfigId, ConfigRule, RouteConfig};
use super::scope;
use super::{Caller, CallerKind};
use crate::mesh::Mesh;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::ids::{Host, Namespace, ObjectRef, SubsetName};
use crate::mesh::service::{Resolution, Visibility};
use crate::mesh::virtual_service::GatewayName;
use crate::schema::virtual_service::Destination;

/// The port of hosts that are not in the registry, for which istiod builds routes on port 80 only.
const HTTP_PORT: u16 = 80;

/// A destination without a cluster.
#[derive(Debug, Clone)]
pub struct MissingCluster {
    /// The object with the destination; for a delegate's rule, the delegate.
    pub object: ObjectRef,
    /// Path of the `destination` or `mirror` in the object.
    pub field: String,
    /// The destination's host.
    pub host: Host,
    /// The destination's subset.
    pub subset: Option<SubsetName>,
    /// Whether the destination gets calls: a mirror gets copies, and a weight of 0 gets none.
    pub use_of_calls: DestinationUse,
    /// Why the cluster is missing.
    pub cause: MissingClusterCause,
    /// Namespaces of the proxies that lack the cluster.
    pub callers: BTreeSet<Namespace>,
}

/// What a destination gets of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestinationUse {
    /// A share of the calls.
    Calls,
    /// Copies of the calls, whose answers are dropped.
    Copies,
    /// Nothing: its weight is 0.
    Nothing,
}

/// Why a proxy has no cluster for a destination whose host exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingClusterCause {
    /// The host is an ExternalName Service, an alias without a cluster, of a host that is not in the registry.
    Alias {
        /// The host that the Service names.
        target: Host,
    },
    /// The Service or ServiceEntry is not exported to the callers.
    NotExported {
        /// The Service or ServiceEntry.
        service: ObjectRef,
    },
    /// The subset exists, but not in the DestinationRules that the callers get.
    SubsetHidden {
        /// The DestinationRules that apply to the callers instead; may be empty.
        applied: Vec<ObjectRef>,
    },
}

/// A destination of a rule with its place in the written object.
struct RuleDestination<'a> {
    field: String,
    destination: &'a Destination,
    use_of_calls: DestinationUse,
}

/// The proxies of a mesh that matter here: one for each namespace and set of labels that some object reads.
struct Proxies {
    sidecars: Vec<Caller>,
}

impl Mesh<'_> {
    /// Destinations of route rules that have no cluster at some proxy that uses the rule, although their host exists.
    /// Undefined subsets and missing ports are not among them: they do not depend on the caller.
    pub fn missing_clusters(&self) -> &[MissingCluster] {
        self.missing_clusters.get_or_init(|| find(self))
    }
}

fn find(mesh: &Mesh<'_>) -> Vec<MissingCluster> {
    let proxies = Proxies { sidecars: sidecars(mesh) };
    let mut found: BTreeMap<(ObjectRef, String, MissingClusterCause), MissingCluster> = BTreeMap::new();
    for (id, config) in mesh.route_configs().iter() {
        for rule in &config.rules {
            for target in destinations(mesh, config, rule) {
                let host = config.destination_host(mesh, target.destination);
                if has_cluster_everywhere(mesh, &host, target.destination) {
                    continue;
                }
                for caller in callers_of(mesh, &proxies, id, config, rule) {
                    let Some(cause) = missing_cause(mesh, &caller, &host, target.destination) else { continue };
                    let object = rule.delegate.as_ref().map_or(&rule.object, |(delegate, _)| delegate);
                    let key = (object.clone(), target.field.clone(), cause.clone());
                    let missing = found.entry(key).or_insert_with(|| MissingCluster {
                        object: object.clone(),
                        field: target.field.clone(),
                        host: host.clone(),
                        subset: subset_of(target.destination),
                        use_of_calls: target.use_of_calls,
                        cause,
                        callers: BTreeSet::new(),
                    });
                    missing.callers.insert(caller.namespace);
                }
            }
        }
    }
    found.into_values().collect()
}

/// One sidecar for each namespace and set of labels that an object reads.
fn sidecars(mesh: &Mesh<'_>) -> Vec<Caller> {
    let keys = mesh.caller_label_keys();
    let mut seen: BTreeSet<(Namespace, Vec<String>)> = BTreeSet::new();
    let ids = mesh.workload_ids().filter(|id| mesh.workload(*id).proxy.is_meshed() != Some(false));
    let callers = ids.map(|id| Caller::of_workload(mesh, id)).filter(|caller| caller.kind == CallerKind::Sidecar);
    callers
        .filter(|caller| {
            let labels = keys.iter().filter_map(|key| caller.labels.get(key).map(|value| format!("{key}={value}")));
            seen.insert((caller.namespace.clone(), labels.collect()))
        })
        .collect()
}

fn subset_of(destination: &Destination) -> Option<SubsetName> {
    destination.subset.as_deref().filter(|name| !name.is_empty()).map(SubsetName::from)
}

fn destinations<'m>(mesh: &'m Mesh<'_>, config: &RouteConfig, rule: &'m ConfigRule) -> Vec<RuleDestination<'m>> {
    let http_rule = rule.http_rule(mesh, config);
    let (path, list) = match &rule.delegate {
        Some((_, index)) => (format!("spec.http[{index}]"), "route"),
        None if config.is_gateway_api => (rule.field(), "backendRefs"),
        None => (rule.field(), "route"),
    };
    let is_only = http_rule.route.len() == 1;
    let backends = http_rule.route.iter().enumerate().filter_map(|(index, backend)| {
        let gets_calls = is_only || backend.weight.unwrap_or(0) > 0;
        let field = if config.is_gateway_api {
            format!("{path}.{list}[{index}]")
        } else {
            format!("{path}.{list}[{index}].destination")
        };
        let use_of_calls = if gets_calls { DestinationUse::Calls } else { DestinationUse::Nothing };
        Some(RuleDestination { field, destination: backend.destination.as_ref()?, use_of_calls })
    });
    let use_of_calls = DestinationUse::Copies;
    let mirror = http_rule.mirror.iter();
    let mirror =
        mirror.map(|destination| RuleDestination { field: format!("{path}.mirror"), destination, use_of_calls });
    let mirrors = http_rule.mirrors.iter().enumerate().filter_map(|(index, mirror)| {
        let field = format!("{path}.mirrors[{index}].destination");
        Some(RuleDestination { field, destination: mirror.destination.as_ref()?, use_of_calls })
    });
    backends.chain(mirror).chain(mirrors).collect()
}

/// Whether all proxies have the cluster, or lack it for a reason that does not depend on them. Most destinations are
/// decided here, without looking at callers.
fn has_cluster_everywhere(mesh: &Mesh<'_>, host: &Host, destination: &Destination) -> bool {
    let [id] = mesh.services_named(host.as_str()) else { return mesh.services_named(host.as_str()).is_empty() };
    let service = mesh.service(*id);
    if service.export_to != Visibility::Public || Mesh::is_alias(service) {
        return false;
    }
    let Some(subset) = subset_of(destination) else { return true };
    let mut rules = mesh.destination_rules.covering(host.as_str()).map(|(_, rule)| rule);
    let (first, second) = (rules.next(), rules.next());
    match (first, second) {
        (None, _) => true,
        (Some(rule), None) => {
            let is_found =
                rule.object.namespace == *service.namespace() || rule.object.namespace == mesh.root_namespace;
            let defines = defines_subset(rule, &subset);
            !defines || (is_found && rule.export_to == Visibility::Public && rule.selector.is_none())
        }
        (Some(_), Some(_)) => false,
    }
}

fn defines_subset(rule: &DestinationRule, subset: &SubsetName) -> bool {
    rule.spec.subsets.iter().any(|defined| defined.name == subset.as_str())
}

/// The proxies that use a rule.
fn callers_of(
    mesh: &Mesh<'_>,
    proxies: &Proxies,
    id: ConfigId,
    config: &RouteConfig,
    rule: &ConfigRule,
) -> Vec<Caller> {
    let mut callers = Vec::new();
    if config.acts_in_mesh() {
        let possible =
            if proxies.sidecars.is_empty() { possible_sidecars(mesh, config) } else { proxies.sidecars.clone() };
        callers.extend(possible.into_iter().filter(|caller| is_used_by_sidecar(mesh, caller, id, config, rule)));
    }
    for name in &config.gateways {
        let GatewayName::Named { namespace, name: gateway_name } = name else { continue };
        let gateway = mesh.find_istio_gateway(namespace, gateway_name);
        let mut namespaces: BTreeSet<Namespace> = gateway
            .into_iter()
            .flat_map(|gateway| &gateway.workloads)
            .map(|id| mesh.workload(*id).namespace().clone())
            .collect();
        if namespaces.is_empty() {
            namespaces.insert(namespace.clone());
        }
        let ports = gateway
            .into_iter()
            .flat_map(|gateway| &gateway.spec.servers)
            .filter_map(|server| server.port.as_ref().and_then(|port| u16::try_from(port.number).ok()));
        let mut ports: Vec<u16> = ports.collect();
        if ports.is_empty() {
            ports.push(HTTP_PORT);
        }
        for namespace in namespaces {
            let caller = Caller { kind: CallerKind::Gateway, ..Caller::in_namespace(namespace) };
            let is_visible = mesh.route_configs().is_visible(id, &caller.namespace);
            if is_visible && ports.iter().any(|port| applies(mesh, config, rule, &caller, name, *port)) {
                callers.push(caller);
            }
        }
    }
    callers
}

/// Sidecars that may exist, for a source without pods: in the namespaces of the configuration and of its hosts.
fn possible_sidecars(mesh: &Mesh<'_>, config: &RouteConfig) -> Vec<Caller> {
    let hosts = config.hosts.iter().filter_map(|host| mesh.find_host(host.as_str()));
    let mut namespaces: BTreeSet<Namespace> = hosts.map(|id| mesh.service(id).namespace().clone()).collect();
    namespaces.insert(config.namespace.clone());
    namespaces.into_iter().map(Caller::in_namespace).collect()
}

fn is_used_by_sidecar(mesh: &Mesh<'_>, caller: &Caller, id: ConfigId, config: &RouteConfig, rule: &ConfigRule) -> bool {
    config.hosts.iter().any(|host| {
        let service = mesh.find_host(host.as_str()).map(|id| mesh.service(id));
        let namespace = service.map(|service| service.namespace().clone());
        let namespace = namespace.or_else(|| mesh.namespace_of_host(host)).unwrap_or_else(|| config.namespace.clone());
        let ports = service.map(|service| &service.ports[..]).unwrap_or_default();
        let mut numbers: Vec<u16> =
            ports.iter().filter(|port| port.protocol.is_http_or_auto()).map(|port| port.number).collect();
        if service.is_none() {
            numbers.push(HTTP_PORT);
        }
        numbers.into_iter().any(|port| {
            applies(mesh, config, rule, caller, &GatewayName::Mesh, port)
                && mesh.owner_of_host(caller, host, &namespace, port) == Some(id)
        })
    })
}

fn applies(
    mesh: &Mesh<'_>,
    config: &RouteConfig,
    rule: &ConfigRule,
    caller: &Caller,
    gateway: &GatewayName,
    port: u16,
) -> bool {
    let matches = &rule.http_rule(mesh, config).matches;
    let applies = |conditions| matching::applies_to(conditions, config, caller, gateway, port).is_ok();
    matches.is_empty() || matches.iter().any(applies)
}

/// Why the caller's proxy has no cluster for a destination whose host exists.
fn missing_cause(
    mesh: &Mesh<'_>,
    caller: &Caller,
    host: &Host,
    destination: &Destination,
) -> Option<MissingClusterCause> {
    let Some(visible) = scope::inferred_service(mesh, &caller.namespace, host.as_str()) else {
        let service = mesh.find_host(host.as_str()).map(|id| mesh.service(id).object.clone())?;
        return Some(MissingClusterCause::NotExported { service });
    };
    let service = mesh.service(visible.service);
    if let Resolution::ExternalName(target) = &service.resolution {
        let is_registered = mesh.has_host(target.as_str());
        return (!is_registered).then(|| MissingClusterCause::Alias { target: target.clone() });
    }
    let subset = subset_of(destination)?;
    let applied = mesh.applied_rules(caller, service);
    let is_defined = || mesh.destination_rules.covering(host.as_str()).any(|(_, rule)| defines_subset(rule, &subset));
    if mesh.destination_rules.subset(&applied, &subset).is_some() || !is_defined() {
        return None;
    }
    let applied = applied.0.iter().map(|id| mesh.destination_rules.get(*id).object.clone()).collect();
    Some(MissingClusterCause::SubsetHidden { applied })
}
