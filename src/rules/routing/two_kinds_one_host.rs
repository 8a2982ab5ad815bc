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
    summary: "A VirtualService and an HTTPRoute or GRPCRoute for one Service: only one acts for a caller",
    docs: "\
## What it looks for
A Service with a mesh VirtualService for its host and an HTTPRoute or GRPCRoute attached to it.

## Why it matters for gRPC
The two are never merged. For callers in the route's own namespace the route wins, even when it is newer; for all others
the older object does. Which weights a canary really has then depends on where the caller runs.

## Example
```yaml
kind: VirtualService
spec: {hosts: [checkout], …}
---
kind: GRPCRoute
spec: {parentRefs: [{group: \"\", kind: Service, name: checkout}], …}
```

## Repair
Keep one of the two.

## References
- Seen on a real mesh: `tests/lab/effects/GM219.yaml`.
- From Istio's code: `pilot/pkg/model/push_context.go`; pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let configs = mesh.route_configs();
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        let all: Vec<&RouteConfig> = configs.of_host(&service.host).map(|config| configs.get(config)).collect();
        let Some(virtual_service) = all.iter().find(|config| !config.is_gateway_api) else { continue };
        let Some(route) = all.iter().find(|config| config.is_gateway_api) else { continue };
        let who =
            |namespace: Namespace| match mesh.route_owner(&Caller::in_namespace(namespace), id, service.main_port()) {
                RouteOwner::Config(owner) => {
                    configs.get(owner).objects.first().map_or_else(String::new, ToString::to_string)
                }
                RouteOwner::Default => "nobody: Istio's default route".to_owned(),
                RouteOwner::Hidden => "nobody: they do not see the Service".to_owned(),
            };
        let mut places: BTreeSet<&Namespace> = BTreeSet::from([&route.namespace, &virtual_service.namespace]);
        places.extend(mesh.caller_namespaces.iter().take(4));
        let mut evidence: Vec<String> =
            places.into_iter().map(|namespace| format!("callers in {namespace}: {}", who(namespace.clone()))).collect();
        evidence.push(format!("callers elsewhere: {}", who(Namespace::from(""))));
        if virtual_service.created.is_none() || route.created.is_none() {
            evidence.push("ages are not in the source, so which one is older is a guess".to_owned());
        }
        let (Some(object), Some(other)) = (virtual_service.objects.first(), route.objects.first()) else { continue };
        let index = virtual_service.hosts.iter().position(|host| *host == service.host).unwrap_or_default();
        let finding = Finding::new(&RULE, object, format!("spec.hosts[{index}]"))
            .message(format!("{other} routes {} too", mesh.short_host(&service.host)))
            .impact("only one of them acts for a caller, and which one depends on the caller's namespace")
            .evidence(evidence)
            .rests_on([&other.namespace, service.namespace()])
            .fix(format!("keep one: remove the host here, or delete {other}"));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, service};

    const ROUTE: &str = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g, creationTimestamp: '2026-01-02T00:00:00Z'}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: a, port: 1}], rules: [{backendRefs: [{name: a, port: 1}]}]}\n";

    fn mesh() -> String {
        let older = istio("VirtualService", "r", "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}");
        service("a", "{name: grpc, port: 1}")
            + &older.replace("name: r", "name: r, creationTimestamp: '2026-01-01T00:00:00Z'")
    }

    #[test]
    fn both_kinds_for_one_host_are_told() {
        let yaml = mesh() + ROUTE;
        check(&RULE, &yaml, &["warning VirtualService shop/r spec.hosts[0]"]);
        let evidence = &findings(&RULE, &yaml)[0].evidence;
        assert!(evidence.contains(&"callers in shop: GRPCRoute shop/g".to_owned()), "{evidence:?}");
        assert!(evidence.contains(&"callers elsewhere: VirtualService shop/r".to_owned()), "{evidence:?}");
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn one_kind_is_silent() {
        check(&RULE, &mesh(), &[]);
        check(&RULE, &(service("a", "{name: grpc, port: 1}") + ROUTE), &[]);
    }
}
