//! How gRPC evidence travels: from a port that callers dial to the ports that routes send those calls to, and from a
//! Gateway server with `protocol: GRPC` to the Services behind it.

use std::collections::{HashMap, VecDeque};

use super::Mesh;
use super::evidence::{self, Evidence, RoutedEvidence};
use super::gateway::{self, IstioGateway, ServerTlsMode};
use super::host;
use super::ids::{Namespace, ObjectRef, ServiceId};
use super::protocol::Protocol;
use super::virtual_service::GatewayName;
use super::xds::{Caller, ConfigId, ConfigRule, EXAMPLE_PATH, RouteConfig, RouteOwner};
use crate::schema::gateway::GatewayServer;

/// A Service and the number of one of its ports.
type PortKey = (ServiceId, u16);

/// Calls to one port that a rule sends to another.
struct RoutedCalls {
    target: PortKey,
    route: ObjectRef,
    rule: String,
}

/// Routed calls by the port that callers dial.
type RoutedCallsByPort = HashMap<PortKey, Vec<RoutedCalls>>;

/// The evidence that reaches ports through routes. `own` is the evidence that ports have without it; ports with any of
/// it need no more, so a chain has the fewest steps.
#[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
pub(super) fn routed_evidence(mesh: &Mesh<'_>, is_application: &[bool]) -> Vec<(ServiceId, u16, Evidence)> {
    let mut known: HashMap<PortKey, String> = HashMap::new();
    let mut queue: VecDeque<PortKey> = VecDeque::new();
    for id in mesh.service_ids() {
        for port in &mesh.service(id).ports {
            if let Some(first) = port.evidence.first() {
                known.insert((id, port.number), first.to_string());
                queue.push_back((id, port.number));
            }
        }
    }
    let mut found = Vec::new();
    for (target, evidence) in gateway_evidence(mesh) {
        if is_application[target.0.index()] && !known.contains_key(&target) {
            known.insert(target, evidence.to_string());
            queue.push_back(target);
            found.push((target.0, target.1, evidence));
        }
    }
    let calls_by_port = if queue.is_empty() { HashMap::new() } else { routed_calls(mesh) };
    while let Some(dialed) = queue.pop_front() {
        for calls in calls_by_port.get(&dialed).into_iter().flatten() {
            if !is_application[calls.target.0.index()] || known.contains_key(&calls.target) {
                continue;
            }
            let host = mesh.short_host(&mesh.service(dialed.0).host);
            let evidence = Evidence::Routed(RoutedEvidence {
                route: calls.route.clone(),
                rule: calls.rule.as_str().into(),
                dialed: format!("{host}:{}", dialed.1).into(),
                because: known.get(&dialed).map_or("", String::as_str).into(),
            });
            known.insert(calls.target, evidence.to_string());
            queue.push_back(calls.target);
            found.push((calls.target.0, calls.target.1, evidence));
        }
    }
    found
}

/// The calls that rules for sidecars send to another port than the dialed one.
fn routed_calls(mesh: &Mesh<'_>) -> RoutedCallsByPort {
    let mut calls_by_port = RoutedCallsByPort::new();
    let mut owners = KnownOwners::new();
    for (id, config) in mesh.route_configs().iter().filter(|(_, config)| config.acts_in_mesh()) {
        for service in config.hosts.iter().flat_map(|host| services_of(mesh, host.as_str())) {
            let http_ports = mesh.service(service).ports.iter().filter(|port| port.protocol.is_http_or_auto());
            for port in http_ports.map(|port| port.number) {
                if owns_calls(mesh, id, config, (service, port), &mut owners) {
                    let targets = rule_targets(mesh, config, &GatewayName::Mesh, port);
                    let others = targets.into_iter().filter(|calls| calls.target != (service, port));
                    calls_by_port.entry((service, port)).or_default().extend(others);
                }
            }
        }
    }
    calls_by_port
}

fn services_of(mesh: &Mesh<'_>, pattern: &str) -> Vec<ServiceId> {
    if pattern.starts_with('*') {
        return mesh.service_ids().filter(|id| host::covers(pattern, mesh.service(*id).host.as_str())).collect();
    }
    mesh.find_host(pattern).into_iter().collect()
}

/// Owners found so far, by the namespace of the caller, Service and port. Many configurations may name one host.
type KnownOwners = HashMap<(Namespace, ServiceId, u16), RouteOwner>;

/// Whether any caller's routes to a port come from this configuration. If no other one names the host, they do.
fn owns_calls(
    mesh: &Mesh<'_>,
    id: ConfigId,
    config: &RouteConfig,
    (service, port): (ServiceId, u16),
    owners: &mut KnownOwners,
) -> bool {
    let host = &mesh.service(service).host;
    if mesh.route_configs().covering_host(host).flatten().nth(1).is_none() {
        return true;
    }
    let own = [config.namespace.clone(), mesh.service(service).namespace().clone(), Namespace::from("")];
    own.into_iter().any(|namespace| {
        let owner = owners.entry((namespace.clone(), service, port));
        let owner = owner.or_insert_with(|| mesh.route_owner(&Caller::in_namespace(namespace), service, port));
        *owner == RouteOwner::Config(id)
    })
}

/// The backends that get gRPC calls made to `port` through `gateway`. Rules after one that takes every call get none.
fn rule_targets(mesh: &Mesh<'_>, config: &RouteConfig, gateway: &GatewayName, port: u16) -> Vec<RoutedCalls> {
    let mut targets = Vec::new();
    for rule in &config.rules {
        let (takes_grpc, takes_all) = calls_of_rule(mesh, config, rule, gateway, port);
        if takes_grpc {
            targets.extend(targets_of_rule(mesh, config, rule, gateway, port));
        }
        if takes_all {
            break;
        }
    }
    targets
}

fn targets_of_rule(
    mesh: &Mesh<'_>,
    config: &RouteConfig,
    rule: &ConfigRule,
    gateway: &GatewayName,
    port: u16,
) -> Vec<RoutedCalls> {
    let written = rule.http_rule(mesh, config);
    let is_only = written.route.len() == 1;
    let mut targets = Vec::new();
    for backend in written.route.iter().filter(|backend| is_only || backend.weight.unwrap_or(0) > 0) {
        let Some(destination) = &backend.destination else { continue };
        let host = config.destination_host(mesh, destination);
        let Some(id) = mesh.find_host(host.as_str()) else { continue };
        let written_port = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
        let number = written_port.unwrap_or_else(|| match (gateway, mesh.service(id).ports.as_slice()) {
            // A gateway uses the only port of a Service.
            (GatewayName::Named { .. }, [only]) => only.number,
            _ => port,
        });
        let (route, field) = match &rule.delegate {
            Some((delegate, index)) => (delegate.clone(), format!("spec.http[{index}]")),
            None => (rule.object.clone(), rule.field()),
        };
        targets.push(RoutedCalls { target: (id, number), route, rule: field });
    }
    targets
}

/// Whether a rule takes gRPC calls that arrive at `port` through `gateway`, and whether it takes all of them.
///
/// A path counts as gRPC if it has the form of a method path: `/api` belongs to another protocol.
fn calls_of_rule(
    mesh: &Mesh<'_>,
    config: &RouteConfig,
    rule: &ConfigRule,
    gateway: &GatewayName,
    port: u16,
) -> (bool, bool) {
    let matches = &rule.http_rule(mesh, config).matches;
    let examples = mesh.example_calls(config, rule);
    if matches.is_empty() {
        return (true, true);
    }
    let (mut takes_grpc, mut takes_all) = (false, false);
    for (conditions, example) in matches.iter().zip(examples) {
        let is_for_port = conditions.port.is_none_or(|required| required == 0 || required == u32::from(port));
        let is_named = |name: &String| GatewayName::parse(name, &config.namespace) == *gateway;
        let is_for_gateway = conditions.gateways.is_empty() || conditions.gateways.iter().any(is_named);
        let Some(call) = example.filter(|_| is_for_port && is_for_gateway) else { continue };
        takes_grpc |= evidence::is_method_path(&call.path);
        let is_for_all_callers = !conditions.gateways.is_empty()
            || (conditions.source_labels.is_empty() && conditions.source_namespace.is_none());
        takes_all |= is_for_all_callers
            && call.path == EXAMPLE_PATH
            && call.headers.is_empty()
            && call.authority.is_empty()
            && conditions.without_headers.is_none();
    }
    (takes_grpc, takes_all)
}

/// The ports behind Gateway servers with `protocol: GRPC`.
fn gateway_evidence(mesh: &Mesh<'_>) -> Vec<(PortKey, Evidence)> {
    let mut found = Vec::new();
    for (_, config) in mesh.route_configs().iter().filter(|(_, config)| !config.is_gateway_api) {
        for name in &config.gateways {
            let GatewayName::Named { namespace, name: gateway_name } = name else { continue };
            let Some(gateway) = mesh.find_istio_gateway(namespace, gateway_name) else { continue };
            let Some(number) = grpc_server_port(config, gateway) else { continue };
            for calls in rule_targets(mesh, config, name, u16::try_from(number).unwrap_or(0)) {
                let evidence = Evidence::GatewayServer {
                    gateway: gateway.object.clone(),
                    server_port: number,
                    route: calls.route,
                };
                found.push((calls.target, evidence));
            }
        }
    }
    found
}

/// The port of the GRPC server that serves the configuration's hosts. `None` if a server for HTTP serves them too, since
/// the routes may then be for other calls.
fn grpc_server_port(config: &RouteConfig, gateway: &IstioGateway) -> Option<u32> {
    let serves = |server: &&GatewayServer| {
        server.hosts.iter().any(|host| {
            let (namespace, host) = gateway::split_server_host(host, &gateway.object.namespace);
            namespace.is_none_or(|namespace| namespace == config.namespace.as_str())
                && config.hosts.iter().any(|route_host| gateway::hosts_overlap(route_host.as_str(), host))
        })
    };
    let protocol = |server: &GatewayServer| Protocol::parse(&server.port.as_ref()?.protocol);
    let serving: Vec<&GatewayServer> = gateway.spec.servers.iter().filter(serves).collect();
    let is_other_http = |server: &&GatewayServer| match protocol(server) {
        Some(Protocol::Grpc) | None => false,
        Some(_) => matches!(gateway::server_tls_mode(server), ServerTlsMode::Plaintext | ServerTlsMode::Terminated),
    };
    if serving.iter().any(is_other_http) {
        return None;
    }
    let grpc = serving.into_iter().find(|server| protocol(server) == Some(Protocol::Grpc))?;
    grpc.port.as_ref().map(|port| port.number)
}
