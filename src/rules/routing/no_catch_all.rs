//! GM207: routes that leave some calls without any rule.

use crate::mesh::Mesh;
use crate::mesh::written_route::{WrittenAction, WrittenCondition, WrittenMatch, WrittenRule};
use crate::mesh::xds::RouteOwner;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM207",
    name: "no-catch-all",
    severity: Severity::Info,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "Routes to gRPC without a rule for the remaining calls",
    docs: "\
## What it looks for
A VirtualService of the mesh, or the Gateway API routes of one Service, that lead to a gRPC Service and whose rules all
have conditions. What a gateway lets in is left alone: there, only some methods are meant as a rule.

## Why it matters for gRPC
Once a host has rules of its own, the default route is gone: a call that no rule takes is answered with 404 by the
caller's proxy (flag `NR`), which the client sees as UNIMPLEMENTED. Health checks and reflection are methods too.

## Example
```yaml
http:
- match: [{uri: {prefix: /shop.Cart/}}]        # /grpc.health.v1.Health/Check gets 404
  route: [{destination: {host: checkout}}]
```

## Repair
```yaml
http:
- match: [{uri: {prefix: /shop.Cart/}}]
  route: [{destination: {host: checkout, subset: v2}}]
- route: [{destination: {host: checkout}}]     # everything else
```

## References
- Seen on a real mesh: `tests/lab/effects/GM207.yaml`.
- From Istio's code: `pilot/pkg/networking/core/httproute.go`; pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (id, config) in mesh.route_configs().iter().filter(|(_, config)| config.acts_in_mesh()) {
        let rules = mesh.rules_of(RouteOwner::Config(id));
        if rules.is_empty() || rules.iter().any(takes_the_rest) {
            continue;
        }
        let is_grpc = |rule: &WrittenRule| match &rule.action {
            WrittenAction::Forward(targets) => targets
                .iter()
                .any(|target| mesh.find_host(target.host.as_str()).is_some_and(|id| mesh.service(id).has_grpc())),
            WrittenAction::Redirect | WrittenAction::DirectResponse(_) | WrittenAction::Delegate { .. } => false,
        };
        let Some(object) = config.objects.first().filter(|_| rules.iter().any(is_grpc)) else { continue };
        let field = if object.kind == Kind::VirtualService { "spec.http" } else { "spec.rules" };
        let hosts: Vec<&str> = config.hosts.iter().map(|host| mesh.short_host(host)).collect();
        let finding = Finding::new(&RULE, object, field)
            .message(format!("no rule takes the remaining calls to {}", hosts.join(", ")))
            .impact("calls that no rule takes get 404 (flag NR): UNIMPLEMENTED to the client")
            .evidence(config.objects.iter().skip(1).map(|other| format!("{other} has rules for it too")))
            .fix("add a last rule without conditions, or leave it if other calls must not pass");
        out.add(&RULE, finding);
    }
}

/// Whether a rule takes every call of the callers and ports that it is for.
fn takes_the_rest(rule: &WrittenRule) -> bool {
    let about_calls = |one: &WrittenMatch| {
        let about_calls = one.conditions.iter().filter(|condition| {
            !matches!(
                condition,
                WrittenCondition::Port(_)
                    | WrittenCondition::SourceLabels(_)
                    | WrittenCondition::SourceNamespace(_)
                    | WrittenCondition::Gateways(_)
            )
        });
        WrittenMatch { conditions: about_calls.cloned().collect() }
    };
    rule.matches.is_empty() || rule.matches.iter().any(|one| about_calls(one).is_catch_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(rules: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio("VirtualService", "r", &format!("{{hosts: [a], http: [{rules}]}}"))
    }

    const CART: &str = "{match: [{uri: {prefix: /shop.Cart/}}], route: [{destination: {host: a}}]}";

    #[test]
    fn conditions_everywhere_are_told() {
        check(&RULE, &mesh(CART), &["info VirtualService shop/r spec.http"]);
        check_gap(&RULE, &mesh(CART));
    }

    #[test]
    fn a_last_rule_is_silent() {
        check(&RULE, &mesh(&format!("{CART}, {{route: [{{destination: {{host: a}}}}]}}")), &[]);
        check(&RULE, &mesh("{match: [{uri: {prefix: /}}], route: [{destination: {host: a}}]}"), &[]);
        check(&RULE, &mesh("{match: [{port: 1}], route: [{destination: {host: a}}]}"), &[]);
        check(&RULE, &mesh(CART).replace("name: grpc,", "name: http,").replace("/shop.Cart/", "/cart"), &[]);
    }
}
