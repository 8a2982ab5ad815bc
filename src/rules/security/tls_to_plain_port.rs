//! GM609: a DestinationRule starts TLS with a port whose server speaks plaintext.

use std::collections::BTreeSet;

use crate::mesh::Mesh;
use crate::mesh::hop::{ServerSide, WrittenTls};
use crate::mesh::hop_problems::port_backend;
use crate::mesh::ids::ObjectRef;
use crate::mesh::service::{Resolution, Service, ServicePort};
use crate::mesh::xds::Caller;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::ClientTls;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM609",
    name: "tls-to-plain-port",
    severity: Severity::Error,
    needs: &[Kind::DestinationRule],
    istio_code: None,
    summary: "A DestinationRule starts TLS with a port whose server speaks plaintext",
    docs: "\
## What it looks for
`SIMPLE` or `MUTUAL` TLS in a DestinationRule for port 80 of a ServiceEntry without another `targetPort`, and for a pod
port with a gRPC probe in a pod without a proxy: such probes are in plaintext.

## Why it matters for gRPC
The caller's proxy starts a TLS handshake, and the server answers in plaintext. The handshake fails with
WRONG_VERSION_NUMBER, and calls end with UNAVAILABLE, flag UF.

## Example
```yaml
kind: ServiceEntry
spec:
  hosts: [api.example.com]
  ports: [{number: 80, name: http2, protocol: HTTP2}]      # TLS goes to port 80
```

## Fix
Let callers dial port 80 and the proxy connect to port 443:
```yaml
ports: [{number: 80, name: http2, protocol: HTTP2, targetPort: 443}]
```
For pods that speak plaintext, remove `tls` from the DestinationRule.

## References
- Istio: TLS origination, `ServiceEntry.ports[].targetPort`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let originates = |tls: &ClientTls| matches!(tls.mode.as_deref(), Some("SIMPLE" | "MUTUAL"));
    if !mesh.destination_rules.with_converted().any(|rule| rule.spec.tls_settings().any(originates)) {
        return;
    }
    let mut reported: BTreeSet<(ObjectRef, ObjectRef, u16)> = BTreeSet::new();
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        for port in &service.ports {
            let Some(PlaintextPort { evidence, fix }) = plaintext_port(mesh, service, port) else { continue };
            for class in mesh.caller_classes(id) {
                let Some(written) = originated_tls(mesh, &class.sample, service, port) else { continue };
                if !reported.insert((written.object.clone(), service.object.clone(), port.number)) {
                    continue;
                }
                let finding = Finding::new(&RULE, &written.object, written.mode_field())
                    .message(format!(
                        "callers start TLS with {} port {}, whose server speaks plaintext",
                        service.host, port.number
                    ))
                    .impact("the handshake fails (WRONG_VERSION_NUMBER): calls end with UNAVAILABLE, flag UF")
                    .callers(&class.namespaces)
                    .evidence([evidence.clone()])
                    .fix(fix.clone().unwrap_or_else(|| written.removal().to_owned()))
                    .depends_on([service.namespace()]);
                out.add(&RULE, finding);
            }
        }
    }
}

/// A port whose servers speak plaintext.
struct PlaintextPort {
    evidence: String,
    /// `None`: nothing but the TLS settings can change.
    fix: Option<String>,
}

fn plaintext_port(mesh: &Mesh<'_>, service: &Service, port: &ServicePort) -> Option<PlaintextPort> {
    let number = port.number;
    if matches!(service.resolution, Resolution::ServiceEntry(_)) {
        let is_plain = mesh.is_plaintext_entry_port(service, number);
        let evidence = format!("{} port {number} is {} without a targetPort", service.object, port.protocol);
        let fix = Some(format!("ports:\n- number: {number}\n  targetPort: 443"));
        return is_plain.then_some(PlaintextPort { evidence, fix });
    }
    let mut plain = service.workloads.iter().filter_map(|id| {
        let workload = mesh.workload(*id);
        let target = port.target.number_in(workload)?;
        (mesh.server_side(*id, target) == ServerSide::Application { is_plaintext: true }).then_some(workload)
    });
    let workload = plain.next()?;
    let evidence = format!("{} has a gRPC probe, which is in plaintext, and no proxy", workload.object);
    Some(PlaintextPort { evidence, fix: None })
}

/// The TLS without the mesh's identity that a caller starts.
fn originated_tls(mesh: &Mesh<'_>, caller: &Caller, service: &Service, port: &ServicePort) -> Option<WrittenTls> {
    let backend = port_backend(mesh, caller, service, port.number);
    let written = mesh.written_tls(caller, &backend)?;
    written.originates().then_some(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio};

    fn mesh(port: &str) -> String {
        istio("ServiceEntry", "api", &format!("{{hosts: [api.example.com], resolution: DNS, ports: [{port}]}}"))
            + &istio("DestinationRule", "api", "{host: api.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}")
    }

    #[test]
    fn reports_tls_to_port_80() {
        let yaml = mesh("{number: 80, name: http2, protocol: HTTP2}");
        assert_findings(&RULE, &yaml, &["error DestinationRule shop/api spec.trafficPolicy.tls.mode"]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn reports_pods_with_a_grpc_probe() {
        let yaml = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n\
                    spec: {selector: {app: a}, clusterIP: 10.96.0.9, ports: [{name: grpc, port: 50051}]}\n\
                    ---\napiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: a}}\n\
                    spec: {containers: [{name: app, image: i, readinessProbe: {grpc: {port: 50051}}}]}\n\
                    status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}\n";
        let rule = istio("DestinationRule", "a", "{host: a, trafficPolicy: {tls: {mode: SIMPLE}}}");
        let expected = "error DestinationRule shop/a spec.trafficPolicy.tls.mode";
        assert_findings(&RULE, &(yaml.to_owned() + &rule), &[expected]);
        // Without a probe, the server may speak TLS.
        let without = yaml.replace(", readinessProbe: {grpc: {port: 50051}}", "");
        assert_findings(&RULE, &(without + &rule), &[]);
    }

    #[test]
    fn is_silent_with_a_target_port_for_tls() {
        assert_findings(&RULE, &mesh("{number: 80, name: http2, protocol: HTTP2, targetPort: 443}"), &[]);
        assert_findings(&RULE, &mesh("{number: 443, name: grpc, protocol: GRPC}"), &[]);
    }
}
