//! GM215: a destination without a port, whose Service lacks the port that results.

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
    summary: "A destination without a port, and the port that results is none of its Service",
    docs: "\
## What it looks for
A destination without `port`. For sidecars the port is the one that the caller dialled, whatever ports the destination
has; for a gateway it is the Service's only port, and with several the port of the Gateway's server. Where that port does
not exist it is an error, where it happens to exist among several it is told as fragile.

## Why it matters for gRPC
The cluster of that port does not exist: calls fail with UNAVAILABLE, flag `NC`, though every name in the rule is right.

## Example
```yaml
kind: VirtualService
spec: {hosts: [cart], http: [{route: [{destination: {host: ledger}}]}]}     # cart: 8080, ledger: 50051
```

## Repair
```yaml
destination: {host: ledger, port: {number: 50051}}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM215.yaml`.
- From Istio's code: `pilot/pkg/networking/core/route/route.go` (`GetDestinationCluster`); pinned with istiod's own code.
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
                    judge(mesh, object, target, service, &dialled(mesh, object, &rule), "callers dial", out);
                }
                if service.ports.len() > 1 {
                    judge(mesh, object, target, service, &served(mesh, object), "the gateway serves", out);
                }
            }
        }
    }
}

/// Ports that callers of the object's hosts dial, as far as the rule is for them.
fn dialled(mesh: &Mesh<'_>, object: &VirtualService, rule: &WrittenRule) -> Vec<u32> {
    let only: Vec<u32> = rule
        .matches
        .iter()
        .flat_map(|one| &one.conditions)
        .filter_map(|condition| if let WrittenCondition::Port(port) = condition { Some(*port) } else { None })
        .collect();
    let services = object.hosts.iter().filter_map(|host| mesh.find_host(host.as_str())).map(|id| mesh.service(id));
    let ports = services.flat_map(|service| &service.ports).filter(|port| port.protocol.is_http_or_auto());
    let mut ports: Vec<u32> = ports.map(|port| u32::from(port.number)).collect();
    ports.retain(|port| only.is_empty() || only.contains(port));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Ports of the servers of the object's gateways.
fn served(mesh: &Mesh<'_>, object: &VirtualService) -> Vec<u32> {
    let gateways = object.named_gateways().filter_map(|(namespace, name)| mesh.find_istio_gateway(namespace, name));
    let ports = gateways.flat_map(|gateway| &gateway.spec.servers).filter_map(|server| server.port.as_ref());
    let mut ports: Vec<u32> = ports.map(|port| port.number).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn judge(
    mesh: &Mesh<'_>,
    object: &VirtualService,
    target: &WrittenBackend,
    service: &Service,
    asked: &[u32],
    who: &str,
    out: &mut Findings<'_>,
) {
    let has = |wanted: u32| {
        let mut entries = mesh.services_named(service.host.as_str()).iter().map(|id| mesh.service(*id));
        entries.any(|entry| entry.ports.iter().any(|port| u32::from(port.number) == wanted))
    };
    // The rule's own host has the ports that are dialled.
    if asked.is_empty() || object.hosts.iter().all(|host| *host == target.host) {
        return;
    }
    let lacking: Vec<String> = asked.iter().filter(|port| !has(**port)).map(ToString::to_string).collect();
    let list = |ports: &[u32]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let own: Vec<u32> = service.ports.iter().map(|port| u32::from(port.number)).collect();
    let short = mesh.short_host(&target.host);
    let finding = Finding::new(&RULE, &object.object, format!("{}.destination", target.field))
        .evidence([format!("{who} {}; {short} has {}", list(asked), list(&own))])
        .rests_on([service.namespace()])
        .fix(format!(
            "destination:\n  host: {}\n  port: {{number: {}}}",
            target.host,
            own.first().copied().unwrap_or_default()
        ));
    let finding = if lacking.is_empty() {
        if own.len() < 2 {
            return;
        }
        finding
            .severity(Severity::Info)
            .message(format!("no port is named, and {short} has several: the one that is dialled is taken"))
            .impact("calls arrive as long as both Services use the same numbers")
    } else {
        finding
            .message(format!("no port is named, and {short} has no port {}", lacking.join(", ")))
            .impact("calls that take this route fail with UNAVAILABLE (flag NC, no such cluster)")
    };
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(ledger: &str, destination: &str) -> String {
        service("cart", "{name: grpc, port: 8080}")
            + &service("ledger", ledger)
            + &istio(
                "VirtualService",
                "r",
                &format!("{{hosts: [cart], http: [{{route: [{{destination: {destination}}}]}}]}}"),
            )
    }

    const PLACE: &str = "VirtualService shop/r spec.http[0].route[0].destination";

    #[test]
    fn the_port_that_is_dialled_must_exist() {
        let yaml = mesh("{name: grpc, port: 50051}", "{host: ledger}");
        check(&RULE, &yaml, &[&format!("error {PLACE}")]);
        check_gap(&RULE, &yaml);
        let several = mesh("{name: grpc, port: 50051}, {name: http, port: 8080}", "{host: ledger}");
        check(&RULE, &several, &[&format!("info {PLACE}")]);
    }

    #[test]
    fn named_ports_equal_ports_and_the_own_host_are_silent() {
        check(&RULE, &mesh("{name: grpc, port: 50051}", "{host: ledger, port: {number: 50051}}"), &[]);
        check(&RULE, &mesh("{name: grpc, port: 8080}", "{host: ledger}"), &[]);
        check(&RULE, &mesh("{name: grpc, port: 50051}", "{host: cart}"), &[]);
    }

    #[test]
    fn a_gateway_takes_the_only_port_or_its_own() {
        let gateway = istio(
            "Gateway",
            "gw",
            "{selector: {app: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
        );
        let at_gateway = |ledger| {
            mesh(ledger, "{host: ledger}").replace("hosts: [cart]", "gateways: [gw], hosts: [a.example.com]") + &gateway
        };
        check(&RULE, &at_gateway("{name: grpc, port: 50051}"), &[]);
        check(&RULE, &at_gateway("{name: grpc, port: 50051}, {name: http, port: 8080}"), &[&format!("error {PLACE}")]);
    }
}
