//! GM108: one pod port to which two Services, or two ports, give different protocols.

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
    summary: "Two Services or ports give one pod port different protocols",
    docs: "\
## What it looks for
Two ports, of one Service or of several, that lead to the same port of the same pods with different protocols, where
one of them is used for gRPC.

## Why it matters for gRPC
The server's proxy has one listener for a pod port. The oldest Service decides how it reads the bytes; of two ports of
one Service the first decides. The other one's callers get the wrong treatment: with `tcp` in front, per-method
authorization and the server's own view of calls are gone; with `http` beside `grpc`, calls through the `http` port
leave the caller as HTTP/1.1 and fail.

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

## Repair
Give both ports the same protocol, `grpc`, or remove one.

## References
- Seen on a real mesh: `tests/lab/effects/GM108.yaml`.
- Istio: `pilot/pkg/model/context.go`, `pilot/pkg/networking/core/listener_inbound.go`.
",
    check,
};

/// Protocols that a proxy treats alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ProtocolClass {
    Http2,
    Http1,
    Auto,
    Tcp,
}

fn class(protocol: Protocol) -> Option<ProtocolClass> {
    match protocol.family() {
        ProtocolFamily::Http if protocol.is_http2() => Some(ProtocolClass::Http2),
        ProtocolFamily::Http => Some(ProtocolClass::Http1),
        ProtocolFamily::Auto => Some(ProtocolClass::Auto),
        ProtocolFamily::Tcp => Some(ProtocolClass::Tcp),
        ProtocolFamily::Nothing => None,
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
    let mut told = BTreeSet::new();
    for ((_, number), users) in ports {
        if users.len() < 2 || !told.insert(users.clone()) {
            continue;
        }
        conflict(mesh, number, users, out);
    }
}

fn conflict(mesh: &Mesh<'_>, number: u16, mut users: Vec<(ServiceId, usize)>, out: &mut Findings<'_>) {
    // The oldest Service decides, then the host's name; inside a Service the first port.
    users.sort_by_key(|(id, index)| {
        let service = mesh.service(*id);
        (service.created.clone(), service.host.clone(), *index)
    });
    let port = |(id, index): (ServiceId, usize)| &mesh.service(id).ports[index];
    let uses_grpc = users.iter().any(|user| !port(*user).evidence.is_empty() || port(*user).protocol.is_http2());
    let Some(winner) = users.iter().copied().find(|user| class(port(*user).protocol).is_some()) else { return };
    if !uses_grpc {
        return;
    }
    let winning = mesh.service(winner.0);
    for loser in users.iter().copied() {
        let differs = class(port(loser).protocol).is_some_and(|loser| Some(loser) != class(port(winner).protocol));
        if !differs {
            continue;
        }
        let losing = mesh.service(loser.0);
        let ages_known = winning.created.is_some() && losing.created.is_some();
        let why = if winner.0 == loser.0 {
            "it comes first"
        } else if ages_known {
            "it is older"
        } else {
            "the older one wins; ages are not in the source, so by name"
        };
        let finding = Finding::new(&RULE, &losing.object, port(loser).deciding_field())
            .message(format!(
                "pod port {number} is {} by port {} of this Service and {} by port {} of {}",
                port(loser).protocol,
                port(loser).title(),
                port(winner).protocol,
                port(winner).title(),
                winning.object,
            ))
            .impact(format!(
                "the server's proxy reads the port as {} ({why}); callers through the other port get a listener that does not fit",
                port(winner).protocol
            ))
            .evidence(port(winner).evidence.iter().chain(&port(loser).evidence))
            .fix("give both ports the same protocol, for gRPC `name: grpc`".to_owned());
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, pod, service};

    fn two(first: &str, second: &str) -> String {
        service("a", first) + &service("b", second).replace("app: b", "app: a") + &pod("a", "v1")
    }

    #[test]
    fn two_services_that_disagree_are_reported() {
        let yaml = two("{name: grpc, port: 50051}", "{name: tcp, port: 80, targetPort: 50051}");
        check(&RULE, &yaml, &["error Service shop/b spec.ports[0].name"]);
        check_gap(&RULE, &yaml);
        check(
            &RULE,
            &two("{name: grpc, port: 50051}", "{name: http, port: 50051}"),
            &["error Service shop/b spec.ports[0].name"],
        );
        check(
            &RULE,
            &two("{name: grpc, port: 50051}", "{name: x, port: 1, targetPort: api}"),
            &["error Service shop/b spec.ports[0].name"],
        );
    }

    #[test]
    fn two_ports_of_one_service_that_disagree_are_reported() {
        let yaml = service("a", "{name: tcp, port: 1, targetPort: 50051}, {name: grpc, port: 50051}") + &pod("a", "v1");
        check(&RULE, &yaml, &["error Service shop/a spec.ports[1].name"]);
    }

    #[test]
    fn the_older_service_wins() {
        let yaml = two("{name: grpc, port: 50051}", "{name: tcp, port: 50051}")
            .replace("name: b}", "name: b, creationTimestamp: '2020-01-01T00:00:00Z'}")
            .replace("name: a}\nspec: {sel", "name: a, creationTimestamp: '2021-01-01T00:00:00Z'}\nspec: {sel");
        check(&RULE, &yaml, &["error Service shop/a spec.ports[0].name"]);
    }

    #[test]
    fn agreeing_and_unrelated_ports_are_silent() {
        check(&RULE, &two("{name: grpc, port: 50051}", "{name: http2, port: 50051}"), &[]);
        check(&RULE, &two("{name: grpc, port: 50051}", "{name: tcp, port: 9090}"), &[]);
        check(&RULE, &two("{name: http, port: 80}", "{name: tcp, port: 80}"), &[]);
        check(&RULE, &two("{name: grpc, port: 50051}", "{name: dns, port: 50051, protocol: UDP}"), &[]);
    }
}
