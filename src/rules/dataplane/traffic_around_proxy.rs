//! GM718: annotations that exclude gRPC traffic from the proxy.

use std::collections::{BTreeSet, HashMap};

use crate::mesh::Mesh;
use crate::mesh::ids::{Namespace, WorkloadId};
use crate::mesh::service::Service;
use crate::mesh::traffic_exclusion::{ExclusionEffect, IpRange, PortSet};
use crate::mesh::workload::{ProxyKind, Workload};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::name_list::abbreviate;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM718",
    name: "traffic-around-proxy",
    severity: Severity::Warning,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "Annotations that exclude the traffic of a gRPC Service from the proxy",
    docs: "\
## What it looks for
`traffic.sidecar.istio.io/` annotations on a pod with a sidecar that exclude the pod port of a gRPC Service (inbound),
or the port or address of a gRPC Service (outbound).

## Why it matters for gRPC
Excluded traffic bypasses the proxy. Outbound calls are not balanced, routed or retried and have no mTLS, so that a
server with strict mTLS rejects them. Inbound calls are not covered by a strict policy and are not logged. Exclusions
often date from the time before the server had a sidecar.

## Example
```yaml
metadata:
  annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: '50051'}
```

## Fix
Remove the port from the annotation and restart the pods.

## References
- Verified on a real mesh: `tests/lab/effects/GM718.yaml`.
- Istio: annotations `excludeInboundPorts`, `includeInboundPorts`, `excludeOutboundPorts`, `excludeOutboundIPRanges`,
  `includeOutboundIPRanges`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let excluding = mesh.workloads.iter().enumerate().filter(|(_, workload)| {
        !workload.exclusions.is_empty() && matches!(workload.proxy, ProxyKind::Sidecar(_) | ProxyKind::WillBeInjected)
    });
    let grpc_services: Vec<&Service> = mesh.services.iter().filter(|service| service.has_grpc_evidence()).collect();
    let mut reported: BTreeSet<(&Namespace, String, &str)> = BTreeSet::new();
    // Most pods share the same annotation values: compute the bypassed ports of each value once.
    let mut outbound_ports: HashMap<(&str, &str), Vec<BypassedPort<'_>>> = HashMap::new();
    for (position, workload) in excluding {
        let id = WorkloadId::new(position);
        for exclusion in &workload.exclusions {
            let key = (workload.namespace(), workload.title(), &*exclusion.annotation);
            if reported.contains(&key) {
                continue;
            }
            let bypassed: Vec<String> = match &exclusion.effect {
                ExclusionEffect::Inbound(ports) => bypassed_inbound_ports(mesh, id, workload, ports),
                effect => outbound_ports
                    .entry((&exclusion.annotation, &exclusion.value))
                    .or_insert_with(|| bypassed_outbound_ports(&grpc_services, effect))
                    .iter()
                    .filter(|bypassed| !bypassed.service.workloads.contains(&id))
                    .map(|bypassed| format!("{} port {}", bypassed.service.object.path(), bypassed.port))
                    .collect(),
            };
            if bypassed.is_empty() {
                continue;
            }
            reported.insert(key);
            let is_inbound = matches!(exclusion.effect, ExclusionEffect::Inbound(_));
            let impact = if is_inbound {
                "calls arrive without mTLS and authorization, and the server side does not log them"
            } else {
                "calls are not balanced, routed or retried and have no mTLS: a server with strict \
                 mTLS rejects them (UNAVAILABLE)"
            };
            let ports = abbreviate(&bypassed, 4);
            let finding =
                Finding::new(&RULE, &workload.object, format!("metadata.annotations[\"{}\"]", exclusion.annotation))
                    .message(if is_inbound {
                        format!("calls to {ports} bypass the proxy of {}", workload.title())
                    } else {
                        format!("calls from {} to {ports} bypass its proxy", workload.title())
                    })
                    .impact(impact)
                    .evidence([format!("{}: \"{}\"", exclusion.annotation, exclusion.value)])
                    .fix(format!(
                        "remove the port or address from {} and restart {}",
                        exclusion.annotation,
                        workload.title()
                    ));
            out.add(&RULE, finding);
        }
    }
}

/// A gRPC port that calls reach without passing through the proxy of the caller.
struct BypassedPort<'m> {
    service: &'m Service,
    port: u16,
}

/// gRPC ports of a workload's own Services that calls reach without passing through its proxy.
fn bypassed_inbound_ports(mesh: &Mesh<'_>, id: WorkloadId, workload: &Workload, ports: &PortSet) -> Vec<String> {
    let mut ports_found = Vec::new();
    for service in mesh.services_selecting(id) {
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            if port.target.number_in(workload).is_some_and(|number| ports.contains(number)) {
                ports_found.push(format!("{} port {}", service.object.path(), port.number));
            }
        }
    }
    ports_found
}

/// gRPC ports of Services that an outbound exclusion takes out of the caller's proxy.
fn bypassed_outbound_ports<'m>(grpc_services: &[&'m Service], effect: &ExclusionEffect) -> Vec<BypassedPort<'m>> {
    let mut bypassed = Vec::new();
    for service in grpc_services {
        let is_in_ranges = |ranges: &[IpRange]| {
            service.addresses.iter().any(|address| ranges.iter().any(|range| range.contains(*address)))
        };
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            let is_bypassed = match effect {
                ExclusionEffect::Inbound(_) => false,
                ExclusionEffect::Outbound(ports) => ports.contains(port.number),
                ExclusionEffect::Addresses(ranges) => is_in_ranges(ranges),
                ExclusionEffect::OnlyAddresses(ranges) => !service.addresses.is_empty() && !is_in_ranges(ranges),
            };
            if is_bypassed {
                bypassed.push(BypassedPort { service, port: port.number });
            }
        }
    }
    bypassed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, pod, service};

    fn mesh(annotation: &str) -> String {
        service("a", "{name: grpc, port: 9000, targetPort: 50051}")
            + &service("b", "{name: grpc, port: 7000}")
            + &pod("a", "v1").replace(
                "metadata: {",
                &format!("metadata: {{annotations: {{traffic.sidecar.istio.io/{annotation}}}, "),
            )
    }

    #[track_caller]
    fn assert_reported(annotation: &str) {
        let name = annotation.split(':').next().unwrap();
        assert_findings(
            &RULE,
            &mesh(annotation),
            &[&format!("warning Pod shop/a-v1 metadata.annotations[\"traffic.sidecar.istio.io/{name}\"]")],
        );
    }

    #[test]
    fn reports_excluded_ports_and_addresses_of_grpc_services() {
        assert_reported("excludeInboundPorts: '50051'");
        assert_reported("includeInboundPorts: '8080'");
        assert_reported("excludeOutboundPorts: '1,7000'");
        assert_reported("excludeOutboundIPRanges: 10.96.0.0/12");
        assert_reported("includeOutboundIPRanges: 192.168.0.0/16");
        assert_undecided_on_gap(&RULE, &mesh("excludeOutboundPorts: '7000'"));
    }

    #[test]
    fn ignores_exclusions_of_other_ports_and_addresses() {
        for annotation in [
            "excludeInboundPorts: '8080'",
            "includeInboundPorts: '*'",
            "excludeOutboundPorts: '3306'",
            "excludeOutboundIPRanges: 169.254.169.254/32",
            "includeOutboundIPRanges: '*'",
        ] {
            assert_findings(&RULE, &mesh(annotation), &[]);
        }
    }
}
