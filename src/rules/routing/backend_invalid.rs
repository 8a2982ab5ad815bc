//! GM222: a backend of a Gateway API route that cannot be used.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM222",
    name: "backend-invalid",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: Some("IST0171"),
    summary: "A backend of an HTTPRoute or GRPCRoute that does not exist, or that no ReferenceGrant allows",
    docs: "\
## What it looks for
A `backendRefs` entry whose Service does not exist, whose kind Istio does not support, or which is in another namespace
without a ReferenceGrant (only for routes of gateways; routes of the mesh need no grant). GM216 checks its port.

## Why it matters for gRPC
The backend keeps its share of the calls and answers them with HTTP 500, which the client sees as UNKNOWN. Other
backends do not take over.

## Example
```yaml
kind: GRPCRoute
metadata: {namespace: shop}
spec: {rules: [{backendRefs: [{name: checkout, namespace: payments, port: 50051}]}]}   # no grant in payments
```

## Fix
```yaml
kind: ReferenceGrant
metadata: {name: from-shop, namespace: payments}
spec:
  from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: shop}]
  to: [{group: \"\", kind: Service}]
```

## References
- Verified on a real mesh: `tests/lab/effects/GM222.yaml`.
- Istio source: `pilot/pkg/config/kube/gateway/conversion.go` (`buildDestination`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, config) in mesh.route_configs().iter().filter(|(_, config)| config.is_gateway_api) {
        for rule in config.rules.iter().filter(|rule| !rule.backend_problems.is_empty()) {
            let route = mesh.route_objects.iter().find(|route| route.object == rule.object);
            let written = route.and_then(|route| Some((route, route.route.spec.rules.get(rule.index)?)));
            let Some((route, written)) = written else { continue };
            let targets = route.backend_hosts(written, &mesh.cluster_domain);
            let is_unresolved = targets
                .iter()
                .any(|(_, host, _)| mesh.find_host(host.as_str()).is_none() && !mesh.is_host_absent(host));
            if is_unresolved {
                out.add_undecided(&RULE);
                continue;
            }
            let namespaces: Vec<_> = targets.iter().filter_map(|(_, host, _)| mesh.namespace_of_host(host)).collect();
            for problem in &rule.backend_problems {
                let fix = if problem.contains("ReferenceGrant") {
                    "create a ReferenceGrant in the namespace of the backend (example: `kubectl grpcmesh explain GM222`)"
                } else {
                    "correct the name or the kind of the backend, or create the Service"
                };
                let finding = Finding::new(&RULE, &rule.object, format!("{}.backendRefs", rule.field()))
                    .message(problem.clone())
                    .impact("the backend's share of the calls gets HTTP 500: the client sees UNKNOWN")
                    .depends_on(&namespaces)
                    .fix(fix);
                out.add(&RULE, finding);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, service};

    fn mesh(backend: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &format!(
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: g}}\n\
                 spec: {{parentRefs: [{{group: '', kind: Service, name: a, port: 1}}], rules: [{{backendRefs: [{backend}]}}]}}\n"
            )
    }

    #[test]
    fn reports_missing_backends() {
        let yaml = mesh("{name: b, port: 1}");
        assert_findings(&RULE, &yaml, &["error GRPCRoute shop/g spec.rules[0].backendRefs"]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn is_silent_on_existing_backends() {
        assert_findings(&RULE, &mesh("{name: a, port: 1}"), &[]);
    }
}
