//! GM408: a DestinationRule that applies to no caller.

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
    summary: "A DestinationRule that applies to no caller, because another one takes precedence",
    docs: "\
## What it looks for
A DestinationRule whose host covers existing Services, while every caller of these Services gets another
DestinationRule: one from a namespace that Istio looks up first, one with a more specific host, or any other one
because `exportTo` of this rule leaves no caller.

## Why it matters for gRPC
Istio applies one DestinationRule per caller and host. It looks in the caller's namespace first, then in the Service's,
then in the root namespace. No caller gets the subsets, connection limits, TLS settings or outlier detection of this
rule.

## Example
```yaml
kind: DestinationRule
metadata: {namespace: istio-system}          # the default for the mesh
spec: {host: '*.shop.svc.cluster.local', trafficPolicy: {outlierDetection: {}}}
---
kind: DestinationRule
metadata: {namespace: shop}                  # replaces it for every Service in shop
spec: {host: '*.shop.svc.cluster.local', trafficPolicy: {loadBalancer: {simple: RANDOM}}}
```

## Fix
Move the settings into the DestinationRule that callers get, or delete this one.

## References
- Istio source: `pilot/pkg/model/push_context.go` (`destinationRule`). Verified against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut used: BTreeSet<&ObjectRef> = BTreeSet::new();
    let mut winners: Vec<(&Service, Vec<&ObjectRef>)> = Vec::new();
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        // Most hosts have a single rule, and nothing can hide it. Skip the caller classes for them.
        let mut covering = mesh.destination_rules.covering(service.host.as_str()).map(|(_, rule)| &rule.object);
        let (first, second) = (covering.next(), covering.next());
        if second.is_none() && first.is_none_or(|rule| rule.namespace == *service.namespace()) {
            used.extend(first);
            continue;
        }
        let mut applied: BTreeSet<&ObjectRef> = BTreeSet::new();
        for view in mesh.caller_classes(id) {
            applied.extend(view.destination_rules.0.iter().map(|rule| &mesh.destination_rules.get(*rule).object));
        }
        used.extend(&applied);
        winners.push((service, applied.into_iter().collect()));
    }
    for rule in mesh.destination_rules.iter().filter(|rule| !used.contains(&rule.object)) {
        let covered = |service: &Service| crate::mesh::host::covers(rule.host.as_str(), service.host.as_str());
        let Some((service, applied)) = winners.iter().find(|(service, _)| covered(service)) else { continue };
        let own_namespace = &rule.object.namespace;
        let is_foreign = own_namespace != service.namespace() && *own_namespace != mesh.root_namespace;
        let applied: Vec<String> = applied.iter().map(ToString::to_string).collect();
        let reason = match (applied.is_empty(), is_foreign) {
            (true, true) => {
                format!("it applies to callers in namespace {own_namespace} only, and no caller runs there")
            }
            (true, false) => "its exportTo includes no caller".to_owned(),
            (false, _) => format!("callers of {} get {}", mesh.short_host(&service.host), applied.join(", ")),
        };
        let delete = format!("kubectl delete destinationrule -n {own_namespace} {}", rule.object.name);
        let fix = match applied.first() {
            Some(winner) => format!("move its settings to {winner}, or delete it: {delete}"),
            None => format!("delete it unless a caller will need it: {delete}"),
        };
        let finding = Finding::new(&RULE, &rule.object, "spec.host")
            .message(format!("{} applies to no caller", rule.object))
            .impact("no caller gets its subsets, connection limits, TLS settings or outlier detection")
            .evidence([reason])
            .depends_on([service.namespace()])
            .fix(fix);
        // A wildcard may be a default for Services that do not exist yet.
        let finding = if rule.host.as_str().starts_with('*') { finding.severity(Severity::Info) } else { finding };
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, pod, service};

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
    fn reports_a_rule_that_never_applies() {
        let yaml = mesh() + &in_root(&istio("DestinationRule", "mesh", WILD));
        assert_findings(&RULE, &yaml, &["info DestinationRule istio-system/mesh spec.host"]);
        assert_undecided_on_gap(&RULE, &yaml);
        assert_findings(
            &RULE,
            &(mesh() + &istio("DestinationRule", "wild", WILD)),
            &["info DestinationRule shop/wild spec.host"],
        );
    }

    #[test]
    fn accepts_a_rule_that_applies_to_a_service() {
        assert_findings(&RULE, &mesh(), &[]);
        let other = service("b", "{name: grpc, port: 1}") + &pod("b", "v1");
        assert_findings(&RULE, &(mesh() + &other + &in_root(&istio("DestinationRule", "mesh", WILD))), &[]);
        assert_findings(
            &RULE,
            &(mesh() + &istio("DestinationRule", "more", "{host: a, subsets: [{name: v1, labels: {version: v1}}]}")),
            &[],
        );
    }
}
