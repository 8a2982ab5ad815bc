//! Rejects hosts and ports that the user of `route` cannot mean, with the nearest names: a typo would get an answer
//! otherwise, since a proxy passes calls to unknown hosts through.

use super::RouteArgs;
use crate::cli::failure::Failure;
use crate::mesh::Mesh;
use crate::mesh::gateway::hosts_overlap;
use crate::mesh::ids::{Host, ServiceId};
use crate::mesh::service::{Resolution, ServicePort};
use crate::vocabulary::nearest_name;

const MAX_SUGGESTIONS: usize = 3;

/// Rejects what is not an authority: a scheme, a path or a kind in it.
///
/// # Errors
/// With the form that the user probably means as the hint.
pub(super) fn check_form(authority: &str, method: Option<&str>) -> Result<(), Failure> {
    let not_a_host = || Failure::unavailable(format!("\"{authority}\" is not a host"));
    // `dns:///checkout.shop:50051` and other targets of gRPC libraries are schemes too.
    if let Some((scheme, rest)) = authority.split_once("://").or_else(|| authority.split_once(":///")) {
        let rest = rest.trim_start_matches('/');
        let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
        let path = path.filter(|path| !path.is_empty()).map(|path| format!(" /{path}")).unwrap_or_default();
        return Err(not_a_host()
            .cause(format!("it starts with the scheme {scheme}://"))
            .hint(format!("omit the scheme: {host}{path}")));
    }
    let Some((before, after)) = authority.split_once('/') else { return Ok(()) };
    let is_kind = crate::schema::Kind::parse(before).is_some();
    let hint = match (is_kind, method) {
        (true, _) => format!("use the name alone: {after}"),
        (false, None) => format!("pass the path as an argument of its own: {before} /{after}"),
        (false, Some(_)) => format!("omit the path: {before}"),
    };
    Err(not_a_host().cause("a host contains no /").hint(hint))
}

/// Rejects hosts and ports that nothing in the source has, although they look as if they were of the mesh.
///
/// # Errors
/// With the nearest hosts or the Service's ports as the hint.
pub(super) fn check(
    mesh: &Mesh<'_>,
    arguments: &RouteArgs,
    host: &str,
    port: Option<u16>,
    service: Option<ServiceId>,
) -> Result<(), Failure> {
    let allow = "to ask about it nevertheless: --allow-unknown-host";
    let is_at_gateway = arguments.caller.as_deref().is_some_and(|caller| caller.starts_with("gateway/"));
    if let Some(id) = service.or_else(|| mesh.find_host(host)) {
        let Some(number) = port.filter(|_| !is_at_gateway) else { return Ok(()) };
        if has_port(mesh, id, number) || is_served_by_gateway(mesh, host, number) {
            return Ok(());
        }
        let service = mesh.service(id);
        let ports: Vec<String> = service.ports.iter().map(ServicePort::title).collect();
        let failure = Failure::unavailable(format!("{} does not have port {number}", service.object))
            .cause(format!("its ports are {}", ports.join(", ")));
        return Err(match service.ports.first() {
            Some(_) => failure.hint(format!("did you mean {host}:{}?", service.main_port())).hint(allow),
            None => failure.hint(allow),
        });
    }
    if is_known(mesh, host) || host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') {
        return Ok(());
    }
    let similar = similar_hosts(mesh, host);
    // DNS may know a name outside the cluster. A name of the cluster must exist.
    let is_internal = !host.contains('.') || mesh.namespace_of_host(&host.into()).is_some();
    let is_absent = is_internal && mesh.is_host_absent(&full_name(mesh, arguments, host));
    if similar.is_empty() && !is_absent {
        return Ok(());
    }
    let failure = Failure::unavailable(format!("host {host} not found"));
    let failure =
        if similar.is_empty() { failure } else { failure.hint(format!("did you mean {}?", similar.join(", "))) };
    Err(failure.hint(allow))
}

/// Whether any registry entry for the Service's host has the port. ExternalName Services accept any.
fn has_port(mesh: &Mesh<'_>, id: ServiceId, number: u16) -> bool {
    let service = mesh.service(id);
    matches!(service.resolution, Resolution::ExternalName(_))
        || mesh.services_named(service.host.as_str()).iter().any(|id| mesh.service(*id).port(number).is_some())
        || service.port(number).is_some()
}

fn is_served_by_gateway(mesh: &Mesh<'_>, host: &str, number: u16) -> bool {
    mesh.istio_gateways.iter().flat_map(|gateway| &gateway.spec.servers).any(|server| {
        let has_port = server.port.as_ref().is_some_and(|port| port.number == u32::from(number));
        has_port && server.hosts.iter().any(|served| covers_host(served, host))
    })
}

fn covers_host(served: &str, host: &str) -> bool {
    let served = served.rsplit_once('/').map_or(served, |(_, served)| served);
    hosts_overlap(host, served)
}

/// Whether a registry entry, a route object or a Gateway names the host. A Gateway's `*` names none.
fn is_known(mesh: &Mesh<'_>, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let is_covered = |pattern: &str| pattern != "*" && covers_host(pattern, &host);
    mesh.has_host(&host)
        || mesh.route_configs().iter().any(|(_, config)| config.hosts.iter().any(|own| is_covered(own.as_str())))
        || mesh
            .istio_gateways
            .iter()
            .flat_map(|gateway| &gateway.spec.servers)
            .any(|server| server.hosts.iter().any(|served| is_covered(served)))
        || mesh
            .api_gateways
            .iter()
            .flat_map(|gateway| &gateway.spec.listeners)
            .chain(mesh.listener_sets.iter().flat_map(|set| &set.spec.listeners))
            .filter_map(|listener| listener.hostname.as_deref())
            .any(is_covered)
}

fn full_name(mesh: &Mesh<'_>, arguments: &RouteArgs, host: &str) -> Host {
    let namespace = arguments.caller.as_deref().and_then(|caller| caller.split('/').next()).unwrap_or("default");
    crate::mesh::host::to_fqdn(host, &namespace.into(), &mesh.cluster_domain)
}

/// Hosts of the mesh with a similar name, nearest first.
fn similar_hosts(mesh: &Mesh<'_>, host: &str) -> Vec<String> {
    let mut parts = host.split('.');
    let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut similar = mesh.name_index.nearest_names(namespace, name);
    if similar.is_empty() && !namespace.is_empty() {
        // The namespace may be the misspelled part.
        let services = mesh.name_index.find_in_any_namespace(name);
        let distance = |id: &ServiceId| nearest_name::edit_distance(namespace, mesh.service(*id).namespace().as_str());
        let mut services: Vec<ServiceId> =
            services.iter().copied().filter(|id| distance(id) <= nearest_name::max_edits(namespace)).collect();
        services.sort_by_key(distance);
        similar.extend(services.iter().map(|id| mesh.short_host(&mesh.service(*id).host).to_owned()));
    }
    if host.contains('.') {
        let entries = mesh.services.iter().filter(|service| !service.is_kubernetes()).map(|service| &service.host);
        let routed = mesh.route_configs().iter().flat_map(|(_, config)| &config.hosts);
        let names = entries.chain(routed).map(Host::as_str).filter(|name| !name.starts_with('*'));
        // Hosts of one domain share most of their letters: only few may differ.
        let mut near: Vec<(usize, &str)> = names
            .map(|name| (nearest_name::edit_distance(&host.to_lowercase(), name), name))
            .filter(|(edits, _)| (1..=2).contains(edits))
            .collect();
        near.sort_unstable();
        near.dedup();
        similar.extend(near.into_iter().map(|(_, name)| name.to_owned()));
    }
    similar.truncate(MAX_SUGGESTIONS);
    similar
}
