//! Parses targets such as `checkout`, `svc/checkout.shop`, `vs/checkout` and `deploy/web`, and resolves them to Services.

use std::collections::BTreeSet;
use std::fmt;

use super::failure::Failure;
use crate::mesh::ids::ServiceId;
use crate::mesh::{Mesh, RouteReference, host};
use crate::schema::Kind;

/// Kinds that split calls by weight.
pub use crate::shift::selection::ROUTE_KINDS;

/// The parts of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The kind before the slash. A target without a kind is a Service.
    pub kind: Option<Kind>,
    /// The name without the namespace.
    pub name: String,
    /// The namespace after the name.
    pub namespace: Option<String>,
    /// The whole text after the slash.
    pub full_name: String,
}

/// The text before the slash of a target is not a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a known kind", self.0)
    }
}

impl Target {
    /// Parses `NAME`, `NAME.NAMESPACE`, `KIND/NAME` or `KIND/NAME.NAMESPACE`. Only Services and route objects may be followed by
    /// a namespace, because the names of all other kinds may contain dots.
    ///
    /// # Errors
    /// If the text before the slash is not a kind.
    pub fn parse(text: &str) -> Result<Self, UnknownKind> {
        let (kind, full_name) = match text.split_once('/') {
            Some((kind, name)) => (Some(Kind::parse(kind).ok_or_else(|| UnknownKind(kind.to_owned()))?), name),
            None => (None, text),
        };
        let (name, namespace) = match kind.unwrap_or(Kind::Service) {
            // Names of Services contain no dots, and a host such as checkout.shop.svc.cluster.local starts with both labels.
            Kind::Service | Kind::ServiceEntry => match full_name.split_once('.') {
                Some((name, rest)) => (name, rest.split('.').next()),
                None => (full_name, None),
            },
            kind if ROUTE_KINDS.contains(&kind) => match full_name.rsplit_once('.') {
                Some((name, namespace)) => (name, Some(namespace)),
                None => (full_name, None),
            },
            _ => (full_name, None),
        };
        Ok(Self {
            kind,
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            full_name: full_name.to_owned(),
        })
    }

    /// The names and namespaces that the target may mean, in order of preference. The name of a route object may contain dots, so
    /// `vs/checkout.v2` may have no namespace.
    pub fn interpretations(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let with_namespace = self.namespace.as_deref().map(|namespace| (&*self.name, Some(namespace)));
        [(&*self.full_name, None)].into_iter().chain(with_namespace)
    }
}

/// The Services that a target selects. `namespaces` are those in scope; empty means all.
///
/// # Errors
/// If the kind does not select Services, or no object has that name. The hint suggests the nearest names.
pub fn services(mesh: &Mesh<'_>, text: &str, namespaces: &BTreeSet<String>) -> Result<Vec<ServiceId>, Failure> {
    let unsupported = |cause: String| {
        Failure::usage(format!("cannot resolve \"{text}\" to Services"))
            .cause(cause)
            .hint("use one of svc, vs, httproute, grpcroute, pod, deploy, sts, ds, rollout")
    };
    let target = Target::parse(text).map_err(|error| unsupported(error.to_string()))?;
    let in_scope = |namespace: &str| namespaces.is_empty() || namespaces.contains(namespace);
    let services = match target.kind.unwrap_or(Kind::Service) {
        Kind::Service | Kind::ServiceEntry => services_by_name(mesh, &target, &in_scope),
        kind if ROUTE_KINDS.contains(&kind) => services_by_route(mesh, kind, &target, &in_scope),
        Kind::Pod => services_by_workload(mesh, None, &target.name, &in_scope),
        kind @ (Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Rollout) => {
            services_by_workload(mesh, Some(kind.name()), &target.name, &in_scope)
        }
        kind => return Err(unsupported(format!("targets of kind {} are not supported", kind.name()))),
    };
    if services.is_empty() { Err(not_found(mesh, text, &target, namespaces)) } else { Ok(services) }
}

/// The only Service that a target selects.
///
/// # Errors
/// As [`services`], or if the target selects several Services.
pub fn single_service(mesh: &Mesh<'_>, text: &str, namespaces: &BTreeSet<String>) -> Result<ServiceId, Failure> {
    let services = services(mesh, text, namespaces)?;
    let [id] = services[..] else {
        return Err(Failure::usage(format!("{text} matches {} Services", services.len()))
            .hint("select one with its namespace, such as checkout.shop, or with -n"));
    };
    Ok(id)
}

fn not_found(mesh: &Mesh<'_>, text: &str, target: &Target, namespaces: &BTreeSet<String>) -> Failure {
    let namespace = namespaces.first().map(String::as_str).unwrap_or_default();
    let location = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
    let mut similar = mesh.name_index.nearest_names(namespace, &target.name);
    if similar.is_empty() {
        similar = mesh.name_index.nearest_names("", &target.name);
    }
    let failure = Failure::unavailable(format!("{text} not found{location}"));
    if !similar.is_empty() {
        return failure.hint(format!("did you mean {}?", similar.join(", ")));
    }
    match target.kind {
        None | Some(Kind::Service) => {
            failure.hint("list the Services with: kubectl grpcmesh inspect --all-services -o name")
        }
        Some(kind) if ROUTE_KINDS.contains(&kind) => {
            failure.hint("check the name, and that the rules of the object apply to a Service")
        }
        Some(_) => failure.hint("check the name, and that a Service selects the pods"),
    }
}

fn services_by_name(mesh: &Mesh<'_>, target: &Target, in_scope: &impl Fn(&str) -> bool) -> Vec<ServiceId> {
    let full_name = &*target.full_name;
    if let Some(id) = mesh.find_host(&full_name.to_ascii_lowercase()) {
        return vec![id];
    }
    if let Some(namespace) = &target.namespace {
        let host = host::service_host(&target.name, &namespace.as_str().into(), &mesh.cluster_domain);
        let rest = host.as_str().strip_prefix(full_name);
        let is_short_form = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if let Some(id) = mesh.find_service(namespace, &target.name).filter(|_| is_short_form) {
            return vec![id];
        }
    }
    mesh.service_ids()
        .filter(|id| {
            let service = mesh.service(*id);
            *service.object.name == *full_name && in_scope(service.namespace().as_str())
        })
        .collect()
}

fn services_by_route(mesh: &Mesh<'_>, kind: Kind, target: &Target, in_scope: &impl Fn(&str) -> bool) -> Vec<ServiceId> {
    let with_route = |name: &str, namespace: Option<&str>| -> Vec<ServiceId> {
        let is_match = |reference: &RouteReference| {
            let object = match *reference {
                RouteReference::VirtualService(object, _) => &mesh.virtual_services.get(object).object,
                RouteReference::RouteObject(route, _) => &mesh.route_object(route).object,
            };
            let own_namespace = object.namespace.as_str();
            let is_in_namespace =
                namespace.map_or_else(|| in_scope(own_namespace), |namespace| namespace == own_namespace);
            object.kind == kind && *object.name == *name && is_in_namespace
        };
        mesh.service_ids().filter(|id| mesh.route_references(*id).iter().any(is_match)).collect()
    };
    let mut candidates = target.interpretations().map(|(name, namespace)| with_route(name, namespace));
    candidates.find(|services| !services.is_empty()).unwrap_or_default()
}

fn services_by_workload(
    mesh: &Mesh<'_>,
    kind: Option<&str>,
    name: &str,
    in_scope: &impl Fn(&str) -> bool,
) -> Vec<ServiceId> {
    mesh.service_ids()
        .filter(|id| {
            mesh.workloads_of(mesh.service(*id)).any(|workload| {
                let has_name = match (kind, &workload.owner) {
                    (None, _) => *workload.object.name == *name,
                    (Some(kind), Some((owner_kind, owner))) => **owner_kind == *kind && **owner == *name,
                    (Some(_), None) => false,
                };
                has_name && in_scope(workload.namespace().as_str())
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_parsed(text: &str, kind: Option<Kind>, name: &str, namespace: Option<&str>) {
        let target = Target::parse(text).unwrap();
        assert_eq!((target.kind, &*target.name, target.namespace.as_deref()), (kind, name, namespace), "{text}");
    }

    #[test]
    fn a_target_without_a_kind_is_a_service_and_may_be_a_whole_host() {
        assert_parsed("checkout", None, "checkout", None);
        assert_parsed("checkout.shop", None, "checkout", Some("shop"));
        assert_parsed("checkout.shop.svc.cluster.local", None, "checkout", Some("shop"));
        assert_parsed("svc/checkout.shop", Some(Kind::Service), "checkout", Some("shop"));
        assert_eq!(Target::parse("svc/api.example.com").unwrap().full_name, "api.example.com");
    }

    #[test]
    fn the_last_label_of_a_route_object_may_be_its_namespace() {
        assert_parsed("vs/checkout", Some(Kind::VirtualService), "checkout", None);
        assert_parsed("GRPCRoute/checkout.shop", Some(Kind::GrpcRoute), "checkout", Some("shop"));
        assert_parsed("httproutes/checkout.v2.shop", Some(Kind::HttpRoute), "checkout.v2", Some("shop"));
        let target = Target::parse("vs/checkout.v2").unwrap();
        let interpretations: Vec<_> = target.interpretations().collect();
        assert_eq!(interpretations, [("checkout.v2", None), ("checkout", Some("v2"))]);
    }

    #[test]
    fn names_of_other_kinds_keep_their_dots() {
        assert_parsed("deploy/web.v2", Some(Kind::Deployment), "web.v2", None);
        assert_parsed("pod/web-1.2", Some(Kind::Pod), "web-1.2", None);
        assert_parsed("gateway/edge.public", Some(Kind::IstioGateway), "edge.public", None);
    }

    #[test]
    fn unknown_kinds_are_rejected_and_empty_names_are_not() {
        assert_eq!(Target::parse("thing/x").unwrap_err().to_string(), "\"thing\" is not a known kind");
        assert_parsed("", None, "", None);
        assert_parsed("vs/", Some(Kind::VirtualService), "", None);
    }
}
