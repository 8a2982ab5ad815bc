//! GM717: proxyless gRPC.

use crate::mesh::Mesh;
use crate::mesh::workload::ProxyKind;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM717",
    name: "proxyless-grpc",
    severity: Severity::Info,
    needs: &[],
    istio_code: None,
    summary: "Proxyless gRPC: the client library does what an Envoy would",
    docs: "\
## What it looks for
Pods with the injection template `grpc-agent` or `grpc-simple`.

## Why it matters for gRPC
There is no Envoy: gRPC's own xDS client gets routes and endpoints from istiod. It balances calls, but it knows only a
part of what an Envoy knows (no fault injection in older libraries, no Envoy retries by header), only targets dialled as
`xds:///…` take part, and there is no admin port and no access log to look at.

## Example
```yaml
metadata:
  annotations: {inject.istio.io/templates: grpc-agent}
```

## Repair
None is needed. To see and shift calls of these pods, use the client library's own metrics.

## References
- Istio: `manifests/charts/istio-control/istio-discovery/files/grpc-agent.yaml`.
- Seen on a real mesh: `tests/lab/effects/GM717.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in mesh.services.iter().filter(|service| service.is_kubernetes()) {
        let Some(first) = mesh.workloads_of(service).find(|workload| workload.proxy == ProxyKind::Proxyless) else {
            continue;
        };
        let finding = Finding::new(&RULE, &service.object, "spec.selector")
            .message(format!("pods of {} use gRPC without a proxy", service.object))
            .impact("only clients that dial xds:/// are balanced by the mesh; there is no Envoy to inspect and no access log")
            .evidence([format!("{} has an injection template for proxyless gRPC", first.title())])
            .fix("nothing, if this is meant; else remove the annotation inject.istio.io/templates");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, pod, service};

    #[test]
    fn proxyless_pods_are_told() {
        let yaml = service("a", "{name: grpc, port: 1}")
            + &pod("a", "v1")
                .replace("metadata: {", "metadata: {annotations: {inject.istio.io/templates: grpc-agent}, ");
        check(&RULE, &yaml, &["info Service shop/a spec.selector"]);
    }

    #[test]
    fn sidecars_are_silent() {
        check(&RULE, &(service("a", "{name: grpc, port: 1}") + &pod("a", "v1")), &[]);
    }
}
