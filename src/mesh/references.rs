//! References between objects: the route rules that name a Service, and the gRPC evidence in them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::evidence::{self, Evidence};
use super::evidence_flow;
use super::gateway_api::RouteObject;
use super::ids::{Host, RouteObjectId, ServiceId};
use super::name_index::NameIndex;
use super::service::Service;
use super::workload::{ProxyKind, Workload};
use super::written_route::{TextMatch, WrittenAction, WrittenBackend, WrittenCondition, WrittenRule};
use super::{Mesh, RouteReference};
use crate::schema::gateway_api;

/// HTTPRoutes and GRPCRoutes by the Service that is their parent.
pub(super) fn attach_routes(routes: &[RouteObject], name_index: &NameIndex) -> HashMap<ServiceId, Vec<RouteObjectId>> {
    let mut attached: HashMap<ServiceId, Vec<RouteObjectId>> = HashMap::new();
    for (position, route) in routes.iter().enumerate() {
        for (namespace, name, _) in route.service_parents() {
            if let Some(service) = name_index.find(namespace.as_str(), name) {
                let ids = attached.entry(service).or_default();
                if ids.last() != Some(&RouteObjectId::new(position)) {
                    ids.push(RouteObjectId::new(position));
                }
            }
        }
    }
    attached
}

/// Fills `route_references` and the evidence of each port.
#[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
pub(super) fn collect_evidence(mesh: &mut Mesh<'_>) {
    let mut collected = CollectedReferences::default();
    for (id, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let reference = RouteReference::VirtualService(id, rule.index);
            let retry_on =
                object.spec.http[rule.index].retries.as_ref().and_then(|retries| retries.retry_on.as_deref());
            let WrittenAction::Forward(backends) = &rule.action else { continue };
            let (evidence, only_port) = evidence_of_rule(&rule, retry_on);
            let port = |backend: &WrittenBackend| backend.port.and_then(|port| u16::try_from(port).ok()).or(only_port);
            let backends: Vec<_> = backends.iter().map(|backend| (backend.host.clone(), port(backend))).collect();
            collected.add_rule(mesh, reference, &backends, &evidence);
        }
    }
    for (position, object) in mesh.route_objects.iter().enumerate() {
        let id = RouteObjectId::new(position);
        for (index, rule) in object.route.spec.rules.iter().enumerate() {
            let backends = object.backend_hosts(rule, &mesh.cluster_domain).into_iter();
            let backends: Vec<_> = backends.map(|(_, host, port)| (host, port)).collect();
            let evidence = evidence_of_route(object, rule);
            collected.add_rule(mesh, RouteReference::RouteObject(id, index), &backends, &evidence);
        }
        if object.is_grpc() {
            for (namespace, name, port) in object.service_parents() {
                if let Some(service) = mesh.find_service(namespace.as_str(), name) {
                    collected.evidence.push((service, port, Evidence::GrpcRoute(object.object.clone())));
                }
            }
        }
    }
    for (position, service) in mesh.services.iter().enumerate() {
        collected.add_service(mesh, ServiceId::new(position), service);
    }
    // Gateways forward calls to other Services, and istiod serves proxies. Neither is a gRPC Service of an application.
    let is_application: Vec<bool> = mesh.services.iter().map(|service| !is_infrastructure(mesh, service)).collect();
    assign_evidence(mesh, &is_application, collected.evidence);
    mesh.route_references = collected.references;
    let routed = evidence_flow::routed_evidence(mesh, &is_application).into_iter();
    let routed = routed.map(|(service, port, evidence)| (service, Some(port), evidence)).collect();
    assign_evidence(mesh, &is_application, routed);
}

/// Adds evidence to the ports of Services, without duplicates and sorted.
#[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
fn assign_evidence(mesh: &mut Mesh<'_>, is_application: &[bool], evidence: Vec<(ServiceId, Option<u16>, Evidence)>) {
    for (id, port, evidence) in evidence {
        if !is_application[id.index()] {
            continue;
        }
        let ports = &mut mesh.services[id.index()].ports;
        // A rule without a port is evidence for a Service with one port. With several ports it is ambiguous.
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
}

/// The gRPC evidence in a VirtualService rule, and the port in its match, if any.
fn evidence_of_rule(rule: &WrittenRule, retry_on: Option<&str>) -> (Vec<Evidence>, Option<u16>) {
    let mut evidence = Vec::new();
    let conditions = evidence::grpc_retry_conditions(retry_on.unwrap_or_default());
    if !conditions.is_empty() {
        evidence.push(Evidence::RetryConditions(rule.object.clone(), conditions.join(",").as_str().into()));
    }
    let mut only_port = None;
    for condition in rule.matches.iter().flat_map(|alternative| &alternative.conditions) {
        match condition {
            WrittenCondition::Path { text: TextMatch::Exact(path) | TextMatch::Prefix(path), .. }
                if evidence::is_method_path(path) =>
            {
                evidence.push(Evidence::MethodPath(rule.object.clone(), path.as_str().into()));
            }
            WrittenCondition::Header { name, text, is_inverted: false } => {
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
            | WrittenCondition::PseudoHeader { .. }
            | WrittenCondition::Query { .. }
            | WrittenCondition::SourceLabels(_)
            | WrittenCondition::SourceNamespace(_)
            | WrittenCondition::Gateways(_) => {}
        }
    }
    (evidence, only_port)
}

/// The gRPC evidence in a rule of an HTTPRoute or GRPCRoute.
fn evidence_of_route(object: &RouteObject, rule: &gateway_api::ApiRouteRule) -> Vec<Evidence> {
    if object.is_grpc() {
        return vec![Evidence::GrpcRoute(object.object.clone())];
    }
    let mut evidence = Vec::new();
    for alternative in &rule.matches {
        if let Some(path) = alternative.path.as_ref().and_then(|path| path.value.as_deref())
            && evidence::is_method_path(path)
        {
            evidence.push(Evidence::MethodPath(object.object.clone(), path.into()));
        }
        let headers = alternative.headers.iter();
        let mut headers = headers.filter_map(|header| Some((header.name.as_deref()?, header.value.as_deref()?)));
        if headers.any(|(name, value)| evidence::is_grpc_content_type(name, value)) {
            evidence.push(Evidence::ContentType(object.object.clone()));
        }
    }
    evidence
}

/// References and evidence, before the evidence is assigned to ports.
#[derive(Default)]
struct CollectedReferences {
    references: HashMap<ServiceId, Vec<RouteReference>>,
    /// Service, port if it is certain, and evidence.
    evidence: Vec<(ServiceId, Option<u16>, Evidence)>,
}

impl CollectedReferences {
    /// Adds a rule with the hosts and ports of its backends.
    fn add_rule(
        &mut self,
        mesh: &Mesh<'_>,
        reference: RouteReference,
        backends: &[(Host, Option<u16>)],
        evidence: &[Evidence],
    ) {
        for (host, port) in backends {
            let Some(service) = mesh.find_host(host.as_str()) else { continue };
            let references = self.references.entry(service).or_default();
            if references.last() != Some(&reference) {
                references.push(reference);
            }
            self.evidence.extend(evidence.iter().map(|item| (service, *port, item.clone())));
        }
    }

    /// Adds the evidence in a Service and its pods.
    fn add_service(&mut self, mesh: &Mesh<'_>, id: ServiceId, service: &Service) {
        for port in &service.ports {
            let mut add = |evidence| self.evidence.push((id, Some(port.number), evidence));
            if port.protocol.is_grpc() {
                add(Evidence::Declared);
            }
            if let Some(value) = port.app_protocol.as_ref().filter(|value| evidence::mentions_grpc(value)) {
                add(Evidence::AppProtocol(Arc::clone(value)));
            }
            if let Some(name) = port.name.as_ref().filter(|name| evidence::mentions_grpc(name)) {
                add(Evidence::PortName(Arc::clone(name)));
            }
            let mut probes: BTreeSet<String> = BTreeSet::new();
            let mut names: BTreeSet<&Arc<str>> = BTreeSet::new();
            for workload in mesh.workloads_of(service) {
                if let Some(number) = port.target.number_in(workload) {
                    if workload.grpc_probes.contains(&number) && probes.len() < 2 {
                        probes.insert(workload.title());
                    }
                    let declared = workload.ports.iter().filter(|container_port| container_port.number == number);
                    let declared = declared.filter_map(|container_port| container_port.name.as_ref());
                    names.extend(declared.filter(|name| evidence::mentions_grpc(name)));
                }
            }
            for title in probes {
                add(Evidence::Probe(title.as_str().into()));
            }
            for name in names {
                add(Evidence::ContainerPort(Arc::clone(name)));
            }
        }
    }
}

/// Whether a Service selects gateways or istiod.
fn is_infrastructure(mesh: &Mesh<'_>, service: &Service) -> bool {
    let is_gateway = |workload: &Workload| matches!(workload.proxy, ProxyKind::Gateway(_) | ProxyKind::Waypoint(_));
    let selects_gateways = !service.workloads.is_empty() && mesh.workloads_of(service).all(is_gateway);
    selects_gateways || service.selector.get("app") == Some("istiod")
}
