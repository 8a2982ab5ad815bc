//! GM212: weights that do not add up to 100.

use crate::mesh::Mesh;
use crate::mesh::written_route::{WrittenAction, weight_shares};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::vocabulary::share::format_percent;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM212",
    name: "weights-not-percent",
    severity: Severity::Info,
    needs: &[],
    istio_code: None,
    summary: "Weights that do not add up to 100, with the effective shares",
    docs: "\
## What it looks for
Two or more destinations of a VirtualService route with weights that do not add up to 100.

## Why it matters for gRPC
Weights are relative: 9 and 1 give the same split as 90 and 10. Istio accepts that, but readers take the numbers for
percentages, and a missing weight counts as 0.

## Example
```yaml
route:
- destination: {host: checkout, subset: v1}
  weight: 80
- destination: {host: checkout, subset: v2}     # no weight counts as 0: v1 gets all calls
```

## Fix
```yaml
route:
- destination: {host: checkout, subset: v1}
  weight: 80
- destination: {host: checkout, subset: v2}
  weight: 20
```

## References
- Istio source: `pilot/pkg/networking/core/route/route.go`; validation accepts any sum above 0.
- Verified on a real mesh: `tests/lab/effects/GM212.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let weights: Vec<_> = targets.iter().map(|target| target.weight).collect();
            let total: i64 = weights.iter().map(|weight| weight.unwrap_or(0)).fold(0, i64::saturating_add);
            let Some(shares) = weight_shares(&weights) else { continue };
            if targets.len() < 2 || total == 100 {
                continue;
            }
            let effective = targets.iter().zip(shares).map(|(target, share)| {
                let subset = target.subset.as_ref().map(|subset| format!(" {subset}")).unwrap_or_default();
                format!("{}{subset} {}", mesh.short_host(&target.host), format_percent(share))
            });
            let finding = Finding::new(&RULE, &object.object, format!("{}.route", rule.field))
                .message(format!("the weights of the route add up to {total}, not 100"))
                .impact("calls are split by the effective shares, because Istio reads weights as relative")
                .evidence(effective)
                .fix("set weights that add up to 100");
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, findings, istio, service};

    fn route(first: &str, second: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "r",
                &format!(
                    "{{hosts: [a], http: [{{route: [{{destination: {{host: a, subset: v1}}{first}}}, {{destination: {{host: a, subset: v2}}{second}}}]}}]}}"
                ),
            )
    }

    #[test]
    fn reports_the_effective_shares_when_the_sum_is_not_100() {
        let yaml = route(", weight: 9", ", weight: 1");
        assert_findings(&RULE, &yaml, &["info VirtualService shop/r spec.http[0].route"]);
        assert_eq!(findings(&RULE, &yaml)[0].evidence, ["a.shop v1 90%", "a.shop v2 10%"]);
        assert_eq!(findings(&RULE, &route(", weight: 80", ""))[0].evidence, ["a.shop v1 100%", "a.shop v2 0%"]);
    }

    #[test]
    fn is_silent_on_a_sum_of_100_and_on_a_single_destination() {
        assert_findings(&RULE, &route(", weight: 90", ", weight: 10"), &[]);
        assert_findings(
            &RULE,
            &istio("VirtualService", "r", "{hosts: [a], http: [{route: [{destination: {host: a}, weight: 1}]}]}"),
            &[],
        );
    }
}
