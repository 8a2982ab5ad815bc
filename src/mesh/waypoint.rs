//! Waypoints of ambient mode: which one a Service names, whether it exists, and which callers use it.
//!
//! What a waypoint does with a call is not modelled. The model says which calls go through one, and what is true for the
//! calls that do not.
//!
//! Sources: `pilot/pkg/serviceregistry/ambient/waypoints.go` and `findServiceWaypoint` in
//! `pilot/pkg/xds/endpoints/endpoint_builder.go` of istio/istio 1.31.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::Mesh;
use super::gateway::ApiGateway;
use super::ids::{Namespace, ObjectRef};
use super::service::{Resolution, Service};
use super::workload::ProxyKind;
use super::xds::{Caller, CallerKind};
use crate::schema::Kind;
use crate::schema::gateway_api::LabelSelector;
use crate::schema::meta::StringMap;
use crate::vocabulary::go_bool;

/// Label that names the waypoint of a Service, ServiceEntry, Namespace or pod. `none` opts out.
pub const USE_WAYPOINT_LABEL: &str = "istio.io/use-waypoint";
const WAYPOINT_NAMESPACE_LABEL: &str = "istio.io/use-waypoint-namespace";
/// Label with which gateways send calls through the waypoint as well.
const INGRESS_LABEL: &str = "istio.io/ingress-use-waypoint";
/// Label of a waypoint's Gateway: `service` (the default), `workload`, `all` or `none`.
pub(super) const TRAFFIC_TYPE_LABEL: &str = "istio.io/waypoint-for";
/// Gateway classes of waypoints.
const WAYPOINT_CLASSES: [&str; 2] = ["istio-waypoint", "istio-agentgateway-waypoint"];

/// The waypoint that an object names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaypointRef {
    pub namespace: Namespace,
    pub name: Arc<str>,
    /// Whether the label is on the object itself, and not on its Namespace.
    pub is_own: bool,
    /// Whether gateways use the waypoint too.
    pub for_gateways: bool,
}

impl fmt::Display for WaypointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl WaypointRef {
    /// The waypoint that the labels of an object name, or those of its Namespace. `namespace`: that of the object.
    pub(super) fn new(labels: &StringMap, namespace_labels: Option<&StringMap>, namespace: &Namespace) -> Option<Self> {
        let is_own = labels.contains_key(USE_WAYPOINT_LABEL);
        let source = if is_own { labels } else { namespace_labels? };
        let name = source.get(USE_WAYPOINT_LABEL).filter(|name| *name != "none")?;
        let own_namespace = source.get(WAYPOINT_NAMESPACE_LABEL).map(|name| Namespace::from(name.as_str()));
        let ingress = labels.get(INGRESS_LABEL).or_else(|| namespace_labels?.get(INGRESS_LABEL));
        Some(Self {
            namespace: own_namespace.unwrap_or_else(|| namespace.clone()),
            name: name.as_str().into(),
            is_own,
            for_gateways: ingress.is_some_and(|value| go_bool::parse(value) == Some(true)),
        })
    }
}

/// Why istiod attaches no waypoint, although a label names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaypointProblem {
    /// No Gateway has the name.
    Missing,
    /// The Gateway has a class that is not one of waypoints.
    Class(String),
    /// `allowedRoutes` of the Gateway does not include the namespace.
    NotAllowed,
    /// The Gateway takes traffic of another kind: the value of its label `istio.io/waypoint-for`.
    Traffic(String),
}

impl fmt::Display for WaypointProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no Gateway has this name"),
            Self::Class(class) => write!(f, "the Gateway has gatewayClassName {class}, which is not one of waypoints"),
            Self::NotAllowed => f.write_str("allowedRoutes of the Gateway does not include this namespace"),
            Self::Traffic(kind) => write!(f, "the Gateway has the label {TRAFFIC_TYPE_LABEL}: {kind}"),
        }
    }
}

impl Mesh<'_> {
    /// Why istiod does not attach `waypoint` to an object of `namespace`. `traffic`: `service`, or `workload` for pods.
    pub fn waypoint_problem(
        &self,
        waypoint: &WaypointRef,
        namespace: &Namespace,
        traffic: &str,
    ) -> Option<WaypointProblem> {
        let Some(gateway) = self.find_api_gateway(&waypoint.namespace, &waypoint.name) else {
            return Some(WaypointProblem::Missing);
        };
        let class = &gateway.spec.gateway_class_name;
        if !WAYPOINT_CLASSES.contains(&class.as_str()) {
            return Some(WaypointProblem::Class(class.clone()));
        }
        if !self.allows_attachment(gateway, namespace) {
            return Some(WaypointProblem::NotAllowed);
        }
        let accepted = gateway.waypoint_for.as_deref().unwrap_or("service");
        (accepted != "all" && accepted != traffic).then(|| WaypointProblem::Traffic(accepted.to_owned()))
    }

    /// The namespaces whose labels a selector selects.
    pub(super) fn namespaces_selected_by(&self, selector: &LabelSelector) -> BTreeSet<Namespace> {
        let selected = self.namespace_labels.iter().filter(|(_, labels)| selector.matches(labels));
        selected.map(|(namespace, _)| namespace.clone()).collect()
    }

    /// Whether the HBONE listener of a waypoint, or its only rule without one, allows objects of a namespace.
    fn allows_attachment(&self, gateway: &ApiGateway, namespace: &Namespace) -> bool {
        let tunnel =
            gateway.spec.listeners.iter().find(|listener| listener.protocol == "HBONE" && listener.port == 15008);
        let allowed = tunnel.and_then(|listener| listener.allowed_routes.as_ref()?.namespaces.as_ref());
        let selector = allowed.and_then(|allowed| allowed.selector.as_ref());
        match (allowed.and_then(|allowed| allowed.from.as_deref()), selector) {
            (Some("All"), _) => true,
            (Some("Selector"), Some(selector)) => self.namespaces_selected_by(selector).contains(namespace),
            _ => gateway.object.namespace == *namespace,
        }
    }

    /// The waypoint that istiod attaches to a Service.
    pub fn waypoint_of<'a>(&self, service: &'a Service) -> Option<&'a WaypointRef> {
        let waypoint = service.waypoint.as_ref()?;
        self.waypoint_problem(waypoint, service.namespace(), "service").is_none().then_some(waypoint)
    }

    /// The waypoint that calls of a caller to a Service go through: those of ambient pods, and of gateways where a label
    /// says so. Sidecars and pods outside the mesh use none.
    pub fn waypoint_in_path<'a>(&self, caller: &Caller, service: &'a Service) -> Option<&'a WaypointRef> {
        // Waypoints accept only connections to a virtual IP address.
        if service.resolution == Resolution::Headless {
            return None;
        }
        let waypoint = self.waypoint_of(service)?;
        let is_ambient = caller.workload.is_some_and(|id| self.workload(id).proxy == ProxyKind::Ambient);
        let is_used = is_ambient || (caller.kind == CallerKind::Gateway && waypoint.for_gateways);
        is_used.then_some(waypoint)
    }

    /// Objects whose label names a waypoint that istiod does not attach, each with the reason. A Namespace is listed once,
    /// and not its Services.
    pub fn waypoint_problems(&self) -> Vec<(ObjectRef, WaypointRef, WaypointProblem)> {
        let namespaces = self.namespace_labels.iter().filter_map(|(namespace, labels)| {
            let waypoint = WaypointRef::new(labels, None, namespace)?;
            let object = ObjectRef { kind: Kind::Namespace, namespace: "".into(), name: namespace.as_str().into() };
            Some((object, waypoint, namespace))
        });
        let services = self.services.iter().filter_map(|service| {
            let waypoint = service.waypoint.as_ref().filter(|waypoint| waypoint.is_own)?;
            Some((service.object.clone(), waypoint.clone(), service.namespace()))
        });
        let mut problems: Vec<(ObjectRef, WaypointRef, WaypointProblem)> = namespaces
            .chain(services)
            .filter_map(|(object, waypoint, namespace)| {
                let problem = self.waypoint_problem(&waypoint, namespace, "service")?;
                Some((object, waypoint, problem))
            })
            .collect();
        problems.dedup();
        problems
    }
}
