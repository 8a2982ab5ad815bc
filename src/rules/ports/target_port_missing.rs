//! GM110: a `targetPort` that the pods do not have.

use crate::mesh::Mesh;
use crate::mesh::service::TargetPort;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM110",
    name: "target-port-missing",
    severity: Severity::Error,
    needs: &[Kind::Pod],
    istio_code: None,
    summary: "A targetPort that no selected pod has",
    docs: "\
## What it looks for
A named `targetPort` that no container of the selected pods declares (error). For gRPC ports also a number that no
container declares (info: declarations are optional, so the server may listen all the same).

## Why it matters for gRPC
A name that resolves to nothing gives the Service no endpoints: calls fail with UNAVAILABLE and the flag `UH`.

## Example
```yaml
kind: Service
spec: {ports: [{name: grpc, port: 50051, targetPort: grpc-api}]}
---
kind: Pod
spec: {containers: [{ports: [{name: grpc, containerPort: 50051}]}]}
```

## Repair
```yaml
ports:
- name: grpc
  port: 50051
  targetPort: grpc
```

## References
- Seen on a real mesh: `tests/lab/effects/GM110.yaml`.
- Kubernetes: the EndpointSlice controller leaves out pods without the named port.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in mesh.services.iter().filter(|service| !service.workloads.is_empty()) {
        for port in &service.ports {
            match &port.target {
                TargetPort::Name(name) => {
                    let has = |wanted: &str| {
                        mesh.workloads_of(service).any(|w| w.ports.iter().any(|p| p.name.as_deref() == Some(wanted)))
                    };
                    if has(name) {
                        continue;
                    }
                    let mut known: Vec<_> = mesh
                        .workloads_of(service)
                        .flat_map(|workload| workload.ports.iter().filter(|port| !port.of_proxy))
                        .map(|port| match &port.name {
                            Some(name) => format!("{name} ({})", port.number),
                            None => port.number.to_string(),
                        })
                        .collect();
                    known.sort();
                    known.dedup();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    let nearest = known.split(' ').next().unwrap_or_default().to_owned();
                    let finding = Finding::new(&RULE, &service.object, port.field("targetPort"))
                        .message(format!(
                            "no pod has a container port named \"{name}\", which port {} leads to",
                            port.title()
                        ))
                        .impact("the port has no endpoints: calls fail with UNAVAILABLE (flag UH)")
                        .evidence([format!("declared container ports: {known}")])
                        .fix(format!("ports:\n- port: {}\n  targetPort: {nearest}", port.number));
                    out.add(&RULE, finding);
                }
                TargetPort::Number(number) => {
                    let declares_any = mesh.workloads_of(service).any(|w| w.ports.iter().any(|p| !p.of_proxy));
                    let declared = mesh.workloads_of(service).any(|w| w.ports.iter().any(|p| p.number == *number));
                    if port.evidence.is_empty() || declared || !declares_any {
                        continue;
                    }
                    let finding = Finding::new(&RULE, &service.object, port.field("targetPort"))
                        .severity(Severity::Info)
                        .message(format!("no container declares port {number}, which port {} leads to", port.title()))
                        .impact("none if the server listens there; else calls fail with UNAVAILABLE (flag UF)")
                        .fix(format!("containers:\n- ports:\n  - name: grpc\n    containerPort: {number}"));
                    out.add(&RULE, finding);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, pod, service};

    #[test]
    fn a_name_that_no_pod_has_is_an_error() {
        let yaml = service("a", "{name: grpc, port: 1, targetPort: rpc}") + &pod("a", "v1");
        check(&RULE, &yaml, &["error Service shop/a spec.ports[0].targetPort"]);
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn a_number_that_no_container_declares_is_info() {
        let yaml = service("a", "{name: grpc, port: 9999}") + &pod("a", "v1");
        check(&RULE, &yaml, &["info Service shop/a spec.ports[0].targetPort"]);
    }

    #[test]
    fn ports_that_exist_and_services_without_pods_are_silent() {
        check(&RULE, &(service("a", "{name: grpc, port: 1, targetPort: api}") + &pod("a", "v1")), &[]);
        check(&RULE, &(service("a", "{name: http, port: 9999}") + &pod("a", "v1")), &[]);
        check(&RULE, &service("a", "{name: grpc, port: 1, targetPort: rpc}"), &[]);
    }
}
