//! The service registry: Kubernetes Services and the hosts of ServiceEntries.

use std::sync::Arc;

use super::evidence::Evidence;
use super::ids::{Host, Labels, Namespace, ObjectRef, WorkloadId};
use super::protocol::{DecidedBy, Protocol};
use super::traffic_exclusion::IpRange;
use super::waypoint::WaypointRef;
use super::workload::{Readiness, Workload};

/// A registry entry: one host with its ports.
#[derive(Debug)]
pub struct Service {
    /// The Service, or the ServiceEntry that defines the host.
    pub object: ObjectRef,
    /// Fully qualified host name.
    pub host: Host,
    /// RFC 3339 creation time. istiod resolves many conflicts in favor of the older object.
    pub created: Option<Arc<str>>,
    /// How callers find endpoints.
    pub resolution: Resolution,
    /// Ports, in the order of the object.
    pub ports: Vec<ServicePort>,
    /// Labels of the object.
    pub labels: Labels,
    /// Pod selector. Empty: the endpoints are maintained outside Kubernetes, or listed in the ServiceEntry.
    pub selector: Labels,
    /// Virtual IP addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Address ranges of a ServiceEntry.
    pub ranges: Vec<IpRange>,
    /// Labels of each endpoint that a ServiceEntry lists.
    pub endpoint_labels: Vec<Labels>,
    /// Workloads that the selector matches.
    pub workloads: Vec<WorkloadId>,
    /// Number of endpoints, from EndpointSlices where the source has them, else from the selected pods.
    pub endpoints: PodCount,
    /// Namespaces to which the host is exported.
    pub export_to: Visibility,
    /// The written `exportTo` values, sorted. istiod merges ServiceEntries of one host only if these are equal.
    pub export_to_values: Vec<String>,
    /// `publishNotReadyAddresses`: unready pods are endpoints too.
    pub publishes_not_ready: bool,
    /// `internalTrafficPolicy: Local`: callers use only endpoints on their own node.
    pub is_node_local: bool,
    /// The waypoint that the label of the Service or its Namespace names; it may not exist.
    pub waypoint: Option<WaypointRef>,
    /// Whether the host is outside the mesh: a ServiceEntry without `location: MESH_INTERNAL`.
    pub is_external: bool,
}

/// How callers find the endpoints of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Through a virtual IP address.
    ClusterIp,
    /// Without a virtual IP address: clients dial pods directly.
    Headless,
    /// DNS alias of another host.
    ExternalName(Host),
    /// As the `resolution` of a ServiceEntry says: `NONE`, `STATIC`, `DNS` …
    ServiceEntry(Arc<str>),
}

/// One port of a registry entry.
#[derive(Debug)]
pub struct ServicePort {
    /// Position in the `ports` of the object.
    pub index: usize,
    /// Port number that callers dial.
    pub number: u16,
    /// Port name.
    pub name: Option<Arc<str>>,
    /// The written `appProtocol`. An empty value differs from an absent one: it hides the port name.
    pub app_protocol: Option<Arc<str>>,
    /// Transport protocol: `TCP`, `UDP` or `SCTP`.
    pub l4: Arc<str>,
    /// The protocol that Istio uses for the port.
    pub protocol: Protocol,
    /// The field that determined `protocol`.
    pub decided_by: DecidedBy,
    /// Port of the pods.
    pub target: TargetPort,
    /// Evidence that the port carries gRPC, sorted.
    pub evidence: Vec<Evidence>,
}

impl ServicePort {
    /// Path of the port in its object, or of one of its fields if `field` is not empty.
    pub fn field_path(&self, field: &str) -> String {
        let dot = if field.is_empty() { "" } else { "." };
        format!("spec.ports[{}]{dot}{field}", self.index)
    }

    /// Path of the field that determines the protocol, or that has to be set to determine it.
    pub fn deciding_field(&self) -> String {
        match self.decided_by {
            DecidedBy::AppProtocol(_) | DecidedBy::UnknownAppProtocol { .. } => self.field_path("appProtocol"),
            DecidedBy::L4Udp
            | DecidedBy::EntryProtocol(_)
            | DecidedBy::UnknownEntryProtocol(_)
            | DecidedBy::NoEntryProtocol => self.field_path("protocol"),
            DecidedBy::PortName(_) | DecidedBy::UnknownName(_) | DecidedBy::NoName | DecidedBy::WellKnownPort(_) => {
                self.field_path("name")
            }
        }
    }

    /// Number and name: `50051 grpc-api`.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) if !name.is_empty() => format!("{} {name}", self.number),
            _ => self.number.to_string(),
        }
    }
}

/// The `targetPort` of a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetPort {
    /// A port number.
    Number(u16),
    /// The name of a container port.
    Name(Arc<str>),
}

impl ServicePort {
    /// YAML that declares the port as gRPC, for a fix.
    pub fn grpc_port_yaml(&self) -> String {
        let number = self.number;
        match &self.decided_by {
            DecidedBy::EntryProtocol(_) | DecidedBy::UnknownEntryProtocol(_) | DecidedBy::NoEntryProtocol => {
                format!("ports:\n- number: {number}\n  protocol: GRPC")
            }
            // `appProtocol` takes precedence over the port name, so a new name would have no effect.
            DecidedBy::AppProtocol(_) | DecidedBy::UnknownAppProtocol { .. } => {
                format!("ports:\n- port: {number}\n  appProtocol: grpc")
            }
            DecidedBy::L4Udp => format!("ports:\n- name: grpc\n  port: {number}\n  protocol: TCP"),
            DecidedBy::PortName(_) | DecidedBy::UnknownName(_) | DecidedBy::NoName | DecidedBy::WellKnownPort(_) => {
                format!("ports:\n- name: grpc\n  port: {number}")
            }
        }
    }
}

impl TargetPort {
    /// The port number in the pods of `workload`. `None` if no container declares a port with this name.
    pub fn number_in(&self, workload: &Workload) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => {
                workload.ports.iter().find(|port| port.name.as_deref() == Some(&**name)).map(|port| port.number)
            }
        }
    }
}

/// Number of pods or endpoints by readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodCount {
    /// Ready to receive calls.
    pub ready: u32,
    /// Pods of unknown readiness, because the source has a pod template and no Pod.
    pub unknown: u32,
    /// All of them, including those that are not ready.
    pub total: u32,
}

impl PodCount {
    /// Whether any pod is ready or of unknown readiness.
    pub fn may_serve(self) -> bool {
        self.ready > 0 || self.unknown > 0
    }

    /// Adds the pods of `workload`. With `publishes_not_ready`, unready pods count as ready.
    pub fn add(&mut self, workload: &Workload, publishes_not_ready: bool) {
        self.total += workload.pod_count;
        match workload.readiness {
            Readiness::Ready => self.ready += workload.pod_count,
            Readiness::NotReady if publishes_not_ready => self.ready += workload.pod_count,
            Readiness::NotReady => {}
            Readiness::Unknown => self.unknown += workload.pod_count,
        }
    }
}

/// Namespaces to which an object is exported (`exportTo`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// `*`: every namespace.
    Public,
    /// `.`: the namespace of the object.
    Private,
    /// The listed namespaces.
    Namespaces(Vec<Namespace>),
    /// `~`: none.
    NoNamespace,
}

impl Visibility {
    /// Interprets an `exportTo` list of an object in namespace `own_namespace`. An empty list means `default`, the list in the
    /// mesh configuration; if that is empty too, the object is public.
    pub fn new(export_to: &[String], default: &[String], own_namespace: &Namespace) -> Self {
        let list = if export_to.is_empty() { default } else { export_to };
        if list.is_empty() || list.iter().any(|value| value == "*") {
            return Self::Public;
        }
        if list.iter().any(|value| value == "~") {
            return Self::NoNamespace;
        }
        let mut namespaces: Vec<Namespace> =
            list.iter().map(|value| if value == "." { own_namespace.clone() } else { value.as_str().into() }).collect();
        namespaces.sort();
        namespaces.dedup();
        if namespaces.as_slice() == std::slice::from_ref(own_namespace) {
            Self::Private
        } else {
            Self::Namespaces(namespaces)
        }
    }

    /// Whether an object of namespace `own_namespace` is exported to `namespace`.
    pub fn includes(&self, namespace: &Namespace, own_namespace: &Namespace) -> bool {
        match self {
            Self::Public => true,
            Self::Private => namespace == own_namespace,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
            Self::NoNamespace => false,
        }
    }
}

impl Service {
    /// Namespace of the object that defines the host.
    pub fn namespace(&self) -> &Namespace {
        &self.object.namespace
    }

    /// Whether the entry is a Kubernetes Service and not a ServiceEntry.
    pub fn is_kubernetes(&self) -> bool {
        !matches!(self.resolution, Resolution::ServiceEntry(_))
    }

    /// The port that callers dial as `number`.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Number of the port that represents the Service: the first HTTP port with gRPC evidence, else the first HTTP
    /// port, else the first port, else 0. Auto-detected ports count as HTTP.
    pub fn main_port(&self) -> u16 {
        let routed = || self.ports.iter().filter(|port| port.protocol.is_http_or_auto());
        let grpc = routed().find(|port| !port.evidence.is_empty());
        grpc.or_else(|| routed().next()).or_else(|| self.ports.first()).map_or(0, |port| port.number)
    }

    /// Whether any port has gRPC evidence.
    pub fn has_grpc_evidence(&self) -> bool {
        self.ports.iter().any(|port| !port.evidence.is_empty())
    }
}
