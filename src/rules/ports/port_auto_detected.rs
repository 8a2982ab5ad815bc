//! GM102: gRPC on a port whose protocol is left to detection.

use crate::mesh::Mesh;
use crate::mesh::protocol::{DecidedBy, Protocol};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM102",
    name: "port-auto-detected",
    severity: Severity::Warning,
    needs: &[],
    istio_code: Some("IST0118"),
    summary: "gRPC on a port whose protocol is left to detection",
    docs: "\
## What it looks for
A port with signs of gRPC whose name says nothing to Istio (`api`, `grpc_api`, `rpc`) and that has no `appProtocol`.

## Why it matters for gRPC
Detection recognises plain-text HTTP/2, so calls between sidecars are balanced. What is lost against `grpc`:
- a gateway speaks HTTP/1.1 to such a port, so gRPC from outside fails;
- `maxConcurrentStreams` and `http2KeepAlive` of a DestinationRule are not applied;
- routing goes by the Service's address, whatever `:authority` says, and rules for hosts outside the registry are lost;
- authorization by method acts only on connections that were detected as HTTP.

## Example
```yaml
ports:
- name: api
  port: 50051
```

## Repair
```yaml
ports:
- name: grpc-api
  port: 50051
```

## References
- Seen on a real mesh: `tests/lab/effects/GM102.yaml`.
- Istio: `pilot/pkg/networking/core/httproute.go`, `cluster_builder.go` (setUpstreamProtocol).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in &mesh.services {
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            let silent = matches!(
                port.decided_by,
                DecidedBy::UnknownName(_)
                    | DecidedBy::NoName
                    | DecidedBy::NoEntryProtocol
                    | DecidedBy::UnknownEntryProtocol(_)
            );
            if port.protocol != Protocol::Auto || !silent {
                continue;
            }
            let fix = match (&port.decided_by, &port.name) {
                (DecidedBy::UnknownName(_), Some(name))
                    if !name.is_empty() && !crate::mesh::evidence::mentions_grpc(name) =>
                {
                    format!("ports:\n- name: grpc-{name}\n  port: {}", port.number)
                }
                _ => port.as_grpc(),
            };
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!("port {} carries gRPC but its protocol is left to detection", port.title()))
                .impact(
                    "gateways speak HTTP/1.1 to it, so gRPC from outside fails; maxConcurrentStreams and keep-alive \
                     settings are not applied",
                )
                .evidence(std::iter::once(&port.decided_by))
                .evidence(&port.evidence)
                .fix(fix);
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, istio, pod, service};

    #[test]
    fn names_that_say_nothing_are_reported_where_grpc_is_used() {
        check(&RULE, &service("a", "{name: grpc_api, port: 1}"), &["warning Service shop/a spec.ports[0].name"]);
        let probed = pod("a", "v1")
            .replace("containerPort: 50051}]", "containerPort: 50051}], readinessProbe: {grpc: {port: 50051}}");
        check(
            &RULE,
            &(service("a", "{port: 80, targetPort: 50051}") + &probed),
            &["warning Service shop/a spec.ports[0].name"],
        );
        let entry = istio("ServiceEntry", "e", "{hosts: [x.example.com], ports: [{number: 1, name: grpc}]}");
        check(&RULE, &entry, &["warning ServiceEntry shop/e spec.ports[0].protocol"]);
    }

    #[test]
    fn without_signs_of_grpc_it_is_silent() {
        check(&RULE, &service("a", "{name: api, port: 1}"), &[]);
        check(&RULE, &service("a", "{name: grpc, port: 1}"), &[]);
    }

    #[test]
    fn an_unknown_app_protocol_is_another_rules_business() {
        check(&RULE, &service("a", "{name: grpc, appProtocol: h2, port: 1}"), &[]);
    }
}
