//! GM105: gRPC on a port that declares `http`, which proxies reach over HTTP/1.1.

use crate::mesh::Mesh;
use crate::mesh::evidence::{Evidence, RoutedEvidence};
use crate::mesh::protocol::Protocol;
use crate::mesh::service::{Service, ServicePort};
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
mesh config upgrades the connection to HTTP/2. A port is used for gRPC too if a route sends the calls of a gRPC port or
of a Gateway server with `protocol: GRPC` to it, as for the Service of a canary. If the Service has a gRPC port of its
own, the finding is about the rule that selects the wrong one.

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
            let callers: Vec<_> = broken_classes
                .iter()
                .filter(|_| !includes_default_class)
                .flat_map(|class| class.namespaces.clone())
                .collect();
            let finding = match misdirected(service, port) {
                Some((routed, grpc_port)) => report_route(service, port, routed, grpc_port),
                None => report_port(service, port),
            };
            let finding = finding
                .impact(
                    "every call fails with UNAVAILABLE (flag UPE at the proxy that connects to the server, URX at the \
                     caller)",
                )
                .callers(callers)
                .evidence(std::iter::once(format!("protocol HTTP, decided by {}", port.decided_by)))
                .evidence(&port.evidence)
                .depends_on([&mesh.root_namespace]);
            out.add(&RULE, finding);
        }
    }
}

fn report_port(service: &Service, port: &ServicePort) -> Finding {
    Finding::new(&RULE, &service.object, port.deciding_field())
        .message(format!("port {} is used for gRPC, but Istio treats it as HTTP/1.1", port.title()))
        .fix(port.grpc_port_yaml())
}

/// The rule that sends gRPC calls to an HTTP port although the Service has a gRPC port, and that port. The HTTP port is
/// then right for its own clients, and the rule is wrong.
fn misdirected<'s>(service: &'s Service, port: &'s ServicePort) -> Option<(&'s RoutedEvidence, &'s ServicePort)> {
    let routed = port.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Routed(routed) => Some(routed),
        _ => None,
    })?;
    if port.evidence.iter().any(Evidence::is_own) {
        return None;
    }
    let dialed_number = routed.dialed.rsplit_once(':').and_then(|(_, number)| number.parse().ok());
    let grpc_ports = || service.ports.iter().filter(|other| other.protocol.is_grpc());
    let same_number = grpc_ports().find(|other| Some(other.number) == dialed_number);
    same_number.or_else(|| grpc_ports().next()).map(|grpc_port| (routed, grpc_port))
}

fn report_route(service: &Service, port: &ServicePort, routed: &RoutedEvidence, grpc_port: &ServicePort) -> Finding {
    let dialed_port = routed.dialed.rsplit_once(':').map_or("", |(_, number)| number);
    Finding::new(&RULE, &routed.route, &*routed.rule)
        .message(format!(
            "the rule sends gRPC calls to {} to port {} of {}, which Istio treats as HTTP/1.1",
            routed.dialed,
            port.title(),
            service.object
        ))
        .fix(format!(
            "# before this rule, one for the gRPC port\n- match: [{{port: {dialed_port}}}]\n  route:\n  - destination: \
             {{host: {}, port: {{number: {}}}}}",
            service.host, grpc_port.number
        ))
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

    /// Two Services of a canary: callers dial the gRPC port of one, and the other has an HTTP port.
    #[test]
    fn reports_a_port_that_gets_the_calls_of_a_grpc_port() {
        let split = "{hosts: [a], http: [{route: [{destination: {host: a}, weight: 9}, {destination: {host: canary}, weight: 1}]}]}";
        let yaml = service("a", "{name: grpc, port: 50051}")
            + &service("canary", "{name: http, port: 50051}")
            + &istio("VirtualService", "a", split);
        assert_findings(&RULE, &yaml, &["error Service shop/canary spec.ports[0].name"]);
        let evidence = &crate::rules::testing::findings(&RULE, &yaml)[0].evidence;
        assert!(
            evidence
                .iter()
                .any(|fact| fact.contains("VirtualService shop/a (spec.http[0]) sends calls to a.shop:50051 here"))
        );
        // Without calls there is no evidence.
        assert_findings(&RULE, &yaml.replace("weight: 1}", "weight: 0}"), &[]);
        // An HTTP rule before it takes no gRPC calls.
        let api = "http: [{match: [{uri: {prefix: /api}}], route: [{destination: {host: canary}}]}, {route: [{destination: {host: a}}]}]";
        let yaml = service("a", "{name: grpc, port: 50051}")
            + &service("canary", "{name: http, port: 50051}")
            + &istio("VirtualService", "a", &format!("{{hosts: [a], {api}}}"));
        assert_findings(&RULE, &yaml, &[]);
    }

    #[test]
    fn reports_the_rule_if_the_service_has_a_grpc_port_too() {
        let ports = "{name: grpc, port: 6565}, {name: http, port: 8080}";
        let rule = "{hosts: [a], http: [{route: [{destination: {host: primary, port: {number: 8080}}}]}]}";
        let yaml = service("a", ports) + &service("primary", ports) + &istio("VirtualService", "a", rule);
        assert_findings(&RULE, &yaml, &["error VirtualService shop/a spec.http[0]"]);
        let split = "{hosts: [a], http: [{match: [{port: 6565}], route: [{destination: {host: primary, port: {number: 6565}}}]}, {route: [{destination: {host: primary, port: {number: 8080}}}]}]}";
        let yaml = service("a", ports) + &service("primary", ports) + &istio("VirtualService", "a", split);
        assert_findings(&RULE, &yaml, &[]);
    }

    #[test]
    fn reports_a_port_behind_a_gateway_server_for_grpc() {
        let gateway = |server: &str| {
            service("a", HTTP)
                + &istio("Gateway", "gw", &format!("{{selector: {{app: gw}}, servers: [{server}]}}"))
                + &istio(
                    "VirtualService",
                    "a",
                    "{hosts: [a.example.com], gateways: [gw], http: [{route: [{destination: {host: a}}]}]}",
                )
        };
        let grpc = "{port: {number: 443, name: grpc, protocol: GRPC}, hosts: ['*']}";
        let http = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
        assert_findings(&RULE, &gateway(grpc), &["error Service shop/a spec.ports[0].name"]);
        // The routes may be for the HTTP server.
        assert_findings(&RULE, &gateway(&format!("{grpc}, {http}")), &[]);
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
