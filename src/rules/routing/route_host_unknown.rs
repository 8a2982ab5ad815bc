//! GM202: rules of the mesh for a host that nobody knows.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM202",
    name: "route-host-unknown",
    severity: Severity::Warning,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: None,
    summary: "Rules of the mesh for a host that no Service or ServiceEntry has",
    docs: "\
## What it looks for
A VirtualService for sidecars (with `mesh`, or without `gateways`) whose `hosts` name something that is neither a Service
nor a host of a ServiceEntry. Objects that also act on a gateway are left alone: there a host of the outside is usual.

## Why it matters for gRPC
Sidecars get a virtual host for it on port 80 only. On every other port, so on those of gRPC, the rules are nowhere:
calls go by Istio's default route, or out of the mesh as they are. A host such as `checkout.shop` is taken as a full
name, not as the Service `checkout` in `shop`.

## Example
```yaml
kind: VirtualService
spec: {hosts: [checkout.shop], http: […]}      # means the host \"checkout.shop\", not the Service
```

## Repair
```yaml
spec: {hosts: [checkout.shop.svc.cluster.local]}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM202.yaml`.
- From Istio's code: `pilot/pkg/networking/core/httproute.go` (`buildSidecarOutboundVirtualHosts`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        if !object.acts_in_mesh() || object.named_gateways().next().is_some() || object.spec.http.is_empty() {
            continue;
        }
        for (index, host) in object.hosts.iter().enumerate() {
            if mesh.knows_host(host.as_str()) {
                continue;
            }
            if !mesh.is_absent(host) {
                out.undecided(&RULE);
                continue;
            }
            let mut parts = host.as_str().split('.');
            let meant = parts.next().zip(parts.next()).and_then(|(name, namespace)| mesh.find_service(namespace, name));
            let (evidence, fix) = match meant.map(|id| mesh.service(id)) {
                Some(service) => (
                    Some(format!("a host with a dot is taken as a full name; the Service is {}", service.host)),
                    format!("hosts:\n- {}", service.host),
                ),
                None => {
                    let short = mesh.short_host(host);
                    let (name, namespace) = short.split_once('.').unwrap_or((short, ""));
                    let near = mesh.directory.similar(namespace, name);
                    let near = (!near.is_empty()).then(|| format!("near names: {}", near.join(", ")));
                    (near, "name a Service, or describe the host with a ServiceEntry".to_owned())
                }
            };
            let namespace = mesh.namespace_of_host(host);
            let finding = Finding::new(&RULE, &object.object, format!("spec.hosts[{index}]"))
                .message(format!("no Service or ServiceEntry has the host \"{host}\""))
                .impact("the rules act for this name on port 80 only; on ports of gRPC they do nothing")
                .evidence(evidence)
                .rests_on(namespace.as_ref())
                .fix(fix);
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, service};

    fn mesh(host: &str) -> String {
        let spec = format!("{{hosts: [{host}], http: [{{route: [{{destination: {{host: a}}}}]}}]}}");
        service("a", "{name: grpc, port: 1}") + &istio("VirtualService", "r", &spec)
    }

    #[test]
    fn names_with_a_dot_and_wrong_names_are_told() {
        check(&RULE, &mesh("a.shop"), &["warning VirtualService shop/r spec.hosts[0]"]);
        assert!(findings(&RULE, &mesh("a.shop"))[0].fix.contains("a.shop.svc.cluster.local"));
        check(&RULE, &mesh("b"), &["warning VirtualService shop/r spec.hosts[0]"]);
        check_gap(&RULE, &mesh("b"));
    }

    #[test]
    fn known_hosts_and_hosts_of_gateways_are_silent() {
        check(&RULE, &mesh("a"), &[]);
        check(&RULE, &mesh("'*.shop.svc.cluster.local'"), &[]);
        check(&RULE, &mesh("b").replace("hosts:", "gateways: [gw, mesh], hosts:"), &[]);
    }
}
