//! GM510: route rules for a Service that only gateways apply.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM510",
    name: "gateway-only-route",
    severity: Severity::Info,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "Route rules for a Service that sidecars do not apply, because gateways omits mesh",
    docs: "\
## What it looks for
A VirtualService that lists `gateways` without `mesh` and names the host of a Kubernetes Service.

## Why it matters for gRPC
Callers inside the mesh do not get these rules. They use Istio's default route, without the weights, timeouts and
retries of the VirtualService.

## Example
```yaml
spec: {hosts: [shop.example.com, checkout], gateways: [istio-system/ingress], http: […]}
```

## Fix
```yaml
spec: {gateways: [istio-system/ingress, mesh]}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM510.yaml`.
- Istio: `networking/v1alpha3/virtual_service.proto` (`gateways`). Verified against istiod's own output.
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
                .message(format!(
                    "{} does not apply to calls to {} from inside the mesh",
                    object.object,
                    mesh.short_host(host)
                ))
                .impact(
                    "callers in the mesh use Istio's default route, without the weights, timeouts \
                         and retries of this object",
                )
                .depends_on([service.namespace()])
                .fix("add mesh to spec.gateways, unless the rules are for external traffic only");
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(gateways: &str) -> String {
        let rule = format!(
            "{{hosts: [a.example.com, a], gateways: [{gateways}], http: [{{route: [{{destination: {{host: a}}}}]}}]}}"
        );
        service("a", "{name: grpc, port: 1}") + &istio("VirtualService", "r", &rule)
    }

    #[test]
    fn reports_a_service_host_without_the_mesh_gateway() {
        assert_findings(&RULE, &mesh("gw"), &["info VirtualService shop/r spec.hosts[1]"]);
        assert_undecided_on_gap(&RULE, &mesh("gw"));
    }

    #[test]
    fn accepts_the_mesh_gateway() {
        assert_findings(&RULE, &mesh("gw, mesh"), &[]);
    }
}
