//! GM717: pods that use proxyless gRPC.

use crate::mesh::Mesh;
use crate::mesh::workload::ProxyKind;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM717",
    name: "proxyless-grpc",
    severity: Severity::Info,
    needs: &[],
    istio_code: None,
    summary: "Proxyless gRPC: the client library routes calls instead of an Envoy",
    docs: "\
## What it looks for
Pods of a Service with the injection template `grpc-agent` or `grpc-simple`.

## Why it matters for gRPC
These pods have no Envoy. The xDS client of the gRPC library gets routes and endpoints from istiod. It balances calls,
but supports only a part of Envoy's features (older libraries have no fault injection, and none have Envoy's retries by
header) and only for targets with the `xds:///` scheme. There is no admin port and no access log to inspect.

## Example
```yaml
metadata:
  annotations: {inject.istio.io/templates: grpc-agent}
```

## Fix
No change is needed. To monitor and shift the calls of these pods, use the metrics of the client library.

## References
- Istio: `manifests/charts/istio-control/istio-discovery/files/grpc-agent.yaml`.
- Verified on a real mesh: `tests/lab/effects/GM717.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in mesh.services.iter().filter(|service| service.is_kubernetes()) {
        let Some(first) = mesh.workloads_of(service).find(|workload| workload.proxy == ProxyKind::Proxyless) else {
            continue;
        };
        let finding = Finding::new(&RULE, &service.object, "spec.selector")
            .message(format!("the pods of {} use proxyless gRPC", service.object))
            .impact(
                "only targets with the xds:/// scheme use routes and load balancing of the mesh, \
                     and there is no admin port or access log",
            )
            .evidence([format!(
                "{} has an injection template for proxyless gRPC (grpc-agent or \
                                grpc-simple)",
                first.title()
            )])
            .fix("to use a sidecar instead, remove the annotation inject.istio.io/templates and restart the pods");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, pod, service};

    #[test]
    fn reports_proxyless_pods() {
        let yaml = service("a", "{name: grpc, port: 1}")
            + &pod("a", "v1")
                .replace("metadata: {", "metadata: {annotations: {inject.istio.io/templates: grpc-agent}, ");
        assert_findings(&RULE, &yaml, &["info Service shop/a spec.selector"]);
    }

    #[test]
    fn accepts_sidecars() {
        assert_findings(&RULE, &(service("a", "{name: grpc, port: 1}") + &pod("a", "v1")), &[]);
    }
}
