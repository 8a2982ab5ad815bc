//! The outcome that a client sees when its call does not reach the application.

use std::collections::BTreeMap;

use super::Percent;
use super::route::{ClientOutcomeReason, ClientOutcomeReport, share};
use crate::mesh::Mesh;
use crate::mesh::authorization::{AuthorizationVerdict, BackendAuthorization, CallAuthorization, ServerAccess};
use crate::mesh::hop::HopFailure;
use crate::mesh::xds::{
    BackendState, Call, CallDecision, CallOutcome, CallProtocol, Caller, CompiledBackend, UpstreamProtocol,
};
use crate::schema::Kind;
use crate::vocabulary::grpc_status;

/// Everything that decides what the client of a call sees.
pub(super) struct ClientView<'a, 'm> {
    pub(super) mesh: &'a Mesh<'m>,
    pub(super) caller: &'a Caller,
    pub(super) call: &'a Call,
    pub(super) decision: &'a CallDecision,
    pub(super) authorization: &'a CallAuthorization,
}

/// How a part of the calls fails. Parts with the same failure are reported together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct CallFailure {
    reason: ClientOutcomeReason,
    /// gRPC status code.
    code: u8,
    http_status: Option<u32>,
    flag: Option<&'static str>,
}

impl CallFailure {
    fn new(reason: ClientOutcomeReason, http_status: Option<u32>, code: u8, flag: Option<&'static str>) -> Self {
        Self { reason, code, http_status, flag }
    }

    fn report(self, share_percent: f64) -> ClientOutcomeReport {
        let Self { reason, code, http_status, flag } = self;
        ClientOutcomeReport {
            share_percent: Percent(share_percent),
            grpc_status: grpc_status::name(code),
            http_status,
            flag,
            reason,
        }
    }
}

/// The shares of a call that do not reach the application, by reason; empty when all calls may arrive.
pub(super) fn client_outcomes(view: &ClientView<'_, '_>) -> Vec<ClientOutcomeReport> {
    use ClientOutcomeReason as Reason;
    let decision = view.decision;
    let all_calls = |http_status: Option<u32>, code: u8, flag: Option<&'static str>, reason: Reason| {
        vec![CallFailure::new(reason, http_status, code, flag).report(100.0)]
    };
    let proxy_response = |reason: Reason| {
        let status = decision.status.unwrap_or(502);
        let code = grpc_status::from_http_status(u16::try_from(status).unwrap_or(500));
        all_calls(Some(status), code, None, reason)
    };
    let gateway = view.authorization.gateway.as_ref();
    if gateway.is_some_and(|gateway| gateway.verdict == AuthorizationVerdict::Denied)
        && !matches!(decision.outcome, CallOutcome::Closed | CallOutcome::Unresolved)
    {
        return all_calls(Some(403), 7, None, Reason::AuthorizationDenied);
    }
    match decision.outcome {
        CallOutcome::Forward => view.with_aborts(view.lost_shares()),
        CallOutcome::Tcp => view.lost_shares(),
        CallOutcome::DirectResponse => proxy_response(Reason::DirectResponse),
        CallOutcome::Blocked => proxy_response(Reason::Blocked),
        CallOutcome::Redirect => proxy_response(Reason::Redirect),
        CallOutcome::NoRoute => all_calls(Some(404), 12, Some("NR"), Reason::NoRoute),
        CallOutcome::Closed => all_calls(None, 14, None, Reason::Closed),
        CallOutcome::Unresolved => all_calls(None, 14, None, Reason::Unresolved),
        CallOutcome::Rejected | CallOutcome::Passthrough => Vec::new(),
    }
}

impl ClientView<'_, '_> {
    /// Adds the share that a fault of the rule aborts. The caller's proxy aborts calls before it selects a backend.
    fn with_aborts(&self, lost: Vec<ClientOutcomeReport>) -> Vec<ClientOutcomeReport> {
        let rule = self.decision.rule.as_ref();
        let fault = rule.and_then(|rule| rule.http_rule.fault.as_ref());
        let Some(abort) = fault.and_then(|fault| fault.abort.as_ref()) else { return lost };
        let percent = abort.share_percent();
        let http_status = abort.http_status.and_then(|status| u32::try_from(status).ok());
        let by_name = abort.grpc_status.as_deref().and_then(|name| grpc_status::parse(name.as_bytes()));
        let by_http = http_status.and_then(|status| u16::try_from(status).ok()).map(grpc_status::from_http_status);
        let Some(code) = by_name.or(by_http).filter(|_| percent > 0.0) else { return lost };
        let abort = CallFailure::new(ClientOutcomeReason::FaultAbort, http_status, code, Some("FI")).report(percent);
        let rest = (100.0 - percent) / 100.0;
        let lost = lost.into_iter().map(|outcome| {
            let share_percent = Percent(outcome.share_percent.0 * rest);
            ClientOutcomeReport { share_percent, ..outcome }
        });
        std::iter::once(abort).chain(lost.filter(|outcome| outcome.share_percent.0 > 0.0)).collect()
    }

    /// Shares of the calls that fail at or before the server.
    fn lost_shares(&self) -> Vec<ClientOutcomeReport> {
        let backends = &self.decision.backends;
        let total: i64 = backends.iter().map(|backend| backend.weight.unwrap_or(0)).sum();
        let mut lost: BTreeMap<CallFailure, f64> = BTreeMap::new();
        for (backend, authorization) in backends.iter().zip(&self.authorization.backends) {
            let percent = share(backend.weight, backends.len(), total).0;
            for (failure, ratio) in self.failures(backend, authorization) {
                *lost.entry(failure).or_default() += percent * ratio;
            }
        }
        lost.into_iter()
            .filter(|(_, percent)| *percent > 0.0)
            .map(|(failure, percent)| failure.report(percent))
            .collect()
    }

    /// The failures of calls to one backend, each with the part of its calls, from 0 to 1.
    fn failures(&self, backend: &CompiledBackend, authorization: &BackendAuthorization) -> Vec<(CallFailure, f64)> {
        use ClientOutcomeReason as Reason;
        let is_tcp = self.decision.outcome == CallOutcome::Tcp;
        // A caller without a proxy sees the connection itself.
        let proxy = self.caller.workload.map(|id| &self.mesh.workload(id).proxy);
        let has_proxy = proxy.is_none_or(|proxy| proxy.is_meshed() != Some(false));
        let unavailable = |reason: Reason, flag: &'static str| {
            let http_status = (has_proxy && !is_tcp).then_some(503);
            CallFailure::new(reason, http_status, 14, has_proxy.then_some(flag))
        };
        let rule = self.decision.rule.as_ref();
        let is_gateway_api = rule.is_some_and(|rule| rule.object.kind != Kind::VirtualService);
        match backend.state {
            BackendState::NoCluster if is_gateway_api => {
                return vec![(CallFailure::new(Reason::NoCluster, Some(500), 2, Some("NC")), 1.0)];
            }
            BackendState::NoCluster => return vec![(unavailable(Reason::NoCluster, "NC"), 1.0)],
            BackendState::NoEndpoints => return vec![(unavailable(Reason::NoEndpoints, "UH"), 1.0)],
            BackendState::Ok | BackendState::Unknown => {}
        }
        // A gRPC server does not understand HTTP/1.1: its sidecar, or the server itself, ends the call.
        if backend.upstream_protocol == Some(UpstreamProtocol::Http1)
            && self.call.protocol != CallProtocol::Http1
            && !is_tcp
            && has_proxy
        {
            return vec![(CallFailure::new(Reason::Http1Upstream, None, 14, Some("UPE")), 1.0)];
        }
        if self.originates_tls_to_plaintext(backend) {
            return vec![(unavailable(Reason::TlsToPlaintext, "UF"), 1.0)];
        }
        let ratio = |predicate: &dyn Fn(&ServerAccess) -> bool| authorization.ratio(self.mesh, predicate);
        let mut failures: Vec<(CallFailure, f64)> = [
            (HopFailure::PlaintextToStrict, unavailable(Reason::PlaintextToStrictMtls, "UC")),
            (HopFailure::MtlsToDisabled, unavailable(Reason::MtlsToPlaintext, "UF")),
            (HopFailure::MtlsToApplication, unavailable(Reason::MtlsWithoutProxy, "UF")),
            (HopFailure::TlsToStrict, unavailable(Reason::TlsToProxy, "UF")),
            (HopFailure::TlsToProxy, unavailable(Reason::TlsToProxy, "UF")),
            (HopFailure::TlsToPlaintext, unavailable(Reason::TlsToPlaintext, "UF")),
        ]
        .into_iter()
        .map(|(failure, outcome)| (outcome, ratio(&|access| access.result == Err(failure))))
        .collect();
        let denies = |access: &ServerAccess| {
            access.result.as_ref().is_ok_and(|decision| decision.verdict == AuthorizationVerdict::Denied)
        };
        let denied = CallFailure::new(Reason::AuthorizationDenied, Some(403), 7, None);
        failures.push((denied, ratio(&|access| denies(access) && access.is_http)));
        // On a TCP filter chain the proxy closes the connection.
        let closed = unavailable(Reason::AuthorizationDenied, "UC");
        failures.push((closed, ratio(&|access| denies(access) && !access.is_http)));
        failures
    }

    /// Whether the caller's proxy starts TLS with the plaintext port of a ServiceEntry.
    fn originates_tls_to_plaintext(&self, backend: &CompiledBackend) -> bool {
        let service = backend.service.map(|id| self.mesh.service(id));
        let port = backend.port.and_then(|port| u16::try_from(port).ok());
        let is_plaintext =
            service.zip(port).is_some_and(|(service, port)| self.mesh.is_plaintext_entry_port(service, port));
        is_plaintext && self.mesh.written_tls(self.caller, backend).is_some_and(|tls| tls.originates())
    }
}
