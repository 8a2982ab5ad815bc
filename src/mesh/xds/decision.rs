//! Envoy's decision for one call, step by step: the listener and its filter chain, the route table, the virtual host,
//! the first route that matches, and the backends.

use std::rc::Rc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gateway_listeners::GatewayConnection;
use super::listener::{ConnectionAction, ListenerClass};
use super::route::{CompiledAction, CompiledRoute};
use super::route_table::{self, IndexedTable};
use super::virtual_host::CompiledVirtualHost;
use super::{Call, CompiledBackend, CompiledMirror, DialedAddress, ProxyConfig, TriedRule};
use crate::mesh::ids::ObjectRef;
use crate::mesh::retry::RetryPolicy;
use crate::mesh::workload::ProxyKind;
use crate::schema::virtual_service::HttpRule;

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum CallOutcome {
    /// The proxy sends the call to a cluster. The cluster may be missing or have no endpoints; see the backend's state.
    Forward,
    /// The proxy answers itself, with the rule's `directResponse`.
    DirectResponse,
    /// The proxy answers with a redirect.
    Redirect,
    /// No route matches: HTTP 404, which gRPC clients see as UNIMPLEMENTED.
    NoRoute,
    /// The call goes to the address that the client dialed, without routing, retries or mTLS.
    Passthrough,
    /// The outbound traffic policy is `REGISTRY_ONLY` and the host is not in the registry.
    Blocked,
    /// The proxy forwards the connection as a TCP stream and does not read the calls in it.
    Tcp,
    /// The proxy closes the connection.
    Closed,
    /// The client cannot resolve the host.
    Unresolved,
    /// Envoy rejects the route table and keeps the previous one.
    Rejected,
}

impl CallOutcome {
    /// The value in JSON reports, such as `no-route`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The rule that matches a call.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchedRule {
    /// The object; for a delegate's rule, the root.
    pub object: ObjectRef,
    /// Index of the rule in the object.
    pub index: usize,
    /// Index in the rule's `match` list; `None` for a rule without conditions.
    pub match_index: Option<usize>,
    /// The delegate VirtualService that holds the destinations.
    pub delegate: Option<ObjectRef>,
    /// Field path in the object, such as `spec.http[0]`.
    pub field: String,
    /// The compiled rule: delegates are merged in, Gateway API rules are converted.
    pub http_rule: HttpRule,
}

/// The decision for one call.
#[derive(Debug, Clone)]
pub struct CallDecision {
    /// The listener that accepts the connection.
    pub listener: ListenerClass,
    /// How the call ends.
    pub outcome: CallOutcome,
    /// Name of the virtual host.
    pub virtual_host: Option<String>,
    /// The rule that matches; `None` for Istio's default routes.
    pub rule: Option<MatchedRule>,
    /// Name of the Envoy route.
    pub route_name: String,
    /// Backends of the matching route.
    pub backends: Vec<CompiledBackend>,
    /// Timeout of the whole call, which also caps the client's `grpc-timeout`; `None` means no limit.
    pub timeout: Option<Duration>,
    /// Retry policy of a forwarded call.
    pub retries: Option<RetryPolicy>,
    /// Clusters that get copies of the call.
    pub mirrors: Vec<CompiledMirror>,
    /// HTTP status code of a response that the proxy itself sends.
    pub status: Option<u32>,
    /// Rules and matches that do not match the call, in the order in which Envoy tries them.
    pub tried: Vec<TriedRule>,
    /// Conditions that cannot be checked here, such as claims of a token.
    pub unchecked_conditions: Vec<String>,
    /// Invalid backends of the matching rule.
    pub backend_problems: Vec<String>,
    /// The reason for the outcome.
    pub message: String,
}

impl CallDecision {
    /// Whether a connection goes to the backend without a proxy that reads its calls.
    pub fn has_no_proxy(&self) -> bool {
        self.outcome == CallOutcome::Tcp && self.listener == ListenerClass::None
    }

    fn new(listener: ListenerClass, outcome: CallOutcome, message: impl Into<String>) -> Self {
        Self {
            listener,
            outcome,
            virtual_host: None,
            rule: None,
            route_name: String::new(),
            backends: Vec::new(),
            timeout: None,
            retries: None,
            mirrors: Vec::new(),
            status: None,
            tried: Vec::new(),
            unchecked_conditions: Vec::new(),
            backend_problems: Vec::new(),
            message: message.into(),
        }
    }
}

impl<'m> ProxyConfig<'m> {
    /// Decides what the proxy does with a call.
    pub fn decide(&self, call: &Call) -> CallDecision {
        let name = route_table::without_port(&call.authority);
        if self.is_gateway() {
            return self.decide_at_gateway(call, name);
        }
        // For a pod without a proxy, the answer is that of the sidecar that it would get; a note says so.
        let is_ambient = self.caller.workload.is_some_and(|id| self.mesh.workload(id).proxy == ProxyKind::Ambient);
        if is_ambient { self.decide_at_layer_4(call, name) } else { self.decide_at_sidecar(call, name) }
    }

    /// Decides for a pod in ambient mode: ztunnel connects to one pod of the dialed Service for each connection, and does
    /// not read the calls in it.
    fn decide_at_layer_4(&self, call: &Call, name: &str) -> CallDecision {
        let host = call.dial.as_deref().map_or(name, route_table::without_port);
        let decide = |outcome, message: String| CallDecision::new(ListenerClass::None, outcome, message);
        if self.resolve(host).is_none() {
            return decide(CallOutcome::Unresolved, format!("{host} has no address: no ready pod"));
        }
        let Some(id) = self.dialed_service(host) else {
            let message = "no Service has this name: ztunnel connects to the address that DNS returns";
            return decide(CallOutcome::Passthrough, message.to_owned());
        };
        let service = self.mesh.service(id);
        if service.port(call.port).is_none() {
            return decide(CallOutcome::Closed, format!("{} has no port {}", service.object, call.port));
        }
        let message = match self.mesh.waypoint_in_path(&self.caller, service) {
            Some(waypoint) => format!("ztunnel sends the connection to the waypoint {waypoint}, which reads its calls"),
            None => {
                "ztunnel connects to one pod, which gets all calls of the connection: no rules, no retries".to_owned()
            }
        };
        let clusters = super::cluster::ClusterBuilder { mesh: self.mesh, caller: &self.caller };
        CallDecision { backends: vec![clusters.dialed_backend(id, call.port)], ..decide(CallOutcome::Tcp, message) }
    }

    fn decide_at_sidecar(&self, call: &Call, name: &str) -> CallDecision {
        let host = call.dial.as_deref().map_or(name, route_table::without_port);
        let Some(address) = self.resolve(host) else {
            return CallDecision::new(
                ListenerClass::None,
                CallOutcome::Unresolved,
                format!("{host} has no address: no ready pod"),
            );
        };
        let connection = self.accept_connection(address, call.port, call.protocol, name);
        let listener = connection.listener;
        match connection.action {
            ConnectionAction::CatchAll => self.decide_without_listener(listener, address),
            ConnectionAction::Tcp(backends) => CallDecision {
                backends,
                ..CallDecision::new(listener, CallOutcome::Tcp, "the connection is forwarded as a TCP stream")
            },
            ConnectionAction::Http(table) => {
                let hosts = self.route_table(table.to_string(), || self.virtual_hosts(&table));
                self.decide_by_route_table(listener, &hosts, call)
            }
        }
    }

    fn decide_at_gateway(&self, call: &Call, name: &str) -> CallDecision {
        let servers = self.servers();
        let connection = self.accept_gateway_connection(&servers, call.port, call.protocol, name);
        let listener = connection.listener();
        match connection {
            GatewayConnection::NoListener => {
                CallDecision::new(listener, CallOutcome::Closed, "the gateway has no listener on this port")
            }
            GatewayConnection::Closed(reason) => CallDecision::new(listener, CallOutcome::Closed, reason),
            GatewayConnection::Tcp => {
                CallDecision::new(listener, CallOutcome::Tcp, "the gateway forwards the connection as a TCP stream")
            }
            GatewayConnection::Http(table) => {
                let hosts = self.route_table(table.clone(), || self.gateway_hosts(&servers, &table));
                self.decide_by_route_table(listener, &hosts, call)
            }
        }
    }

    fn route_table(&self, name: String, build: impl FnOnce() -> Vec<CompiledVirtualHost<'m>>) -> Rc<IndexedTable<'m>> {
        if let Some(cached) = self.tables.borrow().get(&name) {
            return Rc::clone(cached);
        }
        let table = Rc::new(IndexedTable::new(build()));
        self.tables.borrow_mut().insert(name, Rc::clone(&table));
        table
    }

    /// Decides for a connection that only the catch-all listener accepts.
    fn decide_without_listener(&self, listener: ListenerClass, address: DialedAddress) -> CallDecision {
        let cause = if address == DialedAddress::Unknown {
            "no Service or pod in the mesh has this address"
        } else {
            "the proxy has no listener for this address and port"
        };
        if self.scope.allows_any {
            let message = format!("{cause}: it forwards the call unchanged, without routes, retries or mTLS");
            CallDecision::new(listener, CallOutcome::Passthrough, message)
        } else {
            let message = format!("{cause}, and the outbound traffic policy REGISTRY_ONLY blocks unknown destinations");
            CallDecision::new(listener, CallOutcome::Blocked, message)
        }
    }

    fn decide_by_route_table(&self, listener: ListenerClass, table: &IndexedTable<'m>, call: &Call) -> CallDecision {
        if let Some((route, cause)) = table.rejection() {
            let rule = route.origin.map(|origin| format!(" of {} {}", origin.rule.object, origin.rule.field()));
            let message = format!(
                "Envoy rejects the whole route table because{}: {cause}; every host in this table keeps its previous routes",
                rule.unwrap_or_default()
            );
            return CallDecision::new(listener, CallOutcome::Rejected, message);
        }
        let Some(host) = table.find(&call.authority) else {
            return CallDecision::new(listener, CallOutcome::NoRoute, "no virtual host has this authority");
        };
        let mut decision = CallDecision::new(listener, CallOutcome::NoRoute, String::new());
        decision.virtual_host = Some(host.name.clone());
        if host.requires_tls && call.protocol != super::CallProtocol::GrpcTls {
            decision.outcome = CallOutcome::Redirect;
            decision.status = Some(301);
            "the gateway's server redirects plaintext to HTTPS".clone_into(&mut decision.message);
            return decision;
        }
        decision.tried = host.skipped.to_vec();
        for route in host.routes.iter() {
            match route.check(call) {
                Ok(()) => {
                    sort_tried(&mut decision.tried, host);
                    decision.apply_route(self, route);
                    return decision;
                }
                Err(reason) => {
                    decision.unchecked_conditions.extend(route.unchecked_conditions().iter().cloned());
                    if let Some(origin) = route.origin {
                        let (object, index) = (origin.rule.object.clone(), origin.rule.index);
                        decision.tried.push(TriedRule { object, index, match_index: origin.match_index(), reason });
                    }
                }
            }
        }
        sort_tried(&mut decision.tried, host);
        "no rule matches this call, and no catch-all rule follows".clone_into(&mut decision.message);
        decision
    }
}

/// Sorts by position in the object, which is the order tried. Routes of Gateway API keep their own order, since istiod
/// sorts those by specificity.
fn sort_tried(tried: &mut [TriedRule], host: &CompiledVirtualHost<'_>) {
    let in_order = host.routes.iter().filter_map(|route| route.origin).all(|origin| !origin.config.is_gateway_api);
    if in_order {
        tried.sort_by_key(|rule| (rule.object.clone(), rule.index, rule.match_index));
    }
}

impl CallDecision {
    /// Fills in what a matching route does with the call.
    fn apply_route(&mut self, proxy: &ProxyConfig<'_>, route: &CompiledRoute<'_>) {
        self.route_name = route.name().into_owned();
        self.rule = route.origin.map(|origin| {
            let rule = origin.rule;
            self.backend_problems.clone_from(&rule.backend_problems);
            MatchedRule {
                object: rule.object.clone(),
                index: rule.index,
                match_index: origin.match_index(),
                delegate: rule.delegate.as_ref().map(|(object, _)| object.clone()),
                field: rule.field(),
                http_rule: origin.http_rule.clone(),
            }
        });
        match route.action {
            CompiledAction::Forward | CompiledAction::Service(_) => {
                self.outcome = CallOutcome::Forward;
                let Some(forward) = proxy.forward(route) else { return };
                self.backends = forward.backends;
                self.timeout = forward.timeout;
                self.retries = Some(forward.retries);
                self.mirrors = forward.mirrors;
            }
            CompiledAction::Redirect(status) => {
                self.outcome = CallOutcome::Redirect;
                self.status = Some(status);
                "gRPC clients do not follow redirects".clone_into(&mut self.message);
            }
            CompiledAction::DirectResponse(status) => {
                self.outcome = CallOutcome::DirectResponse;
                self.status = Some(status);
            }
            CompiledAction::Passthrough => {
                self.outcome = CallOutcome::Passthrough;
                "the proxy does not know the host: it forwards the call unchanged, without routes, retries or mTLS"
                    .clone_into(&mut self.message);
            }
            CompiledAction::Block => {
                self.outcome = CallOutcome::Blocked;
                self.status = Some(502);
                "the proxy does not know the host, and the outbound traffic policy REGISTRY_ONLY blocks unknown hosts"
                    .clone_into(&mut self.message);
            }
        }
    }
}
