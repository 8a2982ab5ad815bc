//! GM225: a rule that makes Envoy refuse the whole route table.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM225",
    name: "route-table-rejected",
    severity: Severity::Error,
    needs: &[Kind::VirtualService],
    istio_code: Some("IST0106"),
    summary: "A rule that makes Envoy refuse the whole route table of its port",
    docs: "\
## What it looks for
Two or more destinations that all have weight 0 or none, a regular expression that RE2 does not take, an empty prefix,
and an HTTP status that is none, in a rule that istiod passes on to proxies.

## Why it matters for gRPC
Envoy takes a route table as a whole or not at all: it refuses this one, and every host on that port keeps the routes it
had. New Services, weights and repairs for all of them do not arrive until the rule is mended. A new pod has no routes.

## Example
```yaml
route:
- destination: {host: checkout, subset: v1}     # no weight
- destination: {host: checkout, subset: v2}     # no weight
```

## Repair
```yaml
route:
- {destination: {host: checkout, subset: v1}, weight: 100}
- {destination: {host: checkout, subset: v2}, weight: 0}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM225.yaml`.
- Replayed through Envoy 1.39: `weighted_clusters` without a weight is refused. Istio's webhook refuses most of these.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, config) in mesh.route_configs().iter() {
        for rule in &config.rules {
            let Some(why) = mesh.refused(config, rule) else { continue };
            let finding = Finding::new(&RULE, &rule.object, rule.field())
                .message(format!("Envoy refuses this rule: {why}"))
                .impact("the whole route table of the port is refused: every host on it keeps its former routes")
                .evidence(rule.delegate.as_ref().map(|(object, at)| format!("it comes from {object} spec.http[{at}]")))
                .fix("mend the rule; `kubectl grpcmesh inspect` shows when nothing is left");
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(rule: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio("VirtualService", "r", &format!("{{hosts: [a], http: [{rule}]}}"))
    }

    #[test]
    fn what_envoy_refuses_is_an_error() {
        let place = "error VirtualService shop/r spec.http[0]";
        let no_weight = mesh("{route: [{destination: {host: a}}, {destination: {host: a, subset: v2}, weight: 0}]}");
        check(&RULE, &no_weight, &[place]);
        check_gap(&RULE, &no_weight);
        check(&RULE, &mesh("{match: [{uri: {regex: '(?=a)'}}], route: [{destination: {host: a}}]}"), &[place]);
    }

    #[test]
    fn rules_that_envoy_takes_are_silent() {
        check(&RULE, &mesh("{route: [{destination: {host: a}, weight: 0}]}"), &[]);
        check(
            &RULE,
            &mesh("{route: [{destination: {host: a}}, {destination: {host: a, subset: v2}, weight: 1}]}"),
            &[],
        );
        check(&RULE, &mesh("{match: [{uri: {regex: '/shop\\.Cart/.*'}}], route: [{destination: {host: a}}]}"), &[]);
    }
}
