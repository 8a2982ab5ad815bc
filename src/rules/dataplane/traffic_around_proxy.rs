//! GM718: annotations that lead gRPC traffic round the proxy.

use std::collections::{BTreeSet, HashMap};

use crate::mesh::Mesh;
use crate::mesh::ids::{Namespace, WorkloadId};
use crate::mesh::service::Service;
use crate::mesh::traffic_exclusion::{ExclusionEffect, IpRange, PortSet};
use crate::mesh::workload::{ProxyKind, Workload};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::string_list::few;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM718",
    name: "traffic-around-proxy",
    severity: Severity::Warning,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "Annotations that lead a gRPC Service's traffic round the proxy",
    docs: "\
## What it looks for
`traffic.sidecar.istio.io/` annotations on a pod with a sidecar that exclude the pod port of a gRPC Service (inbound), or
the port or the address of a gRPC Service (outbound).

## Why it matters for gRPC
Excluded traffic does not meet the proxy. Outbound, calls are not balanced or routed and carry no mTLS, so a strict
server refuses them. Inbound, a strict policy does not protect the port and nothing is logged. Exclusions are often left
over from the time before the server had a sidecar.

## Example
```yaml
metadata:
  annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: '50051'}
```

## Repair
Remove the port from the annotation and restart the pods.

## References
- Seen on a real mesh: `tests/lab/effects/GM718.yaml`.
- Istio: annotations `excludeInboundPorts`, `includeInboundPorts`, `excludeOutboundPorts`, `excludeOutboundIPRanges`,
  `includeOutboundIPRanges`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let excluding = mesh.workloads.iter().enumerate().filter(|(_, workload)| {
        !workload.exclusions.is_empty() && matches!(workload.proxy, ProxyKind::Sidecar(_) | ProxyKind::WillBeInjected)
    });
    let grpc: Vec<&Service> = mesh.services.iter().filter(|service| service.has_grpc()).collect();
    let mut told: BTreeSet<(&Namespace, String, &str)> = BTreeSet::new();
    // Annotations are mostly copies of each other: what one value leads out is looked for once.
    let mut outbound: HashMap<(&str, &str), Vec<BypassedPort<'_>>> = HashMap::new();
    for (position, workload) in excluding {
        let id = WorkloadId::new(position);
        for exclusion in &workload.exclusions {
            let key = (workload.namespace(), workload.title(), &*exclusion.annotation);
            if told.contains(&key) {
                continue;
            }
            let touched: Vec<String> = match &exclusion.effect {
                ExclusionEffect::Inbound(ports) => inbound(mesh, id, workload, ports),
                effect => outbound
                    .entry((&exclusion.annotation, &exclusion.value))
                    .or_insert_with(|| outbound_of(&grpc, effect))
                    .iter()
                    .filter(|touched| !touched.service.workloads.contains(&id))
                    .map(|touched| format!("{} port {}", touched.service.object.path(), touched.port))
                    .collect(),
            };
            if touched.is_empty() {
                continue;
            }
            told.insert(key);
            let is_inbound = matches!(exclusion.effect, ExclusionEffect::Inbound(_));
            let effect = if is_inbound {
                "calls arrive without mTLS and authorization, and nothing is logged on this side"
            } else {
                "calls are not balanced, routed or retried and carry no mTLS; a strict server refuses them"
            };
            let shown = few(&touched, 4);
            let finding =
                Finding::new(&RULE, &workload.object, format!("metadata.annotations[\"{}\"]", exclusion.annotation))
                    .message(format!(
                        "{} {} round the proxy of {}",
                        if is_inbound { "calls to" } else { "its calls to" },
                        format_args!("{shown} go"),
                        workload.title()
                    ))
                    .impact(effect)
                    .evidence([format!("{}: \"{}\"", exclusion.annotation, exclusion.value)])
                    .fix(format!("remove it from {} and restart {}", exclusion.annotation, workload.title()));
            out.add(&RULE, finding);
        }
    }
}

/// A gRPC port that calls of others reach by going round their proxy.
struct BypassedPort<'m> {
    service: &'m Service,
    port: u16,
}

/// gRPC ports of the workload's own Services that calls reach without its proxy.
fn inbound(mesh: &Mesh<'_>, id: WorkloadId, workload: &Workload, ports: &PortSet) -> Vec<String> {
    let mut found = Vec::new();
    for service in mesh.services_of(id) {
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            if port.target.number_in(workload).is_some_and(|number| ports.contains(number)) {
                found.push(format!("{} port {}", service.object.path(), port.number));
            }
        }
    }
    found
}

fn outbound_of<'m>(grpc: &[&'m Service], effect: &ExclusionEffect) -> Vec<BypassedPort<'m>> {
    let mut found = Vec::new();
    for service in grpc {
        let in_any = |ranges: &[IpRange]| {
            service.addresses.iter().any(|address| ranges.iter().any(|range| range.contains(*address)))
        };
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            let hit = match effect {
                ExclusionEffect::Inbound(_) => false,
                ExclusionEffect::Outbound(ports) => ports.contains(port.number),
                ExclusionEffect::Addresses(ranges) => in_any(ranges),
                ExclusionEffect::OnlyAddresses(ranges) => !service.addresses.is_empty() && !in_any(ranges),
            };
            if hit {
                found.push(BypassedPort { service, port: port.number });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, pod, service};

    fn mesh(annotation: &str) -> String {
        service("a", "{name: grpc, port: 9000, targetPort: 50051}")
            + &service("b", "{name: grpc, port: 7000}")
            + &pod("a", "v1").replace(
                "metadata: {",
                &format!("metadata: {{annotations: {{traffic.sidecar.istio.io/{annotation}}}, "),
            )
    }

    #[track_caller]
    fn fires(annotation: &str) {
        let name = annotation.split(':').next().unwrap();
        check(
            &RULE,
            &mesh(annotation),
            &[&format!("warning Pod shop/a-v1 metadata.annotations[\"traffic.sidecar.istio.io/{name}\"]")],
        );
    }

    #[test]
    fn excluded_ports_and_addresses_of_grpc_services_are_reported() {
        fires("excludeInboundPorts: '50051'");
        fires("includeInboundPorts: '8080'");
        fires("excludeOutboundPorts: '1,7000'");
        fires("excludeOutboundIPRanges: 10.96.0.0/12");
        fires("includeOutboundIPRanges: 192.168.0.0/16");
        check_gap(&RULE, &mesh("excludeOutboundPorts: '7000'"));
    }

    #[test]
    fn exclusions_of_something_else_are_silent() {
        for annotation in [
            "excludeInboundPorts: '8080'",
            "includeInboundPorts: '*'",
            "excludeOutboundPorts: '3306'",
            "excludeOutboundIPRanges: 169.254.169.254/32",
            "includeOutboundIPRanges: '*'",
        ] {
            check(&RULE, &mesh(annotation), &[]);
        }
    }
}
