//! GM304: retry conditions of one's own that drop those for connections.

use crate::mesh::Mesh;
use crate::mesh::written_route::WrittenAction;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM304",
    name: "retry-loses-connect-failure",
    severity: Severity::Info,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "Own retry conditions that no longer cover connections that fail",
    docs: "\
## What it looks for
A rule for gRPC with `retryOn` of its own that holds none of `connect-failure`, `reset`, `reset-before-request` and
`5xx`.

## Why it matters for gRPC
`retryOn` replaces Istio's default list. `unavailable` looks at the status that a server sent; a connection that could
not be made has none. The calls that are safest to retry, those that never reached a server, are then not retried.

## Example
```yaml
retries: {attempts: 3, retryOn: unavailable}
```

## Repair
```yaml
retries: {attempts: 3, retryOn: 'connect-failure,refused-stream,unavailable'}
```

## References
- Envoy: `source/common/router/retry_state_impl.cc` (`wouldRetryFromReset`).
- From Istio's code: `pilot/pkg/networking/core/route/retry/retry.go`.
",
    check,
};

/// Conditions of Envoy that look at connections.
const OF_CONNECTIONS: [&str; 4] = ["connect-failure", "reset", "reset-before-request", "5xx"];

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let written = object.spec.http[rule.index].retries.as_ref().and_then(|retries| retries.retry_on.as_deref());
            let Some(written) = written.filter(|text| !text.is_empty()) else { continue };
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let service = |host: &str| mesh.find_host(host).map(|id| mesh.service(id));
            let grpc =
                targets.iter().find_map(|target| service(target.host.as_str()).filter(|service| service.has_grpc()));
            let Some(grpc) = grpc else { continue };
            let covers = rule.retries.retry_on.iter().any(|word| OF_CONNECTIONS.contains(&word.as_str()));
            if covers || rule.retries.attempts == 0 {
                continue;
            }
            let finding = Finding::new(&RULE, &object.object, format!("{}.retries.retryOn", rule.field))
                .message(format!("retryOn \"{written}\" no longer covers connections that fail"))
                .impact("calls that reached no server fail with UNAVAILABLE (flag UF) without a retry")
                .rests_on([grpc.namespace()])
                .fix(format!("retries:\n  retryOn: connect-failure,refused-stream,{written}"));
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(retries: &str) -> String {
        let rule = format!("{{hosts: [a], http: [{{retries: {retries}, route: [{{destination: {{host: a}}}}]}}]}}");
        service("a", "{name: grpc, port: 1}") + &istio("VirtualService", "r", &rule)
    }

    #[test]
    fn a_list_without_connections_is_told() {
        let yaml = mesh("{attempts: 3, retryOn: 'unavailable,503'}");
        check(&RULE, &yaml, &["info VirtualService shop/r spec.http[0].retries.retryOn"]);
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn lists_with_connections_defaults_and_no_retries_are_silent() {
        for retries in [
            "{attempts: 3, retryOn: 'connect-failure,unavailable'}",
            "{attempts: 3, retryOn: 5xx}",
            "{attempts: 3}",
            "{attempts: 0, retryOn: unavailable}",
        ] {
            check(&RULE, &mesh(retries), &[]);
        }
    }
}
