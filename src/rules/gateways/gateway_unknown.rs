//! GM508: a route bound to a Gateway that does not exist.

use crate::mesh::Mesh;
use crate::mesh::gateway_api::RouteParent;
use crate::mesh::ids::ObjectRef;
use crate::mesh::virtual_service::GatewayName;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::snapshot::SourceKind;
use crate::vocabulary::nearest_name;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM508",
    name: "gateway-unknown",
    severity: Severity::Error,
    needs: &[Kind::IstioGateway],
    istio_code: Some("IST0101"),
    summary: "A route bound to a Gateway that does not exist",
    docs: "\
## What it looks for
A VirtualService whose `gateways` name an Istio Gateway that does not exist, and an HTTPRoute or GRPCRoute whose
`parentRefs` name a Gateway that does not exist.

## Why it matters for gRPC
No gateway applies the route. External calls get no route (404, which clients report as UNIMPLEMENTED) or no listener.
A VirtualService that lists only such a Gateway does not apply to sidecars either, because `mesh` is missing.

## Example
```yaml
kind: VirtualService
metadata: {namespace: shop}
spec: {gateways: [ingress]}        # resolves to shop/ingress; the Gateway is in istio-system
```

## Fix
```yaml
spec: {gateways: [istio-system/ingress]}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM508.yaml`.
- Istio source: `pilot/pkg/model/virtualservice.go`. A name without a slash resolves in the namespace of the object.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let istio_gateways: Vec<&ObjectRef> = mesh.istio_gateways.iter().map(|gateway| &gateway.object).collect();
    let api_gateways: Vec<&ObjectRef> = mesh.api_gateways.iter().map(|gateway| &gateway.object).collect();
    let listener_sets: Vec<&ObjectRef> = mesh.listener_sets.iter().map(|set| &set.object).collect();
    for (_, object) in mesh.virtual_services.iter() {
        for (index, gateway) in object.gateways.iter().enumerate() {
            let GatewayName::Named { namespace, name } = gateway else { continue };
            if mesh.find_istio_gateway(namespace, name).is_none() {
                let missing = ObjectRef { kind: Kind::IstioGateway, namespace: namespace.clone(), name: name.clone() };
                let field = format!("spec.gateways[{index}]");
                report_missing(mesh, &object.object, &field, &missing, &istio_gateways, out);
            }
        }
    }
    for route in &mesh.route_objects {
        for (index, parent) in route.parents.iter().enumerate() {
            let RouteParent::Listeners { owner, .. } = parent else { continue };
            if mesh.written_listeners(owner).is_none() {
                let existing = if owner.kind == Kind::ListenerSet { &listener_sets } else { &api_gateways };
                let field = format!("spec.parentRefs[{index}]");
                report_missing(mesh, &route.object, &field, owner, existing, out);
            }
        }
    }
}

fn report_missing(
    mesh: &Mesh<'_>,
    object: &ObjectRef,
    field: &str,
    missing: &ObjectRef,
    existing: &[&ObjectRef],
    out: &mut Findings<'_>,
) {
    let ObjectRef { kind, namespace, name } = missing;
    // Gateways are often deployed separately: manifests are complete only for the namespaces they describe.
    let is_described = mesh.snapshot.source != SourceKind::Manifests
        || mesh.coverage.covers_services_in(namespace)
        || existing.iter().any(|gateway| &gateway.namespace == namespace);
    if !is_described {
        out.add_undecided(&RULE);
        return;
    }
    let is_route = object.kind != Kind::VirtualService;
    let in_other_namespace = existing.iter().find(|gateway| gateway.name == *name);
    let nearest = nearest_name::nearest(name, existing.iter().map(|gateway| &*gateway.name))
        .and_then(|nearest| existing.iter().find(|gateway| &*gateway.name == nearest));
    let suggestion = in_other_namespace.or(nearest);
    let evidence = suggestion.map(|gateway| format!("{gateway} exists"));
    let fix = match suggestion {
        Some(gateway) if is_route => {
            let kind_line = if *kind == Kind::ListenerSet { "\n  kind: ListenerSet" } else { "" };
            format!("parentRefs:\n- name: {}\n  namespace: {}{kind_line}", gateway.name, gateway.namespace)
        }
        Some(gateway) => format!("gateways:\n- {}", gateway.path()),
        None => format!("create the {} {namespace}/{name}, or remove {field}", kind.name()),
    };
    let finding = Finding::new(&RULE, object, field)
        .message(format!(
            "{object} refers to {} {namespace}/{name}, which does not exist",
            if *kind == Kind::Gateway { "Gateway API Gateway" } else { kind.name() }
        ))
        .impact("no gateway applies the route: external calls get UNIMPLEMENTED (404, flag NR)")
        .evidence(evidence)
        .depends_on([namespace])
        .fix(fix);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio};

    fn mesh(gateway: &str) -> String {
        istio("VirtualService", "r", &format!("{{hosts: [a], gateways: [mesh, {gateway}], http: []}}"))
            + &istio("Gateway", "ingress", "{servers: []}").replace("name: ingress", "name: ingress, namespace: edge")
    }

    #[test]
    fn reports_gateways_that_do_not_exist() {
        for gateway in ["ingress", "edge/ingres", "nope"] {
            assert_findings(&RULE, &mesh(gateway), &["error VirtualService shop/r spec.gateways[1]"]);
        }
        assert_undecided_on_gap(&RULE, &mesh("nope"));
        assert_eq!(findings(&RULE, &mesh("ingress"))[0].fix, "gateways:\n- edge/ingress");
    }

    #[test]
    fn reports_missing_parents_of_gateway_api_routes() {
        let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: {parentRefs: [{name: gw}], rules: []}\n";
        assert_findings(&RULE, route, &["error GRPCRoute shop/r spec.parentRefs[0]"]);
        let gateway = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec: {gatewayClassName: istio, listeners: []}\n";
        assert_findings(&RULE, &format!("{route}{gateway}"), &[]);
    }

    #[test]
    fn accepts_existing_gateways_in_every_notation() {
        for gateway in ["edge/ingress", "ingress.edge.svc.cluster.local"] {
            assert_findings(&RULE, &mesh(gateway), &[]);
        }
    }
}
