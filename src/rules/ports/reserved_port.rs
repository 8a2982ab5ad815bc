//! GM109: a port that the proxy keeps for itself.

use crate::mesh::Mesh;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::RESERVED;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM109",
    name: "reserved-port",
    severity: Severity::Error,
    needs: &[],
    istio_code: None,
    summary: "A port that the proxy keeps for itself",
    docs: "\
## What it looks for
A Service port of the HTTP family numbered 15001, 15006, 15021 or 15090; and a container of a pod with a sidecar that
declares one of the proxy's own ports. Services of gateways carry 15021 rightly and are left alone.

## Why it matters for gRPC
istiod makes no outbound listener for such a Service port, so calls are not routed. A container that binds the proxy's
port fights with it: one of the two does not start.

## Example
```yaml
ports:
- name: grpc
  port: 15001
```

## Repair
```yaml
ports:
- name: grpc
  port: 50051
```

## References
- Istio: `pilot/pkg/networking/core/listener.go` (reserved ports); the injection template for the proxy's own ports.
- Seen on a real mesh: `tests/lab/effects/GM109.yaml`.
",
    check,
};

/// Ports that the proxy container binds.
const BOUND: [u16; 8] = [15000, 15001, 15004, 15006, 15020, 15021, 15053, 15090];

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in mesh.services.iter().filter(|service| service.object.kind == Kind::Service) {
        let of_gateway = mesh
            .workloads_of(service)
            .any(|workload| matches!(workload.proxy, ProxyKind::Gateway(_) | ProxyKind::Waypoint(_)));
        for port in &service.ports {
            if of_gateway || port.protocol.family() != ProtocolFamily::Http || !RESERVED.contains(&port.number) {
                continue;
            }
            let finding = Finding::new(&RULE, &service.object, port.field("port"))
                .message(format!("port {} is one that the proxy keeps for itself", port.title()))
                .impact("callers' proxies have no listener for it: calls are not routed")
                .fix(format!("ports:\n- name: {}\n  port: 50051", port.name.as_deref().unwrap_or("grpc")));
            out.add(&RULE, finding);
        }
    }
    let mut told = std::collections::BTreeSet::new();
    for workload in &mesh.workloads {
        if !matches!(workload.proxy, ProxyKind::Sidecar(_) | ProxyKind::WillBeInjected) {
            continue;
        }
        for port in workload.ports.iter().filter(|port| !port.of_proxy && BOUND.contains(&port.number)) {
            if !told.insert((workload.namespace().clone(), workload.title(), port.number)) {
                continue;
            }
            let finding = Finding::new(&RULE, &workload.object, "spec")
                .message(format!(
                    "a container of {} declares port {}, which its proxy binds",
                    workload.title(),
                    port.number
                ))
                .impact("one of the two cannot bind the port: the pod does not get ready, or its proxy does not answer")
                .evidence([format!("containerPort {}", port.number)])
                .fix("move the application to another port".to_owned());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, pod, service};

    #[test]
    fn reserved_ports_of_services_and_containers_are_reported() {
        check(&RULE, &service("a", "{name: grpc, port: 15001}"), &["error Service shop/a spec.ports[0].port"]);
        check(
            &RULE,
            &pod("a", "v1").replace("containerPort: 50051", "containerPort: 15021"),
            &["error Pod shop/a-v1 spec"],
        );
    }

    #[test]
    fn gateways_status_ports_and_other_ports_are_silent() {
        let gateway = pod("gw", "v1").replace("[proxy, sidecar]", "[proxy, router]");
        check(&RULE, &(service("gw", "{name: http-status, port: 15021}") + &gateway), &[]);
        check(&RULE, &service("gw", "{name: status-port, port: 15021}"), &[]);
        check(&RULE, &(service("a", "{name: grpc, port: 50051}") + &pod("a", "v1")), &[]);
    }
}
