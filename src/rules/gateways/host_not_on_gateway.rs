//! GM507: a host of a VirtualService that its Gateway does not serve.

use crate::mesh::Mesh;
use crate::mesh::gateway::{IstioGateway, hosts_overlap, split_server_host};
use crate::mesh::ids::{Host, ObjectRef};
use crate::mesh::virtual_service::VirtualService;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM507",
    name: "host-not-on-gateway",
    severity: Severity::Warning,
    needs: &[Kind::IstioGateway],
    istio_code: Some("IST0132"),
    summary: "A VirtualService host that no server of its Gateway serves",
    docs: "\
## What it looks for
A VirtualService bound to a Gateway that has no server for one of its hosts: the server lists another name, or
restricts the host to another namespace (`ns/host`). If the VirtualService also applies in the mesh, some of its hosts
may be for the mesh only, and it is reported only if the Gateway serves none of them.

## Why it matters for gRPC
The gateway has no route for the host. It answers with 404 (flag `NR`), which gRPC clients report as UNIMPLEMENTED.

## Example
```yaml
kind: Gateway
spec: {servers: [{hosts: [istio-system/shop.example.com], …}]}
---
kind: VirtualService
metadata: {namespace: shop}
spec: {hosts: [shop.example.com], gateways: [istio-system/ingress]}
```

## Fix
```yaml
servers:
- hosts: [shop/shop.example.com]
```

## References
- Verified on a real mesh: `tests/lab/effects/GM507.yaml`.
- Istio source: `pilot/pkg/networking/core/gateway.go` (`buildGatewayHTTPRouteConfig`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter().filter(|(_, object)| !object.hosts.is_empty()) {
        for (namespace, name) in object.named_gateways() {
            let Some(gateway) = mesh.find_istio_gateway(namespace, name) else { continue };
            let unserved: Vec<(usize, &Host)> =
                object.hosts.iter().enumerate().filter(|(_, host)| !serves(gateway, &object.object, host)).collect();
            if object.acts_in_mesh() && unserved.len() < object.hosts.len() {
                continue;
            }
            let served = gateway.spec.servers.iter().flat_map(|server| server.hosts.iter());
            let served: Vec<&str> = served.map(String::as_str).take(8).collect();
            for (index, host) in unserved {
                let finding = Finding::new(&RULE, &object.object, format!("spec.hosts[{index}]"))
                    .message(format!(
                        "{} does not serve host {} of {}",
                        gateway.object,
                        mesh.short_host(host),
                        object.object
                    ))
                    .impact("calls to this host through the gateway get UNIMPLEMENTED (404, flag NR)")
                    .evidence([format!("hosts of its servers: {}", served.join(", "))])
                    .depends_on([&gateway.object.namespace])
                    .fix(fix(gateway, object, host));
                out.add(&RULE, finding);
            }
        }
    }
}

/// The hosts of the first server with this one added: other clients keep theirs.
fn fix(gateway: &IstioGateway, object: &VirtualService, host: &Host) -> String {
    let existing = gateway.spec.servers.first().into_iter().flat_map(|server| server.hosts.iter().cloned());
    let added = format!("{}/{host}", object.object.namespace);
    let hosts: Vec<String> = existing.chain([added]).map(|host| format!("\"{host}\"")).collect();
    format!("# {}\nservers:\n- hosts: [{}]", gateway.object, hosts.join(", "))
}

fn serves(gateway: &IstioGateway, object: &ObjectRef, host: &Host) -> bool {
    let mut hosts = gateway.spec.servers.iter().flat_map(|server| server.hosts.iter());
    hosts.any(|served| {
        let (reserved, served) = split_server_host(served, &gateway.object.namespace);
        reserved.is_none_or(|namespace| namespace == object.namespace.as_str())
            && hosts_overlap(host.as_str(), &served.to_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio};

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
    fn reports_hosts_that_no_server_serves() {
        let finding = "warning VirtualService shop/r spec.hosts[0]";
        assert_findings(&RULE, &mesh("b.example.com", "a.example.com", "gw"), &[finding]);
        assert_findings(&RULE, &mesh("web/a.example.com", "a.example.com", "gw"), &[finding]);
        assert_undecided_on_gap(&RULE, &mesh("b.example.com", "a.example.com", "gw"));
    }

    #[test]
    fn accepts_served_hosts_and_mesh_hosts() {
        assert_findings(&RULE, &mesh("*.example.com", "a.example.com", "gw"), &[]);
        assert_findings(&RULE, &mesh("./a.example.com", "a.example.com", "gw"), &[]);
        assert_findings(&RULE, &mesh("a.example.com", "a.example.com, checkout", "gw, mesh"), &[]);
    }
}
