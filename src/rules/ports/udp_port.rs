//! GM107: gRPC on a UDP port.

use crate::mesh::Mesh;
use crate::mesh::protocol::Protocol;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM107",
    name: "udp-port",
    severity: Severity::Error,
    needs: &[],
    istio_code: None,
    summary: "gRPC on a UDP port, for which proxies have no listener",
    docs: "\
## What it looks for
A port with gRPC evidence whose `protocol` is UDP, or whose name begins with `udp`.

## Why it matters for gRPC
gRPC uses TCP. istiod creates no listener and no route for a UDP port, so calls to it bypass the mesh or fail.

## Example
```yaml
ports:
- name: grpc
  protocol: UDP
  port: 50051
```

## Fix
```yaml
ports:
- name: grpc
  protocol: TCP
  port: 50051
```

## References
- Istio source: `pkg/config/kube/conversion.go` (UDP takes precedence over the name and `appProtocol`).
- Verified on a real mesh: `tests/lab/effects/GM107.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in &mesh.services {
        for port in &service.ports {
            if port.protocol != Protocol::Udp || port.evidence.is_empty() {
                continue;
            }
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!("port {} is used for gRPC, but its protocol is UDP", port.title()))
                .impact("no proxy has a listener for the port: calls bypass routing and mTLS, or fail with UNAVAILABLE")
                .evidence([format!("decided by {}", port.decided_by)])
                .evidence(&port.evidence)
                .fix(port.grpc_port_yaml());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, service};

    #[test]
    fn reports_udp_ports_with_grpc_evidence() {
        assert_findings(
            &RULE,
            &service("a", "{name: grpc, protocol: UDP, port: 1}"),
            &["error Service shop/a spec.ports[0].protocol"],
        );
        assert_findings(
            &RULE,
            &service("a", "{name: udp-grpc, port: 1}"),
            &["error Service shop/a spec.ports[0].name"],
        );
    }

    #[test]
    fn is_silent_on_udp_without_grpc_evidence_and_on_tcp() {
        assert_findings(&RULE, &service("a", "{name: dns, protocol: UDP, port: 53}"), &[]);
        assert_findings(&RULE, &service("a", "{name: grpc, protocol: TCP, port: 1}"), &[]);
    }
}
