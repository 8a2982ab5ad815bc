//! GM504: a Gateway whose selector matches no gateway.

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
An Istio Gateway whose `selector` matches the labels of no gateway pod, in any namespace.

## Why it matters for gRPC
No proxy opens the port: clients cannot connect, and routes bound to this Gateway act nowhere.

## Example
```yaml
kind: Gateway
spec: {selector: {istio: ingress}}       # the pods carry istio: ingressgateway
```

## Repair
```yaml
spec: {selector: {istio: ingressgateway}}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM504.yaml`.
- Istio: `pilot/pkg/model/push_context.go` (mergeGateways): the selector is matched against pod labels in all namespaces.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let gateways: Vec<_> =
        mesh.workloads.iter().filter(|workload| matches!(workload.proxy, ProxyKind::Gateway(_))).collect();
    for gateway in mesh.istio_gateways.iter().filter(|gateway| gateway.workloads.is_empty()) {
        // Gateways are usually deployed by somebody else: manifests without any cannot tell.
        if gateways.is_empty() && mesh.snapshot.source == SourceKind::Manifests
            || !mesh.coverage.knows_everywhere(Kind::Pod)
        {
            out.undecided(&RULE);
            continue;
        }
        let mut carried: Vec<_> = gateways
            .iter()
            .filter_map(|workload| {
                let label =
                    ["istio", "app"].iter().find_map(|key| Some(format!("{key}={}", workload.labels.get(key)?)))?;
                Some(format!("{} in {} carries {label}", workload.title(), workload.namespace()))
            })
            .collect();
        carried.sort();
        carried.dedup();
        carried.truncate(4);
        if carried.is_empty() {
            carried.push("there is no gateway pod".to_owned());
        }
        let fix = gateways
            .iter()
            .find_map(|workload| Some(format!("selector:\n  istio: {}", workload.labels.get("istio")?)))
            .unwrap_or_else(|| "deploy a gateway with these labels".to_owned());
        let finding = Finding::new(&RULE, &gateway.object, "spec.selector")
            .message(format!("no gateway pod carries the labels {}", gateway.selector))
            .impact("no proxy opens the port: clients cannot connect, and routes bound to it act nowhere")
            .evidence(carried)
            .fix(fix);
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, pod};

    fn mesh(label: &str) -> String {
        pod("gw", "v1")
            .replace("[proxy, sidecar]", "[proxy, router]")
            .replace("app: gw", "app: gw, istio: ingressgateway")
            + &istio("Gateway", "g", &format!("{{selector: {{istio: {label}}}, servers: []}}"))
    }

    #[test]
    fn a_selector_without_pods_is_reported() {
        check(&RULE, &mesh("ingress"), &["error Gateway shop/g spec.selector"]);
        check_gap(&RULE, &mesh("ingress"));
        assert_eq!(findings(&RULE, &mesh("ingress"))[0].fix, "selector:\n  istio: ingressgateway");
    }

    #[test]
    fn application_pods_are_no_gateways() {
        let yaml = pod("a", "v1") + &istio("Gateway", "g", "{selector: {app: a}, servers: []}");
        check(&RULE, &yaml, &["error Gateway shop/g spec.selector"]);
    }

    #[test]
    fn a_selector_that_fits_is_silent() {
        check(&RULE, &mesh("ingressgateway"), &[]);
    }
}
