//! What validation refuses in a VirtualService.

use super::{check_duration, refuse};
use crate::mesh::ids::ObjectRef;
use crate::mesh::virtual_service::VirtualService;
use crate::rules::Findings;
use crate::schema::limits::is_label;
use crate::schema::virtual_service::{Destination, Fault, HttpMatch, HttpRule, RouteDestination, StringMatch};
use crate::vocabulary::grpc_status::STATUSES;

/// Envoy compiles no regular expression longer than this for Istio.
const REGEX_LENGTH_MAX: usize = 1024;

pub(super) fn check(virtual_service: &VirtualService, out: &mut Findings<'_>) {
    let object = &virtual_service.object;
    let spec = &virtual_service.spec;
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        refuse(
            object,
            "spec",
            "there is no rule: none of http, tls and tcp",
            "http:\n- route:\n  - destination: {host: …}",
            out,
        );
    }
    hosts(virtual_service, out);
    for (index, rule) in spec.http.iter().enumerate() {
        self::rule(virtual_service, rule, &format!("spec.http[{index}]"), out);
    }
    for (kind, rules) in [("tls", &spec.tls), ("tcp", &spec.tcp)] {
        for (index, rule) in rules.iter().enumerate() {
            destinations(object, &rule.route, &format!("spec.{kind}[{index}]"), out);
        }
    }
}

fn hosts(virtual_service: &VirtualService, out: &mut Findings<'_>) {
    let object = &virtual_service.object;
    let spec = &virtual_service.spec;
    if spec.hosts.is_empty() {
        for (field, present) in
            [("gateways", !spec.gateways.is_empty()), ("tcp", !spec.tcp.is_empty()), ("tls", !spec.tls.is_empty())]
        {
            if present {
                refuse(
                    object,
                    format!("spec.{field}"),
                    format!("a VirtualService without hosts, a delegate, has no {field}"),
                    "remove it, or add hosts",
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
            refuse(
                object,
                field,
                "host \"*\" is not allowed for the gateway mesh",
                "name hosts, or list gateways without mesh",
                out,
            );
        } else if spec.hosts[..index].contains(host) {
            refuse(object, field, format!("host \"{host}\" is listed twice"), "remove one", out);
        } else if host.is_empty() {
            refuse(object, field, "a host is empty", "name a host", out);
        }
    }
}

fn rule(virtual_service: &VirtualService, rule: &HttpRule, path: &str, out: &mut Findings<'_>) {
    let object = &virtual_service.object;
    let actions = [
        ("redirect", rule.redirect.is_some()),
        ("directResponse", rule.direct_response.is_some()),
        ("delegate", rule.delegate.is_some()),
    ];
    let other = actions.iter().find(|(_, present)| *present).map(|(name, _)| *name);
    match (rule.route.is_empty(), other) {
        (true, None) => refuse(
            object,
            path,
            "the rule has none of route, redirect, directResponse and delegate",
            "route:\n- destination: {host: …}",
            out,
        ),
        (false, Some(other)) => refuse(
            object,
            format!("{path}.{other}"),
            format!("a rule has either route or {other}, not both"),
            format!("remove route or {other}"),
            out,
        ),
        (true, Some(_)) | (false, None) => {}
    }
    if rule.redirect.is_some() && rule.rewrite.is_some() {
        refuse(object, format!("{path}.rewrite"), "a rule has either rewrite or redirect, not both", "remove one", out);
    }
    if rule.mirror.is_some() && !rule.mirrors.is_empty() {
        refuse(
            object,
            format!("{path}.mirror"),
            "a rule has either mirror or mirrors, not both",
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
            refuse(object, format!("{path}.{field}"), "a share is between 0 and 100", "0 to 100", out);
        }
    }
    check_duration(object, format!("{path}.timeout"), rule.timeout.as_deref(), out);
    if let Some(retries) = &rule.retries {
        check_duration(object, format!("{path}.retries.perTryTimeout"), retries.per_try_timeout.as_deref(), out);
        check_duration(object, format!("{path}.retries.backoff"), retries.backoff.as_deref(), out);
        if retries.attempts.is_some_and(|attempts| attempts < 0) {
            refuse(object, format!("{path}.retries.attempts"), "attempts is below 0", "0 switches retries off", out);
        }
    }
    if let Some(fault) = &rule.fault {
        faults(object, fault, path, out);
    }
    destinations(object, &rule.route, path, out);
    for (index, one) in rule.matches.iter().enumerate() {
        matches(virtual_service, one, &format!("{path}.match[{index}]"), out);
    }
}

fn destinations(object: &ObjectRef, route: &[RouteDestination], path: &str, out: &mut Findings<'_>) {
    let mut total: i64 = 0;
    for (index, one) in route.iter().enumerate() {
        let path = format!("{path}.route[{index}]");
        match &one.destination {
            None => refuse(object, &path, "the destination is missing", "destination: {host: …}", out),
            Some(Destination { host, subset, port: _ }) => {
                if host == "*" {
                    refuse(
                        object,
                        format!("{path}.destination.host"),
                        "a destination cannot be \"*\"",
                        "name one host",
                        out,
                    );
                } else if host.is_empty() {
                    refuse(object, format!("{path}.destination"), "the destination has no host", "host: …", out);
                }
                if let Some(subset) = subset.as_deref().filter(|subset| !subset.is_empty() && !is_label(subset)) {
                    refuse(
                        object,
                        format!("{path}.destination.subset"),
                        format!("subset \"{subset}\" is not a DNS label"),
                        "letters, digits and dashes",
                        out,
                    );
                }
            }
        }
        let weight = one.weight.unwrap_or(0);
        if weight < 0 {
            refuse(object, format!("{path}.weight"), "a weight is below 0", "0 or more", out);
        }
        total = total.saturating_add(weight.max(0));
    }
    if route.len() > 1 && total == 0 {
        refuse(
            object,
            format!("{path}.route"),
            "all weights are 0 or missing (\"total destination weight = 0\")",
            "give at least one destination a weight",
            out,
        );
    }
}

fn faults(object: &ObjectRef, fault: &Fault, path: &str, out: &mut Findings<'_>) {
    if let Some(delay) = &fault.delay {
        check_duration(object, format!("{path}.fault.delay.fixedDelay"), delay.fixed_delay.as_deref(), out);
    }
    let Some(abort) = &fault.abort else { return };
    if let Some(status) = abort
        .grpc_status
        .as_deref()
        .filter(|status| !status.is_empty() && STATUSES.iter().all(|one| one.name != *status))
    {
        refuse(
            object,
            format!("{path}.fault.abort.grpcStatus"),
            format!("\"{status}\" is not the name of a gRPC status"),
            "a name such as UNAVAILABLE",
            out,
        );
    }
    if abort.http2_error.is_some() {
        refuse(
            object,
            format!("{path}.fault.abort.http2Error"),
            "http2Error is not supported",
            "grpcStatus: UNAVAILABLE",
            out,
        );
    }
    if abort.http_status.is_some_and(|status| !(200..=600).contains(&status)) {
        refuse(object, format!("{path}.fault.abort.httpStatus"), "httpStatus is between 200 and 600", "503", out);
    }
}

fn matches(virtual_service: &VirtualService, one: &HttpMatch, path: &str, out: &mut Findings<'_>) {
    let object = &virtual_service.object;
    let fields = [("scheme", &one.scheme), ("method", &one.method), ("authority", &one.authority)];
    if let Some(uri) = &one.uri {
        regex(object, uri, &format!("{path}.uri"), out);
    }
    for (name, text) in fields {
        if let Some(text) = text {
            text_match(object, text, &format!("{path}.{name}"), out);
        }
    }
    for (field, map) in [("headers", &one.headers), ("withoutHeaders", &one.without_headers)] {
        for (name, text) in map.iter().flatten() {
            let mut path = format!("{path}.{field}");
            crate::schema::path::push_field(&mut path, name);
            let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:@".contains(c);
            let is_claim = name.starts_with("@request.auth.claims");
            if name.is_empty() || (!is_claim && !name.chars().all(allowed)) {
                refuse(object, &path, format!("\"{name}\" is not a header name"), "letters, digits and dashes", out);
            }
            if is_claim && virtual_service.acts_in_mesh() {
                refuse(
                    object,
                    &path,
                    "claims of a token can be matched on gateways only",
                    "list gateways without mesh",
                    out,
                );
            }
            text_match(object, text, &path, out);
        }
    }
    for (name, text) in one.query_params.iter().flatten() {
        let mut path = format!("{path}.queryParams");
        crate::schema::path::push_field(&mut path, name);
        regex(object, text, &path, out);
    }
}

fn text_match(object: &ObjectRef, text: &StringMatch, path: &str, out: &mut Findings<'_>) {
    if text.prefix.as_deref() == Some("") {
        refuse(
            object,
            format!("{path}.prefix"),
            "an empty prefix is allowed for uri only",
            "leave the condition out",
            out,
        );
    }
    regex(object, text, path, out);
}

fn regex(object: &ObjectRef, text: &StringMatch, path: &str, out: &mut Findings<'_>) {
    let Some(pattern) = text.regex.as_deref() else { return };
    if pattern.len() > REGEX_LENGTH_MAX {
        refuse(
            object,
            format!("{path}.regex"),
            format!("the regular expression is longer than {REGEX_LENGTH_MAX} characters"),
            "a shorter one",
            out,
        );
    } else if let Err(reason) = crate::schema::re2::compile(pattern) {
        refuse(
            object,
            format!("{path}.regex"),
            format!("\"{pattern}\" is not an RE2 expression: {reason}"),
            "RE2 has no look-around and no back-references",
            out,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::RULE;
    use crate::rules::testing::{check, istio};

    #[track_caller]
    fn refused(spec: &str, field: &str) {
        check(&RULE, &istio("VirtualService", "r", spec), &[&format!("error VirtualService shop/r {field}")]);
    }

    const TO: &str = "route: [{destination: {host: a}}]";

    #[test]
    fn rules_and_hosts() {
        refused("{hosts: [a]}", "spec");
        refused("{hosts: [a], http: [{name: x}]}", "spec.http[0]");
        refused(&format!("{{hosts: ['*'], http: [{{{TO}}}]}}"), "spec.hosts[0]");
        refused(&format!("{{hosts: [a, a], http: [{{{TO}}}]}}"), "spec.hosts[1]");
        refused(&format!("{{gateways: [g], http: [{{{TO}}}]}}"), "spec.gateways");
        refused(&format!("{{hosts: [a], http: [{{{TO}, redirect: {{uri: /}}}}]}}"), "spec.http[0].redirect");
        refused("{hosts: [a], http: [{redirect: {uri: /}, rewrite: {uri: /}}]}", "spec.http[0].rewrite");
        refused(
            &format!("{{hosts: [a], http: [{{{TO}, mirror: {{host: a}}, mirrors: [{{destination: {{host: a}}}}]}}]}}"),
            "spec.http[0].mirror",
        );
        refused(
            &format!("{{hosts: [a], http: [{{{TO}, mirrorPercentage: {{value: 101}}}}]}}"),
            "spec.http[0].mirrorPercentage.value",
        );
    }

    #[test]
    fn destinations_and_weights() {
        refused("{hosts: [a], http: [{route: [{weight: 1}]}]}", "spec.http[0].route[0]");
        refused(
            "{hosts: [a], http: [{route: [{destination: {host: '*'}}]}]}",
            "spec.http[0].route[0].destination.host",
        );
        refused(
            "{hosts: [a], http: [{route: [{destination: {host: a, subset: V_2}}]}]}",
            "spec.http[0].route[0].destination.subset",
        );
        refused(
            "{hosts: [a], http: [{route: [{destination: {host: a}, weight: -1}]}]}",
            "spec.http[0].route[0].weight",
        );
        refused(
            "{hosts: [a], http: [{route: [{destination: {host: a}}, {destination: {host: b}, weight: 0}]}]}",
            "spec.http[0].route",
        );
    }

    #[test]
    fn durations() {
        for (text, field) in [("0s", "timeout"), ("5", "timeout"), ("1.5ms", "timeout"), ("1us", "timeout")] {
            refused(&format!("{{hosts: [a], http: [{{{TO}, {field}: '{text}'}}]}}"), &format!("spec.http[0].{field}"));
        }
        refused(
            &format!("{{hosts: [a], http: [{{{TO}, retries: {{attempts: 1, perTryTimeout: 0s}}}}]}}"),
            "spec.http[0].retries.perTryTimeout",
        );
    }

    #[test]
    fn matches_and_faults() {
        refused(
            &format!("{{hosts: [a], http: [{{match: [{{uri: {{regex: '(?=a)'}}}}], {TO}}}]}}"),
            "spec.http[0].match[0].uri.regex",
        );
        refused(
            &format!("{{hosts: [a], http: [{{match: [{{headers: {{x: {{prefix: ''}}}}}}], {TO}}}]}}"),
            "spec.http[0].match[0].headers.x.prefix",
        );
        refused(
            &format!("{{hosts: [a], http: [{{match: [{{headers: {{'a b': {{exact: c}}}}}}], {TO}}}]}}"),
            "spec.http[0].match[0].headers.a b",
        );
        refused(
            &format!("{{hosts: [a], http: [{{{TO}, fault: {{abort: {{grpcStatus: '14'}}}}}}]}}"),
            "spec.http[0].fault.abort.grpcStatus",
        );
        refused(
            &format!("{{hosts: [a], http: [{{{TO}, fault: {{delay: {{fixedDelay: 0.1ms}}}}}}]}}"),
            "spec.http[0].fault.delay.fixedDelay",
        );
    }
}
