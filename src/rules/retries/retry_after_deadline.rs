//! GM305: retrying after the deadline.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM305",
    name: "retry-after-deadline",
    severity: Severity::Info,
    needs: &[],
    istio_code: None,
    summary: "deadline-exceeded in retryOn: the client's deadline is usually spent",
    docs: "\
## What it looks for
`deadline-exceeded` among the conditions of `retries.retryOn`.

## Why it matters for gRPC
The condition looks at a DEADLINE_EXCEEDED that the server answered. By then the client's own deadline is usually spent
too: the client has gone, and the retry only loads the server, just when it is slow.

## Example
```yaml
retries: {attempts: 2, retryOn: 'unavailable,deadline-exceeded'}
```

## Repair
```yaml
retries: {attempts: 2, retryOn: 'connect-failure,refused-stream,unavailable'}
```

## References
- gRPC: deadlines travel with the call (`grpc-timeout`); Envoy: `x-envoy-retry-grpc-on`.
- Seen on a real mesh: `tests/lab/effects/GM305.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for (index, rule) in object.spec.http.iter().enumerate() {
            let Some(text) = rule.retries.as_ref().and_then(|retries| retries.retry_on.as_deref()) else { continue };
            let words: Vec<_> = text.split(',').map(str::trim).collect();
            if !words.contains(&"deadline-exceeded") {
                continue;
            }
            let rest: Vec<_> = words.into_iter().filter(|word| *word != "deadline-exceeded").collect();
            let rest =
                if rest.is_empty() { "connect-failure,refused-stream,unavailable".to_owned() } else { rest.join(",") };
            let finding = Finding::new(&RULE, &object.object, format!("spec.http[{index}].retries.retryOn"))
                .message("retries on deadline-exceeded seldom help: the client's own deadline is usually spent")
                .impact("the retry loads a slow server; the client has gone")
                .fix(format!("retryOn: {rest}"));
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, istio};

    fn route(words: &str) -> String {
        istio(
            "VirtualService",
            "r",
            &format!("{{hosts: [a], http: [{{route: [], retries: {{attempts: 1, retryOn: '{words}'}}}}]}}"),
        )
    }

    #[test]
    fn the_word_is_told() {
        check(
            &RULE,
            &route("unavailable,deadline-exceeded"),
            &["info VirtualService shop/r spec.http[0].retries.retryOn"],
        );
    }

    #[test]
    fn other_words_are_silent() {
        check(&RULE, &route("unavailable"), &[]);
    }
}
