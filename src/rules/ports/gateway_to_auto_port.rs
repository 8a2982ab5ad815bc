//! GM104: a gateway leads gRPC to a port that is left to detection.

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
    summary: "A gateway leads gRPC to a port that is left to detection: it speaks HTTP/1.1 to it",
    docs: "\
## What it looks for
A port with signs of gRPC whose protocol is left to detection, and a gateway that routes calls to its Service, while no
DestinationRule that the gateway gets upgrades the connection.

## Why it matters for gRPC
Sidecars detect HTTP/2 and pass it on. A gateway has ended the client's connection and picks the protocol toward the
Service by the port alone: what is left to detection gets HTTP/1.1, which a gRPC server does not understand. Calls from
outside fail with UNAVAILABLE while calls inside the mesh work.

## Example
```yaml
ports: [{name: api, port: 50051}]      # behind a gateway: HTTP/1.1
```

## Repair
```yaml
ports: [{name: grpc-api, port: 50051}]
```

## References
- Seen on a real mesh: `tests/lab/effects/GM104.yaml`.
- From Istio's code: `pilot/pkg/networking/core/cluster_builder.go` (`setUpstreamProtocol`).
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
        let routes_calls = |tls| matches!(tls, ServerTlsMode::Plaintext | ServerTlsMode::Terminated);
        let exposures = mesh.exposures(id);
        for port in ports {
            let broken = exposures.iter().filter(|one| one.known && routes_calls(one.tls)).find(|one| {
                let caller =
                    Caller { kind: CallerKind::Gateway, ..Caller::in_namespace(one.gateway.namespace.clone()) };
                let policy = mesh.destination_rules.policy(&mesh.applied_rules(&caller, service), port.number, None);
                policy.h2_upgrade() != Some("UPGRADE") && !policy.uses_client_protocol()
            });
            let Some(exposure) = broken else { continue };
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!(
                    "port {} is left to detection, and {} leads gRPC to it",
                    port.title(),
                    exposure.gateway
                ))
                .impact("calls through the gateway fail with UNAVAILABLE: it speaks HTTP/1.1 to the server")
                .evidence([format!("{} routes {} to it", exposure.route, exposure.hosts.join(", "))])
                .evidence(&port.evidence)
                .rests_on([&exposure.gateway.namespace])
                .fix(port.as_grpc());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

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
    fn a_detected_port_behind_a_gateway_is_an_error() {
        let yaml = mesh("{name: api, port: 50051}");
        check(&RULE, &yaml, &["error Service shop/a spec.ports[0].name"]);
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn named_ports_upgrades_and_ports_without_a_gateway_are_silent() {
        check(&RULE, &mesh("{name: grpc, port: 50051}"), &[]);
        let upgrade = "{host: a, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}";
        check(&RULE, &(mesh("{name: api, port: 50051}") + &istio("DestinationRule", "a", upgrade)), &[]);
        check(&RULE, &mesh("{name: api, port: 50051}").replace("gateways: [gw], ", ""), &[]);
    }
}
