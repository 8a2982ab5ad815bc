//! GM003: values that Istio's validation or the schema rejects, each with its own message.
//!
//! Retry conditions, retry attempts and TLS of gateway servers have rules of their own: GM301, GM302, GM501, GM502.

mod destination_rule;
mod gateway;
mod virtual_service;

use crate::rules::{Finding, Findings, Rule, Severity};
use std::collections::BTreeSet;

use crate::mesh::ids::ObjectRef;
use crate::mesh::{Mesh, UndecodedObject};
use crate::schema::fields::FieldError;
use crate::vocabulary::duration;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM003",
    name: "invalid-value",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "A value that Istio's validation or the schema of the kind rejects",
    docs: "\
## What it looks for
Values that Istio's webhook rejects in VirtualServices, DestinationRules and Gateways, among them: a rule without an
action, host `*` for sidecars, weights that are negative or all 0, durations below 1 ms or without a unit, regular
expressions that are not RE2, faults with an unknown status name, empty policies, `UPGRADE` together with
`useClientProtocol`, and a Gateway port without a name. Also values of the wrong type, and values that the schema does
not list.

## Why it matters for gRPC
A rejected change never reaches the mesh: the previous routes and limits stay in force, and a pipeline that ignores the
error reports success. If validation is disabled, istiod translates the invalid object as far as it can, and the result
is rarely the intended one.

## Example
```yaml
http:
- timeout: 0s            # below 1 ms; remove the field for \"no limit\"
  route:
  - destination: {host: checkout}
```

## Fix
```yaml
http:
- route:
  - destination: {host: checkout}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM003.yaml`.
- Istio source: `pkg/config/validation/validation.go`, `virtualservice.go`, `agent/validation.go`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (object, problem) in mesh.field_problems() {
        let (message, fix) = match &problem.error {
            FieldError::Unknown { .. } => continue,
            FieldError::Rejected { message, fix } => (message.clone(), fix.clone()),
            FieldError::WrongType { expected, actual } => type_mismatch(expected, actual),
            FieldError::NotAllowed { value, allowed } => (
                format!("\"{value}\" is not a valid value for this field"),
                format!("use one of {}", allowed.join(", ")),
            ),
        };
        reject(object, problem.path.as_str(), message, fix, out);
    }
    let reported: BTreeSet<&ObjectRef> = mesh.field_problems().iter().map(|(object, _)| object).collect();
    let unreported = mesh.undecoded.iter().filter(|undecoded| !reported.contains(&undecoded.object));
    for UndecodedObject { object, field, reason } in unreported {
        let fix =
            if reason.ends_with("expected a string") { "quote the value" } else { "use a value of the expected type" };
        reject(object, field.as_str(), reason.as_str(), fix, out);
    }
    for (_, object) in mesh.virtual_services.iter() {
        virtual_service::check(object, out);
    }
    for rule in mesh.destination_rules.iter() {
        destination_rule::check(rule, out);
    }
    for gateway in &mesh.istio_gateways {
        gateway::check(gateway, out);
    }
}

fn type_mismatch(expected: &str, actual: &str) -> (String, String) {
    let mut message = format!("{actual} is not {expected}");
    let fix = if expected == "a string" && !actual.starts_with(['{', '[']) {
        if matches!(actual, "true" | "false") {
            message.push_str("; YAML reads yes, no, on, off, y and n as booleans");
        }
        format!("quote the value: '{actual}'")
    } else {
        format!("use {expected}")
    };
    (message, fix)
}

/// Reports a value for which Istio or the API server rejects the object.
fn reject(
    object: &ObjectRef,
    field: impl Into<String>,
    message: impl Into<String>,
    fix: impl Into<String>,
    out: &mut Findings<'_>,
) {
    let finding = Finding::new(&RULE, object, field)
        .message(message)
        .impact("the API server or Istio's webhook rejects the object: proxies keep the previous configuration")
        .fix(fix);
    out.add(&RULE, finding);
}

/// Rejects durations below 1 ms and durations that are not whole milliseconds, as Istio's validation does.
fn check_duration(object: &ObjectRef, field: String, text: Option<&str>, out: &mut Findings<'_>) {
    let Some(text) = text else { return };
    match duration::parse(text) {
        Err(error) => reject(object, field, error.to_string(), "use a duration such as 2s or 500ms", out),
        Ok(limit) if limit.as_nanos() < 1_000_000 => {
            let fix = if limit.is_zero() { "remove the field for no limit" } else { "use 1ms or more" };
            reject(object, field, format!("\"{text}\" is shorter than 1 ms"), fix, out);
        }
        Ok(limit) if limit.as_nanos() % 1_000_000 != 0 => {
            reject(
                object,
                field,
                format!("\"{text}\" is not a whole number of milliseconds"),
                "use whole milliseconds",
                out,
            );
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, istio};

    #[test]
    fn reports_values_of_the_wrong_type_and_values_that_the_schema_does_not_list() {
        assert_findings(
            &RULE,
            &istio(
                "VirtualService",
                "r",
                "{hosts: [a], http: [{match: [{headers: {x: {exact: on}}}], route: [{destination: {host: a}}]}]}",
            ),
            &["error VirtualService shop/r spec.http[0].match[0].headers.x.exact"],
        );
        assert_findings(
            &RULE,
            &istio("DestinationRule", "d", "{host: a, trafficPolicy: {tls: {mode: mutual}}}"),
            &["error DestinationRule shop/d spec.trafficPolicy.tls.mode"],
        );
    }

    #[test]
    fn is_silent_on_valid_objects() {
        assert_findings(
            &RULE,
            &istio(
                "VirtualService",
                "r",
                "{hosts: [a], http: [{match: [{uri: {prefix: ''}}], timeout: 1s, route: [{destination: {host: a}, weight: 0}], fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 1}}}}]}",
            ),
            &[],
        );
    }
}
