//! Decides one call for many sidecars: callers that nothing in the mesh tells apart share one compiled proxy.
//!
//! A proxy has routes for all Services it sees, so a proxy for each namespace would cost namespaces times Services. What
//! istiod sends depends on the namespace only where an object names it or lies in it; those namespaces are compiled one by
//! one. DestinationRules change backends but not the choice of a route, so they are compared for the backends alone.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::host_patterns;
use super::route_config::RouteConfig;
use super::{Call, CallDecision, Caller, CallerKind, ProxyConfig, route_table, scope};
use crate::mesh::destination_rule::AppliedRules;
use crate::mesh::ids::{Namespace, ObjectRef, ServiceId};
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::service::{Resolution, Visibility};
use crate::mesh::workload::ProxyKind;
use crate::mesh::{Mesh, SidecarObject};

/// The decisions for one call so far.
pub struct SharedDecisions<'m, 'c> {
    mesh: &'m Mesh<'m>,
    call: &'c Call,
    /// Namespaces whose proxies may differ from all others.
    distinct: HashSet<Namespace>,
    /// Names that callers resolve in their own namespace.
    own_names: Vec<String>,
    groups: HashMap<GroupKey, Group>,
}

/// The properties of a sidecar, besides its DestinationRules, that can change its decision.
#[derive(PartialEq, Eq, Hash)]
struct GroupKey {
    sidecar: SidecarKey,
    labels: Vec<(String, String)>,
}

#[derive(PartialEq, Eq, Hash)]
enum SidecarKey {
    Absent,
    /// The Sidecar of the root namespace.
    Default(ObjectRef),
    /// The written `spec` of a Sidecar in the caller's namespace.
    Local(String),
}

/// Decisions of one group, by the DestinationRules of the Services that calls go to.
struct Group {
    services: Vec<ServiceId>,
    by_rules: HashMap<Vec<AppliedRules>, Rc<CallDecision>>,
}

impl<'m, 'c> SharedDecisions<'m, 'c> {
    /// Prepares the decisions for a call.
    pub fn new(mesh: &'m Mesh<'m>, call: &'c Call) -> Self {
        let mut distinct = HashSet::new();
        add_namespaces_of_services(mesh, &mut distinct);
        add_namespaces_of_configs(mesh, routed_hosts(mesh, call).as_deref(), &mut distinct);
        Self { mesh, call, distinct, own_names: own_names(mesh, call), groups: HashMap::new() }
    }

    /// What the caller's proxy does with the call: the same as [`ProxyConfig::decide`].
    pub fn decide(&mut self, caller: &Caller) -> Rc<CallDecision> {
        let Some(key) = self.group_of(caller) else { return self.compile(caller) };
        let mesh = self.mesh;
        let rules_of = |services: &[ServiceId]| -> Vec<AppliedRules> {
            services.iter().map(|id| mesh.applied_rules(caller, mesh.service(*id))).collect()
        };
        if let Some(group) = self.groups.get(&key)
            && let Some(decision) = group.by_rules.get(&rules_of(&group.services))
        {
            return Rc::clone(decision);
        }
        let decision = self.compile(caller);
        let group = self
            .groups
            .entry(key)
            .or_insert_with(|| Group { services: services_of(mesh, &decision), by_rules: HashMap::new() });
        let rules = rules_of(&group.services);
        group.by_rules.insert(rules, Rc::clone(&decision));
        decision
    }

    fn compile(&self, caller: &Caller) -> Rc<CallDecision> {
        Rc::new(ProxyConfig::new(self.mesh, caller.clone()).decide(self.call))
    }

    /// The group of a caller; `None` if its decision may be its own.
    fn group_of(&self, caller: &Caller) -> Option<GroupKey> {
        let namespace = &caller.namespace;
        let resolves_names =
            self.own_names.iter().any(|name| self.mesh.find_service(namespace.as_str(), name).is_some());
        if caller.kind != CallerKind::Sidecar || self.distinct.contains(namespace) || resolves_names {
            return None;
        }
        // A pod's calls to its own address do not pass its listeners.
        let has_pod_addresses = |id| {
            let resolution = |service: &crate::mesh::service::Service| {
                matches!(service.resolution, Resolution::Headless | Resolution::ServiceEntry(_))
            };
            self.mesh.services_selecting(id).any(resolution)
        };
        if caller.workload.is_some_and(has_pod_addresses) {
            return None;
        }
        // ztunnel handles the calls of pods in ambient mode, not a proxy.
        if caller.workload.is_some_and(|id| self.mesh.workload(id).proxy == ProxyKind::Ambient) {
            return None;
        }
        let keys = self.mesh.caller_label_keys().iter();
        let labels = keys.filter_map(|key| caller.labels.get(key).map(|value| (key.clone(), value.to_owned())));
        Some(GroupKey {
            sidecar: sidecar_key(scope::sidecar_of(self.mesh, caller), namespace)?,
            labels: labels.collect(),
        })
    }
}

/// `None` for a Sidecar that imports from the caller's own namespace by `./`.
fn sidecar_key(sidecar: Option<&SidecarObject>, namespace: &Namespace) -> Option<SidecarKey> {
    let Some(sidecar) = sidecar else { return Some(SidecarKey::Absent) };
    let mut hosts = sidecar.spec.egress.iter().flat_map(|egress| egress.hosts.iter());
    if hosts.any(|host| host.trim_start_matches('~').starts_with("./")) {
        return None;
    }
    Some(if sidecar.object.namespace == *namespace {
        SidecarKey::Local(format!("{:?}", sidecar.spec))
    } else {
        SidecarKey::Default(sidecar.object.clone())
    })
}

fn add_exported(export_to: &Visibility, own_namespace: &Namespace, distinct: &mut HashSet<Namespace>) {
    match export_to {
        Visibility::Public | Visibility::NoNamespace => {}
        Visibility::Private => distinct.extend([own_namespace.clone()]),
        Visibility::Namespaces(namespaces) => {
            distinct.extend(namespaces.iter().chain([own_namespace]).cloned());
        }
    }
}

/// Namespaces that see other Services than the rest, or prefer their own entry among several for one host.
fn add_namespaces_of_services(mesh: &Mesh<'_>, distinct: &mut HashSet<Namespace>) {
    for service in &mesh.services {
        add_exported(&service.export_to, service.namespace(), distinct);
        if mesh.services_named(service.host.as_str()).len() > 1 {
            distinct.insert(service.namespace().clone());
        }
    }
}

/// Namespaces that see other route configurations than the rest, that a match names, or that hold Gateway API routes, which
/// come first for the callers of their own namespace.
fn add_namespaces_of_configs(mesh: &Mesh<'_>, hosts: Option<&[String]>, distinct: &mut HashSet<Namespace>) {
    let configs = mesh.route_configs().iter().map(|(_, config)| config);
    for config in configs.filter(|config| hosts.is_none_or(|hosts| may_decide(mesh, config, hosts))) {
        add_exported(&config.export_to, &config.namespace, distinct);
        if config.is_gateway_api {
            distinct.insert(config.namespace.clone());
        }
        let conditions = config.rules.iter().flat_map(|rule| &rule.http_rule(mesh, config).matches);
        distinct.extend(conditions.filter_map(|condition| condition.source_namespace.as_deref()).map(Namespace::from));
    }
    for (_, object) in mesh.virtual_services.iter() {
        let conditions = object.spec.tcp.iter().chain(&object.spec.tls).flat_map(|rule| &rule.matches);
        distinct.extend(conditions.filter_map(|condition| condition.source_namespace.as_deref()).map(Namespace::from));
    }
}

/// The names of the host whose routes alone decide the call: the authority, if it is a Service that all namespaces see, with
/// an HTTP port. `name.namespace` stands for the full name.
fn routed_hosts(mesh: &Mesh<'_>, call: &Call) -> Option<Vec<String>> {
    let authority = route_table::without_port(&call.authority);
    let mut hosts = vec![authority.to_owned()];
    if mesh.services_named(authority).is_empty() {
        let (name, namespace) = authority.split_once('.')?;
        hosts.push(mesh.service(mesh.find_service(namespace, name)?).host.as_str().to_owned());
    }
    let entries = mesh.services_named(hosts.last()?);
    let is_plain = |id: &ServiceId| {
        let service = mesh.service(*id);
        let is_http = service.port(call.port).is_some_and(|port| port.protocol.family() == ProtocolFamily::Http);
        is_http && service.export_to == Visibility::Public && service.resolution == Resolution::ClusterIp
    };
    (call.dial.is_none() && entries.iter().all(is_plain)).then_some(hosts)
}

/// Whether a configuration can change the decision for a host that is a Service: it names the host, it makes Envoy reject
/// the table that holds the host's routes, or it adds filter chains.
fn may_decide(mesh: &Mesh<'_>, config: &RouteConfig, hosts: &[String]) -> bool {
    let names = |host: &String| config.hosts.iter().any(|pattern| host_patterns::overlap(host, pattern.as_str()));
    hosts.iter().any(names)
        || config.tcp(mesh).iter().len() + config.tls(mesh).iter().len() > 0
        || config.rules.iter().any(|rule| mesh.envoy_rejection(config, rule).is_some())
}

/// The names of Services that the dialed host, the authority or the target of an alias may mean in the caller's namespace:
/// `checkout`, or `pod.checkout`.
fn own_names(mesh: &Mesh<'_>, call: &Call) -> Vec<String> {
    let aliases = mesh.services.iter().filter_map(|service| match &service.resolution {
        Resolution::ExternalName(target) => Some(target.as_str()),
        Resolution::ClusterIp | Resolution::Headless | Resolution::ServiceEntry(_) => None,
    });
    let dialed = call.dial.as_deref().into_iter().chain([call.authority.as_str()]).map(route_table::without_port);
    let short = dialed.chain(aliases).filter(|host| host.split('.').count() <= 2);
    let mut names: Vec<String> = short.flat_map(|host| host.split('.')).map(str::to_ascii_lowercase).collect();
    names.sort();
    names.dedup();
    names
}

/// The Services whose DestinationRules shape the backends of a decision.
fn services_of(mesh: &Mesh<'_>, decision: &CallDecision) -> Vec<ServiceId> {
    let mirrors = decision.mirrors.iter().map(|mirror| &mirror.backend);
    let hosts = decision.backends.iter().chain(mirrors).filter_map(|backend| backend.host.as_ref());
    let mut services: Vec<ServiceId> = hosts.flat_map(|host| mesh.services_named(host.as_str())).copied().collect();
    services.sort_unstable();
    services.dedup();
    services
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mesh::{ResolveOptions, resolve};
    use crate::snapshot::manifest::{self, OnMalformed};
    use crate::snapshot::{Snapshot, SourceKind, SourceText};

    /// Namespaces `a` to `p`, one for each way in which a namespace can differ, and `plain` and `other`, which do not.
    const DISTINCT: &str = r"
- {kind: Service, name: db, namespace: a, spec: {clusterIP: None, ports: [{name: grpc, port: 1}], selector: {app: db}}}
- {kind: Service, name: pay, namespace: shop, spec: {ports: [{name: grpc, port: 1}], selector: {app: pay}}}
- {kind: Service, name: old, namespace: shop, spec: {type: ExternalName, externalName: pay.shop.svc.cluster.local, ports: [{name: grpc, port: 1}]}}
- {kind: Service, name: pay, namespace: b, spec: {ports: [{name: grpc, port: 1}], selector: {app: pay}}}
- {kind: Service, name: plain, namespace: plain, spec: {ports: [{name: grpc, port: 1}]}}
- {kind: Service, name: other, namespace: other, spec: {ports: [{name: grpc, port: 1}]}}
- {kind: DestinationRule, name: all, namespace: shop, spec: {host: pay, subsets: [{name: v1, labels: {v: '1'}}]}}
- {kind: DestinationRule, name: own, namespace: c, spec: {host: pay.shop.svc.cluster.local, trafficPolicy: {tls: {mode: DISABLE}}}}
- {kind: DestinationRule, name: labeled, namespace: plain, spec: {host: pay.shop.svc.cluster.local, workloadSelector: {matchLabels: {app: x}}, trafficPolicy: {tls: {mode: SIMPLE}}}}
- {kind: VirtualService, name: all, namespace: shop, spec: {hosts: [pay], http: [{match: [{sourceNamespace: d}], route: [{destination: {host: old}}]}, {match: [{sourceLabels: {app: green}}], route: [{destination: {host: plain.plain.svc.cluster.local}}]}, {route: [{destination: {host: pay, subset: v1}}]}]}}
- {kind: VirtualService, name: private, namespace: e, spec: {hosts: [pay.shop.svc.cluster.local], exportTo: ['.'], http: [{directResponse: {status: 503}}]}}
- {kind: VirtualService, name: exported, namespace: shop, spec: {hosts: [plain.plain.svc.cluster.local], exportTo: [f], http: [{directResponse: {status: 503}}]}}
- {kind: VirtualService, name: unrelated, namespace: k, spec: {hosts: [plain.plain.svc.cluster.local], exportTo: ['.'], http: [{route: [{destination: {host: pay.shop.svc.cluster.local}}]}]}}
- {kind: VirtualService, name: wildcard, namespace: l, spec: {hosts: ['*.shop.svc.cluster.local'], exportTo: ['.'], http: [{directResponse: {status: 503}}]}}
- {kind: VirtualService, name: rejected, namespace: m, spec: {hosts: [other.other.svc.cluster.local], exportTo: ['.'], http: [{directResponse: {status: 999}}]}}
- {kind: VirtualService, name: chains, namespace: o, spec: {hosts: [other.other.svc.cluster.local], exportTo: ['.'], tcp: [{route: [{destination: {host: pay.shop.svc.cluster.local}}]}]}}
- {kind: VirtualService, name: short, namespace: p, spec: {hosts: [pay.shop], exportTo: ['.'], http: [{directResponse: {status: 503}}]}}
- {kind: Service, name: web, namespace: shop, spec: {ports: [{name: http, port: 80}], selector: {app: pay}}}
- {kind: VirtualService, name: short-web, namespace: p, spec: {hosts: [web.shop], exportTo: ['.'], http: [{directResponse: {status: 503}}]}}
- {kind: ServiceEntry, name: first, namespace: g, spec: {hosts: [api.example.com], ports: [{number: 1, name: grpc, protocol: GRPC}], resolution: DNS}}
- {kind: ServiceEntry, name: second, namespace: h, spec: {hosts: [api.example.com], ports: [{number: 1, name: tcp, protocol: TCP}], resolution: DNS}}
- {kind: Sidecar, name: default, namespace: i, spec: {egress: [{hosts: ['./*']}]}}
- {kind: Sidecar, name: default, namespace: j, spec: {egress: [{hosts: ['*/*']}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}}
- {kind: Pod, name: db-0, namespace: a, labels: {app: db}}
- {kind: Pod, name: x, namespace: plain, labels: {app: x}}
- {kind: Pod, name: green, namespace: other, labels: {app: green}}
- {kind: Pod, name: blue, namespace: other, labels: {app: blue}}
";

    fn manifests() -> String {
        let converted = crate::snapshot::yaml::to_json(DISTINCT).unwrap();
        let items: Vec<serde_json::Value> = serde_json::from_str(converted.json.unwrap().get()).unwrap();
        let documents = items.into_iter().map(|mut item| {
            let api = match item["kind"].as_str().unwrap() {
                "Service" | "Pod" => "v1",
                _ => "networking.istio.io/v1",
            };
            let pod = serde_json::json!({"containers": [{"name": "app"}, {"name": "istio-proxy"}]});
            let spec = if item["spec"].is_null() { pod } else { item["spec"].take() };
            let metadata = serde_json::json!({"name": item["name"], "namespace": item["namespace"], "labels": item["labels"]});
            let status = serde_json::json!({"phase": "Running", "podIP": "10.0.0.1"});
            serde_json::json!({"apiVersion": api, "kind": item["kind"], "metadata": metadata, "spec": spec, "status": status})
                .to_string()
        });
        documents.collect::<Vec<_>>().join("\n---\n")
    }

    fn check(text: String) -> usize {
        let mut snapshot = Snapshot::new(SourceKind::Manifests);
        let text = Arc::new(SourceText { path: "x".to_owned(), text });
        manifest::read(&mut snapshot, text, "shop", OnMalformed::Stop).unwrap();
        let mesh = resolve(&snapshot, &ResolveOptions::default());
        let mut callers: Vec<Caller> = mesh.workload_ids().map(|id| Caller::of_workload(&mesh, id)).collect();
        let named =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "o", "p", "plain", "other", "shop"]
                .map(Namespace::from);
        let namespaces: HashSet<Namespace> =
            mesh.services.iter().map(|service| service.namespace().clone()).chain(named).collect();
        callers.extend(namespaces.into_iter().map(Caller::in_namespace));
        let hosts = mesh.services.iter().flat_map(|service| {
            let name = &*service.object.name;
            let namespace = service.namespace();
            [service.host.as_str().to_owned(), name.to_owned(), format!("{name}.{namespace}"), format!("db-0.{name}")]
        });
        let mut shared = 0;
        for host in hosts.collect::<HashSet<String>>() {
            for port in [1, 80, 50051] {
                let call =
                    Call { authority: format!("{host}:{port}"), port, path: "/a.B/C".to_owned(), ..Call::default() };
                let mut decisions = SharedDecisions::new(&mesh, &call);
                for caller in &callers {
                    let expected = ProxyConfig::new(&mesh, caller.clone()).decide(&call);
                    assert_eq!(format!("{:?}", decisions.decide(caller)), format!("{expected:?}"), "{host} {caller:?}");
                    shared += usize::from(decisions.group_of(caller).is_some());
                }
            }
        }
        shared
    }

    #[test]
    fn shared_decisions_are_those_of_the_callers_own_proxies() {
        assert!(check(manifests()) > 100);
        assert!(check(include_str!("../../demo/shop.yaml").to_owned()) > 10);
        check(include_str!("../../demo/healthy.yaml").to_owned());
    }

    #[test]
    fn callers_that_nothing_tells_apart_share_one_proxy() {
        let service = |number: usize| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: n{number}}}\n\
                 spec: {{ports: [{{name: grpc, port: 1}}]}}\n---\n\
                 apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: s, namespace: n{number}}}\n\
                 spec: {{host: s{number}}}\n---\n\
                 apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: s, namespace: n{number}}}\n\
                 spec: {{hosts: [s{number}], exportTo: ['.'], http: [{{route: [{{destination: {{host: s{number}}}}}]}}]}}\n---\n"
            )
        };
        let mut snapshot = Snapshot::new(SourceKind::Manifests);
        let text = Arc::new(SourceText { path: "x".to_owned(), text: (0..20).map(service).collect() });
        manifest::read(&mut snapshot, text, "shop", OnMalformed::Stop).unwrap();
        let mesh = resolve(&snapshot, &ResolveOptions::default());
        let call = Call { authority: "s0.n0.svc.cluster.local:1".to_owned(), port: 1, ..Call::default() };
        let mut decisions = SharedDecisions::new(&mesh, &call);
        let all: Vec<_> = (0..20)
            .map(|number| decisions.decide(&Caller::in_namespace(format!("n{number}").as_str().into())))
            .collect();
        assert!(all.iter().skip(2).all(|decision| Rc::ptr_eq(decision, &all[1])));
    }
}
