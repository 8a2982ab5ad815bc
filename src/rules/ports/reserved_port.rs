//! GM109: a port that the sidecar reserves.

use crate::mesh::Mesh;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::RESERVED_PORTS;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM109",
    name: "reserved-port",
    severity: Severity::Error,
    needs: &[],
    istio_code: None,
    summary: "A Service port or container port that the sidecar reserves",
    docs: "\
## What it looks for
A Service port of the HTTP family numbered 15001, 15006, 15021 or 15090, and a container of a pod with a sidecar that
declares a port that the sidecar binds. Services of gateways need 15021 and are not reported.

## Why it matters for gRPC
istiod creates no outbound listener for such a Service port, so calls are not routed. A container cannot bind a port
that the sidecar has already bound, or the reverse: the pod does not become ready.

## Example
```yaml
ports:
- name: grpc
  port: 15001
```

## Fix
```yaml
ports:
- name: grpc
  port: 50051
```

## References
- Istio source: `pilot/pkg/networking/core/listener.go` (reserved ports); the injection template (ports of the sidecar).
- Verified on a real mesh: `tests/lab/effects/GM109.yaml`.
",
    check,
};

/// Ports that the istio-proxy container binds.
const PORTS_BOUND_BY_SIDECAR: [u16; 8] = [15000, 15001, 15004, 15006, 15020, 15021, 15053, 15090];

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in mesh.services.iter().filter(|service| service.object.kind == Kind::Service) {
        let is_gateway = mesh
            .workloads_of(service)
            .any(|workload| matches!(workload.proxy, ProxyKind::Gateway(_) | ProxyKind::Waypoint(_)));
        for port in &service.ports {
            if is_gateway || port.protocol.family() != ProtocolFamily::Http || !RESERVED_PORTS.contains(&port.number) {
                continue;
            }
            let finding = Finding::new(&RULE, &service.object, port.field_path("port"))
                .message(format!("port {} is reserved by the sidecar", port.title()))
                .impact(
                    "istiod creates no outbound listener for the port: calls are not routed or fail with UNAVAILABLE",
                )
                .fix(format!("ports:\n- name: {}\n  port: 50051", port.name.as_deref().unwrap_or("grpc")));
            out.add(&RULE, finding);
        }
    }
    let mut reported = std::collections::BTreeSet::new();
    for workload in &mesh.workloads {
        if !matches!(workload.proxy, ProxyKind::Sidecar(_) | ProxyKind::WillBeInjected) {
            continue;
        }
        for port in
            workload.ports.iter().filter(|port| !port.is_proxy_port && PORTS_BOUND_BY_SIDECAR.contains(&port.number))
        {
            if !reported.insert((workload.namespace().clone(), workload.title(), port.number)) {
                continue;
            }
            let finding = Finding::new(&RULE, &workload.object, "spec")
                .message(format!(
                    "a container of {} declares port {}, which its sidecar binds",
                    workload.title(),
                    port.number
                ))
                .impact("the container or the sidecar fails to start: the pod does not become ready")
                .evidence([format!("containerPort {}", port.number)])
                .fix(
                    "containers:\n- ports:\n  - containerPort: 50051   # the application must listen on it".to_owned(),
                );
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, pod, service};

    #[test]
    fn reports_reserved_ports_of_services_and_containers() {
        assert_findings(
            &RULE,
            &service("a", "{name: grpc, port: 15001}"),
            &["error Service shop/a spec.ports[0].port"],
        );
        assert_findings(
            &RULE,
            &pod("a", "v1").replace("containerPort: 50051", "containerPort: 15021"),
            &["error Pod shop/a-v1 spec"],
        );
    }

    #[test]
    fn is_silent_on_gateway_services_and_on_ports_that_are_not_reserved() {
        let gateway = pod("gw", "v1").replace("[proxy, sidecar]", "[proxy, router]");
        assert_findings(&RULE, &(service("gw", "{name: http-status, port: 15021}") + &gateway), &[]);
        assert_findings(&RULE, &service("gw", "{name: status-port, port: 15021}"), &[]);
        assert_findings(&RULE, &(service("a", "{name: grpc, port: 50051}") + &pod("a", "v1")), &[]);
    }
}
