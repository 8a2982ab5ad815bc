//! GM710: two Sidecar objects for one pod or namespace.

use std::collections::BTreeMap;

use crate::mesh::ids::Namespace;
use crate::mesh::{Mesh, SidecarObject};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM710",
    name: "sidecars-conflict",
    severity: Severity::Error,
    needs: &[Kind::Sidecar],
    istio_code: Some("IST0110"),
    summary: "Two Sidecar objects for one pod or namespace: only the older one applies",
    docs: "\
## What it looks for
Two Sidecar objects without a selector in one namespace, or two whose selectors match the same pod.

## Why it matters for gRPC
Istio does not merge them. Only the older one applies, and the hosts that the other one lists stay hidden. Calls to
these hosts leave the mesh as plain connections, or fail.

## Example
```yaml
kind: Sidecar
metadata: {name: default}
spec: {egress: [{hosts: [./*]}]}
---
kind: Sidecar
metadata: {name: payments}
spec: {egress: [{hosts: [payments/*]}]}
```

## Fix
Merge the host lists into one object.

## References
- Istio source: `pilot/pkg/model/sidecar.go`; IST0110 (with selectors) and IST0111 (without) of istioctl.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut by_namespace: BTreeMap<&Namespace, Vec<&SidecarObject>> = BTreeMap::new();
    for sidecar in &mesh.sidecars {
        by_namespace.entry(&sidecar.object.namespace).or_default().push(sidecar);
    }
    for (namespace, sidecars) in by_namespace.into_iter().filter(|(_, sidecars)| sidecars.len() > 1) {
        let mut without_selector = sidecars.iter().filter(|sidecar| sidecar.selector.is_none());
        if let Some(winner) = without_selector.next() {
            for loser in without_selector {
                report(loser, winner, &format!("namespace {namespace}"), "spec", Some("IST0111"), out);
            }
        }
        let with_selector: Vec<_> =
            sidecars.iter().filter_map(|sidecar| Some((*sidecar, sidecar.selector.as_ref()?))).collect();
        let workloads: Vec<_> = mesh.workloads.iter().filter(|workload| workload.namespace() == namespace).collect();
        for (index, (loser, selector)) in with_selector.iter().enumerate().skip(1) {
            let selected = || workloads.iter().filter(|workload| workload.labels.contains_all(selector));
            let conflict = with_selector[..index].iter().find_map(|(winner, older_selector)| {
                Some((winner, selected().find(|workload| workload.labels.contains_all(older_selector))?))
            });
            if let Some((winner, pod)) = conflict {
                report(loser, winner, &pod.title(), "spec.workloadSelector", Some("IST0110"), out);
            }
        }
    }
}

fn report(
    loser: &SidecarObject,
    winner: &SidecarObject,
    scope: &str,
    field: &str,
    code: Option<&'static str>,
    out: &mut Findings<'_>,
) {
    let mut finding = Finding::new(&RULE, &loser.object, field)
        .message(format!("{} does not apply to {scope}, because {} is older", loser.object, winner.object))
        .impact(
            "the hosts that only this object lists stay hidden: calls to them bypass the mesh or fail \
             with UNAVAILABLE",
        )
        .fix(format!("merge the hosts of both into {}", winner.object));
    finding.istio_code = code;
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, pod};

    fn sidecars(first: &str, second: &str) -> String {
        let sidecar =
            |name, selector: &str| istio("Sidecar", name, &format!("{{{selector}egress: [{{hosts: [./*]}}]}}"));
        pod("a", "v1") + &sidecar("one", first) + &sidecar("two", second)
    }

    const APP: &str = "workloadSelector: {labels: {app: a}}, ";

    #[test]
    fn reports_two_sidecars_for_a_namespace_or_a_pod() {
        assert_findings(&RULE, &sidecars("", ""), &["error Sidecar shop/two spec"]);
        assert_undecided_on_gap(&RULE, &sidecars("", ""));
        let by_version = "workloadSelector: {labels: {version: v1}}, ";
        assert_findings(&RULE, &sidecars(APP, by_version), &["error Sidecar shop/two spec.workloadSelector"]);
    }

    #[test]
    fn accepts_one_sidecar_with_and_one_without_a_selector() {
        assert_findings(&RULE, &sidecars("", APP), &[]);
        assert_findings(&RULE, &sidecars(APP, "workloadSelector: {labels: {app: b}}, "), &[]);
    }
}
