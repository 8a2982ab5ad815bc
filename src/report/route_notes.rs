//! Notes on the answer of `route`: what is not modelled, what is uncertain, and nearest names.

use std::collections::BTreeSet;

use crate::mesh::ids::ObjectRef;
use crate::mesh::service::{Resolution, Service};
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::{Call, CallDecision, CallOutcome, Caller, CallerKind};
use crate::mesh::{Extension, Mesh};
use crate::schema::Kind;
use crate::schema::not_modelled::UnreadUse;

/// Authorities of Services with names near a host that the proxy does not have.
pub(super) fn did_you_mean(mesh: &Mesh<'_>, call: &Call, decision: &CallDecision) -> Vec<String> {
    let is_unknown_host = match decision.outcome {
        CallOutcome::Passthrough | CallOutcome::Blocked | CallOutcome::NoRoute => decision.rule.is_none(),
        CallOutcome::Unresolved => true,
        _ => false,
    };
    let host = call.authority.rsplit_once(':').map_or(call.authority.as_str(), |(host, _)| host);
    if !is_unknown_host || host.is_empty() || host.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    let mut parts = host.split('.');
    let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let candidates = match mesh.find_service(namespace, name) {
        Some(id) => vec![format!("{}.{}", mesh.service(id).object.name, mesh.service(id).namespace())],
        None => mesh.name_index.nearest_names(namespace, name),
    };
    let with_port = |candidate: String| {
        let (name, namespace) = candidate.split_once('.')?;
        let service = mesh.service(mesh.find_service(namespace, name)?);
        let authority = format!("{candidate}:{}", service.main_port());
        (authority != call.authority).then_some(authority)
    };
    candidates.into_iter().filter_map(with_port).collect()
}

/// Conditions that make the shares, or the choice of the route object, uncertain.
pub(super) fn notes(mesh: &Mesh<'_>, caller: &Caller, decision: &CallDecision) -> Vec<String> {
    let mut notes = Vec::new();
    let headless = decision.backends.iter().find_map(|backend| {
        let service = mesh.service(backend.service?);
        (service.resolution == Resolution::Headless && caller.kind == CallerKind::Sidecar).then_some(service)
    });
    if let Some(service) = headless {
        notes.push(format!(
            "{} is headless: calls go to the pod that the client dialed, whatever the weights",
            service.object
        ));
    }
    let configs = mesh.route_configs();
    let conflict = |object: &ObjectRef| {
        let own = configs.iter().find(|(_, config)| config.objects.contains(object))?.1;
        let rivals = own.hosts.iter().flat_map(|host| configs.naming_host(host)).map(|id| configs.get(id));
        let rivals: Vec<_> = rivals.filter(|rival| !rival.objects.contains(object)).collect();
        let is_age_missing = own.created.is_none() || rivals.iter().any(|rival| rival.created.is_none());
        (is_age_missing && own.acts_in_mesh()).then(|| rivals.first()?.objects.first()).flatten()
    };
    let rival =
        decision.rule.as_ref().filter(|_| caller.kind == CallerKind::Sidecar).and_then(|rule| conflict(&rule.object));
    if let Some(rival) = rival {
        notes.push(format!(
            "{rival} names the same host; the older object takes effect, and the source has no creation times"
        ));
    }
    notes
}

/// Everything that acts on the call and is not modelled: extensions, waypoints, policies and fields that the model does not
/// read, and backends of kinds that it does not know.
pub(super) fn not_modelled(mesh: &Mesh<'_>, caller: &Caller, decision: &CallDecision) -> Vec<String> {
    let truncated = mesh.route_configs().gaps().map(|gap| format!("{}: {}", gap.what, gap.why));
    let mut notes: Vec<String> = truncated.collect();
    match caller.workload.map(|id| &mesh.workload(id).proxy) {
        Some(ProxyKind::Proxyless) => {
            notes.push("the caller uses proxyless gRPC: its own library routes its calls".to_owned());
        }
        Some(ProxyKind::None(_)) => {
            let text = "the caller has no proxy: these rules do not apply to it, and each of its connections goes to \
                        one pod";
            notes.push(text.to_owned());
        }
        Some(_) | None => {}
    }
    let has_envoy = !matches!(
        caller.workload.map(|id| &mesh.workload(id).proxy),
        Some(ProxyKind::Ambient | ProxyKind::None(_) | ProxyKind::Proxyless)
    );
    let applies = |extension: &&Extension| {
        has_envoy && extension.applies_to(&caller.namespace, &caller.labels, &mesh.root_namespace)
    };
    notes.extend(
        mesh.extensions
            .iter()
            .filter(applies)
            .map(|extension| format!("{} acts on the caller's proxy", extension.title())),
    );
    for backend in &decision.backends {
        if let Some(id) = backend.service {
            let service = mesh.service(id);
            notes.extend(waypoint_note(mesh, caller, service));
            let policies = mesh.backend_traffic_policies.iter().filter(|policy| policy.applies_to(service));
            notes.extend(policies.map(|policy| format!("{} acts on calls to {}", policy.object, service.object)));
        }
    }
    notes.extend(unread_field_notes(mesh, caller, decision));
    notes.extend(unknown_backends(mesh, decision));
    let mut seen = BTreeSet::new();
    notes.retain(|note| seen.insert(note.clone()));
    notes
}

/// What a waypoint does to the call, or that the caller does not use the one of the Service.
fn waypoint_note(mesh: &Mesh<'_>, caller: &Caller, service: &Service) -> Option<String> {
    if let Some(waypoint) = mesh.waypoint_in_path(caller, service) {
        let order = if caller.kind == CallerKind::Gateway { " after the gateway" } else { "" };
        return Some(format!(
            "the waypoint {waypoint} handles calls to {}{order}: its routes, retries, timeouts, load balancing and policies",
            service.host
        ));
    }
    let waypoint = mesh.waypoint_of(service)?;
    let who = match caller.kind {
        CallerKind::Gateway => "the gateway",
        CallerKind::Sidecar => "the caller",
    };
    Some(format!(
        "{who} does not use the waypoint {waypoint} of {}: the routes and policies of the waypoint do not apply",
        service.host
    ))
}

/// The fields that the model does not read, of every object that decides about the call.
fn unread_field_notes(mesh: &Mesh<'_>, caller: &Caller, decision: &CallDecision) -> Vec<String> {
    let mut notes = Vec::new();
    for object in deciding_objects(mesh, caller, decision) {
        for UnreadUse { path, effect } in &*mesh.unread_fields(&object) {
            // Of a route object, only the rule that matches acts on the call.
            let own_rule = decision.rule.as_ref().filter(|rule| rule.object == object).map(|rule| &rule.field);
            let is_other_rule =
                own_rule.is_some_and(|field| path.contains("].") && !path.starts_with(&format!("{field}.")));
            if !is_other_rule {
                notes.push(format!("{path} of {object} {effect}"));
            }
        }
    }
    notes
}

/// The objects that decide where the call goes and how.
fn deciding_objects(mesh: &Mesh<'_>, caller: &Caller, decision: &CallDecision) -> BTreeSet<ObjectRef> {
    let mut objects = BTreeSet::new();
    if let Some(rule) = &decision.rule {
        objects.insert(rule.object.clone());
        objects.extend(rule.delegate.clone());
    }
    let has_envoy = !decision.has_no_proxy();
    for backend in &decision.backends {
        let Some(service) = backend.service.map(|id| mesh.service(id)) else { continue };
        if service.object.kind == Kind::ServiceEntry {
            objects.insert(service.object.clone());
        }
        if has_envoy {
            let rules = mesh.applied_rules(caller, service);
            objects.extend(rules.0.iter().map(|id| mesh.destination_rules.get(*id).object.clone()));
        }
        // A Sidecar of the server decides which of its ports the proxy serves.
        if !mesh.sidecars.is_empty() {
            let servers = mesh.backend_servers(caller, backend);
            objects.extend(servers.into_iter().filter_map(|(id, _)| mesh.sidecar_of(&Caller::of_workload(mesh, id))));
        }
    }
    match caller.workload.filter(|_| caller.kind == CallerKind::Gateway) {
        None if has_envoy => objects.extend(mesh.sidecar_of(caller)),
        None => {}
        Some(id) => objects.extend(mesh.gateways_of(id)),
    }
    objects
}

/// Backends of the rule that are no Services.
fn unknown_backends(mesh: &Mesh<'_>, decision: &CallDecision) -> Vec<String> {
    let Some(rule) = decision.rule.as_ref().filter(|rule| rule.object.kind != Kind::VirtualService) else {
        return Vec::new();
    };
    let Some(route) = mesh.route_objects.iter().find(|route| route.object == rule.object) else { return Vec::new() };
    let written = route.route.spec.rules.get(rule.index).map(|written| &written.backend_refs);
    let pools = written.into_iter().flatten().filter(|backend| backend.kind.as_deref() == Some("InferencePool"));
    pools
        .map(|backend| format!("{}.backendRefs of {} name InferencePool {}", rule.field, rule.object, backend.name))
        .collect()
}
