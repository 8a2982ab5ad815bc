//! GM602: `ISTIO_MUTUAL` to pods without a proxy.

use crate::mesh::Mesh;
use crate::mesh::hop::HopFailure;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM602",
    name: "mutual-to-unmeshed",
    severity: Severity::Error,
    needs: &[Kind::DestinationRule, Kind::Pod],
    istio_code: None,
    summary: "A DestinationRule with ISTIO_MUTUAL for pods without a proxy",
    docs: "\
## What it looks for
A DestinationRule with `mode: ISTIO_MUTUAL` for a gRPC Service some of whose pods have no proxy, or exclude the port from
it.

## Why it matters for gRPC
`ISTIO_MUTUAL` makes the caller's proxy start mTLS with every pod. A pod without a proxy does not understand the
handshake, so that connections to it fail: UNAVAILABLE, flag UF. Without `tls` in the rule, auto mTLS uses plaintext for
such pods and mTLS for the others.

## Example
```yaml
kind: DestinationRule
spec: {host: ledger, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}      # the pods of ledger have no sidecar
```

## Fix
Remove `tls` from the DestinationRule, or give the pods a sidecar.

## References
- Istio source: `pilot/pkg/networking/core/cluster_tls.go`, `pilot/pkg/xds/endpoints/mtls_checker.go`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        let problems = mesh.hop_problems(id).into_iter();
        for problem in problems.filter(|problem| problem.failure == HopFailure::MtlsToApplication) {
            let Some(written) = &problem.written else { continue };
            let severity = if problem.failing == problem.all { Severity::Error } else { Severity::Warning };
            let finding = Finding::new(&RULE, &written.object, format!("{}.mode", written.field))
                .severity(severity)
                .message(format!(
                    "callers start mTLS with {} port {}, and {} have no proxy that accepts it",
                    service.object,
                    problem.port,
                    problem.share_of_pods()
                ))
                .impact("the handshake with these pods fails: calls end with UNAVAILABLE, flag UF")
                .callers(&problem.callers)
                .evidence([format!("for example {}", problem.example)])
                .fix("remove tls from the DestinationRule: auto mTLS then decides for each pod")
                .depends_on([service.namespace()]);
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, pod, service};

    fn mesh(mode: &str, second: &str) -> String {
        service("a", "{name: grpc, port: 50051}")
            + second
            + &istio("DestinationRule", "a", &format!("{{host: a, trafficPolicy: {{tls: {{mode: {mode}}}}}}}"))
    }

    /// A pod of the Service without a sidecar.
    fn plain_pod() -> String {
        let yaml = pod("a", "v2");
        let (before, after) = yaml.split_once(", {name: istio-proxy").unwrap();
        format!("{before}]}}{}", after.split_once("}]}").unwrap().1)
    }

    #[test]
    fn reports_pods_without_a_proxy() {
        let expected = |severity: &str| format!("{severity} DestinationRule shop/a spec.trafficPolicy.tls.mode");
        assert_findings(&RULE, &mesh("ISTIO_MUTUAL", &plain_pod()), &[&expected("error")]);
        let both = plain_pod() + &pod("a", "v1");
        assert_findings(&RULE, &mesh("ISTIO_MUTUAL", &both), &[&expected("warning")]);
        assert_undecided_on_gap(&RULE, &mesh("ISTIO_MUTUAL", &plain_pod()));
    }

    #[test]
    fn is_silent_with_proxies_and_with_other_modes() {
        assert_findings(&RULE, &mesh("ISTIO_MUTUAL", &pod("a", "v1")), &[]);
        assert_findings(&RULE, &mesh("DISABLE", &plain_pod()), &[]);
    }
}
