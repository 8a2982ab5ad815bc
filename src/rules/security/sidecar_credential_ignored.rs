//! GM607: `credentialName` in a DestinationRule that sidecars get without a `workloadSelector`.

use std::collections::BTreeSet;

use crate::mesh::Mesh;
use crate::mesh::hop::WrittenTls;
use crate::mesh::hop_problems::port_backend;
use crate::mesh::ids::{Namespace, ObjectRef};
use crate::mesh::xds::{Caller, CallerKind};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::ClientTls;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM607",
    name: "sidecar-credential-ignored",
    severity: Severity::Error,
    needs: &[Kind::DestinationRule],
    istio_code: None,
    summary: "credentialName in a DestinationRule that sidecars ignore",
    docs: "\
## What it looks for
A DestinationRule with `tls.mode: SIMPLE` or `MUTUAL` and a `credentialName`, without a `workloadSelector`, for a host that
sidecars call directly.

## Why it matters for gRPC
istiod gives the Secret only to gateways and to the sidecars that a `workloadSelector` selects. Other sidecars ignore
the whole `tls` block and connect in plaintext. A server that expects TLS closes the connection: UNAVAILABLE, flag UC.
A server that accepts plaintext gets the calls unencrypted.

## Example
```yaml
kind: DestinationRule
spec:
  host: api.example.com
  trafficPolicy: {tls: {mode: SIMPLE, credentialName: api-ca}}
```

## Fix
Select the callers, whose namespace must contain the Secret:
```yaml
spec:
  workloadSelector: {matchLabels: {app: web}}
```
Or mount the certificates into the pods and name the files with `caCertificates`.

## References
- Istio source: `buildUpstreamClusterTLSContext` in `pilot/pkg/networking/core/cluster_tls.go`.
- API: `ClientTLSSettings.credentialName`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let needs_secret = |tls: &ClientTls| tls.needs_secret();
    if !mesh.destination_rules.iter().any(|rule| rule.spec.tls_settings().any(needs_secret)) {
        return;
    }
    let mut reported: BTreeSet<(ObjectRef, String)> = BTreeSet::new();
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        let callers = sidecar_callers(mesh, service.namespace());
        for port in &service.ports {
            let mut namespaces = Vec::new();
            let mut found: Option<WrittenTls> = None;
            for caller in &callers {
                let backend = port_backend(mesh, caller, service, port.number);
                let written = mesh.written_tls(caller, &backend).filter(|written| written.is_ignored);
                if let Some(written) = written.filter(|_| mesh.calls_directly(caller, id, port.number)) {
                    namespaces.push(caller.namespace.clone());
                    found = Some(written);
                }
            }
            if let Some(written) = found
                && reported.insert((written.object.clone(), written.field.clone()))
            {
                out.add(&RULE, finding(&written, &service.host.to_string(), port.number, &namespaces));
            }
        }
    }
}

/// One caller for each namespace with sidecars; without any pods, one in the namespace of the host.
fn sidecar_callers(mesh: &Mesh<'_>, own_namespace: &Namespace) -> Vec<Caller> {
    let mut namespaces: BTreeSet<&Namespace> = BTreeSet::new();
    for id in mesh.workload_ids() {
        let caller = Caller::of_workload(mesh, id);
        let workload = mesh.workload(id);
        if caller.kind == CallerKind::Sidecar && workload.proxy.is_meshed() != Some(false) {
            namespaces.insert(workload.namespace());
        }
    }
    if namespaces.is_empty() && mesh.workloads.is_empty() {
        namespaces.insert(own_namespace);
    }
    namespaces.into_iter().map(|namespace| Caller::in_namespace(namespace.clone())).collect()
}

fn finding(written: &WrittenTls, host: &str, port: u16, namespaces: &[Namespace]) -> Finding {
    Finding::new(&RULE, &written.object, format!("{}.credentialName", written.field))
        .message(format!(
            "sidecars ignore credentialName without a workloadSelector: calls to {host} port {port} leave in plaintext"
        ))
        .impact("a server that expects TLS closes the connection: UNAVAILABLE, flag UC; others get plaintext")
        .callers(namespaces)
        .evidence([format!("{} has mode {} and no workloadSelector", written.object, written.mode)])
        .fix("spec:\n  workloadSelector:\n    matchLabels: {app: CALLER}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, pod};

    fn mesh(extra: &str, tls: &str) -> String {
        istio(
            "ServiceEntry",
            "api",
            "{hosts: [api.example.com], resolution: DNS, ports: [{number: 443, name: grpc, protocol: GRPC}]}",
        ) + &pod("a", "v1")
            + &istio(
                "DestinationRule",
                "api",
                &format!("{{host: api.example.com, {extra}trafficPolicy: {{tls: {tls}}}}}"),
            )
    }

    #[test]
    fn reports_a_credential_without_selector() {
        let yaml = mesh("", "{mode: SIMPLE, credentialName: ca}");
        let expected = "error DestinationRule shop/api spec.trafficPolicy.tls.credentialName";
        assert_findings(&RULE, &yaml, &[expected]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn is_silent_with_a_selector_and_behind_an_egress_gateway() {
        let tls = "{mode: SIMPLE, credentialName: ca}";
        assert_findings(&RULE, &mesh("workloadSelector: {matchLabels: {app: a}}, ", tls), &[]);
        assert_findings(&RULE, &mesh("", "{mode: SIMPLE, caCertificates: /etc/ca.pem}"), &[]);
        let egress = istio(
            "VirtualService",
            "api",
            "{hosts: [api.example.com], http: [{route: [{destination: {host: egress.shop.svc.cluster.local}}]}]}",
        );
        assert_findings(&RULE, &(mesh("", tls) + &egress), &[]);
    }
}
