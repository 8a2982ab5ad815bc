//! `route`: what becomes of a call, station by station.

use schemars::JsonSchema;
use serde::Serialize;

use super::diff::DifferenceReport;
use super::policy::connection_pool;
use super::route_client::client_view;
use super::route_notes::{did_you_mean, not_modelled, notes};
use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;
use crate::mesh::xds::{
    BackendState, Call, CallDecision, CallOutcome, Caller, CallerKind, CompiledBackend, ListenerClass, MatchedRule,
    TriedRule, UpstreamProtocol,
};
use crate::schema::virtual_service::{Fault, Headers};

/// What becomes of one call.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Route")]
pub struct RouteReport {
    /// Always `Route`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// The call's id in the calls file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who calls: `namespace/pod`, `gateway/namespace/pod`, or a namespace.
    pub caller: String,
    /// All callers that get this very answer, where several were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<String>,
    /// `:authority`.
    pub authority: String,
    /// Port that is dialled.
    pub port: u16,
    /// `:path`.
    pub path: String,
    /// `http`, `auto`, `tcp` or `none`.
    pub listener: &'static str,
    /// `forward`, `direct-response`, `redirect`, `no-route`, `passthrough`, `blocked`, `tcp`, `closed`, `unresolved` or
    /// `rejected`.
    pub outcome: &'static str,
    /// Virtual host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<String>,
    /// The rule; absent for Istio's default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RouteRuleReport>,
    /// Where it may go.
    pub backends: Vec<RouteBackendReport>,
    /// Limit of the whole call; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Cap on the client's own deadline; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grpc_timeout_ms: Option<u64>,
    /// Retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<RouteRetriesReport>,
    /// Copies of the call.
    pub mirrors: Vec<RouteMirrorReport>,
    /// HTTP status of the proxy's own answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// Injected faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<RouteFaultReport>,
    /// Changes of path, authority and headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<RouteRewriteReport>,
    /// What calls are pinned to an endpoint by.
    pub hash_policy: Vec<String>,
    /// What did not take it, in the order tried.
    pub tried: Vec<TriedRuleReport>,
    /// What else decides and is not modelled.
    pub not_modelled: Vec<String>,
    /// What the client sees when the call does not arrive: gRPC status, and the flag of the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_sees: Option<ClientOutcomeReport>,
    /// More about the outcome.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Authorities that may have been meant by a host that the proxy does not know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub did_you_mean: Vec<String>,
    /// What the caller's own Envoy runs for this host, with `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<RouteLiveReport>,
}

/// What one Envoy runs, held beside the answer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RouteLiveReport {
    /// `namespace/pod`.
    pub pod: String,
    /// As in `diff`: `in-step`, `late`, `different`, …
    pub state: &'static str,
    /// Why that is said.
    pub evidence: String,
    /// What differs for this host.
    pub differences: Vec<DifferenceReport>,
}

/// The rule that takes a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteRuleReport {
    /// `VirtualService`, `HTTPRoute` or `GRPCRoute`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Position of the rule.
    pub index: usize,
    /// Position of the alternative in it.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub alternative: Option<usize>,
    /// Name of the route in Envoy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_name: String,
    /// The VirtualService that the rule delegates to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<String>,
}

/// A backend.
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
    /// Weight, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// `ok`, `no-cluster` or `no-endpoints`.
    pub state: &'static str,
    /// Endpoints that may answer; absent where they are not known, or the client's own address is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<u32>,
    /// `namespace/name` of the DestinationRule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_rule: Option<String>,
    /// `http1`, `http2` or `downstream`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_protocol: Option<&'static str>,
    /// `auto`, `plain`, `tls` or `mtls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'static str>,
    /// Limits of the connection pool, in words; empty where nobody set any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connection_pool: Vec<String>,
}

/// Retries in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteRetriesReport {
    /// Tries after the first; 0 is none.
    pub attempts: u32,
    /// Conditions.
    pub retry_on: Vec<String>,
    /// HTTP status codes.
    pub status_codes: Vec<u16>,
    /// Limit of one try; 0 is none.
    pub per_try_timeout_ms: u64,
    /// Who decided.
    pub owner: String,
}

/// A copy of the call.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RouteMirrorReport {
    /// Name of the cluster.
    pub cluster: String,
    /// Share in percent.
    pub percent: f64,
    /// `ok`, `no-cluster` or `no-endpoints`.
    pub state: &'static str,
}

/// Injected faults.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RouteFaultReport {
    /// Delay as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// Share of the delay in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_percent: Option<f64>,
    /// gRPC status name, or HTTP status, of the abort.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<String>,
    /// Share of the abort in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_percent: Option<f64>,
}

/// Changes of a call on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RouteRewriteReport {
    /// New path or prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// New authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Headers: `set name`, `add name`, `remove name`, of the request or the response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

/// A rule that did not take the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TriedRuleReport {
    /// `VirtualService/namespace/name[rule]`, with the alternative after a dot where there is one.
    pub rule: String,
    /// Why not.
    pub why_not: String,
}

/// What the client sees.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClientOutcomeReport {
    /// HTTP status that the proxy means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u32>,
    /// Name of the gRPC status.
    pub grpc_status: String,
    /// Flag of the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<&'static str>,
    /// Share of the calls in percent.
    pub percent: f64,
}

/// Who calls, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerName(pub String);

impl RouteReport {
    /// The report of an answer.
    pub fn new(mesh: &Mesh<'_>, caller: &Caller, title: &CallerName, call: &Call, answer: &CallDecision) -> Self {
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
            unknown,
            problems,
            message,
        } = answer;
        let forwards = *outcome == CallOutcome::Forward;
        let millis = |limit: std::time::Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let limit = forwards.then(|| timeout.map_or(0, millis));
        let mut not_modelled = not_modelled(mesh, caller, answer);
        not_modelled.extend(notes(mesh, caller, answer));
        not_modelled.extend(unknown.iter().map(|claim| format!("a match on {claim}: the token is not known here")));
        let mut messages: Vec<&str> = problems.iter().map(String::as_str).collect();
        if !message.is_empty() {
            messages.push(message);
        }
        let mut hashes: Vec<String> = backends.iter().filter_map(|backend| backend.hash.clone()).collect();
        hashes.dedup();
        Self {
            kind: "Route",
            version: 1,
            id: None,
            caller: title.0.clone(),
            callers: Vec::new(),
            authority: call.authority.clone(),
            port: call.port,
            path: call.path.clone(),
            listener: match listener {
                ListenerClass::Http => "http",
                ListenerClass::Auto => "auto",
                ListenerClass::Tcp => "tcp",
                ListenerClass::None => "none",
            },
            outcome: outcome_word(*outcome),
            virtual_host: virtual_host.clone(),
            rule: rule.as_ref().map(|hit| rule_view(hit, route_name)),
            backends: backends.iter().map(|backend| backend_view(mesh, caller, backend)).collect(),
            timeout_ms: limit,
            max_grpc_timeout_ms: limit,
            retries: retries.as_ref().filter(|_| forwards).map(|policy| RouteRetriesReport {
                attempts: policy.attempts,
                retry_on: policy.retry_on.clone(),
                status_codes: policy.status_codes.clone(),
                per_try_timeout_ms: policy.per_try_timeout.map_or(0, millis),
                owner: policy.owner.to_string(),
            }),
            mirrors: mirrors
                .iter()
                .map(|mirror| RouteMirrorReport {
                    cluster: mirror.backend.cluster.clone(),
                    percent: mirror.percent,
                    state: state_word(mirror.backend.state),
                })
                .collect(),
            status: *status,
            fault: rule.as_ref().and_then(|hit| hit.written.fault.as_ref()).map(fault_view),
            rewrite: rule.as_ref().and_then(rewrite_view),
            hash_policy: hashes,
            tried: tried.iter().map(tried_view).collect(),
            not_modelled,
            client_sees: client_view(mesh, call, answer),
            message: messages.join("; "),
            did_you_mean: did_you_mean(mesh, call, answer),
            live: None,
        }
    }

    /// Whether the call arrives at all.
    pub fn arrives(&self) -> bool {
        match self.outcome {
            "forward" => self.client_sees.is_none(),
            "tcp" | "passthrough" => true,
            _ => false,
        }
    }
}

/// Backends with their shares in percent.
pub fn shares(backends: &[RouteBackendReport]) -> impl Iterator<Item = (&RouteBackendReport, f64)> {
    let total: i64 = backends.iter().filter_map(|backend| backend.weight).sum();
    backends.iter().map(move |backend| (backend, share(backend.weight, backends.len(), total)))
}

/// A share in percent: one backend takes everything, whatever its weight.
pub(super) fn share(weight: Option<i64>, count: usize, total: i64) -> f64 {
    match (count, weight) {
        (1, _) | (_, None) => 100.0,
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        (_, Some(weight)) => 100.0 * weight as f64 / total.max(1) as f64,
    }
}

/// The contract's word for an outcome.
pub fn outcome_word(outcome: CallOutcome) -> &'static str {
    match outcome {
        CallOutcome::Forward => "forward",
        CallOutcome::DirectResponse => "direct-response",
        CallOutcome::Redirect => "redirect",
        CallOutcome::NoRoute => "no-route",
        CallOutcome::Passthrough => "passthrough",
        CallOutcome::Blocked => "blocked",
        CallOutcome::Tcp => "tcp",
        CallOutcome::Closed => "closed",
        CallOutcome::Unresolved => "unresolved",
        CallOutcome::Rejected => "rejected",
    }
}

fn state_word(state: BackendState) -> &'static str {
    match state {
        BackendState::Ok => "ok",
        BackendState::NoCluster => "no-cluster",
        BackendState::NoEndpoints => "no-endpoints",
    }
}

fn rule_view(hit: &MatchedRule, route_name: &str) -> RouteRuleReport {
    let ObjectRef { kind, namespace, name } = &hit.object;
    RouteRuleReport {
        kind: kind.name().to_owned(),
        namespace: namespace.to_string(),
        name: name.to_string(),
        index: hit.index,
        alternative: hit.alternative,
        route_name: route_name.to_owned(),
        delegate: hit.delegate.as_ref().map(ObjectRef::path),
    }
}

fn backend_view(mesh: &Mesh<'_>, caller: &Caller, backend: &CompiledBackend) -> RouteBackendReport {
    let exists = backend.state != BackendState::NoCluster;
    let auto = mesh.config.enable_auto_mtls != Some(false);
    let tls = match backend.tls.as_deref() {
        Some("DISABLE") => "plain",
        Some("ISTIO_MUTUAL") => "mtls",
        Some(_) => "tls",
        None if auto => "auto",
        None => "plain",
    };
    RouteBackendReport {
        cluster: backend.cluster.clone(),
        host: backend.host.as_ref().map(ToString::to_string),
        port: backend.port,
        subset: backend.subset.as_ref().map(ToString::to_string),
        weight: backend.weight,
        state: state_word(backend.state),
        endpoints: backend.endpoints.map(|pods| pods.ready + pods.unknown),
        destination_rule: backend.destination_rule.as_ref().map(ObjectRef::path),
        upstream_protocol: backend.upstream_protocol.map(|protocol| match protocol {
            UpstreamProtocol::Http1 => "http1",
            UpstreamProtocol::Http2 => "http2",
            UpstreamProtocol::Downstream => "downstream",
        }),
        tls: exists.then_some(tls),
        connection_pool: pool(mesh, caller, backend).filter(|_| exists).unwrap_or_default(),
    }
}

/// Limits toward a backend that somebody set.
fn pool(mesh: &Mesh<'_>, caller: &Caller, backend: &CompiledBackend) -> Option<Vec<String>> {
    let service = mesh.service(backend.service?);
    let port = service.port(u16::try_from(backend.port?).ok()?)?;
    let rules = mesh.applied_rules(caller, service);
    let policy = mesh.destination_rules.policy(&rules, port.number, backend.subset.as_ref());
    policy.connection_pool.is_some().then(|| connection_pool(mesh, port.protocol, &policy))
}

fn fault_view(fault: &Fault) -> RouteFaultReport {
    let share = |percent: &Option<crate::schema::virtual_service::Percent>| {
        percent.as_ref().map_or(100.0, |percent| percent.value)
    };
    RouteFaultReport {
        delay: fault.delay.as_ref().and_then(|delay| delay.fixed_delay.clone()),
        delay_percent: fault.delay.as_ref().map(|delay| share(&delay.percentage)),
        abort: fault.abort.as_ref().and_then(|abort| {
            abort.grpc_status.clone().or_else(|| abort.http_status.map(|status| format!("HTTP {status}")))
        }),
        abort_percent: fault.abort.as_ref().map(|abort| share(&abort.percentage)),
    }
}

fn rewrite_view(hit: &MatchedRule) -> Option<RouteRewriteReport> {
    let mut view = RouteRewriteReport::default();
    if let Some(rewrite) = &hit.written.rewrite {
        view.path.clone_from(&rewrite.uri);
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            view.path = Some(format!("{} → {}", regex.matches, regex.rewrite));
        }
        view.authority.clone_from(&rewrite.authority);
    }
    let per_backend = hit.written.route.iter().filter_map(|target| target.headers.as_ref());
    for headers in hit.written.headers.iter().chain(per_backend) {
        note_headers(headers, &mut view.headers);
    }
    (view != RouteRewriteReport::default()).then_some(view)
}

fn note_headers(headers: &Headers, notes: &mut Vec<String>) {
    for (direction, operations) in [("request", &headers.request), ("response", &headers.response)] {
        let Some(operations) = operations else { continue };
        notes.extend(operations.set.keys().map(|name| format!("{direction}: set {name}")));
        notes.extend(operations.add.keys().map(|name| format!("{direction}: add {name}")));
        notes.extend(operations.remove.iter().map(|name| format!("{direction}: remove {name}")));
    }
}

fn tried_view(tried: &TriedRule) -> TriedRuleReport {
    let TriedRule { object, index, alternative, why_not } = tried;
    let inner = alternative.map(|at| format!(".{at}")).unwrap_or_default();
    TriedRuleReport {
        rule: format!("{}/{}[{index}{inner}]", object.kind.name(), object.path()),
        why_not: why_not.clone(),
    }
}

/// How a caller is written: `gateway/` before a gateway's.
pub fn title(kind: CallerKind, path: &str) -> CallerName {
    CallerName(match kind {
        CallerKind::Sidecar => path.to_owned(),
        CallerKind::Gateway => format!("gateway/{path}"),
    })
}
