//! GM101: gRPC on a port that Istio treats as TCP.

use crate::mesh::Mesh;
use crate::mesh::evidence::Evidence;
use crate::mesh::protocol::{DecidedBy, Protocol, ProtocolFamily};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM101",
    name: "port-treated-as-tcp",
    severity: Severity::Error,
    needs: &[],
    istio_code: None,
    summary: "gRPC on a port that Istio treats as TCP: all calls of a connection go to one pod",
    docs: "\
## What it looks for
A port with gRPC evidence whose name, `appProtocol` or number makes Istio treat it as TCP, TLS, HTTPS or a database
protocol.

## Why it matters for gRPC
A gRPC client opens one HTTP/2 connection and sends all calls over it. On a TCP port the proxy balances connections, not
calls, so all calls of a client go to one pod. The `http` rules of VirtualServices, retries, timeouts, mirroring and
authorization by method have no effect, and neither Istio nor Envoy reports that.

## Example
```yaml
ports:
- name: tcp-grpc        # Istio reads the text before the first dash: tcp
  port: 50051
```

## Fix
```yaml
ports:
- name: grpc
  port: 50051
```

## References
- Verified on a real mesh: `tests/lab/effects/GM101.yaml`.
- Istio source: `pkg/config/kube/conversion.go` (ConvertProtocol), `pkg/config/protocol/instance.go` (IsTCP).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in &mesh.services {
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            if port.protocol.family() != ProtocolFamily::Tcp {
                continue;
            }
            let encrypted = matches!(port.protocol, Protocol::Tls | Protocol::Https);
            // TLS to a host outside the mesh comes from the client itself, so the port cannot be declared as gRPC.
            if encrypted && matches!(port.decided_by, DecidedBy::EntryProtocol(_)) {
                continue;
            }
            let is_routed_only = !port.evidence.iter().any(Evidence::is_own);
            let impact = if is_routed_only {
                "the proxy sends the calls over HTTP/1.1: they fail with UNAVAILABLE (flag UPE at the proxy that connects \
                 to the server, URX at the caller)"
            } else if encrypted {
                "the proxy forwards encrypted bytes: all calls of a connection go to one pod, and http rules, retries \
                 and timeouts have no effect; correct only if the application itself must terminate TLS"
            } else {
                "all calls of a connection go to one pod; http rules, retries and timeouts have no effect"
            };
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!("port {} is used for gRPC, but Istio treats it as {}", port.title(), port.protocol))
                .impact(impact)
                .evidence(std::iter::once(format!("protocol {}, decided by {}", port.protocol, port.decided_by)))
                .evidence(&port.evidence)
                .fix(port.grpc_port_yaml());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, istio, pod, service};

    #[test]
    fn reports_port_names_numbers_and_app_protocols_that_select_tcp() {
        assert_findings(
            &RULE,
            &service("a", "{name: tcp-grpc, port: 50051}"),
            &["error Service shop/a spec.ports[0].name"],
        );
        assert_findings(
            &RULE,
            &service("a", "{name: tls-grpc, port: 50051}"),
            &["error Service shop/a spec.ports[0].name"],
        );
        assert_findings(
            &RULE,
            &service("a", "{name: my_grpc, port: 3306}"),
            &["error Service shop/a spec.ports[0].name"],
        );
        assert_findings(
            &RULE,
            &service("a", "{name: grpc, port: 50051, appProtocol: tcp}"),
            &["error Service shop/a spec.ports[0].appProtocol"],
        );
    }

    #[test]
    fn reports_a_tcp_port_whose_route_has_grpc_retry_conditions() {
        let route =
            "{hosts: [a], http: [{route: [{destination: {host: a}}], retries: {attempts: 1, retryOn: unavailable}}]}";
        assert_findings(
            &RULE,
            &(service("a", "{name: tcp, port: 50051}") + &istio("VirtualService", "a", route)),
            &["error Service shop/a spec.ports[0].name"],
        );
    }

    #[test]
    fn is_silent_on_tcp_without_grpc_evidence_and_on_grpc_ports() {
        assert_findings(&RULE, &(service("a", "{name: tcp, port: 50051}") + &pod("a", "v1")), &[]);
        assert_findings(&RULE, &service("a", "{name: grpc, port: 50051}"), &[]);
        assert_findings(&RULE, &service("redis", "{name: tcp-redis, port: 6379}"), &[]);
    }
}
