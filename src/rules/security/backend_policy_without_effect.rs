//! GM610: a BackendTLSPolicy that does not act on a target.

use crate::mesh::Mesh;
use crate::mesh::backend_policy::{DeadTarget, DeadTargetReason};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::nearest_name;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM610",
    name: "backend-policy-without-effect",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: None,
    summary: "A BackendTLSPolicy that does not act on one of its targets: connections to it stay as they are",
    docs: "\
## What it looks for
A target of a BackendTLSPolicy that does not exist in the policy's namespace, that is neither a Service nor a ServiceEntry,
or whose port is not the one that `sectionName` names; and a target that an older BackendTLSPolicy has as well.

## Why it matters for gRPC
istiod ignores the policy for this target. Proxies keep the TLS that they used before: mTLS of the mesh, or plaintext. A
server that expects TLS ends the connection, and calls fail with UNAVAILABLE.

## Example
```yaml
kind: Service
metadata: {name: ledger, namespace: shop}
spec: {ports: [{name: grpc, port: 443}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: ledger, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: ledger, sectionName: https}]   # the port is named grpc
  validation: {hostname: ledger.example.com, wellKnownCACertificates: System}
```

## Fix
```yaml
  targetRefs: [{group: \"\", kind: Service, name: ledger, sectionName: grpc}]
```

## References
- From Istio's code, not seen on a real mesh: `BackendTLSPolicyCollection` in
  `pilot/pkg/config/kube/gateway/backend_policies.go`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for DeadTarget { policy, index, name, reason } in &mesh.dead_policy_targets {
        let (field, problem, fix) = match reason {
            DeadTargetReason::Kind(kind) => (
                "kind",
                format!("Istio does not support targets of kind {kind}"),
                "name a Service or a ServiceEntry".to_owned(),
            ),
            DeadTargetReason::Missing => {
                if !mesh.coverage.covers_services_in(&policy.namespace) {
                    out.add_undecided(&RULE);
                    continue;
                }
                let own = mesh.services.iter().filter(|service| *service.namespace() == policy.namespace);
                let nearest = nearest_name::nearest(name, own.map(|service| &*service.object.name));
                let fix = nearest
                    .map_or_else(|| "name a target that exists".to_owned(), |nearest| format!("name: {nearest}"));
                ("name", format!("namespace {} has no such object", policy.namespace), fix)
            }
            DeadTargetReason::Port { name: port, existing } => (
                "sectionName",
                format!("it has no port named {port}"),
                format!("sectionName must be one of {}", existing.join(", ")),
            ),
            DeadTargetReason::Conflict(first) => {
                ("name", format!("{first} has the same target, and is older"), format!("merge the policy into {first}"))
            }
        };
        let finding = Finding::new(&RULE, policy, format!("spec.targetRefs[{index}].{field}"))
            .message(format!("{policy} does not act on {name}: {problem}"))
            .impact("proxies do not start the TLS of the policy: a server that expects it ends the connection (UNAVAILABLE)")
            .depends_on([&policy.namespace])
            .fix(fix);
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, service};

    fn policy(name: &str, target: &str) -> String {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: \
             shop}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: a{target}}}], validation: {{hostname: \
             a.example.com, wellKnownCACertificates: System}}}}\n"
        )
    }

    #[test]
    fn reports_targets_on_which_no_policy_acts() {
        let a = service("a", "{name: grpc, port: 1}");
        let wrong_port = a.clone() + &policy("p", ", sectionName: https");
        assert_findings(&RULE, &wrong_port, &["error BackendTLSPolicy shop/p spec.targetRefs[0].sectionName"]);
        let wrong_name = service("b", "{name: grpc, port: 1}") + &policy("p", "");
        assert_findings(&RULE, &wrong_name, &["error BackendTLSPolicy shop/p spec.targetRefs[0].name"]);
        let twice = a.clone() + &policy("p", "") + &policy("q", "");
        assert_findings(&RULE, &twice, &["error BackendTLSPolicy shop/q spec.targetRefs[0].name"]);
        let kind = (a + &policy("p", "")).replace("group: '', kind: Service", "group: example.com, kind: Thing");
        assert_findings(&RULE, &kind, &["error BackendTLSPolicy shop/p spec.targetRefs[0].kind"]);
        assert_undecided_on_gap(&RULE, &wrong_port);
    }

    #[test]
    fn accepts_targets_that_exist() {
        let a = service("a", "{name: grpc, port: 1}");
        assert_findings(&RULE, &(a.clone() + &policy("p", ", sectionName: grpc") + &policy("q", "")), &[]);
        let ignored = policy("p", ", sectionName: https")
            .replace("namespace: shop}", "namespace: shop, annotations: {istio.io/ignore-policy-attachment: 'true'}}");
        assert_findings(&RULE, &(a + &ignored), &[]);
    }
}
