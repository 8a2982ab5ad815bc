//! GM206: a rule that gets no calls, because earlier rules take all of them.

use std::collections::BTreeMap;

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::virtual_service::{HttpMatch, HttpRule, StringMatch};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM206",
    name: "rule-unreachable",
    severity: Severity::Warning,
    needs: &[Kind::VirtualService],
    istio_code: Some("IST0130"),
    summary: "A rule that gets no calls, because an earlier rule takes all of them",
    docs: "\
## What it looks for
A rule of a VirtualService whose calls are all taken by rules before it: a rule without match, a shorter prefix, the same
match, or a match with fewer conditions.

## Why it matters for gRPC
Envoy uses the first rule that matches. A canary rule after a catch-all rule gets no calls, whatever its match says. Two
rules with a weight each do not share the calls: weights count within one rule, so the first rule gets everything.

## Example
```yaml
http:
- route: [{destination: {host: checkout, subset: v1}, weight: 50}]
- route: [{destination: {host: checkout, subset: v2}, weight: 50}]    # never reached
```

## Fix
Put the more specific rule first, and all backends that share calls into one rule:
```yaml
http:
- route:
  - {destination: {host: checkout, subset: v1}, weight: 50}
  - {destination: {host: checkout, subset: v2}, weight: 50}
```

## References
- Istio source: `pilot/pkg/networking/core/route/route.go` (the rules after a catch-all rule are left out). Verified
  against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        let rules = &object.spec.http;
        for (index, rule) in rules.iter().enumerate() {
            // The rules of a delegate may match less than the rule that refers to it.
            let earlier = || rules.iter().take(index).enumerate().filter(|(_, earlier)| earlier.delegate.is_none());
            let any_call = [HttpMatch::default()];
            let matches = if rule.matches.is_empty() { &any_call[..] } else { &rule.matches.0[..] };
            let takers: Option<Vec<usize>> = matches
                .iter()
                .map(|own| earlier().find(|(_, earlier)| takes(earlier, own)).map(|(position, _)| position))
                .collect();
            let Some(mut takers) = takers else { continue };
            takers.sort_unstable();
            takers.dedup();
            let names: Vec<String> = takers.iter().map(|position| format!("spec.http[{position}]")).collect();
            let names = names.join(", ");
            let same_matches = takers.len() == 1
                && takers
                    .first()
                    .and_then(|position| rules.get(*position))
                    .is_some_and(|first| first.matches == rule.matches);
            let fix = if same_matches && !rule.route.is_empty() {
                format!(
                    "move the destinations of spec.http[{index}] into the route of {names}: weights count within one rule"
                )
            } else {
                format!("move spec.http[{index}] before {names}")
            };
            let finding = Finding::new(&RULE, &object.object, format!("spec.http[{index}]"))
                .message(format!(
                    "no call reaches spec.http[{index}] of {}: {names} takes all of its calls",
                    object.object
                ))
                .impact("its destinations, timeouts and retries have no effect")
                .evidence([if same_matches {
                    format!("{names} has the same match")
                } else {
                    format!("every call that spec.http[{index}] matches is matched by {names} before it")
                }])
                .fix(fix);
            out.add(&RULE, finding);
        }
    }
}

/// Whether a rule takes every call that a match describes.
fn takes(earlier: &HttpRule, own: &HttpMatch) -> bool {
    earlier.matches.is_empty() || earlier.matches.iter().any(|wider| covers(wider, own))
}

/// Whether `wider` matches every call that `own` matches. Regular expressions are compared as text.
fn covers(wider: &HttpMatch, own: &HttpMatch) -> bool {
    let HttpMatch {
        name: _,
        uri,
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query_params,
        port,
        source_labels,
        source_namespace,
        gateways,
        ignore_uri_case,
    } = wider;
    let path = match uri {
        None => true,
        Some(uri) if is_any_path(uri) => true,
        Some(uri) => own.uri.as_ref().is_some_and(|own_uri| {
            covers_path(uri, own_uri, *ignore_uri_case) && (*ignore_uri_case || !own.ignore_uri_case)
        }),
    };
    let texts = [(scheme, &own.scheme), (method, &own.method), (authority, &own.authority)];
    let maps = [(headers, &own.headers), (query_params, &own.query_params)];
    path && texts.iter().all(|(wider, own)| covers_text(wider.as_ref(), own.as_ref()))
        && maps.iter().all(|(wider, own)| covers_map(wider.as_ref(), own.as_ref()))
        && (without_headers.as_ref().is_none_or(BTreeMap::is_empty) || *without_headers == own.without_headers)
        && port.is_none_or(|port| port == 0 || own.port == Some(port))
        && source_labels.iter().all(|(key, value)| own.source_labels.get(key) == Some(value))
        && (source_namespace.as_deref().is_none_or(str::is_empty) || *source_namespace == own.source_namespace)
        && (gateways.is_empty()
            || (!own.gateways.is_empty() && own.gateways.iter().all(|name| gateways.contains(name))))
}

fn is_any_path(uri: &StringMatch) -> bool {
    uri.prefix.as_deref() == Some("/") || matches!(uri.regex.as_deref(), Some(".*" | "/.*"))
}

fn covers_path(wider: &StringMatch, own: &StringMatch, ignores_case: bool) -> bool {
    let fold = |text: &str| if ignores_case { text.to_ascii_lowercase() } else { text.to_owned() };
    match (wider.exact.as_deref(), wider.prefix.as_deref(), wider.regex.as_deref()) {
        (Some(exact), ..) => own.exact.as_deref().is_some_and(|own| fold(own) == fold(exact)),
        (None, Some(prefix), _) => {
            let text = own.exact.as_deref().or(own.prefix.as_deref());
            text.is_some_and(|text| fold(text).starts_with(&fold(prefix)))
        }
        (None, None, Some(regex)) => own.regex.as_deref() == Some(regex),
        (None, None, None) => true,
    }
}

fn covers_text(wider: Option<&StringMatch>, own: Option<&StringMatch>) -> bool {
    let Some(wider) = wider else { return true };
    own.is_some_and(|own| wider == own || covers_value(wider, own))
}

/// Whether a condition on a value holds for every value that another one allows.
fn covers_value(wider: &StringMatch, own: &StringMatch) -> bool {
    match (wider.exact.as_deref(), wider.prefix.as_deref(), wider.regex.as_deref()) {
        (None, None, None | Some("*" | ".*")) => true,
        (None, Some(prefix), _) => {
            own.exact.as_deref().or(own.prefix.as_deref()).is_some_and(|text| text.starts_with(prefix))
        }
        _ => wider == own,
    }
}

fn covers_map(wider: Option<&BTreeMap<String, StringMatch>>, own: Option<&BTreeMap<String, StringMatch>>) -> bool {
    wider.into_iter().flatten().all(|(name, wider)| {
        own.and_then(|own| own.get(name)).is_some_and(|own| wider == own || covers_value(wider, own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio};

    fn rules(matches: &[&str]) -> String {
        let rules: Vec<String> = matches
            .iter()
            .map(|conditions| format!("{{match: [{conditions}], route: [{{destination: {{host: a}}}}]}}"))
            .collect();
        istio("VirtualService", "r", &format!("{{hosts: [a], http: [{}]}}", rules.join(", ")))
    }

    #[test]
    fn reports_rules_after_one_that_takes_their_calls() {
        for earlier_and_own in [
            ["", "{headers: {x-canary: {exact: 'true'}}}"],
            ["", ""],
            ["{uri: {prefix: /shop.}}", "{uri: {exact: /shop.Cart/Add}}"],
            ["{uri: {prefix: /shop.}}", "{uri: {prefix: /shop.Cart/}, headers: {x-a: {exact: b}}}"],
            ["{headers: {x-a: {}}}", "{headers: {x-a: {exact: b}, x-c: {exact: d}}}"],
            ["{uri: {prefix: /}}", "{port: 80}"],
            ["{sourceNamespace: web}", "{sourceNamespace: web, uri: {prefix: /a}}"],
        ] {
            assert_findings(&RULE, &rules(&earlier_and_own), &["warning VirtualService shop/r spec.http[1]"]);
        }
        assert_undecided_on_gap(&RULE, &rules(&["", ""]));
    }

    #[test]
    fn is_silent_when_a_call_can_reach_the_rule() {
        for rules_in_order in [
            ["{headers: {x-canary: {exact: 'true'}}}", ""],
            ["{uri: {prefix: /shop.Cart}}", "{uri: {prefix: /shop.}}"],
            ["{uri: {regex: /shop.*}}", "{uri: {prefix: /shop.Cart}}"],
            ["{port: 80}", ""],
            ["{port: 80}", "{port: 81}"],
            ["{gateways: [mesh]}", ""],
            ["{sourceLabels: {app: web}}", "{headers: {x-a: {exact: b}}}"],
            ["{withoutHeaders: {x-a: {exact: b}}}", "{headers: {x-c: {exact: d}}}"],
        ] {
            assert_findings(&RULE, &rules(&rules_in_order), &[]);
        }
        let delegate = "{hosts: [a], http: [{delegate: {name: d}}, {route: [{destination: {host: a}}]}]}";
        assert_findings(&RULE, &istio("VirtualService", "r", delegate), &[]);
    }
}
