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
    summary: "Two Sidecar objects for one pod or one namespace: only the older one acts",
    docs: "\
## What it looks for
Two Sidecar objects without a selector in one namespace, and two whose selectors pick the same pod.

## Why it matters for gRPC
They are not merged: the older one acts, and the hosts that the other lists stay hidden. Calls to them leave the mesh as
plain connections, or are refused.

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

## Repair
Join the lists of hosts in one object.

## References
- From Istio's code: `pilot/pkg/model/sidecar.go`; istioctl's IST0110 (selectors) and IST0111 (none).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut by_namespace: BTreeMap<&Namespace, Vec<&SidecarObject>> = BTreeMap::new();
    for sidecar in &mesh.sidecars {
        by_namespace.entry(&sidecar.object.namespace).or_default().push(sidecar);
    }
    for (namespace, sidecars) in by_namespace.into_iter().filter(|(_, sidecars)| sidecars.len() > 1) {
        let mut general = sidecars.iter().filter(|sidecar| sidecar.selector.is_none());
        if let Some(winner) = general.next() {
            for loser in general {
                report(loser, winner, "for the whole namespace", "spec", Some("IST0111"), out);
            }
        }
        let selecting: Vec<_> = sidecars.iter().filter_map(|one| Some((*one, one.selector.as_ref()?))).collect();
        let here: Vec<_> = mesh.workloads.iter().filter(|workload| workload.namespace() == namespace).collect();
        for (at, (loser, wanted)) in selecting.iter().enumerate().skip(1) {
            let pods = || here.iter().filter(|workload| workload.labels.contains_all(wanted));
            let both = selecting[..at].iter().find_map(|(winner, other)| {
                Some((winner, pods().find(|workload| workload.labels.contains_all(other))?))
            });
            if let Some((winner, pod)) = both {
                let whom = format!("for {}", pod.title());
                report(loser, winner, &whom, "spec.workloadSelector", Some("IST0110"), out);
            }
        }
    }
}

fn report(
    loser: &SidecarObject,
    winner: &SidecarObject,
    whom: &str,
    field: &str,
    code: Option<&'static str>,
    out: &mut Findings<'_>,
) {
    let mut finding = Finding::new(&RULE, &loser.object, field)
        .message(format!("{} is also {whom}, and wins", winner.object))
        .impact("the hosts that only this object lists stay hidden: calls to them leave the mesh, or are refused")
        .fix(format!("join the hosts of both in {}", winner.object));
    finding.istio_code = code;
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, pod};

    fn two(first: &str, second: &str) -> String {
        let sidecar =
            |name, selector: &str| istio("Sidecar", name, &format!("{{{selector}egress: [{{hosts: [./*]}}]}}"));
        pod("a", "v1") + &sidecar("one", first) + &sidecar("two", second)
    }

    const APP: &str = "workloadSelector: {labels: {app: a}}, ";

    #[test]
    fn two_for_a_namespace_or_a_pod_are_errors() {
        check(&RULE, &two("", ""), &["error Sidecar shop/two spec"]);
        check_gap(&RULE, &two("", ""));
        let by_version = "workloadSelector: {labels: {version: v1}}, ";
        check(&RULE, &two(APP, by_version), &["error Sidecar shop/two spec.workloadSelector"]);
    }

    #[test]
    fn one_of_each_kind_is_silent() {
        check(&RULE, &two("", APP), &[]);
        check(&RULE, &two(APP, "workloadSelector: {labels: {app: b}}, "), &[]);
    }
}
