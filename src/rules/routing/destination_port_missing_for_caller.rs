//! GM215: a destination without a port, whose Service does not have the port that Istio uses for the caller.

use crate::mesh::Mesh;
use crate::mesh::service::Service;
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::written_route::{WrittenAction, WrittenBackend, WrittenCondition, WrittenRule};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM215",
    name: "destination-port-missing-for-caller",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: Some("IST0112"),
    summary: "A destination without a port, whose Service does not have the port that Istio uses",
    docs: "\
## What it looks for
A destination without `port`. For sidecars Istio uses the port that the caller dialed, whatever ports the destination
has. For gateways it uses the only port of the Service, or, if the Service has several, the port of the Gateway's
server. If the Service does not have that port, the finding is an error. If it has that port among several, the finding
is info, because a change of either Service breaks the route.

## Why it matters for gRPC
The cluster for that port does not exist: calls fail with UNAVAILABLE, response flag `NC`, although every name in the
rule is correct.

## Example
```yaml
kind: VirtualService
spec: {hosts: [cart], http: [{route: [{destination: {host: ledger}}]}]}     # cart: 8080, ledger: 50051
```

## Fix
```yaml
destination: {host: ledger, port: {number: 50051}}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM215.yaml`.
- Istio source: `pilot/pkg/networking/core/route/route.go` (`GetDestinationCluster`). Verified against istiod's own
  output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        for rule in mesh.virtual_service_rules(object) {
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            for target in targets.iter().filter(|target| target.port.is_none()) {
                let Some(service) = mesh.find_host(target.host.as_str()).map(|id| mesh.service(id)) else { continue };
                if object.acts_in_mesh() {
                    check_ports(mesh, object, target, service, &dialed_ports(mesh, object, &rule), "callers dial", out);
                }
                if service.ports.len() > 1 {
                    check_ports(mesh, object, target, service, &gateway_ports(mesh, object), "the gateway serves", out);
                }
            }
        }
    }
}

/// Ports of the object's hosts that callers can dial, restricted to those that the rule matches.
fn dialed_ports(mesh: &Mesh<'_>, object: &VirtualService, rule: &WrittenRule) -> Vec<u32> {
    let matched: Vec<u32> = rule
        .matches
        .iter()
        .flat_map(|rule_match| &rule_match.conditions)
        .filter_map(|condition| if let WrittenCondition::Port(port) = condition { Some(*port) } else { None })
        .collect();
    let services = object.hosts.iter().filter_map(|host| mesh.find_host(host.as_str())).map(|id| mesh.service(id));
    let ports = services.flat_map(|service| &service.ports).filter(|port| port.protocol.is_http_or_auto());
    let mut ports: Vec<u32> = ports.map(|port| u32::from(port.number)).collect();
    ports.retain(|port| matched.is_empty() || matched.contains(port));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Ports of the servers of the object's gateways.
fn gateway_ports(mesh: &Mesh<'_>, object: &VirtualService) -> Vec<u32> {
    let gateways = object.named_gateways().filter_map(|(namespace, name)| mesh.find_istio_gateway(namespace, name));
    let ports = gateways.flat_map(|gateway| &gateway.spec.servers).filter_map(|server| server.port.as_ref());
    let mut ports: Vec<u32> = ports.map(|port| port.number).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn check_ports(
    mesh: &Mesh<'_>,
    object: &VirtualService,
    target: &WrittenBackend,
    service: &Service,
    used: &[u32],
    origin: &str,
    out: &mut Findings<'_>,
) {
    let has_port = |number: u32| {
        let mut entries = mesh.services_named(service.host.as_str()).iter().map(|id| mesh.service(*id));
        entries.any(|entry| entry.ports.iter().any(|port| u32::from(port.number) == number))
    };
    // A destination on the rule's own host has every port that callers dial.
    if used.is_empty() || object.hosts.iter().all(|host| *host == target.host) {
        return;
    }
    let missing: Vec<String> = used.iter().filter(|port| !has_port(**port)).map(ToString::to_string).collect();
    let list = |ports: &[u32]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let destination_ports: Vec<u32> = service.ports.iter().map(|port| u32::from(port.number)).collect();
    let short = mesh.short_host(&target.host);
    let finding = Finding::new(&RULE, &object.object, format!("{}.destination", target.field))
        .evidence([format!("{origin} port {}; {short} has port {}", list(used), list(&destination_ports))])
        .depends_on([service.namespace()])
        .fix(format!(
            "destination:\n  host: {}\n  port: {{number: {}}}",
            target.host,
            destination_ports.first().copied().unwrap_or_default()
        ));
    let finding = if missing.is_empty() {
        if destination_ports.len() < 2 {
            return;
        }
        finding
            .severity(Severity::Info)
            .message(format!(
                "the destination {short} has several ports and the rule sets none: Istio uses the dialed port"
            ))
            .impact(
                "none while both Services have the same port numbers; otherwise calls fail with UNAVAILABLE (flag NC)",
            )
    } else {
        finding
            .message(format!("the destination sets no port, and {short} does not have port {}", missing.join(", ")))
            .impact("calls on this route fail with UNAVAILABLE (flag NC, cluster not found)")
    };
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(ledger: &str, destination: &str) -> String {
        service("cart", "{name: grpc, port: 8080}")
            + &service("ledger", ledger)
            + &istio(
                "VirtualService",
                "r",
                &format!("{{hosts: [cart], http: [{{route: [{{destination: {destination}}}]}}]}}"),
            )
    }

    const FIELD: &str = "VirtualService shop/r spec.http[0].route[0].destination";

    #[test]
    fn reports_a_dialed_port_that_the_destination_does_not_have() {
        let yaml = mesh("{name: grpc, port: 50051}", "{host: ledger}");
        assert_findings(&RULE, &yaml, &[&format!("error {FIELD}")]);
        assert_undecided_on_gap(&RULE, &yaml);
        let several = mesh("{name: grpc, port: 50051}, {name: http, port: 8080}", "{host: ledger}");
        assert_findings(&RULE, &several, &[&format!("info {FIELD}")]);
    }

    #[test]
    fn is_silent_on_explicit_ports_equal_ports_and_the_rules_own_host() {
        assert_findings(&RULE, &mesh("{name: grpc, port: 50051}", "{host: ledger, port: {number: 50051}}"), &[]);
        assert_findings(&RULE, &mesh("{name: grpc, port: 8080}", "{host: ledger}"), &[]);
        assert_findings(&RULE, &mesh("{name: grpc, port: 50051}", "{host: cart}"), &[]);
    }

    #[test]
    fn a_gateway_uses_the_only_port_of_the_service_or_its_server_port() {
        let gateway = istio(
            "Gateway",
            "gw",
            "{selector: {app: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
        );
        let through_gateway = |ledger| {
            mesh(ledger, "{host: ledger}").replace("hosts: [cart]", "gateways: [gw], hosts: [a.example.com]") + &gateway
        };
        assert_findings(&RULE, &through_gateway("{name: grpc, port: 50051}"), &[]);
        assert_findings(
            &RULE,
            &through_gateway("{name: grpc, port: 50051}, {name: http, port: 8080}"),
            &[&format!("error {FIELD}")],
        );
    }
}
