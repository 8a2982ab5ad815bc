//! GM702: a gRPC Service without ready endpoints.

use std::collections::BTreeMap;

use crate::mesh::Mesh;
use crate::mesh::ids::Namespace;
use crate::mesh::service::{Resolution, Service};
use crate::mesh::workload::Workload;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::meta::StringMap;
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
A Service with a gRPC port whose selector matches no ready pod, or no pod at all, and a ServiceEntry with
`resolution: STATIC` that has no endpoints.

## Why it matters for gRPC
The cluster has no healthy endpoint. Every call fails with UNAVAILABLE (flag `UH`, details `no_healthy_upstream`).

## Example
```yaml
kind: Service
spec: {selector: {app: chekout}}       # the pods have the label app: checkout
```

## Fix
```sh
kubectl get pods -n shop -l app=checkout
kubectl get endpointslices -n shop -l kubernetes.io/service-name=checkout
```

## References
- Verified on a real mesh: `tests/lab/effects/GM702.yaml`.
- Envoy response flags: UH.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    // For each namespace: the values of the label `app`, each with one of its workloads.
    let mut workloads_by_app: BTreeMap<&Namespace, BTreeMap<&str, &Workload>> = BTreeMap::new();
    for workload in &mesh.workloads {
        let apps = workloads_by_app.entry(workload.namespace()).or_default();
        if let Some(app) = workload.labels.get("app") {
            apps.entry(app).or_insert(workload);
        }
    }
    for service in &mesh.services {
        if !service.has_grpc_evidence() {
            continue;
        }
        if !service.is_kubernetes() {
            check_service_entry(mesh, service, out);
            continue;
        }
        if service.selector.is_empty() || service.endpoints.may_serve() {
            continue;
        }
        // Manifests without any workload of a namespace do not show what runs there.
        if mesh.snapshot.source == SourceKind::Manifests && !mesh.covers_pods_in(service.namespace()) {
            out.add_undecided(&RULE);
            continue;
        }
        let namespace = service.namespace();
        let scaled_to_zero = mesh.workloads_scaled_to_zero(service, &StringMap::default());
        let (message, evidence, fix) = if service.endpoints.total == 0
            && let Some(first) = scaled_to_zero.first()
        {
            let names: Vec<_> = scaled_to_zero.iter().map(ToString::to_string).collect();
            let kind = first.kind.name().to_lowercase();
            (
                format!("{} has no pods: {} is scaled to 0", service.object, names.join(", ")),
                None,
                format!("kubectl scale -n {namespace} {kind}/{} --replicas=1", first.name),
            )
        } else if service.workloads.is_empty() {
            let selected_app = service.selector.get("app").unwrap_or_default();
            let similar_app = workloads_by_app
                .get(namespace)
                .into_iter()
                .flatten()
                .map(|(app, workload)| (nearest_name::edit_distance(selected_app, app), app, workload))
                .min_by_key(|(distance, app, _)| (*distance, *app))
                .filter(|(distance, ..)| *distance <= 2)
                .map(|(_, app, workload)| format!("{} has the label app={app}", workload.title()));
            (
                format!("the selector of {} ({}) matches no pod", service.object, service.selector),
                similar_app,
                format!("kubectl get pods -n {namespace} --show-labels"),
            )
        } else {
            let mut owners: Vec<_> = mesh.workloads_of(service).map(Workload::title).collect();
            owners.sort();
            owners.dedup();
            (
                match service.endpoints.total {
                    1 => format!("the only pod of {} is not ready", service.object),
                    total => format!("none of the {total} pods of {} is ready", service.object),
                },
                Some(format!("workloads: {}", owners.join(", "))),
                format!("kubectl get pods -n {namespace} -l {}", service.selector),
            )
        };
        let finding = Finding::new(&RULE, &service.object, "spec.selector")
            .message(message)
            .impact("every call fails with UNAVAILABLE (flag UH, no_healthy_upstream)")
            .evidence(evidence)
            .fix(fix);
        out.add(&RULE, finding);
    }
}

/// Reports a ServiceEntry without endpoints. With `resolution: DNS`, Envoy resolves the host itself if none is listed.
fn check_service_entry(mesh: &Mesh<'_>, service: &Service, out: &mut Findings<'_>) {
    let Resolution::ServiceEntry(resolution) = &service.resolution else { return };
    // istiod merges the ports of entries for the same host. A port that two entries have may use the other's endpoints.
    let shares_port = |entry: &&Service| entry.ports.iter().any(|port| service.port(port.number).is_some());
    let mut entries = mesh.services_named(service.host.as_str()).iter().map(|id| mesh.service(*id)).filter(shares_port);
    let has_endpoints = entries.any(|entry| !entry.endpoint_labels.is_empty() || entry.endpoints.may_serve());
    let is_selecting = !service.selector.is_empty();
    if has_endpoints
        || &**resolution != "STATIC"
        || !service.endpoint_labels.is_empty()
        || service.endpoints.may_serve()
    {
        return;
    }
    if is_selecting && mesh.snapshot.source == SourceKind::Manifests && !mesh.covers_pods_in(service.namespace()) {
        out.add_undecided(&RULE);
        return;
    }
    let (field, message) = if is_selecting {
        (
            "spec.workloadSelector",
            format!("the workloadSelector of {} ({}) matches no pod", service.object, service.selector),
        )
    } else {
        ("spec.endpoints", format!("{} has resolution STATIC and lists no endpoints", service.object))
    };
    let finding = Finding::new(&RULE, &service.object, field)
        .message(message)
        .impact("every call fails with UNAVAILABLE (flag UH, no_healthy_upstream)")
        .fix("endpoints:\n- address: 192.0.2.10   # the address of the server, or resolution: DNS for a host name");
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, pod, service};

    #[test]
    fn reports_missing_pods_and_pods_that_are_not_ready() {
        let none = service("a", "{name: grpc, port: 1}");
        assert_findings(&RULE, &none, &["error Service shop/a spec.selector"]);
        assert_undecided_on_gap(&RULE, &none);
        let unready = none + &pod("a", "v1").replace("status: 'True'", "status: 'False'");
        assert!(findings(&RULE, &unready)[0].message.contains("the only pod of"));
    }

    #[test]
    fn accepts_ready_pods_templates_and_services_without_grpc() {
        assert_findings(&RULE, &(service("a", "{name: grpc, port: 1}") + &pod("a", "v1")), &[]);
        let template = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {app: a}}, spec: {containers: []}}}\n";
        assert_findings(&RULE, &(service("a", "{name: grpc, port: 1}") + template), &[]);
        assert_findings(&RULE, &service("a", "{name: tcp, port: 1}"), &[]);
        assert_findings(&RULE, &service("a", "{name: grpc, port: 1}").replace("selector: {app: a}, ", ""), &[]);
    }
}
