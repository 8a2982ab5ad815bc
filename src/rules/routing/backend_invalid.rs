//! GM222: a backend of a Gateway API route that leads nowhere.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM222",
    name: "backend-invalid",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: Some("IST0171"),
    summary: "A backend of an HTTPRoute or GRPCRoute that does not exist, or that nothing grants",
    docs: "\
## What it looks for
A `backendRefs` entry whose Service does not exist (GM216 looks at its port), whose kind Istio does not take, or which lies in another
namespace without a ReferenceGrant (routes of gateways only; in the mesh none is needed).

## Why it matters for gRPC
The backend keeps its share and answers it with HTTP 500: UNKNOWN to the client. Other backends do not step in.

## Example
```yaml
kind: GRPCRoute
metadata: {namespace: shop}
spec: {rules: [{backendRefs: [{name: checkout, namespace: payments, port: 50051}]}]}   # no grant in payments
```

## Repair
```yaml
kind: ReferenceGrant
metadata: {name: from-shop, namespace: payments}
spec:
  from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: shop}]
  to: [{group: \"\", kind: Service}]
```

## References
- Seen on a real mesh: `tests/lab/effects/GM222.yaml`.
- From Istio's code: `pilot/pkg/config/kube/gateway/conversion.go` (`buildDestination`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, config) in mesh.route_configs().iter().filter(|(_, config)| config.is_gateway_api) {
        for rule in config.rules.iter().filter(|rule| !rule.problems.is_empty()) {
            let route = mesh.route_objects.iter().find(|route| route.object == rule.object);
            let written = route.and_then(|route| Some((route, route.route.spec.rules.get(rule.index)?)));
            let Some((route, written)) = written else { continue };
            let targets = route.targets(written, &mesh.cluster_domain);
            let unclear =
                targets.iter().any(|(_, host, _)| mesh.find_host(host.as_str()).is_none() && !mesh.is_absent(host));
            if unclear {
                out.undecided(&RULE);
                continue;
            }
            let places: Vec<_> = targets.iter().filter_map(|(_, host, _)| mesh.namespace_of_host(host)).collect();
            for problem in &rule.problems {
                let fix = if problem.contains("ReferenceGrant") {
                    "create a ReferenceGrant in the backend's namespace: `explain GM222` shows one"
                } else {
                    "mend the name, the port or the kind, or create the Service"
                };
                let finding = Finding::new(&RULE, &rule.object, format!("{}.backendRefs", rule.field()))
                    .message(problem.clone())
                    .impact("its share of the calls is answered with HTTP 500: UNKNOWN to the client")
                    .rests_on(&places)
                    .fix(fix);
                out.add(&RULE, finding);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, service};

    fn mesh(backend: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &format!(
                "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: g}}\n\
                 spec: {{parentRefs: [{{group: '', kind: Service, name: a, port: 1}}], rules: [{{backendRefs: [{backend}]}}]}}\n"
            )
    }

    #[test]
    fn missing_backends_are_errors() {
        let yaml = mesh("{name: b, port: 1}");
        check(&RULE, &yaml, &["error GRPCRoute shop/g spec.rules[0].backendRefs"]);
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn existing_backends_are_silent() {
        check(&RULE, &mesh("{name: a, port: 1}"), &[]);
    }
}
