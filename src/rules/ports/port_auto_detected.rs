//! GM102: gRPC on a port whose protocol Istio auto-detects.

use crate::mesh::Mesh;
use crate::mesh::protocol::{DecidedBy, Protocol};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM102",
    name: "port-auto-detected",
    severity: Severity::Warning,
    needs: &[],
    istio_code: Some("IST0118"),
    summary: "gRPC on a port whose protocol Istio auto-detects",
    docs: "\
## What it looks for
A port with gRPC evidence, without `appProtocol`, whose name does not begin with a protocol that Istio knows (`api`,
`grpc_api`, `rpc`). Also a ServiceEntry port without a known protocol.

## Why it matters for gRPC
Auto-detection recognizes plaintext HTTP/2, so calls between sidecars are balanced per call. Compared with a port that
declares `grpc`:
- a gateway sends HTTP/1.1 to the port, so gRPC calls from outside the mesh fail with UNAVAILABLE;
- `maxConcurrentStreams` and `http2KeepAlive` of a DestinationRule are not applied;
- calls are routed by the address of the Service, not by `:authority`, and rules for hosts outside the registry are
  ignored;
- authorization by method applies only to connections that are detected as HTTP.

## Example
```yaml
ports:
- name: api
  port: 50051
```

## Fix
```yaml
ports:
- name: grpc-api
  port: 50051
```

## References
- Verified on a real mesh: `tests/lab/effects/GM102.yaml`.
- Istio source: `pilot/pkg/networking/core/httproute.go`, `cluster_builder.go` (setUpstreamProtocol).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in &mesh.services {
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            let is_undeclared = matches!(
                port.decided_by,
                DecidedBy::UnknownName(_)
                    | DecidedBy::NoName
                    | DecidedBy::NoEntryProtocol
                    | DecidedBy::UnknownEntryProtocol(_)
            );
            if port.protocol != Protocol::Auto || !is_undeclared {
                continue;
            }
            let fix = match (&port.decided_by, &port.name) {
                (DecidedBy::UnknownName(_), Some(name))
                    if !name.is_empty() && !crate::mesh::evidence::mentions_grpc(name) =>
                {
                    format!("ports:\n- name: grpc-{name}\n  port: {}", port.number)
                }
                _ => port.grpc_port_yaml(),
            };
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!("port {} is used for gRPC, but Istio auto-detects its protocol", port.title()))
                .impact(
                    "gRPC calls through a gateway fail with UNAVAILABLE because it sends HTTP/1.1 to the port; \
                     maxConcurrentStreams and http2KeepAlive are not applied",
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
    use crate::rules::testing::{assert_findings, istio, pod, service};

    #[test]
    fn reports_ports_with_grpc_evidence_and_no_declared_protocol() {
        assert_findings(
            &RULE,
            &service("a", "{name: grpc_api, port: 1}"),
            &["warning Service shop/a spec.ports[0].name"],
        );
        let probed = pod("a", "v1")
            .replace("containerPort: 50051}]", "containerPort: 50051}], readinessProbe: {grpc: {port: 50051}}");
        assert_findings(
            &RULE,
            &(service("a", "{port: 80, targetPort: 50051}") + &probed),
            &["warning Service shop/a spec.ports[0].name"],
        );
        let entry = istio("ServiceEntry", "e", "{hosts: [x.example.com], ports: [{number: 1, name: grpc}]}");
        assert_findings(&RULE, &entry, &["warning ServiceEntry shop/e spec.ports[0].protocol"]);
    }

    #[test]
    fn is_silent_without_grpc_evidence_and_on_declared_ports() {
        assert_findings(&RULE, &service("a", "{name: api, port: 1}"), &[]);
        assert_findings(&RULE, &service("a", "{name: grpc, port: 1}"), &[]);
    }

    #[test]
    fn leaves_unknown_app_protocols_to_gm103() {
        assert_findings(&RULE, &service("a", "{name: grpc, appProtocol: h2, port: 1}"), &[]);
    }
}
