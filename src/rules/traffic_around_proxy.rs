//! GM718: annotations that lead gRPC traffic round the proxy.

use std::collections::BTreeSet;

use super::{Finding, Findings, Rule, Severity};
use crate::mesh::Mesh;
use crate::mesh::ids::{Namespace, WorkloadId};
use crate::mesh::service::{Service, TargetPort};
use crate::mesh::workload::{ExclusionEffect, Proxy, Workload};
use crate::schema::Kind;

pub(super) static RULE: Rule = Rule {
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
- Istio: annotations `excludeInboundPorts`, `includeInboundPorts`, `excludeOutboundPorts`, `excludeOutboundIPRanges`,
  `includeOutboundIPRanges`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let excluding = mesh.workloads.iter().enumerate().filter(|(_, workload)| {
        !workload.exclusions.is_empty() && matches!(workload.proxy, Proxy::Sidecar(_) | Proxy::WillBeInjected)
    });
    let grpc: Vec<&Service> = mesh.services.iter().filter(|service| service.has_grpc()).collect();
    let mut told: BTreeSet<(Namespace, String, String)> = BTreeSet::new();
    for (position, workload) in excluding {
        for exclusion in &workload.exclusions {
            let touched = touched(&grpc, WorkloadId::new(position), workload, &exclusion.effect);
            if touched.is_empty()
                || !told.insert((workload.namespace().clone(), workload.title(), exclusion.annotation.to_string()))
            {
                continue;
            }
            let inbound = matches!(exclusion.effect, ExclusionEffect::Inbound(_));
            let effect = if inbound {
                "calls arrive without mTLS and authorization, and nothing is logged on this side"
            } else {
                "calls are not balanced, routed or retried and carry no mTLS; a strict server refuses them"
            };
            let shown = touched.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
            let more = touched.len().saturating_sub(4);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let finding =
                Finding::new(&RULE, &workload.object, format!("metadata.annotations[\"{}\"]", exclusion.annotation))
                    .message(format!(
                        "{} {} round the proxy of {}",
                        if inbound { "calls to" } else { "its calls to" },
                        format_args!("{shown}{more} go"),
                        workload.title()
                    ))
                    .effect(effect)
                    .evidence([format!("{}: \"{}\"", exclusion.annotation, exclusion.value)])
                    .fix(format!("remove it from {} and restart {}", exclusion.annotation, workload.title()));
            out.add(&RULE, finding);
        }
    }
}

/// The gRPC ports that an exclusion touches.
fn touched(grpc: &[&Service], id: WorkloadId, workload: &Workload, effect: &ExclusionEffect) -> Vec<String> {
    let mut found = Vec::new();
    for service in grpc {
        let is_own = service.workloads.contains(&id);
        for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
            let hit = match effect {
                ExclusionEffect::Inbound(ports) => {
                    let number = match &port.target {
                        TargetPort::Number(number) => Some(*number),
                        TargetPort::Name(name) => {
                            workload.ports.iter().find(|p| p.name.as_deref() == Some(&**name)).map(|p| p.number)
                        }
                    };
                    is_own && number.is_some_and(|number| ports.contains(number))
                }
                ExclusionEffect::Outbound(ports) => !is_own && ports.contains(port.number),
                ExclusionEffect::Addresses(ranges) => {
                    !is_own
                        && service.addresses.iter().any(|address| ranges.iter().any(|range| range.contains(*address)))
                }
                ExclusionEffect::OnlyAddresses(ranges) => {
                    !is_own
                        && !service.addresses.is_empty()
                        && !service.addresses.iter().any(|address| ranges.iter().any(|range| range.contains(*address)))
                }
            };
            if hit {
                found.push(format!("{} port {}", service.object.path(), port.number));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_gap, pod, service};
    use super::*;

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
