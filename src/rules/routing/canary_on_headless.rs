//! GM220: weights or subsets for a headless Service.

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
    summary: "Weights or subsets for a headless Service: the pod that was dialled is used",
    docs: "\
## What it looks for
A mesh VirtualService whose rule sends to a headless Service by subset, or shares calls between several destinations of
which one is headless.

## Why it matters for gRPC
A client of a headless Service resolves pods by itself and dials one. The cluster of a headless Service keeps to the
address that was dialled, whatever subset or share the route picked: the canary gets the calls of those who dialled its
pods, and no others.

## Example
```yaml
kind: Service
spec: {clusterIP: None, …}
---
kind: VirtualService
spec: {hosts: [checkout], http: [{route: [{destination: {host: checkout, subset: v1}, weight: 90}, …]}]}
```

## Repair
Add a Service of another name with a cluster IP for the same pods, call that, and route that.

## References
- From Istio's code: `pilot/pkg/networking/core/cluster.go` (ORIGINAL_DST of headless Services).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter().filter(|(_, object)| object.acts_in_mesh()) {
        for rule in mesh.virtual_service_rules(object) {
            let WrittenAction::Forward(targets) = &rule.action else { continue };
            let shared = targets.iter().filter(|target| target.weight.unwrap_or(0) > 0).count() > 1;
            let relies = |target: &&WrittenBackend| {
                let service = mesh.find_host(target.host.as_str()).map(|id| mesh.service(id));
                let headless =
                    service.is_some_and(|service| service.resolution == Resolution::Headless && service.has_grpc());
                headless && (shared || target.subset.is_some())
            };
            let Some(target) = targets.iter().find(relies) else { continue };
            let what = if shared { "weights" } else { "subsets" };
            let namespace = mesh.namespace_of_host(&target.host);
            let finding = Finding::new(&RULE, &object.object, format!("{}.destination", target.field))
                .message(format!("{what} for {}, which is headless", mesh.short_host(&target.host)))
                .impact("the pod that the client dialled is used: the rule does not choose who answers")
                .rests_on(namespace.as_ref())
                .fix("add a Service of another name without `clusterIP: None` for the same pods, call and route that");
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, service};

    fn mesh(ip: &str, route: &str) -> String {
        service("a", "{name: grpc, port: 1}").replace("10.96.0.9", ip)
            + &istio("VirtualService", "r", &format!("{{hosts: [a], http: [{{route: [{route}]}}]}}"))
    }

    const SPLIT: &str =
        "{destination: {host: a, subset: v1}, weight: 90}, {destination: {host: a, subset: v2}, weight: 10}";

    #[test]
    fn weights_and_subsets_on_headless_services_are_errors() {
        let place = "error VirtualService shop/r spec.http[0].route[0].destination";
        check(&RULE, &mesh("None", SPLIT), &[place]);
        check(&RULE, &mesh("None", "{destination: {host: a, subset: v1}}"), &[place]);
        check_gap(&RULE, &mesh("None", SPLIT));
    }

    #[test]
    fn other_services_and_plain_routes_are_silent() {
        check(&RULE, &mesh("10.96.0.9", SPLIT), &[]);
        check(&RULE, &mesh("None", "{destination: {host: a}}"), &[]);
    }
}
