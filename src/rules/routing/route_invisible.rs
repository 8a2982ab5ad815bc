//! GM217: a VirtualService that applies to no caller.

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
    summary: "A VirtualService that applies to no caller, because of exportTo or Sidecar scope",
    docs: "\
## What it looks for
A VirtualService whose `exportTo` includes no namespace with meshed pods or, if it applies to gateways only, no
namespace with pods of those gateways. Also a mesh VirtualService that no Sidecar of a caller imports through its egress
hosts.

## Why it matters for gRPC
No caller gets its routes, weights, timeouts and retries: calls use other rules or Istio's default route. `exportTo:
[.]` means callers in the namespace of the VirtualService, not of the Service.

## Example
```yaml
metadata: {namespace: shop}
spec: {exportTo: [.], gateways: [istio-system/ingress], hosts: [shop.example.com]}   # the gateway runs in istio-system
```

## Fix
```yaml
spec: {exportTo: [istio-system]}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM217.yaml`.
- Istio source: `pilot/pkg/model/push_context.go` (`initVirtualServices`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let callers = if mesh.sidecars.is_empty() { Vec::new() } else { sidecar_callers(mesh) };
    for (id, object) in mesh.virtual_services.iter().filter(|(_, object)| !object.hosts.is_empty()) {
        let targets = target_namespaces(mesh, object);
        if targets.is_empty() {
            continue;
        }
        let own_namespace = &object.object.namespace;
        let is_exported = targets.iter().any(|namespace| object.export_to.includes(namespace, own_namespace));
        let finding = if !is_exported {
            Some(not_exported(object, &targets))
        } else if object.named_gateways().next().is_none() {
            not_imported(mesh, id, object, &callers)
        } else {
            None
        };
        let Some(finding) = finding else { continue };
        // Manifests rarely contain all pods, so a caller may exist elsewhere.
        if mesh.snapshot.source == SourceKind::Manifests {
            out.add_undecided(&RULE);
            continue;
        }
        out.add(&RULE, finding.depends_on(&targets));
    }
}

fn not_exported(object: &VirtualService, targets: &BTreeSet<Namespace>) -> Finding {
    let names = targets.iter().map(Namespace::as_str).take(6).collect::<Vec<_>>().join(", ");
    let callers = if object.acts_in_mesh() { "meshed pods" } else { "pods of its gateways" };
    Finding::new(&RULE, &object.object, "spec.exportTo")
        .message(format!("{} is exported to no namespace with callers", object.object))
        .impact("its routes, weights, timeouts and retries have no effect")
        .evidence([format!("{callers} run in {names}")])
        .fix(format!("spec:\n  exportTo: [{names}]"))
}

/// The finding for an object that the Sidecar of no caller imports.
fn not_imported(mesh: &Mesh<'_>, id: VirtualServiceId, object: &VirtualService, callers: &[Caller]) -> Option<Finding> {
    let (_, config) = mesh.route_configs().iter().find(|(_, config)| config.virtual_service == Some(id))?;
    let can_see = |caller: &&Caller| object.export_to.includes(&caller.namespace, &object.object.namespace);
    let mut visible_to = callers.iter().filter(can_see).peekable();
    let sidecar = visible_to.peek().and_then(|caller| mesh.sidecar_for(caller))?;
    if visible_to.any(|caller| mesh.imports_config(caller, config)) {
        return None;
    }
    let host = object.hosts.first().map_or("*", |host| host.as_str());
    // Callers keep the hosts that they have.
    let listed = sidecar.spec.egress.first().into_iter().flat_map(|egress| egress.hosts.iter().cloned());
    let added = format!("{}/{host}", object.object.namespace);
    let hosts: Vec<String> = listed.chain([added]).map(|host| format!("\"{host}\"")).collect();
    let finding = Finding::new(&RULE, &object.object, "spec.hosts")
        .message(format!("no Sidecar of a caller imports {}", object.object))
        .impact("its routes, weights, timeouts and retries have no effect")
        .evidence([format!("the egress hosts of {} do not include it", sidecar.object)])
        .fix(format!("# {}\nspec:\n  egress:\n  - hosts: [{}]", sidecar.object, hosts.join(", ")));
    Some(finding)
}

/// One caller for each namespace and set of labels of pods with a sidecar.
fn sidecar_callers(mesh: &Mesh<'_>) -> Vec<Caller> {
    let mut distinct: HashSet<(Namespace, Labels)> = HashSet::new();
    let ids = mesh.workload_ids().filter(|id| mesh.workload(*id).proxy.is_meshed() != Some(false));
    let callers = ids.map(|id| Caller::of_workload(mesh, id)).filter(|caller| caller.kind == CallerKind::Sidecar);
    callers.filter(|caller| distinct.insert((caller.namespace.clone(), caller.labels.clone()))).collect()
}

/// Namespaces of the proxies that the object is meant for.
fn target_namespaces(mesh: &Mesh<'_>, object: &VirtualService) -> BTreeSet<Namespace> {
    let gateways = object.named_gateways().filter_map(|(namespace, name)| mesh.find_istio_gateway(namespace, name));
    let pods = gateways.flat_map(|gateway| &gateway.workloads).map(|id| mesh.workload(*id).namespace().clone());
    let mut namespaces: BTreeSet<Namespace> = pods.collect();
    if object.acts_in_mesh() {
        namespaces.extend(mesh.caller_namespaces.iter().cloned());
    }
    namespaces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, pod, service};

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
    fn reports_an_object_that_is_exported_to_no_caller() {
        assert_findings(&RULE, &mesh("web"), &["warning VirtualService shop/r spec.exportTo"]);
        assert_undecided_on_gap(&RULE, &mesh("web"));
    }

    #[test]
    fn reports_an_object_that_no_sidecar_imports() {
        let with_sidecar = |host: &str| {
            mesh("'*'") + &pod("b", "v1") + &istio("Sidecar", "s", &format!("{{egress: [{{hosts: ['{host}']}}]}}"))
        };
        assert_findings(&RULE, &with_sidecar("web/*"), &["warning VirtualService shop/r spec.hosts"]);
        assert_findings(&RULE, &with_sidecar("./*"), &[]);
        assert_findings(&RULE, &with_sidecar("*/a.shop.svc.cluster.local"), &[]);
    }

    #[test]
    fn is_silent_on_an_object_that_some_caller_can_see() {
        assert_findings(&RULE, &mesh("."), &[]);
        assert_findings(&RULE, &mesh("web, shop"), &[]);
        assert_findings(&RULE, &mesh("'*'"), &[]);
    }
}
