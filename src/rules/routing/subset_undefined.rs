//! GM203: a route to a subset that no DestinationRule defines.

use std::collections::BTreeSet;

use crate::mesh::Mesh;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::ids::Host;
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::written_route::{WrittenAction, WrittenBackend, WrittenMirror, WrittenRule};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::nearest_name;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM203",
    name: "subset-undefined",
    severity: Severity::Error,
    needs: &[Kind::DestinationRule],
    istio_code: Some("IST0101"),
    summary: "A route to a subset that no DestinationRule defines",
    docs: "\
## What it looks for
A route to a subset that no DestinationRule for the host defines, in any namespace.

## Why it matters for gRPC
Envoy accepts the route, but its cluster does not exist: every call on the route fails with UNAVAILABLE, response flag
`NC`, while the access log shows HTTP status 200. With weights, only that share of the calls fails, which looks like an
unreliable server.

## Example
```yaml
kind: VirtualService
spec: {http: [{route: [{destination: {host: checkout, subset: v2}, weight: 10}, …]}]}
---
kind: DestinationRule
spec: {host: checkout, subsets: [{name: v1, labels: {version: v1}}]}
```

## Fix
Define the subset before the route uses it:
```yaml
subsets:
- name: v2
  labels: {version: v2}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM203.yaml`.
- Istio source: `pilot/pkg/networking/core/cluster_builder.go`; routes are not validated against clusters.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let WrittenRule { action, mirrors, field, .. } = &rule;
            if let WrittenAction::Forward(targets) = action {
                for target in targets {
                    let WrittenBackend { host, subset: Some(subset), field, .. } = target else { continue };
                    check_subset(
                        mesh,
                        object,
                        host,
                        subset.as_str(),
                        &format!("{field}.destination.subset"),
                        Severity::Error,
                        out,
                    );
                }
            }
            for WrittenMirror { host, subset, percent: _ } in mirrors {
                if let Some(subset) = subset {
                    check_subset(
                        mesh,
                        object,
                        host,
                        subset.as_str(),
                        &format!("{field}.mirror.subset"),
                        Severity::Warning,
                        out,
                    );
                }
            }
        }
    }
}

fn check_subset(
    mesh: &Mesh<'_>,
    object: &VirtualService,
    host: &Host,
    subset: &str,
    field: &str,
    severity: Severity,
    out: &mut Findings<'_>,
) {
    // GM201 and GM202 report unknown hosts.
    if !mesh.has_host(host.as_str()) {
        return;
    }
    let rules: Vec<_> = mesh.destination_rules.covering(host.as_str()).map(|(_, rule)| rule).collect();
    let mut defined = rules.iter().flat_map(|rule| &rule.spec.subsets).map(|subset| subset.name.as_str());
    if defined.any(|name| name == subset) {
        return;
    }
    let names: BTreeSet<&str> =
        rules.iter().flat_map(|rule| &rule.spec.subsets).map(|subset| subset.name.as_str()).collect();
    let nearest = names
        .iter()
        .map(|name| (nearest_name::edit_distance(subset, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1) && names.len() > 1 || *distance == 1)
        .map(|(_, name)| name);
    let short = mesh.short_host(host);
    let evidence = match rules.as_slice() {
        [] => format!("no DestinationRule has the host {}", host.as_str()),
        rules => {
            let objects: Vec<_> = rules.iter().map(|rule| rule.object.path()).collect();
            let names = if names.is_empty() {
                "no subsets".to_owned()
            } else {
                names.iter().copied().collect::<Vec<_>>().join(", ")
            };
            format!("DestinationRule {} defines {names}", objects.join(", "))
        }
    };
    let message = format!("no DestinationRule defines subset \"{subset}\" of {short}");
    let message = match nearest {
        Some(nearest) => format!("{message}; did you mean {nearest}?"),
        None => message,
    };
    let fix = suggest_fix(mesh, object, host, subset, &rules, nearest.or(names.first().copied()));
    let impact = if severity == Severity::Error {
        "calls on this route fail with UNAVAILABLE (flag NC, cluster not found)"
    } else {
        "mirrored calls are lost; callers are not affected"
    };
    let namespace = mesh.namespace_of_host(host);
    let finding = Finding::new(&RULE, &object.object, field)
        .severity(severity)
        .message(message)
        .impact(impact)
        .evidence([evidence])
        .depends_on(namespace.iter().chain([&mesh.root_namespace]))
        .fix(fix);
    out.add(&RULE, finding);
}

/// YAML that defines the subset or, if no pod has the label `version` for it, that uses the defined subset `defined`.
fn suggest_fix(
    mesh: &Mesh<'_>,
    object: &VirtualService,
    host: &Host,
    subset: &str,
    rules: &[&DestinationRule],
    defined: Option<&str>,
) -> String {
    let short_host = mesh.short_host(host);
    let has_pods = |version: &str| {
        let service = mesh.find_host(host.as_str()).map(|id| mesh.service(id));
        let mut pods = service.into_iter().flat_map(|service| mesh.workloads_of(service)).peekable();
        pods.peek().is_none() || pods.any(|pod| pod.labels.get("version") == Some(version))
    };
    match (rules.first(), defined) {
        (Some(_), Some(defined)) if !has_pods(subset) => {
            format!("subset: {defined}   # no pod has the label version={subset}")
        }
        (Some(rule), _) => format!(
            "# DestinationRule {}\nspec:\n  subsets:\n  - name: {subset}\n    labels: {{version: {subset}}}",
            rule.object.path()
        ),
        (None, _) => format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n  host: {}\n  subsets:\n  - name: {subset}\n    labels: {{version: {subset}}}",
            short_host.split('.').next().unwrap_or(short_host),
            mesh.namespace_of_host(host).unwrap_or_else(|| object.object.namespace.clone()),
            host.as_str()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    fn mesh(subsets: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "r",
                "{hosts: [a], http: [{route: [{destination: {host: a, subset: v1}, weight: 90}, {destination: {host: a, subset: v2}, weight: 10}]}]}",
            )
            + &istio("DestinationRule", "d", &format!("{{host: a, subsets: {subsets}}}"))
    }

    #[test]
    fn reports_a_subset_that_no_destination_rule_defines() {
        let yaml = mesh("[{name: v1, labels: {version: v1}}]");
        assert_findings(&RULE, &yaml, &["error VirtualService shop/r spec.http[0].route[1].destination.subset"]);
        assert_undecided_on_gap(&RULE, &yaml);
        assert_eq!(findings(&RULE, &yaml)[0].evidence, ["DestinationRule shop/d defines v1"]);
    }

    #[test]
    fn reports_every_subset_when_the_host_has_no_destination_rule() {
        let yaml = mesh("[]").replace("{host: a, subsets", "{host: other, subsets");
        assert_eq!(findings(&RULE, &yaml).len(), 2);
    }

    #[test]
    fn is_silent_on_subsets_that_any_rule_for_the_host_defines() {
        assert_findings(&RULE, &mesh("[{name: v1}, {name: v2}]"), &[]);
        let wildcard =
            mesh("[{name: v1}, {name: v2}]").replace("{host: a, subsets", "{host: '*.shop.svc.cluster.local', subsets");
        assert_findings(&RULE, &wildcard, &[]);
    }
}
