//! What istiod generates for the calls that leave one proxy, and what Envoy then does with a call.
//!
//! A call takes one road: `dns` finds the address that the client dials, `listener` (or `gateway`) the listener
//! and filter chain that take the connection, `virtual_host` the routes that its authority leads to, `matching` the
//! route that fits, `cluster` what its backends are for this proxy. `scope` is what the proxy sees at all; `configs`,
//! `delegate`, `conversion` and `parents` make one kind of route configuration of VirtualServices and Gateway API.
//!
//! Sources stand at the top of each file; all are of istio/istio 1.31 and Envoy 1.39, and the whole is compared with
//! the answers of istiod's own code (`tests/routes.rs`).

mod cluster;
mod decision;
mod delegate;
mod dns;
mod envoy_clusters;
mod envoy_routes;
mod gateway_api_conversion;
mod gateway_listeners;
mod gateway_routes;
mod listener;
mod route_config;
mod rules_in_use;
pub(crate) use listener::RESERVED;
mod gateway_api_parents;
mod host_patterns;
mod matching;
mod route;
mod route_owner;
mod route_table;
mod scope;
mod secrets;
mod virtual_host;

pub use decision::{CallDecision, CallOutcome, MatchedRule};
pub use envoy_clusters::CompiledCluster;
pub use envoy_routes::CompiledRouteTable;
pub use gateway_listeners::DroppedServer;
pub use listener::ListenerClass;
pub use route_config::{ConfigId, ConfigRule, RouteConfig, RouteConfigs, find_delegate};
pub use route_owner::RouteOwner;
pub use rules_in_use::RuleInUse;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::Mesh;
use super::ids::{Host, Labels, Namespace, ObjectRef, ServiceId, SubsetName, WorkloadId};
use super::service::{PodCount, Resolution};

/// What stands between a caller and the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerKind {
    /// A sidecar: calls of its own pod.
    Sidecar,
    /// A gateway: calls that enter there.
    Gateway,
}

/// Whose proxy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Sidecar or gateway.
    pub kind: CallerKind,
    /// Namespace of its pod.
    pub namespace: Namespace,
    /// Labels of its pod.
    pub labels: Labels,
    /// The pod, when it is one of the source's.
    pub workload: Option<WorkloadId>,
}

impl Caller {
    /// A pod of a namespace whose labels nothing reads.
    pub fn in_namespace(namespace: Namespace) -> Self {
        Self { kind: CallerKind::Sidecar, namespace, labels: Labels::default(), workload: None }
    }

    /// A pod of the source.
    pub fn of_workload(mesh: &Mesh<'_>, id: WorkloadId) -> Self {
        let workload = mesh.workload(id);
        let kind = match workload.proxy {
            super::workload::ProxyKind::Gateway(_) => CallerKind::Gateway,
            _ => CallerKind::Sidecar,
        };
        Self { kind, namespace: workload.namespace().clone(), labels: workload.labels.clone(), workload: Some(id) }
    }

    /// The callers that no object tells from this one: `web (app=x)`, `gateway web/ingress`.
    pub fn class(&self, mesh: &Mesh<'_>) -> String {
        if self.kind == CallerKind::Gateway {
            let workload = self.workload.map(|id| mesh.workload(id));
            let name = workload.map(|one| one.owner.as_ref().map_or(&*one.object.name, |(_, name)| name));
            return format!("gateway {}/{}", self.namespace, name.unwrap_or_default());
        }
        let read = mesh.labels_read_of_callers();
        let labels = read.iter().filter_map(|key| self.labels.get(key).map(|value| format!("{key}={value}")));
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

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallProtocol {
    /// gRPC in plain text, as a client with a sidecar should.
    #[default]
    Grpc,
    /// gRPC over TLS of the application's own.
    GrpcTls,
    /// HTTP/1.1.
    Http1,
}

/// A call as the client makes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// `:authority`, perhaps with a port.
    pub authority: String,
    /// Port that is dialled: the Service's, or that of the gateway's Service.
    pub port: u16,
    /// `:path`: `/package.Service/Method`.
    pub path: String,
    /// Other headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// What is spoken.
    pub protocol: CallProtocol,
    /// Host that is resolved and dialled; absent means the authority's.
    pub dial: Option<String>,
}

impl Call {
    /// The value of a header, those that every gRPC call has included.
    fn header(&self, name: &str) -> Option<String> {
        let own = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        own.or_else(|| match name {
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

/// An address as far as it matters which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialedAddress {
    /// All addresses: what a shared listener binds.
    Any,
    /// This one.
    Ip(IpAddr),
    /// The virtual address of a Service that the source does not tell.
    Service(ServiceId),
    /// The address of a pod that the source does not tell.
    Pod(WorkloadId),
    /// Some address that is nobody's.
    Unknown,
}

impl DialedAddress {
    fn of_pod(mesh: &Mesh<'_>, id: WorkloadId) -> Self {
        let ip = mesh.workload(id).ip.as_deref().and_then(|ip| ip.parse().ok());
        ip.map_or(Self::Pod(id), Self::Ip)
    }
}

/// What a cluster speaks to its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, or just bytes.
    Http1,
    /// HTTP/2.
    Http2,
    /// What the caller speaks.
    Downstream,
}

/// What comes of calls to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendState {
    /// They arrive.
    Ok,
    /// The proxy has no such cluster.
    #[default]
    NoCluster,
    /// The cluster has no ready endpoint.
    NoEndpoints,
}

/// A backend as the proxy has it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompiledBackend {
    /// Name of the cluster.
    pub cluster: String,
    /// Host; absent for a backend that may not be used.
    pub host: Option<Host>,
    /// Port of the Service.
    pub port: Option<u32>,
    /// Subset.
    pub subset: Option<SubsetName>,
    /// Weight, where there are several.
    pub weight: Option<i64>,
    /// What comes of calls.
    pub state: BackendState,
    /// The registry's entry, where the cluster exists.
    pub service: Option<ServiceId>,
    /// Endpoints that istiod sends; absent where the client's own address is taken, or nothing is known.
    pub endpoints: Option<PodCount>,
    /// What the cluster speaks.
    pub upstream_protocol: Option<UpstreamProtocol>,
    /// The DestinationRule that shapes it.
    pub destination_rule: Option<ObjectRef>,
    /// TLS mode as written there; absent means chosen for each endpoint.
    pub tls: Option<String>,
    /// What calls are pinned by.
    pub hash: Option<String>,
    /// Calls at a time that a proxy lets through to it, where a pool limits them.
    pub max_requests: Option<i64>,
}

/// A copy of the traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledMirror {
    /// Where to.
    pub backend: CompiledBackend,
    /// Share in percent.
    pub percent: f64,
}

/// A rule, or one alternative of it, that did not take the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedRule {
    /// The object.
    pub object: ObjectRef,
    /// Position of the rule.
    pub index: usize,
    /// Position of the alternative.
    pub alternative: Option<usize>,
    /// Why not.
    pub why_not: String,
}

impl TriedRule {
    fn rule(rule: &ConfigRule, at: Option<usize>, why_not: String) -> Self {
        Self {
            object: rule.object.clone(),
            index: rule.index,
            alternative: at.and_then(|at| rule.alternative(at)),
            why_not,
        }
    }
}

/// The configuration of one proxy.
#[derive(Debug)]
pub struct ProxyConfig<'m> {
    mesh: &'m Mesh<'m>,
    /// Whose proxy it is.
    pub caller: Caller,
    scope: scope::ProxyScope<'m>,
    serial: Cell<usize>,
    /// Virtual hosts that were already made, by route table.
    tables: RefCell<HashMap<String, Rc<route_table::IndexedTable<'m>>>>,
    /// Listeners of each port, made when they are first asked for.
    listeners: RefCell<HashMap<u16, Rc<Vec<listener::CompiledListener>>>>,
}

impl<'m> ProxyConfig<'m> {
    /// The configuration for a caller.
    pub fn new(mesh: &'m Mesh<'m>, caller: Caller) -> Self {
        let scope = scope::ProxyScope::new(mesh, &caller);
        Self { mesh, caller, scope, serial: Cell::new(0), tables: RefCell::default(), listeners: RefCell::default() }
    }

    /// The Sidecar that narrows what the caller sees.
    pub fn sidecar(&self) -> Option<&ObjectRef> {
        self.scope.sidecar.map(|sidecar| &sidecar.object)
    }
}

/// What is worked out once for a mesh.
#[derive(Debug, Default)]
pub(super) struct XdsIndex {
    configs: RouteConfigs,
    by_age: Vec<ServiceId>,
    aliases: HashMap<Host, Vec<ServiceId>>,
}

impl Mesh<'_> {
    fn outbound_index(&self) -> &XdsIndex {
        self.outbound_index.get_or_init(|| XdsIndex {
            configs: RouteConfigs::new(self),
            by_age: self.sort_by_age(),
            aliases: self.find_aliases(),
        })
    }

    /// Route configurations: VirtualServices with their delegates, and what Gateway API routes become.
    pub fn route_configs(&self) -> &RouteConfigs {
        &self.outbound_index().configs
    }

    fn sort_by_age(&self) -> Vec<ServiceId> {
        let mut ids: Vec<ServiceId> = self.service_ids().collect();
        // A ServiceEntry's host is its name here.
        let name = |id: &ServiceId| {
            let service = self.service(*id);
            let name = if service.is_kubernetes() { &*service.object.name } else { service.host.as_str() };
            (service.created.clone(), name.to_owned(), service.namespace().clone())
        };
        ids.sort_by_cached_key(name);
        ids
    }

    fn find_aliases(&self) -> HashMap<Host, Vec<ServiceId>> {
        let target = |host: &Host| {
            let found = self.services_named(host.as_str()).iter().map(|id| &self.service(*id).resolution);
            let mut targets = found.filter_map(|resolution| match resolution {
                Resolution::ExternalName(target) => Some(target.clone()),
                _ => None,
            });
            targets.next()
        };
        let mut aliases: HashMap<Host, Vec<ServiceId>> = HashMap::new();
        for id in self.service_ids() {
            let Resolution::ExternalName(first) = &self.service(id).resolution else { continue };
            let mut seen = vec![self.service(id).host.clone()];
            let mut at = first.clone();
            // A circle leads nowhere.
            while let Some(next) = target(&at).filter(|_| !seen.contains(&at)) {
                seen.push(std::mem::replace(&mut at, next));
            }
            if !seen.contains(&at) {
                aliases.entry(at).or_default().push(id);
            }
        }
        aliases
    }
}
