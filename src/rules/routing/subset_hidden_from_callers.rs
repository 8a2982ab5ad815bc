//! GM204: a subset that is defined, but not in the DestinationRule that these callers get.

use std::collections::{BTreeMap, BTreeSet};

use crate::mesh::Mesh;
use crate::mesh::ids::{Host, Namespace, ObjectRef, SubsetName};
use crate::mesh::xds::{DestinationUse, MissingCluster, MissingClusterCause};
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
A route or mirror to a subset that some DestinationRule for the destination defines, when proxies that use the route do
not get that DestinationRule: another one in their own namespace or with a more specific host takes precedence, or the
DestinationRule is in a namespace where Istio does not look. Sidecars, gateways and egress gateways count, and the rules
of delegates.

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

/// Subsets of one host that do not exist for the callers of one rule.
struct HiddenSubsets<'m> {
    first: &'m MissingCluster,
    names: Vec<&'m SubsetName>,
    callers: BTreeSet<&'m Namespace>,
}

/// Rule, host, DestinationRules that apply instead, and use of the destination.
type GroupKey<'m> = (&'m ObjectRef, &'m str, &'m Host, &'m [ObjectRef], DestinationUse);

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut groups: BTreeMap<GroupKey<'_>, HiddenSubsets<'_>> = BTreeMap::new();
    for missing in mesh.missing_clusters() {
        let MissingClusterCause::SubsetHidden { applied } = &missing.cause else { continue };
        let Some(subset) = &missing.subset else { continue };
        // `spec.http[0].route[1].destination` and its siblings belong to one rule.
        let rule = missing.field.split(']').next().unwrap_or_default();
        let key = (&missing.object, rule, &missing.host, applied.as_slice(), missing.use_of_calls);
        let group = groups.entry(key).or_insert_with(|| HiddenSubsets {
            first: missing,
            names: Vec::new(),
            callers: BTreeSet::new(),
        });
        if !group.names.contains(&subset) {
            group.names.push(subset);
        }
        group.callers.extend(&missing.callers);
    }
    for ((.., applied, _), group) in groups {
        report(mesh, applied, &group, out);
    }
}

fn report(mesh: &Mesh<'_>, applied: &[ObjectRef], group: &HiddenSubsets<'_>, out: &mut Findings<'_>) {
    let MissingCluster { object, field, host, use_of_calls, .. } = group.first;
    let (noun, verb) = if group.names.len() == 1 { ("subset", "does") } else { ("subsets", "do") };
    let names = group.names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let namespaces = group.callers.iter().map(|namespace| namespace.as_str()).collect::<Vec<_>>().join(", ");
    let applied_names = applied.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let applied_text = if applied.is_empty() { "no DestinationRule" } else { &applied_names };
    let (severity, impact) = match use_of_calls {
        DestinationUse::Calls => {
            (Severity::Error, "their calls on this route fail with UNAVAILABLE (flag NC, cluster not found)")
        }
        DestinationUse::Copies => (Severity::Warning, "mirrored calls are lost; callers are not affected"),
        DestinationUse::Nothing => (
            Severity::Warning,
            "none at weight 0; with a weight above 0, that share of their calls fails with UNAVAILABLE (flag NC)",
        ),
    };
    let defining: Vec<&ObjectRef> = group.names.first().map_or(Vec::new(), |name| rules_with_subset(mesh, host, name));
    let fix = match (applied, defining.as_slice()) {
        ([], [rule, ..]) => format!(
            "move {rule} to namespace {}, or define {noun} {names} there",
            mesh.namespace_of_host(host).unwrap_or_else(|| mesh.root_namespace.clone())
        ),
        _ => format!("define {noun} {names} in {applied_names}, or narrow its host"),
    };
    let finding = Finding::new(&RULE, object, format!("{field}.subset"))
        .severity(severity)
        .message(format!(
            "{noun} {names} of {} {verb} not exist for callers in {namespaces} that get {applied_text}",
            mesh.short_host(host)
        ))
        .impact(impact)
        .callers(&group.callers)
        .evidence(defining.iter().map(|object| format!("{object} defines {noun} {names}")))
        .depends_on(mesh.namespace_of_host(host).as_ref())
        .fix(fix);
    out.add(&RULE, finding);
}

/// The DestinationRules for a host that define a subset, in any namespace.
fn rules_with_subset<'m>(mesh: &'m Mesh<'_>, host: &'m Host, subset: &SubsetName) -> Vec<&'m ObjectRef> {
    let rules = mesh.destination_rules.covering(host.as_str()).map(|(_, rule)| rule);
    let with_subset = rules.filter(|rule| rule.spec.subsets.iter().any(|defined| defined.name == subset.as_str()));
    with_subset.map(|rule| &rule.object).collect()
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
        assert_eq!(findings(&RULE, &yaml)[0].callers, ["shop"]);
    }

    #[test]
    fn is_silent_on_merged_destination_rules_and_on_undefined_subsets() {
        assert_findings(&RULE, &mesh(), &[]);
        assert_findings(&RULE, &(mesh() + &istio("DestinationRule", "b", "{host: a, subsets: [{name: v2}]}")), &[]);
        assert_findings(&RULE, &mesh().replace("subset: v1}", "subset: v9}"), &[]);
        assert_findings(&RULE, &(mesh() + &in_web(&pod("web", "v1"))), &[]);
    }

    /// The rule's own host is another one than that of the destination, and the rule is a delegate's.
    #[test]
    fn judges_the_host_of_the_destination_for_delegates_mirrors_and_gateways() {
        let own_rule = in_web(&istio("DestinationRule", "w", "{host: '*.shop.svc.cluster.local', trafficPolicy: {}}"));
        let base = service("a", "{name: grpc, port: 1}")
            + &service("b", "{name: grpc, port: 1}").replace("10.96.0.9", "10.96.0.10")
            + &in_web(&pod("web", "v1"))
            + &istio("DestinationRule", "a", SUBSET)
            + &own_rule;
        let root = "{hosts: [b.shop.svc.cluster.local], http: [{delegate: {name: rules}}]}";
        let rules = "{http: [{route: [{destination: {host: b}}], mirror: {host: a, subset: v1}}, {route: [{destination: {host: a, subset: v1}}]}]}";
        let yaml = base.clone() + &istio("VirtualService", "root", root) + &istio("VirtualService", "rules", rules);
        assert_findings(
            &RULE,
            &yaml,
            &[
                "warning VirtualService shop/rules spec.http[0].mirror.subset",
                "error VirtualService shop/rules spec.http[1].route[0].destination.subset",
            ],
        );
        let gateway = in_web(&istio(
            "Gateway",
            "gw",
            "{selector: {app: gw}, servers: [{port: {number: 80, name: grpc, protocol: GRPC}, hosts: ['*']}]}",
        ));
        let rules =
            "{hosts: [a.example.com], gateways: [web/gw], http: [{route: [{destination: {host: a, subset: v1}}]}]}";
        let yaml = base + &gateway + &istio("VirtualService", "edge", rules);
        assert_findings(&RULE, &yaml, &["error VirtualService shop/edge spec.http[0].route[0].destination.subset"]);
    }

    #[test]
    fn reports_a_destination_rule_in_a_namespace_where_istio_does_not_look() {
        let elsewhere = "metadata: {name: a, namespace: rules}";
        let rule = istio("DestinationRule", "a", SUBSET).replace("metadata: {name: a}", elsewhere);
        let yaml = mesh().replace(&istio("DestinationRule", "a", SUBSET), "")
            + &rule.replace("host: a,", "host: a.shop.svc.cluster.local,");
        assert_findings(&RULE, &yaml, &["error VirtualService shop/r spec.http[0].route[0].destination.subset"]);
    }
}
