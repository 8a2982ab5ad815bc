//! Links between objects: which routes lead to a Service, and what they say about gRPC.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::evidence::{self, Evidence};
use super::gateway_api::RouteObject;
use super::ids::{Host, RouteObjectId, ServiceId};
use super::name_index::NameIndex;
use super::service::Service;
use super::workload::{ProxyKind, Workload};
use super::written_route::{TextMatch, WrittenAction, WrittenBackend, WrittenCondition, WrittenRule};
use super::{Mesh, RouteReference};
use crate::schema::gateway_api;

/// Gateway API routes by the Service that they are attached to.
pub(super) fn attach_routes(routes: &[RouteObject], directory: &NameIndex) -> HashMap<ServiceId, Vec<RouteObjectId>> {
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
    let mut users: HashMap<ServiceId, Vec<RouteReference>> = HashMap::new();
    let mut found: Vec<(ServiceId, Option<u16>, Evidence)> = Vec::new();
    for (id, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let user = RouteReference::VirtualService(id, rule.index);
            let retry_words =
                object.spec.http[rule.index].retries.as_ref().and_then(|retries| retries.retry_on.as_deref());
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let (evidence, only_port) = evidence_of_rule(&rule, retry_words);
            let port = |target: &WrittenBackend| target.port.and_then(|port| u16::try_from(port).ok()).or(only_port);
            let targets: Vec<_> = targets.iter().map(|target| (target.host.clone(), port(target))).collect();
            note_targets(mesh, user, &targets, &evidence, &mut users, &mut found);
        }
    }
    for (position, object) in mesh.route_objects.iter().enumerate() {
        let id = RouteObjectId::new(position);
        for (index, rule) in object.route.spec.rules.iter().enumerate() {
            let targets = object.targets(rule, &mesh.cluster_domain).into_iter();
            let targets: Vec<_> = targets.map(|(_, host, port)| (host, port)).collect();
            let evidence = evidence_of_route(object, rule);
            note_targets(mesh, RouteReference::RouteObject(id, index), &targets, &evidence, &mut users, &mut found);
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

/// What a rule of a VirtualService says about gRPC, and the only port it is for.
fn evidence_of_rule(rule: &WrittenRule, retry_on: Option<&str>) -> (Vec<Evidence>, Option<u16>) {
    let mut evidence = Vec::new();
    let words = evidence::grpc_retry_words(retry_on.unwrap_or_default());
    if !words.is_empty() {
        evidence.push(Evidence::RetryWords(rule.object.clone(), words.join(",").as_str().into()));
    }
    let mut only_port = None;
    for condition in rule.matches.iter().flat_map(|one| &one.conditions) {
        match condition {
            WrittenCondition::Path { text: TextMatch::Exact(path) | TextMatch::Prefix(path), .. }
                if evidence::is_method_path(path) =>
            {
                evidence.push(Evidence::MethodPath(rule.object.clone(), path.as_str().into()));
            }
            WrittenCondition::Header { name, text, inverted: false } => {
                let (TextMatch::Exact(text) | TextMatch::Prefix(text) | TextMatch::Regex(text)) = text else {
                    continue;
                };
                if evidence::is_grpc_content_type(name, text) {
                    evidence.push(Evidence::ContentType(rule.object.clone()));
                }
            }
            WrittenCondition::Port(port) => only_port = u16::try_from(*port).ok(),
            WrittenCondition::Path { .. }
            | WrittenCondition::Header { .. }
            | WrittenCondition::Pseudo { .. }
            | WrittenCondition::Query { .. }
            | WrittenCondition::SourceLabels(_)
            | WrittenCondition::SourceNamespace(_)
            | WrittenCondition::Gateways(_) => {}
        }
    }
    (evidence, only_port)
}

/// What a rule of a Gateway API route says about gRPC.
fn evidence_of_route(object: &RouteObject, rule: &gateway_api::ApiRouteRule) -> Vec<Evidence> {
    if object.is_grpc() {
        return vec![Evidence::GrpcRoute(object.object.clone())];
    }
    let mut evidence = Vec::new();
    for one in &rule.matches {
        if let Some(path) = one.path.as_ref().and_then(|path| path.value.as_deref())
            && evidence::is_method_path(path)
        {
            evidence.push(Evidence::MethodPath(object.object.clone(), path.into()));
        }
        let mut headers = one.headers.iter().filter_map(|one| Some((one.name.as_deref()?, one.value.as_deref()?)));
        if headers.any(|(name, value)| evidence::is_grpc_content_type(name, value)) {
            evidence.push(Evidence::ContentType(object.object.clone()));
        }
    }
    evidence
}

/// Notes a rule with the Services that it sends to.
fn note_targets(
    mesh: &Mesh<'_>,
    user: RouteReference,
    targets: &[(Host, Option<u16>)],
    evidence: &[Evidence],
    users: &mut HashMap<ServiceId, Vec<RouteReference>>,
    found: &mut Vec<(ServiceId, Option<u16>, Evidence)>,
) {
    for (host, port) in targets {
        let Some(service) = mesh.find_host(host.as_str()) else { continue };
        let list = users.entry(service).or_default();
        if list.last() != Some(&user) {
            list.push(user);
        }
        found.extend(evidence.iter().map(|one| (service, *port, one.clone())));
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
    let is_gateway = |workload: &Workload| matches!(workload.proxy, ProxyKind::Gateway(_) | ProxyKind::Waypoint(_));
    let gateways = !service.workloads.is_empty() && mesh.workloads_of(service).all(is_gateway);
    gateways || service.selector.get("app") == Some("istiod")
}
