//! The report of `route`: the decision about a call, from listener to backend.

use schemars::JsonSchema;
use serde::Serialize;

use super::diff::DifferenceReport;
use super::policy::connection_pool;
use super::route_client::{ClientView, client_outcomes};
use super::route_notes::{did_you_mean, not_modelled, notes};
use super::{ObjectKind, ObjectReport, Percent};
use crate::dataplane::proxy::ProxyState;
use crate::mesh::Mesh;
use crate::mesh::authorization::{AuthorizationDecision, AuthorizationVerdict, BackendAuthorization, ServerAccess};
use crate::mesh::hop::{HopFailure, ServerSide};
use crate::mesh::ids::ObjectRef;
use crate::mesh::retry::RetryPolicy;
use crate::mesh::xds::{
    BackendState, Call, CallDecision, CallOutcome, Caller, CallerKind, CompiledBackend, ListenerClass, MatchedRule,
    TriedRule, UpstreamProtocol,
};
use crate::schema::virtual_service::{Fault, Headers};
use crate::vocabulary::grpc_status::STATUSES;

/// The decision about one call.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Route")]
pub struct RouteReport {
    /// Always `Route`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// The call's id in the calls file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The caller: `namespace/pod`, `gateway/namespace/pod`, or a namespace.
    pub caller: String,
    /// All callers with the same answer, when the answer represents a caller class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    /// `:authority` of the call.
    pub authority: String,
    /// The port that the client dials.
    pub port: u16,
    /// `:path` of the call.
    pub path: String,
    /// The listener that accepts the connection.
    pub listener: ListenerClass,
    /// How the call ends.
    pub outcome: CallOutcome,
    /// Name of the virtual host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<String>,
    /// The rule that matches; absent for Istio's default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RouteRuleReport>,
    /// The backends of the rule.
    pub backends: Vec<RouteBackendReport>,
    /// Limit of the whole call in milliseconds; 0 means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Cap on the client's own deadline in milliseconds; 0 means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grpc_timeout_ms: Option<u64>,
    /// The retry policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetriesReport>,
    /// Mirrored copies of the call.
    pub mirrors: Vec<RouteMirrorReport>,
    /// HTTP status code of a response that the proxy itself sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// Injected faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<RouteFaultReport>,
    /// Changes to path, authority and headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<RouteRewriteReport>,
    /// The inputs of the consistent hash.
    pub hash_policy: Vec<String>,
    /// The decision of the policies at the server. Absent when it stands in each backend, because the servers of the
    /// backends decide differently, and when no server accepts the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<RouteAuthorizationReport>,
    /// Rules that were tried before and do not match, in order.
    pub tried: Vec<TriedRuleReport>,
    /// Number of further rules that do not match, in answers for all caller classes; `--caller` lists them.
    #[serde(skip_serializing_if = "is_none_omitted")]
    pub tried_omitted: usize,
    /// Objects and conditions that act on the call and are not modelled.
    pub not_modelled: Vec<String>,
    /// The share of calls that does not reach the application, by reason; empty when all calls arrive.
    pub client_sees: Vec<ClientOutcomeReport>,
    /// Details of the outcome.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Authorities with names near a host that the proxy does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub did_you_mean: Vec<String>,
    /// The configuration of the caller's Envoy for this host, with `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<RouteLiveReport>,
}

/// The comparison with one Envoy.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RouteLiveReport {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// The state of the proxy, as in `diff`.
    pub state: ProxyState,
    /// The evidence for the state.
    pub evidence: String,
    /// The differences that concern this host.
    pub differences: Vec<DifferenceReport>,
}

/// The rule that matches a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteRuleReport {
    /// `VirtualService`, `HTTPRoute` or `GRPCRoute`.
    pub kind: ObjectKind,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Index of the rule in the object.
    pub index: usize,
    /// Index of the match in the rule.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_index: Option<usize>,
    /// Name of the route in Envoy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_name: String,
    /// The VirtualService that the rule delegates to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<ObjectReport>,
}

/// A backend as the caller's proxy gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteBackendReport {
    /// Name of the cluster.
    pub cluster: String,
    /// Host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port of the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Subset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Weight; a single backend may have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Whether calls to it can arrive.
    pub state: BackendState,
    /// Number of endpoints that may get the call. Absent when the source does not contain them, and when the proxy
    /// connects to the address that the client dialed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<u32>,
    /// `namespace/name` of the DestinationRule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_rule: Option<String>,
    /// `namespace/name` of the BackendTLSPolicy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_tls_policy: Option<String>,
    /// The protocol of connections to the endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_protocol: Option<UpstreamProtocol>,
    /// TLS on connections to the endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// Limits of the connection pool in words; empty when no object sets any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connection_pool: Vec<String>,
    /// Why connections to some or all pods fail because TLS on both sides does not fit; absent when it fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_problem: Option<String>,
    /// The decision of the policies at the servers of the backend, when backends differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<RouteAuthorizationReport>,
}

/// The decision of the policies at a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteAuthorizationReport {
    /// Whether the call is let in; `none` when no policy applies.
    pub decision: AuthorizationVerdict,
    /// The policy that decides, as `AuthorizationPolicy/namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Index of its rule that matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Why.
    pub reason: String,
}

impl From<&AuthorizationDecision> for RouteAuthorizationReport {
    fn from(decision: &AuthorizationDecision) -> Self {
        let rule = decision.rule.as_ref();
        Self {
            decision: decision.verdict,
            policy: rule.map(|(object, _)| format!("{}/{}", object.kind.name(), object.path())),
            rule: rule.map(|(_, index)| *index),
            reason: decision.reason.clone(),
        }
    }
}

/// TLS on a proxy's connections to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamTls {
    /// Istio's auto mTLS: mTLS to endpoints that have a proxy, plaintext to the others.
    Auto,
    /// Plain text.
    Plain,
    /// TLS that a DestinationRule configures.
    Tls,
    /// Istio's mTLS, whatever the endpoint.
    Mtls,
}

/// The effective retry policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RetriesReport {
    /// Retries after the first try; 0 means none.
    pub attempts: u32,
    /// Envoy's retry conditions.
    pub retry_on: Vec<String>,
    /// HTTP status codes that are retried.
    pub status_codes: Vec<u16>,
    /// Limit of one try in milliseconds; 0 means none.
    pub per_try_timeout_ms: u64,
    /// The object that sets the policy, `mesh default` or `istio default`.
    pub owner: String,
}

impl From<&RetryPolicy> for RetriesReport {
    fn from(policy: &RetryPolicy) -> Self {
        Self {
            attempts: policy.attempts,
            retry_on: policy.retry_on.clone(),
            status_codes: policy.status_codes.clone(),
            per_try_timeout_ms: policy.per_try_timeout.map_or(0, duration_ms),
            owner: policy.owner.to_string(),
        }
    }
}

/// A mirrored copy of the call.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RouteMirrorReport {
    /// Name of the cluster.
    pub cluster: String,
    /// Share of the calls that is copied.
    pub percent: Percent,
    /// Whether copies can arrive.
    pub state: BackendState,
}

/// Injected faults.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RouteFaultReport {
    /// Delay as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// Share of the calls that is delayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_percent: Option<Percent>,
    /// gRPC status name, or HTTP status code, of aborted calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<String>,
    /// Share of the calls that is aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_percent: Option<Percent>,
}

/// Changes that the proxy makes to a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteRewriteReport {
    /// New path or prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// New authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Header changes such as `request: set x-canary`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

/// A rule that does not match the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TriedRuleReport {
    /// `VirtualService/namespace/name[rule]`, or `[rule.match]` for one of several matches.
    pub rule: String,
    /// The condition that fails.
    pub why_not: String,
}

/// The outcome that clients see for calls that do not reach the application.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClientOutcomeReport {
    /// Share of the calls.
    pub share_percent: Percent,
    /// Name of the gRPC status.
    #[schemars(schema_with = "grpc_status_names")]
    pub grpc_status: &'static str,
    /// HTTP status code that HTTP/1.1 clients get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u32>,
    /// Response flag in the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<&'static str>,
    /// Why the calls do not arrive.
    pub reason: ClientOutcomeReason,
}

fn grpc_status_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<&str> = STATUSES.iter().map(|status| status.name).collect();
    schemars::json_schema!({"type": "string", "enum": names})
}

/// Why calls do not reach the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientOutcomeReason {
    /// The proxy has no cluster for the backend.
    NoCluster,
    /// The cluster has no ready endpoint.
    NoEndpoints,
    /// The proxy sends HTTP/1.1 to a gRPC server.
    Http1Upstream,
    /// The connection is in plaintext, and the pods accept only mTLS.
    PlaintextToStrictMtls,
    /// The proxy starts mTLS, and the proxies of the pods accept only plaintext.
    MtlsToPlaintext,
    /// The proxy starts mTLS, and the pods have no proxy.
    MtlsWithoutProxy,
    /// The connection is TLS without a certificate of the mesh, and the proxies of the pods do not accept it.
    TlsToProxy,
    /// The connection is TLS, and the server speaks plaintext.
    TlsToPlaintext,
    /// An AuthorizationPolicy at the server denies the calls.
    AuthorizationDenied,
    /// A fault of the rule aborts the calls.
    FaultAbort,
    /// The rule makes the proxy respond.
    DirectResponse,
    /// The rule redirects the call.
    Redirect,
    /// The outbound traffic policy allows only hosts of the registry.
    Blocked,
    /// No route matches.
    NoRoute,
    /// The proxy closes the connection.
    Closed,
    /// The client cannot resolve the host.
    Unresolved,
}

/// A caller as it is printed: `namespace/pod`, `gateway/namespace/pod`, or a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerName(pub String);

fn is_none_omitted(count: &usize) -> bool {
    *count == 0
}

impl RouteReport {
    /// Keeps the first rules that do not match, and the number of the others.
    pub fn limit_tried(&mut self, max: usize) {
        self.tried_omitted = self.tried.len().saturating_sub(max);
        self.tried.truncate(max);
    }

    /// Reports the decision that the model makes for a call.
    pub fn new(mesh: &Mesh<'_>, caller: &Caller, name: &CallerName, call: &Call, decision: &CallDecision) -> Self {
        let CallDecision {
            listener,
            outcome,
            virtual_host,
            rule,
            route_name,
            backends,
            timeout,
            retries,
            mirrors,
            status,
            tried,
            unchecked_conditions,
            backend_problems,
            message,
        } = decision;
        let forwards = *outcome == CallOutcome::Forward;
        let limit = forwards.then(|| timeout.map_or(0, duration_ms));
        let mut not_modelled = not_modelled(mesh, caller, decision);
        not_modelled.extend(notes(mesh, caller, decision));
        let unchecked = unchecked_conditions.iter();
        not_modelled.extend(
            unchecked.map(|condition| format!("a match on {condition} is not evaluated: it depends on the token")),
        );
        let mut messages: Vec<&str> = backend_problems.iter().map(String::as_str).collect();
        if !message.is_empty() {
            messages.push(message);
        }
        let authorization = mesh.authorize(caller, call, decision);
        let common = authorization.common_decision(backends);
        let mut hash_policy: Vec<String> = backends.iter().filter_map(|backend| backend.hash_policy.clone()).collect();
        hash_policy.dedup();
        Self {
            kind: "Route",
            version: 1,
            id: None,
            caller: name.0.clone(),
            callers: Vec::new(),
            authority: call.authority.clone(),
            port: call.port,
            path: call.path.clone(),
            listener: *listener,
            outcome: *outcome,
            virtual_host: virtual_host.clone(),
            rule: rule.as_ref().map(|matched| rule_report(matched, route_name)),
            backends: backends
                .iter()
                .zip(&authorization.backends)
                .map(|(backend, own)| RouteBackendReport {
                    tls_problem: tls_problem(mesh, caller, backend, own),
                    authorization: own.decision.as_ref().filter(|_| common.is_none()).map(Into::into),
                    ..backend_report(mesh, caller, backend, decision.has_no_proxy())
                })
                .collect(),
            authorization: common.map(Into::into),
            timeout_ms: limit,
            max_grpc_timeout_ms: limit,
            retries: retries.as_ref().filter(|_| forwards).map(RetriesReport::from),
            mirrors: mirrors
                .iter()
                .map(|mirror| RouteMirrorReport {
                    cluster: mirror.backend.cluster.clone(),
                    percent: Percent(mirror.percent),
                    state: mirror.backend.state,
                })
                .collect(),
            status: *status,
            fault: rule.as_ref().and_then(|matched| matched.http_rule.fault.as_ref()).map(fault_report),
            rewrite: rule.as_ref().and_then(rewrite_report),
            hash_policy,
            tried: tried.iter().map(tried_report).collect(),
            tried_omitted: 0,
            not_modelled,
            client_sees: client_outcomes(&ClientView { mesh, caller, call, decision, authorization: &authorization }),
            message: messages.join("; "),
            did_you_mean: did_you_mean(mesh, call, decision),
            live: None,
        }
    }

    /// Why it is not known whether all calls are let in; `None` when it is known.
    pub fn undecided_authorization(&self) -> Option<&str> {
        let used = shares(&self.backends).filter(|(_, share)| share.0 > 0.0);
        let decisions = used.filter_map(|(backend, _)| backend.authorization.as_ref()).chain(&self.authorization);
        let mut undecided = decisions.filter(|decision| decision.decision == AuthorizationVerdict::Undecided);
        undecided.next().map(|decision| decision.reason.as_str())
    }

    /// Whether all calls reach the application, as far as the source tells.
    pub fn arrives(&self) -> bool {
        match self.outcome {
            CallOutcome::Forward | CallOutcome::Tcp => self.client_sees.is_empty(),
            CallOutcome::Passthrough => true,
            _ => false,
        }
    }
}

pub(super) fn duration_ms(limit: std::time::Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

/// Backends with their shares of the calls.
pub fn shares(backends: &[RouteBackendReport]) -> impl Iterator<Item = (&RouteBackendReport, Percent)> {
    let total: i64 = backends.iter().filter_map(|backend| backend.weight).sum();
    backends.iter().map(move |backend| (backend, share(backend.weight, backends.len(), total)))
}

/// A single backend gets all calls, whatever its weight.
pub(super) fn share(weight: Option<i64>, count: usize, total: i64) -> Percent {
    match (count, weight) {
        (1, _) | (_, None) => Percent::ALL,
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        (_, Some(weight)) => Percent(100.0 * weight as f64 / total.max(1) as f64),
    }
}

fn rule_report(matched: &MatchedRule, route_name: &str) -> RouteRuleReport {
    let ObjectRef { kind, namespace, name } = &matched.object;
    RouteRuleReport {
        kind: (*kind).into(),
        namespace: namespace.to_string(),
        name: name.to_string(),
        index: matched.index,
        match_index: matched.match_index,
        route_name: route_name.to_owned(),
        delegate: matched.delegate.as_ref().map(ObjectReport::from),
    }
}

/// `has_no_proxy`: nothing but the connection itself reaches the backend, so no DestinationRule shapes it.
fn backend_report(
    mesh: &Mesh<'_>,
    caller: &Caller,
    backend: &CompiledBackend,
    has_no_proxy: bool,
) -> RouteBackendReport {
    let exists = backend.state != BackendState::NoCluster;
    let auto_mtls = mesh.config.enable_auto_mtls != Some(false);
    let tls = match backend.tls.as_deref() {
        Some("DISABLE") => UpstreamTls::Plain,
        Some("ISTIO_MUTUAL") => UpstreamTls::Mtls,
        Some(_) => UpstreamTls::Tls,
        None if auto_mtls => UpstreamTls::Auto,
        None => UpstreamTls::Plain,
    };
    RouteBackendReport {
        cluster: backend.cluster.clone(),
        host: backend.host.as_ref().map(ToString::to_string),
        port: backend.port,
        subset: backend.subset.as_ref().map(ToString::to_string),
        weight: backend.weight,
        state: backend.state,
        endpoints: backend.endpoints.map(|pods| pods.ready + pods.unknown),
        destination_rule: backend.destination_rule.as_ref().map(ObjectRef::path),
        backend_tls_policy: backend.backend_tls_policy.as_ref().map(ObjectRef::path),
        upstream_protocol: backend.upstream_protocol,
        tls: exists.then_some(tls),
        connection_pool: pool_limits(mesh, caller, backend).filter(|_| exists && !has_no_proxy).unwrap_or_default(),
        tls_problem: None,
        authorization: None,
    }
}

/// Why TLS of the caller does not fit that of the pods; `None` when every connection succeeds.
fn tls_problem(
    mesh: &Mesh<'_>,
    caller: &Caller,
    backend: &CompiledBackend,
    authorization: &BackendAuthorization,
) -> Option<String> {
    let access = authorization.servers.iter().find(|access| access.result.is_err())?;
    let failure = *access.result.as_ref().err()?;
    let is_failing = |access: &&ServerAccess| access.result == Err(failure);
    let (failing, all) = (authorization.servers.iter().filter(is_failing).count(), authorization.servers.len());
    let decided_by = match mesh.server_side(access.server, access.port) {
        ServerSide::Proxy { decided_by: Some(object), .. } => format!(" ({object})"),
        ServerSide::Proxy { .. } | ServerSide::Application { .. } | ServerSide::GrpcLibrary => String::new(),
    };
    let written = mesh.written_tls(caller, backend);
    let by_rule = written.map(|written| format!("{} starts {}", written.object, written.mode)).unwrap_or_default();
    let text = match failure {
        HopFailure::PlaintextToStrict => {
            let reason = mesh.plaintext_reason(caller, backend);
            format!("plaintext, because {reason}; the pods accept only mTLS{decided_by}")
        }
        HopFailure::MtlsToDisabled => format!("{by_rule}; the pods accept only plaintext{decided_by}"),
        HopFailure::MtlsToApplication => format!("{by_rule}; the pods have no proxy that accepts mTLS"),
        HopFailure::TlsToStrict => format!("{by_rule}; the pods accept only mTLS of the mesh{decided_by}"),
        HopFailure::TlsToProxy => format!("{by_rule}; the proxies of the pods expect mTLS of the mesh or plaintext"),
        HopFailure::TlsToPlaintext => format!("{by_rule}; the pods speak plaintext, as their gRPC probe does"),
    };
    Some(if failing == all { text } else { format!("{text}: {failing} of {all} pods") })
}

/// Limits of the connection pool; `None` when no DestinationRule sets any.
fn pool_limits(mesh: &Mesh<'_>, caller: &Caller, backend: &CompiledBackend) -> Option<Vec<String>> {
    let service = mesh.service(backend.service?);
    let port = service.port(u16::try_from(backend.port?).ok()?)?;
    let rules = mesh.applied_rules(caller, service);
    let policy = mesh.destination_rules.policy(&rules, port.number, backend.subset.as_ref());
    policy.connection_pool.is_some().then(|| connection_pool(mesh, port.protocol, &policy))
}

fn fault_report(fault: &Fault) -> RouteFaultReport {
    RouteFaultReport {
        delay: fault.delay.as_ref().and_then(|delay| delay.fixed_delay.clone()),
        delay_percent: fault.delay.as_ref().map(|delay| Percent(delay.share_percent())),
        abort: fault.abort.as_ref().and_then(|abort| {
            abort.grpc_status.clone().or_else(|| abort.http_status.map(|status| format!("HTTP {status}")))
        }),
        abort_percent: fault.abort.as_ref().map(|abort| Percent(abort.share_percent())),
    }
}

fn rewrite_report(matched: &MatchedRule) -> Option<RouteRewriteReport> {
    let mut report = RouteRewriteReport::default();
    if let Some(rewrite) = &matched.http_rule.rewrite {
        report.path.clone_from(&rewrite.uri);
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            report.path = Some(format!("{} → {}", regex.matches, regex.rewrite));
        }
        report.authority.clone_from(&rewrite.authority);
    }
    let per_backend = matched.http_rule.route.iter().filter_map(|destination| destination.headers.as_ref());
    for headers in matched.http_rule.headers.iter().chain(per_backend) {
        list_header_changes(headers, &mut report.headers);
    }
    (report != RouteRewriteReport::default()).then_some(report)
}

fn list_header_changes(headers: &Headers, changes: &mut Vec<String>) {
    for (direction, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(operations) = operations else { continue };
        changes.extend(operations.set.keys().map(|name| format!("{direction}: set {name}")));
        changes.extend(operations.add.keys().map(|name| format!("{direction}: add {name}")));
        changes.extend(operations.remove.iter().map(|name| format!("{direction}: remove {name}")));
    }
}

fn tried_report(tried: &TriedRule) -> TriedRuleReport {
    let TriedRule { object, index, match_index, reason } = tried;
    let inner = match_index.map(|index| format!(".{index}")).unwrap_or_default();
    TriedRuleReport {
        rule: format!("{}/{}[{index}{inner}]", object.kind.name(), object.path()),
        why_not: reason.clone(),
    }
}

/// The printed name of a caller; `path` is `namespace/name` or a namespace.
pub fn caller_name(kind: CallerKind, path: &str) -> CallerName {
    CallerName(match kind {
        CallerKind::Sidecar => path.to_owned(),
        CallerKind::Gateway => format!("gateway/{path}"),
    })
}
