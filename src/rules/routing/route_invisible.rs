//! GM217: a VirtualService that no caller gets.

use std::collections::{BTreeSet, HashSet};

use crate::mesh::Mesh;
use crate::mesh::ids::{Labels, Namespace, VirtualServiceId};
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::xds::{Caller, CallerKind};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::snapshot::SourceKind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM217",
    name: "route-invisible",
    severity: Severity::Warning,
    needs: &[Kind::Pod],
    istio_code: None,
    summary: "A VirtualService that no caller sees: exportTo or Sidecars keep it from all of them",
    docs: "\
## What it looks for
A VirtualService whose `exportTo` names no namespace in which a meshed pod runs, or, when it acts on gateways only, none
in which a pod of these gateways runs. Also one for the mesh that every such pod's Sidecar leaves out of its egress.

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
    let callers = if mesh.sidecars.is_empty() { Vec::new() } else { meshed(mesh) };
    for (id, object) in mesh.virtual_services.iter().filter(|(_, object)| !object.hosts.is_empty()) {
        let needing = needing(mesh, object);
        if needing.is_empty() {
            continue;
        }
        let own = &object.object.namespace;
        let reached = needing.iter().any(|namespace| object.export_to.reaches(namespace, own));
        let finding = if !reached {
            Some(not_exported(object, &needing))
        } else if object.named_gateways().next().is_none() {
            not_imported(mesh, id, object, &callers)
        } else {
            None
        };
        let Some(finding) = finding else { continue };
        // Manifests seldom hold all the pods.
        if mesh.snapshot.source == SourceKind::Manifests {
            out.undecided(&RULE);
            continue;
        }
        out.add(&RULE, finding.rests_on(&needing));
    }
}

fn not_exported(object: &VirtualService, needing: &BTreeSet<Namespace>) -> Finding {
    let named: Vec<&str> = needing.iter().map(Namespace::as_str).take(6).collect();
    let who = if object.acts_in_mesh() { "meshed pods run in" } else { "its gateways run in" };
    Finding::new(&RULE, &object.object, "spec.exportTo")
        .message("no caller sees this object")
        .impact("its routes, weights, timeouts and retries do nothing")
        .evidence([format!("{who} {}", named.join(", "))])
        .fix(format!("spec:\n  exportTo: [{}]", named.join(", ")))
}

/// The finding for an object that no Sidecar imports.
fn not_imported(mesh: &Mesh<'_>, id: VirtualServiceId, object: &VirtualService, callers: &[Caller]) -> Option<Finding> {
    let (_, config) = mesh.route_configs().iter().find(|(_, config)| config.virtual_service == Some(id))?;
    let reached = |caller: &&Caller| object.export_to.reaches(&caller.namespace, &object.object.namespace);
    let mut reached = callers.iter().filter(reached).peekable();
    let first = reached.peek().and_then(|caller| mesh.sidecar_for(caller))?;
    if reached.any(|caller| mesh.imports_config(caller, config)) {
        return None;
    }
    let host = object.hosts.first().map_or("*", |host| host.as_str());
    let finding = Finding::new(&RULE, &object.object, "spec.hosts")
        .message("no caller's Sidecar imports this object")
        .impact("its routes, weights, timeouts and retries do nothing")
        .evidence([format!("left out by {}", first.object)])
        .fix(format!("# in {}\negress:\n- hosts: [\"{}/{host}\"]", first.object, object.object.namespace));
    Some(finding)
}

/// A caller for each kind of meshed pods.
fn meshed(mesh: &Mesh<'_>) -> Vec<Caller> {
    let mut seen: HashSet<(Namespace, Labels)> = HashSet::new();
    let ids = mesh.workload_ids().filter(|id| mesh.workload(*id).proxy.is_meshed() != Some(false));
    let callers = ids.map(|id| Caller::of_workload(mesh, id)).filter(|caller| caller.kind == CallerKind::Sidecar);
    callers.filter(|caller| seen.insert((caller.namespace.clone(), caller.labels.clone()))).collect()
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
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, pod, service};

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
    fn an_object_that_every_sidecar_leaves_out_is_told() {
        let narrow = |host: &str| {
            mesh("'*'") + &pod("b", "v1") + &istio("Sidecar", "s", &format!("{{egress: [{{hosts: ['{host}']}}]}}"))
        };
        check(&RULE, &narrow("web/*"), &["warning VirtualService shop/r spec.hosts"]);
        check(&RULE, &narrow("./*"), &[]);
        check(&RULE, &narrow("*/a.shop.svc.cluster.local"), &[]);
    }

    #[test]
    fn an_object_that_some_caller_sees_is_silent() {
        check(&RULE, &mesh("."), &[]);
        check(&RULE, &mesh("web, shop"), &[]);
        check(&RULE, &mesh("'*'"), &[]);
    }
}
