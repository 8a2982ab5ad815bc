//! GM105: gRPC on a port named `http`, to which proxies speak HTTP/1.1.

use crate::mesh::Mesh;
use crate::mesh::protocol::Protocol;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM105",
    name: "grpc-on-http1-port",
    severity: Severity::Error,
    needs: &[Kind::DestinationRule],
    istio_code: None,
    summary: "gRPC on a port named http: the proxy speaks HTTP/1.1 to the server",
    docs: "\
## What it looks for
A port with signs of gRPC that Istio takes for HTTP, and no DestinationRule or mesh setting that upgrades the
connection for the callers.

## Why it matters for gRPC
For a port named `http` the caller's proxy opens HTTP/1.1 connections to the server. gRPC needs HTTP/2: every call
fails with UNAVAILABLE: the proxy that meets the gRPC server logs a protocol error (`UPE`), and where that is the proxy
beside the server, the caller's own logs the retries (`URX`).

## Example
```yaml
ports:
- name: http
  port: 50051           # a gRPC server listens here
```

## Repair
```yaml
ports:
- name: grpc
  port: 50051
```
If the name cannot change, set `connectionPool.http.h2UpgradePolicy: UPGRADE` in the DestinationRule that the callers
get.

## References
- Seen on a real mesh: `tests/lab/effects/GM105.yaml`.
- Istio: `pilot/pkg/networking/core/cluster_builder.go` (setUpstreamProtocol), `cluster_traffic_policy.go`
  (shouldH2Upgrade).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mesh_upgrades = mesh.config.h2_upgrade_policy.as_deref() == Some("UPGRADE");
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            if !matches!(port.protocol, Protocol::Http | Protocol::HttpProxy) {
                continue;
            }
            let views = mesh.caller_classes(id);
            let broken: Vec<_> = views
                .iter()
                .filter(|view| {
                    let policy = mesh.destination_rules.policy(&view.rules, port.number, None);
                    let upgraded = match policy.h2_upgrade() {
                        Some("UPGRADE") => true,
                        Some("DO_NOT_UPGRADE") => false,
                        _ => mesh_upgrades,
                    };
                    !upgraded && !policy.uses_client_protocol()
                })
                .collect();
            if broken.is_empty() {
                continue;
            }
            let everybody = broken.iter().any(|view| view.is_default());
            let callers = broken.iter().filter(|_| !everybody).flat_map(|view| &view.namespaces);
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!("port {} carries gRPC but Istio takes it for HTTP/1.1", port.title()))
                .impact(
                    "calls fail with UNAVAILABLE: the server is spoken to in HTTP/1.1 (flag UPE; URX at the caller)",
                )
                .callers(callers)
                .evidence(std::iter::once(format!("{} decided: HTTP", port.decided_by)))
                .evidence(&port.evidence)
                .rests_on([&mesh.root])
                .fix(port.as_grpc());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    const HTTP: &str = "{name: http, port: 50051, targetPort: grpc}";

    fn with_route() -> String {
        service("a", HTTP)
            + &istio(
                "VirtualService",
                "a",
                "{hosts: [a], http: [{match: [{uri: {prefix: /shop.Cart/}}], route: [{destination: {host: a}}]}]}",
            )
    }

    #[test]
    fn signs_of_grpc_on_http_are_reported() {
        check(&RULE, &with_route(), &["error Service shop/a spec.ports[0].name"]);
        check_gap(&RULE, &with_route());
    }

    #[test]
    fn an_upgrade_by_the_destination_rule_is_silent() {
        for pool in ["{h2UpgradePolicy: UPGRADE}", "{useClientProtocol: true}"] {
            let rule = istio(
                "DestinationRule",
                "a",
                &format!("{{host: a, trafficPolicy: {{connectionPool: {{http: {pool}}}}}}}"),
            );
            check(&RULE, &(with_route() + &rule), &[]);
        }
    }

    #[test]
    fn callers_that_do_not_get_the_upgrade_are_named() {
        let rule = istio(
            "DestinationRule",
            "a",
            "{host: a, exportTo: ['.'], trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}",
        );
        let found = crate::rules::testing::findings(&RULE, &(with_route() + &rule));
        assert_eq!(found.len(), 1, "callers elsewhere are not upgraded");
    }

    /// The mesh configuration's own pool counts where no DestinationRule has one, and only there.
    #[test]
    fn an_upgrade_by_the_mesh_is_silent() {
        let mesh = "---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: 'defaultTrafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}'
";
        check(&RULE, &(with_route() + mesh), &[]);
        let rule =
            istio("DestinationRule", "a", "{host: a, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 5}}}}");
        check(&RULE, &(with_route() + mesh + &rule), &["error Service shop/a spec.ports[0].name"]);
    }

    #[test]
    fn plain_http_is_silent() {
        check(&RULE, &service("a", "{name: http, port: 80}"), &[]);
    }
}
