//! GM110: a `targetPort` that no selected pod declares.

use crate::mesh::Mesh;
use crate::mesh::service::{Service, ServicePort, TargetPort};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM110",
    name: "target-port-missing",
    severity: Severity::Error,
    needs: &[Kind::Pod],
    istio_code: None,
    summary: "A targetPort that no selected pod declares",
    docs: "\
## What it looks for
A named `targetPort` that no container of the selected pods declares (error). For gRPC ports also a number that no
container declares (info, because a container may listen on a port that it does not declare).

## Why it matters for gRPC
A named `targetPort` that matches no container port leaves the Service port without endpoints: every call fails with
UNAVAILABLE, response flag `UH`.

## Example
```yaml
kind: Service
spec: {ports: [{name: grpc, port: 50051, targetPort: grpc-api}]}
---
kind: Pod
spec: {containers: [{ports: [{name: grpc, containerPort: 50051}]}]}
```

## Fix
```yaml
ports:
- name: grpc
  port: 50051
  targetPort: grpc
```

## References
- Verified on a real mesh: `tests/lab/effects/GM110.yaml`.
- Kubernetes: the EndpointSlice controller omits pods without a port of that name.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in mesh.services.iter().filter(|service| !service.workloads.is_empty()) {
        for port in &service.ports {
            match &port.target {
                TargetPort::Name(name) => check_name(mesh, service, port, name, out),
                TargetPort::Number(number) => check_number(mesh, service, port, *number, out),
            }
        }
    }
}

fn check_name(mesh: &Mesh<'_>, service: &Service, port: &ServicePort, name: &str, out: &mut Findings<'_>) {
    let is_declared =
        mesh.workloads_of(service).any(|workload| workload.ports.iter().any(|port| port.name.as_deref() == Some(name)));
    if is_declared {
        return;
    }
    let mut declared: Vec<_> = mesh
        .workloads_of(service)
        .flat_map(|workload| workload.ports.iter().filter(|port| !port.is_proxy_port))
        .map(|port| match &port.name {
            Some(name) => format!("{name} ({})", port.number),
            None => port.number.to_string(),
        })
        .collect();
    declared.sort();
    declared.dedup();
    let declared = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
    let first = declared.split(' ').next().unwrap_or_default().to_owned();
    let finding = Finding::new(&RULE, &service.object, port.field_path("targetPort"))
        .message(format!(
            "port {} has targetPort \"{name}\", but no selected pod has a container port of that name",
            port.title()
        ))
        .impact("the port has no endpoints: every call fails with UNAVAILABLE (flag UH, no healthy upstream)")
        .evidence([format!("container ports of the selected pods: {declared}")])
        .fix(format!("ports:\n- port: {}\n  targetPort: {first}", port.number));
    out.add(&RULE, finding);
}

fn check_number(mesh: &Mesh<'_>, service: &Service, port: &ServicePort, number: u16, out: &mut Findings<'_>) {
    let has_declarations =
        mesh.workloads_of(service).any(|workload| workload.ports.iter().any(|port| !port.is_proxy_port));
    let is_declared =
        mesh.workloads_of(service).any(|workload| workload.ports.iter().any(|port| port.number == number));
    if port.evidence.is_empty() || is_declared || !has_declarations {
        return;
    }
    let finding = Finding::new(&RULE, &service.object, port.field_path("targetPort"))
        .severity(Severity::Info)
        .message(format!("port {} has targetPort {number}, which no container declares", port.title()))
        .impact("none if the server listens on that port; otherwise calls fail with UNAVAILABLE (flag UF)")
        .fix(format!("containers:\n- ports:\n  - name: grpc\n    containerPort: {number}"));
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, pod, service};

    #[test]
    fn reports_a_target_port_name_that_no_pod_declares() {
        let yaml = service("a", "{name: grpc, port: 1, targetPort: rpc}") + &pod("a", "v1");
        assert_findings(&RULE, &yaml, &["error Service shop/a spec.ports[0].targetPort"]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn reports_an_undeclared_target_port_number_as_info() {
        let yaml = service("a", "{name: grpc, port: 9999}") + &pod("a", "v1");
        assert_findings(&RULE, &yaml, &["info Service shop/a spec.ports[0].targetPort"]);
    }

    #[test]
    fn is_silent_on_declared_ports_and_on_services_without_pods() {
        assert_findings(&RULE, &(service("a", "{name: grpc, port: 1, targetPort: api}") + &pod("a", "v1")), &[]);
        assert_findings(&RULE, &(service("a", "{name: http, port: 9999}") + &pod("a", "v1")), &[]);
        assert_findings(&RULE, &service("a", "{name: grpc, port: 1, targetPort: rpc}"), &[]);
    }
}
