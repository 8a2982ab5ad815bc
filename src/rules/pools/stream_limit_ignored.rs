//! GM401: HTTP/2 settings on a cluster that is not HTTP/2 by declaration.

use crate::mesh::Mesh;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::service::{Service, ServicePort};
use crate::mesh::version::IstioVersion;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::{HttpPool, TrafficPolicy};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM401",
    name: "stream-limit-ignored",
    severity: Severity::Warning,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "maxConcurrentStreams or http2KeepAlive where Istio does not apply them",
    docs: "\
## What it looks for
`maxConcurrentStreams` or `http2KeepAlive` in a DestinationRule for a port that is not HTTP/2 by declaration: left to
detection, named `http`, of the TCP family; or together with `useClientProtocol`.

## Why it matters for gRPC
Both are written into Envoy only where the cluster has explicit HTTP/2 options, that is, on ports named `grpc`,
`grpc-web` or `http2`, or upgraded by `h2UpgradePolicy` (from Istio 1.28). Elsewhere they are dropped without a word:
connections carry as many streams as they like, and idle ones are not probed.

## Example
```yaml
kind: Service
spec: {ports: [{name: api, port: 50051}]}       # detected
---
kind: DestinationRule
spec: {trafficPolicy: {connectionPool: {http: {maxConcurrentStreams: 100}}}}
```

## Repair
```yaml
kind: Service
spec: {ports: [{name: grpc-api, port: 50051}]}
```

## References
- Istio: `pilot/pkg/networking/core/cluster_traffic_policy.go`, `cluster_builder.go` (setH2Options).
- Seen on a real mesh: `tests/lab/effects/GM401.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let mut places: Vec<(String, &TrafficPolicy)> = Vec::new();
        if let Some(policy) = &rule.spec.traffic_policy {
            places.push(("spec.trafficPolicy".to_owned(), policy));
        }
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            if let Some(policy) = &subset.traffic_policy {
                places.push((format!("spec.subsets[{index}].trafficPolicy"), policy));
            }
        }
        for (path, policy) in places {
            if let Some(http) = policy.connection_pool.as_ref().and_then(|pool| pool.http.as_ref()) {
                judge(mesh, rule, http, &format!("{path}.connectionPool.http"), None, out);
            }
            for (index, port) in policy.port_level_settings.iter().enumerate() {
                let number = port.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
                if let Some(http) = port.connection_pool.as_ref().and_then(|pool| pool.http.as_ref()) {
                    let path = format!("{path}.portLevelSettings[{index}].connectionPool.http");
                    judge(mesh, rule, http, &path, number, out);
                }
            }
        }
    }
}

fn judge(
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
    http: &HttpPool,
    path: &str,
    only: Option<u16>,
    out: &mut Findings<'_>,
) {
    let setting = if http.max_concurrent_streams.is_some_and(|limit| limit > 0) {
        "maxConcurrentStreams"
    } else if http.http2_keep_alive.is_some() {
        "http2KeepAlive"
    } else {
        return;
    };
    let Some(service) = mesh.find_host(rule.host.as_str()).map(|id| mesh.service(id)) else { return };
    let ports: Vec<&ServicePort> =
        service.ports.iter().filter(|port| only.is_none_or(|number| port.number == number)).collect();
    let works = |port: &ServicePort| applies(mesh, http, port);
    let fruitful = ports.iter().any(|port| works(port));
    // Beside a port where the setting works, only ports that are used for gRPC are missed.
    for port in ports.into_iter().filter(|port| !works(port) && (!fruitful || !port.evidence.is_empty())) {
        report(rule, service, port, http, setting, path, out);
    }
}

/// Whether istiod gives the port's cluster explicit HTTP/2 options.
fn applies(mesh: &Mesh<'_>, http: &HttpPool, port: &ServicePort) -> bool {
    if http.use_client_protocol == Some(true) {
        return false;
    }
    if port.protocol.is_http2() {
        return true;
    }
    const UPGRADE_HONOURED: IstioVersion = IstioVersion { major: 1, minor: 28 };
    let upgraded = match http.h2_upgrade_policy.as_deref() {
        Some("UPGRADE") => true,
        Some("DO_NOT_UPGRADE") => false,
        _ => mesh.config.h2_upgrade_policy.as_deref() == Some("UPGRADE"),
    };
    upgraded && port.protocol.family() == ProtocolFamily::Http && mesh.version >= UPGRADE_HONOURED
}

fn report(
    rule: &DestinationRule,
    service: &Service,
    port: &ServicePort,
    http: &HttpPool,
    setting: &str,
    path: &str,
    out: &mut Findings<'_>,
) {
    let why = if http.use_client_protocol == Some(true) {
        "useClientProtocol replaces the HTTP/2 options".to_owned()
    } else {
        format!("port {} is {} ({})", port.title(), port.protocol, port.decided_by)
    };
    let fix = if http.use_client_protocol == Some(true) {
        "remove useClientProtocol".to_owned()
    } else {
        format!("# {}\nports:\n- name: grpc\n  port: {}", service.object, port.number)
    };
    let finding = Finding::new(&RULE, &rule.object, format!("{path}.{setting}"))
        .message(format!("{setting} is not applied to port {} of {}", port.number, service.object))
        .impact(match (setting, port.protocol.is_http2()) {
            ("http2KeepAlive", _) => "Envoy never gets the setting: idle connections are not probed",
            (_, true) => "Envoy never gets the setting: its own limit of 1024 streams a connection holds",
            (_, false) => {
                "Envoy never gets the setting: where HTTP/2 is spoken, its own limit of 1024 streams a connection holds"
            }
        })
        .evidence([why])
        .rests_on([service.namespace()])
        .fix(fix);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(port: &str, http: &str) -> String {
        service("a", port)
            + &istio(
                "DestinationRule",
                "d",
                &format!("{{host: a, trafficPolicy: {{connectionPool: {{http: {http}}}}}}}"),
            )
    }

    const FIELD: &str = "warning DestinationRule shop/d spec.trafficPolicy.connectionPool.http.maxConcurrentStreams";

    #[test]
    fn settings_that_are_dropped_are_reported() {
        check(&RULE, &mesh("{name: api, port: 1}", "{maxConcurrentStreams: 100}"), &[FIELD]);
        check(&RULE, &mesh("{name: http, port: 1}", "{maxConcurrentStreams: 100}"), &[FIELD]);
        check(&RULE, &mesh("{name: grpc, port: 1}", "{maxConcurrentStreams: 100, useClientProtocol: true}"), &[FIELD]);
        check_gap(&RULE, &mesh("{name: api, port: 1}", "{maxConcurrentStreams: 100}"));
    }

    #[test]
    fn an_upgrade_is_honoured_from_1_28() {
        let yaml = mesh("{name: http, port: 1}", "{maxConcurrentStreams: 100, h2UpgradePolicy: UPGRADE}");
        check(&RULE, &yaml, &[]);
        let old = yaml + &crate::rules::testing::pod("a", "v1").replace("1.31.0", "1.27.0");
        check(&RULE, &old, &[FIELD]);
    }

    #[test]
    fn explicit_http2_and_a_metrics_port_beside_are_silent() {
        check(&RULE, &mesh("{name: grpc, port: 1}", "{maxConcurrentStreams: 100}"), &[]);
        check(&RULE, &mesh("{name: grpc, port: 1}, {name: http-metrics, port: 2}", "{maxConcurrentStreams: 100}"), &[]);
        check(&RULE, &mesh("{name: api, port: 1}", "{maxConcurrentStreams: 0}"), &[]);
    }
}
