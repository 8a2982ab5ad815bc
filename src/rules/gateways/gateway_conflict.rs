//! GM506: servers of Gateways that istiod leaves out beside earlier ones.

use crate::mesh::Mesh;
use crate::mesh::virtual_service::GatewayName;
use crate::mesh::xds::DroppedServer;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM506",
    name: "gateway-conflict",
    severity: Severity::Error,
    needs: &[Kind::IstioGateway, Kind::Pod],
    istio_code: Some("IST0145"),
    summary: "A server of a Gateway that istiod leaves out, since an earlier one has its port or host",
    docs: "\
## What it looks for
Servers of Gateways on the same proxy that ask for one port with another protocol, for one host with TLS on one port, or
for one name of a port.

## Why it matters for gRPC
The oldest Gateway wins, ties by name. The other server is not there: its clients get no route, the wrong certificate, or
no listener, and no object says so.

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

## Repair
Keep each host with TLS in one server, and one protocol on a port.

## References
- Seen on a real mesh: `tests/lab/effects/GM506.yaml`.
- From Istio's code: `mergeGateways` in `pilot/pkg/model/gateway.go`; pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for DroppedServer { gateway, server, port, winner, why } in mesh.left_out_servers() {
        let GatewayName::Named { namespace, name } = &gateway else { continue };
        let Some(loser) = mesh.find_istio_gateway(namespace, name) else { continue };
        let by = match &winner {
            GatewayName::Named { namespace, name } => match mesh.find_istio_gateway(namespace, name) {
                Some(winner) => winner.object.to_string(),
                None => format!("Gateway {namespace}/{name}"),
            },
            GatewayName::Mesh => String::new(),
        };
        let finding = Finding::new(&RULE, &loser.object, format!("spec.servers[{server}]"))
            .message(format!("the server on port {port} is left out: {by} has {why}"))
            .impact("its clients get no route (UNIMPLEMENTED), another certificate, or no connection (UNAVAILABLE)")
            .evidence(["the oldest Gateway wins, ties by name"])
            .fix("give it hosts, a port or a name of the port of its own, or join both servers");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, pod};

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
    fn one_host_with_tls_and_one_port_with_two_protocols_are_errors() {
        let yaml = gateways(TLS, TLS);
        check(&RULE, &yaml, &["error Gateway shop/b spec.servers[0]"]);
        check_gap(&RULE, &yaml);
        let plain = "{port: {number: 443, name: http, protocol: HTTP}, hosts: ['*']}";
        let bytes = "{port: {number: 443, name: tcp, protocol: TCP}, hosts: ['*']}";
        check(&RULE, &gateways(plain, bytes), &["error Gateway shop/b spec.servers[0]"]);
    }

    #[test]
    fn servers_that_fit_together_are_silent() {
        check(
            &RULE,
            &gateways(TLS, &TLS.replace("a.example.com", "b.example.com").replace("name: https", "name: https-b")),
            &[],
        );
    }
}
