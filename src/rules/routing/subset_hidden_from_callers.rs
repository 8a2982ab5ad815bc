//! GM204: a subset that is defined, but not in the DestinationRule that these callers get.

use std::collections::BTreeMap;

use crate::mesh::Mesh;
use crate::mesh::caller_classes::CallerClass;
use crate::mesh::ids::{Host, Namespace, ObjectRef, SubsetName, VirtualServiceId};
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::written_route::WrittenAction;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM204",
    name: "subset-hidden-from-callers",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::DestinationRule],
    istio_code: None,
    summary: "A subset that is defined, but not in the DestinationRule that the callers get",
    docs: "\
## What it looks for
A route to a subset that some DestinationRule for the host defines, when callers of the route get another
DestinationRule without that subset: one in their own namespace, or one whose exact host takes precedence over a
wildcard.

## Why it matters for gRPC
Istio uses one DestinationRule per host and caller: the one in the caller's namespace, then in the namespace of the
Service, then in the root namespace; within a namespace an exact host before a wildcard. For callers whose
DestinationRule does not define the subset, its cluster does not exist: their calls fail with UNAVAILABLE, response flag
`NC`, while calls from other namespaces succeed.

## Example
```yaml
kind: DestinationRule
metadata: {name: defaults, namespace: web}     # callers in web get this one …
spec: {host: '*.shop.svc.cluster.local', trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}}
---
kind: DestinationRule
metadata: {name: checkout, namespace: shop}    # … and not this one
spec: {host: checkout, subsets: [{name: v1, labels: {version: v1}}]}
```

## Fix
Define the subsets in the DestinationRule that the callers get, or narrow the host of that rule:
```yaml
kind: DestinationRule
metadata: {name: checkout, namespace: web}
spec: {host: checkout.shop.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}]}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM204.yaml`.
- Istio source: `pilot/pkg/model/push_context.go` (`destinationRule`), `pilot/pkg/model/destination_rule.go`.
",
    check,
};

/// Callers of one rule for which subsets of one host do not exist.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct MissingSubset {
    host: Host,
    /// Namespaces of the callers; empty means all callers.
    callers: Vec<Namespace>,
    /// The DestinationRules that apply to these callers, as text.
    applied: String,
}

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (id, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let mut missing_subsets: BTreeMap<MissingSubset, Vec<(&SubsetName, &str)>> = BTreeMap::new();
            for target in targets {
                if let Some(subset) = &target.subset
                    && let Some(missing) = find_missing_subset(mesh, id, object, &target.host, subset)
                {
                    missing_subsets.entry(missing).or_default().push((subset, &target.field));
                }
            }
            for (MissingSubset { host, callers, applied }, subsets) in missing_subsets {
                let mut names: Vec<&str> = subsets.iter().map(|(name, _)| name.as_str()).collect();
                names.dedup();
                let (noun, verb) = if names.len() == 1 { ("subset", "does") } else { ("subsets", "do") };
                let names = names.join(", ");
                let affected = if callers.is_empty() {
                    "callers".to_owned()
                } else {
                    format!("callers in {}", join_namespaces(&callers))
                };
                let field = subsets.first().map(|(_, field)| *field).unwrap_or_default();
                let defining_rules = destination_rules_with_subset(mesh, &host, subsets[0].0);
                let finding = Finding::new(&RULE, &object.object, format!("{field}.destination.subset"))
                    .message(format!(
                        "{noun} {names} of {} {verb} not exist for {affected} that get {applied}",
                        mesh.short_host(&host)
                    ))
                    .impact("their calls on this route fail with UNAVAILABLE (flag NC, cluster not found)")
                    .callers(callers)
                    .evidence(defining_rules.iter().map(|object| format!("{object} defines {noun} {names}")))
                    .depends_on(mesh.namespace_of_host(&host).as_ref())
                    .fix(format!("define {noun} {names} in {applied}, or narrow its host"));
                out.add(&RULE, finding);
            }
        }
    }
}

/// The DestinationRules for a host that define a subset, in any namespace.
fn destination_rules_with_subset(mesh: &Mesh<'_>, host: &Host, subset: &SubsetName) -> Vec<ObjectRef> {
    let rules = mesh.destination_rules.covering(host.as_str()).map(|(_, rule)| rule);
    let with_subset = rules.filter(|rule| rule.spec.subsets.iter().any(|defined| defined.name == subset.as_str()));
    with_subset.map(|rule| rule.object.clone()).collect()
}

fn join_namespaces(namespaces: &[Namespace]) -> String {
    namespaces.iter().map(Namespace::as_str).collect::<Vec<_>>().join(", ")
}

/// The callers of a VirtualService whose DestinationRule does not define a subset that another one defines.
fn find_missing_subset(
    mesh: &Mesh<'_>,
    id: VirtualServiceId,
    object: &VirtualService,
    host: &Host,
    subset: &SubsetName,
) -> Option<MissingSubset> {
    let service = mesh.find_host(host.as_str())?;
    if destination_rules_with_subset(mesh, host, subset).is_empty() {
        return None;
    }
    let classes = mesh.caller_classes(service);
    let uses_route = |class: &CallerClass| {
        mesh.owning_virtual_service(class.route_owner) == Some(id) || (!object.acts_in_mesh() && class.is_default())
    };
    let affected: Vec<&CallerClass> = classes
        .iter()
        .filter(|class| uses_route(class) && (!class.is_default() || mesh.has_default_callers(&classes)))
        .filter(|class| mesh.destination_rules.subset(&class.destination_rules, subset).is_none())
        .collect();
    let first = affected.first()?;
    let includes_default_class = affected.iter().any(|class| class.is_default());
    let callers = affected
        .iter()
        .filter(|_| !includes_default_class)
        .flat_map(|class| class.namespaces.iter().cloned())
        .collect();
    let names = first.destination_rules.0.iter().map(|id| mesh.destination_rules.get(*id).object.to_string());
    let names: Vec<_> = names.collect();
    let applied = if names.is_empty() { "no DestinationRule".to_owned() } else { names.join(", ") };
    Some(MissingSubset { host: host.clone(), callers, applied })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, pod, service};

    const SUBSET: &str = "{host: a, subsets: [{name: v1, labels: {version: v1}}]}";

    fn mesh() -> String {
        service("a", "{name: grpc, port: 1}")
            + &pod("a", "v1")
            + &istio("VirtualService", "r", "{hosts: [a], http: [{route: [{destination: {host: a, subset: v1}}]}]}")
            + &istio("DestinationRule", "a", SUBSET)
    }

    fn in_web(yaml: &str) -> String {
        yaml.replacen("metadata: {", "metadata: {namespace: web, ", 1)
    }

    #[test]
    fn reports_callers_whose_namespace_has_its_own_destination_rule() {
        let own_rule = in_web(&istio("DestinationRule", "w", "{host: '*.shop.svc.cluster.local', trafficPolicy: {}}"));
        let yaml = mesh() + &in_web(&pod("web", "v1")) + &own_rule;
        assert_findings(&RULE, &yaml, &["error VirtualService shop/r spec.http[0].route[0].destination.subset"]);
        assert_eq!(findings(&RULE, &yaml)[0].callers, ["web"]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn an_exact_host_hides_a_wildcard_from_all_callers() {
        let yaml = mesh().replace("host: a, subsets", "host: '*.shop.svc.cluster.local', subsets")
            + &istio("DestinationRule", "b", "{host: a, trafficPolicy: {}}");
        assert_findings(&RULE, &yaml, &["error VirtualService shop/r spec.http[0].route[0].destination.subset"]);
        assert!(findings(&RULE, &yaml)[0].callers.is_empty());
    }

    #[test]
    fn is_silent_on_merged_destination_rules_and_on_undefined_subsets() {
        assert_findings(&RULE, &mesh(), &[]);
        assert_findings(&RULE, &(mesh() + &istio("DestinationRule", "b", "{host: a, subsets: [{name: v2}]}")), &[]);
        assert_findings(&RULE, &mesh().replace("subset: v1}", "subset: v9}"), &[]);
        assert_findings(&RULE, &(mesh() + &in_web(&pod("web", "v1"))), &[]);
    }
}
