//! GM304: retry conditions that no longer cover failed connections.

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
    summary: "retryOn of a gRPC route no longer covers failed connections",
    docs: "\
## What it looks for
A VirtualService rule for a gRPC Service whose `retryOn` lists none of `connect-failure`, `reset`,
`reset-before-request` and `5xx`.

## Why it matters for gRPC
`retryOn` replaces Istio's default list. The condition `unavailable` matches a status that the server returned, and a
failed connection has no status. Calls that never reached a server are the safest ones to retry, and they are no longer
retried.

## Example
```yaml
retries: {attempts: 3, retryOn: unavailable}
```

## Fix
```yaml
retries: {attempts: 3, retryOn: 'connect-failure,refused-stream,unavailable'}
```

## References
- Envoy source: `source/common/router/retry_state_impl.cc` (`wouldRetryFromReset`).
- Istio source: `pilot/pkg/networking/core/route/retry/retry.go`.
",
    check,
};

/// Envoy's retry conditions that match a failed or reset connection.
const CONNECTION_CONDITIONS: [&str; 4] = ["connect-failure", "reset", "reset-before-request", "5xx"];

#[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let retry_on =
                object.spec.http[rule.index].retries.as_ref().and_then(|retries| retries.retry_on.as_deref());
            let Some(retry_on) = retry_on.filter(|conditions| !conditions.is_empty()) else { continue };
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let service = |host: &str| mesh.find_host(host).map(|id| mesh.service(id));
            let grpc_service = targets
                .iter()
                .find_map(|target| service(target.host.as_str()).filter(|service| service.has_grpc_evidence()));
            let Some(grpc_service) = grpc_service else { continue };
            let covers_connections =
                rule.retries.retry_on.iter().any(|condition| CONNECTION_CONDITIONS.contains(&condition.as_str()));
            if covers_connections || rule.retries.attempts == 0 {
                continue;
            }
            let finding = Finding::new(&RULE, &object.object, format!("{}.retries.retryOn", rule.field))
                .message(format!("retryOn \"{retry_on}\" of {} does not cover failed connections", object.object))
                .impact("calls that never reached a server fail with UNAVAILABLE (flag UF) and are not retried")
                .depends_on([grpc_service.namespace()])
                .fix(format!("retries:\n  retryOn: connect-failure,refused-stream,{retry_on}"));
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(retries: &str) -> String {
        let rule = format!("{{hosts: [a], http: [{{retries: {retries}, route: [{{destination: {{host: a}}}}]}}]}}");
        service("a", "{name: grpc, port: 1}") + &istio("VirtualService", "r", &rule)
    }

    #[test]
    fn reports_a_list_without_connection_conditions() {
        let yaml = mesh("{attempts: 3, retryOn: 'unavailable,503'}");
        assert_findings(&RULE, &yaml, &["info VirtualService shop/r spec.http[0].retries.retryOn"]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn accepts_connection_conditions_the_default_list_and_disabled_retries() {
        for retries in [
            "{attempts: 3, retryOn: 'connect-failure,unavailable'}",
            "{attempts: 3, retryOn: 5xx}",
            "{attempts: 3}",
            "{attempts: 0, retryOn: unavailable}",
        ] {
            assert_findings(&RULE, &mesh(retries), &[]);
        }
    }
}
