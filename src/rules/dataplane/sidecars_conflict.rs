//! GM710: two Sidecar objects for one pod or namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::mesh::ids::{Labels, Namespace};
use crate::mesh::workload::Workload;
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
    let mut workloads: HashMap<&Namespace, Vec<&Workload>> = HashMap::new();
    for workload in &mesh.workloads {
        workloads.entry(workload.namespace()).or_default().push(workload);
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
        let workloads = workloads.get(namespace).map_or(&[][..], Vec::as_slice);
        for ((loser, _), conflict) in with_selector.iter().zip(oldest_conflicts(&with_selector, workloads)) {
            if let Some((winner, pod)) = conflict.and_then(|(index, pod)| Some((with_selector.get(index)?.0, pod))) {
                report(loser, winner, &pod.title(), "spec.workloadSelector", Some("IST0110"), out);
            }
        }
    }
}

/// For each Sidecar, the index of the oldest other one that selects a pod which both select, and the first such pod.
///
/// Looks only at the Sidecars that can select a pod, because a namespace may have as many of them as pods.
fn oldest_conflicts<'w>(
    sidecars: &[(&SidecarObject, &Labels)],
    workloads: &[&'w Workload],
) -> Vec<Option<(usize, &'w Workload)>> {
    let pairs =
        |labels: &Labels| labels.iter().map(|(key, value)| (Arc::clone(key), Arc::clone(value))).collect::<Vec<_>>();
    let mut uses: HashMap<(Arc<str>, Arc<str>), usize> = HashMap::new();
    for (_, selector) in sidecars {
        for pair in pairs(selector) {
            *uses.entry(pair).or_default() += 1;
        }
    }
    // Each Sidecar is found by its rarest label; one whose selector is empty selects every pod.
    let mut by_label: HashMap<(Arc<str>, Arc<str>), Vec<usize>> = HashMap::new();
    let mut of_all_pods = Vec::new();
    for (index, (_, selector)) in sidecars.iter().enumerate() {
        match pairs(selector).into_iter().min_by_key(|pair| uses.get(pair).copied()) {
            Some(pair) => by_label.entry(pair).or_default().push(index),
            None => of_all_pods.push(index),
        }
    }
    let mut conflicts: Vec<Option<(usize, &Workload)>> = vec![None; sidecars.len()];
    for workload in workloads {
        let candidates = pairs(&workload.labels).into_iter().filter_map(|pair| by_label.get(&pair)).flatten();
        let selects =
            |index: &usize| sidecars.get(*index).is_some_and(|(_, selector)| workload.labels.contains_all(selector));
        let mut selecting: Vec<usize> = candidates.chain(&of_all_pods).copied().filter(selects).collect();
        selecting.sort_unstable();
        let Some((oldest, others)) = selecting.split_first() else { continue };
        for other in others {
            if let Some(conflict) = conflicts.get_mut(*other)
                && conflict.is_none_or(|(index, _)| *oldest < index)
            {
                *conflict = Some((*oldest, workload));
            }
        }
    }
    conflicts
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
