//! GM403: a new connection for every call.

use crate::mesh::Mesh;
use crate::mesh::destination_rule::DestinationRule;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::{ConnectionPool, TrafficPolicy};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM403",
    name: "one-call-per-connection",
    severity: Severity::Warning,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "maxRequestsPerConnection so small that nearly every call opens a connection",
    docs: "\
## What it looks for
`maxRequestsPerConnection` between 1 and 10 in a DestinationRule for a host with a gRPC port.

## Why it matters for gRPC
gRPC lives from one long connection with many calls. With a limit of 1 each call opens a TCP connection and a TLS
handshake, in every proxy that calls. Latency and CPU rise, and under load connections run out. The setting is often
copied from HTTP/1.1 circuit-breaking examples.

## Example
```yaml
connectionPool:
  http:
    maxRequestsPerConnection: 1
```

## Repair
```yaml
connectionPool:
  http:
    maxRequestsPerConnection: 0      # unlimited, the default
```

## References
- Envoy: `max_requests_per_connection`; 0 and unset are the same to istiod.
- Seen on a real mesh: `tests/lab/effects/GM403.yaml`.
",
    check,
};

/// Limits up to this many calls make connections the bottleneck.
const SMALL: i64 = 10;

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let grpc = mesh
            .find_host(rule.host.as_str())
            .map(|id| mesh.service(id))
            .filter(|service| service.ports.iter().any(|port| !port.evidence.is_empty() || port.protocol.is_http2()));
        let Some(service) = grpc else { continue };
        if let Some(policy) = &rule.spec.traffic_policy {
            of_policy(rule, policy, "spec.trafficPolicy", service.namespace(), out);
        }
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            if let Some(policy) = &subset.traffic_policy {
                of_policy(rule, policy, &format!("spec.subsets[{index}].trafficPolicy"), service.namespace(), out);
            }
        }
    }
}

fn of_policy(
    rule: &DestinationRule,
    policy: &TrafficPolicy,
    path: &str,
    owner: &crate::mesh::ids::Namespace,
    out: &mut Findings<'_>,
) {
    let of_ports = policy
        .port_level_settings
        .iter()
        .enumerate()
        .map(|(index, port)| (format!("{path}.portLevelSettings[{index}]"), port.connection_pool.as_ref()));
    for (path, pool) in std::iter::once((path.to_owned(), policy.connection_pool.as_ref())).chain(of_ports) {
        let limit = pool.and_then(|ConnectionPool { http, .. }| http.as_ref()?.max_requests_per_connection);
        let Some(limit) = limit.filter(|limit| (1..=SMALL).contains(limit)) else { continue };
        let what = if limit == 1 {
            "every call opens a new connection".to_owned()
        } else {
            format!("every {limit} calls open a new connection")
        };
        let finding = Finding::new(&RULE, &rule.object, format!("{path}.connectionPool.http.maxRequestsPerConnection"))
            .message(format!("maxRequestsPerConnection {limit}: {what}"))
            .impact("latency and CPU rise; under load callers run out of connections (flag UF or UO)")
            .rests_on([owner])
            .fix("maxRequestsPerConnection: 0");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

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
    fn small_limits_on_grpc_are_reported() {
        let expected = "warning DestinationRule shop/d spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection";
        check(&RULE, &mesh("{name: grpc, port: 1}", 1), &[expected]);
        check(&RULE, &mesh("{name: grpc, port: 1}", 10), &[expected]);
    }

    #[test]
    fn large_or_no_limits_and_http_services_are_silent() {
        check(&RULE, &mesh("{name: grpc, port: 1}", 0), &[]);
        check(&RULE, &mesh("{name: grpc, port: 1}", 1000), &[]);
        check(&RULE, &mesh("{name: http, port: 1}", 1), &[]);
    }

    #[test]
    fn without_services_it_says_nothing() {
        check_gap(&RULE, &mesh("{name: grpc, port: 1}", 1));
    }
}
