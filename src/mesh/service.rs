//! The registry: Kubernetes Services and the hosts of ServiceEntries.

use std::sync::Arc;

use super::evidence::Evidence;
use super::ids::{Host, Labels, Namespace, ObjectRef, WorkloadId};
use super::protocol::{DecidedBy, Protocol};
use super::traffic_exclusion::IpRange;
use super::workload::{Readiness, Workload};

/// A host of the registry with its ports.
#[derive(Debug)]
pub struct Service {
    /// The Service, or the ServiceEntry that brings the host.
    pub object: ObjectRef,
    /// Full name.
    pub host: Host,
    /// RFC 3339 time of creation; the older of two objects often wins.
    pub created: Option<Arc<str>>,
    /// How callers find endpoints.
    pub resolution: Resolution,
    /// Ports in their order.
    pub ports: Vec<ServicePort>,
    /// Its own labels.
    pub labels: Labels,
    /// Labels of the pods behind it; empty means that somebody else writes the endpoints.
    pub selector: Labels,
    /// Virtual addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Ranges of addresses, only of a ServiceEntry.
    pub ranges: Vec<IpRange>,
    /// Labels of the endpoints that a ServiceEntry names.
    pub fixed_endpoints: Vec<Labels>,
    /// The pods behind it.
    pub workloads: Vec<WorkloadId>,
    /// How many endpoints take calls.
    pub endpoints: PodCount,
    /// Who sees it.
    pub export_to: Visibility,
    /// The words that say so, sorted: entries of one host are merged only where they are the same.
    pub export_words: Vec<String>,
    /// Whether unready pods count as endpoints.
    pub publishes_not_ready: bool,
    /// Whether callers get endpoints of their own node only.
    pub is_node_local: bool,
    /// Whether a waypoint takes its traffic, by its own label or its namespace's.
    pub waypoint: bool,
    /// Whether it is outside of the mesh: a ServiceEntry's, unless it says `MESH_INTERNAL`.
    pub is_external: bool,
}

/// How a host is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// A virtual address.
    ClusterIp,
    /// No virtual address: clients dial pods.
    Headless,
    /// An alias.
    ExternalName(Host),
    /// A ServiceEntry, with its resolution word.
    Entry(Arc<str>),
}

/// One port of a host.
#[derive(Debug)]
pub struct ServicePort {
    /// Position in the object's list of ports.
    pub index: usize,
    /// Number that callers use.
    pub number: u16,
    /// Name.
    pub name: Option<Arc<str>>,
    /// `appProtocol` as written; present but empty is not the same as absent.
    pub app_protocol: Option<Arc<str>>,
    /// L4 protocol.
    pub l4: Arc<str>,
    /// What Istio takes it for.
    pub protocol: Protocol,
    /// Who decided that.
    pub decided_by: DecidedBy,
    /// Port in the pods.
    pub target: TargetPort,
    /// Signs that the port is used for gRPC.
    pub evidence: Vec<Evidence>,
}

impl ServicePort {
    /// Field path of the port, or of one of its fields.
    pub fn field(&self, inner: &str) -> String {
        let dot = if inner.is_empty() { "" } else { "." };
        format!("spec.ports[{}]{dot}{inner}", self.index)
    }

    /// The field that decides the protocol, or should.
    pub fn deciding_field(&self) -> String {
        match self.decided_by {
            DecidedBy::AppProtocol(_) | DecidedBy::UnknownAppProtocol { .. } => self.field("appProtocol"),
            DecidedBy::L4Udp
            | DecidedBy::EntryProtocol(_)
            | DecidedBy::UnknownEntryProtocol(_)
            | DecidedBy::NoEntryProtocol => self.field("protocol"),
            DecidedBy::PortName(_) | DecidedBy::UnknownName(_) | DecidedBy::NoName | DecidedBy::WellKnownPort(_) => {
                self.field("name")
            }
        }
    }

    /// `50051 grpc-api`, or the number alone.
    pub fn title(&self) -> String {
        match &self.name {
            Some(name) if !name.is_empty() => format!("{} {name}", self.number),
            _ => self.number.to_string(),
        }
    }
}

/// Port in the pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port.
    Name(Arc<str>),
}

impl ServicePort {
    /// The YAML that makes Istio take it for gRPC.
    pub fn as_grpc(&self) -> String {
        let number = self.number;
        match &self.decided_by {
            DecidedBy::EntryProtocol(_) | DecidedBy::UnknownEntryProtocol(_) | DecidedBy::NoEntryProtocol => {
                format!("ports:\n- number: {number}\n  protocol: GRPC")
            }
            // It overrules the name, so another name would change nothing.
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
    /// Its number in a workload's pods; `None` for a name that they do not have.
    pub fn number_in(&self, workload: &Workload) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => {
                workload.ports.iter().find(|port| port.name.as_deref() == Some(&**name)).map(|port| port.number)
            }
        }
    }
}

/// Counts of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PodCount {
    /// Ready.
    pub ready: u32,
    /// Of unknown readiness: templates.
    pub unknown: u32,
    /// All.
    pub total: u32,
}

impl PodCount {
    /// Whether calls can be served as far as the source says.
    pub fn may_serve(self) -> bool {
        self.ready > 0 || self.unknown > 0
    }

    /// Adds a workload's pods.
    pub fn add(&mut self, workload: &Workload, publishes_not_ready: bool) {
        self.total += workload.count;
        match workload.readiness {
            Readiness::Ready => self.ready += workload.count,
            Readiness::NotReady if publishes_not_ready => self.ready += workload.count,
            Readiness::NotReady => {}
            Readiness::Unknown => self.unknown += workload.count,
        }
    }
}

/// Who sees an object: the meaning of `exportTo`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// `*`: every namespace.
    Public,
    /// `.`: its own namespace.
    Private,
    /// These namespaces.
    Namespaces(Vec<Namespace>),
    /// `~`: nobody.
    Nobody,
}

impl Visibility {
    /// Reads an `exportTo` list; an empty one takes the mesh's default, and without one is public.
    pub fn new(export_to: &[String], default: &[String], own: &Namespace) -> Self {
        let list = if export_to.is_empty() { default } else { export_to };
        if list.is_empty() || list.iter().any(|value| value == "*") {
            return Self::Public;
        }
        if list.iter().any(|value| value == "~") {
            return Self::Nobody;
        }
        let mut namespaces: Vec<Namespace> =
            list.iter().map(|value| if value == "." { own.clone() } else { value.as_str().into() }).collect();
        namespaces.sort();
        namespaces.dedup();
        if namespaces.as_slice() == std::slice::from_ref(own) { Self::Private } else { Self::Namespaces(namespaces) }
    }

    /// Whether somebody in `namespace` sees an object of `own`.
    pub fn reaches(&self, namespace: &Namespace, own: &Namespace) -> bool {
        match self {
            Self::Public => true,
            Self::Private => namespace == own,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
            Self::Nobody => false,
        }
    }
}

impl Service {
    /// Namespace of the object.
    pub fn namespace(&self) -> &Namespace {
        &self.object.namespace
    }

    /// Whether it is a Kubernetes Service.
    pub fn is_kubernetes(&self) -> bool {
        !matches!(self.resolution, Resolution::Entry(_))
    }

    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The port that questions about the Service as a whole mean: the first with signs of gRPC whose calls are routed,
    /// else the first whose calls are, else the first.
    pub fn main_port(&self) -> u16 {
        let routed = || self.ports.iter().filter(|port| port.protocol.is_http_or_auto());
        let grpc = routed().find(|port| !port.evidence.is_empty());
        grpc.or_else(|| routed().next()).or_else(|| self.ports.first()).map_or(0, |port| port.number)
    }

    /// Whether any port shows signs of gRPC.
    pub fn has_grpc(&self) -> bool {
        self.ports.iter().any(|port| !port.evidence.is_empty())
    }
}
