//! GM508: a route bound to a Gateway that does not exist.

use crate::mesh::Mesh;
use crate::mesh::gateway_api::RouteParent;
use crate::mesh::ids::{Namespace, ObjectRef};
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
The route acts nowhere on that side: calls from outside get no route (404, UNIMPLEMENTED to the client), or no listener.
A VirtualService that lists only such a Gateway has no effect on sidecars either, since `mesh` is missing.

## Example
```yaml
kind: VirtualService
metadata: {namespace: shop}
spec: {gateways: [ingress]}        # means shop/ingress; it lives in istio-system
```

## Repair
```yaml
spec: {gateways: [istio-system/ingress]}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM508.yaml`.
- Istio: `pilot/pkg/model/virtualservice.go`: a name without a slash is of the object's own namespace.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let istio: Vec<&ObjectRef> = mesh.istio_gateways.iter().map(|gateway| &gateway.object).collect();
    let api: Vec<&ObjectRef> = mesh.api_gateways.iter().map(|gateway| &gateway.object).collect();
    for (_, object) in mesh.virtual_services.iter() {
        for (index, gateway) in object.gateways.iter().enumerate() {
            let GatewayName::Named { namespace, name } = gateway else { continue };
            if mesh.find_istio_gateway(namespace, name).is_none() {
                judge(mesh, &object.object, &format!("spec.gateways[{index}]"), namespace, name, &istio, out);
            }
        }
    }
    for route in &mesh.route_objects {
        for (index, parent) in route.parents.iter().enumerate() {
            let RouteParent::Gateway { namespace, name, .. } = parent else { continue };
            if mesh.find_api_gateway(namespace, name).is_none() {
                judge(mesh, &route.object, &format!("spec.parentRefs[{index}]"), namespace, name, &api, out);
            }
        }
    }
}

fn judge(
    mesh: &Mesh<'_>,
    object: &ObjectRef,
    field: &str,
    namespace: &Namespace,
    name: &str,
    known: &[&ObjectRef],
    out: &mut Findings<'_>,
) {
    // Gateways are often kept apart from applications: manifests tell only about the namespaces they describe.
    let described = mesh.snapshot.source != SourceKind::Manifests
        || mesh.coverage.describes(namespace)
        || known.iter().any(|gateway| &gateway.namespace == namespace);
    if !described {
        out.undecided(&RULE);
        return;
    }
    let is_route = object.kind != Kind::VirtualService;
    let elsewhere = known.iter().find(|gateway| &*gateway.name == name);
    let nearest = nearest_name::nearest(name, known.iter().map(|gateway| &*gateway.name))
        .and_then(|nearest| known.iter().find(|gateway| &*gateway.name == nearest));
    let right = elsewhere.or(nearest);
    let evidence = right.map(|gateway| format!("there is {gateway}"));
    let fix = match right {
        Some(gateway) if is_route => {
            format!("parentRefs:\n- name: {}\n  namespace: {}", gateway.name, gateway.namespace)
        }
        Some(gateway) => format!("gateways:\n- {}", gateway.path()),
        None => "create the Gateway, or remove the reference".to_owned(),
    };
    let finding = Finding::new(&RULE, object, field)
        .message(format!(
            "there is no {} {namespace}/{name}",
            if is_route { "Gateway (Gateway API)" } else { "Gateway" }
        ))
        .impact("the route acts on no gateway: calls from outside get no route (UNIMPLEMENTED)")
        .evidence(evidence)
        .rests_on([namespace])
        .fix(fix);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio};

    fn mesh(gateway: &str) -> String {
        istio("VirtualService", "r", &format!("{{hosts: [a], gateways: [mesh, {gateway}], http: []}}"))
            + &istio("Gateway", "ingress", "{servers: []}").replace("name: ingress", "name: ingress, namespace: edge")
    }

    #[test]
    fn gateways_that_do_not_exist_are_reported() {
        for gateway in ["ingress", "edge/ingres", "nope"] {
            check(&RULE, &mesh(gateway), &["error VirtualService shop/r spec.gateways[1]"]);
        }
        check_gap(&RULE, &mesh("nope"));
        assert_eq!(findings(&RULE, &mesh("ingress"))[0].fix, "gateways:\n- edge/ingress");
    }

    #[test]
    fn parents_of_gateway_api_routes_are_read_too() {
        let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec: {parentRefs: [{name: gw}], rules: []}\n";
        check(&RULE, route, &["error GRPCRoute shop/r spec.parentRefs[0]"]);
        let gateway = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec: {gatewayClassName: istio, listeners: []}\n";
        check(&RULE, &format!("{route}{gateway}"), &[]);
    }

    #[test]
    fn existing_gateways_in_all_forms_are_silent() {
        for gateway in ["edge/ingress", "ingress.edge.svc.cluster.local"] {
            check(&RULE, &mesh(gateway), &[]);
        }
    }
}
