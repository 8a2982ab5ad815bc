//! The report of one Service, built from the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::inspect::{
    BackendReport, CallerClassReport, GatewayReport, PodsReport, PortReport, ProxiesReport, RuleAction, RuleReport,
    ServiceReport,
};
use super::policy::policy_reports;
use super::route::duration_ms;
use super::server_side::{authorization_reports, tls_reports, workload_reports};
use super::{ObjectReport, Percent};
use crate::mesh::Mesh;
use crate::mesh::RouteReference;
use crate::mesh::caller_backend::CallerBackend;
use crate::mesh::caller_classes::{CallerClass, MAX_EXAMINED_SIDECARS};
use crate::mesh::destination_rule::{AppliedRules, EffectivePolicy};
use crate::mesh::ids::{ObjectRef, ServiceId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::{PodCount, Resolution, Service, ServicePort, TargetPort};
use crate::mesh::written_route::{WrittenAction, WrittenRule};
use crate::mesh::xds::{BackendState, RouteOwner};
use crate::rules::Severity;
use crate::schema::Kind;
use crate::vocabulary::duration;

/// The objects whose findings concern a Service: the Service itself, route objects, DestinationRules, gateways, pods.
pub(super) fn related_objects(mesh: &Mesh<'_>, id: ServiceId) -> BTreeSet<ObjectRef> {
    let service = mesh.service(id);
    let mut objects = BTreeSet::from([service.object.clone()]);
    objects.extend(mesh.virtual_services.covering(&service.host).map(|object| object.object.clone()));
    objects.extend(mesh.destination_rules.covering(service.host.as_str()).map(|(_, rule)| rule.object.clone()));
    objects.extend(mesh.attached_routes(id).iter().map(|route| mesh.route_object(*route).object.clone()));
    for reference in mesh.route_references(id) {
        match *reference {
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
    for workload in mesh.workloads_of(service) {
        let policies = mesh.security_policies.authorization_policies(workload, &mesh.root_namespace);
        objects.extend(policies.map(|policy| policy.object.clone()));
        objects.extend(mesh.security_policies.peer_authentications_for(workload, &mesh.root_namespace).cloned());
    }
    objects
}

pub(super) fn service_report(
    mesh: &Mesh<'_>,
    id: ServiceId,
    finding_counts: BTreeMap<Severity, usize>,
) -> ServiceReport {
    let service = mesh.service(id);
    let classes = mesh.caller_classes(id);
    // The default class comes first.
    let [default_class, others @ ..] = classes.as_slice() else { unreachable!("every Service has the default class") };
    let has_pods = mesh.covers_endpoints_of(service);
    let routes = rule_reports(mesh, service, default_class);
    ServiceReport {
        namespace: service.namespace().to_string(),
        name: display_name(mesh, service),
        kind: service.object.kind.into(),
        host: service.host.to_string(),
        resolution: match &service.resolution {
            Resolution::ClusterIp => "ClusterIP".to_owned(),
            Resolution::Headless => "Headless".to_owned(),
            Resolution::ExternalName(_) => "ExternalName".to_owned(),
            Resolution::ServiceEntry(resolution) => resolution.to_string(),
        },
        external_name: match &service.resolution {
            Resolution::ExternalName(target) => Some(target.to_string()),
            _ => None,
        },
        ports: service.ports.iter().map(|port| self::port_report(mesh, service, port, default_class)).collect(),
        pods: pods_report(service.endpoints, has_pods),
        proxies: proxies_report(mesh, service),
        callers: others.iter().map(|class| caller_class_report(mesh, service, class, default_class, &routes)).collect(),
        routes,
        destination_rules: destination_rules(mesh, &default_class.destination_rules),
        policies: policy_reports(mesh, service, default_class),
        workloads: workload_reports(mesh, service),
        tls: tls_reports(mesh, service),
        authorization: authorization_reports(mesh, service),
        access: Vec::new(),
        gateways: mesh
            .exposures(id)
            .into_iter()
            .map(|exposure| GatewayReport {
                object: (&exposure.gateway).into(),
                in_source: exposure.is_gateway_found,
                port: exposure.port,
                protocol: exposure.protocol,
                tls: exposure.tls,
                hosts: exposure.hosts,
                route: (&exposure.route).into(),
            })
            .collect(),
        affected_by_gaps: affected_by_gaps(mesh, service),
        not_modelled: not_modelled(mesh, service),
        has_grpc: service.has_grpc_evidence(),
        finding_counts,
        live: None,
    }
}

/// The Service's name. For a ServiceEntry host in the cluster domain, the name in the host.
fn display_name(mesh: &Mesh<'_>, service: &Service) -> String {
    let host = service.host.as_str();
    match mesh.namespace_of_host(&service.host) {
        Some(_) if !host.starts_with('*') => host.split('.').next().unwrap_or(host).to_owned(),
        Some(_) | None => service.object.name.to_string(),
    }
}

pub(super) fn pods_report(count: PodCount, in_source: bool) -> PodsReport {
    PodsReport { ready: count.ready, total: count.total, unknown: count.unknown, in_source }
}

fn proxies_report(mesh: &Mesh<'_>, service: &Service) -> ProxiesReport {
    let mut count = ProxiesReport::default();
    for workload in mesh.workloads_of(service) {
        count.total += workload.pod_count;
        match workload.proxy.is_meshed() {
            Some(true) => count.present += workload.pod_count,
            Some(false) => {}
            None => count.unknown += workload.pod_count,
        }
    }
    count
}

fn port_report(mesh: &Mesh<'_>, service: &Service, port: &ServicePort, class: &CallerClass) -> PortReport {
    let policy = mesh.destination_rules.policy(&class.destination_rules, port.number, None);
    PortReport {
        number: port.number,
        name: port.name.as_deref().unwrap_or_default().to_owned(),
        app_protocol: port.app_protocol.as_deref().map(str::to_owned),
        protocol: port.protocol,
        decided_by: port.decided_by.to_string(),
        evidence: port.evidence.iter().map(ToString::to_string).collect(),
        target_port: match &port.target {
            TargetPort::Number(number) => number.to_string(),
            TargetPort::Name(name) => name.to_string(),
        },
        inbound: describe_inbound(port.protocol).to_owned(),
        outbound: describe_outbound(mesh, service, port.protocol, &policy),
        gateway: describe_gateway(mesh, port.protocol, &policy),
    }
}

/// How the server's sidecar handles calls.
fn describe_inbound(protocol: Protocol) -> &'static str {
    match protocol.family() {
        ProtocolFamily::Http => "handles each call",
        ProtocolFamily::Auto => "detects HTTP/2, passes other bytes through",
        ProtocolFamily::Tcp => "passes bytes through",
        ProtocolFamily::NoListener => "no listener",
    }
}

/// How a caller's sidecar handles calls.
fn describe_outbound(mesh: &Mesh<'_>, service: &Service, protocol: Protocol, policy: &EffectivePolicy<'_>) -> String {
    let upstream = match protocol.family() {
        ProtocolFamily::NoListener => return "no listener".to_owned(),
        ProtocolFamily::Tcp => return "each connection goes to one pod; no routes, no retries".to_owned(),
        ProtocolFamily::Http | ProtocolFamily::Auto if policy.uses_client_protocol() => {
            "the caller's protocol to the server"
        }
        ProtocolFamily::Http if protocol.is_http2() => "HTTP/2 to the server",
        ProtocolFamily::Http if is_upgraded_to_http2(mesh, protocol, policy) => "HTTP/2 to the server (upgraded)",
        ProtocolFamily::Http => "HTTP/1.1 to the server",
        ProtocolFamily::Auto => "the caller's protocol to the server, by detection",
    };
    if service.resolution == Resolution::Headless {
        return format!("routed per call, to the pod that the client dialed; {upstream}");
    }
    format!("balanced per call; {upstream}")
}

/// How a gateway handles calls.
fn describe_gateway(mesh: &Mesh<'_>, protocol: Protocol, policy: &EffectivePolicy<'_>) -> String {
    match protocol.family() {
        ProtocolFamily::NoListener => "no listener",
        ProtocolFamily::Tcp => "passes bytes through",
        ProtocolFamily::Http | ProtocolFamily::Auto if policy.uses_client_protocol() => {
            "the client's protocol to the server"
        }
        ProtocolFamily::Http if protocol.is_http2() => "HTTP/2 to the server",
        ProtocolFamily::Http if is_upgraded_to_http2(mesh, protocol, policy) => "HTTP/2 to the server (upgraded)",
        ProtocolFamily::Auto if policy.h2_upgrade_policy() == Some("UPGRADE") => "HTTP/2 to the server (upgraded)",
        ProtocolFamily::Http | ProtocolFamily::Auto => "HTTP/1.1 to the server: gRPC fails",
    }
    .to_owned()
}

pub(super) fn is_upgraded_to_http2(mesh: &Mesh<'_>, protocol: Protocol, policy: &EffectivePolicy<'_>) -> bool {
    match policy.h2_upgrade_policy() {
        Some("UPGRADE") => true,
        Some("DO_NOT_UPGRADE") => false,
        _ => protocol.family() == ProtocolFamily::Http && mesh.config.h2_upgrade_policy.as_deref() == Some("UPGRADE"),
    }
}

fn rule_reports(mesh: &Mesh<'_>, service: &Service, class: &CallerClass) -> Vec<RuleReport> {
    mesh.written_rules_of(class.route_owner).iter().map(|rule| rule_report(mesh, service, class, rule)).collect()
}

fn rule_report(mesh: &Mesh<'_>, service: &Service, class: &CallerClass, rule: &WrittenRule) -> RuleReport {
    let (mut status, mut delegate, mut backends) = (None, None, Vec::new());
    let action = match &rule.action {
        WrittenAction::Forward(written) => {
            backends = mesh.backends(&class.sample, written, service.main_port());
            RuleAction::Forward
        }
        WrittenAction::Redirect => RuleAction::Redirect,
        WrittenAction::DirectResponse(code) => {
            status = Some(*code);
            RuleAction::DirectResponse
        }
        WrittenAction::Delegate { object } => {
            delegate = Some(object.into());
            RuleAction::Delegate
        }
    };
    RuleReport {
        object: (&rule.object).into(),
        index: rule.index,
        name: rule.name.clone(),
        matches: rule.matches.iter().map(ToString::to_string).collect(),
        action,
        status,
        delegate,
        backends: backends.iter().map(|backend| self::backend_report(mesh, backend)).collect(),
        timeout_ms: rule.timeout.map_or(0, duration_ms),
        retries: (&rule.retries).into(),
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

fn backend_report(mesh: &Mesh<'_>, backend: &CallerBackend) -> BackendReport {
    let written = &backend.written;
    BackendReport {
        host: written.host.to_string(),
        short_host: mesh.short_host(&written.host).to_owned(),
        port: written.port,
        subset: written.subset.as_ref().map(ToString::to_string),
        weight: written.weight,
        share_percent: Percent(backend.share_percent).rounded(),
        state: backend.state,
        pods: pods_report(backend.pods, backend.state != BackendState::Unknown),
    }
}

fn destination_rules(mesh: &Mesh<'_>, rules: &AppliedRules) -> Vec<ObjectReport> {
    let rules = rules.0.iter().map(|id| mesh.destination_rules.get(*id));
    rules.filter(|rule| !rule.is_converted()).map(|rule| (&rule.object).into()).collect()
}

fn caller_class_report(
    mesh: &Mesh<'_>,
    service: &Service,
    class: &CallerClass,
    default_class: &CallerClass,
    default_routes: &[RuleReport],
) -> CallerClassReport {
    let own_routes = rule_reports(mesh, service, class);
    let mut differs = Vec::new();
    let destination_rules = destination_rules(mesh, &class.destination_rules);
    if class.destination_rules != default_class.destination_rules {
        let names: Vec<_> = destination_rules.iter().map(|rule| format!("{}/{}", rule.namespace, rule.name)).collect();
        let names = if names.is_empty() {
            "no DestinationRule".to_owned()
        } else {
            format!("DestinationRule {}", names.join(", "))
        };
        let subsets: BTreeSet<&str> = mesh.destination_rules.subset_names(&class.destination_rules).collect();
        let missing: Vec<_> = mesh
            .destination_rules
            .subset_names(&default_class.destination_rules)
            .filter(|name| !subsets.contains(name))
            .collect();
        differs.push(format!("use {names}"));
        if !missing.is_empty() {
            let (noun, verb) = if missing.len() == 1 { ("subset", "does") } else { ("subsets", "do") };
            differs.push(format!("{noun} {} {verb} not exist for them", missing.join(", ")));
        }
    }
    if class.route_owner != default_class.route_owner {
        differs.push(match class.route_owner {
            RouteOwner::Default => "get Istio's default route".to_owned(),
            RouteOwner::Hidden => "have no route and no cluster for it (exportTo, or their Sidecar)".to_owned(),
            RouteOwner::Config(id) => {
                let objects = &mesh.route_configs().get(id).objects;
                let names: Vec<_> = objects.iter().map(ToString::to_string).collect();
                format!("are routed by {}", names.join(", "))
            }
        });
    }
    CallerClassReport {
        namespaces: class.namespaces.iter().map(ToString::to_string).collect(),
        pod_labels: class.pod_labels.clone(),
        destination_rules,
        routes: (own_routes != default_routes).then_some(own_routes),
        differs,
    }
}

/// The parts of the report that gaps make incomplete, one sentence each.
fn affected_by_gaps(mesh: &Mesh<'_>, service: &Service) -> Vec<String> {
    let parts = [
        ("routes", &[Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute][..]),
        ("traffic policy", &[Kind::DestinationRule]),
        ("security", &[Kind::PeerAuthentication, Kind::RequestAuthentication, Kind::AuthorizationPolicy]),
        ("gateways", &[Kind::IstioGateway, Kind::Gateway]),
        ("mesh defaults", &[Kind::ConfigMap]),
    ];
    let mut sentences = Vec::new();
    for (part, kinds) in parts {
        let names = |is_missing: &dyn Fn(&Kind) -> bool| {
            kinds.iter().filter(|kind| is_missing(kind)).map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
        };
        let covers_own = |kind: &Kind| mesh.coverage.covers(*kind, service.namespace());
        let missing_own = names(&|kind| !covers_own(kind));
        let elsewhere = names(&|kind| covers_own(kind) && !mesh.coverage.covers_everywhere(*kind));
        if !missing_own.is_empty() {
            sentences.push(format!("{part} unknown: {missing_own} could not be read"));
        }
        if !elsewhere.is_empty() {
            sentences.push(format!("{part} may be incomplete: {elsewhere} in other namespaces could not be read"));
        }
    }
    sentences
}

/// Objects that act on the Service's proxies or callers and are not modelled, one sentence each.
fn not_modelled(mesh: &Mesh<'_>, service: &Service) -> Vec<String> {
    let mut sentences = BTreeSet::new();
    for workload in mesh.workloads_of(service) {
        for extension in mesh.extensions_for(workload) {
            sentences.insert(format!("{} acts on its proxies", extension.title()));
        }
    }
    if mesh.sidecars.len() > MAX_EXAMINED_SIDECARS {
        let count = mesh.sidecars.len();
        sentences.insert(format!("{count} Sidecar objects may limit the Services that callers have: `route --caller` evaluates them for one caller"));
    }
    sentences.into_iter().collect()
}

/// Formats milliseconds as a duration, such as `1m30s`.
pub(crate) fn format_millis(millis: u64) -> String {
    if millis == 0 {
        return "0ms".to_owned();
    }
    duration::format(Duration::from_millis(millis))
}
