//! GM207: routes without a rule for the remaining calls.

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
    summary: "Routes to a gRPC Service without a catch-all rule",
    docs: "\
## What it looks for
A mesh VirtualService, or the Gateway API routes of one Service, that route to a gRPC Service and whose rules all have
conditions. Rules of gateways are not reported, because a gateway usually exposes selected methods only.

## Why it matters for gRPC
When a host has rules, Istio adds no default route. The caller's proxy answers a call that matches no rule with HTTP
404, response flag `NR`, which the client sees as UNIMPLEMENTED. That includes health checks and reflection.

## Example
```yaml
http:
- match: [{uri: {prefix: /shop.Cart/}}]        # /grpc.health.v1.Health/Check gets HTTP 404
  route: [{destination: {host: checkout}}]
```

## Fix
```yaml
http:
- match: [{uri: {prefix: /shop.Cart/}}]
  route: [{destination: {host: checkout, subset: v2}}]
- route: [{destination: {host: checkout}}]     # catch-all
```

## References
- Verified on a real mesh: `tests/lab/effects/GM207.yaml`.
- Istio source: `pilot/pkg/networking/core/httproute.go`. Verified against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (id, config) in mesh.route_configs().iter().filter(|(_, config)| config.acts_in_mesh()) {
        let rules = mesh.written_rules_of(RouteOwner::Config(id));
        if rules.is_empty() || rules.iter().any(is_catch_all) {
            continue;
        }
        let routes_to_grpc = |rule: &WrittenRule| match &rule.action {
            WrittenAction::Forward(targets) => targets.iter().any(|target| {
                mesh.find_host(target.host.as_str()).is_some_and(|id| mesh.service(id).has_grpc_evidence())
            }),
            WrittenAction::Redirect | WrittenAction::DirectResponse(_) | WrittenAction::Delegate { .. } => false,
        };
        let Some(object) = config.objects.first().filter(|_| rules.iter().any(routes_to_grpc)) else { continue };
        let field = if object.kind == Kind::VirtualService { "spec.http" } else { "spec.rules" };
        let hosts: Vec<&str> = config.hosts.iter().map(|host| mesh.short_host(host)).collect();
        let finding = Finding::new(&RULE, object, field)
            .message(format!("the rules for {} have no catch-all", hosts.join(", ")))
            .impact("calls that match no rule fail with UNIMPLEMENTED (HTTP 404, flag NR)")
            .evidence(config.objects.iter().skip(1).map(|other| format!("{other} has rules for the same Service")))
            .fix("append a rule without match, or ignore this finding if other calls must be rejected");
        out.add(&RULE, finding);
    }
}

/// Whether a rule matches every call of the callers and ports that it applies to.
fn is_catch_all(rule: &WrittenRule) -> bool {
    let without_caller_conditions = |rule_match: &WrittenMatch| {
        let call_conditions = rule_match.conditions.iter().filter(|condition| {
            !matches!(
                condition,
                WrittenCondition::Port(_)
                    | WrittenCondition::SourceLabels(_)
                    | WrittenCondition::SourceNamespace(_)
                    | WrittenCondition::Gateways(_)
            )
        });
        WrittenMatch { conditions: call_conditions.cloned().collect() }
    };
    rule.matches.is_empty()
        || rule.matches.iter().any(|rule_match| without_caller_conditions(rule_match).is_catch_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(rules: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio("VirtualService", "r", &format!("{{hosts: [a], http: [{rules}]}}"))
    }

    const CART: &str = "{match: [{uri: {prefix: /shop.Cart/}}], route: [{destination: {host: a}}]}";

    #[test]
    fn reports_routes_whose_rules_all_have_conditions() {
        assert_findings(&RULE, &mesh(CART), &["info VirtualService shop/r spec.http"]);
        assert_undecided_on_gap(&RULE, &mesh(CART));
    }

    #[test]
    fn is_silent_on_a_catch_all_and_on_services_without_grpc() {
        assert_findings(&RULE, &mesh(&format!("{CART}, {{route: [{{destination: {{host: a}}}}]}}")), &[]);
        assert_findings(&RULE, &mesh("{match: [{uri: {prefix: /}}], route: [{destination: {host: a}}]}"), &[]);
        assert_findings(&RULE, &mesh("{match: [{port: 1}], route: [{destination: {host: a}}]}"), &[]);
        assert_findings(&RULE, &mesh(CART).replace("name: grpc,", "name: http,").replace("/shop.Cart/", "/cart"), &[]);
    }
}
