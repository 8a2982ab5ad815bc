//! GM404: an upgrade to HTTP/2 where it changes nothing.

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
    summary: "h2UpgradePolicy on ports that it does not change",
    docs: "\
## What it looks for
A DestinationRule with `h2UpgradePolicy: UPGRADE` for a Service whose ports are all gRPC or HTTP/2 already, are left to
detection, or carry bytes, and to which no gateway leads.

## Why it matters for gRPC
The upgrade acts on ports of HTTP/1.1, and on detected ports for gateways. On others nothing changes: whoever wrote it
for gRPC may believe that a port name is mended by it, while sidecars still only detect what they see.

## Example
```yaml
kind: Service
spec: {ports: [{name: grpc, port: 50051}]}
---
kind: DestinationRule
spec: {trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
```

## Repair
Remove it; for a detected port give the port a name that begins with `grpc-`.

## References
- From Istio's code: `pilot/pkg/networking/core/cluster_traffic_policy.go` (`shouldH2Upgrade`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let Some(policy) = &rule.spec.traffic_policy else { continue };
        let whole = policy.connection_pool.as_ref().map(|pool| (pool, None, String::new()));
        let ports = policy.port_level_settings.iter().enumerate().filter_map(|(index, one)| {
            Some((
                one.connection_pool.as_ref()?,
                Some(one.port.as_ref()?.number),
                format!("portLevelSettings[{index}]."),
            ))
        });
        for (pool, port, place) in whole.into_iter().chain(ports) {
            if upgrades(pool) {
                judge(mesh, rule, port, &place, out);
            }
        }
    }
}

fn upgrades(pool: &ConnectionPool) -> bool {
    pool.http.as_ref().and_then(|http| http.h2_upgrade_policy.as_deref()) == Some("UPGRADE")
}

fn judge(mesh: &Mesh<'_>, rule: &DestinationRule, port: Option<u32>, place: &str, out: &mut Findings<'_>) {
    let Some(id) = mesh.find_host(rule.host.as_str()) else { return };
    let service: &Service = mesh.service(id);
    let meant = |one: &&ServicePort| port.is_none_or(|port| port == u32::from(one.number));
    let ports: Vec<&ServicePort> = service.ports.iter().filter(meant).collect();
    let changes = |port: &&ServicePort| match port.protocol.family() {
        ProtocolFamily::Http => !port.protocol.is_http2(),
        ProtocolFamily::Auto => !mesh.exposures(id).is_empty(),
        ProtocolFamily::Tcp | ProtocolFamily::Nothing => false,
    };
    if ports.is_empty() || ports.iter().any(changes) {
        return;
    }
    let named: Vec<_> = ports.iter().map(|port| format!("{} is {}", port.title(), port.protocol.label())).collect();
    let detected = ports.iter().find(|port| port.protocol.family() == ProtocolFamily::Auto);
    let fix = match detected {
        Some(port) => port.as_grpc(),
        None => "remove h2UpgradePolicy".to_owned(),
    };
    let field = format!("spec.trafficPolicy.{place}connectionPool.http.h2UpgradePolicy");
    let finding = Finding::new(&RULE, &rule.object, field)
        .message(format!("the upgrade changes nothing for {}", mesh.short_host(&service.host)))
        .impact("none: sidecars speak to these ports as they would without it")
        .evidence([format!("port {}", named.join(", "))])
        .rests_on([service.namespace()])
        .fix(fix);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(port: &str) -> String {
        let rule = "{host: a, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}";
        service("a", port) + &istio("DestinationRule", "d", rule)
    }

    #[test]
    fn ports_that_need_no_upgrade_are_told() {
        let place = "info DestinationRule shop/d spec.trafficPolicy.connectionPool.http.h2UpgradePolicy";
        check(&RULE, &mesh("{name: grpc, port: 1}"), &[place]);
        check(&RULE, &mesh("{name: api, port: 1}"), &[place]);
        check_gap(&RULE, &mesh("{name: grpc, port: 1}"));
    }

    #[test]
    fn ports_of_http_and_other_words_are_silent() {
        check(&RULE, &mesh("{name: http, port: 1}"), &[]);
        check(&RULE, &mesh("{name: grpc, port: 1}, {name: http, port: 2}"), &[]);
        check(&RULE, &mesh("{name: grpc, port: 1}").replace("UPGRADE}", "DO_NOT_UPGRADE}"), &[]);
    }
}
