//! GM408: a DestinationRule that no caller gets.

use std::collections::BTreeSet;

use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;
use crate::mesh::service::Service;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM408",
    name: "destination-rule-hidden",
    severity: Severity::Warning,
    needs: &[Kind::Service, Kind::DestinationRule, Kind::Pod],
    istio_code: None,
    summary: "A DestinationRule that no caller gets, since another one wins",
    docs: "\
## What it looks for
A DestinationRule whose host covers Services, while callers of all of them get another rule: one of a namespace that is
asked earlier, one with a more precise host, or one that this rule's `exportTo` leaves the field to.

## Why it matters for gRPC
A caller gets one DestinationRule for a host: its own namespace's first, then the Service's, then the root's. What this
one says, limits, TLS, ejection, subsets, holds for nobody.

## Example
```yaml
kind: DestinationRule
metadata: {namespace: istio-system}          # the mesh's default …
spec: {host: '*.shop.svc.cluster.local', trafficPolicy: {outlierDetection: {}}}
---
kind: DestinationRule
metadata: {namespace: shop}                  # … loses to this one for every Service in shop
spec: {host: '*.shop.svc.cluster.local', trafficPolicy: {loadBalancer: {simple: RANDOM}}}
```

## Repair
Write what must hold into the rule that callers get.

## References
- From Istio's code: `pilot/pkg/model/push_context.go` (`destinationRule`); pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut used: BTreeSet<&ObjectRef> = BTreeSet::new();
    let mut winners: Vec<(&Service, Vec<&ObjectRef>)> = Vec::new();
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        // Most hosts have one rule, which nothing can hide.
        let mut covering = mesh.destination_rules.covering(service.host.as_str()).map(|(_, rule)| &rule.object);
        let (first, second) = (covering.next(), covering.next());
        if second.is_none() && first.is_none_or(|rule| rule.namespace == *service.namespace()) {
            used.extend(first);
            continue;
        }
        let mut got: BTreeSet<&ObjectRef> = BTreeSet::new();
        for view in mesh.caller_classes(id) {
            got.extend(view.rules.0.iter().map(|rule| &mesh.destination_rules.get(*rule).object));
        }
        used.extend(&got);
        winners.push((service, got.into_iter().collect()));
    }
    for rule in mesh.destination_rules.iter().filter(|rule| !used.contains(&rule.object)) {
        let covered = |service: &Service| crate::mesh::host::covers(rule.host.as_str(), service.host.as_str());
        let Some((service, got)) = winners.iter().find(|(service, _)| covered(service)) else { continue };
        let own = &rule.object.namespace;
        let elsewhere = own != service.namespace() && *own != mesh.root;
        let named: Vec<String> = got.iter().map(ToString::to_string).collect();
        let why = match (named.is_empty(), elsewhere) {
            (true, true) => format!("it is for callers in {own}, and none runs there"),
            (true, false) => "its exportTo leaves no caller".to_owned(),
            (false, _) => format!("callers of {} get {}", mesh.short_host(&service.host), named.join(", ")),
        };
        let finding = Finding::new(&RULE, &rule.object, "spec.host")
            .message("no caller gets this rule")
            .impact("its subsets, limits, TLS and ejection hold for nobody")
            .evidence([why])
            .rests_on([service.namespace()])
            .fix("write what must hold into the rule that callers get, or delete this one");
        // A default for Services that are yet to come is no mistake.
        let finding = if rule.host.as_str().starts_with('*') { finding.severity(Severity::Info) } else { finding };
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, pod, service};

    const WILD: &str = "{host: '*.shop.svc.cluster.local', trafficPolicy: {loadBalancer: {simple: RANDOM}}}";

    fn mesh() -> String {
        service("a", "{name: grpc, port: 1}")
            + &pod("a", "v1")
            + &istio("DestinationRule", "own", "{host: a, trafficPolicy: {}}")
    }

    fn in_root(yaml: &str) -> String {
        yaml.replacen("metadata: {", "metadata: {namespace: istio-system, ", 1)
    }

    #[test]
    fn a_rule_that_always_loses_is_told() {
        let yaml = mesh() + &in_root(&istio("DestinationRule", "mesh", WILD));
        check(&RULE, &yaml, &["info DestinationRule istio-system/mesh spec.host"]);
        check_gap(&RULE, &yaml);
        check(
            &RULE,
            &(mesh() + &istio("DestinationRule", "wild", WILD)),
            &["info DestinationRule shop/wild spec.host"],
        );
    }

    #[test]
    fn a_rule_that_some_service_needs_is_silent() {
        check(&RULE, &mesh(), &[]);
        let other = service("b", "{name: grpc, port: 1}") + &pod("b", "v1");
        check(&RULE, &(mesh() + &other + &in_root(&istio("DestinationRule", "mesh", WILD))), &[]);
        check(
            &RULE,
            &(mesh() + &istio("DestinationRule", "more", "{host: a, subsets: [{name: v1, labels: {version: v1}}]}")),
            &[],
        );
    }
}
