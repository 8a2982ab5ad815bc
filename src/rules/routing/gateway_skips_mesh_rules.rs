//! GM213: a gateway's route to a host that the mesh splits: ingress traffic ignores the split.

use crate::mesh::gateway_api::RouteParent;
use crate::mesh::ids::{Host, ObjectRef, ServiceId};
use crate::mesh::written_route::{WrittenAction, WrittenBackend, shares};
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
    summary: "A gateway's route to a host that the mesh splits: traffic from outside ignores the weights",
    docs: "\
## What it looks for
A route of a gateway that sends to a Service as a whole, while another object splits the same Service by weight for the
mesh.

## Why it matters for gRPC
Routes do not chain: the gateway picks the pods by its own rule and never looks at the mesh's. A canary of 10 % is then a
canary by the number of pods for everybody who comes from outside.

## Example
```yaml
kind: VirtualService
spec: {hosts: [shop.example.com], gateways: [ingress], http: [{route: [{destination: {host: checkout}}]}]}
---
kind: VirtualService
spec: {hosts: [checkout], http: [{route: [{destination: {host: checkout, subset: v1}, weight: 90}, …]}]}
```

## Repair
Let one object do both:
```yaml
spec: {hosts: [shop.example.com, checkout], gateways: [ingress, mesh], http: […]}
```

## References
- From Istio's code: `pilot/pkg/networking/core/gateway.go`; pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for id in mesh.service_ids() {
        let users = gateway_routes(mesh, id);
        if users.is_empty() {
            continue;
        }
        let host = &mesh.service(id).host;
        let Some((splitter, split)) = split_in_mesh(mesh, host) else { continue };
        for (object, field) in users.into_iter().filter(|(object, _)| *object != splitter) {
            let finding = Finding::new(&RULE, &object, field)
                .message(format!("the gateway sends to all pods of {}, which {splitter} splits", mesh.short_host(host)))
                .impact(format!("traffic from outside ignores the weights ({split})"))
                .rests_on([&splitter.namespace, mesh.service(id).namespace()])
                .fix(format!("write the split into {object} too, or add the gateway and its host to {splitter}"));
            out.add(&RULE, finding);
        }
    }
}

/// Rules of gateways whose only target is the Service as a whole.
fn gateway_routes(mesh: &Mesh<'_>, id: ServiceId) -> Vec<(ObjectRef, String)> {
    let mut found = Vec::new();
    for user in mesh.users_of(id) {
        match *user {
            RouteReference::VirtualService(object, index) => {
                let object = mesh.virtual_services.get(object);
                let route = &object.spec.http[index].route;
                let whole = |one: &crate::schema::virtual_service::RouteDestination| {
                    one.destination.as_ref().is_some_and(|to| to.subset.as_deref().is_none_or(str::is_empty))
                };
                if object.named_gateways().next().is_some() && route.len() == 1 && route.iter().all(whole) {
                    found.push((object.object.clone(), format!("spec.http[{index}].route[0]")));
                }
            }
            RouteReference::RouteObject(object, index) => {
                let object = mesh.route_object(object);
                let on_gateway = object.parents.iter().any(|parent| matches!(parent, RouteParent::Gateway { .. }));
                if on_gateway && object.route.spec.rules[index].backend_refs.len() == 1 {
                    found.push((object.object.clone(), format!("spec.rules[{index}].backendRefs[0]")));
                }
            }
        }
    }
    found
}

/// The object that splits a host for the mesh, and how.
fn split_in_mesh(mesh: &Mesh<'_>, host: &Host) -> Option<(ObjectRef, String)> {
    let configs = mesh.route_configs();
    configs.of_host(host).find_map(|id| {
        mesh.rules_of(RouteOwner::Config(id)).into_iter().find_map(|rule| {
            let WrittenAction::Forward(targets) = &rule.action else { return None };
            let shares = shares(&targets.iter().map(|target| target.weight).collect::<Vec<_>>())?;
            let used: Vec<(&WrittenBackend, f64)> =
                targets.iter().zip(shares).filter(|(_, share)| *share > 0.0).collect();
            let show = |(target, share): &(&WrittenBackend, f64)| {
                let name =
                    target.subset.as_ref().map_or_else(|| mesh.short_host(&target.host), |subset| subset.as_str());
                format!("{} to {name}", format_percent(*share))
            };
            (used.len() > 1).then(|| (rule.object.clone(), used.iter().map(show).collect::<Vec<_>>().join(", ")))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, service};

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
    fn a_gateway_beside_a_split_is_told() {
        check(&RULE, &mesh(), &["warning VirtualService shop/in spec.http[0].route[0]"]);
        assert!(findings(&RULE, &mesh())[0].impact.contains("90% to v1, 10% to v2"));
        check_gap(&RULE, &mesh());
    }

    #[test]
    fn one_object_for_both_and_a_mesh_without_a_split_are_silent() {
        check(&RULE, &mesh().replace("weight: 10", "weight: 0"), &[]);
        let both = service("a", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "both",
                &format!("{{hosts: [a, a.example.com], gateways: [gw, mesh], {SPLIT}}}"),
            );
        check(&RULE, &both, &[]);
    }
}
