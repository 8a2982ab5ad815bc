//! Links between objects: which routes lead to a Service, and what they say about gRPC.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::directory::Directory;
use super::evidence::{self, Evidence};
use super::gateway_api::RouteObject;
use super::ids::{RouteObjectId, ServiceId};
use super::route::{Action, Condition, RouteRule, TextMatch};
use super::service::Service;
use super::workload::{Proxy, Workload};
use super::{Mesh, RouteUse};

/// Gateway API routes by the Service that they are attached to.
pub(super) fn attach_routes(routes: &[RouteObject], directory: &Directory) -> HashMap<ServiceId, Vec<RouteObjectId>> {
    let mut attached: HashMap<ServiceId, Vec<RouteObjectId>> = HashMap::new();
    for (position, route) in routes.iter().enumerate() {
        for (namespace, name, _) in route.service_parents() {
            // Only a route beside its Service, or one for callers of its own namespace, acts at all.
            if let Some(service) = directory.find(namespace.as_str(), name) {
                let ids = attached.entry(service).or_default();
                if ids.last() != Some(&RouteObjectId::new(position)) {
                    ids.push(RouteObjectId::new(position));
                }
            }
        }
    }
    attached
}

/// Notes who sends to each Service, and what that says about gRPC.
pub(super) fn collect_evidence(mesh: &mut Mesh<'_>) {
    let mut users: HashMap<ServiceId, Vec<RouteUse>> = HashMap::new();
    let mut found: Vec<(ServiceId, Option<u16>, Evidence)> = Vec::new();
    for (id, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let user = RouteUse::VirtualService(id, rule.index);
            let retry_words =
                object.spec.http[rule.index].retries.as_ref().and_then(|retries| retries.retry_on.as_deref());
            note_rule(mesh, &rule, user, retry_words, false, &mut users, &mut found);
        }
    }
    for (position, object) in mesh.route_objects.iter().enumerate() {
        let id = RouteObjectId::new(position);
        for rule in mesh.route_object_rules(object) {
            let user = RouteUse::RouteObject(id, rule.index);
            note_rule(mesh, &rule, user, None, object.is_grpc(), &mut users, &mut found);
        }
        if object.is_grpc() {
            for (namespace, name, port) in object.service_parents() {
                if let Some(service) = mesh.find_service(namespace.as_str(), name) {
                    found.push((service, port, Evidence::GrpcRoute(object.object.clone())));
                }
            }
        }
    }
    for (position, service) in mesh.services.iter().enumerate() {
        own_evidence(mesh, ServiceId::new(position), service, &mut found);
    }
    // Gateways and istiod take calls that are not theirs, or not the applications': they are no gRPC Services.
    let serves_apps: Vec<bool> = mesh.services.iter().map(|service| !is_infrastructure(mesh, service)).collect();
    for (id, port, evidence) in found {
        if !serves_apps[id.index()] {
            continue;
        }
        let ports = &mut mesh.services[id.index()].ports;
        // A rule that names no port speaks about the only port; among several it is no evidence for any.
        let port = match port {
            Some(number) => ports.iter_mut().find(|port| port.number == number),
            None if ports.len() == 1 => ports.first_mut(),
            None => None,
        };
        if let Some(port) = port
            && !port.evidence.contains(&evidence)
        {
            port.evidence.push(evidence);
        }
    }
    for service in &mut mesh.services {
        for port in &mut service.ports {
            port.evidence.sort();
        }
    }
    mesh.users = users;
}

fn note_rule(
    mesh: &Mesh<'_>,
    rule: &RouteRule,
    user: RouteUse,
    retry_on: Option<&str>,
    is_grpc_route: bool,
    users: &mut HashMap<ServiceId, Vec<RouteUse>>,
    found: &mut Vec<(ServiceId, Option<u16>, Evidence)>,
) {
    let Action::Forward(targets) = &rule.action else { return };
    let mut evidence = Vec::new();
    if is_grpc_route {
        evidence.push(Evidence::GrpcRoute(rule.object.clone()));
    }
    let words = evidence::grpc_retry_words(retry_on.unwrap_or_default());
    if !words.is_empty() {
        evidence.push(Evidence::RetryWords(rule.object.clone(), words.join(",").as_str().into()));
    }
    let mut only_port = None;
    for condition in rule.matches.iter().flat_map(|one| &one.conditions) {
        match condition {
            Condition::Path { text: TextMatch::Exact(path) | TextMatch::Prefix(path), .. }
                if !is_grpc_route && evidence::is_method_path(path) =>
            {
                evidence.push(Evidence::MethodPath(rule.object.clone(), path.as_str().into()));
            }
            Condition::Header { name, text, inverted: false } if name.eq_ignore_ascii_case("content-type") => {
                let (TextMatch::Exact(text) | TextMatch::Prefix(text) | TextMatch::Regex(text)) = text else {
                    continue;
                };
                if text.starts_with("application/grpc") && !text.starts_with("application/grpc-web") {
                    evidence.push(Evidence::ContentType(rule.object.clone()));
                }
            }
            Condition::Port(port) => only_port = u16::try_from(*port).ok(),
            Condition::Path { .. }
            | Condition::Header { .. }
            | Condition::Pseudo { .. }
            | Condition::Query { .. }
            | Condition::SourceLabels(_)
            | Condition::SourceNamespace(_)
            | Condition::Gateways(_) => {}
        }
    }
    for target in targets {
        let Some(service) = mesh.find_host(target.host.as_str()) else { continue };
        let list = users.entry(service).or_default();
        if list.last() != Some(&user) {
            list.push(user);
        }
        let port = target.port.and_then(|port| u16::try_from(port).ok()).or(only_port);
        found.extend(evidence.iter().map(|one| (service, port, one.clone())));
    }
}

/// What a Service and its pods say by themselves.
fn own_evidence(
    mesh: &Mesh<'_>,
    id: ServiceId,
    service: &Service,
    found: &mut Vec<(ServiceId, Option<u16>, Evidence)>,
) {
    for port in &service.ports {
        let mut note = |evidence| found.push((id, Some(port.number), evidence));
        if port.protocol.is_grpc() {
            note(Evidence::Declared);
        }
        if let Some(value) = port.app_protocol.as_ref().filter(|value| evidence::mentions_grpc(value)) {
            note(Evidence::AppProtocol(Arc::clone(value)));
        }
        if let Some(name) = port.name.as_ref().filter(|name| evidence::mentions_grpc(name)) {
            note(Evidence::PortName(Arc::clone(name)));
        }
        let mut probes: BTreeSet<String> = BTreeSet::new();
        let mut names: BTreeSet<&Arc<str>> = BTreeSet::new();
        for workload in mesh.workloads_of(service) {
            if let Some(number) = port.target.number_in(workload) {
                if workload.grpc_probes.contains(&number) && probes.len() < 2 {
                    probes.insert(workload.title());
                }
                let named =
                    workload.ports.iter().filter(|one| one.number == number).filter_map(|one| one.name.as_ref());
                names.extend(named.filter(|name| evidence::mentions_grpc(name)));
            }
        }
        for title in probes {
            note(Evidence::Probe(title.as_str().into()));
        }
        for name in names {
            note(Evidence::ContainerPort(Arc::clone(name)));
        }
    }
}

/// Whether a Service stands for gateways or for istiod.
fn is_infrastructure(mesh: &Mesh<'_>, service: &Service) -> bool {
    let is_gateway = |workload: &Workload| matches!(workload.proxy, Proxy::Gateway(_) | Proxy::Waypoint(_));
    let gateways = !service.workloads.is_empty() && mesh.workloads_of(service).all(is_gateway);
    gateways || service.selector.get("app") == Some("istiod")
}
