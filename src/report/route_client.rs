//! The outcome that a client sees when its call does not reach the application.

use super::Percent;
use super::route::{ClientOutcomeReason, ClientOutcomeReport, share};
use crate::mesh::Mesh;
use crate::mesh::security::MtlsMode;
use crate::mesh::workload::Workload;
use crate::mesh::xds::{
    BackendState, Call, CallDecision, CallOutcome, CallProtocol, CompiledBackend, UpstreamProtocol,
};
use crate::schema::Kind;
use crate::vocabulary::grpc_status;

/// The shares of a call that do not reach the application, by reason; empty when all calls may arrive.
pub(super) fn client_outcomes(mesh: &Mesh<'_>, call: &Call, decision: &CallDecision) -> Vec<ClientOutcomeReport> {
    use ClientOutcomeReason as Reason;
    let all_calls = |http_status: Option<u32>, code: u8, flag: Option<&'static str>, reason: Reason| {
        vec![client_outcome(Percent::ALL, http_status, code, flag, reason)]
    };
    let proxy_response = |reason: Reason| {
        let status = decision.status.unwrap_or(502);
        let code = grpc_status::from_http_status(u16::try_from(status).unwrap_or(500));
        all_calls(Some(status), code, None, reason)
    };
    match decision.outcome {
        CallOutcome::Forward => lost_shares(mesh, call, decision),
        CallOutcome::DirectResponse => proxy_response(Reason::DirectResponse),
        CallOutcome::Blocked => proxy_response(Reason::Blocked),
        CallOutcome::Redirect => proxy_response(Reason::Redirect),
        CallOutcome::NoRoute => all_calls(Some(404), 12, Some("NR"), Reason::NoRoute),
        CallOutcome::Closed => all_calls(None, 14, None, Reason::Closed),
        CallOutcome::Unresolved => all_calls(None, 14, None, Reason::Unresolved),
        CallOutcome::Rejected | CallOutcome::Passthrough | CallOutcome::Tcp => Vec::new(),
    }
}

fn client_outcome(
    share_percent: Percent,
    http_status: Option<u32>,
    code: u8,
    flag: Option<&'static str>,
    reason: ClientOutcomeReason,
) -> ClientOutcomeReport {
    ClientOutcomeReport { share_percent, grpc_status: grpc_status::name(code), http_status, flag, reason }
}

/// Shares of a forwarded call whose backends cannot answer.
fn lost_shares(mesh: &Mesh<'_>, call: &Call, decision: &CallDecision) -> Vec<ClientOutcomeReport> {
    use ClientOutcomeReason as Reason;
    let failure = |backend: &CompiledBackend| match backend.state {
        BackendState::NoCluster => Some(Reason::NoCluster),
        BackendState::NoEndpoints => Some(Reason::NoEndpoints),
        // A gRPC server does not understand HTTP/1.1: its sidecar, or the server itself, ends the call.
        BackendState::Ok
            if backend.upstream_protocol == Some(UpstreamProtocol::Http1) && call.protocol != CallProtocol::Http1 =>
        {
            Some(Reason::Http1Upstream)
        }
        BackendState::Ok if sends_plaintext_to_strict_pods(mesh, backend) => Some(Reason::PlaintextToStrictMtls),
        BackendState::Ok | BackendState::Unknown => None,
    };
    let failures: Vec<_> = decision.backends.iter().map(failure).collect();
    let is_gateway_api = decision.rule.as_ref().is_some_and(|rule| rule.object.kind != Kind::VirtualService);
    let missing_cluster = if is_gateway_api { (Some(500), 2) } else { (Some(503), 14) };
    let total: i64 = decision.backends.iter().map(|backend| backend.weight.unwrap_or(0)).sum();
    [
        (Reason::NoCluster, missing_cluster, "NC"),
        (Reason::NoEndpoints, (Some(503), 14), "UH"),
        (Reason::Http1Upstream, (None, 14), "UPE"),
        (Reason::PlaintextToStrictMtls, (Some(503), 14), "UC"),
    ]
    .into_iter()
    .filter_map(|(reason, (http_status, code), flag)| {
        let failing = decision.backends.iter().zip(&failures).filter(|(_, failure)| **failure == Some(reason));
        let percent: f64 = failing.map(|(backend, _)| share(backend.weight, decision.backends.len(), total).0).sum();
        (percent > 0.0).then(|| client_outcome(Percent(percent), http_status, code, Some(flag), reason))
    })
    .collect()
}

/// Whether the proxy sends plaintext to pods that accept only mTLS.
fn sends_plaintext_to_strict_pods(mesh: &Mesh<'_>, backend: &CompiledBackend) -> bool {
    let auto_mtls = mesh.config.enable_auto_mtls != Some(false);
    let is_plain = backend.tls.as_deref() == Some("DISABLE") || (backend.tls.is_none() && !auto_mtls);
    let Some(service) = backend.service.filter(|_| is_plain).map(|id| mesh.service(id)) else { return false };
    let port = backend.port.and_then(|port| u16::try_from(port).ok()).and_then(|port| service.port(port));
    let mut pods = mesh.workloads_of(service).peekable();
    let is_strict = |workload: &Workload| {
        let number = port.and_then(|port| port.target.number_in(workload)).unwrap_or_default();
        workload.proxy.is_meshed() == Some(true)
            && mesh.security_policies.mtls_mode(workload, number, &mesh.root_namespace).0 == MtlsMode::Strict
    };
    pods.peek().is_some() && pods.all(is_strict)
}
