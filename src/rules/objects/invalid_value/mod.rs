//! GM003: values that Istio's validation refuses, each with its own message.
//!
//! Retry conditions, attempts and TLS of gateway servers have rules of their own (GM301, GM302, GM501, GM502).

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
    summary: "A value that Istio's validation or the kind's schema refuses",
    docs: "\
## What it looks for
Values that Istio's webhook refuses in VirtualServices, DestinationRules and Gateways: a rule without an action, host `*`
in the mesh, weights below 0 or all 0, durations below 1 ms or without a unit, regular expressions that are not RE2,
faults with unknown status names, empty policies, `UPGRADE` together with `useClientProtocol`, a Gateway port without a
name, and so on. Also values of the wrong type, and words that the schema does not list.

## Why it matters for gRPC
A refused change never reaches the mesh: the old routes and limits stay, and a pipeline that swallowed the error
believes otherwise. Where validation was switched off, istiod translates what it finds, which is seldom what was meant.

## Example
```yaml
http:
- timeout: 0s            # below 1 ms; leave it out for \"no limit\"
  route:
  - destination: {host: checkout}
```

## Repair
```yaml
http:
- route:
  - destination: {host: checkout}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM003.yaml`.
- Istio: `pkg/config/validation/validation.go`, `virtualservice.go`, `agent/validation.go`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (object, problem) in mesh.field_problems() {
        let (message, fix) = match &problem.what {
            FieldError::Unknown { .. } => continue,
            FieldError::Refused { message, fix } => (message.clone(), fix.clone()),
            FieldError::Type { wanted, found } => type_texts(wanted, found),
            FieldError::Word { found, allowed } => {
                (format!("\"{found}\" is not allowed here"), format!("one of {}", allowed.join(", ")))
            }
        };
        refuse(object, problem.path.as_str(), message, fix, out);
    }
    let told: BTreeSet<&ObjectRef> = mesh.field_problems().iter().map(|(object, _)| object).collect();
    for UndecodedObject { object, field, why } in mesh.undecoded.iter().filter(|one| !told.contains(&one.object)) {
        let quoted =
            if why.ends_with("expected a string") { "write it in quotes" } else { "give it the type it needs" };
        refuse(object, field.as_str(), why.as_str(), quoted, out);
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

fn type_texts(wanted: &str, found: &str) -> (String, String) {
    let mut message = format!("{found} is not {wanted}");
    let fix = if wanted == "a string" && !found.starts_with(['{', '[']) {
        if matches!(found, "true" | "false") {
            message.push_str("; YAML reads yes, no, on, off, y and n as true or false");
        }
        format!("write it in quotes: '{found}'")
    } else {
        format!("write {wanted}")
    };
    (message, fix)
}

/// Reports a value that is refused.
fn refuse(
    object: &ObjectRef,
    field: impl Into<String>,
    message: impl Into<String>,
    fix: impl Into<String>,
    out: &mut Findings<'_>,
) {
    let finding = Finding::new(&RULE, object, field)
        .message(message)
        .impact("the object is refused: the mesh keeps what it had before")
        .fix(fix);
    out.add(&RULE, finding);
}

/// Checks a duration: at least 1 ms, and no part below that.
fn check_duration(object: &ObjectRef, field: String, text: Option<&str>, out: &mut Findings<'_>) {
    let Some(text) = text else { return };
    match duration::parse(text) {
        Err(error) => refuse(object, field, error.to_string(), "a duration such as 2s or 500ms", out),
        Ok(limit) if limit.as_nanos() < 1_000_000 => {
            let fix = if limit.is_zero() { "leave the field out for no limit" } else { "1ms or more" };
            refuse(object, field, format!("\"{text}\" is below 1 ms"), fix, out);
        }
        Ok(limit) if limit.as_nanos() % 1_000_000 != 0 => {
            refuse(object, field, format!("\"{text}\" has a part below 1 ms"), "whole milliseconds", out);
        }
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, istio};

    #[test]
    fn types_and_words_are_reported() {
        check(
            &RULE,
            &istio(
                "VirtualService",
                "r",
                "{hosts: [a], http: [{match: [{headers: {x: {exact: on}}}], route: [{destination: {host: a}}]}]}",
            ),
            &["error VirtualService shop/r spec.http[0].match[0].headers.x.exact"],
        );
        check(
            &RULE,
            &istio("DestinationRule", "d", "{host: a, trafficPolicy: {tls: {mode: mutual}}}"),
            &["error DestinationRule shop/d spec.trafficPolicy.tls.mode"],
        );
    }

    #[test]
    fn valid_objects_are_silent() {
        check(
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
