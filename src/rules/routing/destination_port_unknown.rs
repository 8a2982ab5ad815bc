//! GM216: a destination port that the Service does not have.

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
    summary: "A destination port that the Service does not have",
    docs: "\
## What it looks for
A destination or mirror of a VirtualService, or a backend of an HTTPRoute or GRPCRoute, whose port the Service does not
have. Often it is the `targetPort` instead of the `port` of the Service.

## Why it matters for gRPC
istiod creates clusters only for the ports of a Service. The cluster for this port does not exist, so calls fail with
UNAVAILABLE, response flag `NC`.

## Example
```yaml
destination: {host: checkout, port: {number: 8080}}     # the Service has {port: 50051, targetPort: 8080}
```

## Fix
```yaml
destination: {host: checkout, port: {number: 50051}}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM216.yaml`.
- Istio source: `pilot/pkg/networking/core/route/route.go` (`GetDestinationCluster`). Verified against istiod's own
  output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        let own_namespace = &object.object.namespace;
        let mut check_destination = |destination: &Destination, field: String| {
            let Some(port) = destination.port.as_ref().map(|port| port.number).filter(|port| *port > 0) else { return };
            let host = host::to_fqdn(&destination.host, own_namespace, &mesh.cluster_domain);
            check_port(mesh, &object.object, format!("{field}.port.number"), &host, port, out);
        };
        for (index, rule) in object.spec.http.iter().enumerate() {
            let field = format!("spec.http[{index}]");
            for (position, route) in rule.route.iter().enumerate() {
                route.destination.iter().for_each(|destination| {
                    check_destination(destination, format!("{field}.route[{position}].destination"));
                });
            }
            rule.mirror.iter().for_each(|destination| check_destination(destination, format!("{field}.mirror")));
            for (position, mirror) in rule.mirrors.iter().enumerate() {
                mirror.destination.iter().for_each(|destination| {
                    check_destination(destination, format!("{field}.mirrors[{position}].destination"));
                });
            }
        }
    }
    for object in &mesh.route_objects {
        for (index, rule) in object.route.spec.rules.iter().enumerate() {
            for (position, host, port) in object.backend_hosts(rule, &mesh.cluster_domain) {
                let field = format!("spec.rules[{index}].backendRefs[{position}].port");
                if let Some(port) = port {
                    check_port(mesh, &object.object, field, &host, u32::from(port), out);
                }
            }
        }
    }
}

fn check_port(mesh: &Mesh<'_>, object: &ObjectRef, field: String, host: &Host, number: u32, out: &mut Findings<'_>) {
    let entries: Vec<_> = mesh.services_named(host.as_str()).iter().map(|id| mesh.service(*id)).collect();
    let ports: Vec<_> = entries.iter().flat_map(|entry| &entry.ports).collect();
    let Some(first) = ports.first() else { return };
    if ports.iter().any(|port| u32::from(port.number) == number) {
        return;
    }
    let with_target =
        ports.iter().find(|port| matches!(port.target, TargetPort::Number(target) if u32::from(target) == number));
    let suggested = with_target.unwrap_or(first).number;
    let listed: Vec<_> = ports.iter().map(|port| port.title()).collect();
    let is_mirror = field.contains(".mirror");
    let (severity, impact) = match (is_mirror, object.kind) {
        (true, _) => (Severity::Warning, "mirrored calls are lost; callers are not affected"),
        (false, Kind::VirtualService) => {
            (Severity::Error, "calls on this route fail with UNAVAILABLE (flag NC, cluster not found)")
        }
        (false, _) => (Severity::Error, "the backend's share of the calls gets HTTP 500: the client sees UNKNOWN"),
    };
    let fix = if object.kind == Kind::VirtualService {
        format!("host: {host}\nport: {{number: {suggested}}}")
    } else {
        format!("port: {suggested}")
    };
    let finding = Finding::new(&RULE, object, field)
        .severity(severity)
        .message(format!("{} does not have port {number}", mesh.short_host(host)))
        .impact(impact)
        .evidence([format!("ports of the Service: {}", listed.join(", "))])
        .evidence(with_target.map(|port| format!("{number} is the targetPort of port {}", port.title())))
        .depends_on(entries.iter().map(|entry| entry.namespace()))
        .fix(fix);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    fn mesh(port: u32) -> String {
        let rule =
            format!("{{hosts: [a], http: [{{route: [{{destination: {{host: a, port: {{number: {port}}}}}}}]}}]}}");
        service("a", "{name: grpc, port: 50051, targetPort: 8080}") + &istio("VirtualService", "r", &rule)
    }

    #[test]
    fn reports_a_target_port_used_as_a_service_port() {
        assert_findings(
            &RULE,
            &mesh(8080),
            &["error VirtualService shop/r spec.http[0].route[0].destination.port.number"],
        );
        assert!(findings(&RULE, &mesh(8080))[0].evidence[1].contains("targetPort of port"));
        assert_undecided_on_gap(&RULE, &mesh(8080));
    }

    #[test]
    fn reports_ports_of_mirrors_and_gateway_api_backends() {
        let mirror = mesh(50051).replace("http: [{", "http: [{mirror: {host: a, port: {number: 9}}, ");
        assert_findings(&RULE, &mirror, &["warning VirtualService shop/r spec.http[0].mirror.port.number"]);
        let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g}\n\
            spec: {parentRefs: [{group: '', kind: Service, name: a}], rules: [{backendRefs: [{name: a, port: 9}]}]}\n";
        assert_findings(&RULE, &(mesh(50051) + route), &["error GRPCRoute shop/g spec.rules[0].backendRefs[0].port"]);
    }

    #[test]
    fn is_silent_on_existing_ports_and_on_unknown_hosts() {
        assert_findings(&RULE, &mesh(50051), &[]);
        assert_findings(&RULE, &mesh(1).replace("{host: a,", "{host: b,"), &[]);
    }
}
