//! GM302: retry conditions while retries are disabled.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM302",
    name: "retry-without-attempts",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "A retries block without attempts disables retries",
    docs: "\
## What it looks for
A VirtualService whose `retries` block has `retryOn`, `perTryTimeout` or `retryRemoteLocalities`, while `attempts` is 0
or missing (error), and an empty `retries` block (info).

## Why it matters for gRPC
`attempts` has no default. Without it, retries are disabled, and the webhook rejects retry conditions next to it. An
empty block also removes the two retries on `unavailable` and `connect-failure` that Istio configures by default.

## Example
```yaml
retries:
  retryOn: unavailable        # attempts is missing
```

## Fix
```yaml
retries:
  attempts: 2
  retryOn: unavailable
```

## References
- Verified on a real mesh: `tests/lab/effects/GM302.yaml`.
- Istio source: `pkg/config/validation/agent/validation.go`: \"http retry policy configured when attempts are set to
  0\".
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for (index, rule) in object.spec.http.iter().enumerate() {
            let Some(retries) = &rule.retries else { continue };
            if retries.attempts.unwrap_or(0) != 0 {
                continue;
            }
            let mut conditions = Vec::new();
            if let Some(retry_on) = retries.retry_on.as_deref().filter(|text| !text.is_empty()) {
                conditions.push(format!("retryOn: {retry_on}"));
            }
            if let Some(limit) = &retries.per_try_timeout {
                conditions.push(format!("perTryTimeout: {limit}"));
            }
            if retries.retry_remote_localities.is_some() {
                conditions.push("retryRemoteLocalities".to_owned());
            }
            let field = format!("spec.http[{index}].retries");
            let finding = if conditions.is_empty() {
                Finding::new(&RULE, &object.object, field)
                    .severity(Severity::Info)
                    .message(format!("{} disables retries for this rule", object.object))
                    .impact(
                        "no call is retried, not even after a connection failure, which Istio \
                             retries by default (UNAVAILABLE, flag UF)",
                    )
                    .fix("retries:\n  attempts: 2    # or remove the block to get Istio's default of 2")
            } else {
                Finding::new(&RULE, &object.object, field)
                    .message(format!("{} sets retry conditions without attempts", object.object))
                    .impact("the webhook rejects the object; if it is stored anyway, no call is retried")
                    .evidence(conditions)
                    .fix("retries:\n  attempts: 2")
            };
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, istio};

    fn route(retries: &str) -> String {
        istio("VirtualService", "r", &format!("{{hosts: [a], http: [{{route: [], retries: {retries}}}]}}"))
    }

    #[test]
    fn reports_conditions_without_attempts() {
        for retries in ["{retryOn: unavailable}", "{attempts: 0, perTryTimeout: 1s}", "{retryRemoteLocalities: true}"] {
            assert_findings(&RULE, &route(retries), &["error VirtualService shop/r spec.http[0].retries"]);
        }
    }

    #[test]
    fn reports_disabled_retries_as_info() {
        assert_findings(&RULE, &route("{}"), &["info VirtualService shop/r spec.http[0].retries"]);
        assert_findings(&RULE, &route("{attempts: 0}"), &["info VirtualService shop/r spec.http[0].retries"]);
    }

    #[test]
    fn accepts_attempts_and_a_missing_block() {
        assert_findings(&RULE, &route("{attempts: 2, retryOn: unavailable}"), &[]);
        assert_findings(&RULE, &istio("VirtualService", "r", "{hosts: [a], http: [{route: []}]}"), &[]);
    }
}
