//! What stands beside the answer of `route`: what is not modelled, what is uncertain, what was perhaps meant.

use crate::mesh::ids::ObjectRef;
use crate::mesh::service::Resolution;
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::{Call, CallDecision, CallOutcome, Caller, CallerKind};
use crate::mesh::{Extension, Mesh};

/// Names that may have been meant by a host that the proxy does not know.
pub(super) fn did_you_mean(mesh: &Mesh<'_>, call: &Call, answer: &CallDecision) -> Vec<String> {
    let unknown = match answer.outcome {
        CallOutcome::Passthrough | CallOutcome::Blocked | CallOutcome::NoRoute => answer.rule.is_none(),
        CallOutcome::Unresolved => true,
        _ => false,
    };
    let host = call.authority.rsplit_once(':').map_or(call.authority.as_str(), |(host, _)| host);
    if !unknown || host.is_empty() || host.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    let mut parts = host.split('.');
    let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let near = match mesh.find_service(namespace, name) {
        Some(id) => vec![format!("{}.{}", mesh.service(id).object.name, mesh.service(id).namespace())],
        None => mesh.directory.similar(namespace, name),
    };
    let with_port = |near: String| {
        let (name, namespace) = near.split_once('.')?;
        let service = mesh.service(mesh.find_service(namespace, name)?);
        let named = format!("{near}:{}", service.main_port());
        (named != call.authority).then_some(named)
    };
    near.into_iter().filter_map(with_port).collect()
}

/// What makes shares or the winner of a host uncertain.
pub(super) fn notes(mesh: &Mesh<'_>, caller: &Caller, answer: &CallDecision) -> Vec<String> {
    let mut notes = Vec::new();
    let headless = answer.backends.iter().find_map(|backend| {
        let service = mesh.service(backend.service?);
        (service.resolution == Resolution::Headless && caller.kind == CallerKind::Sidecar).then_some(service)
    });
    if let Some(service) = headless {
        notes.push(format!(
            "{} is headless: the pod that the client dialled answers, whatever the shares",
            service.object
        ));
    }
    let configs = mesh.route_configs();
    let claims_with = |object: &ObjectRef| {
        let own = configs.iter().find(|(_, config)| config.objects.contains(object))?.1;
        let rivals = own.hosts.iter().flat_map(|host| configs.of_host(host)).map(|id| configs.get(id));
        let rivals: Vec<_> = rivals.filter(|rival| !rival.objects.contains(object)).collect();
        let undated = own.created.is_none() || rivals.iter().any(|rival| rival.created.is_none());
        (undated && own.acts_in_mesh()).then(|| rivals.first()?.objects.first()).flatten()
    };
    let rival =
        answer.rule.as_ref().filter(|_| caller.kind == CallerKind::Sidecar).and_then(|hit| claims_with(&hit.object));
    if let Some(rival) = rival {
        notes.push(format!("{rival} claims the host too, and ages are not in the source: the older one has it"));
    }
    notes
}

/// What acts on a caller's proxy beside the model: EnvoyFilters and WasmPlugins that select it, waypoints on the way.
pub(super) fn not_modelled(mesh: &Mesh<'_>, caller: &Caller, answer: &CallDecision) -> Vec<String> {
    let mut found = Vec::new();
    let proxy = caller.workload.map(|id| &mesh.workload(id).proxy);
    match proxy {
        Some(ProxyKind::Proxyless) => {
            found.push("the caller's own gRPC library routes its calls, not an Envoy".to_owned())
        }
        Some(ProxyKind::Ambient) => {
            found.push("the caller is in ambient mode: without a waypoint nothing here acts on its calls".to_owned());
        }
        Some(proxy) if proxy.is_meshed() == Some(false) => {
            let text = "the caller has no proxy: nothing here acts on its calls until it has one, and its connections \
                        go to one pod each";
            found.push(text.to_owned());
        }
        Some(_) | None => {}
    }
    let acts = |one: &&Extension| one.acts_on(&caller.namespace, &caller.labels, &mesh.root);
    found.extend(mesh.extensions.iter().filter(acts).map(|one| format!("{} acts on the caller's proxy", one.title())));
    for backend in &answer.backends {
        if let Some(id) = backend.service
            && mesh.service(id).waypoint
        {
            found.push(format!("a waypoint takes calls to {} after the caller's proxy", mesh.service(id).host));
        }
    }
    found.dedup();
    found
}
