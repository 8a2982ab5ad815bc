//! What Gateway API routes attach to: Services of the mesh, and listeners of gateways.
//!
//! Sources: `extractParentReferenceInfo`, `referenceAllowed` and `buildListener` in
//! `pilot/pkg/config/kube/gateway/conversion.go` of istio/istio 1.31.

use std::sync::Arc;

use super::gateway_api_conversion::listener_gateway;
use super::host_patterns;
use crate::mesh::Mesh;
use crate::mesh::gateway::ApiGateway;
use crate::mesh::gateway_api::{RouteObject, RouteParent};
use crate::mesh::host;
use crate::mesh::ids::Namespace;
use crate::mesh::virtual_service::GatewayName;
use crate::schema::Kind;
use crate::schema::core::NamespaceObject as Namespaced;
use crate::schema::gateway::{GatewayServer, ServerPort, ServerTls};
use crate::schema::gateway_api::ApiListener;

/// Classes of gateways that istiod runs; waypoints are none of them.
const CLASSES: [&str; 3] = ["istio", "istio-remote", "istio-east-west"];

/// The label by which a namespace is selected by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A listener of a Gateway as istiod has it: a gateway of its own with one server.
#[derive(Debug, Clone)]
pub(super) struct GatewayListener {
    pub(super) gateway: GatewayName,
    pub(super) created: Option<Arc<str>>,
    /// Hosts of the Services that run the gateway.
    pub(super) services: Vec<String>,
    pub(super) server: GatewayServer,
    /// Whether istiod deploys the gateway: then other namespaces' Istio Gateways are not merged into it.
    pub(super) is_managed: bool,
    namespace: Namespace,
    name: Arc<str>,
    section: String,
    port: i64,
    protocol: String,
    hostname: String,
    kinds: Vec<String>,
}

/// All listeners of Gateways that istiod runs.
pub(super) fn listeners(mesh: &Mesh<'_>) -> Vec<GatewayListener> {
    let mut found = Vec::new();
    for gateway in mesh.api_gateways.iter().filter(|one| CLASSES.contains(&one.spec.gateway_class_name.as_str())) {
        for listener in &gateway.spec.listeners {
            let Some(server) = server(mesh, gateway, listener) else { continue };
            let namespace = gateway.object.namespace.clone();
            found.push(GatewayListener {
                gateway: listener_gateway(&namespace, &gateway.object.name, &listener.name),
                created: gateway.created.clone(),
                services: services(mesh, gateway),
                server,
                is_managed: is_managed(gateway),
                namespace,
                name: Arc::clone(&gateway.object.name),
                section: listener.name.clone(),
                port: listener.port,
                protocol: listener.protocol.clone(),
                hostname: listener.hostname.clone().unwrap_or_default(),
                kinds: kinds(listener),
            });
        }
    }
    found
}

fn is_managed(gateway: &ApiGateway) -> bool {
    match &*gateway.spec.addresses.0 {
        [] => true,
        [one] => one.kind.as_deref().unwrap_or("IPAddress") == "IPAddress",
        _ => false,
    }
}

fn services(mesh: &Mesh<'_>, gateway: &ApiGateway) -> Vec<String> {
    let namespace = &gateway.object.namespace;
    let of = |name: &str| host::of_service(name, namespace, &mesh.cluster_domain).as_str().to_owned();
    if is_managed(gateway) {
        let made = || format!("{}-{}", gateway.object.name, gateway.spec.gateway_class_name);
        return vec![of(&gateway.service_name.clone().unwrap_or_else(made))];
    }
    let hostnames =
        gateway.spec.addresses.iter().filter(|one| one.kind.as_deref().is_none_or(|kind| kind == "Hostname"));
    hostnames.map(|one| if one.value.contains('.') { one.value.clone() } else { of(&one.value) }).collect()
}

fn kinds(listener: &ApiListener) -> Vec<String> {
    let all: &[&str] = match listener.protocol.as_str() {
        "HTTP" | "HTTPS" => &["HTTPRoute", "GRPCRoute"],
        "TLS" => &["TLSRoute"],
        "TCP" => &["TCPRoute"],
        _ => &[],
    };
    let wanted = listener.allowed_routes.as_ref().map_or(&[][..], |allowed| &allowed.kinds);
    let allowed = |kind: &str| wanted.is_empty() || wanted.iter().any(|one| one.kind == kind);
    all.iter().filter(|kind| allowed(kind)).map(|&kind| kind.to_owned()).collect()
}

fn server(mesh: &Mesh<'_>, gateway: &ApiGateway, listener: &ApiListener) -> Option<GatewayServer> {
    let mode = listener.tls.as_ref().map(|tls| tls.mode.as_deref().unwrap_or("Terminate"));
    let tls = match (listener.protocol.as_str(), mode) {
        ("HTTPS" | "TLS", None) => return None,
        ("HTTP" | "TCP", _) => None,
        ("HTTPS" | "TLS", Some("Passthrough")) => Some("PASSTHROUGH"),
        ("HTTPS" | "TLS", Some(_)) => Some("SIMPLE"),
        _ => return None,
    };
    Some(GatewayServer {
        port: Some(ServerPort {
            number: u32::try_from(listener.port).ok()?,
            protocol: listener.protocol.clone(),
            name: "default".to_owned(),
            target_port: None,
        }),
        hosts: crate::schema::NullableList(hosts(mesh, gateway, listener)),
        tls: tls.map(|mode| ServerTls {
            mode: Some(mode.to_owned()),
            credential_names: crate::schema::NullableList(credentials(gateway, listener)),
            ..ServerTls::default()
        }),
        ..GatewayServer::default()
    })
}

/// Hosts with the namespaces whose routes may attach.
fn hosts(mesh: &Mesh<'_>, gateway: &ApiGateway, listener: &ApiListener) -> Vec<String> {
    let hostname = listener.hostname.as_deref().unwrap_or("*");
    let allowed = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let namespaces = match allowed.and_then(|allowed| allowed.from.as_deref()).unwrap_or("Same") {
        "Same" => vec![gateway.object.namespace.as_str().to_owned()],
        "All" => vec!["*".to_owned()],
        _ => match allowed.and_then(|allowed| allowed.selector.as_ref()) {
            None => vec!["*".to_owned()],
            Some(selector) => mesh
                .snapshot
                .of_kind(Kind::Namespace)
                .filter_map(|object| {
                    let namespace: Namespaced = serde_json::from_str(object.body.get()).ok()?;
                    let mut labels = namespace.metadata.labels;
                    // The API server sets it on every namespace.
                    labels.entry(NAME_LABEL.to_owned()).or_insert_with(|| object.key.name.to_string());
                    selector.selects(&labels).then(|| object.key.name.to_string())
                })
                .collect(),
        },
    };
    if namespaces.is_empty() {
        // Nothing may attach.
        return vec![format!("~/{hostname}")];
    }
    // Sanitised as istiod does for its own Gateways: any namespace needs no prefix.
    namespaces
        .into_iter()
        .map(|namespace| if namespace == "*" { hostname.to_owned() } else { format!("{namespace}/{hostname}") })
        .collect()
}

/// Something that a route object is attached to.
#[derive(Debug, Clone)]
pub(super) enum Attachment {
    /// A Service, perhaps only one port of it; or a ServiceEntry with its hosts.
    Service {
        /// Hosts of calls.
        hosts: Vec<String>,
        /// Only this port.
        port: Option<u16>,
    },
    /// A listener of a gateway.
    Listener {
        /// As istiod names it.
        gateway: GatewayName,
        /// Host of the listener; empty means all.
        hostname: String,
        /// Hosts of the other listeners on the port: what is more precise there stays there.
        others: Vec<String>,
    },
}

impl Attachment {
    /// What routes are merged by, beside their host.
    pub(super) fn key(&self, object: &RouteObject) -> String {
        match self {
            Self::Service { port: None, .. } => object.object.namespace.to_string(),
            Self::Service { port: Some(port), .. } => format!("{}/{port}", object.object.namespace),
            Self::Listener { gateway, .. } => gateway.to_string(),
        }
    }

    /// Where the routes act.
    pub(super) fn gateway(&self) -> GatewayName {
        match self {
            Self::Service { .. } => GatewayName::Mesh,
            Self::Listener { gateway, .. } => gateway.clone(),
        }
    }

    /// Hosts of the calls that the routes are for.
    pub(super) fn hosts(&self, object: &RouteObject) -> Vec<String> {
        match self {
            Self::Service { hosts, .. } => hosts.clone(),
            Self::Listener { hostname, others, .. } => {
                let own = &object.route.spec.hostnames;
                let all = if own.is_empty() { vec!["*".to_owned()] } else { own.0.clone() };
                all.into_iter().filter(|host| is_left_to(host, hostname, others)).collect()
            }
        }
    }
}

/// Whether a host is for this listener, and not for one beside it that names it more precisely.
fn is_left_to(host: &str, listener: &str, others: &[String]) -> bool {
    if !listener.is_empty() && !listener.starts_with('*') {
        return true;
    }
    if !listener.is_empty() && !host_patterns::overlap(host, listener) {
        return false;
    }
    !others.iter().any(|other| listener.len() <= other.len() && host_patterns::is_subset(host, other))
}

/// What a route object is attached to, of those that take it.
pub(super) fn attachments(mesh: &Mesh<'_>, gateways: &[GatewayListener], object: &RouteObject) -> Vec<Attachment> {
    let mut found = Vec::new();
    for (at, parent) in object.parents.iter().enumerate() {
        match parent {
            RouteParent::Service { namespace, name, port } => {
                if mesh.find_service(namespace.as_str(), name).is_some() {
                    let host = host::of_service(name, namespace, &mesh.cluster_domain);
                    found.push(Attachment::Service { hosts: vec![host.as_str().to_owned()], port: *port });
                }
            }
            RouteParent::Gateway { namespace, name, listener, port } => {
                let own: Vec<&GatewayListener> =
                    gateways.iter().filter(|one| one.namespace == *namespace && one.name == *name).collect();
                for one in &own {
                    let wanted = listener.as_deref().is_none_or(|section| section == one.section)
                        && port.is_none_or(|port| i64::from(port) == one.port);
                    if wanted && takes(one, object) {
                        let beside = own.iter().filter(|other| {
                            other.section != one.section && other.port == one.port && other.protocol == one.protocol
                        });
                        let mut others: Vec<String> = beside.map(|other| other.hostname.clone()).collect();
                        others.retain(|other| *other != one.hostname);
                        found.push(Attachment::Listener {
                            gateway: one.gateway.clone(),
                            hostname: one.hostname.clone(),
                            others,
                        });
                    }
                }
            }
            RouteParent::Other(_) => found.extend(service_entry(mesh, object, at)),
        }
    }
    found
}

/// A ServiceEntry as a parent.
fn service_entry(mesh: &Mesh<'_>, object: &RouteObject, at: usize) -> Option<Attachment> {
    let parent = object.route.spec.parent_refs.get(at)?;
    if parent.kind.as_deref() != Some("ServiceEntry") || parent.group.as_deref() != Some("networking.istio.io") {
        return None;
    }
    let namespace = parent.namespace.as_deref().unwrap_or(object.object.namespace.as_str());
    let hosts: Vec<String> = mesh
        .services
        .iter()
        .filter(|service| {
            let entry = &service.object;
            entry.kind == Kind::ServiceEntry && entry.namespace.as_str() == namespace && *entry.name == *parent.name
        })
        .map(|service| service.host.as_str().to_owned())
        .collect();
    let port = parent.port.and_then(|port| u16::try_from(port).ok());
    (!hosts.is_empty()).then_some(Attachment::Service { hosts, port })
}

/// Whether a listener takes a route: by its kind, and by some host that both have, for the route's namespace.
fn takes(listener: &GatewayListener, object: &RouteObject) -> bool {
    let own = object.object.namespace.as_str();
    let any = ["*".to_owned()];
    let hostnames = &object.route.spec.hostnames;
    let hostnames = if hostnames.is_empty() { &any[..] } else { &hostnames.0[..] };
    let meets = hostnames.iter().any(|host| {
        listener.server.hosts.iter().any(|allowed| {
            let (namespace, pattern) = allowed.split_once('/').unwrap_or(("*", allowed));
            (namespace == "*" || namespace == own) && host_patterns::overlap(pattern, host)
        })
    });
    meets && listener.kinds.iter().any(|kind| kind == object.object.kind.name())
}

/// What a listener's certificates are called between istiod and Envoy. Those of other namespaces need a grant, and are
/// not followed.
fn credentials(gateway: &ApiGateway, listener: &ApiListener) -> Vec<String> {
    let own = gateway.object.namespace.as_str();
    let refs = listener.tls.iter().flat_map(|tls| tls.certificate_refs.iter());
    let refs = refs.filter(|one| one.kind.as_deref().is_none_or(|kind| kind == "Secret"));
    let refs = refs.filter(|one| one.namespace.as_deref().is_none_or(|namespace| namespace == own));
    refs.map(|one| format!("kubernetes-gateway://{own}/{}", one.name)).collect()
}
