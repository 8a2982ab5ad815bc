//! GM702: a gRPC Service without ready endpoints.

use std::collections::BTreeMap;

use crate::mesh::Mesh;
use crate::mesh::ids::Namespace;
use crate::mesh::workload::Workload;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::snapshot::SourceKind;
use crate::vocabulary::nearest_name;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM702",
    name: "no-ready-pods",
    severity: Severity::Error,
    needs: &[Kind::Pod],
    istio_code: None,
    summary: "A gRPC Service without ready endpoints",
    docs: "\
## What it looks for
A Service with a gRPC port whose selector picks no ready pod, or no pod at all.

## Why it matters for gRPC
The cluster has no healthy endpoint: every call fails with UNAVAILABLE, flag `UH`, details `no_healthy_upstream`.

## Example
```yaml
kind: Service
spec: {selector: {app: chekout}}       # the pods carry app: checkout
```

## Repair
```sh
kubectl get pods -n shop -l app=checkout
kubectl get endpointslices -n shop -l kubernetes.io/service-name=checkout
```

## References
- Seen on a real mesh: `tests/lab/effects/GM702.yaml`.
- Envoy's response flags: UH.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    // By namespace, the values of `app` with a workload that carries each.
    let mut apps: BTreeMap<&Namespace, BTreeMap<&str, &Workload>> = BTreeMap::new();
    for workload in &mesh.workloads {
        let apps = apps.entry(workload.namespace()).or_default();
        if let Some(app) = workload.labels.get("app") {
            apps.entry(app).or_insert(workload);
        }
    }
    for service in &mesh.services {
        if !service.has_grpc()
            || !service.is_kubernetes()
            || service.selector.is_empty()
            || service.endpoints.may_serve()
        {
            continue;
        }
        // Manifests of a namespace without any workload do not tell who runs there.
        let neighbours = apps.get(service.namespace());
        if mesh.snapshot.source == SourceKind::Manifests && !mesh.knows_pods_in(service.namespace()) {
            out.undecided(&RULE);
            continue;
        }
        let path = service.namespace();
        let idle = mesh.idle_workloads_of(service);
        let (message, evidence, fix) = if service.endpoints.total == 0
            && let Some(first) = idle.first()
        {
            let names: Vec<_> = idle.iter().map(ToString::to_string).collect();
            let kind = first.kind.name().to_lowercase();
            (
                format!("{} is scaled to 0", names.join(", ")),
                None,
                format!("kubectl scale -n {path} {kind}/{} --replicas=1", first.name),
            )
        } else if service.workloads.is_empty() {
            let wanted = service.selector.get("app").unwrap_or_default();
            let near = neighbours
                .into_iter()
                .flatten()
                .map(|(app, workload)| (nearest_name::edits(wanted, app), app, workload))
                .min_by_key(|(distance, app, _)| (*distance, *app))
                .filter(|(distance, ..)| *distance <= 2)
                .map(|(_, app, workload)| format!("{} carries app={app}", workload.title()));
            (
                format!("no pod carries the labels that {} selects ({})", service.object, service.selector),
                near,
                format!("kubectl get pods -n {path} --show-labels"),
            )
        } else {
            let mut owners: Vec<_> = mesh.workloads_of(service).map(crate::mesh::workload::Workload::title).collect();
            owners.sort();
            owners.dedup();
            (
                match service.endpoints.total {
                    1 => format!("the only pod of {} is not ready", service.object),
                    total => format!("none of the {total} pods of {} is ready", service.object),
                },
                Some(owners.join(", ")),
                format!("kubectl get pods -n {path} -l {}", service.selector),
            )
        };
        let finding = Finding::new(&RULE, &service.object, "spec.selector")
            .message(message)
            .impact("every call fails with UNAVAILABLE (flag UH, no healthy upstream)")
            .evidence(evidence)
            .fix(fix);
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, pod, service};

    #[test]
    fn no_pod_and_no_ready_pod_are_errors() {
        let none = service("a", "{name: grpc, port: 1}");
        check(&RULE, &none, &["error Service shop/a spec.selector"]);
        check_gap(&RULE, &none);
        let unready = none + &pod("a", "v1").replace("status: 'True'", "status: 'False'");
        assert!(findings(&RULE, &unready)[0].message.contains("the only pod of"));
    }

    #[test]
    fn ready_pods_templates_and_other_services_are_silent() {
        check(&RULE, &(service("a", "{name: grpc, port: 1}") + &pod("a", "v1")), &[]);
        let template = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {app: a}}, spec: {containers: []}}}\n";
        check(&RULE, &(service("a", "{name: grpc, port: 1}") + template), &[]);
        check(&RULE, &service("a", "{name: tcp, port: 1}"), &[]);
        check(&RULE, &service("a", "{name: grpc, port: 1}").replace("selector: {app: a}, ", ""), &[]);
    }
}
