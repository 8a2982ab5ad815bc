//! Names in arguments: `checkout`, `svc/checkout`, `checkout.shop`, `vs/checkout`, `pod/y`, `deploy/z`.

use std::collections::BTreeSet;

use super::failure::Failure;
use crate::mesh::ids::ServiceId;
use crate::mesh::{Mesh, RouteReference};
use crate::schema::Kind;

/// The Services that a word means. `namespaces` are those in scope; empty is all.
///
/// # Errors
/// When nothing has that name; the nearest names are offered.
pub fn services(mesh: &Mesh<'_>, word: &str, namespaces: &BTreeSet<String>) -> Result<Vec<ServiceId>, Failure> {
    let (kind, name) = match word.split_once('/') {
        Some((kind, name)) => (kind.to_ascii_lowercase(), name),
        None => ("svc".to_owned(), word),
    };
    let in_scope = |namespace: &str| namespaces.is_empty() || namespaces.contains(namespace);
    let found = match kind.as_str() {
        "svc" | "service" | "services" | "se" | "serviceentry" => of_service(mesh, name, &in_scope),
        "vs" | "virtualservice" | "virtualservices" => of_route(mesh, Kind::VirtualService, name, &in_scope),
        "httproute" | "httproutes" => of_route(mesh, Kind::HttpRoute, name, &in_scope),
        "grpcroute" | "grpcroutes" => of_route(mesh, Kind::GrpcRoute, name, &in_scope),
        "pod" | "pods" | "po" => of_workload(mesh, None, name, &in_scope),
        "deploy" | "deployment" | "deployments" => of_workload(mesh, Some("Deployment"), name, &in_scope),
        "sts" | "statefulset" | "statefulsets" => of_workload(mesh, Some("StatefulSet"), name, &in_scope),
        "ds" | "daemonset" | "daemonsets" => of_workload(mesh, Some("DaemonSet"), name, &in_scope),
        "rollout" | "rollouts" => of_workload(mesh, Some("Rollout"), name, &in_scope),
        other => {
            return Err(Failure::usage(format!("\"{other}\" is not a kind that leads to a Service"))
                .hint("one of svc, vs, httproute, grpcroute, pod, deploy, sts, ds, rollout"));
        }
    };
    if !found.is_empty() {
        return Ok(found);
    }
    let namespace = namespaces.first().map(String::as_str).unwrap_or_default();
    let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
    let short = name.split('.').next().unwrap_or(name);
    let mut similar = mesh.directory.similar(namespace, short);
    if similar.is_empty() {
        similar = mesh.directory.similar("", short);
    }
    let failure = Failure::source(format!("there is no {word}{place}"));
    let is_service = matches!(kind.as_str(), "svc" | "service" | "services");
    Err(match similar.first() {
        Some(_) => failure.hint(format!("did you mean {}?", similar.join(", "))),
        None if is_service => failure.hint("list them with: kubectl grpcmesh inspect --all-services -o name"),
        None => failure.hint(format!("no Service was found behind {word}")),
    })
}

fn of_service(mesh: &Mesh<'_>, name: &str, in_scope: &impl Fn(&str) -> bool) -> Vec<ServiceId> {
    let by_host = mesh.find_host(&name.to_ascii_lowercase());
    if let Some(id) = by_host {
        return vec![id];
    }
    let short = name.strip_suffix(&mesh.cluster_domain).and_then(|name| name.strip_suffix('.')).unwrap_or(name);
    let short = short.strip_suffix(".svc").unwrap_or(short);
    if let Some((name, namespace)) = short.split_once('.')
        && let Some(id) = mesh.find_service(namespace, name)
    {
        return vec![id];
    }
    mesh.service_ids()
        .filter(|id| {
            let service = mesh.service(*id);
            *service.object.name == *name && in_scope(service.namespace().as_str())
        })
        .collect()
}

fn of_route(mesh: &Mesh<'_>, kind: Kind, name: &str, in_scope: &impl Fn(&str) -> bool) -> Vec<ServiceId> {
    let (name, namespace) = match name.split_once('.') {
        Some((name, namespace)) => (name, Some(namespace)),
        None => (name, None),
    };
    mesh.service_ids()
        .filter(|id| {
            mesh.users_of(*id).iter().any(|user| {
                let object = match *user {
                    RouteReference::VirtualService(object, _) => &mesh.virtual_services.get(object).object,
                    RouteReference::RouteObject(route, _) => &mesh.route_object(route).object,
                };
                let fits = match namespace {
                    Some(namespace) => object.namespace.as_str() == namespace,
                    None => in_scope(object.namespace.as_str()),
                };
                object.kind == kind && *object.name == *name && fits
            })
        })
        .collect()
}

fn of_workload(mesh: &Mesh<'_>, kind: Option<&str>, name: &str, in_scope: &impl Fn(&str) -> bool) -> Vec<ServiceId> {
    mesh.service_ids()
        .filter(|id| {
            mesh.workloads_of(mesh.service(*id)).any(|workload| {
                let fits = match (kind, &workload.owner) {
                    (None, _) => *workload.object.name == *name,
                    (Some(kind), Some((of, owner))) => **of == *kind && **owner == *name,
                    (Some(_), None) => false,
                };
                fits && in_scope(workload.namespace().as_str())
            })
        })
        .collect()
}
