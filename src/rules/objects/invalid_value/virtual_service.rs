//! Values that Istio's validation rejects in a VirtualService.

use super::{check_duration, reject};
use crate::mesh::ids::ObjectRef;
use crate::mesh::virtual_service::VirtualService;
use crate::rules::Findings;
use crate::schema::limits::is_label;
use crate::schema::virtual_service::{Destination, Fault, HttpMatch, HttpRule, RouteDestination, StringMatch};
use crate::vocabulary::grpc_status::STATUSES;

/// Longest regular expression that Istio's validation accepts.
const REGEX_LENGTH_MAX: usize = 1024;

pub(super) fn check(virtual_service: &VirtualService, out: &mut Findings<'_>) {
    let object = &virtual_service.object;
    let spec = &virtual_service.spec;
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        reject(
            object,
            "spec",
            "the VirtualService has no http, tls or tcp rules",
            "http:\n- route:\n  - destination: {host: checkout}",
            out,
        );
    }
    check_hosts(virtual_service, out);
    for (index, rule) in spec.http.iter().enumerate() {
        check_rule(virtual_service, rule, &format!("spec.http[{index}]"), out);
    }
    for (kind, rules) in [("tls", &spec.tls), ("tcp", &spec.tcp)] {
        for (index, rule) in rules.iter().enumerate() {
            check_destinations(object, &rule.route, &format!("spec.{kind}[{index}]"), out);
        }
    }
}

fn check_hosts(virtual_service: &VirtualService, out: &mut Findings<'_>) {
    let object = &virtual_service.object;
    let spec = &virtual_service.spec;
    if spec.hosts.is_empty() {
        for (field, present) in
            [("gateways", !spec.gateways.is_empty()), ("tcp", !spec.tcp.is_empty()), ("tls", !spec.tls.is_empty())]
        {
            if present {
                reject(
                    object,
                    format!("spec.{field}"),
                    format!("a delegate (a VirtualService without hosts) cannot have {field}"),
                    "remove the field, or add hosts",
                    out,
                );
            }
        }
        return;
    }
    let in_mesh = virtual_service.acts_in_mesh();
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        if host == "*" && in_mesh {
            reject(
                object,
                field,
                "host \"*\" is not allowed for sidecars (gateway mesh)",
                "list hosts by name, or list gateways without mesh",
                out,
            );
        } else if spec.hosts.iter().take(index).any(|earlier| earlier == host) {
            reject(object, field, format!("host \"{host}\" is listed twice"), "remove one of the two entries", out);
        } else if host.is_empty() {
            reject(object, field, "the host is empty", "set a host or remove the entry", out);
        }
    }
}

fn check_rule(virtual_service: &VirtualService, rule: &HttpRule, path: &str, out: &mut Findings<'_>) {
    let object = &virtual_service.object;
    let actions = [
        ("redirect", rule.redirect.is_some()),
        ("directResponse", rule.direct_response.is_some()),
        ("delegate", rule.delegate.is_some()),
    ];
    let other = actions.iter().find(|(_, present)| *present).map(|(name, _)| *name);
    match (rule.route.is_empty(), other) {
        (true, None) => reject(
            object,
            path,
            "the rule has no route, redirect, directResponse or delegate",
            "route:\n- destination: {host: checkout}",
            out,
        ),
        (false, Some(other)) => reject(
            object,
            format!("{path}.{other}"),
            format!("route and {other} are mutually exclusive"),
            format!("remove route or {other}"),
            out,
        ),
        (true, Some(_)) | (false, None) => {}
    }
    if rule.redirect.is_some() && rule.rewrite.is_some() {
        reject(
            object,
            format!("{path}.rewrite"),
            "rewrite and redirect are mutually exclusive",
            "remove rewrite or redirect",
            out,
        );
    }
    if rule.mirror.is_some() && !rule.mirrors.is_empty() {
        reject(
            object,
            format!("{path}.mirror"),
            "mirror and mirrors are mutually exclusive",
            "move mirror into mirrors",
            out,
        );
    }
    let percents = [
        ("mirrorPercentage.value", rule.mirror_percentage.as_ref().map(|percent| percent.value)),
        ("mirrorPercent", rule.mirror_percent.map(f64::from)),
    ];
    for (field, percent) in percents {
        if percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
            reject(
                object,
                format!("{path}.{field}"),
                format!("{field} is not between 0 and 100"),
                "use a value from 0 to 100",
                out,
            );
        }
    }
    check_duration(object, format!("{path}.timeout"), rule.timeout.as_deref(), out);
    if let Some(retries) = &rule.retries {
        check_duration(object, format!("{path}.retries.perTryTimeout"), retries.per_try_timeout.as_deref(), out);
        check_duration(object, format!("{path}.retries.backoff"), retries.backoff.as_deref(), out);
        if retries.attempts.is_some_and(|attempts| attempts < 0) {
            reject(object, format!("{path}.retries.attempts"), "attempts is negative", "use 0 to disable retries", out);
        }
    }
    if let Some(fault) = &rule.fault {
        check_fault(object, fault, path, out);
    }
    check_destinations(object, &rule.route, path, out);
    for (index, condition) in rule.matches.iter().enumerate() {
        check_match(virtual_service, condition, &format!("{path}.match[{index}]"), out);
    }
}

fn check_destinations(object: &ObjectRef, route: &[RouteDestination], path: &str, out: &mut Findings<'_>) {
    let mut total: i64 = 0;
    for (index, backend) in route.iter().enumerate() {
        let path = format!("{path}.route[{index}]");
        match &backend.destination {
            None => reject(object, &path, "the route entry has no destination", "destination: {host: checkout}", out),
            Some(Destination { host, subset, port: _ }) => {
                if host == "*" {
                    reject(
                        object,
                        format!("{path}.destination.host"),
                        "\"*\" is not a valid destination host",
                        "set the host of one Service or ServiceEntry",
                        out,
                    );
                } else if host.is_empty() {
                    reject(object, format!("{path}.destination"), "the destination has no host", "host: checkout", out);
                }
                if let Some(subset) = subset.as_deref().filter(|subset| !subset.is_empty() && !is_label(subset)) {
                    reject(
                        object,
                        format!("{path}.destination.subset"),
                        format!("subset name \"{subset}\" is not a DNS label"),
                        "use letters, digits and dashes",
                        out,
                    );
                }
            }
        }
        let weight = backend.weight.unwrap_or(0);
        if weight < 0 {
            reject(object, format!("{path}.weight"), "the weight is negative", "use 0 or more", out);
        }
        total = total.saturating_add(weight.max(0));
    }
    if route.len() > 1 && total == 0 {
        reject(
            object,
            format!("{path}.route"),
            "all weights are 0 or missing (\"total destination weight = 0\")",
            "set a weight above 0 on at least one destination",
            out,
        );
    }
}

fn check_fault(object: &ObjectRef, fault: &Fault, path: &str, out: &mut Findings<'_>) {
    if let Some(delay) = &fault.delay {
        check_duration(object, format!("{path}.fault.delay.fixedDelay"), delay.fixed_delay.as_deref(), out);
    }
    let Some(abort) = &fault.abort else { return };
    if let Some(status) = abort
        .grpc_status
        .as_deref()
        .filter(|status| !status.is_empty() && STATUSES.iter().all(|known| known.name != *status))
    {
        reject(
            object,
            format!("{path}.fault.abort.grpcStatus"),
            format!("\"{status}\" is not a gRPC status name"),
            "use a name such as UNAVAILABLE",
            out,
        );
    }
    if abort.http2_error.is_some() {
        reject(
            object,
            format!("{path}.fault.abort.http2Error"),
            "Istio does not support http2Error",
            "grpcStatus: UNAVAILABLE",
            out,
        );
    }
    if abort.http_status.is_some_and(|status| !(200..=600).contains(&status)) {
        reject(
            object,
            format!("{path}.fault.abort.httpStatus"),
            "httpStatus is not between 200 and 600",
            "httpStatus: 503",
            out,
        );
    }
}

fn check_match(virtual_service: &VirtualService, condition: &HttpMatch, path: &str, out: &mut Findings<'_>) {
    let object = &virtual_service.object;
    let fields = [("scheme", &condition.scheme), ("method", &condition.method), ("authority", &condition.authority)];
    if let Some(uri) = &condition.uri {
        check_regex(object, uri, &format!("{path}.uri"), out);
    }
    for (name, text) in fields {
        if let Some(text) = text {
            check_text(object, text, &format!("{path}.{name}"), out);
        }
    }
    for (field, map) in [("headers", &condition.headers), ("withoutHeaders", &condition.without_headers)] {
        for (name, text) in map.iter().flatten() {
            let mut path = format!("{path}.{field}");
            crate::schema::path::push_field(&mut path, name);
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:@".contains(c);
            let is_claim = name.starts_with("@request.auth.claims");
            if name.is_empty() || (!is_claim && !name.chars().all(is_allowed)) {
                reject(
                    object,
                    &path,
                    format!("\"{name}\" is not a valid header name"),
                    "use letters, digits and dashes",
                    out,
                );
            }
            if is_claim && virtual_service.acts_in_mesh() {
                reject(object, &path, "JWT claims can be matched only on gateways", "list gateways without mesh", out);
            }
            check_text(object, text, &path, out);
        }
    }
    for (name, text) in condition.query_params.iter().flatten() {
        let mut path = format!("{path}.queryParams");
        crate::schema::path::push_field(&mut path, name);
        check_regex(object, text, &path, out);
    }
}

fn check_text(object: &ObjectRef, text: &StringMatch, path: &str, out: &mut Findings<'_>) {
    if text.prefix.as_deref() == Some("") {
        reject(object, format!("{path}.prefix"), "an empty prefix is valid only for uri", "remove the condition", out);
    }
    check_regex(object, text, path, out);
}

fn check_regex(object: &ObjectRef, text: &StringMatch, path: &str, out: &mut Findings<'_>) {
    let Some(pattern) = text.regex.as_deref() else { return };
    if pattern.len() > REGEX_LENGTH_MAX {
        reject(
            object,
            format!("{path}.regex"),
            format!("the regular expression is longer than {REGEX_LENGTH_MAX} characters"),
            "use a shorter expression",
            out,
        );
    } else if let Err(reason) = crate::schema::re2::compile(pattern) {
        reject(
            object,
            format!("{path}.regex"),
            format!("\"{pattern}\" is not a valid RE2 expression: {reason}"),
            "use RE2 syntax, which has no look-around and no back-references",
            out,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::RULE;
    use crate::rules::testing::{assert_findings, istio};

    #[track_caller]
    fn assert_rejected_at(spec: &str, field: &str) {
        assert_findings(&RULE, &istio("VirtualService", "r", spec), &[&format!("error VirtualService shop/r {field}")]);
    }

    const ROUTE: &str = "route: [{destination: {host: a}}]";

    #[test]
    fn rejects_invalid_hosts_and_rule_actions() {
        assert_rejected_at("{hosts: [a]}", "spec");
        assert_rejected_at("{hosts: [a], http: [{name: x}]}", "spec.http[0]");
        assert_rejected_at(&format!("{{hosts: ['*'], http: [{{{ROUTE}}}]}}"), "spec.hosts[0]");
        assert_rejected_at(&format!("{{hosts: [a, a], http: [{{{ROUTE}}}]}}"), "spec.hosts[1]");
        assert_rejected_at(&format!("{{gateways: [g], http: [{{{ROUTE}}}]}}"), "spec.gateways");
        assert_rejected_at(
            &format!("{{hosts: [a], http: [{{{ROUTE}, redirect: {{uri: /}}}}]}}"),
            "spec.http[0].redirect",
        );
        assert_rejected_at("{hosts: [a], http: [{redirect: {uri: /}, rewrite: {uri: /}}]}", "spec.http[0].rewrite");
        assert_rejected_at(
            &format!(
                "{{hosts: [a], http: [{{{ROUTE}, mirror: {{host: a}}, mirrors: [{{destination: {{host: a}}}}]}}]}}"
            ),
            "spec.http[0].mirror",
        );
        assert_rejected_at(
            &format!("{{hosts: [a], http: [{{{ROUTE}, mirrorPercentage: {{value: 101}}}}]}}"),
            "spec.http[0].mirrorPercentage.value",
        );
    }

    #[test]
    fn rejects_invalid_destinations_and_weights() {
        assert_rejected_at("{hosts: [a], http: [{route: [{weight: 1}]}]}", "spec.http[0].route[0]");
        assert_rejected_at(
            "{hosts: [a], http: [{route: [{destination: {host: '*'}}]}]}",
            "spec.http[0].route[0].destination.host",
        );
        assert_rejected_at(
            "{hosts: [a], http: [{route: [{destination: {host: a, subset: V_2}}]}]}",
            "spec.http[0].route[0].destination.subset",
        );
        assert_rejected_at(
            "{hosts: [a], http: [{route: [{destination: {host: a}, weight: -1}]}]}",
            "spec.http[0].route[0].weight",
        );
        assert_rejected_at(
            "{hosts: [a], http: [{route: [{destination: {host: a}}, {destination: {host: b}, weight: 0}]}]}",
            "spec.http[0].route",
        );
    }

    #[test]
    fn rejects_invalid_durations() {
        for (text, field) in [("0s", "timeout"), ("5", "timeout"), ("1.5ms", "timeout"), ("1us", "timeout")] {
            assert_rejected_at(
                &format!("{{hosts: [a], http: [{{{ROUTE}, {field}: '{text}'}}]}}"),
                &format!("spec.http[0].{field}"),
            );
        }
        assert_rejected_at(
            &format!("{{hosts: [a], http: [{{{ROUTE}, retries: {{attempts: 1, perTryTimeout: 0s}}}}]}}"),
            "spec.http[0].retries.perTryTimeout",
        );
    }

    #[test]
    fn rejects_invalid_matches_and_faults() {
        assert_rejected_at(
            &format!("{{hosts: [a], http: [{{match: [{{uri: {{regex: '(?=a)'}}}}], {ROUTE}}}]}}"),
            "spec.http[0].match[0].uri.regex",
        );
        assert_rejected_at(
            &format!("{{hosts: [a], http: [{{match: [{{headers: {{x: {{prefix: ''}}}}}}], {ROUTE}}}]}}"),
            "spec.http[0].match[0].headers.x.prefix",
        );
        assert_rejected_at(
            &format!("{{hosts: [a], http: [{{match: [{{headers: {{'a b': {{exact: c}}}}}}], {ROUTE}}}]}}"),
            "spec.http[0].match[0].headers.a b",
        );
        assert_rejected_at(
            &format!("{{hosts: [a], http: [{{{ROUTE}, fault: {{abort: {{grpcStatus: '14'}}}}}}]}}"),
            "spec.http[0].fault.abort.grpcStatus",
        );
        assert_rejected_at(
            &format!("{{hosts: [a], http: [{{{ROUTE}, fault: {{delay: {{fixedDelay: 0.1ms}}}}}}]}}"),
            "spec.http[0].fault.delay.fixedDelay",
        );
    }
}
