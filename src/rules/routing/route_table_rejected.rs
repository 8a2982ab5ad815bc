//! GM225: a rule for which Envoy rejects the whole route table.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM225",
    name: "route-table-rejected",
    severity: Severity::Error,
    needs: &[Kind::VirtualService],
    istio_code: Some("IST0106"),
    summary: "A rule for which Envoy rejects the whole route table of its port",
    docs: "\
## What it looks for
A rule that istiod sends to proxies with one of these faults: two or more destinations whose weights are all 0 or
missing, a regular expression that is not valid RE2, an empty prefix, or an invalid HTTP status.

## Why it matters for gRPC
Envoy accepts or rejects a route table as a whole. It rejects this one, and every host on that port keeps its previous
routes: new Services, weights and fixes for any of them have no effect until the rule is corrected. A new pod has no
routes at all.

## Example
```yaml
route:
- destination: {host: checkout, subset: v1}     # no weight
- destination: {host: checkout, subset: v2}     # no weight
```

## Fix
```yaml
route:
- {destination: {host: checkout, subset: v1}, weight: 100}
- {destination: {host: checkout, subset: v2}, weight: 0}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM225.yaml`.
- Replayed through Envoy 1.39, which rejects `weighted_clusters` without a weight. Istio's webhook rejects most of these
  rules.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, config) in mesh.route_configs().iter() {
        for rule in &config.rules {
            let Some(reason) = mesh.envoy_rejection(config, rule) else { continue };
            let finding = Finding::new(&RULE, &rule.object, rule.field())
                .message(format!("Envoy rejects this rule of {}: {reason}", rule.object))
                .impact(
                    "Envoy rejects the whole route table of the port: every host on it keeps its previous routes, and \
                     new pods have no routes",
                )
                .evidence(
                    rule.delegate
                        .as_ref()
                        .map(|(object, index)| format!("the rule comes from {object} spec.http[{index}]")),
                )
                .fix("correct the rule, then run `kubectl grpcmesh inspect --only GM225` to check for further rules");
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(rule: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio("VirtualService", "r", &format!("{{hosts: [a], http: [{rule}]}}"))
    }

    #[test]
    fn reports_rules_that_envoy_rejects() {
        let expected = "error VirtualService shop/r spec.http[0]";
        let no_weight = mesh("{route: [{destination: {host: a}}, {destination: {host: a, subset: v2}, weight: 0}]}");
        assert_findings(&RULE, &no_weight, &[expected]);
        assert_undecided_on_gap(&RULE, &no_weight);
        assert_findings(
            &RULE,
            &mesh("{match: [{uri: {regex: '(?=a)'}}], route: [{destination: {host: a}}]}"),
            &[expected],
        );
    }

    #[test]
    fn is_silent_on_rules_that_envoy_accepts() {
        assert_findings(&RULE, &mesh("{route: [{destination: {host: a}, weight: 0}]}"), &[]);
        assert_findings(
            &RULE,
            &mesh("{route: [{destination: {host: a}}, {destination: {host: a, subset: v2}, weight: 1}]}"),
            &[],
        );
        assert_findings(
            &RULE,
            &mesh("{match: [{uri: {regex: '/shop\\.Cart/.*'}}], route: [{destination: {host: a}}]}"),
            &[],
        );
    }
}
