//! One Service from the mesh to its report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::inspect::{
    BackendReport, CallerClassReport, GatewayReport, PodsReport, PortReport, ProxiesReport, RetriesReport, RuleReport,
    ServiceReport,
};
use super::policy::policies;
use super::server_side::{authorization, tls, workloads};
use crate::mesh::Mesh;
use crate::mesh::RouteReference;
use crate::mesh::caller_classes::{CallerClass, SIDECARS_MAX};
use crate::mesh::destination_rule::{AppliedRules, EffectivePolicy};
use crate::mesh::ids::{ObjectRef, ServiceId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::{PodCount, Resolution, Service, ServicePort, TargetPort};
use crate::mesh::written_route::{CallerBackend, CallerBackendState, WrittenAction, WrittenRule};
use crate::mesh::xds::RouteOwner;
use crate::schema::Kind;
use crate::vocabulary::duration;

/// The objects whose findings touch a Service: itself, what routes to it, what applies to it, its pods.
pub(super) fn related(mesh: &Mesh<'_>, id: ServiceId) -> BTreeSet<ObjectRef> {
    let service = mesh.service(id);
    let mut objects = BTreeSet::from([service.object.clone()]);
    objects.extend(mesh.virtual_services.covering(&service.host).map(|object| object.object.clone()));
    objects.extend(mesh.destination_rules.covering(service.host.as_str()).map(|(_, rule)| rule.object.clone()));
    objects.extend(mesh.attached_routes(id).iter().map(|route| mesh.route_object(*route).object.clone()));
    for user in mesh.users_of(id) {
        match *user {
            RouteReference::VirtualService(object, _) => {
                objects.insert(mesh.virtual_services.get(object).object.clone());
            }
            RouteReference::RouteObject(route, _) => {
                objects.insert(mesh.route_object(route).object.clone());
            }
        }
    }
    objects.extend(mesh.exposures(id).into_iter().map(|exposure| exposure.gateway));
    objects.extend(mesh.workloads_of(service).map(|workload| workload.object.clone()));
    objects
}

/// Everything about one Service.
pub(super) fn service(mesh: &Mesh<'_>, id: ServiceId, finding_counts: BTreeMap<&'static str, usize>) -> ServiceReport {
    let service = mesh.service(id);
    let views = mesh.caller_classes(id);
    let everybody = &views[0];
    let known = mesh.knows_pods_of(service);
    let routes = routes(mesh, service, everybody);
    ServiceReport {
        namespace: service.namespace().to_string(),
        name: name(mesh, service),
        kind: service.object.kind.name().to_owned(),
        host: service.host.to_string(),
        resolution: match &service.resolution {
            Resolution::ClusterIp => "ClusterIP".to_owned(),
            Resolution::Headless => "Headless".to_owned(),
            Resolution::ExternalName(target) => format!("ExternalName {target}"),
            Resolution::Entry(word) => word.to_string(),
        },
        ports: service.ports.iter().map(|port| self::port(mesh, service, port, everybody)).collect(),
        pods: pods(service.endpoints, known),
        proxies: proxies(mesh, service),
        callers: views[1..].iter().map(|view| caller(mesh, service, view, everybody, &routes)).collect(),
        routes,
        destination_rules: objects(mesh, &everybody.rules),
        policies: policies(mesh, service, everybody),
        workloads: workloads(mesh, service),
        tls: tls(mesh, service),
        authorization: authorization(mesh, service),
        gateways: mesh
            .exposures(id)
            .into_iter()
            .map(|exposure| GatewayReport {
                gateway: (&exposure.gateway).into(),
                known: exposure.known,
                port: exposure.port,
                protocol: exposure.protocol,
                tls: exposure.tls.to_string(),
                hosts: exposure.hosts,
                route: (&exposure.route).into(),
            })
            .collect(),
        unread: unread(mesh, service),
        not_modelled: not_modelled(mesh, service),
        has_grpc: service.has_grpc(),
        finding_counts,
        live: None,
    }
}

/// The Service's name; for a ServiceEntry's host in the cluster domain, the name in the host.
fn name(mesh: &Mesh<'_>, service: &Service) -> String {
    let host = service.host.as_str();
    match mesh.namespace_of_host(&service.host) {
        Some(_) if !host.starts_with('*') => host.split('.').next().unwrap_or(host).to_owned(),
        Some(_) | None => service.object.name.to_string(),
    }
}

pub(super) fn pods(count: PodCount, known: bool) -> PodsReport {
    PodsReport { ready: count.ready, total: count.total, unknown: count.unknown, known }
}

fn proxies(mesh: &Mesh<'_>, service: &Service) -> ProxiesReport {
    let mut count = ProxiesReport::default();
    for workload in mesh.workloads_of(service) {
        count.total += workload.count;
        match workload.proxy.is_meshed() {
            Some(true) => count.with += workload.count,
            Some(false) => {}
            None => count.unknown += workload.count,
        }
    }
    count
}

fn port(mesh: &Mesh<'_>, service: &Service, port: &ServicePort, view: &CallerClass) -> PortReport {
    let policy = mesh.destination_rules.policy(&view.rules, port.number, None);
    PortReport {
        number: port.number,
        name: port.name.as_deref().unwrap_or_default().to_owned(),
        app_protocol: port.app_protocol.as_deref().map(str::to_owned),
        protocol: port.protocol.as_str(),
        protocol_label: port.protocol.label(),
        decided_by: port.decided_by.to_string(),
        evidence: port.evidence.iter().map(ToString::to_string).collect(),
        target_port: match &port.target {
            TargetPort::Number(number) => number.to_string(),
            TargetPort::Name(name) => name.to_string(),
        },
        inbound: inbound(port.protocol).to_owned(),
        outbound: outbound(mesh, service, port.protocol, &policy),
        gateway: gateway(mesh, port.protocol, &policy),
    }
}

/// What the server's proxy makes of a protocol.
fn inbound(protocol: Protocol) -> &'static str {
    match protocol.family() {
        ProtocolFamily::Http => "calls are seen one by one",
        ProtocolFamily::Auto => "HTTP/2 is detected, other bytes pass",
        ProtocolFamily::Tcp => "bytes only",
        ProtocolFamily::Nothing => "no listener",
    }
}

fn outbound(mesh: &Mesh<'_>, service: &Service, protocol: Protocol, policy: &EffectivePolicy<'_>) -> String {
    let upstream = match protocol.family() {
        ProtocolFamily::Nothing => return "no listener".to_owned(),
        ProtocolFamily::Tcp => return "one connection goes to one pod; no routes, no retries".to_owned(),
        ProtocolFamily::Http | ProtocolFamily::Auto if policy.uses_client_protocol() => {
            "the caller's protocol to the server"
        }
        ProtocolFamily::Http if protocol.is_http2() => "HTTP/2 to the server",
        ProtocolFamily::Http if upgraded(mesh, protocol, policy) => "HTTP/2 to the server (upgraded)",
        ProtocolFamily::Http => "HTTP/1.1 to the server",
        ProtocolFamily::Auto => "the caller's protocol to the server, by detection",
    };
    if service.resolution == Resolution::Headless {
        return format!("routed per call, to the pod that was dialled; {upstream}");
    }
    format!("balanced per call; {upstream}")
}

fn gateway(mesh: &Mesh<'_>, protocol: Protocol, policy: &EffectivePolicy<'_>) -> String {
    match protocol.family() {
        ProtocolFamily::Nothing => "no listener",
        ProtocolFamily::Tcp => "bytes only",
        ProtocolFamily::Http | ProtocolFamily::Auto if policy.uses_client_protocol() => {
            "the client's protocol to the server"
        }
        ProtocolFamily::Http if protocol.is_http2() => "HTTP/2 to the server",
        ProtocolFamily::Http if upgraded(mesh, protocol, policy) => "HTTP/2 to the server (upgraded)",
        ProtocolFamily::Auto if policy.h2_upgrade() == Some("UPGRADE") => "HTTP/2 to the server (upgraded)",
        ProtocolFamily::Http | ProtocolFamily::Auto => "HTTP/1.1 to the server: gRPC fails",
    }
    .to_owned()
}

pub(super) fn upgraded(mesh: &Mesh<'_>, protocol: Protocol, policy: &EffectivePolicy<'_>) -> bool {
    match policy.h2_upgrade() {
        Some("UPGRADE") => true,
        Some("DO_NOT_UPGRADE") => false,
        _ => protocol.family() == ProtocolFamily::Http && mesh.config.h2_upgrade_policy.as_deref() == Some("UPGRADE"),
    }
}

fn routes(mesh: &Mesh<'_>, service: &Service, view: &CallerClass) -> Vec<RuleReport> {
    mesh.rules_of(view.owner).iter().map(|rule| route(mesh, service, view, rule)).collect()
}

fn route(mesh: &Mesh<'_>, service: &Service, view: &CallerClass, rule: &WrittenRule) -> RuleReport {
    let (action, backends) = match &rule.action {
        WrittenAction::Forward(targets) => {
            ("forward".to_owned(), mesh.backends(&view.sample, targets, service.main_port()))
        }
        WrittenAction::Redirect => ("redirect".to_owned(), Vec::new()),
        WrittenAction::DirectResponse(status) => (format!("direct-response {status}"), Vec::new()),
        WrittenAction::Delegate { object } => (format!("delegate {}", object.path()), Vec::new()),
    };
    RuleReport {
        object: (&rule.object).into(),
        index: rule.index,
        name: rule.name.clone(),
        matches: rule.matches.iter().map(ToString::to_string).collect(),
        action,
        backends: backends.iter().map(|backend| self::backend(mesh, backend)).collect(),
        timeout_ms: rule.timeout.map_or(0, millis),
        retries: RetriesReport {
            attempts: rule.retries.attempts,
            retry_on: rule.retries.retry_on.clone(),
            status_codes: rule.retries.status_codes.clone(),
            per_try_timeout_ms: rule.retries.per_try_timeout.map_or(0, millis),
            owner: rule.retries.owner.to_string(),
        },
        faults: rule.faults.clone(),
        mirrors: rule
            .mirrors
            .iter()
            .map(|mirror| {
                let subset = mirror.subset.as_ref().map(|subset| format!(" {subset}")).unwrap_or_default();
                let share = crate::vocabulary::share::format_percent(mirror.percent);
                format!("{share} to {}{subset}", mesh.short_host(&mirror.host))
            })
            .collect(),
        rewrites: rule.rewrites.clone(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn backend(mesh: &Mesh<'_>, backend: &CallerBackend) -> BackendReport {
    let target = &backend.target;
    BackendReport {
        host: target.host.to_string(),
        short: mesh.short_host(&target.host).to_owned(),
        port: target.port,
        subset: target.subset.as_ref().map(ToString::to_string),
        weight: target.weight,
        share: (backend.share * 100.0).round() / 100.0,
        state: match backend.state {
            CallerBackendState::Ok => "ok",
            CallerBackendState::NoCluster => "no-cluster",
            CallerBackendState::NoEndpoints => "no-endpoints",
            CallerBackendState::Unknown => "unknown",
        },
        pods: pods(backend.pods, backend.state != CallerBackendState::Unknown),
    }
}

fn objects(mesh: &Mesh<'_>, rules: &AppliedRules) -> Vec<super::ObjectReport> {
    rules.0.iter().map(|id| (&mesh.destination_rules.get(*id).object).into()).collect()
}

fn caller(
    mesh: &Mesh<'_>,
    service: &Service,
    view: &CallerClass,
    everybody: &CallerClass,
    usual: &[RuleReport],
) -> CallerClassReport {
    let own = routes(mesh, service, view);
    let mut differs = Vec::new();
    let destination_rules = objects(mesh, &view.rules);
    if view.rules != everybody.rules {
        let names: Vec<_> = destination_rules.iter().map(|o| format!("{}/{}", o.namespace, o.name)).collect();
        let names = if names.is_empty() {
            "no DestinationRule".to_owned()
        } else {
            format!("DestinationRule {}", names.join(", "))
        };
        let have: BTreeSet<&str> = mesh.destination_rules.subset_names(&view.rules).collect();
        let lost: Vec<_> =
            mesh.destination_rules.subset_names(&everybody.rules).filter(|name| !have.contains(name)).collect();
        differs.push(format!("use {names}"));
        if !lost.is_empty() {
            let (noun, verb) = if lost.len() == 1 { ("subset", "does") } else { ("subsets", "do") };
            differs.push(format!("{noun} {} {verb} not exist for them", lost.join(", ")));
        }
    }
    if view.owner != everybody.owner {
        differs.push(match view.owner {
            RouteOwner::Default => "get Istio's default route".to_owned(),
            RouteOwner::Hidden => "do not see it: no route, no cluster (exportTo, or their Sidecar)".to_owned(),
            RouteOwner::Config(id) => {
                let objects = &mesh.route_configs().get(id).objects;
                let names: Vec<_> = objects.iter().map(ToString::to_string).collect();
                format!("are routed by {}", names.join(", "))
            }
        });
    }
    CallerClassReport {
        namespaces: view.namespaces.iter().map(ToString::to_string).collect(),
        pods: view.pods.clone(),
        destination_rules,
        routes: (own != usual).then_some(own),
        differs,
    }
}

/// What of this page may be wrong because objects that decide it could not be read.
fn unread(mesh: &Mesh<'_>, service: &Service) -> Vec<String> {
    let parts = [
        ("routes", &[Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute][..]),
        ("policy", &[Kind::DestinationRule]),
        ("security", &[Kind::PeerAuthentication, Kind::AuthorizationPolicy]),
        ("gateways", &[Kind::IstioGateway, Kind::Gateway]),
        ("defaults of the mesh", &[Kind::ConfigMap]),
    ];
    let mut texts = Vec::new();
    for (part, kinds) in parts {
        let names = |place: &dyn Fn(&Kind) -> bool| {
            kinds.iter().filter(|kind| place(kind)).map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
        };
        let here = names(&|kind| !mesh.coverage.knows(*kind, service.namespace()));
        let elsewhere =
            names(&|kind| mesh.coverage.knows(*kind, service.namespace()) && !mesh.coverage.knows_everywhere(*kind));
        if !here.is_empty() {
            texts.push(format!("{part} not known: {here} could not be read"));
        }
        if !elsewhere.is_empty() {
            texts.push(format!("{part} perhaps incomplete: {elsewhere} of other namespaces could not be read"));
        }
    }
    texts
}

/// What acts on the Service's proxies or callers without being part of the model.
fn not_modelled(mesh: &Mesh<'_>, service: &Service) -> Vec<String> {
    let mut texts = BTreeSet::new();
    for workload in mesh.workloads_of(service) {
        for extension in mesh.extensions_for(workload) {
            texts.insert(format!("{} acts on its proxies", extension.title()));
        }
    }
    if mesh.sidecars.len() > SIDECARS_MAX {
        let count = mesh.sidecars.len();
        texts.insert(format!("{count} Sidecar objects may narrow what callers see: `route --caller` tells for one"));
    }
    texts.into_iter().collect()
}

/// Writes milliseconds as a duration.
pub(crate) fn show_millis(millis: u64) -> String {
    if millis == 0 {
        return "0ms".to_owned();
    }
    duration::show(Duration::from_millis(millis))
}
