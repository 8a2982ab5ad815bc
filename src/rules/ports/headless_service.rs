//! GM111: gRPC on a headless Service.

use crate::mesh::Mesh;
use crate::mesh::service::Resolution;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM111",
    name: "headless-service",
    severity: Severity::Info,
    needs: &[],
    istio_code: None,
    summary: "gRPC on a headless Service: each call goes to the pod that the client dialed",
    docs: "\
## What it looks for
A headless Service (`clusterIP: None`) with a port that is used for gRPC.

## Why it matters for gRPC
The client resolves the name to pod addresses and dials one of them. Its sidecar sends every call to exactly that
address: load balancing, subsets, weights, outlier detection and locality do not choose the pod. Header and path
matches, timeouts and retries still apply, and a retry goes to the same pod. A gRPC client that uses `dns:///` with
`round_robin` balances by itself, and that keeps working.

## Example
```yaml
kind: Service
spec:
  clusterIP: None
  ports: [{name: grpc, port: 50051}]
```

## Fix
For load balancing by the mesh, call a Service with a cluster IP:
```yaml
kind: Service
spec:
  ports: [{name: grpc, port: 50051}]
```

## References
- Istio source: `pilot/pkg/networking/core/cluster.go` (convertResolution): ORIGINAL_DST on sidecars, EDS on gateways.
- Verified on a real mesh: `tests/lab/effects/GM111.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in &mesh.services {
        if service.resolution != Resolution::Headless || !service.has_grpc_evidence() {
            continue;
        }
        let evidence = service.ports.iter().flat_map(|port| &port.evidence).take(3);
        let finding = Finding::new(&RULE, &service.object, "spec.clusterIP")
            .message(format!("{} is headless: each call goes to the pod that the client dialed", service.object))
            .impact("load balancing, weights and subsets have no effect; route matches, timeouts and retries do")
            .evidence(evidence)
            .fix("for load balancing by the mesh, add a second Service without `clusterIP: None` and call it instead");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, service};

    #[test]
    fn reports_grpc_on_a_headless_service() {
        let yaml = service("a", "{name: grpc, port: 1}").replace("10.96.0.9", "None");
        assert_findings(&RULE, &yaml, &["info Service shop/a spec.clusterIP"]);
    }

    #[test]
    fn is_silent_on_cluster_ips_and_on_tcp_services() {
        assert_findings(&RULE, &service("a", "{name: grpc, port: 1}"), &[]);
        assert_findings(&RULE, &service("a", "{name: tcp-db, port: 1}").replace("10.96.0.9", "None"), &[]);
    }
}
