//! GM606: `portLevelMtls` with the port of a Service where the port of the pods is meant.

use std::collections::BTreeSet;

use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;
use crate::mesh::security::PeerAuthentication;
use crate::mesh::service::{Service, ServicePort};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM606",
    name: "port-level-mtls-wrong-port",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "portLevelMtls names the port of a Service instead of the port of the pods",
    docs: "\
## What it looks for
A `portLevelMtls` entry of a PeerAuthentication whose number is the port of a Service of the selected pods, while the
pods receive its calls at another port, and no Service uses that number as target port.

## Why it matters for gRPC
The keys of `portLevelMtls` are ports of the pods. An entry with the port of a Service has no effect: the mode of the
whole workload applies. A port that should accept plaintext stays strict, and callers without a proxy fail with
UNAVAILABLE; a port that should be strict accepts plaintext.

## Example
```yaml
kind: Service
spec: {ports: [{name: grpc, port: 80, targetPort: 50051}]}
---
kind: PeerAuthentication
spec:
  mtls: {mode: STRICT}
  portLevelMtls: {80: {mode: PERMISSIVE}}       # the pods listen on 50051
```

## Fix
```yaml
portLevelMtls: {50051: {mode: PERMISSIVE}}
```

## References
- Istio source: `ComposePeerAuthentication` in `pilot/pkg/security/authn/policy_applier.go`.
- API: `PeerAuthentication.portLevelMtls`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut reported: BTreeSet<(&ObjectRef, u16)> = BTreeSet::new();
    for policy in mesh.security_policies.peer_authentications().filter(|policy| !policy.ports.is_empty()) {
        let Some(selector) = &policy.selector else { continue };
        let namespace = &policy.object.namespace;
        let services = mesh.services.iter().filter(|service| service.namespace() == namespace);
        let services: Vec<&Service> = services
            .filter(|service| mesh.workloads_of(service).any(|workload| workload.labels.contains_all(selector)))
            .collect();
        let is_pod_port = |number: u16| {
            let targets = services.iter().flat_map(|service| {
                mesh.workloads_of(service)
                    .flat_map(|workload| service.ports.iter().map(move |port| port.target.number_in(workload)))
            });
            let declared = services.iter().flat_map(|service| mesh.workloads_of(service));
            let mut declared = declared.flat_map(|workload| &workload.ports).map(|port| port.number);
            targets.flatten().any(|target| target == number) || declared.any(|port| port == number)
        };
        for number in policy.ports.keys().copied().filter(|number| !is_pod_port(*number)) {
            let named = services.iter().find_map(|service| Some((*service, service.port(number)?)));
            if let Some((service, port)) = named
                && reported.insert((&policy.object, number))
            {
                report(mesh, policy, number, service, port, out);
            }
        }
    }
}

fn report(
    mesh: &Mesh<'_>,
    policy: &PeerAuthentication,
    number: u16,
    service: &Service,
    port: &ServicePort,
    out: &mut Findings<'_>,
) {
    let Some(target) = mesh.workloads_of(service).find_map(|workload| port.target.number_in(workload)) else { return };
    let Some(mode) = policy.ports.get(&number) else { return };
    let finding = Finding::new(&RULE, &policy.object, format!("spec.portLevelMtls.{number}"))
        .message(format!(
            "{number} is the port of {}, and its pods receive the calls at {target}: the entry has no effect",
            service.object
        ))
        .impact(format!(
            "port {target} keeps the mode of the workload instead of \"{mode}\": calls with the other kind of \
             connection fail with UNAVAILABLE, or plaintext is accepted"
        ))
        .evidence([format!("{} port {}: target port {target}", service.object, port.title())])
        .fix(format!("portLevelMtls:\n  {target}: {{mode: {}}}", mode.as_str()));
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, pod, policy, service};

    fn mesh(port: &str, entry: u16) -> String {
        let spec = format!("{{selector: {{matchLabels: {{app: a}}}}, portLevelMtls: {{{entry}: {{mode: DISABLE}}}}}}");
        service("a", port) + &pod("a", "v1") + &policy("PeerAuthentication", "p", &spec)
    }

    #[test]
    fn reports_the_port_of_a_service() {
        let port = "{name: grpc, port: 80, targetPort: 50051}";
        let expected = "error PeerAuthentication shop/p spec.portLevelMtls.80";
        assert_findings(&RULE, &mesh(port, 80), &[expected]);
        assert_undecided_on_gap(&RULE, &mesh(port, 80));
        assert_findings(&RULE, &mesh("{name: grpc, port: 80, targetPort: api}", 80), &[expected]);
    }

    #[test]
    fn is_silent_on_ports_of_the_pods() {
        assert_findings(&RULE, &mesh("{name: grpc, port: 80, targetPort: 50051}", 50051), &[]);
        assert_findings(&RULE, &mesh("{name: grpc, port: 80}", 80), &[]);
        // A port that no Service has may be one for metrics.
        assert_findings(&RULE, &mesh("{name: grpc, port: 80, targetPort: 50051}", 9090), &[]);
    }
}
