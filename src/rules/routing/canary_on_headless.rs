//! GM220: weights or subsets for a headless Service, where the client selects the pod.

use crate::mesh::Mesh;
use crate::mesh::service::Resolution;
use crate::mesh::written_route::{WrittenAction, WrittenBackend};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM220",
    name: "canary-on-headless",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "Weights or subsets for a headless Service, where the client selects the pod",
    docs: "\
## What it looks for
A rule of a mesh VirtualService that routes to a subset of a headless Service, or that splits calls between several
destinations of which one is headless.

## Why it matters for gRPC
A client of a headless Service resolves pod addresses and dials one of them. The cluster of a headless Service uses the
dialed address, whatever subset or weight the route selects. The canary gets the calls of the clients that dial its
pods, and no others.

## Example
```yaml
kind: Service
spec: {clusterIP: None, …}
---
kind: VirtualService
spec: {hosts: [checkout], http: [{route: [{destination: {host: checkout, subset: v1}, weight: 90}, …]}]}
```

## Fix
Add a second Service with a cluster IP for the same pods. Call that Service, and route it instead:
```yaml
kind: Service
metadata: {name: checkout-balanced}
spec: {selector: {app: checkout}, ports: [{name: grpc, port: 50051}]}
```

## References
- Istio source: `pilot/pkg/networking/core/cluster.go` (ORIGINAL_DST of headless Services).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter().filter(|(_, object)| object.acts_in_mesh()) {
        for rule in mesh.virtual_service_rules(object) {
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let is_split = targets.iter().filter(|target| target.weight.unwrap_or(0) > 0).count() > 1;
            let is_affected = |target: &&WrittenBackend| {
                let service = mesh.find_host(target.host.as_str()).map(|id| mesh.service(id));
                let is_headless = service
                    .is_some_and(|service| service.resolution == Resolution::Headless && service.has_grpc_evidence());
                is_headless && (is_split || target.subset.is_some())
            };
            let Some(target) = targets.iter().find(is_affected) else { continue };
            let setting = if is_split { "weights" } else { "subsets" };
            let namespace = mesh.namespace_of_host(&target.host);
            let finding = Finding::new(&RULE, &object.object, format!("{}.destination", target.field))
                .message(format!(
                    "the rule sets {setting} for {}, which is a headless Service",
                    mesh.short_host(&target.host)
                ))
                .impact(format!("each call goes to the pod that the client dialed: the {setting} have no effect"))
                .depends_on(namespace.as_ref())
                .fix("add a second Service without `clusterIP: None` for the same pods, and use it in calls and route rules");
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(ip: &str, route: &str) -> String {
        service("a", "{name: grpc, port: 1}").replace("10.96.0.9", ip)
            + &istio("VirtualService", "r", &format!("{{hosts: [a], http: [{{route: [{route}]}}]}}"))
    }

    const SPLIT: &str =
        "{destination: {host: a, subset: v1}, weight: 90}, {destination: {host: a, subset: v2}, weight: 10}";

    #[test]
    fn reports_weights_and_subsets_on_headless_services() {
        let expected = "error VirtualService shop/r spec.http[0].route[0].destination";
        assert_findings(&RULE, &mesh("None", SPLIT), &[expected]);
        assert_findings(&RULE, &mesh("None", "{destination: {host: a, subset: v1}}"), &[expected]);
        assert_undecided_on_gap(&RULE, &mesh("None", SPLIT));
    }

    #[test]
    fn is_silent_on_cluster_ips_and_on_routes_without_subsets() {
        assert_findings(&RULE, &mesh("10.96.0.9", SPLIT), &[]);
        assert_findings(&RULE, &mesh("None", "{destination: {host: a}}"), &[]);
    }
}
