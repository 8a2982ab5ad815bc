//! GM217: a VirtualService that no caller gets.

use std::collections::BTreeSet;

use super::{Finding, Findings, Rule, Severity};
use crate::mesh::Mesh;
use crate::mesh::ids::Namespace;
use crate::mesh::service::Visibility;
use crate::mesh::virtual_service::VirtualService;
use crate::schema::Kind;
use crate::snapshot::SourceKind;

pub(super) static RULE: Rule = Rule {
    code: "GM217",
    name: "route-invisible",
    severity: Severity::Warning,
    needs: &[Kind::Pod],
    istio_code: None,
    summary: "A VirtualService that no caller sees: exportTo keeps it from all of them",
    docs: "\
## What it looks for
A VirtualService whose `exportTo` names no namespace in which a meshed pod runs, or, when it acts on gateways only, none
in which a pod of these gateways runs.

## Why it matters for gRPC
Nobody gets its routes, weights, timeouts and retries: calls go by other rules or the default route. `exportTo: [.]`
means callers in the object's own namespace, not the Service's.

## Example
```yaml
metadata: {namespace: shop}
spec: {exportTo: [.], gateways: [istio-system/ingress], hosts: [shop.example.com]}   # the gateway runs in istio-system
```

## Repair
```yaml
spec: {exportTo: [istio-system]}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM217.yaml`.
- From Istio's code: `pilot/pkg/model/push_context.go` (`initVirtualServices`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter().filter(|(_, object)| !object.hosts.is_empty()) {
        if object.export_to == Visibility::Public {
            continue;
        }
        let needing = needing(mesh, object);
        let own = &object.object.namespace;
        if needing.is_empty() || needing.iter().any(|namespace| object.export_to.reaches(namespace, own)) {
            continue;
        }
        // Manifests seldom hold all the pods.
        if mesh.snapshot.source == SourceKind::Manifests {
            out.undecided(&RULE);
            continue;
        }
        let named: Vec<&str> = needing.iter().map(Namespace::as_str).take(6).collect();
        let who = if object.acts_in_mesh() { "meshed pods run in" } else { "its gateways run in" };
        let finding = Finding::new(&RULE, &object.object, "spec.exportTo")
            .message("no caller sees this object")
            .effect("its routes, weights, timeouts and retries do nothing")
            .evidence([format!("{who} {}", named.join(", "))])
            .rests_on(&needing)
            .fix(format!("spec:\n  exportTo: [{}]", named.join(", ")));
        out.add(&RULE, finding);
    }
}

/// Namespaces of the proxies that the object is for.
fn needing(mesh: &Mesh<'_>, object: &VirtualService) -> BTreeSet<Namespace> {
    let gateways = object.named_gateways().filter_map(|(namespace, name)| mesh.find_istio_gateway(namespace, name));
    let pods = gateways.flat_map(|gateway| &gateway.workloads).map(|id| mesh.workload(*id).namespace().clone());
    let mut found: BTreeSet<Namespace> = pods.collect();
    if object.acts_in_mesh() {
        found.extend(mesh.caller_namespaces.iter().cloned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_gap, istio, pod, service};
    use super::*;

    fn mesh(export_to: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &pod("a", "v1")
            + &istio(
                "VirtualService",
                "r",
                &format!("{{exportTo: [{export_to}], hosts: [a], http: [{{route: [{{destination: {{host: a}}}}]}}]}}"),
            )
    }

    #[test]
    fn an_object_for_nobody_is_told() {
        check(&RULE, &mesh("web"), &["warning VirtualService shop/r spec.exportTo"]);
        check_gap(&RULE, &mesh("web"));
    }

    #[test]
    fn an_object_that_some_caller_sees_is_silent() {
        check(&RULE, &mesh("."), &[]);
        check(&RULE, &mesh("web, shop"), &[]);
        check(&RULE, &mesh("'*'"), &[]);
    }
}
