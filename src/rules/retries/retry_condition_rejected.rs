//! GM301: a condition in `retryOn` that Istio rejects.

use crate::mesh::Mesh;
use crate::mesh::retry::is_http_status;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::vocabulary::nearest_name;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM301",
    name: "retry-condition-rejected",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "retryOn lists a condition that Istio rejects, or has a space after a comma",
    docs: "\
## What it looks for
A VirtualService whose `retries.retryOn` lists a condition that Istio's validation does not accept, or has spaces
around a comma.

## Why it matters for gRPC
Istio accepts five gRPC status names: `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted` and
`unavailable`. With any other name, such as `aborted` or `unknown`, the webhook rejects the object. If the object is
stored anyway, Envoy ignores the name and does not retry these calls.

## Example
```yaml
retries:
  attempts: 3
  retryOn: unavailable, aborted
```

## Fix
```yaml
retries:
  attempts: 3
  retryOn: unavailable,cancelled
```

## References
- Verified on a real mesh: `tests/lab/effects/GM301.yaml`.
- Istio source: `pkg/config/validation/agent/validation.go` (supportedRetryOnPolicies).
",
    check,
};

/// Conditions that Istio's validation accepts.
const ACCEPTED_CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for (index, rule) in object.spec.http.iter().enumerate() {
            let Some(retry_on) = rule.retries.as_ref().and_then(|retries| retries.retry_on.as_deref()) else {
                continue;
            };
            if retry_on.is_empty() {
                continue;
            }
            let mut errors = Vec::new();
            let mut fixed = Vec::new();
            for condition in retry_on.split(',') {
                let trimmed = condition.trim();
                let is_accepted =
                    ACCEPTED_CONDITIONS.contains(&trimmed) || trimmed.parse::<u16>().is_ok_and(is_http_status);
                if is_accepted {
                    fixed.push(trimmed.to_owned());
                } else if let Some(nearest) = nearest_condition(trimmed) {
                    fixed.push(nearest.to_owned());
                }
                if !is_accepted {
                    errors.push(format!("Istio does not accept the condition \"{trimmed}\""));
                } else if trimmed != condition {
                    errors.push(format!("\"{trimmed}\" has spaces around it"));
                }
            }
            if errors.is_empty() {
                continue;
            }
            fixed.dedup();
            let finding = Finding::new(&RULE, &object.object, format!("spec.http[{index}].retries.retryOn"))
                .message(format!("Istio rejects retryOn \"{retry_on}\" of {}", object.object))
                .impact(
                    "the webhook rejects the object; if it is stored anyway, Envoy ignores the \
                         invalid conditions and does not retry these calls",
                )
                .evidence(errors)
                .evidence(["accepted gRPC conditions: cancelled, deadline-exceeded, internal, \
                            resource-exhausted, unavailable"])
                .fix(format!(
                    "retries:\n  retryOn: {}",
                    if fixed.is_empty() { "unavailable".to_owned() } else { fixed.join(",") }
                ));
            out.add(&RULE, finding);
        }
    }
}

fn nearest_condition(condition: &str) -> Option<&'static str> {
    let condition = condition.to_ascii_lowercase().replace('_', "-");
    nearest_name::nearest(&condition, ACCEPTED_CONDITIONS.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, findings, istio};

    fn route(retry_on: &str) -> String {
        istio(
            "VirtualService",
            "r",
            &format!("{{hosts: [a], http: [{{route: [], retries: {{attempts: 1, retryOn: '{retry_on}'}}}}]}}"),
        )
    }

    #[test]
    fn reports_unknown_conditions_and_spaces() {
        for retry_on in ["aborted", "unavailable, cancelled", "UNAVAILABLE", "unknown,unavailable", "999", ","] {
            assert_findings(&RULE, &route(retry_on), &["error VirtualService shop/r spec.http[0].retries.retryOn"]);
        }
        assert_eq!(findings(&RULE, &route("unavailable, aborted"))[0].fix, "retries:\n  retryOn: unavailable");
        assert_eq!(findings(&RULE, &route("UNAVAILABLE"))[0].fix, "retries:\n  retryOn: unavailable");
        assert_eq!(findings(&RULE, &route("resource_exhausted"))[0].fix, "retries:\n  retryOn: resource-exhausted");
    }

    #[test]
    fn accepts_known_conditions_and_status_codes() {
        for retry_on in ["unavailable,resource-exhausted,deadline-exceeded", "5xx,503", "connect-failure"] {
            assert_findings(&RULE, &route(retry_on), &[]);
        }
    }
}
