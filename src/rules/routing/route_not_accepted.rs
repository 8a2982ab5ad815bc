//! GM218: an HTTPRoute or GRPCRoute that its parent does not accept.

use crate::mesh::Mesh;
use crate::mesh::gateway_api::RouteObject;
use crate::mesh::xds::RejectedParent;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::gateway_api::{ParentRef, RouteParentStatus, RouteStatusCondition};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM218",
    name: "route-not-accepted",
    severity: Severity::Error,
    needs: &[Kind::Gateway, Kind::Service],
    istio_code: Some("IST0171"),
    summary: "An HTTPRoute or GRPCRoute that its Gateway or Service does not accept",
    docs: "\
## What it looks for
An HTTPRoute or GRPCRoute with a parent that exists and does not accept it: the Gateway has no listener with the
`sectionName` or `port`, `allowedRoutes` excludes the route's namespace or kind, no listener has a host in common with the
route, or the Service does not have the `port`. If the route has a status, conditions of Istio that are false are reported
too.

## Why it matters for gRPC
A route that no parent accepts has no effect. Calls get the routes of other objects: through a gateway UNIMPLEMENTED
(404, flag NR), in the mesh Istio's default route. The API server accepts the object, and only its status shows why.

## Example
```yaml
kind: GRPCRoute
metadata: {name: checkout, namespace: shop}
spec:
  parentRefs: [{name: public, namespace: edge, sectionName: https}]   # the listener is named grpc
```

## Fix
```yaml
  parentRefs: [{name: public, namespace: edge, sectionName: grpc}]
```
or, for a route in another namespace than its Gateway:
```yaml
kind: Gateway
spec: {listeners: [{name: grpc, allowedRoutes: {namespaces: {from: All}}}]}
```

## References
- Gateway API: route attachment, `AllowedRoutes`.
- Istio source: `referenceAllowed` in `pilot/pkg/config/kube/gateway/conversion.go`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let rejected = mesh.rejected_parents();
    for RejectedParent { route, index, parent, field, reason, offered } in &rejected {
        let field = field.map(|field| format!(".{field}")).unwrap_or_default();
        let is_service = parent.kind == Kind::Service;
        let impact = if is_service {
            "the route has no effect: calls use Istio's default route, or the routes of other objects"
        } else {
            "the route has no effect at this Gateway: calls get UNIMPLEMENTED (404, flag NR)"
        };
        let fix = if field.is_empty() {
            format!("correct the listener of {parent}, or the hostnames of {route}: `kubectl grpcmesh explain GM218`")
        } else {
            format!(
                "parentRefs:\n- name: {}   # set {} to one of: {offered}",
                parent.name,
                field.trim_start_matches('.')
            )
        };
        let finding = Finding::new(&RULE, route, format!("spec.parentRefs[{index}]{field}"))
            .message(format!("{parent} does not accept {route}: {reason}"))
            .impact(impact)
            .evidence([format!("{parent} has {offered}")])
            .depends_on([&parent.namespace])
            .fix(fix);
        out.add(&RULE, finding);
    }
    for object in &mesh.route_objects {
        for status in &object.route.status.parents {
            let index = parent_index(object, &status.parent_ref);
            let is_reported = rejected.iter().any(|one| one.route == object.object && Some(one.index) == index);
            if !is_reported && let Some(index) = index {
                report_status(object, index, status, out);
            }
        }
    }
}

/// Position of a parent of the status in `spec.parentRefs`.
fn parent_index(object: &RouteObject, parent: &ParentRef) -> Option<usize> {
    let namespace =
        |parent: &ParentRef| parent.namespace.clone().unwrap_or_else(|| object.object.namespace.to_string());
    object.route.spec.parent_refs.iter().position(|written| {
        written.name == parent.name
            && namespace(written) == namespace(parent)
            && written.section_name == parent.section_name
            && written.port == parent.port
    })
}

/// Reports an `Accepted` condition of Istio that is false, or that is about an older generation of the object.
fn report_status(object: &RouteObject, index: usize, status: &RouteParentStatus, out: &mut Findings<'_>) {
    if !status.controller_name.starts_with("istio.io/") {
        return;
    }
    let Some(condition) = status.conditions.iter().find(|condition| condition.kind == "Accepted") else { return };
    let RouteStatusCondition { status, reason, message, observed_generation, .. } = condition;
    let is_stale =
        matches!((object.route.metadata.generation, observed_generation), (Some(own), Some(seen)) if *seen < own);
    if status != "False" || is_stale {
        return;
    }
    let finding = Finding::new(&RULE, &object.object, format!("spec.parentRefs[{index}]"))
        .message(format!("Istio does not accept {}: {reason}", object.object))
        .impact("the route has no effect for this parent")
        .evidence([format!("status of the route: {message}")])
        .fix(
            "correct the field that the message names, then check the status: kubectl get grpcroute,httproute -o yaml",
        );
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, service};

    fn gateway(listener: &str) -> String {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: public, namespace: edge}}\n\
             spec: {{gatewayClassName: istio, listeners: [{{name: grpc, port: 80, protocol: HTTP{listener}}}]}}\n"
        )
    }

    fn route(parent: &str, more: &str) -> String {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: r, generation: 2}}\n\
             spec: {{parentRefs: [{parent}]{more}, rules: [{{backendRefs: [{{name: a, port: 1}}]}}]}}\n"
        )
    }

    const ALL: &str = ", allowedRoutes: {namespaces: {from: All}}";
    const PARENT: &str = "{name: public, namespace: edge}";

    #[test]
    fn reports_each_reason_why_a_parent_does_not_accept_a_route() {
        let own = || service("a", "{name: grpc, port: 1}");
        let at_parent = "error GRPCRoute shop/r spec.parentRefs[0]";
        for (gateway, route, expected) in [
            (
                gateway(ALL),
                route("{name: public, namespace: edge, sectionName: https}", ""),
                format!("{at_parent}.sectionName"),
            ),
            (gateway(ALL), route("{name: public, namespace: edge, port: 81}", ""), format!("{at_parent}.port")),
            (gateway(""), route(PARENT, ""), at_parent.to_owned()),
            (
                gateway(", allowedRoutes: {namespaces: {from: All}, kinds: [{kind: HTTPRoute}]}"),
                route(PARENT, ""),
                at_parent.to_owned(),
            ),
            (
                gateway(&format!("{ALL}, hostname: a.example.com")),
                route(PARENT, ", hostnames: [b.example.com]"),
                at_parent.to_owned(),
            ),
            (String::new(), route("{group: '', kind: Service, name: a, port: 9}", ""), format!("{at_parent}.port")),
        ] {
            assert_findings(&RULE, &(own() + &gateway + &route), &[&expected]);
        }
        assert_undecided_on_gap(&RULE, &(own() + &gateway("") + &route(PARENT, "")));
    }

    #[test]
    fn is_silent_on_accepted_routes_and_on_gateways_of_other_classes() {
        assert_findings(&RULE, &(gateway(ALL) + &route(PARENT, "")), &[]);
        let other_class = gateway("").replace("gatewayClassName: istio", "gatewayClassName: other");
        assert_findings(&RULE, &(other_class + &route(PARENT, "")), &[]);
    }

    #[test]
    fn reports_a_status_that_is_false_and_current() {
        let status = |generation: u8| {
            format!(
                "status: {{parents: [{{controllerName: istio.io/gateway-controller, parentRef: {PARENT}, conditions: \
                 [{{type: Accepted, status: 'False', reason: NotAllowedByListeners, message: not allowed, observedGeneration: {generation}}}]}}]}}\n"
            )
        };
        let yaml = gateway(ALL) + &route(PARENT, "");
        assert_findings(&RULE, &(yaml.clone() + &status(2)), &["error GRPCRoute shop/r spec.parentRefs[0]"]);
        assert_findings(&RULE, &(yaml + &status(1)), &[]);
    }
}
