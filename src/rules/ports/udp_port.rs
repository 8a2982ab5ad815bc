//! GM107: UDP under a gRPC name.

use crate::mesh::Mesh;
use crate::mesh::protocol::Protocol;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM107",
    name: "udp-port",
    severity: Severity::Error,
    needs: &[],
    istio_code: None,
    summary: "gRPC on a UDP port: no listener at all",
    docs: "\
## What it looks for
A port with signs of gRPC whose L4 protocol is UDP, or whose name begins with `udp`.

## Why it matters for gRPC
gRPC runs over TCP. For a UDP port Istio makes no listener and no route: calls leave the mesh unseen, or fail.

## Example
```yaml
ports:
- name: grpc
  protocol: UDP
  port: 50051
```

## Repair
```yaml
ports:
- name: grpc
  protocol: TCP
  port: 50051
```

## References
- Istio: `pkg/config/kube/conversion.go` (UDP is decided before anything else).
- Seen on a real mesh: `tests/lab/effects/GM107.yaml`.
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
                .message(format!("port {} carries gRPC but is UDP", port.title()))
                .impact("no proxy has a listener for it: calls are neither balanced nor secured, or they fail")
                .evidence(std::iter::once(&port.decided_by).map(ToString::to_string))
                .evidence(&port.evidence)
                .fix(port.as_grpc());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, service};

    #[test]
    fn udp_under_a_grpc_name_is_reported() {
        check(
            &RULE,
            &service("a", "{name: grpc, protocol: UDP, port: 1}"),
            &["error Service shop/a spec.ports[0].protocol"],
        );
        check(&RULE, &service("a", "{name: udp-grpc, port: 1}"), &["error Service shop/a spec.ports[0].name"]);
    }

    #[test]
    fn other_udp_ports_are_silent() {
        check(&RULE, &service("a", "{name: dns, protocol: UDP, port: 53}"), &[]);
        check(&RULE, &service("a", "{name: grpc, protocol: TCP, port: 1}"), &[]);
    }
}
