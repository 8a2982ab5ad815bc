//! Notes on the answer of `route`: what is not modelled, what is uncertain, and nearest names.

use crate::mesh::ids::ObjectRef;
use crate::mesh::service::Resolution;
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::{Call, CallDecision, CallOutcome, Caller, CallerKind};
use crate::mesh::{Extension, Mesh};

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

/// Everything that acts on the call and is not modelled: a caller without Envoy, EnvoyFilters and WasmPlugins, waypoints.
pub(super) fn not_modelled(mesh: &Mesh<'_>, caller: &Caller, decision: &CallDecision) -> Vec<String> {
    let truncated = mesh.route_configs().gaps().map(|gap| format!("{}: {}", gap.what, gap.why));
    let mut notes: Vec<String> = truncated.collect();
    match caller.workload.map(|id| &mesh.workload(id).proxy) {
        Some(ProxyKind::Proxyless) => {
            notes.push("the caller uses proxyless gRPC: its own library routes its calls".to_owned());
        }
        Some(ProxyKind::Ambient) => {
            notes.push("the caller is in ambient mode: without a waypoint, these rules do not apply to it".to_owned());
        }
        Some(proxy) if proxy.is_meshed() == Some(false) => {
            let text = "the caller has no proxy: these rules do not apply to it, and each of its connections goes to \
                        one pod";
            notes.push(text.to_owned());
        }
        Some(_) | None => {}
    }
    let applies =
        |extension: &&Extension| extension.applies_to(&caller.namespace, &caller.labels, &mesh.root_namespace);
    notes.extend(
        mesh.extensions
            .iter()
            .filter(applies)
            .map(|extension| format!("{} acts on the caller's proxy", extension.title())),
    );
    for backend in &decision.backends {
        if let Some(id) = backend.service
            && mesh.service(id).uses_waypoint
        {
            notes.push(format!("a waypoint handles calls to {} after the caller's proxy", mesh.service(id).host));
        }
    }
    notes.dedup();
    notes
}
