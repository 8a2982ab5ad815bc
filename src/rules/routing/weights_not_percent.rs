//! GM212: weights that do not add up to 100.

use crate::mesh::Mesh;
use crate::mesh::written_route::{WrittenAction, shares};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::vocabulary::share::format_percent;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM212",
    name: "weights-not-percent",
    severity: Severity::Info,
    needs: &[],
    istio_code: None,
    summary: "Weights that do not add up to 100: the real shares",
    docs: "\
## What it looks for
Two or more weighted destinations of a VirtualService whose weights do not add up to 100.

## Why it matters for gRPC
Weights are relative: 9 and 1 are the same as 90 and 10. That is allowed, but a missing weight counts as 0, and people
read the numbers as percentages.

## Example
```yaml
route:
- destination: {host: checkout, subset: v1}
  weight: 80
- destination: {host: checkout, subset: v2}     # no weight: 0, so v1 takes everything
```

## Repair
```yaml
route:
- destination: {host: checkout, subset: v1}
  weight: 80
- destination: {host: checkout, subset: v2}
  weight: 20
```

## References
- Istio: `pilot/pkg/networking/core/route/route.go`; validation accepts any sum above 0.
- Seen on a real mesh: `tests/lab/effects/GM212.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let weights: Vec<_> = targets.iter().map(|target| target.weight).collect();
            let total: i64 = weights.iter().map(|weight| weight.unwrap_or(0)).fold(0, i64::saturating_add);
            let Some(shares) = shares(&weights) else { continue };
            if targets.len() < 2 || total == 100 {
                continue;
            }
            let real = targets.iter().zip(shares).map(|(target, share)| {
                let subset = target.subset.as_ref().map(|subset| format!(" {subset}")).unwrap_or_default();
                format!("{}{subset} {}", mesh.short_host(&target.host), format_percent(share))
            });
            let finding = Finding::new(&RULE, &object.object, format!("{}.route", rule.field))
                .message(format!("the weights add up to {total}, not 100; they are relative"))
                .impact("calls are split by the real shares")
                .evidence(real)
                .fix("write weights that add up to 100");
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, findings, istio, service};

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
    fn other_sums_show_the_real_shares() {
        let yaml = route(", weight: 9", ", weight: 1");
        check(&RULE, &yaml, &["info VirtualService shop/r spec.http[0].route"]);
        assert_eq!(findings(&RULE, &yaml)[0].evidence, ["a.shop v1 90%", "a.shop v2 10%"]);
        assert_eq!(findings(&RULE, &route(", weight: 80", ""))[0].evidence, ["a.shop v1 100%", "a.shop v2 0%"]);
    }

    #[test]
    fn a_hundred_and_a_single_destination_are_silent() {
        check(&RULE, &route(", weight: 90", ", weight: 10"), &[]);
        check(
            &RULE,
            &istio("VirtualService", "r", "{hosts: [a], http: [{route: [{destination: {host: a}, weight: 1}]}]}"),
            &[],
        );
    }
}
