//! GM510: rules for a Service that only gateways get.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM510",
    name: "gateway-only-route",
    severity: Severity::Info,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "Rules for a Service's host that sidecars do not get: gateways are listed without mesh",
    docs: "\
## What it looks for
A VirtualService that lists `gateways` without `mesh` and names the host of a Service in the cluster.

## Why it matters for gRPC
Callers inside the mesh do not get these rules: they use Istio's default route, without the object's weights, timeouts
and retries.

## Example
```yaml
spec: {hosts: [shop.example.com, checkout], gateways: [istio-system/ingress], http: […]}
```

## Repair
```yaml
spec: {gateways: [istio-system/ingress, mesh]}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM510.yaml`.
- Istio: `networking/v1alpha3/virtual_service.proto` (`gateways`); pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        if object.acts_in_mesh() || object.gateways.is_empty() {
            continue;
        }
        for (index, host) in object.hosts.iter().enumerate() {
            let service = mesh.find_host(host.as_str()).map(|id| mesh.service(id));
            let Some(service) = service.filter(|service| service.is_kubernetes()) else { continue };
            let finding = Finding::new(&RULE, &object.object, format!("spec.hosts[{index}]"))
                .message(format!("callers in the mesh do not get these rules for {}", mesh.short_host(host)))
                .impact("they use Istio's default route, without this object's weights, timeouts and retries")
                .rests_on([service.namespace()])
                .fix("add `mesh` to spec.gateways, or leave it if only outside traffic is meant");
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(gateways: &str) -> String {
        let rule = format!(
            "{{hosts: [a.example.com, a], gateways: [{gateways}], http: [{{route: [{{destination: {{host: a}}}}]}}]}}"
        );
        service("a", "{name: grpc, port: 1}") + &istio("VirtualService", "r", &rule)
    }

    #[test]
    fn a_service_for_gateways_only_is_told() {
        check(&RULE, &mesh("gw"), &["info VirtualService shop/r spec.hosts[1]"]);
        check_gap(&RULE, &mesh("gw"));
    }

    #[test]
    fn with_the_mesh_it_is_silent() {
        check(&RULE, &mesh("gw, mesh"), &[]);
    }
}
