//! GM205: a route to a subset without ready pods.

use crate::mesh::Mesh;
use crate::mesh::service::Service;
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::written_route::{WrittenAction, WrittenRule, weight_shares};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::share::format_percent;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM205",
    name: "subset-without-pods",
    severity: Severity::Error,
    needs: &[Kind::DestinationRule, Kind::Pod],
    istio_code: Some("IST0173"),
    summary: "A route to a subset without ready pods",
    docs: "\
## What it looks for
A route to a subset that is defined, but whose labels no ready pod of the Service has. With a weight above 0 that is an
error. With weight 0 it is a warning, because the next weight shift would fail.

## Why it matters for gRPC
The cluster of the subset exists but has no endpoints: its share of the calls fails with UNAVAILABLE, response flag
`UH`. Other subsets do not take over.

## Example
```yaml
kind: DestinationRule
spec: {host: checkout, subsets: [{name: v2, labels: {version: v2}}]}   # the pods have version: v2.0
```

## Fix
Correct the labels, or scale up the workload:
```yaml
subsets:
- name: v2
  labels: {version: v2.0}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM205.yaml`.
- Istio source: `pilot/pkg/xds/endpoints/endpoint_builder.go`; Envoy: response flags.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            check_rule(mesh, object, &rule, out);
        }
    }
}

fn check_rule(mesh: &Mesh<'_>, object: &VirtualService, rule: &WrittenRule, out: &mut Findings<'_>) {
    let WrittenAction::Forward(targets) = &rule.action else { return };
    let weights: Vec<_> = targets.iter().map(|target| target.weight).collect();
    let shares = weight_shares(&weights).unwrap_or_else(|| vec![0.0; targets.len()]);
    for (target, share) in targets.iter().zip(shares) {
        let Some(name) = &target.subset else { continue };
        let Some(service) = mesh.find_host(target.host.as_str()).map(|id| mesh.service(id)) else { continue };
        // GM702 reports a Service without any ready pod, once.
        if service.selector.is_empty() || (service.has_grpc_evidence() && !service.endpoints.may_serve()) {
            continue;
        }
        let subset = mesh.destination_rules.covering(target.host.as_str()).find_map(|(_, rule)| {
            rule.spec.subsets.iter().find(|subset| subset.name == name.as_str()).map(|subset| (rule, subset))
        });
        let Some((destination_rule, subset)) = subset else { continue };
        let pods = mesh.subset_pods(service, &subset.labels);
        if pods.may_serve() {
            continue;
        }
        let labels: Vec<_> = subset.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let labels = labels.join(",");
        let (severity, impact) = if share > 0.0 {
            (
                Severity::Error,
                format!("{} of the calls fail with UNAVAILABLE (flag UH, no healthy upstream)", format_percent(share)),
            )
        } else {
            (
                Severity::Warning,
                "none at weight 0; with a weight above 0, that share of the calls fails with UNAVAILABLE (flag UH)"
                    .to_owned(),
            )
        };
        let selected = if pods.total > 0 { format!("{} pods, none ready", pods.total) } else { "no pods".to_owned() };
        let existing = existing_labels(mesh, service, subset.labels.keys().map(String::as_str));
        let scaled_to_zero: Vec<String> = if pods.total > 0 {
            Vec::new()
        } else {
            mesh.workloads_scaled_to_zero(service, &subset.labels).iter().map(ToString::to_string).collect()
        };
        let fix = if let Some(workload) = scaled_to_zero.first() {
            format!("scale up {workload}, or set the weight to 0 while it has no pods")
        } else if pods.total > 0 {
            format!("kubectl get pods -n {} -l {labels}", service.namespace())
        } else {
            format!(
                "correct the labels of subset {} in DestinationRule {}, or scale up the workload with {labels}",
                name,
                destination_rule.object.path()
            )
        };
        let finding = Finding::new(&RULE, &object.object, format!("{}.destination.subset", target.field))
            .severity(severity)
            .message(format!("subset {name} of {} selects {selected} ({labels})", mesh.short_host(&target.host)))
            .impact(impact)
            .evidence(scaled_to_zero.iter().map(|workload| format!("{workload} is scaled to 0")))
            .evidence(scaled_to_zero.is_empty().then(|| format!("pods of {} have {existing}", service.object)))
            .depends_on([service.namespace(), &destination_rule.object.namespace])
            .fix(fix);
        out.add(&RULE, finding);
    }
}

/// Values that the pods of a Service have for these label keys, at most six, as `key=value` text.
fn existing_labels<'k>(mesh: &Mesh<'_>, service: &Service, keys: impl Iterator<Item = &'k str>) -> String {
    let mut labels: Vec<String> = keys
        .flat_map(|key| {
            mesh.workloads_of(service).filter_map(move |workload| Some(format!("{key}={}", workload.labels.get(key)?)))
        })
        .collect();
    labels.sort();
    labels.dedup();
    labels.truncate(6);
    if labels.is_empty() { "none of these labels".to_owned() } else { labels.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, pod, service};

    fn mesh(weight: u32) -> String {
        service("a", "{name: grpc, port: 1}")
            + &pod("a", "v1")
            + &istio(
                "DestinationRule",
                "d",
                "{host: a, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v9, labels: {version: v9}}]}",
            )
            + &istio(
                "VirtualService",
                "r",
                &format!(
                    "{{hosts: [a], http: [{{route: [{{destination: {{host: a, subset: v1}}, weight: 90}}, {{destination: {{host: a, subset: v2}}, weight: {weight}}}]}}]}}"
                ),
            )
    }

    #[test]
    fn reports_a_weighted_subset_without_pods_as_error() {
        assert_findings(&RULE, &mesh(10), &["error VirtualService shop/r spec.http[0].route[1].destination.subset"]);
        assert_undecided_on_gap(&RULE, &mesh(10));
        assert_eq!(findings(&RULE, &mesh(10))[0].evidence, ["pods of Service shop/a have version=v1"]);
    }

    #[test]
    fn reports_a_subset_without_pods_at_weight_zero_as_warning() {
        assert_findings(&RULE, &mesh(0), &["warning VirtualService shop/r spec.http[0].route[1].destination.subset"]);
    }

    #[test]
    fn reports_a_subset_whose_pods_are_not_ready() {
        let yaml = mesh(10) + &pod("a", "v2").replace("status: 'True'", "status: 'False'");
        assert!(findings(&RULE, &yaml)[0].message.contains("1 pods, none ready"));
    }

    #[test]
    fn is_silent_on_ready_pods_pod_templates_and_unrouted_subsets() {
        assert_findings(&RULE, &(mesh(10) + &pod("a", "v2")), &[]);
        let template = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {app: a, version: v2}}, spec: {containers: []}}}\n";
        let no_pods = mesh(10).replace(&pod("a", "v1"), "")
            + template
            + &template.replace("v2", "v1").replace("name: a}", "name: b}");
        assert_findings(&RULE, &no_pods, &[]);
    }
}
