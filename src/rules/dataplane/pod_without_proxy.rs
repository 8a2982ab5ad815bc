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
    summary: "A pod without a proxy, in an injected namespace or next to pods with a proxy",
    docs: "\
## What it looks for
A pod without a sidecar although its namespace or labels enable injection, and a pod of a gRPC Service without a
sidecar while other pods of the Service have one.

## Why it matters for gRPC
As a client, such a pod does not balance calls: its gRPC connection stays with one server. As a server, it has no mTLS
and no authorization, and a `STRICT` policy does not protect it. The pod is usually older than the label, because
injection happens only when a pod is created.

## Example
```yaml
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}    # set after the pods were created
```

## Fix
```sh
kubectl rollout restart -n shop deployment/checkout
```

## References
- Istio source: `pkg/kube/inject/inject.go`. Label changes apply to new pods only.
- Verified on a real mesh: `tests/lab/effects/GM701.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    // One finding per workload, not per pod.
    let mut not_injected: BTreeMap<(Namespace, String), Vec<&Workload>> = BTreeMap::new();
    for workload in &mesh.workloads {
        if workload.proxy == ProxyKind::None(NoProxyReason::NotInjected) {
            not_injected.entry((workload.namespace().clone(), workload.title())).or_default().push(workload);
        }
    }
    for ((namespace, title), pods) in not_injected {
        let Some(first) = pods.first() else { continue };
        let names: Vec<_> = pods.iter().take(3).map(|pod| pod.object.name.to_string()).collect();
        let restart = match &first.owner {
            Some((kind, name)) => format!("kubectl rollout restart -n {namespace} {}/{name}", kind.to_lowercase()),
            None => format!("kubectl delete pod -n {namespace} {}    # then create it again", first.object.name),
        };
        let finding = Finding::new(&RULE, &first.object, "spec.containers")
            .message(format!(
                "{} of {title} in namespace {namespace} {} no sidecar, although injection is enabled",
                count(pods.len()),
                have(pods.len())
            ))
            .impact(
                "outgoing calls of these pods are not balanced, calls to them have no mTLS, and policies do not apply to \
                 them",
            )
            .evidence([format!("pods without a proxy: {}", names.join(", "))])
            .fix(restart);
        out.add(&RULE, finding);
    }
    for service in mesh.services.iter().filter(|service| service.has_grpc_evidence()) {
        let is_meshed = |workload: &&WorkloadId| {
            matches!(mesh.workload(**workload).proxy, ProxyKind::Sidecar(_) | ProxyKind::WillBeInjected)
        };
        let meshed_count = service.workloads.iter().filter(is_meshed).count();
        let without_proxy: Vec<_> = mesh
            .workloads_of(service)
            .filter(|workload| {
                matches!(
                    workload.proxy,
                    ProxyKind::None(NoProxyReason::NotRequested | NoProxyReason::Disabled | NoProxyReason::HostNetwork)
                )
            })
            .collect();
        let Some(first) = without_proxy.first().filter(|_| meshed_count > 0) else { continue };
        let names: Vec<_> =
            without_proxy.iter().take(3).map(|pod| format!("{} ({})", pod.object.name, pod.proxy)).collect();
        let finding = Finding::new(&RULE, &first.object, "spec.containers")
            .message(format!(
                "{} of {} {} no sidecar, while {meshed_count} {} one",
                count(without_proxy.len()),
                service.object,
                have(without_proxy.len()),
                have(meshed_count)
            ))
            .impact("calls to these pods have no mTLS and no authorization, and their outgoing calls are not balanced")
            .evidence([format!("pods without a proxy: {}", names.join(", "))])
            .fix(format!(
                "add the label sidecar.istio.io/inject: \"true\" to the pod template and restart {}",
                first.title()
            ));
        out.add(&RULE, finding);
    }
}

fn have(count: usize) -> &'static str {
    if count == 1 { "has" } else { "have" }
}

fn count(pods: usize) -> String {
    if pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, pod, service};

    const NAMESPACE: &str =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio-injection: enabled}}\n";

    fn pod_without_proxy(app: &str, version: &str) -> String {
        let yaml = pod(app, version);
        let (before, after) = yaml.split_once(", {name: istio-proxy").unwrap();
        let after = after.split_once("}]}").unwrap().1;
        format!("{before}]}}{after}")
    }

    #[test]
    fn reports_a_pod_that_injection_missed() {
        assert_findings(
            &RULE,
            &(NAMESPACE.to_owned() + &pod_without_proxy("a", "v1")),
            &["warning Pod shop/a-v1 spec.containers"],
        );
    }

    #[test]
    fn reports_a_pod_without_a_proxy_next_to_meshed_pods() {
        let yaml = service("a", "{name: grpc, port: 1}") + &pod("a", "v1") + &pod_without_proxy("a", "v2");
        assert_findings(&RULE, &yaml, &["warning Pod shop/a-v2 spec.containers"]);
    }

    #[test]
    fn accepts_meshed_pods_and_namespaces_without_injection() {
        assert_findings(&RULE, &(NAMESPACE.to_owned() + &pod("a", "v1")), &[]);
        assert_findings(&RULE, &(service("a", "{name: grpc, port: 1}") + &pod_without_proxy("a", "v1")), &[]);
        let off = pod_without_proxy("a", "v1").replace("labels: {", "labels: {sidecar.istio.io/inject: 'false', ");
        assert_findings(&RULE, &(NAMESPACE.to_owned() + &off), &[]);
        let template = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {app: a}}, spec: {containers: []}}}\n";
        assert_findings(&RULE, &(NAMESPACE.to_owned() + template), &[]);
    }
}
