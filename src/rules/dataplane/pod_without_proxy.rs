//! GM701: a pod without a proxy where one is expected.

use std::collections::BTreeMap;

use crate::mesh::Mesh;
use crate::mesh::ids::{Namespace, WorkloadId};
use crate::mesh::workload::{NoProxyReason, ProxyKind, Workload};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM701",
    name: "pod-without-proxy",
    severity: Severity::Warning,
    needs: &[],
    istio_code: Some("IST0103"),
    summary: "A pod without a proxy, in an injected namespace or beside meshed siblings",
    docs: "\
## What it looks for
A pod whose namespace or labels ask for a sidecar but which has none, and a pod behind a gRPC Service whose other pods
have one.

## Why it matters for gRPC
As a client such a pod balances nothing: its gRPC connection stays with one server. As a server it does no mTLS and no
authorization, and a `STRICT` policy does not protect it. It is usually older than the label, since injection happens
only when a pod is made.

## Example
```yaml
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}    # set after the pods were made
```

## Repair
```sh
kubectl rollout restart -n shop deployment/checkout
```

## References
- Istio: `pkg/kube/inject/inject.go`; label changes act on new pods only.
- Seen on a real mesh: `tests/lab/effects/GM701.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    // One finding a workload, not one a pod.
    let mut missed: BTreeMap<(Namespace, String), Vec<&Workload>> = BTreeMap::new();
    for workload in &mesh.workloads {
        if workload.proxy == ProxyKind::None(NoProxyReason::Missed) {
            missed.entry((workload.namespace().clone(), workload.title())).or_default().push(workload);
        }
    }
    for ((namespace, title), pods) in missed {
        let Some(first) = pods.first() else { continue };
        let names: Vec<_> = pods.iter().take(3).map(|pod| pod.object.name.to_string()).collect();
        let restart = match &first.owner {
            Some((kind, name)) => format!("kubectl rollout restart -n {namespace} {}/{name}", kind.to_lowercase()),
            None => format!("kubectl delete pod -n {namespace} {}    # and make it again", first.object.name),
        };
        let finding = Finding::new(&RULE, &first.object, "spec.containers")
            .message(format!("{} of {title} in {namespace} should have a sidecar and has none", count(pods.len())))
            .impact("its gRPC connections stay with one server; it does no mTLS, and policies do not act on it")
            .evidence([format!("without a proxy: {}", names.join(", "))])
            .fix(restart);
        out.add(&RULE, finding);
    }
    for service in mesh.services.iter().filter(|service| service.has_grpc()) {
        let meshed = |workload: &&WorkloadId| {
            matches!(mesh.workload(**workload).proxy, ProxyKind::Sidecar(_) | ProxyKind::WillBeInjected)
        };
        let siblings = service.workloads.iter().filter(meshed).count();
        let bare: Vec<_> = mesh
            .workloads_of(service)
            .filter(|workload| {
                matches!(
                    workload.proxy,
                    ProxyKind::None(NoProxyReason::NotAsked | NoProxyReason::SwitchedOff | NoProxyReason::HostNetwork)
                )
            })
            .collect();
        let Some(first) = bare.first().filter(|_| siblings > 0) else { continue };
        let names: Vec<_> = bare.iter().take(3).map(|pod| format!("{} ({})", pod.object.name, pod.proxy)).collect();
        let finding = Finding::new(&RULE, &first.object, "spec.containers")
            .message(format!(
                "{} behind {} has no sidecar, {siblings} beside it have one",
                count(bare.len()),
                service.object
            ))
            .impact("calls to it have no mTLS and no authorization; as a client it keeps to one server")
            .evidence([names.join(", ")])
            .fix(format!("give the pods the label sidecar.istio.io/inject: \"true\" and restart {}", first.title()));
        out.add(&RULE, finding);
    }
}

fn count(pods: usize) -> String {
    if pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, pod, service};

    const NAMESPACE: &str =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}\n";

    fn bare(app: &str, version: &str) -> String {
        let yaml = pod(app, version);
        let (before, after) = yaml.split_once(", {name: istio-proxy").unwrap();
        let after = after.split_once("}]}").unwrap().1;
        format!("{before}]}}{after}")
    }

    #[test]
    fn a_pod_that_was_missed_is_reported() {
        check(&RULE, &(NAMESPACE.to_owned() + &bare("a", "v1")), &["warning Pod shop/a-v1 spec.containers"]);
    }

    #[test]
    fn a_bare_pod_beside_meshed_siblings_is_reported() {
        let yaml = service("a", "{name: grpc, port: 1}") + &pod("a", "v1") + &bare("a", "v2");
        check(&RULE, &yaml, &["warning Pod shop/a-v2 spec.containers"]);
    }

    #[test]
    fn meshed_pods_and_namespaces_without_injection_are_silent() {
        check(&RULE, &(NAMESPACE.to_owned() + &pod("a", "v1")), &[]);
        check(&RULE, &(service("a", "{name: grpc, port: 1}") + &bare("a", "v1")), &[]);
        let off = bare("a", "v1").replace("labels: {", "labels: {sidecar.istio.io/inject: 'false', ");
        check(&RULE, &(NAMESPACE.to_owned() + &off), &[]);
        let template = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {app: a}}, spec: {containers: []}}}\n";
        check(&RULE, &(NAMESPACE.to_owned() + template), &[]);
    }
}
