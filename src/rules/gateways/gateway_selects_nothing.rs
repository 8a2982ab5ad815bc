//! GM504: a Gateway whose selector matches no gateway pod.

use crate::mesh::Mesh;
use crate::mesh::workload::ProxyKind;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::snapshot::SourceKind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM504",
    name: "gateway-selects-nothing",
    severity: Severity::Error,
    needs: &[Kind::Pod],
    istio_code: Some("IST0101"),
    summary: "A Gateway whose selector matches no gateway pod",
    docs: "\
## What it looks for
An Istio Gateway whose `selector` matches the labels of no gateway pod in any namespace.

## Why it matters for gRPC
No proxy listens on the port. Clients cannot connect, and routes bound to this Gateway have no effect.

## Example
```yaml
kind: Gateway
spec: {selector: {istio: ingress}}       # the pods have the label istio: ingressgateway
```

## Fix
```yaml
spec: {selector: {istio: ingressgateway}}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM504.yaml`.
- Istio source: `pilot/pkg/model/push_context.go` (mergeGateways). The selector matches pods of all namespaces.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let gateways: Vec<_> =
        mesh.workloads.iter().filter(|workload| matches!(workload.proxy, ProxyKind::Gateway(_))).collect();
    for gateway in mesh.istio_gateways.iter().filter(|gateway| gateway.workloads.is_empty()) {
        // Gateway pods are usually deployed separately, so manifests without any prove nothing.
        if gateways.is_empty() && mesh.snapshot.source == SourceKind::Manifests
            || !mesh.coverage.covers_everywhere(Kind::Pod)
        {
            out.add_undecided(&RULE);
            continue;
        }
        let mut gateway_labels: Vec<_> = gateways
            .iter()
            .filter_map(|workload| {
                let label =
                    ["istio", "app"].iter().find_map(|key| Some(format!("{key}={}", workload.labels.get(key)?)))?;
                Some(format!("{} in {} has the label {label}", workload.title(), workload.namespace()))
            })
            .collect();
        gateway_labels.sort();
        gateway_labels.dedup();
        gateway_labels.truncate(4);
        if gateway_labels.is_empty() {
            gateway_labels.push("the mesh has no gateway pods".to_owned());
        }
        let fix = gateways
            .iter()
            .find_map(|workload| Some(format!("selector:\n  istio: {}", workload.labels.get("istio")?)))
            .unwrap_or_else(|| format!("deploy a gateway whose pods have the labels {}", gateway.selector));
        let finding = Finding::new(&RULE, &gateway.object, "spec.selector")
            .message(format!("the selector of {} ({}) matches no gateway pod", gateway.object, gateway.selector))
            .impact("no proxy listens on its ports: clients get UNAVAILABLE (connection refused)")
            .evidence(gateway_labels)
            .fix(fix);
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, pod};

    fn mesh(label: &str) -> String {
        pod("gw", "v1")
            .replace("[proxy, sidecar]", "[proxy, router]")
            .replace("app: gw", "app: gw, istio: ingressgateway")
            + &istio("Gateway", "g", &format!("{{selector: {{istio: {label}}}, servers: []}}"))
    }

    #[test]
    fn reports_a_selector_that_matches_no_pod() {
        assert_findings(&RULE, &mesh("ingress"), &["error Gateway shop/g spec.selector"]);
        assert_undecided_on_gap(&RULE, &mesh("ingress"));
        assert_eq!(findings(&RULE, &mesh("ingress"))[0].fix, "selector:\n  istio: ingressgateway");
    }

    #[test]
    fn ignores_application_pods_with_the_same_labels() {
        let yaml = pod("a", "v1") + &istio("Gateway", "g", "{selector: {app: a}, servers: []}");
        assert_findings(&RULE, &yaml, &["error Gateway shop/g spec.selector"]);
    }

    #[test]
    fn accepts_a_selector_that_matches_a_gateway_pod() {
        assert_findings(&RULE, &mesh("ingressgateway"), &[]);
    }
}
