//! GM403: a connection limit that opens a connection for nearly every call.

use crate::mesh::Mesh;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::ids::Namespace;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::{ConnectionPool, TrafficPolicy};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM403",
    name: "one-call-per-connection",
    severity: Severity::Warning,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "maxRequestsPerConnection is so low that nearly every call opens a new connection",
    docs: "\
## What it looks for
A DestinationRule with `maxRequestsPerConnection` between 1 and 10 for a host with a gRPC port.

## Why it matters for gRPC
gRPC sends many calls over one long-lived connection. With a limit of 1, each call opens a TCP connection with a TLS
handshake in the proxy of the caller. Latency and CPU usage rise, and under load connections run out. The setting is
often copied from circuit-breaking examples for HTTP/1.1.

## Example
```yaml
connectionPool:
  http:
    maxRequestsPerConnection: 1
```

## Fix
```yaml
connectionPool:
  http:
    maxRequestsPerConnection: 0      # unlimited, the default
```

## References
- Envoy: `max_requests_per_connection`. istiod treats 0 and unset alike.
- Verified on a real mesh: `tests/lab/effects/GM403.yaml`.
",
    check,
};

/// Up to this limit, opening connections dominates the cost of calls.
const LOW_LIMIT: i64 = 10;

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let grpc_service = mesh
            .find_host(rule.host.as_str())
            .map(|id| mesh.service(id))
            .filter(|service| service.ports.iter().any(|port| !port.evidence.is_empty() || port.protocol.is_http2()));
        let Some(service) = grpc_service else { continue };
        if let Some(policy) = &rule.spec.traffic_policy {
            check_policy(rule, policy, "spec.trafficPolicy", service.namespace(), out);
        }
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            if let Some(policy) = &subset.traffic_policy {
                check_policy(rule, policy, &format!("spec.subsets[{index}].trafficPolicy"), service.namespace(), out);
            }
        }
    }
}

fn check_policy(
    rule: &DestinationRule,
    policy: &TrafficPolicy,
    path: &str,
    service_namespace: &Namespace,
    out: &mut Findings<'_>,
) {
    let port_pools = policy
        .port_level_settings
        .iter()
        .enumerate()
        .map(|(index, port)| (format!("{path}.portLevelSettings[{index}]"), port.connection_pool.as_ref()));
    for (path, pool) in std::iter::once((path.to_owned(), policy.connection_pool.as_ref())).chain(port_pools) {
        let limit = pool.and_then(|ConnectionPool { http, .. }| http.as_ref()?.max_requests_per_connection);
        let Some(limit) = limit.filter(|limit| (1..=LOW_LIMIT).contains(limit)) else { continue };
        let effect = if limit == 1 {
            "a new connection for every call".to_owned()
        } else {
            format!("a new connection for every {limit} calls")
        };
        let finding = Finding::new(&RULE, &rule.object, format!("{path}.connectionPool.http.maxRequestsPerConnection"))
            .message(format!("maxRequestsPerConnection {limit} in {} opens {effect}", rule.object))
            .impact("latency and CPU usage rise, and under load calls fail with UNAVAILABLE (flag UF or UO)")
            .depends_on([service_namespace])
            .fix("connectionPool:\n  http:\n    maxRequestsPerConnection: 0    # unlimited, the default");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(port: &str, limit: u32) -> String {
        service("a", port)
            + &istio(
                "DestinationRule",
                "d",
                &format!(
                    "{{host: a, trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: {limit}}}}}}}}}"
                ),
            )
    }

    #[test]
    fn reports_low_limits_on_grpc_ports() {
        let expected = "warning DestinationRule shop/d spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection";
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}", 1), &[expected]);
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}", 10), &[expected]);
    }

    #[test]
    fn accepts_high_limits_no_limits_and_http_services() {
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}", 0), &[]);
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}", 1000), &[]);
        assert_findings(&RULE, &mesh("{name: http, port: 1}", 1), &[]);
    }

    #[test]
    fn stays_undecided_without_services() {
        assert_undecided_on_gap(&RULE, &mesh("{name: grpc, port: 1}", 1));
    }
}
