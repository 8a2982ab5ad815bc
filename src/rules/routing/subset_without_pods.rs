//! GM205: a route leads to a subset without ready pods.

use crate::mesh::Mesh;
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::written_route::{WrittenAction, WrittenRule, shares};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::share::format_percent;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM205",
    name: "subset-without-pods",
    severity: Severity::Error,
    needs: &[Kind::DestinationRule, Kind::Pod],
    istio_code: Some("IST0173"),
    summary: "A route leads to a subset without ready pods",
    docs: "\
## What it looks for
A route whose destination names a subset that is defined, but whose labels no ready pod of the Service carries. With
weight above 0 that is an error, with weight 0 a warning: the next shift would break.

## Why it matters for gRPC
The subset's cluster exists and is empty: its share of the calls fails with UNAVAILABLE, flag `UH`. Other subsets do not
step in.

## Example
```yaml
kind: DestinationRule
spec: {host: checkout, subsets: [{name: v2, labels: {version: v2}}]}   # pods carry version: v2.0
```

## Repair
Make the labels fit, or scale the workload up:
```yaml
subsets:
- name: v2
  labels: {version: v2.0}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM205.yaml`.
- Istio: `pilot/pkg/xds/endpoints/endpoint_builder.go`; Envoy's response flags.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            judge(mesh, object, &rule, out);
        }
    }
}

fn judge(mesh: &Mesh<'_>, object: &VirtualService, rule: &WrittenRule, out: &mut Findings<'_>) {
    let WrittenAction::Forward(targets) = &rule.action else { return };
    let weights: Vec<_> = targets.iter().map(|target| target.weight).collect();
    let shares = shares(&weights).unwrap_or_else(|| vec![0.0; targets.len()]);
    for (target, share) in targets.iter().zip(shares) {
        let Some(name) = &target.subset else { continue };
        let Some(service) = mesh.find_host(target.host.as_str()).map(|id| mesh.service(id)) else { continue };
        // A Service without any ready pod is told once, for the Service.
        if service.selector.is_empty() || (service.has_grpc() && !service.endpoints.may_serve()) {
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
        let (severity, effect) = if share > 0.0 {
            (
                Severity::Error,
                format!("{} of the calls fail with UNAVAILABLE (flag UH, no healthy upstream)", format_percent(share)),
            )
        } else {
            (
                Severity::Warning,
                "no calls go there now; the first weight above 0 makes them fail with UNAVAILABLE (flag UH)".to_owned(),
            )
        };
        let what = if pods.total > 0 { format!("{} pods, none ready", pods.total) } else { "no pod".to_owned() };
        let mut carried: Vec<String> = subset
            .labels
            .keys()
            .flat_map(|key| {
                mesh.workloads_of(service)
                    .filter_map(move |workload| Some(format!("{key}={}", workload.labels.get(key)?)))
            })
            .collect();
        carried.sort();
        carried.dedup();
        carried.truncate(6);
        let carried = if carried.is_empty() { "none of these labels".to_owned() } else { carried.join(", ") };
        let fix = if pods.total > 0 {
            format!("kubectl get pods -n {} -l {labels}", service.namespace())
        } else {
            format!(
                "make the labels of subset {} in DestinationRule {} fit the pods, or scale up the workload with {labels}",
                name,
                destination_rule.object.path()
            )
        };
        let owner = service.namespace().clone();
        let finding = Finding::new(&RULE, &object.object, format!("{}.destination.subset", target.field))
            .severity(severity)
            .message(format!("subset {name} of {} selects {what} ({labels})", mesh.short_host(&target.host)))
            .impact(effect)
            .evidence([format!("pods of {} carry {carried}", service.object)])
            .rests_on([&owner, &destination_rule.object.namespace])
            .fix(fix);
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, pod, service};

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
    fn a_weighted_subset_without_pods_is_an_error() {
        check(&RULE, &mesh(10), &["error VirtualService shop/r spec.http[0].route[1].destination.subset"]);
        check_gap(&RULE, &mesh(10));
        assert_eq!(findings(&RULE, &mesh(10))[0].evidence, ["pods of Service shop/a carry version=v1"]);
    }

    #[test]
    fn at_weight_zero_it_is_a_warning() {
        check(&RULE, &mesh(0), &["warning VirtualService shop/r spec.http[0].route[1].destination.subset"]);
    }

    #[test]
    fn pods_that_are_not_ready_do_not_count() {
        let yaml = mesh(10) + &pod("a", "v2").replace("status: 'True'", "status: 'False'");
        assert!(findings(&RULE, &yaml)[0].message.contains("1 pods, none ready"));
    }

    #[test]
    fn ready_pods_templates_and_unrouted_subsets_are_silent() {
        check(&RULE, &(mesh(10) + &pod("a", "v2")), &[]);
        let template = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {app: a, version: v2}}, spec: {containers: []}}}\n";
        let no_pods = mesh(10).replace(&pod("a", "v1"), "")
            + template
            + &template.replace("v2", "v1").replace("name: a}", "name: b}");
        check(&RULE, &no_pods, &[]);
    }
}
