//! GM305: `deadline-exceeded` as a retry condition.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM305",
    name: "retry-after-deadline",
    severity: Severity::Info,
    needs: &[],
    istio_code: None,
    summary: "retryOn lists deadline-exceeded, although the deadline of the client has usually expired by then",
    docs: "\
## What it looks for
A VirtualService whose `retries.retryOn` lists `deadline-exceeded`.

## Why it matters for gRPC
The condition matches a DEADLINE_EXCEEDED status that the server returned. By then the deadline of the client has
usually expired as well, and the client has given up: the retry only adds load to a server that is already slow.

## Example
```yaml
retries: {attempts: 2, retryOn: 'unavailable,deadline-exceeded'}
```

## Fix
```yaml
retries: {attempts: 2, retryOn: 'connect-failure,refused-stream,unavailable'}
```

## References
- gRPC: the deadline travels with the call in `grpc-timeout`. Envoy: `x-envoy-retry-grpc-on`.
- Verified on a real mesh: `tests/lab/effects/GM305.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for (index, rule) in object.spec.http.iter().enumerate() {
            let Some(retry_on) = rule.retries.as_ref().and_then(|retries| retries.retry_on.as_deref()) else {
                continue;
            };
            let conditions: Vec<_> = retry_on.split(',').map(str::trim).collect();
            if !conditions.contains(&"deadline-exceeded") {
                continue;
            }
            let others: Vec<_> = conditions.into_iter().filter(|condition| *condition != "deadline-exceeded").collect();
            let fixed = if others.is_empty() {
                "connect-failure,refused-stream,unavailable".to_owned()
            } else {
                others.join(",")
            };
            let finding = Finding::new(&RULE, &object.object, format!("spec.http[{index}].retries.retryOn"))
                .message(format!("{} retries calls whose deadline is exceeded", object.object))
                .impact(
                    "the client has usually given up with DEADLINE_EXCEEDED, and the retry only \
                         adds load to a slow server",
                )
                .evidence([format!("retryOn: {retry_on}")])
                .fix(format!("retries:\n  retryOn: {fixed}"));
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, istio};

    fn route(retry_on: &str) -> String {
        istio(
            "VirtualService",
            "r",
            &format!("{{hosts: [a], http: [{{route: [], retries: {{attempts: 1, retryOn: '{retry_on}'}}}}]}}"),
        )
    }

    #[test]
    fn reports_deadline_exceeded_as_a_retry_condition() {
        assert_findings(
            &RULE,
            &route("unavailable,deadline-exceeded"),
            &["info VirtualService shop/r spec.http[0].retries.retryOn"],
        );
    }

    #[test]
    fn accepts_other_retry_conditions() {
        assert_findings(&RULE, &route("unavailable"), &[]);
    }
}
