//! GM301: a word in `retryOn` that Istio refuses.

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
    summary: "A word in retryOn that Istio refuses, or a space after a comma",
    docs: "\
## What it looks for
Words in `retries.retryOn` that Istio's validation does not know, and blanks around the commas.

## Why it matters for gRPC
Of gRPC's status names only five are accepted: `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`,
`unavailable`. `aborted` or `unknown` make the webhook refuse the object; where it got in, Envoy ignores the word. A
blank after a comma is refused too.

## Example
```yaml
retries:
  attempts: 3
  retryOn: unavailable, aborted
```

## Repair
```yaml
retries:
  attempts: 3
  retryOn: unavailable,cancelled
```

## References
- Seen on a real mesh: `tests/lab/effects/GM301.yaml`.
- Istio: `pkg/config/validation/agent/validation.go` (supportedRetryOnPolicies).
",
    check,
};

/// The words that Istio's validation accepts.
const ACCEPTED: [&str; 16] = [
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
            let Some(text) = rule.retries.as_ref().and_then(|retries| retries.retry_on.as_deref()) else { continue };
            if text.is_empty() {
                continue;
            }
            let mut refused = Vec::new();
            let mut right = Vec::new();
            for word in text.split(',') {
                let trimmed = word.trim();
                let known = ACCEPTED.contains(&trimmed) || trimmed.parse::<u16>().is_ok_and(is_http_status);
                if known {
                    right.push(trimmed.to_owned());
                } else if let Some(nearest) = nearest(trimmed) {
                    right.push(nearest.to_owned());
                }
                if !known {
                    refused.push(format!("\"{trimmed}\" is not a condition that Istio knows"));
                } else if trimmed != word {
                    refused.push(format!("blanks around \"{trimmed}\""));
                }
            }
            if refused.is_empty() {
                continue;
            }
            right.dedup();
            let finding = Finding::new(&RULE, &object.object, format!("spec.http[{index}].retries.retryOn"))
                .message(format!("retryOn \"{text}\" is refused by Istio's validation"))
                .impact("the webhook refuses the object; where it got in, unknown words retry nothing")
                .evidence(refused)
                .evidence(["gRPC words that are accepted: cancelled, deadline-exceeded, internal, resource-exhausted, unavailable"])
                .fix(format!("retryOn: {}", if right.is_empty() { "unavailable".to_owned() } else { right.join(",") }));
            out.add(&RULE, finding);
        }
    }
}

fn nearest(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase().replace('_', "-");
    nearest_name::nearest(&word, ACCEPTED.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, findings, istio};

    fn route(words: &str) -> String {
        istio(
            "VirtualService",
            "r",
            &format!("{{hosts: [a], http: [{{route: [], retries: {{attempts: 1, retryOn: '{words}'}}}}]}}"),
        )
    }

    #[test]
    fn unknown_words_and_blanks_are_reported() {
        for words in ["aborted", "unavailable, cancelled", "UNAVAILABLE", "unknown,unavailable", "999", ","] {
            check(&RULE, &route(words), &["error VirtualService shop/r spec.http[0].retries.retryOn"]);
        }
        assert_eq!(findings(&RULE, &route("unavailable, aborted"))[0].fix, "retryOn: unavailable");
        assert_eq!(findings(&RULE, &route("UNAVAILABLE"))[0].fix, "retryOn: unavailable");
        assert_eq!(findings(&RULE, &route("resource_exhausted"))[0].fix, "retryOn: resource-exhausted");
    }

    #[test]
    fn accepted_words_and_codes_are_silent() {
        for words in ["unavailable,resource-exhausted,deadline-exceeded", "5xx,503", "connect-failure"] {
            check(&RULE, &route(words), &[]);
        }
    }
}
