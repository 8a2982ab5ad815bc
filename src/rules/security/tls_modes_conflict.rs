//! GM601: TLS of a DestinationRule, or of auto mTLS, that the proxies of the servers do not accept.

use crate::mesh::Mesh;
use crate::mesh::hop::HopFailure;
use crate::mesh::hop_problems::HopProblem;
use crate::mesh::service::Service;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM601",
    name: "tls-modes-conflict",
    severity: Severity::Error,
    needs: &[Kind::DestinationRule, Kind::PeerAuthentication],
    istio_code: None,
    summary: "TLS of the callers does not fit what the proxies of the servers accept",
    docs: "\
## What it looks for
gRPC ports whose callers connect in a way that the server's proxy refuses: plaintext to a strict port, mTLS to a port
that accepts only plaintext, and TLS of a DestinationRule (`SIMPLE`, `MUTUAL`) to a port that expects mTLS. The caller's
side is the DestinationRule that it gets, else auto mTLS; the server's side is the PeerAuthentication for the pod's port.

## Why it matters for gRPC
The connection fails before any call. Clients see UNAVAILABLE, with the flag UC for plaintext to a strict port and UF
for a failed handshake. Authorization and access logs of the server show nothing.

## Example
```yaml
kind: DestinationRule
spec: {host: checkout, trafficPolicy: {tls: {mode: DISABLE}}}
---
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
```

## Fix
Remove `tls` from the DestinationRule, so that auto mTLS decides for each pod, or use
```yaml
trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
```

## References
- Istio source: `pilot/pkg/networking/core/cluster_tls.go`, `filterchain_options.go`, `pilot/pkg/xds/endpoints/mtls_checker.go`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for id in mesh.service_ids() {
        for problem in mesh.hop_problems(id) {
            // An ignored credential, pods without a proxy and plaintext servers have rules of their own.
            let is_ignored = problem.written.as_ref().is_some_and(|written| written.is_ignored);
            let has_own_rule = matches!(problem.failure, HopFailure::MtlsToApplication | HopFailure::TlsToPlaintext);
            if !is_ignored && !has_own_rule {
                report(mesh, mesh.service(id), &problem, out);
            }
        }
    }
}

fn report(mesh: &Mesh<'_>, service: &Service, problem: &HopProblem, out: &mut Findings<'_>) {
    let server = problem.decided_by.as_ref();
    let (object, field) = match (&problem.written, server) {
        (Some(written), _) => (&written.object, written.mode_field()),
        (None, Some(policy)) => (policy, "spec.mtls.mode".to_owned()),
        (None, None) => return,
    };
    let accepts = match problem.failure {
        HopFailure::PlaintextToStrict | HopFailure::TlsToStrict => "accept only mTLS",
        HopFailure::MtlsToDisabled => "accept only plaintext",
        HopFailure::TlsToProxy | HopFailure::MtlsToApplication | HopFailure::TlsToPlaintext => {
            "expect mTLS or plaintext"
        }
    };
    let starts = match (problem.failure, &problem.written) {
        (HopFailure::PlaintextToStrict, _) => format!("plaintext, because {}", problem.plaintext_reason),
        (_, Some(written)) => format!("TLS mode {}", written.mode),
        (_, None) => "mTLS".to_owned(),
    };
    let flag = if problem.failure == HopFailure::PlaintextToStrict { "UC" } else { "UF" };
    let subset = problem.subset.as_ref().map(|subset| format!(" subset {subset}")).unwrap_or_default();
    let fix = match (&problem.written, problem.failure) {
        (Some(written), _) if written.object.kind == Kind::BackendTlsPolicy => written.removal(),
        (Some(_), HopFailure::MtlsToDisabled) => "remove tls from the DestinationRule: auto mTLS then uses plaintext",
        (Some(_), _) => "tls:\n  mode: ISTIO_MUTUAL",
        (None, _) => "mtls:\n  mode: PERMISSIVE",
    };
    let severity = if problem.failing == problem.all { Severity::Error } else { Severity::Warning };
    let finding = Finding::new(&RULE, object, field)
        .severity(severity)
        .message(format!(
            "callers connect to {}{subset} port {} with {starts}, and {} {accepts}",
            service.object,
            problem.port,
            problem.share_of_pods()
        ))
        .impact(format!("connections to these pods fail: calls end with UNAVAILABLE, flag {flag}"))
        .callers(&problem.callers)
        .evidence(server.map(|policy| format!("{policy} decides for {}", problem.example)))
        .fix(fix)
        .depends_on([service.namespace(), &mesh.root_namespace]);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, pod, policy, service};

    fn mesh(tls: &str, mode: &str) -> String {
        service("a", "{name: grpc, port: 50051}")
            + &pod("a", "v1")
            + &istio("DestinationRule", "a", &format!("{{host: a, trafficPolicy: {{tls: {tls}}}}}"))
            + &policy("PeerAuthentication", "default", &format!("{{mtls: {{mode: {mode}}}}}"))
    }

    #[test]
    fn reports_each_pair_that_does_not_fit() {
        for (tls, mode) in [
            ("{mode: DISABLE}", "STRICT"),
            ("{mode: SIMPLE}", "STRICT"),
            ("{mode: SIMPLE}", "PERMISSIVE"),
            ("{mode: ISTIO_MUTUAL}", "DISABLE"),
        ] {
            let expected = "error DestinationRule shop/a spec.trafficPolicy.tls.mode";
            assert_findings(&RULE, &mesh(tls, mode), &[expected]);
        }
        assert_undecided_on_gap(&RULE, &mesh("{mode: DISABLE}", "STRICT"));
    }

    #[test]
    fn reports_a_strict_workload_in_a_namespace_without_mtls() {
        let strict = policy("PeerAuthentication", "a", "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}");
        let yaml = service("a", "{name: grpc, port: 50051}")
            + &pod("a", "v1")
            + &policy("PeerAuthentication", "default", "{mtls: {mode: DISABLE}}")
            + &strict;
        assert_findings(&RULE, &yaml, &["error PeerAuthentication shop/a spec.mtls.mode"]);
    }

    #[test]
    fn is_silent_where_both_sides_fit() {
        for (tls, mode) in [
            ("{mode: DISABLE}", "PERMISSIVE"),
            ("{mode: DISABLE}", "DISABLE"),
            ("{mode: ISTIO_MUTUAL}", "STRICT"),
            ("{mode: ISTIO_MUTUAL}", "PERMISSIVE"),
        ] {
            assert_findings(&RULE, &mesh(tls, mode), &[]);
        }
    }
}
