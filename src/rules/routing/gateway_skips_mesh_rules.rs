//! GM213: a gateway route to a host for which another object splits calls; calls through the gateway ignore the split.

use crate::mesh::gateway_api::RouteParent;
use crate::mesh::ids::{Host, ObjectRef, ServiceId};
use crate::mesh::written_route::{WrittenAction, WrittenBackend, weight_shares};
use crate::mesh::xds::RouteOwner;
use crate::mesh::{Mesh, RouteReference};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::share::format_percent;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM213",
    name: "gateway-skips-mesh-rules",
    severity: Severity::Warning,
    needs: &[Kind::VirtualService],
    istio_code: Some("IST0140"),
    summary: "A gateway route to a host for which another object splits calls: the weights are ignored",
    docs: "\
## What it looks for
A gateway route to a Service without a subset, when another object splits calls to the same Service by weight for
sidecars.

## Why it matters for gRPC
Routes do not chain: the gateway selects pods by its own rule and does not evaluate the rules for sidecars. For calls
through the gateway, a canary of 10 % gets a share that depends on its number of pods.

## Example
```yaml
kind: VirtualService
spec: {hosts: [shop.example.com], gateways: [ingress], http: [{route: [{destination: {host: checkout}}]}]}
---
kind: VirtualService
spec: {hosts: [checkout], http: [{route: [{destination: {host: checkout, subset: v1}, weight: 90}, …]}]}
```

## Fix
Use one object for the gateway and the mesh:
```yaml
spec: {hosts: [shop.example.com, checkout], gateways: [ingress, mesh], http: […]}
```

## References
- Istio source: `pilot/pkg/networking/core/gateway.go`. Verified against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for id in mesh.service_ids() {
        let gateway_routes = gateway_rules_without_subset(mesh, id);
        if gateway_routes.is_empty() {
            continue;
        }
        let host = &mesh.service(id).host;
        let Some((split_object, weights)) = mesh_split(mesh, host) else { continue };
        for (object, field) in gateway_routes.into_iter().filter(|(object, _)| *object != split_object) {
            let finding = Finding::new(&RULE, &object, field)
                .message(format!(
                    "{object} routes to all pods of {}, and ignores the weights of {split_object}",
                    mesh.short_host(host)
                ))
                .impact(format!("calls through the gateway are not split by weight ({weights})"))
                .depends_on([&split_object.namespace, mesh.service(id).namespace()])
                .fix(format!("set the same weights in {object}, or move its gateway and hosts into {split_object}"));
            out.add(&RULE, finding);
        }
    }
}

/// Objects and fields of gateway rules whose only backend is the Service without a subset.
#[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
fn gateway_rules_without_subset(mesh: &Mesh<'_>, id: ServiceId) -> Vec<(ObjectRef, String)> {
    let mut routes = Vec::new();
    for reference in mesh.route_references(id) {
        match *reference {
            RouteReference::VirtualService(object, index) => {
                let object = mesh.virtual_services.get(object);
                let route = &object.spec.http[index].route;
                let has_no_subset = |backend: &crate::schema::virtual_service::RouteDestination| {
                    let destination = backend.destination.as_ref();
                    destination.is_some_and(|destination| destination.subset.as_deref().is_none_or(str::is_empty))
                };
                if object.named_gateways().next().is_some() && route.len() == 1 && route.iter().all(has_no_subset) {
                    routes.push((object.object.clone(), format!("spec.http[{index}].route[0]")));
                }
            }
            RouteReference::RouteObject(object, index) => {
                let object = mesh.route_object(object);
                let on_gateway = object.parents.iter().any(|parent| matches!(parent, RouteParent::Listeners { .. }));
                if on_gateway && object.route.spec.rules[index].backend_refs.len() == 1 {
                    routes.push((object.object.clone(), format!("spec.rules[{index}].backendRefs[0]")));
                }
            }
        }
    }
    routes
}

/// The object that splits calls to a host between backends for sidecars, and its shares as text.
fn mesh_split(mesh: &Mesh<'_>, host: &Host) -> Option<(ObjectRef, String)> {
    let configs = mesh.route_configs();
    configs.naming_host(host).find_map(|id| {
        mesh.written_rules_of(RouteOwner::Config(id)).into_iter().find_map(|rule| {
            let WrittenAction::Forward(targets) = &rule.action else { return None };
            let shares = weight_shares(&targets.iter().map(|target| target.weight).collect::<Vec<_>>())?;
            let weighted: Vec<(&WrittenBackend, f64)> =
                targets.iter().zip(shares).filter(|(_, share)| *share > 0.0).collect();
            let describe = |(target, share): &(&WrittenBackend, f64)| {
                let name =
                    target.subset.as_ref().map_or_else(|| mesh.short_host(&target.host), |subset| subset.as_str());
                format!("{} to {name}", format_percent(*share))
            };
            (weighted.len() > 1)
                .then(|| (rule.object.clone(), weighted.iter().map(describe).collect::<Vec<_>>().join(", ")))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    const SPLIT: &str = "http: [{route: [{destination: {host: a, subset: v1}, weight: 90}, {destination: {host: a, subset: v2}, weight: 10}]}]";

    fn mesh() -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "in",
                "{hosts: [a.example.com], gateways: [gw], http: [{route: [{destination: {host: a}}]}]}",
            )
            + &istio("VirtualService", "split", &format!("{{hosts: [a], {SPLIT}}}"))
    }

    #[test]
    fn reports_a_gateway_route_that_ignores_the_split_of_the_mesh() {
        assert_findings(&RULE, &mesh(), &["warning VirtualService shop/in spec.http[0].route[0]"]);
        assert!(findings(&RULE, &mesh())[0].impact.contains("90% to v1, 10% to v2"));
        assert_undecided_on_gap(&RULE, &mesh());
    }

    #[test]
    fn is_silent_on_one_object_for_gateway_and_mesh_and_without_a_split() {
        assert_findings(&RULE, &mesh().replace("weight: 10", "weight: 0"), &[]);
        let shared = service("a", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "shared",
                &format!("{{hosts: [a, a.example.com], gateways: [gw, mesh], {SPLIT}}}"),
            );
        assert_findings(&RULE, &shared, &[]);
    }
}
