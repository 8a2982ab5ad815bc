//! The compiled stage of a route: what istiod would send to one proxy, and what that Envoy decides for a call.
//!
//! The modules follow istiod's order of work:
//!
//! 1. `route_config` turns VirtualServices (with their delegates, `delegate`) and Gateway API routes
//!    (`gateway_api_parents`, `gateway_api_conversion`) into one kind of route configuration for the whole mesh.
//! 2. `scope` selects the Services and route configurations that one proxy sees.
//! 3. `listener` builds a sidecar's listeners and filter chains, `gateway_listeners` those of a gateway.
//! 4. `virtual_host` and `gateway_routes` build the route tables, `route` and `matching` the routes in them.
//! 5. `cluster` builds the clusters that routes send to; `secrets` lists the certificates that a gateway needs.
//!
//! `decision` then follows one call as Envoy does: `dns` finds the address that the client dials, the listener selects
//! a filter chain, `route_table` the virtual host, and the first matching route the backends. `envoy_routes` and
//! `envoy_clusters` write the compiled stage in the shape of Envoy's config dump, to compare it with the observed stage.
//! `shared_decisions` decides one call for many callers. `route_owner` and `rules_in_use` answer narrower questions without building everything.
//!
//! Each file names its sources in istio/istio 1.31 and Envoy 1.39. `tests/routes.rs` compares the results with the
//! output of istiod's own code.

mod cluster;
mod decision;
mod delegate;
mod dns;
mod effect;
mod envoy_clusters;
mod envoy_routes;
mod example_call;
mod gateway_api_conversion;
mod gateway_api_parents;
mod gateway_listeners;
mod gateway_routes;
mod host_patterns;
mod listener;
mod matching;
mod missing_cluster;
mod route;
mod route_config;
mod route_owner;
mod route_table;
mod rules_in_use;
mod scope;
mod secrets;
mod shared_decisions;
mod virtual_host;

pub use decision::{CallDecision, CallOutcome, MatchedRule};
pub use envoy_clusters::CompiledCluster;
pub use envoy_routes::CompiledRouteTable;
pub use example_call::EXAMPLE_PATH;
pub use gateway_api_parents::RejectedParent;
pub use gateway_listeners::{DroppedServer, DuplicateServer};
pub use listener::ListenerClass;
pub(crate) use listener::RESERVED_PORTS;
pub use missing_cluster::{DestinationUse, MissingCluster, MissingClusterCause};
pub use route_config::{ConfigId, ConfigRule, RouteConfig, RouteConfigs, find_delegate};
pub use route_owner::RouteOwner;
pub use rules_in_use::RuleInUse;
pub use shared_decisions::SharedDecisions;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::Serialize;

use super::Mesh;
use super::ids::{Host, Labels, Namespace, ObjectRef, ServiceId, SubsetName, WorkloadId};
use super::service::{PodCount, Resolution};

/// The kind of proxy through which a caller's calls enter the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerKind {
    /// A sidecar, for the calls of its own pod.
    Sidecar,
    /// A gateway, for the calls that clients send to it.
    Gateway,
}

/// The point of view from which a call is made. Everything that istiod sends depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Sidecar or gateway.
    pub kind: CallerKind,
    /// Namespace of the proxy's pod.
    pub namespace: Namespace,
    /// Labels of the proxy's pod, which selectors and `sourceLabels` match.
    pub labels: Labels,
    /// The pod, when the source contains it.
    pub workload: Option<WorkloadId>,
}

impl Caller {
    /// A sidecar in a namespace whose pod has no labels.
    pub fn in_namespace(namespace: Namespace) -> Self {
        Self { kind: CallerKind::Sidecar, namespace, labels: Labels::default(), workload: None }
    }

    /// The proxy of a workload in the source.
    pub fn of_workload(mesh: &Mesh<'_>, id: WorkloadId) -> Self {
        let workload = mesh.workload(id);
        let kind = match workload.proxy {
            super::workload::ProxyKind::Gateway(_) => CallerKind::Gateway,
            _ => CallerKind::Sidecar,
        };
        Self { kind, namespace: workload.namespace().clone(), labels: workload.labels.clone(), workload: Some(id) }
    }

    /// The name of its caller class, such as `web (app=x)` or `gateway web/ingress`.
    pub fn class_name(&self, mesh: &Mesh<'_>) -> String {
        if self.kind == CallerKind::Gateway {
            let workload = self.workload.map(|id| mesh.workload(id));
            let name =
                workload.map(|workload| workload.owner.as_ref().map_or(&*workload.object.name, |(_, name)| name));
            return format!("gateway {}/{}", self.namespace, name.unwrap_or_default());
        }
        let keys = mesh.caller_label_keys();
        let labels = keys.iter().filter_map(|key| self.labels.get(key).map(|value| format!("{key}={value}")));
        let labels: Vec<String> = labels.collect();
        if labels.is_empty() {
            self.namespace.to_string()
        } else {
            format!("{} ({})", self.namespace, labels.join(","))
        }
    }

    fn address(&self, mesh: &Mesh<'_>) -> DialedAddress {
        self.workload.map_or(DialedAddress::Unknown, |id| DialedAddress::of_pod(mesh, id))
    }
}

/// The protocol that a client uses for a call.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema, strum::EnumString, strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum CallProtocol {
    /// gRPC in plaintext. Clients with a sidecar use this one.
    #[default]
    Grpc,
    /// gRPC over TLS that the application itself starts, with the authority as SNI.
    GrpcTls,
    /// HTTP/1.1 in plaintext.
    Http1,
}

impl CallProtocol {
    /// The value in calls files and JSON reports, such as `grpc-tls`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A call as the client sends it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// The `:authority` header, with or without a port.
    pub authority: String,
    /// The port that the client dials: the Service's, or that of the gateway's own Service.
    pub port: u16,
    /// The `:path` header, for gRPC `/package.Service/Method`.
    pub path: String,
    /// Other headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The protocol that the client uses.
    pub protocol: CallProtocol,
    /// The host that the client resolves and dials; `None` means the authority's host.
    pub dial: Option<String>,
}

impl Call {
    /// The value of a header, including the headers that every gRPC client sends.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let given = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        given.or_else(|| match name {
            ":method" => Some("POST".to_owned()),
            ":authority" | "host" => Some(self.authority.clone()),
            ":path" => Some(self.path.clone()),
            ":scheme" if self.protocol == CallProtocol::GrpcTls => Some("https".to_owned()),
            ":scheme" => Some("http".to_owned()),
            "content-type" => Some("application/grpc".to_owned()),
            "te" => Some("trailers".to_owned()),
            _ => None,
        })
    }
}

/// An address that a client dials or a listener binds. Sources may lack IP addresses, so a Service or a pod stands for
/// its own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialedAddress {
    /// The wildcard address `0.0.0.0`, which shared listeners bind.
    Any,
    Ip(IpAddr),
    /// The cluster IP of a Service, when the source lacks it.
    Service(ServiceId),
    /// The IP of a pod, when the source lacks it.
    Pod(WorkloadId),
    /// An address that no Service or pod of the mesh has.
    Unknown,
}

impl DialedAddress {
    fn of_pod(mesh: &Mesh<'_>, id: WorkloadId) -> Self {
        let ip = mesh.workload(id).ip.as_deref().and_then(|ip| ip.parse().ok());
        ip.map_or(Self::Pod(id), Self::Ip)
    }
}

/// The protocol of a cluster's connections to its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1, or a TCP stream.
    Http1,
    /// HTTP/2.
    Http2,
    /// The protocol of the caller's own connection.
    Downstream,
}

impl UpstreamProtocol {
    /// The value in JSON reports, such as `http2`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Whether calls to a backend can arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum BackendState {
    /// The cluster exists and may have ready endpoints.
    Ok,
    /// The proxy has no such cluster (Envoy's response flag `NC`).
    #[default]
    NoCluster,
    /// The cluster has no ready endpoint (Envoy's response flag `UH`).
    NoEndpoints,
    /// The source cannot tell, because it holds no pods or no Services of that namespace.
    /// Only [`Mesh::backends`] reports it; a [`CompiledBackend`] never has it.
    Unknown,
}

impl BackendState {
    /// The value in JSON reports, such as `no-endpoints`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A backend as compiled for one proxy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompiledBackend {
    /// Name of the cluster, such as `outbound|50051|v1|checkout.shop.svc.cluster.local`.
    pub cluster: String,
    /// Host; `None` for an invalid Gateway API backend (cluster `UnknownService`).
    pub host: Option<Host>,
    /// Port of the Service.
    pub port: Option<u32>,
    /// Subset, if the destination names one.
    pub subset: Option<SubsetName>,
    /// Relative weight; `None` for the only backend of a rule.
    pub weight: Option<i64>,
    /// Whether calls can arrive.
    pub state: BackendState,
    /// The Service, if the cluster exists.
    pub service: Option<ServiceId>,
    /// Endpoints that istiod sends; `None` when the proxy uses the address that the client dialed, or when the source
    /// contains no pods.
    pub endpoints: Option<PodCount>,
    /// Protocol toward the endpoints, if the cluster exists.
    pub upstream_protocol: Option<UpstreamProtocol>,
    /// The DestinationRule that shapes the cluster; of several merged ones, the first.
    pub destination_rule: Option<ObjectRef>,
    /// The BackendTLSPolicy that merges with it.
    pub backend_tls_policy: Option<ObjectRef>,
    /// TLS mode of that DestinationRule; `None` means that auto mTLS decides for each endpoint.
    pub tls: Option<String>,
    /// The key of consistent hashing, such as `header x-user`.
    pub hash_policy: Option<String>,
    /// `http2MaxRequests` of the connection pool: concurrent calls that one proxy allows.
    pub max_requests: Option<i64>,
}

/// A cluster that gets copies of the calls.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledMirror {
    /// The cluster.
    pub backend: CompiledBackend,
    /// Share of calls that are copied, from 0 to 100.
    pub percent: f64,
}

/// A rule, or one match of it, that does not match a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedRule {
    /// The object.
    pub object: ObjectRef,
    /// Index of the rule in the object.
    pub index: usize,
    /// Index in the rule's `match` list.
    pub match_index: Option<usize>,
    /// The condition that fails, such as `header x-canary is absent`.
    pub reason: String,
}

impl TriedRule {
    fn new(rule: &ConfigRule, position: Option<usize>, reason: String) -> Self {
        Self {
            object: rule.object.clone(),
            index: rule.index,
            match_index: position.and_then(|position| rule.match_index(position)),
            reason,
        }
    }
}

/// The compiled configuration of one proxy. Listeners and route tables are built on first use and cached.
#[derive(Debug)]
pub struct ProxyConfig<'m> {
    mesh: &'m Mesh<'m>,
    /// The proxy's point of view.
    pub caller: Caller,
    scope: scope::ProxyScope<'m>,
    /// Number of the last `routes` call, see `CompiledRoute::batch`.
    route_batch: Cell<usize>,
    /// Route tables by name.
    tables: RefCell<HashMap<String, Rc<route_table::IndexedTable<'m>>>>,
    /// Listeners by port.
    listeners: RefCell<HashMap<u16, Rc<Vec<listener::CompiledListener>>>>,
}

impl<'m> ProxyConfig<'m> {
    /// Computes what the caller's proxy sees of the mesh; the rest follows on demand.
    pub fn new(mesh: &'m Mesh<'m>, caller: Caller) -> Self {
        let scope = scope::ProxyScope::new(mesh, &caller);
        Self {
            mesh,
            caller,
            scope,
            route_batch: Cell::new(0),
            tables: RefCell::default(),
            listeners: RefCell::default(),
        }
    }

    /// The Sidecar object that limits what the caller sees, if any.
    pub fn sidecar(&self) -> Option<&ObjectRef> {
        self.scope.sidecar.map(|sidecar| &sidecar.object)
    }
}

/// Results that are the same for every proxy, computed once for a mesh.
#[derive(Debug, Default)]
pub(super) struct XdsIndex {
    configs: RouteConfigs,
    by_age: Vec<ServiceId>,
    aliases: HashMap<Host, Vec<ServiceId>>,
    /// Positions of the Sidecars of each namespace, in istiod's order.
    sidecars: HashMap<Namespace, Vec<usize>>,
}

impl Mesh<'_> {
    fn xds_index(&self) -> &XdsIndex {
        self.xds_index.get_or_init(|| XdsIndex {
            configs: RouteConfigs::new(self),
            by_age: self.sort_by_age(),
            aliases: self.find_aliases(),
            sidecars: self.sidecars_by_namespace(),
        })
    }

    /// Route configurations of the whole mesh: VirtualServices with their delegates merged in, and converted Gateway
    /// API routes.
    pub fn route_configs(&self) -> &RouteConfigs {
        &self.xds_index().configs
    }

    fn sidecars_by_namespace(&self) -> HashMap<Namespace, Vec<usize>> {
        let mut positions: HashMap<Namespace, Vec<usize>> = HashMap::new();
        for (position, sidecar) in self.sidecars.iter().enumerate() {
            positions.entry(sidecar.object.namespace.clone()).or_default().push(position);
        }
        positions
    }

    fn sort_by_age(&self) -> Vec<ServiceId> {
        let mut ids: Vec<ServiceId> = self.service_ids().collect();
        // istiod's registry names a ServiceEntry's services by host.
        let sort_key = |id: &ServiceId| {
            let service = self.service(*id);
            let name = if service.is_kubernetes() { &*service.object.name } else { service.host.as_str() };
            (service.created.clone(), name.to_owned(), service.namespace().clone())
        };
        ids.sort_by_cached_key(sort_key);
        ids
    }

    fn find_aliases(&self) -> HashMap<Host, Vec<ServiceId>> {
        let target = |host: &Host| {
            let resolutions = self.services_named(host.as_str()).iter().map(|id| &self.service(*id).resolution);
            let mut targets = resolutions.filter_map(|resolution| match resolution {
                Resolution::ExternalName(target) => Some(target.clone()),
                _ => None,
            });
            targets.next()
        };
        // The end of the chain of aliases that starts at a host. Aliases that form a cycle have no end.
        let mut ends: HashMap<Host, Option<Host>> = HashMap::new();
        let mut aliases: HashMap<Host, Vec<ServiceId>> = HashMap::new();
        for id in self.service_ids() {
            let Resolution::ExternalName(first) = &self.service(id).resolution else { continue };
            let (mut chain, mut current) = (Vec::new(), first.clone());
            let end = loop {
                if let Some(end) = ends.get(&current) {
                    break end.clone();
                }
                let Some(next) = target(&current) else { break Some(current) };
                // Reached again before its end is known, the host is part of a cycle.
                ends.insert(current.clone(), None);
                chain.push(std::mem::replace(&mut current, next));
            };
            for host in chain {
                ends.insert(host, end.clone());
            }
            if let Some(end) = end {
                aliases.entry(end).or_default().push(id);
            }
        }
        aliases
    }
}
