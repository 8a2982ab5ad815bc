//! GM515: http rules on gateway servers that forward connections without reading the calls in them.

use crate::mesh::Mesh;
use crate::mesh::gateway::{self, IstioGateway, ServerTlsMode};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::virtual_service::VirtualService;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::gateway::GatewayServer;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM515",
    name: "passthrough-with-http-rules",
    severity: Severity::Error,
    needs: &[Kind::IstioGateway],
    istio_code: None,
    summary: "http rules on a gateway server that forwards connections (TLS passthrough or TCP)",
    docs: "\
## What it looks for
A VirtualService with `http` rules for a Gateway whose servers for these hosts all forward connections: TLS with
`mode: PASSTHROUGH`, or protocol TLS or TCP.

## Why it matters for gRPC
Such a server does not read the calls, so istiod uses only `tls` and `tcp` rules for it. Without any, the server has no
filter chain: the gateway closes each connection, and clients get UNAVAILABLE.

## Example
```yaml
kind: Gateway
spec: {servers: [{port: {number: 443, name: tls, protocol: TLS}, hosts: [api.example.com], tls: {mode: PASSTHROUGH}}]}
---
kind: VirtualService
spec: {hosts: [api.example.com], gateways: [public], http: [{route: [{destination: {host: api}}]}]}
```

## Fix
Terminate TLS at the gateway:
```yaml
servers:
- port: {number: 443, name: https, protocol: HTTPS}
  hosts: [api.example.com]
  tls: {mode: SIMPLE, credentialName: api-cert}
```
or route the connections by their server name:
```yaml
spec:
  tls:
  - match: [{port: 443, sniHosts: [api.example.com]}]
    route: [{destination: {host: api}}]
```

## References
- Istio source: `buildGatewayTCPFilterChainOpts` in `pilot/pkg/networking/core/gateway.go`. Verified against istiod's own
  output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        if object.spec.http.is_empty() || !object.spec.tls.is_empty() || !object.spec.tcp.is_empty() {
            continue;
        }
        for (namespace, name) in object.named_gateways() {
            let Some(gateway) = mesh.find_istio_gateway(namespace, name) else { continue };
            let servers: Vec<&GatewayServer> = serving(gateway, object).collect();
            let Some(first) = servers.first().filter(|_| servers.iter().all(|server| forwards_connections(server)))
            else {
                continue;
            };
            let port = first.port.as_ref().map_or(0, |port| port.number);
            let protocol = first.port.as_ref().map_or("", |port| port.protocol.as_str());
            let host = first.hosts.first().map_or("*", |host| host.as_str());
            let finding = Finding::new(&RULE, &object.object, "spec.http")
                .message(format!(
                    "{} has http rules, but the server on port {port} of {} forwards connections without reading the calls",
                    object.object, gateway.object
                ))
                .impact("the gateway has no route for these connections and closes them: clients get UNAVAILABLE")
                .evidence([format!("protocol {protocol}: {}", gateway::server_tls_mode(first))])
                .depends_on([&gateway.object.namespace])
                .fix(format!(
                    "# {}\nservers:\n- port: {{number: {port}, name: https, protocol: HTTPS}}\n  hosts: [\"{host}\"]\n  \
                     tls: {{mode: SIMPLE, credentialName: my-cert}}",
                    gateway.object
                ));
            out.add(&RULE, finding);
        }
    }
}

/// The servers of a Gateway that serve a host of the VirtualService.
fn serving<'g>(gateway: &'g IstioGateway, object: &'g VirtualService) -> impl Iterator<Item = &'g GatewayServer> {
    gateway.spec.servers.iter().filter(|server| {
        server.hosts.iter().any(|host| {
            let (namespace, host) = gateway::split_server_host(host, &gateway.object.namespace);
            namespace.is_none_or(|namespace| namespace == object.object.namespace.as_str())
                && object.hosts.iter().any(|own| gateway::hosts_overlap(own.as_str(), host))
        })
    })
}

fn forwards_connections(server: &GatewayServer) -> bool {
    let protocol = server.port.as_ref().and_then(|port| Protocol::parse(&port.protocol));
    match gateway::server_tls_mode(server) {
        ServerTlsMode::Passthrough | ServerTlsMode::TerminatedAsTcp => true,
        ServerTlsMode::Terminated | ServerTlsMode::RedirectsToHttps => false,
        ServerTlsMode::Plaintext => protocol.is_some_and(|protocol| protocol.family() == ProtocolFamily::Tcp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio};

    const PASSTHROUGH: &str =
        "{port: {number: 443, name: tls, protocol: TLS}, hosts: [a.example.com], tls: {mode: PASSTHROUGH}}";
    const HTTP: &str = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";

    fn mesh(servers: &str, rules: &str) -> String {
        istio("Gateway", "gw", &format!("{{selector: {{app: gw}}, servers: [{servers}]}}"))
            + &istio("VirtualService", "a", &format!("{{hosts: [a.example.com], gateways: [gw], {rules}}}"))
    }

    #[test]
    fn reports_http_rules_behind_servers_that_forward_connections() {
        let http = "http: [{route: [{destination: {host: a}}]}]";
        let expected = ["error VirtualService shop/a spec.http"];
        assert_findings(&RULE, &mesh(PASSTHROUGH, http), &expected);
        assert_findings(&RULE, &mesh(&PASSTHROUGH.replace("PASSTHROUGH", "SIMPLE"), http), &expected);
        assert_undecided_on_gap(&RULE, &mesh(PASSTHROUGH, http));
    }

    #[test]
    fn is_silent_on_tls_rules_and_when_another_server_reads_the_calls() {
        let tls = "tls: [{match: [{port: 443, sniHosts: [a.example.com]}], route: [{destination: {host: a}}]}]";
        assert_findings(&RULE, &mesh(PASSTHROUGH, tls), &[]);
        let http = "http: [{route: [{destination: {host: a}}]}]";
        assert_findings(&RULE, &mesh(&format!("{PASSTHROUGH}, {HTTP}"), http), &[]);
    }
}
