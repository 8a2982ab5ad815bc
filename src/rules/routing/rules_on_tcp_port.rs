//! GM209: HTTP rules for a host whose ports carry bytes.

use crate::mesh::Mesh;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::service::ServicePort;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM209",
    name: "rules-on-tcp-port",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "HTTP rules for a host whose port is taken for TCP: none of them acts",
    docs: "\
## What it looks for
`http` rules of a mesh VirtualService for a Service whose ports (those that the rules are for) are all of the TCP family.

## Why it matters for gRPC
A TCP listener sees connections, not calls. Rules, weights, timeouts, retries and faults need calls: none of them acts,
and nothing says so. One connection goes to one pod.

## Example
```yaml
kind: Service
spec: {ports: [{name: tcp-api, port: 50051}]}
---
kind: VirtualService
spec: {hosts: [checkout], http: [{timeout: 2s, route: […]}]}
```

## Repair
```yaml
ports: [{name: grpc-api, port: 50051}]
```

## References
- Seen on a real mesh: `tests/lab/effects/GM209.yaml`.
- From Istio's code: `pilot/pkg/networking/core/listener.go`; pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter().filter(|(_, object)| object.acts_in_mesh()) {
        if object.spec.http.is_empty() {
            continue;
        }
        let matches = || object.spec.http.iter().flat_map(|rule| &rule.matches);
        let every_rule_names_ports = object
            .spec
            .http
            .iter()
            .all(|rule| !rule.matches.is_empty() && rule.matches.iter().all(|one| one.port.is_some()));
        for host in &object.hosts {
            let Some(service) = mesh.find_host(host.as_str()).map(|id| mesh.service(id)) else { continue };
            let meant = |port: &&ServicePort| {
                !every_rule_names_ports || matches().any(|one| one.port == Some(u32::from(port.number)))
            };
            let ports: Vec<&ServicePort> = service.ports.iter().filter(meant).collect();
            if ports.is_empty() || ports.iter().any(|port| port.protocol.family() != ProtocolFamily::Tcp) {
                continue;
            }
            let named: Vec<String> = ports
                .iter()
                .map(|port| {
                    format!("port {}: {}, decided by {}", port.title(), port.protocol.as_str(), port.decided_by)
                })
                .collect();
            let finding = Finding::new(&RULE, &object.object, "spec.http")
                .message(format!("{} has no port on which calls are seen", mesh.short_host(host)))
                .impact("none of the rules acts: connections are passed on as bytes, each to one pod")
                .evidence(named)
                .rests_on([service.namespace()])
                .fix(ports[0].as_grpc());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(port: &str) -> String {
        service("a", port)
            + &istio("VirtualService", "r", "{hosts: [a], http: [{timeout: 2s, route: [{destination: {host: a}}]}]}")
    }

    #[test]
    fn rules_for_bytes_are_an_error() {
        check(&RULE, &mesh("{name: tcp-api, port: 1}"), &["error VirtualService shop/r spec.http"]);
        check_gap(&RULE, &mesh("{name: tcp-api, port: 1}"));
    }

    #[test]
    fn calls_detection_and_other_ports_are_silent() {
        check(&RULE, &mesh("{name: grpc, port: 1}"), &[]);
        check(&RULE, &mesh("{name: api, port: 1}"), &[]);
        check(&RULE, &mesh("{name: tcp-api, port: 1}, {name: grpc, port: 2}"), &[]);
    }
}
