//! GM507: a host of a route that no server of its Gateway serves.

use crate::mesh::Mesh;
use crate::mesh::gateway::{IstioGateway, overlap, split_server_host};
use crate::mesh::ids::{Host, ObjectRef};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM507",
    name: "host-not-on-gateway",
    severity: Severity::Warning,
    needs: &[Kind::IstioGateway],
    istio_code: Some("IST0132"),
    summary: "A host of a VirtualService that no server of its Gateway serves",
    docs: "\
## What it looks for
A VirtualService bound to a Gateway none of whose servers has its host: another name, or `ns/host` for another namespace.
An object that acts in the mesh too may have hosts for the mesh only; it is told when no host fits the Gateway.

## Why it matters for gRPC
The gateway has no route for the host: clients get 404 (flag `NR`), which is UNIMPLEMENTED to them.

## Example
```yaml
kind: Gateway
spec: {servers: [{hosts: [istio-system/shop.example.com], …}]}
---
kind: VirtualService
metadata: {namespace: shop}
spec: {hosts: [shop.example.com], gateways: [istio-system/ingress]}
```

## Repair
```yaml
servers:
- hosts: [shop/shop.example.com]
```

## References
- Seen on a real mesh: `tests/lab/effects/GM507.yaml`.
- From Istio's code: `pilot/pkg/networking/core/gateway.go` (`buildGatewayHTTPRouteConfig`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter().filter(|(_, object)| !object.hosts.is_empty()) {
        for (namespace, name) in object.named_gateways() {
            let Some(gateway) = mesh.find_istio_gateway(namespace, name) else { continue };
            let lost: Vec<(usize, &Host)> =
                object.hosts.iter().enumerate().filter(|(_, host)| !serves(gateway, &object.object, host)).collect();
            if object.acts_in_mesh() && lost.len() < object.hosts.len() {
                continue;
            }
            let served = gateway.spec.servers.iter().flat_map(|server| server.hosts.iter());
            let served: Vec<&str> = served.map(String::as_str).take(8).collect();
            for (index, host) in lost {
                let finding = Finding::new(&RULE, &object.object, format!("spec.hosts[{index}]"))
                    .message(format!(
                        "no server of {} serves {} for {}",
                        gateway.object,
                        mesh.short_host(host),
                        object.object.namespace
                    ))
                    .impact("clients of the gateway that call this host get no route (UNIMPLEMENTED)")
                    .evidence([format!("its servers have {}", served.join(", "))])
                    .rests_on([&gateway.object.namespace])
                    .fix(format!("servers:\n- hosts: [{}/{host}]   # of {}", object.object.namespace, gateway.object));
                out.add(&RULE, finding);
            }
        }
    }
}

fn serves(gateway: &IstioGateway, object: &ObjectRef, host: &Host) -> bool {
    let mut hosts = gateway.spec.servers.iter().flat_map(|server| server.hosts.iter());
    hosts.any(|served| {
        let (reserved, served) = split_server_host(served, &gateway.object.namespace);
        reserved.is_none_or(|namespace| namespace == object.namespace.as_str())
            && overlap(host.as_str(), &served.to_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio};

    fn mesh(served: &str, hosts: &str, gateways: &str) -> String {
        istio(
            "Gateway",
            "gw",
            &format!(
                "{{selector: {{app: gw}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['{served}']}}]}}"
            ),
        ) + &istio(
            "VirtualService",
            "r",
            &format!("{{hosts: [{hosts}], gateways: [{gateways}], http: [{{route: [{{destination: {{host: a}}}}]}}]}}"),
        )
    }

    #[test]
    fn hosts_that_nobody_serves_are_told() {
        let place = "warning VirtualService shop/r spec.hosts[0]";
        check(&RULE, &mesh("b.example.com", "a.example.com", "gw"), &[place]);
        check(&RULE, &mesh("web/a.example.com", "a.example.com", "gw"), &[place]);
        check_gap(&RULE, &mesh("b.example.com", "a.example.com", "gw"));
    }

    #[test]
    fn served_hosts_and_hosts_of_the_mesh_are_silent() {
        check(&RULE, &mesh("*.example.com", "a.example.com", "gw"), &[]);
        check(&RULE, &mesh("./a.example.com", "a.example.com", "gw"), &[]);
        check(&RULE, &mesh("a.example.com", "a.example.com, checkout", "gw, mesh"), &[]);
    }
}
