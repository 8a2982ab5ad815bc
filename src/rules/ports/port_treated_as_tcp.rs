//! GM101: gRPC on a port that Istio takes for TCP.

use crate::mesh::Mesh;
use crate::mesh::protocol::{DecidedBy, Protocol, ProtocolFamily};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM101",
    name: "port-treated-as-tcp",
    severity: Severity::Error,
    needs: &[],
    istio_code: None,
    summary: "gRPC on a port that Istio takes for TCP: one connection, one pod",
    docs: "\
## What it looks for
A port with signs of gRPC whose name, `appProtocol` or number makes Istio treat it as TCP, TLS, HTTPS or one of the
database protocols.

## Why it matters for gRPC
gRPC keeps one HTTP/2 connection open and sends all calls through it. On a TCP port the proxy balances connections, not
calls: all calls of one client go to one pod. `http` rules of VirtualServices, retries, timeouts, mirroring and
per-method authorization do nothing there, and nobody says so.

## Example
```yaml
ports:
- name: tcp-grpc        # the text before the first dash decides: tcp
  port: 50051
```

## Repair
```yaml
ports:
- name: grpc
  port: 50051
```

## References
- Seen on a real mesh: `tests/lab/effects/GM101.yaml`.
- Istio: `pkg/config/kube/conversion.go` (ConvertProtocol), `pkg/config/protocol/instance.go` (IsTCP).
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
            // TLS to a host outside the mesh is the client's own; no plain name could replace it.
            if encrypted && matches!(port.decided_by, DecidedBy::EntryProtocol(_)) {
                continue;
            }
            let effect = if encrypted {
                "the proxy passes encrypted bytes: all calls of one connection go to one pod; http rules, retries and \
                 timeouts do nothing. That is right only if the application must do TLS itself"
            } else {
                "all calls of one connection go to one pod; http rules, retries and timeouts do nothing"
            };
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!("port {} carries gRPC but Istio takes it for {}", port.title(), port.protocol))
                .impact(effect)
                .evidence(std::iter::once(format!("{} decided: {}", port.decided_by, port.protocol.as_str())))
                .evidence(&port.evidence)
                .fix(port.as_grpc());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, istio, pod, service};

    #[test]
    fn names_numbers_and_app_protocols_that_mean_tcp_are_reported() {
        check(&RULE, &service("a", "{name: tcp-grpc, port: 50051}"), &["error Service shop/a spec.ports[0].name"]);
        check(&RULE, &service("a", "{name: tls-grpc, port: 50051}"), &["error Service shop/a spec.ports[0].name"]);
        check(&RULE, &service("a", "{name: my_grpc, port: 3306}"), &["error Service shop/a spec.ports[0].name"]);
        check(
            &RULE,
            &service("a", "{name: grpc, port: 50051, appProtocol: tcp}"),
            &["error Service shop/a spec.ports[0].appProtocol"],
        );
    }

    #[test]
    fn a_route_with_grpc_retry_words_is_evidence() {
        let route =
            "{hosts: [a], http: [{route: [{destination: {host: a}}], retries: {attempts: 1, retryOn: unavailable}}]}";
        check(
            &RULE,
            &(service("a", "{name: tcp, port: 50051}") + &istio("VirtualService", "a", route)),
            &["error Service shop/a spec.ports[0].name"],
        );
    }

    #[test]
    fn tcp_without_signs_of_grpc_and_named_grpc_are_silent() {
        check(&RULE, &(service("a", "{name: tcp, port: 50051}") + &pod("a", "v1")), &[]);
        check(&RULE, &service("a", "{name: grpc, port: 50051}"), &[]);
        check(&RULE, &service("redis", "{name: tcp-redis, port: 6379}"), &[]);
    }
}
