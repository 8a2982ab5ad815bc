//! GM506: gateway servers that istiod drops because of a conflict.

use crate::mesh::Mesh;
use crate::mesh::virtual_service::GatewayName;
use crate::mesh::xds::{DroppedServer, DuplicateServer};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM506",
    name: "gateway-conflict",
    severity: Severity::Error,
    needs: &[Kind::IstioGateway, Kind::Pod],
    istio_code: Some("IST0145"),
    summary: "A gateway server that istiod drops, because an older Gateway uses the same port or host",
    docs: "\
## What it looks for
Servers of Gateways for the same gateway pods that conflict: one port with different protocols, one TLS host twice on
one port, or one port name twice. One TLS host under two namespace prefixes (`shop/api.example.com` and
`api.example.com`) is a conflict that istiod does not see, and Envoy rejects the listener.

## Why it matters for gRPC
istiod keeps the server of the oldest Gateway, and of the first one by name if they are equally old. It drops the other
server without a status or an event. Clients of the dropped server get no route, the wrong certificate, or no
connection.

## Example
```yaml
kind: Gateway
metadata: {name: a}
spec: {servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [api.example.com], …}]}
---
kind: Gateway
metadata: {name: b}
spec: {servers: [{port: {number: 443, name: grpc, protocol: HTTPS}, hosts: [api.example.com], …}]}
```

## Fix
Define each TLS host in one server only, and use one protocol per port.

## References
- Verified on a real mesh: `tests/lab/effects/GM506.yaml`.
- Istio source: `mergeGateways` in `pilot/pkg/model/gateway.go`. Verified against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let (dropped, duplicates) = mesh.conflicting_servers();
    for DroppedServer { gateway, server, port, winner, reason } in dropped {
        let GatewayName::Named { namespace, name } = &gateway else { continue };
        let Some(loser) = mesh.find_istio_gateway(namespace, name) else { continue };
        let winner = gateway_title(mesh, &winner);
        let finding = Finding::new(&RULE, &loser.object, format!("spec.servers[{server}]"))
            .message(format!(
                "istiod drops the server on port {port} of {}: {winner} already has \
                              {reason}",
                loser.object
            ))
            .impact(
                "clients of this server get UNIMPLEMENTED (no route) or UNAVAILABLE (wrong \
                     certificate or no connection)",
            )
            .evidence(["istiod keeps the server of the oldest Gateway, and of the first by name if \
                        they are equally old"])
            .fix("merge both servers into one Gateway, or use another port, port name or host for this server");
        out.add(&RULE, finding);
    }
    for DuplicateServer { gateway, port, name, other } in duplicates {
        let GatewayName::Named { namespace, name: gateway_name } = &gateway else { continue };
        let Some(gateway) = mesh.find_istio_gateway(namespace, gateway_name) else { continue };
        let other = gateway_title(mesh, &other);
        let finding = Finding::new(&RULE, &gateway.object, "spec.servers")
            .message(format!("{} and {other} both serve the TLS server name {name} on port {port}", gateway.object))
            .impact("Envoy rejects the listener: clients of every server on this port get UNAVAILABLE")
            .evidence(["istiod compares the hosts with their namespace prefix, Envoy the server names without it"])
            .fix("merge both servers into one Gateway, or use another port for one of them");
        out.add(&RULE, finding);
    }
}

fn gateway_title(mesh: &Mesh<'_>, gateway: &GatewayName) -> String {
    match gateway {
        GatewayName::Named { namespace, name } => match mesh.find_istio_gateway(namespace, name) {
            Some(gateway) => gateway.object.to_string(),
            None => format!("Gateway {namespace}/{name}"),
        },
        GatewayName::Mesh => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, pod};

    fn gateways(first: &str, second: &str) -> String {
        let gateway = |name: &str, server: &str| {
            istio("Gateway", name, &format!("{{selector: {{app: gw}}, servers: [{server}]}}"))
        };
        pod("gw", "v1").replace("args: [proxy, sidecar]", "args: [proxy, router]")
            + &gateway("a", first)
            + &gateway("b", second)
    }

    const TLS: &str = "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: SIMPLE, credentialName: c}}";

    #[test]
    fn reports_a_tls_host_under_two_namespace_prefixes() {
        let yaml = gateways(
            TLS,
            &TLS.replace("[a.example.com]", "[shop/a.example.com]").replace("name: https", "name: https-b"),
        );
        assert_findings(&RULE, &yaml, &["error Gateway shop/b spec.servers"]);
    }

    #[test]
    fn reports_a_tls_host_used_twice_and_a_port_with_two_protocols() {
        let yaml = gateways(TLS, TLS);
        assert_findings(&RULE, &yaml, &["error Gateway shop/b spec.servers[0]"]);
        assert_undecided_on_gap(&RULE, &yaml);
        let plain = "{port: {number: 443, name: http, protocol: HTTP}, hosts: ['*']}";
        let tcp = "{port: {number: 443, name: tcp, protocol: TCP}, hosts: ['*']}";
        assert_findings(&RULE, &gateways(plain, tcp), &["error Gateway shop/b spec.servers[0]"]);
    }

    #[test]
    fn accepts_servers_without_a_conflict() {
        assert_findings(
            &RULE,
            &gateways(TLS, &TLS.replace("a.example.com", "b.example.com").replace("name: https", "name: https-b")),
            &[],
        );
    }
}
