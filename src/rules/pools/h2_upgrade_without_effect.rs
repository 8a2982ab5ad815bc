//! GM404: an HTTP/2 upgrade that has no effect.

use crate::mesh::Mesh;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::service::{Service, ServicePort};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::ConnectionPool;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM404",
    name: "h2-upgrade-without-effect",
    severity: Severity::Info,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "h2UpgradePolicy has no effect on any port of the Service",
    docs: "\
## What it looks for
A DestinationRule with `h2UpgradePolicy: UPGRADE` for a Service whose ports are all gRPC or HTTP/2 already, TCP, or
auto-detected without a gateway that routes to them.

## Why it matters for gRPC
Istio applies the upgrade to HTTP/1.1 ports, and for gateways to auto-detected ports. On all other ports the setting
changes nothing. On an auto-detected port it does not replace a protocol in the port name: sidecars still detect the
protocol of each connection.

## Example
```yaml
kind: Service
spec: {ports: [{name: grpc, port: 50051}]}
---
kind: DestinationRule
spec: {trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
```

## Fix
Remove `h2UpgradePolicy`. For an auto-detected port, declare the protocol with a port name that starts with `grpc-`.

## References
- Istio source: `pilot/pkg/networking/core/cluster_traffic_policy.go` (`shouldH2Upgrade`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let Some(policy) = &rule.spec.traffic_policy else { continue };
        let whole = policy.connection_pool.as_ref().map(|pool| (pool, None, String::new()));
        let ports = policy.port_level_settings.iter().enumerate().filter_map(|(index, settings)| {
            Some((
                settings.connection_pool.as_ref()?,
                Some(settings.port.as_ref()?.number),
                format!("portLevelSettings[{index}]."),
            ))
        });
        for (pool, port, field_prefix) in whole.into_iter().chain(ports) {
            if upgrades_to_h2(pool) {
                check_upgrade(mesh, rule, port, &field_prefix, out);
            }
        }
    }
}

fn upgrades_to_h2(pool: &ConnectionPool) -> bool {
    pool.http.as_ref().and_then(|http| http.h2_upgrade_policy.as_deref()) == Some("UPGRADE")
}

fn check_upgrade(
    mesh: &Mesh<'_>,
    rule: &DestinationRule,
    port: Option<u32>,
    field_prefix: &str,
    out: &mut Findings<'_>,
) {
    let Some(id) = mesh.find_host(rule.host.as_str()) else { return };
    let service: &Service = mesh.service(id);
    let is_covered = |candidate: &&ServicePort| port.is_none_or(|port| port == u32::from(candidate.number));
    let ports: Vec<&ServicePort> = service.ports.iter().filter(is_covered).collect();
    let is_changed = |port: &&ServicePort| match port.protocol.family() {
        ProtocolFamily::Http => !port.protocol.is_http2(),
        ProtocolFamily::Auto => !mesh.exposures(id).is_empty(),
        ProtocolFamily::Tcp | ProtocolFamily::NoListener => false,
    };
    if ports.is_empty() || ports.iter().any(is_changed) {
        return;
    }
    let protocols: Vec<_> = ports.iter().map(|port| format!("{} is {}", port.title(), port.protocol.label())).collect();
    let detected = ports.iter().find(|port| port.protocol.family() == ProtocolFamily::Auto);
    let fix = match detected {
        Some(port) => port.grpc_port_yaml(),
        None => "remove h2UpgradePolicy from the DestinationRule".to_owned(),
    };
    let field = format!("spec.trafficPolicy.{field_prefix}connectionPool.http.h2UpgradePolicy");
    let finding = Finding::new(&RULE, &rule.object, field)
        .message(format!("h2UpgradePolicy of {} has no effect on {}", rule.object, service.object))
        .impact("calls do not change: sidecars use the same protocol for these ports with and without the setting")
        .evidence([format!("port {}", protocols.join(", "))])
        .depends_on([service.namespace()])
        .fix(fix);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(port: &str) -> String {
        let rule = "{host: a, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}";
        service("a", port) + &istio("DestinationRule", "d", rule)
    }

    #[test]
    fn reports_an_upgrade_of_ports_that_it_does_not_change() {
        let finding = "info DestinationRule shop/d spec.trafficPolicy.connectionPool.http.h2UpgradePolicy";
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}"), &[finding]);
        assert_findings(&RULE, &mesh("{name: api, port: 1}"), &[finding]);
        assert_undecided_on_gap(&RULE, &mesh("{name: grpc, port: 1}"));
    }

    #[test]
    fn accepts_http_ports_and_other_policies() {
        assert_findings(&RULE, &mesh("{name: http, port: 1}"), &[]);
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}, {name: http, port: 2}"), &[]);
        assert_findings(&RULE, &mesh("{name: grpc, port: 1}").replace("UPGRADE}", "DO_NOT_UPGRADE}"), &[]);
    }
}
