//! What becomes of one call: every station of its road, and why.

use std::rc::Rc;
use std::time::Duration;

use super::gateway_listeners::GatewayConnection;
use super::listener::{FilterChain, ListenerClass};
use super::route::{CompiledAction, CompiledRoute};
use super::route_table::{self, IndexedTable};
use super::virtual_host::CompiledVirtualHost;
use super::{Call, CompiledBackend, CompiledMirror, DialedAddress, ProxyConfig, TriedRule};
use crate::mesh::ids::ObjectRef;
use crate::mesh::retry::RetryPolicy;
use crate::schema::virtual_service::HttpRule;

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It is sent to a backend, which may not exist.
    Forward,
    /// The proxy answers.
    DirectResponse,
    /// The client is sent elsewhere.
    Redirect,
    /// No route takes it: HTTP 404, gRPC UNIMPLEMENTED.
    NoRoute,
    /// It goes where the client dialled, without routing, retries or mTLS.
    Passthrough,
    /// It is not let out.
    Blocked,
    /// Its connection is passed on as bytes.
    Tcp,
    /// Its connection is closed.
    Closed,
    /// The client finds no address.
    Unresolved,
    /// Envoy refuses the route table and keeps the one that it had before.
    Rejected,
}

/// The rule that took a call.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchedRule {
    /// The object.
    pub object: ObjectRef,
    /// Position of the rule.
    pub index: usize,
    /// Position of the alternative in it.
    pub alternative: Option<usize>,
    /// The delegate that holds the rest of it.
    pub delegate: Option<ObjectRef>,
    /// Field path in the object.
    pub field: String,
    /// The rule with delegates merged in.
    pub written: HttpRule,
}

/// What becomes of a call.
#[derive(Debug, Clone)]
pub struct CallDecision {
    /// Which kind of listener takes it.
    pub listener: ListenerClass,
    /// How it ends.
    pub outcome: CallOutcome,
    /// Virtual host.
    pub virtual_host: Option<String>,
    /// The rule that took it; absent for Istio's own routes.
    pub rule: Option<MatchedRule>,
    /// Name of the route.
    pub route_name: String,
    /// Where it may go.
    pub backends: Vec<CompiledBackend>,
    /// Limit of the whole call, which caps the client's deadline.
    pub timeout: Option<Duration>,
    /// Retries.
    pub retries: Option<RetryPolicy>,
    /// Copies.
    pub mirrors: Vec<CompiledMirror>,
    /// HTTP status of the proxy's own answer.
    pub status: Option<u32>,
    /// What did not take it, in the order tried.
    pub tried: Vec<TriedRule>,
    /// Conditions that the model cannot check.
    pub unknown: Vec<String>,
    /// What is wrong with the rule's backends.
    pub problems: Vec<String>,
    /// More about the outcome.
    pub message: String,
}

impl CallDecision {
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
            unknown: Vec::new(),
            problems: Vec::new(),
            message: message.into(),
        }
    }
}

impl<'m> ProxyConfig<'m> {
    /// What becomes of a call.
    pub fn answer(&self, call: &Call) -> CallDecision {
        let name = route_table::without_port(&call.authority);
        if self.is_gateway() { self.answer_at_gateway(call, name) } else { self.answer_at_sidecar(call, name) }
    }

    fn answer_at_sidecar(&self, call: &Call, name: &str) -> CallDecision {
        let host = call.dial.as_deref().map_or(name, route_table::without_port);
        let Some(address) = self.resolve(host) else {
            return CallDecision::new(
                ListenerClass::None,
                CallOutcome::Unresolved,
                format!("{host} has no address: no ready pod"),
            );
        };
        let taken = self.take(address, call.port, call.protocol, name);
        match taken.chain {
            FilterChain::Unknown => self.unknown(taken.class, address),
            FilterChain::Tcp(backends) => CallDecision {
                backends,
                ..CallDecision::new(taken.class, CallOutcome::Tcp, "the connection is passed on as bytes")
            },
            FilterChain::Http(table) => {
                let hosts = self.table(table.to_string(), || self.virtual_hosts(&table));
                self.routed(taken.class, &hosts, call)
            }
        }
    }

    fn answer_at_gateway(&self, call: &Call, name: &str) -> CallDecision {
        let servers = self.servers();
        let entered = self.enter(&servers, call.port, call.protocol, name);
        let class = Self::class(&entered);
        match entered {
            GatewayConnection::NoListener => {
                CallDecision::new(class, CallOutcome::Closed, "the gateway has no listener on this port")
            }
            GatewayConnection::Closed(why) => CallDecision::new(class, CallOutcome::Closed, why),
            GatewayConnection::Bytes => {
                CallDecision::new(class, CallOutcome::Tcp, "the gateway passes the connection on as bytes")
            }
            GatewayConnection::Http(table) => {
                let hosts = self.table(table.clone(), || self.gateway_hosts(&servers, &table));
                self.routed(class, &hosts, call)
            }
        }
    }

    fn table(&self, key: String, make: impl FnOnce() -> Vec<CompiledVirtualHost<'m>>) -> Rc<IndexedTable<'m>> {
        if let Some(known) = self.tables.borrow().get(&key) {
            return Rc::clone(known);
        }
        let made = Rc::new(IndexedTable::new(make()));
        self.tables.borrow_mut().insert(key, Rc::clone(&made));
        made
    }

    /// A connection that no listener knows.
    fn unknown(&self, class: ListenerClass, address: DialedAddress) -> CallDecision {
        let what = if address == DialedAddress::Unknown {
            "nothing in the mesh has this address"
        } else {
            "no listener of the proxy is for this address and port"
        };
        if self.scope.allows_any {
            let message = format!("{what}: it goes out as it is, without routes, retries or mTLS");
            CallDecision::new(class, CallOutcome::Passthrough, message)
        } else {
            let message = format!("{what}, and what is not in the registry is not let out (REGISTRY_ONLY)");
            CallDecision::new(class, CallOutcome::Blocked, message)
        }
    }

    fn routed(&self, class: ListenerClass, table: &IndexedTable<'m>, call: &Call) -> CallDecision {
        if let Some((route, why)) = table.refused() {
            let place = route.origin.map(|one| format!(" of {} {}", one.rule.object, one.rule.field()));
            let message = format!(
                "Envoy refuses the whole route table because{}: {why}; every host of this table keeps its former routes",
                place.unwrap_or_default()
            );
            return CallDecision::new(class, CallOutcome::Rejected, message);
        }
        let Some(host) = table.find(&call.authority) else {
            return CallDecision::new(class, CallOutcome::NoRoute, "no virtual host has this authority");
        };
        let mut answer = CallDecision::new(class, CallOutcome::NoRoute, String::new());
        answer.virtual_host = Some(host.name.clone());
        if host.needs_tls && call.protocol != super::CallProtocol::GrpcTls {
            answer.outcome = CallOutcome::Redirect;
            answer.status = Some(301);
            "the gateway's server sends plain text to HTTPS".clone_into(&mut answer.message);
            return answer;
        }
        answer.tried = host.left_out.to_vec();
        for route in host.routes.iter() {
            match route.check(call) {
                Ok(()) => {
                    sort_tried(&mut answer.tried, host);
                    take(&mut answer, self, route);
                    return answer;
                }
                Err(why_not) => {
                    answer.unknown.extend(route.unknown().iter().cloned());
                    if let Some(origin) = route.origin {
                        let (object, index) = (origin.rule.object.clone(), origin.rule.index);
                        answer.tried.push(TriedRule { object, index, alternative: origin.alternative(), why_not });
                    }
                }
            }
        }
        sort_tried(&mut answer.tried, host);
        "no rule takes this call, and none takes the rest".clone_into(&mut answer.message);
        answer
    }
}

/// In the order of the rules as they are written, which is the order tried but for Gateway API.
fn sort_tried(tried: &mut [TriedRule], host: &CompiledVirtualHost<'_>) {
    let in_order = host.routes.iter().filter_map(|route| route.origin).all(|origin| !origin.config.is_gateway_api);
    if in_order {
        tried.sort_by_key(|one| (one.object.clone(), one.index, one.alternative));
    }
}

fn take(answer: &mut CallDecision, outbound: &ProxyConfig<'_>, route: &CompiledRoute<'_>) {
    answer.route_name = route.name().into_owned();
    answer.rule = route.origin.map(|origin| {
        let rule = origin.rule;
        answer.problems.clone_from(&rule.problems);
        MatchedRule {
            object: rule.object.clone(),
            index: rule.index,
            alternative: origin.alternative(),
            delegate: rule.delegate.as_ref().map(|(object, _)| object.clone()),
            field: rule.field(),
            written: origin.written.clone(),
        }
    });
    match route.action {
        CompiledAction::Forward | CompiledAction::Service(_) => {
            answer.outcome = CallOutcome::Forward;
            let Some(forward) = outbound.forward(route) else { return };
            answer.backends = forward.backends;
            answer.timeout = forward.timeout;
            answer.retries = Some(forward.retries);
            answer.mirrors = forward.mirrors;
        }
        CompiledAction::Redirect(status) => {
            answer.outcome = CallOutcome::Redirect;
            answer.status = Some(status);
            "gRPC clients do not follow redirects".clone_into(&mut answer.message);
        }
        CompiledAction::DirectResponse(status) => {
            answer.outcome = CallOutcome::DirectResponse;
            answer.status = Some(status);
        }
        CompiledAction::Passthrough => {
            answer.outcome = CallOutcome::Passthrough;
            "the host is unknown to the proxy: it goes out as it is, without routes, retries or mTLS"
                .clone_into(&mut answer.message);
        }
        CompiledAction::Block => {
            answer.outcome = CallOutcome::Blocked;
            answer.status = Some(502);
            "the host is unknown to the proxy, and what is not in the registry is not let out (REGISTRY_ONLY)"
                .clone_into(&mut answer.message);
        }
    }
}
