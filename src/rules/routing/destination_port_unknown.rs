//! GM216: a destination's port that its Service does not have.

use crate::mesh::Mesh;
use crate::mesh::host;
use crate::mesh::ids::{Host, ObjectRef};
use crate::mesh::service::TargetPort;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::virtual_service::Destination;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM216",
    name: "destination-port-unknown",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: None,
    summary: "A destination's port that its Service does not have",
    docs: "\
## What it looks for
A destination or mirror of a VirtualService, or a backend of an HTTPRoute or GRPCRoute, whose port is no port of the
Service: often the pod's port instead of the Service's.

## Why it matters for gRPC
Clusters are made of the Service's ports: this one does not exist, so calls fail with UNAVAILABLE, flag `NC`.

## Example
```yaml
destination: {host: checkout, port: {number: 8080}}     # the Service: {port: 50051, targetPort: 8080}
```

## Repair
```yaml
destination: {host: checkout, port: {number: 50051}}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM216.yaml`.
- From Istio's code: `pilot/pkg/networking/core/route/route.go` (`GetDestinationCluster`); pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        let own = &object.object.namespace;
        let mut judge = |destination: &Destination, field: String| {
            let Some(port) = destination.port.as_ref().map(|port| port.number).filter(|port| *port > 0) else { return };
            let host = host::resolve(&destination.host, own, &mesh.cluster_domain);
            judge(mesh, &object.object, format!("{field}.port.number"), &host, port, out);
        };
        for (index, rule) in object.spec.http.iter().enumerate() {
            let field = format!("spec.http[{index}]");
            for (at, route) in rule.route.iter().enumerate() {
                route.destination.iter().for_each(|to| judge(to, format!("{field}.route[{at}].destination")));
            }
            rule.mirror.iter().for_each(|to| judge(to, format!("{field}.mirror")));
            for (at, mirror) in rule.mirrors.iter().enumerate() {
                mirror.destination.iter().for_each(|to| judge(to, format!("{field}.mirrors[{at}].destination")));
            }
        }
    }
    for object in &mesh.route_objects {
        for (index, rule) in object.route.spec.rules.iter().enumerate() {
            for (at, host, port) in object.targets(rule, &mesh.cluster_domain) {
                let field = format!("spec.rules[{index}].backendRefs[{at}].port");
                if let Some(port) = port {
                    judge(mesh, &object.object, field, &host, u32::from(port), out);
                }
            }
        }
    }
}

fn judge(mesh: &Mesh<'_>, object: &ObjectRef, field: String, host: &Host, wanted: u32, out: &mut Findings<'_>) {
    let entries: Vec<_> = mesh.services_named(host.as_str()).iter().map(|id| mesh.service(*id)).collect();
    let ports: Vec<_> = entries.iter().flat_map(|entry| &entry.ports).collect();
    if ports.is_empty() || ports.iter().any(|port| u32::from(port.number) == wanted) {
        return;
    }
    let of_pods =
        ports.iter().find(|port| matches!(port.target, TargetPort::Number(number) if u32::from(number) == wanted));
    let right = of_pods.unwrap_or(&ports[0]).number;
    let listed: Vec<_> = ports.iter().map(|port| port.title()).collect();
    let is_mirror = field.contains(".mirror");
    let (severity, effect) = match (is_mirror, object.kind) {
        (true, _) => (Severity::Warning, "the copies are lost; callers see nothing of it"),
        (false, Kind::VirtualService) => {
            (Severity::Error, "calls that take this route fail with UNAVAILABLE (flag NC, no such cluster)")
        }
        (false, _) => (Severity::Error, "its share of the calls is answered with HTTP 500: UNKNOWN to the client"),
    };
    let fix = if object.kind == Kind::VirtualService {
        format!("host: {host}\nport: {{number: {right}}}")
    } else {
        format!("port: {right}")
    };
    let finding = Finding::new(&RULE, object, field)
        .severity(severity)
        .message(format!("{} has no port {wanted}", mesh.short_host(host)))
        .impact(effect)
        .evidence([format!("its ports: {}", listed.join(", "))])
        .evidence(of_pods.map(|port| format!("{wanted} is the pods' port behind {}", port.title())))
        .rests_on(entries.iter().map(|entry| entry.namespace()))
        .fix(fix);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, service};

    fn mesh(port: u32) -> String {
        let rule =
            format!("{{hosts: [a], http: [{{route: [{{destination: {{host: a, port: {{number: {port}}}}}}}]}}]}}");
        service("a", "{name: grpc, port: 50051, targetPort: 8080}") + &istio("VirtualService", "r", &rule)
    }

    #[test]
    fn the_port_of_the_pods_is_told() {
        check(&RULE, &mesh(8080), &["error VirtualService shop/r spec.http[0].route[0].destination.port.number"]);
        assert!(findings(&RULE, &mesh(8080))[0].evidence[1].contains("pods' port"));
        check_gap(&RULE, &mesh(8080));
    }

    #[test]
    fn mirrors_and_backends_of_gateway_api_count_too() {
        let mirror = mesh(50051).replace("http: [{", "http: [{mirror: {host: a, port: {number: 9}}, ");
        check(&RULE, &mirror, &["warning VirtualService shop/r spec.http[0].mirror.port.number"]);
        let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g}\n\
            spec: {parentRefs: [{group: '', kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 9}]}]}\n";
        check(&RULE, &(mesh(50051) + route), &["error GRPCRoute shop/g spec.rules[0].backendRefs[0].port"]);
    }

    #[test]
    fn ports_of_the_service_and_unknown_hosts_are_silent() {
        check(&RULE, &mesh(50051), &[]);
        check(&RULE, &mesh(1).replace("{host: a,", "{host: b,"), &[]);
    }
}
