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
    summary: "gRPC on a headless Service: the proxy keeps to the pod that was dialled",
    docs: "\
## What it looks for
A headless Service (`clusterIP: None`) with a port that is used for gRPC.

## Why it matters for gRPC
The client resolves the name to pod addresses and dials one. Its sidecar sends the calls just there: load balancing,
subsets, weights, outlier detection and locality do not choose the pod. Header and path rules, timeouts and retries
still act, and a retry goes to the same pod. A client with `dns:///` and `round_robin` balances by itself, and that
keeps working.

## Example
```yaml
kind: Service
spec:
  clusterIP: None
  ports: [{name: grpc, port: 50051}]
```

## Repair
For balancing by the mesh, call a Service with a cluster address:
```yaml
kind: Service
spec:
  ports: [{name: grpc, port: 50051}]
```

## References
- Istio: `pilot/pkg/networking/core/cluster.go` (convertResolution): ORIGINAL_DST on sidecars, EDS on gateways.
- Seen on a real mesh: `tests/lab/effects/GM111.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in &mesh.services {
        if service.resolution != Resolution::Headless || !service.has_grpc() {
            continue;
        }
        let evidence = service.ports.iter().flat_map(|port| &port.evidence).take(3);
        let finding = Finding::new(&RULE, &service.object, "spec.clusterIP")
            .message(format!(
                "{} is headless: callers dial pods, and the mesh keeps to the one that was dialled",
                service.object
            ))
            .impact("balancing, weights and subsets do not choose the pod; timeouts, retries and path rules act")
            .evidence(evidence)
            .fix("for balancing by the mesh, add a Service of another name without `clusterIP: None` and call that");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, service};

    #[test]
    fn grpc_on_a_headless_service_is_told() {
        let yaml = service("a", "{name: grpc, port: 1}").replace("10.96.0.9", "None");
        check(&RULE, &yaml, &["info Service shop/a spec.clusterIP"]);
    }

    #[test]
    fn other_services_are_silent() {
        check(&RULE, &service("a", "{name: grpc, port: 1}"), &[]);
        check(&RULE, &service("a", "{name: tcp-db, port: 1}").replace("10.96.0.9", "None"), &[]);
    }
}
