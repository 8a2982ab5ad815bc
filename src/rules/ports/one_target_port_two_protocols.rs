//! GM108: two Services, or two ports of one Service, give one pod port different protocols.

use std::collections::{BTreeMap, BTreeSet};

use crate::mesh::Mesh;
use crate::mesh::ids::{ServiceId, WorkloadId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM108",
    name: "one-target-port-two-protocols",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: Some("IST0137"),
    summary: "Two Services or ports declare different protocols for one pod port",
    docs: "\
## What it looks for
Two ports, of one Service or of two, that target the same port of the same pods with different protocols, when one of
them is used for gRPC.

## Why it matters for gRPC
The server's proxy has one listener per pod port, and one protocol for it: that of the oldest Service, or of the first
port inside one Service. Calls through the other port are handled with the wrong protocol. If `tcp` wins over `grpc`,
the server's proxy no longer sees calls, so authorization by method has no effect. If `http` is declared beside `grpc`,
calls through the `http` port leave the caller as HTTP/1.1 and fail.

## Example
```yaml
kind: Service
metadata: {name: checkout}
spec: {ports: [{name: grpc, port: 50051}]}
---
kind: Service
metadata: {name: checkout-old}
spec: {ports: [{name: tcp, port: 50051}]}     # same pods, same port
```

## Fix
Give both ports the same protocol, `grpc`, or remove one of them:
```yaml
ports: [{name: grpc, port: 50051}]
```

## References
- Verified on a real mesh: `tests/lab/effects/GM108.yaml`.
- Istio source: `pilot/pkg/model/context.go`, `pilot/pkg/networking/core/listener_inbound.go`.
",
    check,
};

/// Protocols that a proxy handles in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ProtocolClass {
    Http2,
    Http1,
    Auto,
    Tcp,
}

fn protocol_class(protocol: Protocol) -> Option<ProtocolClass> {
    match protocol.family() {
        ProtocolFamily::Http if protocol.is_http2() => Some(ProtocolClass::Http2),
        ProtocolFamily::Http => Some(ProtocolClass::Http1),
        ProtocolFamily::Auto => Some(ProtocolClass::Auto),
        ProtocolFamily::Tcp => Some(ProtocolClass::Tcp),
        ProtocolFamily::NoListener => None,
    }
}

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut ports: BTreeMap<(WorkloadId, u16), Vec<(ServiceId, usize)>> = BTreeMap::new();
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        for workload_id in &service.workloads {
            let workload = mesh.workload(*workload_id);
            for (index, port) in service.ports.iter().enumerate() {
                if let Some(number) = port.target.number_in(workload) {
                    ports.entry((*workload_id, number)).or_default().push((id, index));
                }
            }
        }
    }
    let mut reported = BTreeSet::new();
    for ((_, number), users) in ports {
        if users.len() < 2 || !reported.insert(users.clone()) {
            continue;
        }
        report_conflict(mesh, number, users, out);
    }
}

#[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
fn report_conflict(mesh: &Mesh<'_>, number: u16, mut users: Vec<(ServiceId, usize)>, out: &mut Findings<'_>) {
    // istiod uses the oldest Service, then the one whose host sorts first; inside a Service, the first port.
    users.sort_by_key(|(id, index)| {
        let service = mesh.service(*id);
        (service.created.clone(), service.host.clone(), *index)
    });
    let port = |(id, index): (ServiceId, usize)| &mesh.service(id).ports[index];
    let uses_grpc = users.iter().any(|user| !port(*user).evidence.is_empty() || port(*user).protocol.is_http2());
    let Some(winner) = users.iter().copied().find(|user| protocol_class(port(*user).protocol).is_some()) else {
        return;
    };
    if !uses_grpc {
        return;
    }
    let winning = mesh.service(winner.0);
    for loser in users.iter().copied() {
        let differs = protocol_class(port(loser).protocol)
            .is_some_and(|loser| Some(loser) != protocol_class(port(winner).protocol));
        if !differs {
            continue;
        }
        let losing = mesh.service(loser.0);
        let has_ages = winning.created.is_some() && losing.created.is_some();
        let reason = if winner.0 == loser.0 {
            "it is the first of the Service"
        } else if has_ages {
            "its Service is older"
        } else {
            "the source has no creation times, so this assumes that the Services have the same age"
        };
        let finding = Finding::new(&RULE, &losing.object, port(loser).deciding_field())
            .message(format!(
                "port {} declares {} for pod port {number}, but port {} of {} declares {}",
                port(loser).title(),
                port(loser).protocol,
                port(winner).title(),
                winning.object,
                port(winner).protocol,
            ))
            .impact(format!(
                "the server's proxy handles pod port {number} as {}: calls through port {} can fail or lose \
                 authorization by method",
                port(winner).protocol,
                port(loser).title()
            ))
            .evidence([format!("port {} of {} takes precedence: {reason}", port(winner).title(), winning.object)])
            .evidence(port(winner).evidence.iter().chain(&port(loser).evidence))
            .fix(format!("ports:\n- name: grpc   # the same protocol for both ports\n  port: {}", port(loser).number));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, pod, service};

    fn two_services(first: &str, second: &str) -> String {
        service("a", first) + &service("b", second).replace("app: b", "app: a") + &pod("a", "v1")
    }

    #[test]
    fn reports_two_services_that_declare_different_protocols() {
        let yaml = two_services("{name: grpc, port: 50051}", "{name: tcp, port: 80, targetPort: 50051}");
        assert_findings(&RULE, &yaml, &["error Service shop/b spec.ports[0].name"]);
        assert_undecided_on_gap(&RULE, &yaml);
        assert_findings(
            &RULE,
            &two_services("{name: grpc, port: 50051}", "{name: http, port: 50051}"),
            &["error Service shop/b spec.ports[0].name"],
        );
        assert_findings(
            &RULE,
            &two_services("{name: grpc, port: 50051}", "{name: x, port: 1, targetPort: api}"),
            &["error Service shop/b spec.ports[0].name"],
        );
    }

    #[test]
    fn reports_two_ports_of_one_service_that_declare_different_protocols() {
        let yaml = service("a", "{name: tcp, port: 1, targetPort: 50051}, {name: grpc, port: 50051}") + &pod("a", "v1");
        assert_findings(&RULE, &yaml, &["error Service shop/a spec.ports[1].name"]);
    }

    #[test]
    fn the_older_service_wins() {
        let yaml = two_services("{name: grpc, port: 50051}", "{name: tcp, port: 50051}")
            .replace("name: b}", "name: b, creationTimestamp: '2020-01-01T00:00:00Z'}")
            .replace("name: a}\nspec: {sel", "name: a, creationTimestamp: '2021-01-01T00:00:00Z'}\nspec: {sel");
        assert_findings(&RULE, &yaml, &["error Service shop/a spec.ports[0].name"]);
    }

    #[test]
    fn is_silent_on_equal_protocols_and_on_different_pod_ports() {
        assert_findings(&RULE, &two_services("{name: grpc, port: 50051}", "{name: http2, port: 50051}"), &[]);
        assert_findings(&RULE, &two_services("{name: grpc, port: 50051}", "{name: tcp, port: 9090}"), &[]);
        assert_findings(&RULE, &two_services("{name: http, port: 80}", "{name: tcp, port: 80}"), &[]);
        assert_findings(
            &RULE,
            &two_services("{name: grpc, port: 50051}", "{name: dns, port: 50051, protocol: UDP}"),
            &[],
        );
    }
}
