//! GM002: a field that the schema of the kind does not have, or a duplicate key.

use crate::mesh::Mesh;
use crate::mesh::ids::{Interner, ObjectRef};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::fields::FieldError;
use crate::schema::path::push_field;
use crate::snapshot::Object;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM002",
    name: "unknown-field",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "A field that the kind does not have, or a duplicate key",
    docs: "\
## What it looks for
A field that the published schema of an Istio or Gateway API kind does not have: a misspelled name, or a field at the
wrong level. Also a key that occurs twice in one mapping, because only the last value counts.

## Why it matters for gRPC
With strict validation, the default of `kubectl apply`, the API server rejects the object. Without it, the API server
drops the field, and the limit, weight or retry policy that you wrote does not exist.

## Example
```yaml
trafficPolicy:
  connectionPool:
    http:
      maxConcurentStreams: 100      # misspelled
```

## Fix
```yaml
trafficPolicy:
  connectionPool:
    http:
      maxConcurrentStreams: 100
```

## References
- Verified on a real mesh: `tests/lab/effects/GM002.yaml`.
- The field table is generated from `istio.io/api` 1.31.1 and Gateway API v1.6.0 (experimental channel) and contains the
  fields of all versions of a kind.
- Kubernetes: field validation, `fieldValidation=Strict|Warn|Ignore`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut names = Interner::default();
    for object in mesh.snapshot.objects.values().filter(|object| !object.duplicate_keys.is_empty()) {
        report_duplicate_keys(object, &mut names, out);
    }
    for (object, problem) in mesh.field_problems() {
        let FieldError::Unknown { name, nearest, elsewhere } = &problem.error else { continue };
        let hint = match (nearest, elsewhere) {
            (Some(nearest), _) => format!("did you mean {nearest}?"),
            (None, Some(parent)) => format!("it belongs to {parent}"),
            (None, None) => "no field here has a similar name".to_owned(),
        };
        let fix = match (nearest, elsewhere) {
            (Some(nearest), _) => format!("rename the field to {nearest}"),
            (None, Some(parent)) => format!("move the field to {parent}"),
            (None, None) => "remove the field".to_owned(),
        };
        let finding = Finding::new(&RULE, object, problem.path.as_str())
            .message(format!("{} has no field \"{name}\" at this position; {hint}", object.kind.name()))
            .impact("the API server rejects the object, or drops the field so that its value has no effect on calls")
            .fix(fix);
        out.add(&RULE, finding);
    }
}

fn report_duplicate_keys(object: &Object, names: &mut Interner, out: &mut Findings<'_>) {
    for duplicate in &object.duplicate_keys {
        let mut path = duplicate.path.clone();
        push_field(&mut path, &duplicate.key);
        let finding = Finding::new(&RULE, &ObjectRef::new(&object.key, names), path)
            .message(format!("the key \"{}\" occurs twice in one mapping", duplicate.key))
            .impact("the last value wins and the first one has no effect; strict validation rejects the object")
            .evidence([format!("second occurrence on line {} of the document", duplicate.position.line)])
            .fix("remove one of the two keys");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, istio, service};

    #[test]
    fn reports_misspelled_fields_and_fields_at_the_wrong_level() {
        assert_findings(
            &RULE,
            &istio(
                "DestinationRule",
                "a",
                "{host: a, trafficPolicy: {connectionPool: {http: {maxConcurentStreams: 1}}}}",
            ),
            &["error DestinationRule shop/a spec.trafficPolicy.connectionPool.http.maxConcurentStreams"],
        );
        assert_findings(
            &RULE,
            &istio("VirtualService", "a", "{hosts: [a], http: [{weight: 1, route: []}]}"),
            &["error VirtualService shop/a spec.http[0].weight"],
        );
    }

    #[test]
    fn reports_duplicate_keys_in_objects_of_any_kind() {
        assert_findings(
            &RULE,
            &service("a", "{name: grpc, port: 1, name: http}"),
            &["error Service shop/a spec.ports[0].name"],
        );
    }

    #[test]
    fn is_silent_on_fields_of_every_served_version() {
        assert_findings(
            &RULE,
            &istio(
                "DestinationRule",
                "a",
                "{host: a, trafficPolicy: {connectionPool: {http: {maxConcurrentStreams: 1}}}}",
            ),
            &[],
        );
        assert_findings(
            &RULE,
            &istio("VirtualService", "a", "{hosts: [a], http: [{mirrorPercent: 1, route: []}]}"),
            &[],
        );
    }
}
