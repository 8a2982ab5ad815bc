//! GM002: a field that the kind's schema does not have, or a key that is written twice.

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
    summary: "A field that the kind does not have, or a key written twice",
    docs: "\
## What it looks for
A field that the published schema of an Istio or Gateway API kind does not have: a slip of the pen, or a field at the
wrong level. A key that stands twice in one mapping is reported too, since only the last one counts.

## Why it matters for gRPC
The API server refuses the object when it validates strictly, as `kubectl apply` asks it to, and drops the field when
it does not. Then the limit, the weight or the retry policy that you wrote is simply not there.

## Example
```yaml
trafficPolicy:
  connectionPool:
    http:
      maxConcurentStreams: 100      # one r is missing
```

## Repair
```yaml
trafficPolicy:
  connectionPool:
    http:
      maxConcurrentStreams: 100
```

## References
- Seen on a real mesh: `tests/lab/effects/GM002.yaml`.
- The field table is made from `istio.io/api` 1.31.1 and Gateway API v1.6.0 (experimental channel), all versions of a
  kind together.
- Kubernetes: field validation, `fieldValidation=Strict|Warn|Ignore`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut names = Interner::default();
    for object in mesh.snapshot.objects.values().filter(|object| !object.duplicate_keys.is_empty()) {
        duplicates(object, &mut names, out);
    }
    for (object, problem) in mesh.field_problems() {
        let FieldError::Unknown { name, nearest, elsewhere } = &problem.what else { continue };
        let hint = match (nearest, elsewhere) {
            (Some(nearest), _) => format!("did you mean {nearest}?"),
            (None, Some(place)) => format!("it belongs to {place}"),
            (None, None) => "no field of a similar name exists here".to_owned(),
        };
        let fix = match (nearest, elsewhere) {
            (Some(nearest), _) => format!("rename it to {nearest}"),
            (None, Some(place)) => format!("move it to {place}"),
            (None, None) => "remove it".to_owned(),
        };
        let finding = Finding::new(&RULE, object, problem.path.as_str())
            .message(format!("{} has no field \"{name}\" here; {hint}", object.kind.name()))
            .impact("the API server refuses the object, or drops the field: what it should do does not happen")
            .fix(fix);
        out.add(&RULE, finding);
    }
}

fn duplicates(object: &Object, names: &mut Interner, out: &mut Findings<'_>) {
    for duplicate in &object.duplicate_keys {
        let mut path = duplicate.path.clone();
        push_field(&mut path, &duplicate.key);
        let finding = Finding::new(&RULE, &ObjectRef::new(&object.key, names), path)
            .message(format!("the key \"{}\" is written twice in one mapping", duplicate.key))
            .impact("only the last one counts, and strict validation refuses the object")
            .evidence([format!("again on line {} of the document", duplicate.at.line)])
            .fix("keep one of them");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, istio, service};

    #[test]
    fn slips_and_wrong_levels_are_reported() {
        check(
            &RULE,
            &istio(
                "DestinationRule",
                "a",
                "{host: a, trafficPolicy: {connectionPool: {http: {maxConcurentStreams: 1}}}}",
            ),
            &["error DestinationRule shop/a spec.trafficPolicy.connectionPool.http.maxConcurentStreams"],
        );
        check(
            &RULE,
            &istio("VirtualService", "a", "{hosts: [a], http: [{weight: 1, route: []}]}"),
            &["error VirtualService shop/a spec.http[0].weight"],
        );
    }

    #[test]
    fn a_key_written_twice_is_reported_for_any_kind() {
        check(&RULE, &service("a", "{name: grpc, port: 1, name: http}"), &["error Service shop/a spec.ports[0].name"]);
    }

    #[test]
    fn fields_of_any_version_are_silent() {
        check(
            &RULE,
            &istio(
                "DestinationRule",
                "a",
                "{host: a, trafficPolicy: {connectionPool: {http: {maxConcurrentStreams: 1}}}}",
            ),
            &[],
        );
        check(&RULE, &istio("VirtualService", "a", "{hosts: [a], http: [{mirrorPercent: 1, route: []}]}"), &[]);
    }
}
