//! GM219: a VirtualService and a Gateway API route for one host of the mesh.

use std::collections::BTreeSet;

use crate::mesh::Mesh;
use crate::mesh::ids::Namespace;
use crate::mesh::xds::{Caller, RouteConfig, RouteOwner};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM219",
    name: "two-kinds-one-host",
    severity: Severity::Warning,
    needs: &[Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute],
    istio_code: None,
    summary: "A VirtualService and an HTTPRoute or GRPCRoute for one Service: each caller gets only one",
    docs: "\
## What it looks for
A Service with a mesh VirtualService for its host and an HTTPRoute or GRPCRoute attached to it.

## Why it matters for gRPC
Istio does not merge the two. Callers in the namespace of the HTTPRoute or GRPCRoute get that route, even if it is
newer; all other callers get the older object. The weights that a canary gets therefore depend on where the caller runs.

## Example
```yaml
kind: VirtualService
spec: {hosts: [checkout], …}
---
kind: GRPCRoute
spec: {parentRefs: [{group: \"\", kind: Service, name: checkout}], …}
```

## Fix
Keep one of the two objects, and delete the other:
```bash
kubectl delete virtualservice checkout -n shop
```

## References
- Verified on a real mesh: `tests/lab/effects/GM219.yaml`.
- Istio source: `pilot/pkg/model/push_context.go`. Verified against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let configs = mesh.route_configs();
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        let route_configs: Vec<&RouteConfig> =
            configs.naming_host(&service.host).map(|config| configs.get(config)).collect();
        let Some(virtual_service) = route_configs.iter().find(|config| !config.is_gateway_api) else { continue };
        let Some(route) = route_configs.iter().find(|config| config.is_gateway_api) else { continue };
        let owner_for =
            |namespace: Namespace| match mesh.route_owner(&Caller::in_namespace(namespace), id, service.main_port()) {
                RouteOwner::Config(owner) => {
                    configs.get(owner).objects.first().map_or_else(String::new, ToString::to_string)
                }
                RouteOwner::Default => "Istio's default route".to_owned(),
                RouteOwner::Hidden => "no route, because the Service is not visible to them".to_owned(),
            };
        let mut namespaces: BTreeSet<&Namespace> = BTreeSet::from([&route.namespace, &virtual_service.namespace]);
        namespaces.extend(mesh.caller_namespaces.iter().take(4));
        let mut evidence: Vec<String> =
            namespaces.into_iter().map(|name| format!("callers in {name} get {}", owner_for(name.clone()))).collect();
        evidence.push(format!("callers in other namespaces get {}", owner_for(Namespace::from(""))));
        if virtual_service.created.is_none() || route.created.is_none() {
            evidence.push("the source has no creation times, so the older object is not known".to_owned());
        }
        let (Some(object), Some(other)) = (virtual_service.objects.first(), route.objects.first()) else { continue };
        let index = virtual_service.hosts.iter().position(|host| *host == service.host).unwrap_or_default();
        let finding = Finding::new(&RULE, object, format!("spec.hosts[{index}]"))
            .message(format!("{object} and {other} both route {}", mesh.short_host(&service.host)))
            .impact("each caller gets the rules of only one of them, depending on its namespace")
            .evidence(evidence)
            .depends_on([&other.namespace, service.namespace()])
            .fix(format!("keep one of the two: remove the host from {object}, or delete {other}"));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    const ROUTE: &str = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g, creationTimestamp: '2026-01-02T00:00:00Z'}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: a, port: 1}], rules: [{backendRefs: [{name: a, port: 1}]}]}\n";

    fn mesh() -> String {
        let older = istio("VirtualService", "r", "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}");
        service("a", "{name: grpc, port: 1}")
            + &older.replace("name: r", "name: r, creationTimestamp: '2026-01-01T00:00:00Z'")
    }

    #[test]
    fn reports_a_virtual_service_and_a_grpc_route_for_one_host() {
        let yaml = mesh() + ROUTE;
        assert_findings(&RULE, &yaml, &["warning VirtualService shop/r spec.hosts[0]"]);
        let evidence = &findings(&RULE, &yaml)[0].evidence;
        assert!(evidence.contains(&"callers in shop get GRPCRoute shop/g".to_owned()), "{evidence:?}");
        assert!(evidence.contains(&"callers in other namespaces get VirtualService shop/r".to_owned()), "{evidence:?}");
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn is_silent_on_a_single_kind() {
        assert_findings(&RULE, &mesh(), &[]);
        assert_findings(&RULE, &(service("a", "{name: grpc, port: 1}") + ROUTE), &[]);
    }
}
