//! GM401: HTTP/2 settings on a port that is not declared as HTTP/2.

use crate::mesh::Mesh;
use crate::mesh::behavior::IstiodBehavior;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::service::{Service, ServicePort};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::{HttpPool, TrafficPolicy};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM401",
    name: "stream-limit-ignored",
    severity: Severity::Warning,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "maxConcurrentStreams or http2KeepAlive on a port where Istio ignores them",
    docs: "\
## What it looks for
A DestinationRule with `maxConcurrentStreams` or `http2KeepAlive` for a port that is not declared as HTTP/2
(auto-detected, `http`, or TCP), or together with `useClientProtocol`.

## Why it matters for gRPC
istiod configures both settings only for clusters with explicit HTTP/2 options: ports named `grpc`, `grpc-web` or
`http2`, and from Istio 1.28 on ports that `h2UpgradePolicy` upgrades. On all other ports it drops them silently. Envoy
then does not limit the streams of a connection as configured, and does not probe idle connections.

## Example
```yaml
kind: Service
spec: {ports: [{name: api, port: 50051}]}       # auto-detected
---
kind: DestinationRule
spec: {trafficPolicy: {connectionPool: {http: {maxConcurrentStreams: 100}}}}
```

## Fix
```yaml
kind: Service
spec: {ports: [{name: grpc-api, port: 50051}]}
```

## References
- Istio source: `pilot/pkg/networking/core/cluster_traffic_policy.go`, `cluster_builder.go` (setH2Options).
- Verified on a real mesh: `tests/lab/effects/GM401.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let mut policies: Vec<(String, &TrafficPolicy)> = Vec::new();
        if let Some(policy) = &rule.spec.traffic_policy {
            policies.push(("spec.trafficPolicy".to_owned(), policy));
        }
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            if let Some(policy) = &subset.traffic_policy {
                policies.push((format!("spec.subsets[{index}].trafficPolicy"), policy));
            }
        }
        for (path, policy) in policies {
            if let Some(http) = policy.connection_pool.as_ref().and_then(|pool| pool.http.as_ref()) {
                check_settings(mesh, rule, http, &format!("{path}.connectionPool.http"), None, out);
            }
            for (index, port) in policy.port_level_settings.iter().enumerate() {
                let number = port.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
                if let Some(http) = port.connection_pool.as_ref().and_then(|pool| pool.http.as_ref()) {
                    let path = format!("{path}.portLevelSettings[{index}].connectionPool.http");
                    check_settings(mesh, rule, http, &path, number, out);
                }
            }
        }
    }
}

fn check_settings(
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
    http: &HttpPool,
    path: &str,
    port_number: Option<u16>,
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
        service.ports.iter().filter(|port| port_number.is_none_or(|number| port.number == number)).collect();
    let is_applied = |port: &ServicePort| has_h2_options(mesh, http, port);
    let is_applied_somewhere = ports.iter().any(|port| is_applied(port));
    // If the setting applies to one port, only other ports with gRPC evidence are worth a finding.
    for port in
        ports.into_iter().filter(|port| !is_applied(port) && (!is_applied_somewhere || !port.evidence.is_empty()))
    {
        report(rule, service, port, http, setting, path, out);
    }
}

/// Whether istiod configures explicit HTTP/2 options for the cluster of a port.
fn has_h2_options(mesh: &Mesh<'_>, http: &HttpPool, port: &ServicePort) -> bool {
    if http.use_client_protocol == Some(true) {
        return false;
    }
    if port.protocol.is_http2() {
        return true;
    }
    let is_upgraded = match http.h2_upgrade_policy.as_deref() {
        Some("UPGRADE") => true,
        Some("DO_NOT_UPGRADE") => false,
        _ => mesh.config.h2_upgrade_policy.as_deref() == Some("UPGRADE"),
    };
    is_upgraded
        && port.protocol.family() == ProtocolFamily::Http
        && mesh.has_behavior(IstiodBehavior::UpgradedStreamLimits)
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
    let reason = if http.use_client_protocol == Some(true) {
        "useClientProtocol replaces the HTTP/2 options of the cluster".to_owned()
    } else {
        format!("port {} is {} ({})", port.title(), port.protocol, port.decided_by)
    };
    let fix = if http.use_client_protocol == Some(true) {
        "remove useClientProtocol from the DestinationRule".to_owned()
    } else {
        format!("# {}\nports:\n- name: grpc\n  port: {}", service.object, port.number)
    };
    let finding = Finding::new(&RULE, &rule.object, format!("{path}.{setting}"))
        .message(format!("{setting} of {} is ignored on port {} of {}", rule.object, port.number, service.object))
        .impact(match (setting, port.protocol.is_http2()) {
            ("http2KeepAlive", _) => "istiod does not send the setting to Envoy: idle connections are not probed",
            (_, true) => {
                "istiod does not send the setting to Envoy: Envoy's default of 1024 streams per connection applies"
            }
            (_, false) => {
                "istiod does not send the setting to Envoy: on HTTP/2 connections Envoy's default of 1024 streams applies"
            }
        })
        .evidence([reason])
        .depends_on([service.namespace()])
        .fix(fix);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

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
    fn reports_settings_that_istiod_drops() {
        assert_findings(&RULE, &mesh("{name: api, port: 1}", "{maxConcurrentStreams: 100}"), &[FIELD]);
        assert_findings(&RULE, &mesh("{name: http, port: 1}", "{maxConcurrentStreams: 100}"), &[FIELD]);
        assert_findings(
            &RULE,
            &mesh("{name: grpc, port: 1}", "{maxConcurrentStreams: 100, useClientProtocol: true}"),
            &[FIELD],
        );
        assert_undecided_on_gap(&RULE, &mesh("{name: api, port: 1}", "{maxConcurrentStreams: 100}"));
    }

    #[test]
    fn accepts_an_upgraded_port_since_1_28() {
        let yaml = mesh("{name: http, port: 1}", "{maxConcurrentStreams: 100, h2UpgradePolicy: UPGRADE}");
        assert_findings(&RULE, &yaml, &[]);
        let old = yaml + &crate::rules::testing::pod("a", "v1").replace("1.31.0", "1.27.0");
        assert_findings(&RULE, &old, &[FIELD]);
    }

    #[test]
    fn accepts_declared_http2_with_a_metrics_port() {
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}", "{maxConcurrentStreams: 100}"), &[]);
        assert_findings(
            &RULE,
            &mesh("{name: grpc, port: 1}, {name: http-metrics, port: 2}", "{maxConcurrentStreams: 100}"),
            &[],
        );
        assert_findings(&RULE, &mesh("{name: api, port: 1}", "{maxConcurrentStreams: 0}"), &[]);
    }
}
