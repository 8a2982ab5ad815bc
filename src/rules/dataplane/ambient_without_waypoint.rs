//! GM716: ambient workloads of a gRPC Service without a waypoint.

use crate::mesh::Mesh;
use crate::mesh::waypoint::USE_WAYPOINT_LABEL;
use crate::mesh::workload::ProxyKind;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM716",
    name: "ambient-without-waypoint",
    severity: Severity::Warning,
    needs: &[Kind::Namespace],
    istio_code: None,
    summary: "Ambient workloads of a gRPC Service without a waypoint: no load balancing per call",
    docs: "\
## What it looks for
A gRPC Service whose pods are in ambient mode, while neither the Service nor its namespace uses a waypoint.

## Why it matters for gRPC
ztunnel handles connections (layer 4), not calls. All calls of a connection go to one pod, and VirtualServices,
retries, timeouts and authorization by method have no effect.

## Example
```yaml
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
```

## Fix
```sh
istioctl waypoint apply -n shop --enroll-namespace
```

## References
- Istio: label `istio.io/use-waypoint` on a namespace, Service or pod.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in mesh.services.iter().filter(|service| service.has_grpc_evidence() && service.is_kubernetes()) {
        let ambient_count = mesh
            .workloads_of(service)
            .filter(|workload| workload.proxy == ProxyKind::Ambient)
            .filter(|workload| workload.labels.get(USE_WAYPOINT_LABEL).is_none_or(|name| name == "none"))
            .count();
        if ambient_count == 0 || service.waypoint.is_some() {
            continue;
        }
        let finding = Finding::new(&RULE, &service.object, "metadata.labels")
            .message(format!("the pods of {} are in ambient mode, and the Service has no waypoint", service.object))
            .impact("all calls of a connection go to one pod, and route rules, retries and timeouts have no effect")
            .evidence([format!("{ambient_count} ambient pods or workloads without the label istio.io/use-waypoint")])
            .fix(format!("istioctl waypoint apply -n {} --enroll-namespace", service.namespace()));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, pod, service};

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
    fn reports_ambient_pods_without_a_waypoint() {
        let yaml = mesh("istio.io/dataplane-mode: ambient");
        assert_findings(&RULE, &yaml, &["warning Service shop/a metadata.labels"]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn accepts_a_waypoint_and_sidecars() {
        assert_findings(&RULE, &mesh("istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint"), &[]);
        assert_findings(&RULE, &(service("a", "{name: grpc, port: 1}") + &pod("a", "v1")), &[]);
    }
}
