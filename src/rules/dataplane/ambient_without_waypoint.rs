//! GM716: ambient workloads behind a gRPC Service without a waypoint.

use crate::mesh::Mesh;
use crate::mesh::workload::ProxyKind;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM716",
    name: "ambient-without-waypoint",
    severity: Severity::Warning,
    needs: &[Kind::Namespace],
    istio_code: None,
    summary: "Ambient workloads of a gRPC Service without a waypoint: connections only",
    docs: "\
## What it looks for
A gRPC Service whose pods are in ambient mode, while neither the Service nor its namespace names a waypoint.

## Why it matters for gRPC
The node proxy sees connections, not calls: all calls of one connection go to one pod, and VirtualServices, retries,
timeouts and method authorization do nothing.

## Example
```yaml
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
```

## Repair
```sh
istioctl waypoint apply -n shop --enroll-namespace
```

## References
- Istio: label `istio.io/use-waypoint` on a namespace, Service or pod.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in mesh.services.iter().filter(|service| service.has_grpc() && service.is_kubernetes()) {
        let ambient = mesh
            .workloads_of(service)
            .filter(|workload| workload.proxy == ProxyKind::Ambient)
            .filter(|workload| workload.labels.get("istio.io/use-waypoint").is_none_or(|name| name == "none"))
            .count();
        if ambient == 0 || service.waypoint {
            continue;
        }
        let finding = Finding::new(&RULE, &service.object, "metadata.labels")
            .message(format!("the pods of {} are in ambient mode and no waypoint takes its calls", service.object))
            .impact("all calls of one connection go to one pod; routes, retries and timeouts do nothing")
            .evidence([format!("{ambient} ambient pods or workloads, no label istio.io/use-waypoint")])
            .fix(format!("istioctl waypoint apply -n {} --enroll-namespace", service.namespace()));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, pod, service};

    fn mesh(labels: &str) -> String {
        let ambient =
            pod("a", "v1").replace("metadata: {", "metadata: {annotations: {ambient.istio.io/redirection: enabled}, ");
        let (before, after) = ambient.split_once(", {name: istio-proxy").unwrap();
        let after = after.split_once("}]}").unwrap().1;
        format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{labels}}}}}\n")
            + &service("a", "{name: grpc, port: 1}")
            + &format!("{before}]}}{after}")
    }

    #[test]
    fn ambient_pods_without_a_waypoint_are_reported() {
        let yaml = mesh("istio.io/dataplane-mode: ambient");
        check(&RULE, &yaml, &["warning Service shop/a metadata.labels"]);
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn a_waypoint_and_sidecars_are_silent() {
        check(&RULE, &mesh("istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint"), &[]);
        check(&RULE, &(service("a", "{name: grpc, port: 1}") + &pod("a", "v1")), &[]);
    }
}
