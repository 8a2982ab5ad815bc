//! GM202: a mesh VirtualService for a host that no Service or ServiceEntry has.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM202",
    name: "route-host-unknown",
    severity: Severity::Warning,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: None,
    summary: "A mesh VirtualService for a host that no Service or ServiceEntry has",
    docs: "\
## What it looks for
A VirtualService for sidecars (with gateway `mesh`, or without gateways) whose `hosts` list a name that is neither a
Service nor a host of a ServiceEntry. Objects that also apply to a gateway are not reported, because external hosts are
usual there.

## Why it matters for gRPC
Sidecars get a virtual host for the name on port 80 only. On every other port the rules do not exist: calls use Istio's
default route, or leave the mesh without routing. Istio reads `checkout.shop` as a full name, not as the Service
`checkout` in namespace `shop`.

## Example
```yaml
kind: VirtualService
spec: {hosts: [checkout.shop], http: […]}      # the full name \"checkout.shop\", not the Service
```

## Fix
```yaml
spec: {hosts: [checkout.shop.svc.cluster.local]}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM202.yaml`.
- Istio source: `pilot/pkg/networking/core/httproute.go` (`buildSidecarOutboundVirtualHosts`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        if !object.acts_in_mesh() || object.named_gateways().next().is_some() || object.spec.http.is_empty() {
            continue;
        }
        for (index, host) in object.hosts.iter().enumerate() {
            if mesh.has_host(host.as_str()) {
                continue;
            }
            if !mesh.is_host_absent(host) {
                out.add_undecided(&RULE);
                continue;
            }
            let mut parts = host.as_str().split('.');
            let intended =
                parts.next().zip(parts.next()).and_then(|(name, namespace)| mesh.find_service(namespace, name));
            let (evidence, fix) = match intended.map(|id| mesh.service(id)) {
                Some(service) => (
                    Some(format!(
                        "Istio reads a host with a dot as a full name; the host of the Service is {}",
                        service.host
                    )),
                    format!("hosts:\n- {}", service.host),
                ),
                None => {
                    let short = mesh.short_host(host);
                    let (name, namespace) = short.split_once('.').unwrap_or((short, ""));
                    let similar = mesh.name_index.nearest_names(namespace, name);
                    let evidence =
                        (!similar.is_empty()).then(|| format!("Services with a similar name: {}", similar.join(", ")));
                    (evidence, "use the host of a Service, or add a ServiceEntry for this host".to_owned())
                }
            };
            let namespace = mesh.namespace_of_host(host);
            let finding = Finding::new(&RULE, &object.object, format!("spec.hosts[{index}]"))
                .message(format!("no Service or ServiceEntry has the host \"{host}\""))
                .impact("the rules apply to this host on port 80 only; calls on other ports use Istio's default route")
                .evidence(evidence)
                .depends_on(namespace.as_ref())
                .fix(fix);
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    fn mesh(host: &str) -> String {
        let spec = format!("{{hosts: [{host}], http: [{{route: [{{destination: {{host: a}}}}]}}]}}");
        service("a", "{name: grpc, port: 1}") + &istio("VirtualService", "r", &spec)
    }

    #[test]
    fn reports_short_names_with_a_dot_and_misspelled_names() {
        assert_findings(&RULE, &mesh("a.shop"), &["warning VirtualService shop/r spec.hosts[0]"]);
        assert!(findings(&RULE, &mesh("a.shop"))[0].fix.contains("a.shop.svc.cluster.local"));
        assert_findings(&RULE, &mesh("b"), &["warning VirtualService shop/r spec.hosts[0]"]);
        assert_undecided_on_gap(&RULE, &mesh("b"));
    }

    #[test]
    fn is_silent_on_existing_hosts_and_on_hosts_of_gateways() {
        assert_findings(&RULE, &mesh("a"), &[]);
        assert_findings(&RULE, &mesh("'*.shop.svc.cluster.local'"), &[]);
        assert_findings(&RULE, &mesh("b").replace("hosts:", "gateways: [gw, mesh], hosts:"), &[]);
    }
}
