//! GM302: retry conditions while retries are switched off.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM302",
    name: "retry-without-attempts",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "Retry conditions with attempts 0 or unset; an empty block switches retries off",
    docs: "\
## What it looks for
A `retries` block with `retryOn`, `perTryTimeout` or `retryRemoteLocalities` whose `attempts` is 0 or missing (error),
and an empty block, which switches retries off (info).

## Why it matters for gRPC
`attempts` has no default: without it retries are off, and the webhook refuses conditions beside it. An empty block also
takes away Istio's own two retries on `unavailable` and `connect-failure`.

## Example
```yaml
retries:
  retryOn: unavailable        # attempts is missing
```

## Repair
```yaml
retries:
  attempts: 2
  retryOn: unavailable
```

## References
- Seen on a real mesh: `tests/lab/effects/GM302.yaml`.
- Istio: `pkg/config/validation/agent/validation.go`: \"http retry policy configured when attempts are set to 0\".
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
            let mut written = Vec::new();
            if let Some(words) = retries.retry_on.as_deref().filter(|words| !words.is_empty()) {
                written.push(format!("retryOn: {words}"));
            }
            if let Some(limit) = &retries.per_try_timeout {
                written.push(format!("perTryTimeout: {limit}"));
            }
            if retries.retry_remote_localities.is_some() {
                written.push("retryRemoteLocalities".to_owned());
            }
            let field = format!("spec.http[{index}].retries");
            let finding = if written.is_empty() {
                Finding::new(&RULE, &object.object, field)
                    .severity(Severity::Info)
                    .message("retries are switched off for this rule")
                    .impact("no call is retried, also not on connect-failure, which Istio retries by default")
                    .fix("remove the retries block for Istio's default, or set attempts")
            } else {
                Finding::new(&RULE, &object.object, field)
                    .message("retry conditions are written, but attempts is 0 or missing: retries are off")
                    .impact("the webhook refuses the object; where it got in, no call is retried")
                    .evidence(written)
                    .fix("retries:\n  attempts: 2")
            };
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, istio};

    fn route(retries: &str) -> String {
        istio("VirtualService", "r", &format!("{{hosts: [a], http: [{{route: [], retries: {retries}}}]}}"))
    }

    #[test]
    fn conditions_without_attempts_are_reported() {
        for retries in ["{retryOn: unavailable}", "{attempts: 0, perTryTimeout: 1s}", "{retryRemoteLocalities: true}"] {
            check(&RULE, &route(retries), &["error VirtualService shop/r spec.http[0].retries"]);
        }
    }

    #[test]
    fn switching_off_is_said() {
        check(&RULE, &route("{}"), &["info VirtualService shop/r spec.http[0].retries"]);
        check(&RULE, &route("{attempts: 0}"), &["info VirtualService shop/r spec.http[0].retries"]);
    }

    #[test]
    fn attempts_and_no_block_are_silent() {
        check(&RULE, &route("{attempts: 2, retryOn: unavailable}"), &[]);
        check(&RULE, &istio("VirtualService", "r", "{hosts: [a], http: [{route: []}]}"), &[]);
    }
}
