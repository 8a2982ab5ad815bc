//! GM105: gRPC on a port that declares `http`, which proxies reach over HTTP/1.1.

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
    summary: "gRPC on a port that declares http: the proxy sends HTTP/1.1 to the server",
    docs: "\
## What it looks for
A port with gRPC evidence that Istio treats as HTTP/1.1, when neither the DestinationRule that the callers get nor the
mesh config upgrades the connection to HTTP/2.

## Why it matters for gRPC
For a port named `http` the caller's proxy opens HTTP/1.1 connections to the server. gRPC needs HTTP/2, so every call
fails with UNAVAILABLE. The proxy that connects to the gRPC server logs a protocol error (`UPE`); if that is the
server's sidecar, the caller's proxy retries and logs `URX`.

## Example
```yaml
ports:
- name: http
  port: 50051           # a gRPC server listens here
```

## Fix
```yaml
ports:
- name: grpc
  port: 50051
```
If the name cannot change, set `connectionPool.http.h2UpgradePolicy: UPGRADE` in the DestinationRule that the callers
get.

## References
- Verified on a real mesh: `tests/lab/effects/GM105.yaml`.
- Istio source: `pilot/pkg/networking/core/cluster_builder.go` (setUpstreamProtocol), `cluster_traffic_policy.go`
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
            let classes = mesh.caller_classes(id);
            let broken_classes: Vec<_> = classes
                .iter()
                .filter(|class| {
                    let policy = mesh.destination_rules.policy(&class.destination_rules, port.number, None);
                    let upgraded = match policy.h2_upgrade_policy() {
                        Some("UPGRADE") => true,
                        Some("DO_NOT_UPGRADE") => false,
                        _ => mesh_upgrades,
                    };
                    !upgraded && !policy.uses_client_protocol()
                })
                .collect();
            if broken_classes.is_empty() {
                continue;
            }
            let includes_default_class = broken_classes.iter().any(|class| class.is_default());
            let callers = broken_classes.iter().filter(|_| !includes_default_class).flat_map(|class| &class.namespaces);
            let finding = Finding::new(&RULE, &service.object, port.deciding_field())
                .message(format!("port {} is used for gRPC, but Istio treats it as HTTP/1.1", port.title()))
                .impact(
                    "every call fails with UNAVAILABLE (flag UPE at the proxy that connects to the server, URX at the \
                     caller)",
                )
                .callers(callers)
                .evidence(std::iter::once(format!("protocol HTTP, decided by {}", port.decided_by)))
                .evidence(&port.evidence)
                .depends_on([&mesh.root_namespace])
                .fix(port.grpc_port_yaml());
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

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
    fn reports_grpc_evidence_on_an_http_port() {
        assert_findings(&RULE, &with_route(), &["error Service shop/a spec.ports[0].name"]);
        assert_undecided_on_gap(&RULE, &with_route());
    }

    #[test]
    fn is_silent_when_the_destination_rule_upgrades_the_connection() {
        for pool in ["{h2UpgradePolicy: UPGRADE}", "{useClientProtocol: true}"] {
            let rule = istio(
                "DestinationRule",
                "a",
                &format!("{{host: a, trafficPolicy: {{connectionPool: {{http: {pool}}}}}}}"),
            );
            assert_findings(&RULE, &(with_route() + &rule), &[]);
        }
    }

    #[test]
    fn reports_the_callers_that_do_not_get_the_upgrade() {
        let rule = istio(
            "DestinationRule",
            "a",
            "{host: a, exportTo: ['.'], trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}",
        );
        let reported = crate::rules::testing::findings(&RULE, &(with_route() + &rule));
        assert_eq!(reported.len(), 1, "callers elsewhere are not upgraded");
    }

    /// `defaultTrafficPolicy` of the mesh config applies only where no DestinationRule sets a connection pool.
    #[test]
    fn is_silent_when_the_mesh_config_upgrades_the_connection() {
        let mesh = "---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: 'defaultTrafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}'
";
        assert_findings(&RULE, &(with_route() + mesh), &[]);
        let rule =
            istio("DestinationRule", "a", "{host: a, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 5}}}}");
        assert_findings(&RULE, &(with_route() + mesh + &rule), &["error Service shop/a spec.ports[0].name"]);
    }

    #[test]
    fn is_silent_on_http_without_grpc_evidence() {
        assert_findings(&RULE, &service("a", "{name: http, port: 80}"), &[]);
    }
}
