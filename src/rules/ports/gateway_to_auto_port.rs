//! GM104: a gateway routes gRPC to an auto-detected port.

use crate::mesh::Mesh;
use crate::mesh::gateway::ServerTlsMode;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::xds::{Caller, CallerKind};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM104",
    name: "gateway-to-auto-port",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::DestinationRule],
    istio_code: None,
    summary: "A gateway routes gRPC to an auto-detected port and sends HTTP/1.1 to it",
    docs: "\
## What it looks for
An auto-detected port with gRPC evidence whose Service a gateway routes calls to, when no DestinationRule that applies
to the gateway upgrades the connection to HTTP/2.

## Why it matters for gRPC
A sidecar detects the client's HTTP/2 connection and uses the same protocol upstream. A gateway terminates the client's
connection and selects the upstream protocol by the port alone: for an auto-detected port that is HTTP/1.1, which a gRPC
server does not accept. Calls through the gateway fail with UNAVAILABLE while calls inside the mesh succeed.

## Example
```yaml
ports: [{name: api, port: 50051}]      # the gateway sends HTTP/1.1
```

## Fix
```yaml
ports: [{name: grpc-api, port: 50051}]
```

## References
- Verified on a real mesh: `tests/lab/effects/GM104.yaml`.
- Istio source: `pilot/pkg/networking/core/cluster_builder.go` (`setUpstreamProtocol`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        let auto = service
            .ports
            .iter()
            .filter(|port| port.protocol.family() == ProtocolFamily::Auto && !port.evidence.is_empty());
        let ports: Vec<_> = auto.collect();
        if ports.is_empty() {
            continue;
        }
        let terminates_http = |tls| matches!(tls, ServerTlsMode::Plaintext | ServerTlsMode::Terminated);
        let exposures = mesh.exposures(id);
        for port in ports {
            let broken_exposure = exposures
                .iter()
                .filter(|exposure| exposure.is_gateway_found && terminates_http(exposure.tls))
                .find(|exposure| {
                    let caller = Caller {
                        kind: CallerKind::Gateway,
                        ..Caller::in_namespace(exposure.gateway.namespace.clone())
                    };
                    let policy =
                        mesh.destination_rules.policy(&mesh.applied_rules(&caller, service), port.number, None);
                    policy.h2_upgrade_policy() != Some("UPGRADE") && !policy.uses_client_protocol()
                });
            let Some(exposure) = broken_exposure else { continue };
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!(
                    "port {} is auto-detected, and {} routes gRPC calls to it over HTTP/1.1",
                    port.title(),
                    exposure.gateway
                ))
                .impact("every gRPC call through the gateway fails with UNAVAILABLE; calls between sidecars succeed")
                .evidence([format!("{} routes {} to this port", exposure.route, exposure.hosts.join(", "))])
                .evidence(&port.evidence)
                .depends_on([&exposure.gateway.namespace])
                .fix(port.grpc_port_yaml());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(port: &str) -> String {
        service("a", port)
            + &istio(
                "Gateway",
                "gw",
                "{selector: {app: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
            )
            + &istio(
                "VirtualService",
                "a",
                "{hosts: [a.example.com], gateways: [gw], http: [{match: [{uri: {prefix: /shop.Cart/}}], route: [{destination: {host: a}}]}]}",
            )
    }

    #[test]
    fn reports_an_auto_detected_port_behind_a_gateway() {
        let yaml = mesh("{name: api, port: 50051}");
        assert_findings(&RULE, &yaml, &["error Service shop/a spec.ports[0].name"]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn is_silent_on_declared_ports_http2_upgrades_and_ports_without_a_gateway() {
        assert_findings(&RULE, &mesh("{name: grpc, port: 50051}"), &[]);
        let upgrade = "{host: a, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}";
        assert_findings(&RULE, &(mesh("{name: api, port: 50051}") + &istio("DestinationRule", "a", upgrade)), &[]);
        assert_findings(&RULE, &mesh("{name: api, port: 50051}").replace("gateways: [gw], ", ""), &[]);
    }
}
