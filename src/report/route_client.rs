//! What the client of a call sees when the call does not arrive.

use super::route::{ClientOutcomeReport, share};
use crate::mesh::Mesh;
use crate::mesh::security::MtlsMode;
use crate::mesh::workload::Workload;
use crate::mesh::xds::{
    BackendState, Call, CallDecision, CallOutcome, CallProtocol, CompiledBackend, UpstreamProtocol,
};
use crate::vocabulary::grpc_status;

/// What a client sees of a call that does not arrive; `None` when it may arrive.
pub(super) fn client_view(mesh: &Mesh<'_>, call: &Call, answer: &CallDecision) -> Option<ClientOutcomeReport> {
    let seen = |http: Option<u32>, grpc: u8, flag: Option<&'static str>, percent: f64| {
        Some(ClientOutcomeReport { http_status: http, grpc_status: grpc_status::name(grpc).to_owned(), flag, percent })
    };
    match answer.outcome {
        CallOutcome::Forward => {
            let total: i64 = answer.backends.iter().map(|backend| backend.weight.unwrap_or(0)).sum();
            let share = |backend: &CompiledBackend| share(backend.weight, answer.backends.len(), total);
            let lost = |state: BackendState| -> f64 {
                answer.backends.iter().filter(|backend| backend.state == state).map(share).sum()
            };
            let by_gateway_api =
                answer.rule.as_ref().is_some_and(|hit| hit.object.kind != crate::schema::Kind::VirtualService);
            let (missing, empty) = (lost(BackendState::NoCluster), lost(BackendState::NoEndpoints));
            if missing > 0.0 {
                let (http, grpc) = if by_gateway_api { (500, 2) } else { (503, 14) };
                return seen(Some(http), grpc, Some("NC"), missing);
            }
            if empty > 0.0 {
                return seen(Some(503), 14, Some("UH"), empty);
            }
            let ok = |backend: &&CompiledBackend| backend.state == BackendState::Ok;
            // A gRPC server does not understand HTTP/1.1: its own proxy, or the server, ends the call.
            let old = |backend: &&CompiledBackend| backend.upstream_protocol == Some(UpstreamProtocol::Http1);
            let spoken: f64 = answer.backends.iter().filter(ok).filter(old).map(share).sum();
            if spoken > 0.0 && call.protocol != CallProtocol::Http1 {
                return seen(None, 14, Some("UPE"), spoken);
            }
            let refused: f64 =
                answer.backends.iter().filter(ok).filter(|one| is_refused_plaintext(mesh, one)).map(share).sum();
            if refused > 0.0 {
                return seen(Some(503), 14, Some("UC"), refused);
            }
            None
        }
        CallOutcome::DirectResponse | CallOutcome::Blocked | CallOutcome::Redirect => {
            let status = answer.status.unwrap_or(502);
            seen(Some(status), grpc_status::of_http(u16::try_from(status).unwrap_or(500)), None, 100.0)
        }
        CallOutcome::NoRoute => seen(Some(404), 12, Some("NR"), 100.0),
        CallOutcome::Closed | CallOutcome::Unresolved => seen(None, 14, None, 100.0),
        CallOutcome::Rejected | CallOutcome::Passthrough | CallOutcome::Tcp => None,
    }
}

/// Whether plain text is sent to pods that take mesh TLS only.
fn is_refused_plaintext(mesh: &Mesh<'_>, backend: &CompiledBackend) -> bool {
    let auto = mesh.config.enable_auto_mtls != Some(false);
    let plain = backend.tls.as_deref() == Some("DISABLE") || (backend.tls.is_none() && !auto);
    let Some(service) = backend.service.filter(|_| plain).map(|id| mesh.service(id)) else { return false };
    let port = backend.port.and_then(|port| u16::try_from(port).ok()).and_then(|port| service.port(port));
    let mut pods = mesh.workloads_of(service).peekable();
    let strict = |workload: &Workload| {
        let number = port.and_then(|port| port.target.number_in(workload)).unwrap_or_default();
        workload.proxy.is_meshed() == Some(true)
            && mesh.security.mtls(workload, number, &mesh.root).0 == MtlsMode::Strict
    };
    pods.peek().is_some() && pods.all(strict)
}
