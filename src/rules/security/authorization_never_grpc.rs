//! GM604: a condition of an AuthorizationPolicy that no gRPC call meets.

use std::collections::BTreeSet;

use crate::mesh::Mesh;
use crate::mesh::authorization::{AuthorizationPolicy, PolicyAction, PolicyAttribute, PolicyCondition};
use crate::mesh::ids::ObjectRef;
use crate::mesh::workload::Workload;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM604",
    name: "authorization-never-grpc",
    severity: Severity::Warning,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "A method or path in an AuthorizationPolicy that no gRPC call has",
    docs: "\
## What it looks for
AuthorizationPolicies for pods whose Services have only gRPC ports: `methods` without `POST`, and `paths` that no gRPC
call has. A gRPC path is `/package.Service/Method`.

## Why it matters for gRPC
Every gRPC call is a POST. A condition that no call meets makes an ALLOW rule allow nothing, so that calls fail with
PERMISSION_DENIED, and a DENY rule deny nothing. A missing slash at the start, a slash at the end, or a Service without
its method are the usual causes.

## Example
```yaml
rules:
- to: [{operation: {methods: [GET], paths: [shop.Checkout/Pay]}}]
```

## Fix
```yaml
rules:
- to: [{operation: {methods: [POST], paths: [/shop.Checkout/Pay]}}]
```

## References
- gRPC over HTTP/2: `PROTOCOL-HTTP2.md`, Request-Headers.
- Istio source: `pilot/pkg/security/authz/matcher`.
- Compared with a real Envoy: `tests/authorization.rs`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    if mesh.security_policies.all_policies().next().is_none() {
        return;
    }
    let mut reported: BTreeSet<(ObjectRef, String)> = BTreeSet::new();
    for id in mesh.workload_ids() {
        let workload = mesh.workload(id);
        let ports: Vec<_> = mesh.services_selecting(id).flat_map(|service| &service.ports).collect();
        let serves_only_grpc = !ports.is_empty() && ports.iter().all(|port| !port.evidence.is_empty());
        if !serves_only_grpc || workload.proxy.is_meshed() == Some(false) {
            continue;
        }
        for policy in mesh.security_policies.authorization_policies(workload, &mesh.root_namespace) {
            // A policy for the whole mesh or namespace is meant for other pods too.
            let is_for_these_pods = policy.scope.selector.is_some();
            if !policy.is_enforced() || !is_for_these_pods {
                continue;
            }
            for (index, rule) in policy.rules() {
                for condition in rule.conditions() {
                    let field = format!("spec.rules[{index}].{}", condition.field);
                    if reported.insert((policy.object.clone(), field.clone())) {
                        report(policy, condition, field, workload, out);
                    }
                }
            }
        }
    }
}

fn report(
    policy: &AuthorizationPolicy,
    condition: &PolicyCondition,
    field: String,
    workload: &Workload,
    out: &mut Findings<'_>,
) {
    let values = &condition.values;
    let impossible: Vec<&str> = match condition.attribute {
        PolicyAttribute::Method if !values.iter().any(|value| may_be_post(value)) => {
            values.iter().map(String::as_str).collect()
        }
        PolicyAttribute::Path => {
            let never = |value: &&String| !may_be_grpc_path(value);
            let impossible: Vec<&str> = values.iter().filter(never).map(String::as_str).collect();
            let all = impossible.len() == values.len();
            // A path such as `/healthz` beside paths of methods does no harm.
            impossible.into_iter().filter(|value| all || looks_like_method(value)).collect()
        }
        _ => Vec::new(),
    };
    if impossible.is_empty() {
        return;
    }
    let is_method = condition.attribute == PolicyAttribute::Method;
    let is_whole_rule = impossible.len() == values.len();
    let effect = match (policy.action, is_whole_rule) {
        (Some(PolicyAction::Allow), true) => "the rule allows no gRPC call: calls fail with PERMISSION_DENIED",
        (Some(PolicyAction::Allow), false) => "the calls that this value is meant for fail with PERMISSION_DENIED",
        (_, true) => "the rule acts on no gRPC call",
        (_, false) => "the rule does not act on the calls that this value is meant for",
    };
    let fix = if is_method {
        "methods: [POST]".to_owned()
    } else {
        let repaired: Vec<String> = impossible.iter().map(|value| repair(value)).collect();
        format!("paths: [{}]", repaired.join(", "))
    };
    let what = if is_method { "gRPC calls are POST requests" } else { "gRPC paths are /package.Service/Method" };
    let finding = Finding::new(&RULE, &policy.object, field)
        .message(format!("no gRPC call has {} {}: {what}", condition.attribute.title(), impossible.join(", ")))
        .impact(effect)
        .evidence([format!("all ports of the Services of {} carry gRPC", workload.title())])
        .fix(fix)
        .depends_on([workload.namespace()]);
    out.add(&RULE, finding);
}

fn may_be_post(value: &str) -> bool {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(suffix), _) => "POST".ends_with(suffix),
        (None, Some(prefix)) => "POST".starts_with(prefix),
        (None, None) => value == "POST",
    }
}

/// Whether some path `/package.Service/Method` matches a value of `paths`.
fn may_be_grpc_path(value: &str) -> bool {
    let slashes = value.matches('/').count();
    if value.contains("{*}") || value.contains("{**}") {
        return value.starts_with('/') && (value.contains("{**}") || (slashes == 2 && !value.ends_with('/')));
    }
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(suffix), _) => {
            // `*/Method`, `*Method` or `*.Service/Method`
            !suffix.ends_with('/') && (slashes < 2 || (slashes == 2 && is_grpc_path(suffix)))
        }
        (None, Some(prefix)) => {
            let is_in_service = slashes < 2 && prefix.starts_with('/');
            is_in_service || (slashes == 2 && is_grpc_path(&format!("{prefix}x")))
        }
        (None, None) => is_grpc_path(value),
    }
}

fn is_grpc_path(path: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    parts
        .is_some_and(|(service, method)| !service.is_empty() && !method.is_empty() && !method.contains(['/', '?', '#']))
}

/// Whether a value names a gRPC service or method, with an error: `shop.Checkout/Pay`, `/shop.Checkout/Pay/`,
/// `/shop.Checkout`.
fn looks_like_method(value: &str) -> bool {
    let service = value.trim_matches('/').split('/').next().unwrap_or_default();
    let name = service.rsplit('.').next().unwrap_or_default();
    service.contains('.') && name.starts_with(|c: char| c.is_ascii_uppercase())
}

/// The nearest value that a gRPC path may have.
fn repair(value: &str) -> String {
    let trimmed = value.trim_matches('/');
    if !looks_like_method(value) {
        return "/package.Service/Method".to_owned();
    }
    if trimmed.contains('/') { format!("/{trimmed}") } else { format!("/{trimmed}/*") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, pod, policy, service};

    fn mesh(operation: &str) -> String {
        service("a", "{name: grpc, port: 50051}")
            + &pod("a", "v1")
            + &policy(
                "AuthorizationPolicy",
                "p",
                &format!("{{selector: {{matchLabels: {{app: a}}}}, rules: [{{to: [{{operation: {operation}}}]}}]}}"),
            )
    }

    #[test]
    fn reports_methods_and_paths_that_no_call_has() {
        for (operation, field) in [
            ("{methods: [GET]}", "methods"),
            ("{paths: [shop.A/B]}", "paths"),
            ("{paths: [/shop.A/B/]}", "paths"),
            ("{paths: [/shop.A]}", "paths"),
            ("{paths: [/shop.A/B, /shop.A/C/]}", "paths"),
        ] {
            let expected = format!("warning AuthorizationPolicy shop/p spec.rules[0].to[0].operation.{field}");
            assert_findings(&RULE, &mesh(operation), &[&expected]);
        }
        assert_undecided_on_gap(&RULE, &mesh("{methods: [GET]}"));
    }

    #[test]
    fn is_silent_on_values_that_calls_have() {
        for operation in [
            "{methods: [GET, POST]}",
            "{methods: ['P*']}",
            "{paths: [/shop.A/B]}",
            "{paths: ['/shop.A/*']}",
            "{paths: ['/shop.*']}",
            "{paths: ['*/B']}",
            "{paths: ['/{*}/B']}",
            "{paths: ['/shop.A/{**}']}",
            "{paths: [/shop.A/B, /healthz]}",
        ] {
            assert_findings(&RULE, &mesh(operation), &[]);
        }
        // The pods also serve HTTP.
        let with_http = mesh("{methods: [GET]}").replace("ports: [", "ports: [{name: http, port: 80}, ");
        assert_findings(&RULE, &with_http, &[]);
    }
}
