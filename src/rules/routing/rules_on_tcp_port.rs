//! GM209: HTTP rules for a host whose ports Istio treats as TCP.

use crate::mesh::Mesh;
use crate::mesh::ids::Host;
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::ServicePort;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM209",
    name: "rules-on-tcp-port",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "HTTP rules for a host whose ports Istio treats as TCP: the rules have no effect",
    docs: "\
## What it looks for
`http` rules of a mesh VirtualService for a Service whose ports are all of the TCP family. If every rule matches on
`port`, only those ports are considered.

## Why it matters for gRPC
A TCP listener handles connections, not calls. Routes, weights, timeouts, retries and faults of `http` rules have no
effect there, and neither Istio nor Envoy reports that. All calls of a connection go to one pod.

## Example
```yaml
kind: Service
spec: {ports: [{name: tcp-api, port: 50051}]}
---
kind: VirtualService
spec: {hosts: [checkout], http: [{timeout: 2s, route: […]}]}
```

## Fix
```yaml
ports: [{name: grpc-api, port: 50051}]
```

## References
- Verified on a real mesh: `tests/lab/effects/GM209.yaml`.
- Istio source: `pilot/pkg/networking/core/listener.go`. Verified against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter().filter(|(_, object)| object.acts_in_mesh()) {
        if object.spec.http.is_empty() {
            continue;
        }
        let matches = || object.spec.http.iter().flat_map(|rule| &rule.matches);
        let every_rule_matches_ports = object
            .spec
            .http
            .iter()
            .all(|rule| !rule.matches.is_empty() && rule.matches.iter().all(|condition| condition.port.is_some()));
        for host in &object.hosts {
            let Some(service) = mesh.find_host(host.as_str()).map(|id| mesh.service(id)) else { continue };
            let is_matched = |port: &&ServicePort| {
                !every_rule_matches_ports || matches().any(|condition| condition.port == Some(u32::from(port.number)))
            };
            let ports: Vec<&ServicePort> = service.ports.iter().filter(is_matched).collect();
            let Some(first) = ports.first() else { continue };
            if ports.iter().any(|port| port.protocol.family() != ProtocolFamily::Tcp) {
                continue;
            }
            let protocols: Vec<String> = ports
                .iter()
                .map(|port| format!("port {} is {}, decided by {}", port.title(), port.protocol, port.decided_by))
                .collect();
            let finding = Finding::new(&RULE, &object.object, "spec.http")
                .message(format!(
                    "{} has http rules for {}, whose ports Istio treats as TCP",
                    object.object,
                    mesh.short_host(host)
                ))
                .impact("the rules have no effect: all calls of a connection go to one pod")
                .evidence(protocols)
                .depends_on([service.namespace()])
                .fix(fix(first, host));
            out.add(&RULE, finding);
        }
    }
}

/// A declaration of the port as gRPC is right only if its clients speak plaintext gRPC. Clients that start TLS themselves,
/// or that speak another protocol, would fail.
fn fix(port: &ServicePort, host: &Host) -> String {
    if matches!(port.protocol, Protocol::Https | Protocol::Tls) {
        return format!(
            "# clients of this port start TLS themselves: remove spec.http, or route by server name\ntls:\n- match: [{{port: \
             {}, sniHosts: [\"{host}\"]}}]\n  route:\n  - destination: {{host: \"{host}\"}}",
            port.number
        );
    }
    if port.evidence.is_empty() {
        return format!(
            "# without evidence of gRPC on the port: remove spec.http, or route connections\ntcp:\n- match: [{{port: {}}}]\n  \
             route:\n  - destination: {{host: \"{host}\"}}",
            port.number
        );
    }
    port.grpc_port_yaml()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(port: &str) -> String {
        service("a", port)
            + &istio("VirtualService", "r", "{hosts: [a], http: [{timeout: 2s, route: [{destination: {host: a}}]}]}")
    }

    #[test]
    fn reports_http_rules_on_tcp_ports() {
        assert_findings(&RULE, &mesh("{name: tcp-api, port: 1}"), &["error VirtualService shop/r spec.http"]);
        assert_undecided_on_gap(&RULE, &mesh("{name: tcp-api, port: 1}"));
    }

    #[test]
    fn is_silent_when_any_port_is_http_or_auto_detected() {
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}"), &[]);
        assert_findings(&RULE, &mesh("{name: api, port: 1}"), &[]);
        assert_findings(&RULE, &mesh("{name: tcp-api, port: 1}, {name: grpc, port: 2}"), &[]);
    }
}
