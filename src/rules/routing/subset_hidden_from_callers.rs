//! GM204: a subset that exists, but not for these callers: they get another DestinationRule.

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
    summary: "A subset that exists, but callers get another DestinationRule",
    docs: "\
## What it looks for
A route to a subset that some DestinationRule for the host defines, while callers of that route get a DestinationRule
without it: one of their own namespace, or one whose exact host hides a wildcard.

## Why it matters for gRPC
Istio takes one DestinationRule for a host, not all: the caller's namespace first, then the Service's, then the root
namespace; inside one of them an exact host before a wildcard. The cluster of the subset does not exist for those
callers: their calls fail with UNAVAILABLE, flag `NC`, while everybody else's work.

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

## Repair
Define the subsets in the rule that the callers get, or narrow that rule's host.

## References
- Seen on a real mesh: `tests/lab/effects/GM204.yaml`.
- Istio: `pilot/pkg/model/push_context.go` (`destinationRule`), `pilot/pkg/model/destination_rule.go`.
",
    check,
};

/// Callers of one rule that lack subsets of one host.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct MissingSubset {
    host: Host,
    /// Empty is everybody.
    callers: Vec<Namespace>,
    /// The rules that they get.
    got: String,
}

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (id, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let mut lacks: BTreeMap<MissingSubset, Vec<(&SubsetName, &str)>> = BTreeMap::new();
            for target in targets {
                if let Some(subset) = &target.subset
                    && let Some(lack) = lack(mesh, id, object, &target.host, subset)
                {
                    lacks.entry(lack).or_default().push((subset, &target.field));
                }
            }
            for (MissingSubset { host, callers, got }, subsets) in lacks {
                let mut names: Vec<&str> = subsets.iter().map(|(name, _)| name.as_str()).collect();
                names.dedup();
                let (noun, verb) = if names.len() == 1 { ("subset", "does") } else { ("subsets", "do") };
                let names = names.join(", ");
                let who = if callers.is_empty() { "callers" } else { "these callers" };
                let field = subsets.first().map(|(_, field)| *field).unwrap_or_default();
                let defined = defining(mesh, &host, subsets[0].0);
                let finding = Finding::new(&RULE, &object.object, format!("{field}.destination.subset"))
                    .message(format!(
                        "{noun} {names} of {} {verb} not exist for {who}: they get {got}",
                        mesh.short_host(&host)
                    ))
                    .impact("their calls that take this route fail with UNAVAILABLE (flag NC, no such cluster)")
                    .callers(callers)
                    .evidence(defined.iter().map(|object| format!("{object} defines what they lack")))
                    .rests_on(mesh.namespace_of_host(&host).as_ref())
                    .fix(format!("define {noun} {names} in {got}, or narrow its host"));
                out.add(&RULE, finding);
            }
        }
    }
}

/// The DestinationRules for a host that define a subset.
fn defining(mesh: &Mesh<'_>, host: &Host, subset: &SubsetName) -> Vec<ObjectRef> {
    let rules = mesh.destination_rules.covering(host.as_str()).map(|(_, rule)| rule);
    let defining = rules.filter(|rule| rule.spec.subsets.iter().any(|one| one.name == subset.as_str()));
    defining.map(|rule| rule.object.clone()).collect()
}

/// The callers of a VirtualService for whom a subset that exists does not.
fn lack(
    mesh: &Mesh<'_>,
    id: VirtualServiceId,
    object: &VirtualService,
    host: &Host,
    subset: &SubsetName,
) -> Option<MissingSubset> {
    let service = mesh.find_host(host.as_str())?;
    if defining(mesh, host, subset).is_empty() {
        return None;
    }
    let views = mesh.caller_classes(service);
    let takes_route = |view: &CallerClass| {
        mesh.owning_virtual_service(view.owner) == Some(id) || (!object.acts_in_mesh() && view.is_default())
    };
    let lacking: Vec<&CallerClass> = views
        .iter()
        .filter(|view| takes_route(view) && (!view.is_default() || mesh.has_other_callers(&views)))
        .filter(|view| mesh.destination_rules.subset(&view.rules, subset).is_none())
        .collect();
    let first = lacking.first()?;
    let everybody = lacking.iter().any(|view| view.is_default());
    let callers = lacking.iter().filter(|_| !everybody).flat_map(|view| view.namespaces.iter().cloned()).collect();
    let names = first.rules.0.iter().map(|id| mesh.destination_rules.get(*id).object.to_string());
    let names: Vec<_> = names.collect();
    let got = if names.is_empty() { "no DestinationRule".to_owned() } else { names.join(", ") };
    Some(MissingSubset { host: host.clone(), callers, got })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, pod, service};

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
    fn callers_with_a_rule_of_their_own_are_named() {
        let theirs = in_web(&istio("DestinationRule", "w", "{host: '*.shop.svc.cluster.local', trafficPolicy: {}}"));
        let yaml = mesh() + &in_web(&pod("web", "v1")) + &theirs;
        check(&RULE, &yaml, &["error VirtualService shop/r spec.http[0].route[0].destination.subset"]);
        assert_eq!(findings(&RULE, &yaml)[0].callers, ["web"]);
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn an_exact_host_hides_a_wildcard_from_everybody() {
        let yaml = mesh().replace("host: a, subsets", "host: '*.shop.svc.cluster.local', subsets")
            + &istio("DestinationRule", "b", "{host: a, trafficPolicy: {}}");
        check(&RULE, &yaml, &["error VirtualService shop/r spec.http[0].route[0].destination.subset"]);
        assert!(findings(&RULE, &yaml)[0].callers.is_empty());
    }

    #[test]
    fn merged_rules_and_undefined_subsets_are_silent() {
        check(&RULE, &mesh(), &[]);
        check(&RULE, &(mesh() + &istio("DestinationRule", "b", "{host: a, subsets: [{name: v2}]}")), &[]);
        check(&RULE, &mesh().replace("subset: v1}", "subset: v9}"), &[]);
        check(&RULE, &(mesh() + &in_web(&pod("web", "v1"))), &[]);
    }
}
