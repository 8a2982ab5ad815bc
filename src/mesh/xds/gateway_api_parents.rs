//! The parents that Gateway API routes attach to: Services, ServiceEntries, and listeners of Gateways and ListenerSets.
//!
//! Sources: `extractParentReferenceInfo`, `referenceAllowed` and `buildListener` in
//! `pilot/pkg/config/kube/gateway/conversion.go`, `ListenerSetCollection` in `gateway_collection.go`, and
//! `pilot/pkg/config/kube/gatewaycommon/listener_conflict.go` of istio/istio 1.31.

use std::sync::Arc;

use super::gateway_api_conversion::listener_gateway;
use super::host_patterns;
use crate::mesh::Mesh;
use crate::mesh::behavior::IstiodBehavior;
use crate::mesh::gateway::{ApiGateway, ListenerSet};
use crate::mesh::gateway_api::{RouteObject, RouteParent};
use crate::mesh::host;
use crate::mesh::ids::{Namespace, ObjectRef};
use crate::mesh::service::ServicePort;
use crate::mesh::virtual_service::GatewayName;
use crate::schema::Kind;
use crate::schema::gateway::{GatewayServer, ServerPort, ServerTls};
use crate::schema::gateway_api::ApiListener;

/// Gateway classes that istiod configures, without waypoints.
const ISTIO_GATEWAY_CLASSES: [&str; 3] = ["istio", "istio-remote", "istio-east-west"];

/// A listener of a Gateway API Gateway, its own or one that a ListenerSet adds. istiod converts each to an Istio Gateway
/// with one server.
#[derive(Debug, Clone)]
pub(super) struct GatewayListener {
    pub(super) gateway: GatewayName,
    pub(super) created: Option<Arc<str>>,
    /// Hosts of the Services in front of the gateway.
    pub(super) services: Vec<String>,
    /// Namespace of these Services: that of the Gateway.
    pub(super) service_namespace: Namespace,
    pub(super) server: GatewayServer,
    /// Whether istiod deploys the gateway. It then merges no Istio Gateways of other namespaces into it.
    pub(super) is_managed: bool,
    /// The Gateway or ListenerSet.
    owner: ObjectRef,
    section: String,
    port: i64,
    protocol: String,
    hostname: String,
    kinds: Vec<String>,
}

/// All listeners of Gateways that istiod configures.
pub(super) fn listeners(mesh: &Mesh<'_>) -> Vec<GatewayListener> {
    let mut listeners = Vec::new();
    let has_istio_class =
        |gateway: &&ApiGateway| ISTIO_GATEWAY_CLASSES.contains(&gateway.spec.gateway_class_name.as_str());
    for gateway in mesh.api_gateways.iter().filter(has_istio_class) {
        for written in distinct_listeners(mesh, gateway) {
            let WrittenListener { owner, created, listener } = written;
            let Some(server) = server(mesh, &owner.namespace, listener) else { continue };
            listeners.push(GatewayListener {
                gateway: listener_gateway(&owner.namespace, &owner.name, &listener.name),
                created: created.clone(),
                services: services(mesh, gateway),
                service_namespace: gateway.object.namespace.clone(),
                server,
                is_managed: is_managed(gateway),
                owner: owner.clone(),
                section: listener.name.clone(),
                port: listener.effective_port(),
                protocol: listener.protocol.clone(),
                hostname: listener.hostname.clone().unwrap_or_default(),
                kinds: kinds(listener),
            });
        }
    }
    listeners
}

/// A listener with the object that it is written in.
struct WrittenListener<'m> {
    owner: &'m ObjectRef,
    created: &'m Option<Arc<str>>,
    listener: &'m ApiListener,
}

/// The listeners of a Gateway and of the ListenerSets that it allows, without those that conflict with an earlier one:
/// the Gateway's own come first, then those of the oldest ListenerSet.
fn distinct_listeners<'m>(mesh: &'m Mesh<'_>, gateway: &'m ApiGateway) -> Vec<WrittenListener<'m>> {
    let own = gateway.spec.listeners.iter().map(|listener| WrittenListener {
        owner: &gateway.object,
        created: &gateway.created,
        listener,
    });
    let mut sets = listener_sets(mesh, gateway);
    sets.sort_by_key(|set| (set.created.clone(), set.object.namespace.clone(), set.object.name.clone()));
    let added = sets.into_iter().flat_map(|set| {
        let written = |listener| WrittenListener { owner: &set.object, created: &set.created, listener };
        set.spec.listeners.iter().map(written)
    });
    let mut distinct: Vec<WrittenListener<'m>> = Vec::new();
    for candidate in own.chain(added) {
        if !distinct.iter().any(|earlier| conflict(earlier.listener, candidate.listener)) {
            distinct.push(candidate);
        }
    }
    distinct
}

/// The ListenerSets that a Gateway allows to add listeners.
fn listener_sets<'m>(mesh: &'m Mesh<'_>, gateway: &ApiGateway) -> Vec<&'m ListenerSet> {
    if !mesh.has_behavior(IstiodBehavior::ListenerSets) {
        return Vec::new();
    }
    let allowed = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let is_allowed = |set: &&ListenerSet| {
        let Some(allowed) = allowed else { return false };
        match (allowed.from.as_deref(), &allowed.selector) {
            (Some("All"), _) => true,
            (Some("Same"), _) => set.object.namespace == gateway.object.namespace,
            (Some("Selector") | None, Some(selector)) => {
                mesh.namespaces_selected_by(selector).contains(&set.object.namespace)
            }
            _ => false,
        }
    };
    mesh.listener_sets_of(&gateway.object).filter(is_allowed).collect()
}

/// Whether two listeners of one gateway cannot both exist.
fn conflict(a: &ApiListener, b: &ApiListener) -> bool {
    let is_stream = |listener: &ApiListener| matches!(listener.protocol.as_str(), "TCP" | "UDP");
    let has_hosts = |listener: &ApiListener| matches!(listener.protocol.as_str(), "HTTP" | "HTTPS" | "TLS");
    let hostname = |listener: &ApiListener| {
        listener.hostname.as_deref().filter(|name| !name.is_empty()).map_or_else(|| "*".to_owned(), str::to_owned)
    };
    if a.effective_port() != b.effective_port() {
        return false;
    }
    match (has_hosts(a), has_hosts(b)) {
        (true, true) => hostname(a) == hostname(b),
        (true, false) => is_stream(b),
        (false, true) => is_stream(a),
        (false, false) => (is_stream(a) && is_stream(b)) || a.protocol == b.protocol,
    }
}

fn is_managed(gateway: &ApiGateway) -> bool {
    match &*gateway.spec.addresses.0 {
        [] => true,
        [address] => address.kind.as_deref().unwrap_or("IPAddress") == "IPAddress",
        _ => false,
    }
}

fn services(mesh: &Mesh<'_>, gateway: &ApiGateway) -> Vec<String> {
    let namespace = &gateway.object.namespace;
    let host_for = |name: &str| host::service_host(name, namespace, &mesh.cluster_domain).as_str().to_owned();
    if is_managed(gateway) {
        let default_name = || format!("{}-{}", gateway.object.name, gateway.spec.gateway_class_name);
        return vec![host_for(&gateway.service_name.clone().unwrap_or_else(default_name))];
    }
    let addresses = gateway.spec.addresses.iter();
    let hostnames = addresses.filter(|address| address.kind.as_deref().is_none_or(|kind| kind == "Hostname"));
    hostnames
        .map(|address| if address.value.contains('.') { address.value.clone() } else { host_for(&address.value) })
        .collect()
}

fn kinds(listener: &ApiListener) -> Vec<String> {
    let supported: &[&str] = match listener.protocol.as_str() {
        "HTTP" | "HTTPS" => &["HTTPRoute", "GRPCRoute"],
        "TLS" => &["TLSRoute"],
        "TCP" => &["TCPRoute"],
        _ => &[],
    };
    let allowed = listener.allowed_routes.as_ref().map_or(&[][..], |routes| &routes.kinds);
    let is_allowed = |kind: &str| allowed.is_empty() || allowed.iter().any(|entry| entry.kind == kind);
    supported.iter().filter(|kind| is_allowed(kind)).map(|&kind| kind.to_owned()).collect()
}

fn server(mesh: &Mesh<'_>, own_namespace: &Namespace, listener: &ApiListener) -> Option<GatewayServer> {
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
            number: u32::try_from(listener.effective_port()).ok()?,
            protocol: listener.protocol.clone(),
            name: "default".to_owned(),
            target_port: None,
        }),
        hosts: crate::schema::NullableList(hosts(mesh, own_namespace, listener)),
        tls: tls.map(|mode| ServerTls {
            mode: Some(mode.to_owned()),
            credential_names: crate::schema::NullableList(credentials(own_namespace, listener)),
            ..ServerTls::default()
        }),
        ..GatewayServer::default()
    })
}

/// Hosts of the converted server, with the namespaces whose routes may attach.
fn hosts(mesh: &Mesh<'_>, own_namespace: &Namespace, listener: &ApiListener) -> Vec<String> {
    let hostname = listener.hostname.as_deref().unwrap_or("*");
    let allowed = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let namespaces = match allowed.and_then(|allowed| allowed.from.as_deref()).unwrap_or("Same") {
        "Same" => vec![own_namespace.as_str().to_owned()],
        "All" => vec!["*".to_owned()],
        _ => match allowed.and_then(|allowed| allowed.selector.as_ref()) {
            None => vec!["*".to_owned()],
            Some(selector) => mesh.namespaces_selected_by(selector).iter().map(ToString::to_string).collect(),
        },
    };
    if namespaces.is_empty() {
        // No namespace may attach routes.
        return vec![format!("~/{hostname}")];
    }
    // As istiod normalizes hosts of Istio Gateways: all namespaces need no prefix.
    namespaces
        .into_iter()
        .map(|namespace| if namespace == "*" { hostname.to_owned() } else { format!("{namespace}/{hostname}") })
        .collect()
}

/// A parent that accepts a route object.
#[derive(Debug, Clone)]
pub(super) enum Attachment {
    /// A Service or ServiceEntry.
    Service {
        /// Its hosts.
        hosts: Vec<String>,
        /// The port that the route attaches to; `None` means all.
        port: Option<u16>,
    },
    /// A listener of a Gateway.
    Listener {
        /// The Istio Gateway that istiod generates for the listener.
        gateway: GatewayName,
        /// Host of the listener; empty means all.
        hostname: String,
        /// Hosts of the other listeners on the same port. A route host belongs to the most specific listener.
        other_hostnames: Vec<String>,
    },
}

impl Attachment {
    /// The key by which istiod merges routes, together with their host.
    pub(super) fn key(&self, object: &RouteObject) -> String {
        match self {
            Self::Service { port: None, .. } => object.object.namespace.to_string(),
            Self::Service { port: Some(port), .. } => format!("{}/{port}", object.object.namespace),
            Self::Listener { gateway, .. } => gateway.to_string(),
        }
    }

    /// The gateway that uses the routes, or the mesh.
    pub(super) fn gateway(&self) -> GatewayName {
        match self {
            Self::Service { .. } => GatewayName::Mesh,
            Self::Listener { gateway, .. } => gateway.clone(),
        }
    }

    /// The hosts that a route object's rules apply to at this parent.
    pub(super) fn hosts(&self, object: &RouteObject) -> Vec<String> {
        match self {
            Self::Service { hosts, .. } => hosts.clone(),
            Self::Listener { hostname, other_hostnames, .. } => {
                let route_hostnames = &object.route.spec.hostnames;
                let hosts = if route_hostnames.is_empty() { vec!["*".to_owned()] } else { route_hostnames.0.clone() };
                hosts.into_iter().filter(|host| belongs_to_listener(host, hostname, other_hostnames)).collect()
            }
        }
    }
}

/// Whether a route host belongs to this listener rather than to a more specific one on the same port.
fn belongs_to_listener(host: &str, listener: &str, other_hostnames: &[String]) -> bool {
    if !listener.is_empty() && !listener.starts_with('*') {
        return true;
    }
    if !listener.is_empty() && !host_patterns::overlap(host, listener) {
        return false;
    }
    !other_hostnames.iter().any(|other| listener.len() <= other.len() && host_patterns::is_subset(host, other))
}

/// The parents of a route object that accept it.
pub(super) fn attachments(mesh: &Mesh<'_>, listeners: &[GatewayListener], object: &RouteObject) -> Vec<Attachment> {
    let mut attachments = Vec::new();
    for (index, parent) in object.parents.iter().enumerate() {
        match parent {
            RouteParent::Service { namespace, name, port } => {
                if mesh.find_service(namespace.as_str(), name).is_some() {
                    let host = host::service_host(name, namespace, &mesh.cluster_domain);
                    attachments.push(Attachment::Service { hosts: vec![host.as_str().to_owned()], port: *port });
                }
            }
            RouteParent::Listeners { owner, listener: section, port } => {
                let gateway_listeners: Vec<&GatewayListener> =
                    listeners.iter().filter(|listener| listener.owner == *owner).collect();
                for listener in &gateway_listeners {
                    let is_referenced = section.as_deref().is_none_or(|section| section == listener.section)
                        && port.is_none_or(|port| i64::from(port) == listener.port);
                    if is_referenced && accepts(listener, object) {
                        let same_port = gateway_listeners.iter().filter(|other| {
                            other.section != listener.section
                                && other.port == listener.port
                                && other.protocol == listener.protocol
                        });
                        let mut other_hostnames: Vec<String> = same_port.map(|other| other.hostname.clone()).collect();
                        other_hostnames.retain(|other| *other != listener.hostname);
                        attachments.push(Attachment::Listener {
                            gateway: listener.gateway.clone(),
                            hostname: listener.hostname.clone(),
                            other_hostnames,
                        });
                    }
                }
            }
            RouteParent::Other(_) => attachments.extend(service_entry_attachment(mesh, object, index)),
        }
    }
    attachments
}

fn service_entry_attachment(mesh: &Mesh<'_>, object: &RouteObject, index: usize) -> Option<Attachment> {
    let parent = object.route.spec.parent_refs.get(index)?;
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

/// Whether a listener accepts a route: by its kind, its namespace and a common host.
fn accepts(listener: &GatewayListener, object: &RouteObject) -> bool {
    let own_namespace = object.object.namespace.as_str();
    let all_hosts = ["*".to_owned()];
    let hostnames = &object.route.spec.hostnames;
    let hostnames = if hostnames.is_empty() { &all_hosts[..] } else { &hostnames.0[..] };
    let has_common_host = hostnames.iter().any(|host| {
        listener.server.hosts.iter().any(|allowed| {
            let (namespace, pattern) = allowed.split_once('/').unwrap_or(("*", allowed));
            (namespace == "*" || namespace == own_namespace) && host_patterns::overlap(pattern, host)
        })
    });
    has_common_host && listener.kinds.iter().any(|kind| kind == object.object.kind.name())
}

/// A parent that does not accept a route object, although it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedParent {
    /// The HTTPRoute or GRPCRoute.
    pub route: ObjectRef,
    /// Index in `spec.parentRefs`.
    pub index: usize,
    /// The Gateway or Service.
    pub parent: ObjectRef,
    /// The field of the reference that does not fit, if it is the reference.
    pub field: Option<&'static str>,
    /// Why the parent does not accept the route.
    pub reason: String,
    /// What the parent offers, such as the names of its listeners.
    pub offered: String,
}

impl Mesh<'_> {
    /// Parents that exist and do not accept a route object: no listener has the name or port, allows the route's
    /// namespace or kind, or has a common host; or the Service does not have the port.
    pub fn rejected_parents(&self) -> Vec<RejectedParent> {
        let listeners = listeners(self);
        let mut rejected = Vec::new();
        for object in &self.route_objects {
            for (index, parent) in object.parents.iter().enumerate() {
                let found = match parent {
                    RouteParent::Listeners { owner, listener, port } => {
                        let own: Vec<&GatewayListener> =
                            listeners.iter().filter(|listener| listener.owner == *owner).collect();
                        let reason = if own.is_empty() {
                            self.dead_listener_set(owner)
                        } else {
                            rejection(&own, object, listener.as_deref(), *port)
                        };
                        reason.map(|reason| (owner.clone(), reason))
                    }
                    RouteParent::Service { namespace, name, port } => {
                        let Some(id) = self.find_service(namespace.as_str(), name) else { continue };
                        let service = self.service(id);
                        let missing = port.filter(|number| service.port(*number).is_none());
                        missing.map(|number| {
                            let ports: Vec<String> = service.ports.iter().map(ServicePort::title).collect();
                            let reason = format!("the Service does not have port {number}");
                            (service.object.clone(), (Some("port"), reason, format!("ports {}", ports.join(", "))))
                        })
                    }
                    RouteParent::Other(_) => None,
                };
                if let Some((parent, (field, reason, offered))) = found {
                    let route = object.object.clone();
                    rejected.push(RejectedParent { route, index, parent, field, reason, offered });
                }
            }
        }
        rejected
    }
}

/// Why no listener accepts a route: the field of the reference, the reason, and what is offered.
type Rejection = (Option<&'static str>, String, String);

impl Mesh<'_> {
    /// Why no proxy has the listeners of a ListenerSet. `None`: it is a Gateway, or does not exist, or its Gateway is
    /// one that Istio does not configure.
    fn dead_listener_set(&self, owner: &ObjectRef) -> Option<Rejection> {
        let set = self.find_listener_set(&owner.namespace, &owner.name).filter(|_| owner.kind == Kind::ListenerSet)?;
        if !self.has_behavior(IstiodBehavior::ListenerSets) {
            let reason = format!("Istio {} does not read ListenerSets", self.version);
            return Some((None, reason, "listeners of the Gateway itself".to_owned()));
        }
        let (namespace, name) = set.gateway.as_ref()?;
        let Some(gateway) = self.find_api_gateway(namespace, name) else {
            let reason = format!("its Gateway {namespace}/{name} does not exist");
            return Some((None, reason, "spec.parentRef of the ListenerSet".to_owned()));
        };
        if !ISTIO_GATEWAY_CLASSES.contains(&gateway.spec.gateway_class_name.as_str()) {
            return None;
        }
        if listener_sets(self, gateway).iter().any(|allowed| allowed.object == set.object) {
            let reason = "each of its listeners conflicts with an earlier one of the gateway, or has no TLS settings";
            return Some((None, reason.to_owned(), format!("listeners of {}", gateway.object)));
        }
        let reason = format!("spec.allowedListeners of {} does not allow it", gateway.object);
        Some((None, reason, "allowedListeners.namespaces.from is None by default".to_owned()))
    }

    /// The ListenerSets whose parent is this Gateway.
    fn listener_sets_of(&self, gateway: &ObjectRef) -> impl Iterator<Item = &ListenerSet> {
        self.listener_sets.iter().filter(move |set| {
            set.gateway
                .as_ref()
                .is_some_and(|(namespace, name)| *namespace == gateway.namespace && *name == gateway.name)
        })
    }
}

fn rejection(
    listeners: &[&GatewayListener],
    object: &RouteObject,
    section: Option<&str>,
    port: Option<u16>,
) -> Option<Rejection> {
    let list = |text: &dyn Fn(&GatewayListener) -> String| -> String {
        listeners.iter().map(|listener| text(listener)).collect::<Vec<_>>().join(", ")
    };
    let named: Vec<&&GatewayListener> =
        listeners.iter().filter(|listener| section.is_none_or(|section| section == listener.section)).collect();
    if named.is_empty() {
        let reason = format!("it has no listener named {}", section.unwrap_or_default());
        return Some((
            Some("sectionName"),
            reason,
            format!("listeners {}", list(&|listener| listener.section.clone())),
        ));
    }
    let on_port: Vec<&&GatewayListener> =
        named.into_iter().filter(|listener| port.is_none_or(|port| i64::from(port) == listener.port)).collect();
    if on_port.is_empty() {
        let reason = format!("it has no such listener on port {}", port.unwrap_or_default());
        return Some((Some("port"), reason, format!("ports {}", list(&|listener| listener.port.to_string()))));
    }
    if on_port.iter().any(|listener| accepts(listener, object)) {
        return None;
    }
    let kind = object.object.kind.name();
    if !on_port.iter().any(|listener| listener.kinds.iter().any(|allowed| allowed == kind)) {
        let kinds = |listener: &GatewayListener| format!("{}: {}", listener.section, listener.kinds.join(" "));
        return Some((None, format!("no listener allows the kind {kind}"), format!("allowed kinds {}", list(&kinds))));
    }
    let own_namespace = object.object.namespace.as_str();
    let allows_namespace = |listener: &&&GatewayListener| {
        listener.server.hosts.iter().any(|allowed| {
            allowed.split_once('/').is_none_or(|(namespace, _)| namespace == "*" || namespace == own_namespace)
        })
    };
    if !on_port.iter().any(allows_namespace) {
        let reason = format!("allowedRoutes of its listeners do not include namespace {own_namespace}");
        return Some((None, reason, "allowedRoutes.namespaces.from is Same by default".to_owned()));
    }
    let hostname = |listener: &GatewayListener| {
        let hostname = if listener.hostname.is_empty() { "*" } else { &listener.hostname };
        format!("{}: {hostname}", listener.section)
    };
    let reason = format!("no listener has a host in common with {}", object.route.spec.hostnames.join(", "));
    Some((None, reason, format!("hosts {}", list(&hostname))))
}

/// The secret names of a listener's certificates. Certificates in other namespaces need a ReferenceGrant and are not
/// included.
fn credentials(own_namespace: &Namespace, listener: &ApiListener) -> Vec<String> {
    let own_namespace = own_namespace.as_str();
    let refs = listener.tls.iter().flat_map(|tls| tls.certificate_refs.iter());
    let refs = refs.filter(|secret| secret.kind.as_deref().is_none_or(|kind| kind == "Secret"));
    let refs = refs.filter(|secret| secret.namespace.as_deref().is_none_or(|namespace| namespace == own_namespace));
    refs.map(|secret| format!("kubernetes-gateway://{own_namespace}/{}", secret.name)).collect()
}
