//! GM216: a destination's port that its Service does not have.

use super::{Finding, Findings, Rule, Severity};
use crate::mesh::Mesh;
use crate::mesh::route::Action;
use crate::mesh::service::TargetPort;
use crate::schema::Kind;

pub(super) static RULE: Rule = Rule {
    code: "GM216",
    name: "destination-port-unknown",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: None,
    summary: "A destination's port that its Service does not have",
    docs: "\
## What it looks for
A destination of a VirtualService whose `port.number` is no port of the Service: often the pod's port instead of the
Service's.

## Why it matters for gRPC
Clusters are made of the Service's ports: this one does not exist, so calls fail with UNAVAILABLE, flag `NC`.

## Example
```yaml
destination: {host: checkout, port: {number: 8080}}     # the Service: {port: 50051, targetPort: 8080}
```

## Repair
```yaml
destination: {host: checkout, port: {number: 50051}}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM216.yaml`.
- From Istio's code: `pilot/pkg/networking/core/route/route.go` (`GetDestinationCluster`); pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let Action::Forward(targets) = &rule.action else { continue };
            for target in targets {
                let Some(wanted) = target.port else { continue };
                let entries: Vec<_> =
                    mesh.services_named(target.host.as_str()).iter().map(|id| mesh.service(*id)).collect();
                let ports: Vec<_> = entries.iter().flat_map(|entry| &entry.ports).collect();
                if ports.is_empty() || ports.iter().any(|port| u32::from(port.number) == wanted) {
                    continue;
                }
                let of_pods = ports
                    .iter()
                    .find(|port| matches!(port.target, TargetPort::Number(number) if u32::from(number) == wanted));
                let right = of_pods.unwrap_or(&ports[0]).number;
                let listed: Vec<_> = ports.iter().map(|port| port.title()).collect();
                let finding = Finding::new(&RULE, &object.object, format!("{}.destination.port.number", target.field))
                    .message(format!("{} has no port {wanted}", mesh.short_host(&target.host)))
                    .effect("calls that take this route fail with UNAVAILABLE (flag NC, no such cluster)")
                    .evidence([format!("its ports: {}", listed.join(", "))])
                    .evidence(of_pods.map(|port| format!("{wanted} is the pods' port behind {}", port.title())))
                    .rests_on(entries.iter().map(|entry| entry.namespace()))
                    .fix(format!("destination:\n  host: {}\n  port: {{number: {right}}}", target.host));
                out.add(&RULE, finding);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_gap, findings, istio, service};
    use super::*;

    fn mesh(port: u32) -> String {
        let rule =
            format!("{{hosts: [a], http: [{{route: [{{destination: {{host: a, port: {{number: {port}}}}}}}]}}]}}");
        service("a", "{name: grpc, port: 50051, targetPort: 8080}") + &istio("VirtualService", "r", &rule)
    }

    #[test]
    fn the_port_of_the_pods_is_told() {
        check(&RULE, &mesh(8080), &["error VirtualService shop/r spec.http[0].route[0].destination.port.number"]);
        assert!(findings(&RULE, &mesh(8080))[0].evidence[1].contains("pods' port"));
        check_gap(&RULE, &mesh(8080));
    }

    #[test]
    fn ports_of_the_service_and_unknown_hosts_are_silent() {
        check(&RULE, &mesh(50051), &[]);
        check(&RULE, &mesh(1).replace("{host: a,", "{host: b,"), &[]);
    }
}
